import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import type { ClientRequest } from 'node:http'
import { describe, expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { answers, bytes, eventsOf, marks, open, proxies, refusing, replyTo, send } from '../support/http.js'
import { settled, SILENCE, startGateway, startRaw, startServer, whenRead } from '../support/http.js'
import type { Answer, Backend, Gateway } from '../support/http.js'

const never: Answer = (req) => req.resume()

/** A request that waits for its answer, and what ends it. */
async function hold(gateway: Gateway, { server }: Backend): Promise<{ finish: () => Promise<string> }> {
  const request = open(gateway)
  const reply = replyTo(request)
  request.end()
  const [, res] = (await once(server, 'request')) as Parameters<Answer>
  return { finish: () => (res.end('held'), reply.then(({ text }) => text)) }
}

describe.each(Object.entries(proxies))('connections to peers, with %s', (_, makeProxy) => {
  it.each(['GET', 'PUT', 'POST'])('are kept: 100 %s requests need one', async (method) => {
    const a = await startServer('a')
    const gateway = await startGateway([a], { proxy: makeProxy() })
    const body = method === 'GET' ? {} : { body: bytes(50_000) }
    expect(await answers(gateway, 100, { method, ...body })).toBe('a'.repeat(100))
    expect([a.connections, gateway.connections]).toEqual([1, 1])
  })

  it('are not kept with keepalive: 0', async () => {
    const a = await startServer('a')
    const gateway = await startGateway([a], { proxy: makeProxy(), upstream: { keepalive: 0 } })
    expect(await answers(gateway, 5)).toBe('aaaaa')
    expect(a.connections).toBe(5)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('are kept up to keepalive', async () => {
    const a = await startServer('a', never)
    const gateway = await startGateway([a], { proxy: makeProxy(), upstream: { keepalive: 2 } })
    const held: { finish: () => Promise<string> }[] = []
    for (let i = 0; i < 5; i++) held.push(await hold(gateway, a))
    await Promise.all(held.map(({ finish }) => finish()))
    await eventually(() => expect(a.sockets.size).toBe(2))
  })

  it('send the listeners of a request away with it', async () => {
    const a = await startServer('a')
    const proxy = makeProxy()
    const requests: ClientRequest[] = []
    eventsOf(proxy).on('proxyReq', (request: ClientRequest) => requests.push(request))
    const gateway = await startGateway([a], { proxy })
    const counts: number[] = []
    for (let i = 0; i < 20; i++) {
      await answers(gateway, 1)
      const { socket, agent } = requests[i] as ClientRequest & { agent: NodeJS.EventEmitter }
      await eventually(() => expect(socket?.listenerCount('timeout')).toBeLessThan(3))
      const emitters = [socket!, agent, eventsOf(proxy)]
      const events = ['close', 'error', 'end', 'timeout', 'free', 'connect', 'drain', 'data', 'proxyRes']
      counts.push(emitters.flatMap((one) => events.map((event) => one.listenerCount(event))).reduce((x, y) => x + y))
    }
    expect(counts).toEqual(counts.map(() => counts[0]))
  })
})

describe('a kept connection', () => {
  const second = (answer: Answer): Answer => {
    let count = 0
    const first: Answer = (req, res) => (req.resume(), res.end('first'))
    return (...args) => (++count === 1 ? first : answer)(...args)
  }

  it.each([
    { send: SILENCE, read: SILENCE },
    { send: 60_000, read: SILENCE },
    { send: SILENCE, read: 0 },
  ])('has the time limits of its upstream: %o', async (limits) => {
    // A silence of 0 is without limit; then it is the total time that ends it.
    const timeout = limits.read > 0 ? 30_000 : 2 * SILENCE
    const a = await startServer('a', second(never))
    const gateway = await startGateway([a], { upstream: { timeouts: { connect: 2_000, ...limits } }, timeout })
    expect((await send(gateway)).status).toBe(200)
    const begun = performance.now()
    expect((await send(gateway)).status).toBe(504)
    const took = performance.now() - begun
    if (limits.read > 0) expect(took).toBeLessThan(timeout)
    else expect(took).toBeGreaterThanOrEqual(timeout)
    expect(a.connections).toBe(1)
  })

  it('may be idle for longer than a peer may be silent', async () => {
    const [a, silent] = [await startServer('a'), await startRaw((socket) => socket.resume())]
    const timeouts = { connect: 2_000, send: SILENCE, read: SILENCE }
    const upstreams = { silent: { servers: [silent.address], timeouts } }
    const gateway = await startGateway([a], { upstream: { timeouts }, upstreams })
    expect((await send(gateway)).text).toBe('a')
    for (let i = 0; i < 2; i++) expect((await send(gateway, { headers: { host: 'silent' } })).status).toBe(504)
    expect((await send(gateway)).text).toBe('a')
    expect(a.connections).toBe(1)
  })

  it('is closed after `timeout`', async () => {
    const a = await startServer('a')
    const gateway = await startGateway([a], { agent: { timeout: 40 } })
    expect((await send(gateway)).text).toBe('a')
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('belongs to the request that it carries, also for who asks by AsyncLocalStorage', async () => {
    const asked = new AsyncLocalStorage<string>()
    const ended: unknown[] = []
    const a = await startServer(
      'a',
      second((req) => req.socket.resetAndDestroy()),
    )
    const gateway = await startGateway([a], {
      onEnd: ({ req }) => ended.push([req.url, asked.getStore()]),
      onRequest: (req, res, { web }) => asked.run(req.url!, web, req, res),
    })
    expect((await send(gateway, { path: '/1', method: 'POST' })).status).toBe(200)
    expect((await send(gateway, { path: '/2', method: 'POST' })).status).toBe(502)
    expect(ended).toEqual([
      ['/1', '/1'],
      ['/2', '/2'],
    ])
    expect(a.connections).toBe(1)
  })
})

it('a request that many peers have failed has no more listeners than another one', async () => {
  const peers = Array.from({ length: 20 }, (_, i) => refusing(i))
  const warnings: string[] = []
  const onWarning = ({ message }: Error) => void warnings.push(message)
  process.on('warning', onWarning)
  const gateway = await startGateway([...peers, await startServer('b', whenRead)], { retryBudget: false })
  expect((await send(gateway)).text).toBe('b')
  process.off('warning', onWarning)
  expect(warnings).toEqual([])
})

describe('idle connections are closed', () => {
  const rows: [says: string, change: (gateway: Gateway, a: Backend, b: Backend) => unknown, left: number[]][] = [
    [
      'when updateUpstream removes their peer',
      ({ checkups }, _a, b) => checkups.updateUpstream('test', [{ servers: [b.address] }]),
      [0, 1],
    ],
    ['when removeServer does', ({ checkups }, a) => checkups.removeServer('test', a.address), [0, 1]],
    [
      'not when an update keeps their peer',
      ({ checkups }, a, b) =>
        checkups.updateUpstream('test', { servers: [b.address, { address: a.address, weight: 2 }] }),
      [1, 1],
    ],
    ['when deleteUpstream removes their upstream', ({ checkups }) => checkups.deleteUpstream('test'), [0, 0]],
    ['by close', ({ balanced }) => balanced.close(), [0, 0]],
  ]
  it.each(rows)('%s', async (_, change, left) => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const gateway = await startGateway([a, b])
    expect(await answers(gateway, 4)).toBe('abab')
    expect([a.sockets.size, b.sockets.size]).toEqual([1, 1])
    await change(gateway, a, b)
    await eventually(() => expect([a.sockets.size, b.sockets.size]).toEqual(left))
  })

  const inUse: typeof rows = rows.filter(([says]) => says !== 'by close')
  it.each(inUse)('%s, and those in use when their requests have ended', async (_, change, left) => {
    const [a, b] = [await startServer('a', never), await startServer('b', never)]
    const gateway = await startGateway([a, b])
    const held = [await hold(gateway, a), await hold(gateway, b)]
    await change(gateway, a, b)
    expect([a.sockets.size, b.sockets.size]).toEqual([1, 1])
    expect(await Promise.all(held.map(({ finish }) => finish()))).toEqual(['held', 'held'])
    await eventually(() => expect([a.sockets.size, b.sockets.size]).toEqual(left))
  })

  it('of an upstream that is made again: its connections are new', async () => {
    const a = await startServer('a')
    const gateway = await startGateway([a])
    await answers(gateway, 1)
    await gateway.checkups.deleteUpstream('test')
    await gateway.checkups.updateUpstream('test', { servers: [a.address] })
    expect(await answers(gateway, 3)).toBe('aaa')
    expect(a.connections).toBe(2)
  })
})

describe('settings that change count from the next request on', () => {
  it('keepalive', async () => {
    const a = await startServer('a')
    const gateway = await startGateway([a])
    const set = (keepalive: number) => gateway.checkups.updateUpstream('test', { servers: [a.address], keepalive })
    await answers(gateway, 3)
    await set(0)
    await answers(gateway, 3)
    expect(a.connections).toBe(3)
    await eventually(() => expect(a.sockets.size).toBe(0))
    await set(10)
    await answers(gateway, 3)
    expect([a.connections, a.sockets.size]).toEqual([4, 1])
  })

  it('timeouts', async () => {
    const silent = await startRaw((socket) => socket.resume())
    const gateway = await startGateway([silent], { upstream: { timeouts: { connect: 0, send: 0, read: 0 } } })
    const request = open(gateway)
    request.end()
    await once(silent.server, 'connection')
    await gateway.checkups.updateUpstream('test', { servers: [silent.address], timeouts: { read: 50 } })
    expect((await send(gateway)).status).toBe(504)
    request.destroy()
    await settled(gateway)
  })

  it('statuses', async () => {
    const [a, b] = [
      await startServer('a', (_req, res) => void res.writeHead(404).end('not here')),
      await startServer('b'),
    ]
    const gateway = await startGateway([a, b])
    expect(await answers(gateway, 2)).toBe('not hereb')
    await gateway.checkups.updateUpstream('test', { servers: [a.address, b.address], statuses: { 404: 'next' } })
    expect(await answers(gateway, 4)).toBe('bbbb')
    expect(marks(gateway, a)).toBe(0)
  })
})

it('an agent of few connections is not used up by answers that were dropped', async () => {
  const a = await startServer('a', (_req, res) => void res.writeHead(503, { 'content-length': '2' }).end('no'))
  const b = await startServer('b', whenRead)
  const gateway = await startGateway([a, refusing(), b], { agent: { maxSockets: 1 }, upstream: { maxFails: 0 } })
  expect(await answers(gateway, 10)).toBe('b'.repeat(10))
  await settled(gateway)
})
