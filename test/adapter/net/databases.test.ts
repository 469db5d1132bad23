import { once } from 'node:events'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { connect } from '../../../src/adapter/net.js'
import { eventually } from '../../support/eventually.js'
import { startMariadb, startRedis, whereInstalled, type Running } from '../../support/servers.js'
import { checkupsOf, inFlight, marks, serversOf, settled, startProxy } from './harness.js'

const at = ({ port }: { readonly port: number }) => `127.0.0.1:${port}`

whereInstalled('Redis', 'redis-server', () => {
  const two = async () => [await startRedis(), await startRedis()] as const

  async function clientAt(port: number) {
    const { Redis } = await import('ioredis')
    const client = new Redis(port, '127.0.0.1', { maxRetriesPerRequest: 5, retryStrategy: () => 20 })
    client.on('error', () => undefined)
    onTestFinished(() => client.disconnect())
    return client
  }

  it('is proxied: commands, pipelines, large values, subscriptions', async () => {
    const server = await startRedis()
    onTestFinished(() => server.stop())
    const checkups = checkupsOf([at(server)])
    const { port } = await startProxy(checkups)
    const [client, subscriber] = [await clientAt(port), await clientAt(port)]
    const value = 'x'.repeat(3_000_000)
    await client.set('large', value)
    expect(await client.get('large')).toBe(value)
    const pipeline = client.pipeline()
    for (let i = 0; i < 1_000; i++) pipeline.incr('count')
    expect((await pipeline.exec())!.at(-1)).toEqual([null, 1_000])
    await subscriber.subscribe('news')
    const heard = once(subscriber, 'message')
    await client.publish('news', 'hello')
    expect(await heard).toEqual(['news', 'hello'])
    expect(inFlight(checkups)).toEqual([2])
    client.disconnect()
    subscriber.disconnect()
    await settled(checkups)
    expect(marks(checkups)).toEqual([0])
  })

  it('one of two is stopped: clients come back at the other one, and no command is lost for good', async () => {
    const [a, b] = await two()
    onTestFinished(() => b.stop())
    const checkups = checkupsOf([at(a), at(b)])
    const { port, failures } = await startProxy(checkups)
    const clients = await Promise.all(Array.from({ length: 6 }, () => clientAt(port)))
    await Promise.all(clients.map((client) => client.ping()))
    expect(inFlight(checkups)).toEqual([3, 3])
    await a.stop()
    const answers = await Promise.all(clients.map((client) => client.ping()))
    expect(answers).toEqual(Array(6).fill('PONG'))
    await eventually(() => expect(inFlight(checkups)).toEqual([0, 6]))
    expect(serversOf(checkups)[0]).toMatchObject({ health: 'err', passive: { bans: 1 } })
    expect(failures).toEqual([])
  })

  it('that is full, or protected, says so itself: that is held against nobody', async () => {
    const server = await startRedis(['--requirepass', 'secret'])
    onTestFinished(() => server.stop())
    const checkups = checkupsOf([at(server), at(server).replace('127.0.0.1', '127.0.0.2')])
    const { socket } = await connect(checkups, 'test')
    socket.write('PING\r\n')
    const [answer] = (await once(socket, 'data')) as [Buffer]
    expect(answer.toString()).toMatch(/^-NOAUTH/)
    socket.destroy()
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })
})

whereInstalled('MariaDB', 'mariadbd', () => {
  let servers: readonly [Running, Running]
  beforeAll(async () => {
    servers = await Promise.all([startMariadb(), startMariadb()])
  })
  afterAll(() => Promise.all(servers.map((server) => server.stop())))

  const login = { user: 'checker', password: 'secret' }

  it('is proxied: logins, queries, large answers, TLS', async () => {
    const checkups = checkupsOf(servers.map(at))
    const { port } = await startProxy(checkups)
    const { createConnection } = await import('mysql2/promise')
    const seen = new Set<number>()
    for (let i = 0; i < 4; i++) {
      const ssl = i < 2 ? {} : { ssl: { rejectUnauthorized: false } }
      const client = await createConnection({ host: '127.0.0.1', port, ...login, ...ssl })
      const [rows] = await client.query("SELECT @@port AS port, REPEAT('x', 3000000) AS text")
      const [row] = rows as { port: number; text: string }[]
      expect(row!.text).toHaveLength(3_000_000)
      seen.add(row!.port)
      const [status] = await client.query("SHOW STATUS LIKE 'Ssl_version'")
      expect((status as { Value: string }[])[0]!.Value).toBe(i < 2 ? '' : 'TLSv1.3')
      await client.end()
    }
    expect(seen).toEqual(new Set(servers.map(({ port }) => port)))
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })

  it('a pool over the proxy uses both, within maxConns', async () => {
    const checkups = checkupsOf(servers.map(at), { maxConns: 3 })
    const { port } = await startProxy(checkups)
    const { createPool } = await import('mysql2/promise')
    const pool = createPool({ host: '127.0.0.1', port, ...login, connectionLimit: 6 })
    onTestFinished(() => pool.end())
    const slow = Array.from({ length: 24 }, () => pool.query('SELECT @@port AS port, SLEEP(0.01)'))
    const ports = (await Promise.all(slow)).map(([rows]) => (rows as { port: number }[])[0]!.port)
    expect(new Set(ports)).toEqual(new Set(servers.map((server) => server.port)))
    expect(inFlight(checkups)).toEqual([3, 3])
  })

  it('connect gives a connection for a client that takes one', async () => {
    const checkups = checkupsOf(['127.0.0.1:1', at(servers[1])])
    const { createConnection } = await import('mysql2/promise')
    const { socket: stream, peer } = await connect(checkups, 'test')
    const client = await createConnection({ stream, ...login })
    expect((await client.query('SELECT @@port AS port'))[0]).toEqual([{ port: servers[1].port }])
    expect([peer.port, inFlight(checkups)]).toEqual([servers[1].port, [0, 1]])
    await client.end()
    await settled(checkups)
  })
})
