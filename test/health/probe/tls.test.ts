import { readFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { createServer, type TlsOptions } from 'node:tls'
import { describe, expect, it } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { parseTls } from '../../../src/health/probe/tls.js'
import { eventually } from '../../support/eventually.js'
import { probeContract } from './contract.js'
import { checkOnce, deserted, listen, probeOf, startTcp, targetOf } from './servers.js'

const pem = (name: string) => readFileSync(new URL(`../../support/tls/${name}.pem`, import.meta.url), 'utf8')
/** For localhost and 127.0.0.1, self-signed; it expires at this time. */
const good = { cert: pem('cert'), key: pem('key') }
const EXPIRY = Date.parse('2126-10-28T06:21:24Z')
/** The same, of one day of 2020. */
const expired = { cert: pem('expired-cert'), key: pem('expired-key') }
const DAY = 86_400_000

const startTls = (options: TlsOptions = good) => {
  const server = createServer(options, (socket) => socket.on('error', () => undefined).resume())
  return listen(server.on('tlsClientError', () => undefined))
}
const tls = (options: object = {}, now?: number) =>
  probeOf(parseTls, { type: 'tls', tls: { ca: good.cert }, ...options }, now)

probeContract('tls', {
  parse: parseTls,
  options: { type: 'tls', tls: { ca: good.cert, servername: 'localhost' } },
  healthy: startTls,
})

describe('tls', () => {
  it('is ok when the handshake is complete, and knows the certificate', async () => {
    const facts = { protocol: 'TLSv1.3', expires: '2126-10-28T06:21:24.000Z', issuer: 'localhost' }
    expect(await checkOnce(tls(), await startTls())).toEqual({ status: 'ok', facts })
  })

  it('asks for the name it is told, else for the host if it is a name', async () => {
    const asked: unknown[] = []
    const server = await startTls()
    server.server.on('secureConnection', ({ servername }: { servername: unknown }) => asked.push(servername))
    const checks = [
      [tls({ tls: { ca: good.cert, servername: 'localhost' } }), '127.0.0.1'],
      [tls(), 'localhost'],
      [tls(), '127.0.0.1'],
    ] as const
    for (const [probe, host] of checks) {
      expect(await checkOnce(probe, targetOf({ host, port: server.port }))).toMatchObject({ status: 'ok' })
    }
    await eventually(() => expect(asked).toEqual(['localhost', 'localhost', false]))
  })

  it.each(['TLSv1.2', 'TLSv1.3'] as const)('completes the handshake for the server too (%s)', async (maxVersion) => {
    const server = await startTls({ ...good, maxVersion })
    const seen: string[] = []
    server.server.on('secureConnection', (socket: Socket) => socket.once('end', () => seen.push('ended')))
    server.server.on('tlsClientError', ({ message }: Error) => seen.push(message))
    expect(await checkOnce(tls(), server)).toMatchObject({ status: 'ok', facts: { protocol: maxVersion } })
    await deserted(server)
    await eventually(() => expect(seen).toEqual(['ended']))
  })

  it.each<[string, object, TlsOptions, string]>([
    ['an expired certificate', { ca: expired.cert }, expired, 'certificate has expired'],
    ['an unknown certificate', {}, good, 'self-signed certificate'],
    ['another name', { ca: good.cert, servername: 'other.test' }, good, 'certificate is for another name'],
    [
      'an old version',
      { minVersion: 'TLSv1.3' },
      { ...good, maxVersion: 'TLSv1.2' },
      'TLS: tlsv1 alert protocol version',
    ],
  ])('fails with %s', async (_, options, server, message) => {
    expect(await checkOnce(tls({ tls: options }), await startTls(server))).toEqual({ status: 'err', message })
  })

  it('fails with a server that speaks no TLS', async () => {
    const server = await startTcp((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    expect(await checkOnce(tls(), server)).toEqual({ status: 'err', message: 'TLS: wrong version number' })
  })

  it.each([{ servername: 'other.test' }, {}])('takes any certificate if it is told to (%j)', async (more) => {
    const probe = tls({ tls: { ...more, rejectUnauthorized: false } })
    expect(await checkOnce(probe, await startTls(expired))).toMatchObject({
      status: 'ok',
      facts: { expires: '2020-01-02T00:00:00.000Z' },
    })
  })

  it('shows its own certificate', async () => {
    const server = await startTls({ ...good, ca: good.cert, requestCert: true, maxVersion: 'TLSv1.2' })
    expect(await checkOnce(tls({ tls: { ca: good.cert, ...good } }), server)).toMatchObject({ status: 'ok' })
    expect(await checkOnce(tls(), server)).toMatchObject({ status: 'err' })
  })

  it.each<[number, string, string | undefined]>([
    [EXPIRY - 30 * DAY, 'ok', undefined],
    [EXPIRY - 30 * DAY + 1, 'ok', 'certificate expires in 29 days'],
    [EXPIRY - DAY, 'ok', 'certificate expires in 1 day'],
    [EXPIRY - 1, 'ok', 'certificate expires in 0 days'],
    [EXPIRY + 1, 'ok', 'certificate has expired'],
  ])('counts the days left at %d: %s', async (now, status, message) => {
    const report = await checkOnce(tls({ minDaysLeft: 30 }, now), await startTls())
    expect({ status: report.status, message: report.message }).toEqual({ status, message })
  })

  it.each<[object, string]>([
    [{ minDaysLeft: 0 }, 'heartbeat.minDaysLeft: expected an integer from 1 to 3650, got 0'],
    [{ tls: true }, 'heartbeat.tls: expected an object, got true'],
    [{ tls: { verify: false } }, 'heartbeat.tls.verify: unknown option'],
    [{ tls: { cert: good.cert } }, 'heartbeat.tls: cert and key belong together'],
    [{ tls: { cert: 'x', key: 'y' } }, 'heartbeat.tls: cannot be used: '],
    [{ tls: { ca: 5 } }, 'heartbeat.tls.ca: expected PEM, a string or bytes, got 5'],
    [{ tls: { servername: '127.0.0.1' } }, 'heartbeat.tls.servername: expected a host name, got "127.0.0.1"'],
    [{ tls: { minVersion: 'SSLv3' } }, 'heartbeat.tls.minVersion: expected "TLSv1" or '],
    [{ tls: { rejectUnauthorized: 'no' } }, 'heartbeat.tls.rejectUnauthorized: expected true or false, got "no"'],
  ])('refuses %j', (options, message) => {
    expect(() => tls(options)).toThrow(ConfigError)
    expect(() => tls(options)).toThrow(message)
  })
})
