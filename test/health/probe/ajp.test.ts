import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parseAjp } from '../../../src/health/probe/ajp.js'
import { startTomcat, TOMCAT, whereInstalled, type Running } from '../../support/servers.js'
import { probeContract } from './contract.js'
import { checkOnce, probeOf, startTcp } from './servers.js'

const ajp = () => probeOf(parseAjp, { type: 'ajp' })
const CPONG = Buffer.of(0x41, 0x42, 0, 1, 9)

probeContract('ajp', {
  parse: parseAjp,
  options: { type: 'ajp' },
  healthy: () => startTcp((socket) => socket.once('data', () => socket.write(CPONG))),
})

describe('ajp', () => {
  it('says CPing', async () => {
    const heard: Buffer[] = []
    const server = await startTcp((socket) => socket.on('data', (data) => heard.push(data) && socket.write(CPONG)))
    expect(await checkOnce(ajp(), server)).toEqual({ status: 'ok' })
    expect(Buffer.concat(heard).toString('hex')).toBe('123400010a')
  })

  it('tells what else the other side said', async () => {
    const server = await startTcp((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n'))
    const report = { status: 'err', message: 'no AJP answer: "HTTP/1.1 400 Bad Request"' }
    expect(await checkOnce(ajp(), server)).toEqual(report)
  })
})

whereInstalled('ajp', `${TOMCAT}/bin/bootstrap.jar`, () => {
  let tomcat: Running
  beforeAll(async () => void (tomcat = await startTomcat()))
  afterAll(() => tomcat.stop())

  probeContract('ajp of Tomcat', {
    parse: parseAjp,
    options: { type: 'ajp' },
    healthy: async () => ({ port: tomcat.port }),
  })
})
