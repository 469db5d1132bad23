import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { loadOptional } from '../../../src/optional.js'
import { parseRedis } from '../../../src/health/probe/redis.js'
import { eventually } from '../../support/eventually.js'
import { certificate, freePort, startRedis, whereInstalled, type Running } from '../../support/servers.js'
import { probeContract } from './contract.js'
import { checkOnce, probeOf, startTcp } from './servers.js'

const redis = (options: object = {}) => probeOf(parseRedis, { type: 'redis', ...options })
const ca = readFileSync(certificate.cert)

describe('redis', () => {
  it.each([
    [{ username: 'checker' }, 'heartbeat.username: needs a password'],
    [{ password: '' }, 'heartbeat.password: expected a non-empty string, got ""'],
    [{ username: 1, password: 'secret' }, 'heartbeat.username: expected a non-empty string, got 1'],
    [{ tls: 'yes' }, 'heartbeat.tls: expected an object, got "yes"'],
  ])('refuses %j', (options, message) => {
    expect(() => redis(options)).toThrow(ConfigError)
    expect(() => redis(options)).toThrow(message)
  })

  it.each(['LOADING Redis is loading the dataset in memory', 'MASTERDOWN Link with MASTER is down'])(
    'fails with the words of the server: %s',
    async (message) => {
      const server = await startTcp((socket) => socket.on('data', () => socket.write(`-${message}\r\n`)))
      expect(await checkOnce(redis(), server)).toEqual({ status: 'err', message })
    },
  )

  it('names the package to install where it is missing', async () => {
    const absent = 'package-that-is-not-there'
    const load = loadOptional('the redis probe', absent, () => import(absent))
    await expect(load).rejects.toThrow(`the redis probe needs the package ${absent}: npm install ${absent}`)
    const broken = new SyntaxError('broken')
    await expect(loadOptional('the redis probe', absent, () => Promise.reject(broken))).rejects.toBe(broken)
  })

  it('tells that it is no Redis', async () => {
    const server = await startTcp((socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n')))
    const report = { status: 'err', message: 'no Redis answer: Protocol error, got "H" as reply type byte' }
    expect(await checkOnce(redis(), server)).toEqual(report)
  })
})

whereInstalled('redis', 'redis-server', () => {
  let server: Running
  let guarded: Running
  const password = 'secret'
  beforeAll(async () => {
    const acl = ['--user', 'checker', 'on', '>word', '+ping', '--user', 'mute', 'on', '>word', '+info']
    ;[server, guarded] = await Promise.all([startRedis(), startRedis(['--requirepass', password, ...acl])])
  })
  afterAll(() => Promise.all([server.stop(), guarded.stop()]))

  probeContract('redis', {
    parse: parseRedis,
    options: { type: 'redis' },
    healthy: async () => ({ port: server.port }),
  })
  probeContract('redis with a password', {
    parse: parseRedis,
    options: { type: 'redis', password },
    healthy: async () => ({ port: guarded.port }),
  })

  describe('redis-server', () => {
    const facts = { role: 'master', redis_version: expect.stringMatching(/^\d+\.\d+\.\d+$/) as string }

    it('tells its role and version', async () => {
      expect(await checkOnce(redis(), server)).toEqual({ status: 'ok', facts })
    })

    it('is found at a unix socket', async () => {
      const path = join(server.folder, 'redis.sock')
      expect(await checkOnce(redis(), { path })).toEqual({ status: 'ok', facts })
    })

    it('refuses whoever says no password, a wrong one, or one that it does not want', async () => {
      const wrong = 'WRONGPASS invalid username-password pair or user is disabled.'
      expect(await checkOnce(redis(), guarded)).toEqual({ status: 'err', message: 'NOAUTH Authentication required.' })
      expect(await checkOnce(redis({ password: 'wrong' }), guarded)).toEqual({ status: 'err', message: wrong })
      const warn = vi.spyOn(console, 'warn')
      onTestFinished(() => warn.mockRestore())
      const report = await checkOnce(redis({ password }), server)
      expect(report).toMatchObject({ status: 'err', message: expect.stringMatching(/without any password/) as string })
      expect(warn).not.toHaveBeenCalled()
    })

    it('is ok for a user who may PING and not INFO, and not for one who may not PING', async () => {
      const report = await checkOnce(redis({ username: 'checker', password: 'word' }), guarded)
      const message = expect.stringMatching(/^INFO: NOPERM /) as string
      expect(report).toEqual({ status: 'ok', message, facts: {} })
      const mute = await checkOnce(redis({ username: 'mute', password: 'word' }), guarded)
      expect(mute).toEqual({ status: 'err', message: expect.stringMatching(/^NOPERM /) as string })
    })

    it('is err while it takes no more clients', async () => {
      const full = await startRedis(['--maxclients', '1'])
      onTestFinished(() => full.stop())
      expect(await checkOnce(redis(), full)).toMatchObject({ status: 'ok' })
      const { Redis } = await import('ioredis')
      const client = new Redis(full.port, '127.0.0.1')
      onTestFinished(() => client.disconnect())
      await client.ping()
      const report = { status: 'err', message: 'ERR max number of clients reached' }
      expect(await checkOnce(redis(), full)).toEqual(report)
    })

    it('speaks TLS', async () => {
      const port = String(await freePort())
      const files = ['--tls-cert-file', certificate.cert, '--tls-key-file', certificate.key]
      const secure = await startRedis(['--tls-port', port, ...files, '--tls-auth-clients', 'no'])
      onTestFinished(() => secure.stop())
      const place = { port: Number(port) }
      expect(await checkOnce(redis({ tls: { ca, servername: 'localhost' } }), place)).toEqual({ status: 'ok', facts })
      expect(await checkOnce(redis({ tls: { rejectUnauthorized: false } }), place)).toEqual({ status: 'ok', facts })
      const untrusted = { status: 'err', message: 'self-signed certificate' }
      expect(await checkOnce(redis({ tls: true }), place)).toEqual(untrusted)
      const misnamed = { status: 'err', message: 'certificate is for another name' }
      expect(await checkOnce(redis({ tls: { ca, servername: 'other.example' } }), place)).toEqual(misnamed)
    })

    it('is unstable as a replica that has lost its master', async () => {
      const master = await startRedis(['--repl-diskless-sync-delay', '0'])
      const replica = await startRedis(['--replicaof', '127.0.0.1', String(master.port)])
      onTestFinished(() => replica.stop())
      const probe = redis()
      const look = async () =>
        expect((await checkOnce(probe, replica)).facts).toMatchObject({ master_link_status: 'up' })
      await eventually(look, 20)
      expect(await checkOnce(probe, replica)).toEqual({
        status: 'ok',
        facts: {
          ...facts,
          role: 'slave',
          master_link_status: 'up',
          master_last_io_seconds_ago: expect.any(Number) as number,
        },
      })
      await master.stop()
      await eventually(() => expect(replica.output()).toMatch(/Connection with master lost/))
      const report = await checkOnce(probe, replica)
      expect(report).toMatchObject({ status: 'unstable', message: 'master link status: down' })
      expect(report.facts).toMatchObject({
        role: 'slave',
        master_link_status: 'down',
        master_last_io_seconds_ago: -1,
        master_link_down_since_seconds: expect.any(Number) as number,
      })
    })
  })
})
