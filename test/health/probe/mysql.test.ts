import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { once } from 'node:events'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { parseMysql } from '../../../src/health/probe/mysql.js'
import { eventually } from '../../support/eventually.js'
import { certificate, startMariadb, whereInstalled, type Running } from '../../support/servers.js'
import { probeContract } from './contract.js'
import { checkOnce, probeOf, startTcp } from './servers.js'

const mysql = (options: object = {}) => probeOf(parseMysql, { type: 'mysql', ...options })
const login = { user: 'checker', password: 'secret' }
const ca = readFileSync(certificate.cert)

/** A packet of the server, number 0. */
const packet = (content: string) => Buffer.from(`${String.fromCharCode(content.length)}\0\0\0${content}`, 'latin1')
const saying = (content: string) => startTcp((socket) => socket.end(packet(content)))

describe('mysql', () => {
  it.each([
    [{ password: 'secret' }, 'heartbeat.password: only with a user'],
    [{ tls: true }, 'heartbeat.tls: only with a user'],
    [{ user: '' }, 'heartbeat.user: expected a non-empty string, got ""'],
    [{ user: 'a', database: 1 }, 'heartbeat.database: expected a non-empty string, got 1'],
  ])('refuses %j', (options, message) => {
    expect(() => mysql(options)).toThrow(ConfigError)
    expect(() => mysql(options)).toThrow(message)
  })

  it.each([
    ['\n8.4.3\0and so on', '8.4.3'],
    ['\n5.5.5-10.11.6-MariaDB\0and so on', '10.11.6-MariaDB'],
    ['\n5.5.5-m3\0a real 5.5.5', '5.5.5-m3'],
  ])('reads the version of %j', async (greeting, version) => {
    expect(await checkOnce(mysql(), await saying(greeting))).toEqual({ status: 'ok', facts: { version } })
  })

  it.each([
    ["\xff\x69\x04Host '10.0.0.9' is blocked because of many connection errors"],
    ['\xff\x10\x04#08004Too many connections'],
  ])('fails with the words of the server: %j', async (error) => {
    const message = error.slice(3).replace('#08004', '')
    expect(await checkOnce(mysql(), await saying(error))).toEqual({ status: 'err', message })
  })

  it.each([
    ['\t3.20\0of protocol 9', 'no MySQL greeting: "3.20 of protocol 9"'],
    ['\nwithout an end', 'no MySQL greeting: without a version'],
  ])('does not take %j for a greeting', async (greeting, message) => {
    expect(await checkOnce(mysql(), await saying(greeting))).toEqual({ status: 'err', message })
  })
})

whereInstalled('mysql', 'mariadbd', () => {
  let server: Running
  const connections = 40
  beforeAll(async () => void (server = await startMariadb([`--max-connections=${connections}`])))
  afterAll(() => server.stop())

  const healthy = async () => ({ port: server.port })
  probeContract('mysql, its greeting', { parse: parseMysql, options: { type: 'mysql' }, healthy })
  probeContract('mysql with a login', { parse: parseMysql, options: { type: 'mysql', ...login }, healthy })

  describe('mariadbd', () => {
    const facts = { version: expect.stringMatching(/^1\d\.\d+\.\d+-MariaDB/) as string }

    it('greets', async () => {
      expect(await checkOnce(mysql(), server)).toEqual({ status: 'ok', facts })
    })

    it('lets in who has an account', async () => {
      expect(await checkOnce(mysql(login), server)).toEqual({ status: 'ok', facts })
      const path = join(server.folder, 'mysql.sock')
      expect(await checkOnce(mysql(login), { path })).toEqual({ status: 'ok', facts })
      expect(await checkOnce(mysql(), { path })).toEqual({ status: 'ok', facts })
    })

    it('refuses a wrong password, an unknown user and a forbidden database', async () => {
      const denied = (user: string, using: string) =>
        `Access denied for user '${user}'@'localhost' (using password: ${using})`
      const refused = async (options: object) => (await checkOnce(mysql(options), server)).message
      expect(await refused({ ...login, password: 'wrong' })).toBe(denied('checker', 'YES'))
      expect(await refused({ user: 'checker' })).toBe(denied('checker', 'NO'))
      expect(await refused({ user: 'nobody', password: 'secret' })).toBe(denied('nobody', 'YES'))
      expect(await refused({ ...login, database: 'mysql' })).toMatch(/^Access denied .* to database 'mysql'$/)
      expect(await checkOnce(mysql({ ...login, database: 'information_schema' }), server)).toEqual({
        status: 'ok',
        facts,
      })
    })

    it('speaks TLS', async () => {
      const over = (tls: unknown) => checkOnce(mysql({ ...login, tls }), server)
      expect(await over({ ca, servername: 'localhost' })).toEqual({ status: 'ok', facts })
      expect(await over({ ca })).toEqual({ status: 'ok', facts })
      expect(await over({ rejectUnauthorized: false })).toEqual({ status: 'ok', facts })
      expect(await over(true)).toEqual({ status: 'err', message: 'self-signed certificate' })
      const misnamed = { status: 'err', message: 'certificate is for another name' }
      expect(await over({ ca, servername: 'other.example' })).toEqual(misnamed)
      // A session that was resumed would have come by without a look at the certificate.
      expect(await over({ ca, servername: 'other.example' })).toEqual(misnamed)
    })

    it('counts no aborted client for a login', async () => {
      const { createConnection } = await import('mysql2/promise')
      const admin = await createConnection({ port: server.port, user: 'root' })
      onTestFinished(() => admin.end())
      const aborted = async () => (await admin.query("SHOW GLOBAL STATUS LIKE 'Aborted_%s'"))[0]
      // Who has left is let go, and counted, a moment later.
      const isAlone = async () =>
        expect((await admin.query("SHOW GLOBAL STATUS LIKE 'Threads_connected'"))[0]).toMatchObject([{ Value: '1' }])
      await eventually(isAlone, 20)
      const before = await aborted()
      for (let i = 0; i < 3; i++) await checkOnce(mysql(login), server)
      await eventually(isAlone, 20)
      expect(await aborted()).toEqual(before)
      await checkOnce(mysql(), server)
      await eventually(async () => expect(await aborted()).not.toEqual(before), 20)
    })

    it('is err while it takes no more connections', async () => {
      // One more than the limit is kept for an administrator.
      const sockets: Socket[] = []
      const leave = () => sockets.forEach((socket) => socket.destroy())
      onTestFinished(leave)
      // Who has left before is let go a moment later: until then there is not room for all of these.
      const enter = () =>
        eventually(async () => {
          const socket = connect(server.port, '127.0.0.1').on('error', () => undefined)
          sockets.push(socket)
          const [packet] = (await once(socket, 'data')) as [Buffer]
          expect(packet.toString('latin1', 4, 5)).toBe('\n')
        }, 20)
      for (let i = 0; i <= connections; i++) await enter()
      const report = { status: 'err', message: 'Too many connections' }
      expect(await checkOnce(mysql(), server)).toEqual(report)
      expect(await checkOnce(mysql(login), server)).toEqual(report)
      leave()
      const probe = mysql(login)
      await eventually(async () => expect(await checkOnce(probe, server)).toMatchObject({ status: 'ok' }))
    })
  })
})
