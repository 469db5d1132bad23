import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { BalancedProxyOptions } from '../../src/adapter/http-proxy.js'
import { eventually } from '../support/eventually.js'
import { answers, bytes, inFlight, marks, open, proxies, refusing, replyTo, send } from '../support/http.js'
import { settled, SILENCE, startGateway, startRaw, startServer, whenRead } from '../support/http.js'
import type { Answer, Gateway, GatewayOptions, Listening } from '../support/http.js'

/** What a client that went away must leave behind: nothing. */
async function nothingLeft(gateway: Gateway, ...peers: Listening[]): Promise<void> {
  await settled(gateway)
  await eventually(() => expect(peers.map(({ sockets }) => sockets.size)).toEqual(peers.map(() => 0)))
  expect(peers.map((peer) => marks(gateway, peer))).toEqual(peers.map(() => 0))
}
const never: Answer = (req) => req.resume()

describe.each(Object.entries(proxies))('a client that goes away is held against nobody, with %s', (_, makeProxy) => {
  const options = () => ({ proxy: makeProxy(), upstream: { maxFails: 1 } })

  it.each(['GET', 'POST'])('before the answer to a %s', async (method) => {
    const [a, b] = [await startServer('a', never), await startServer('b')]
    const gateway = await startGateway([a, b], options())
    const request = open(gateway, { method })
    request.end()
    await once(a.server, 'request')
    expect(inFlight(gateway)).toBe(1)
    request.destroy()
    await nothingLeft(gateway, a)
    expect(b.connections).toBe(0)
  })

  it('in the middle of the answer', async () => {
    const a = await startServer('a', (_req, res) => res.write('begun'))
    const gateway = await startGateway([a, await startServer('b')], options())
    const request = open(gateway)
    request.end()
    await once(request, 'response')
    request.destroy()
    await nothingLeft(gateway, a)
  })

  it.each([1, 2])('in the middle of its body, with %i peers', async (count) => {
    const a = await startServer('a', whenRead)
    const gateway = await startGateway([a, await startServer('b')].slice(0, count), options())
    const request = open(gateway, { method: 'PUT', headers: { 'content-length': '100000' } })
    request.write(bytes(50_000))
    await eventually(() => expect(a.seen[0]?.length).toBe(50_000))
    request.destroy()
    await nothingLeft(gateway, a)
  })

  it('with a body that is no HTTP', async () => {
    const a = await startServer('a', whenRead)
    const gateway = await startGateway([a, await startServer('b')], options())
    const socket = connect(gateway.port, '127.0.0.1').on('error', () => undefined)
    socket.write('PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n')
    await eventually(() => expect(a.seen[0]?.length).toBe(4))
    socket.write('garbage\r\n')
    socket.resume()
    // Not by `once`: it may be a reset that closes it.
    await new Promise((resolve) => socket.once('close', resolve))
    await nothingLeft(gateway, a)
  })

  it('while a peer is tried that cannot be reached', async () => {
    const b = await startServer('b', never)
    const gateway = await startGateway([refusing(), b], options())
    const request = open(gateway)
    request.end()
    await once(b.server, 'request')
    request.destroy()
    await nothingLeft(gateway, b)
  })

  it('with a second request behind the first one on its connection', async () => {
    const [a, b] = [await startServer('a', never), await startServer('b', never)]
    const gateway = await startGateway([a, b], options())
    const socket = connect(gateway.port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nHost: test\r\n\r\n'.repeat(2))
    await eventually(() => expect([a.seen.length, b.seen.length]).toEqual([1, 1]))
    socket.destroy()
    await nothingLeft(gateway, a, b)
  })
})

describe('a slow client is held against nobody', () => {
  const timeouts = { connect: 2_000, send: SILENCE, read: SILENCE }

  /** There is nothing to wait for but time: that of two requests, one after the other, that end by the same limit. */
  async function limitsPassed(gateway: Gateway, headers: Record<string, string>): Promise<void> {
    for (let i = 0; i < 2; i++) expect((await send(gateway, { headers })).status).toBe(504)
  }
  const withClock = async (servers: Parameters<typeof startGateway>[0], options: GatewayOptions = {}) => {
    const silent = await startRaw((socket) => socket.resume())
    const upstreams = { clock: { servers: [silent.address], timeouts } }
    return startGateway(servers, { upstream: { timeouts }, upstreams, ...options })
  }

  it.each([1, 2])('that sends nothing for a while, with %i peers', async (count) => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const gateway = await withClock([a, b].slice(0, count))
    const request = open(gateway, { method: 'POST' })
    const reply = replyTo(request)
    reply.catch(() => undefined)
    request.write('begun')
    await eventually(() => expect(a.seen[0]?.length).toBe(5))
    await limitsPassed(gateway, { host: 'clock' })
    expect(marks(gateway, a)).toBe(0)
    request.end('done')
    expect(await reply).toMatchObject({ status: 200, text: 'a' })
  })

  it('that does not read for a while', async () => {
    const body = bytes(20_000_000)
    const a = await startServer('a', (_req, res) => res.end(body))
    const gateway = await withClock([a, await startServer('b')])
    const socket = connect(gateway.port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await once(socket, 'readable')
    await limitsPassed(gateway, { host: 'clock' })
    expect(marks(gateway, a)).toBe(0)
    let length = 0
    socket.on('data', (chunk: Buffer) => (length += chunk.length))
    await once(socket, 'end')
    expect(length).toBeGreaterThan(body.length)
    await settled(gateway)
  })
})

describe('onFailure', () => {
  const head = (res: Parameters<NonNullable<BalancedProxyOptions['onFailure']>>[1]) => res.writeHead(500).write('half')
  const rows: [says: string, onFailure: BalancedProxyOptions['onFailure'], outcome: unknown][] = [
    ['that throws leaves the line of text', () => fail(), { status: 502, text: '502 Bad Gateway\n' }],
    ['that throws after it has begun leaves an answer cut short', (_, res) => (head(res), fail()), 'ECONNRESET'],
    ['that rejects leaves the line of text', async () => fail(), { status: 502, text: '502 Bad Gateway\n' }],
  ]
  it.each(rows)('%s', async (_, onFailure, outcome) => {
    const warnings: string[] = []
    const unhandled: unknown[] = []
    const onWarning = ({ message }: Error) => void warnings.push(message)
    const onRejection = (error: unknown) => void unhandled.push(error)
    const before = process.listeners('unhandledRejection')
    process.removeAllListeners('unhandledRejection').on('unhandledRejection', onRejection).on('warning', onWarning)
    try {
      const gateway = await startGateway([refusing()], { onFailure })
      const request = open(gateway)
      const reply = replyTo(request)
      request.end()
      const got = reply.catch((error: unknown) => (error as { code?: string }).code)
      await eventually(() => expect(warnings.concat(unhandled.map(String))).toHaveLength(1))
      expect([unhandled, warnings]).toEqual([[], ['onFailure threw: Error: of the application']])
      if (typeof outcome === 'string') expect(await got).toBe(outcome)
      else expect(await got).toMatchObject(outcome as object)
    } finally {
      process.off('warning', onWarning).off('unhandledRejection', onRejection)
      for (const listener of before) process.on('unhandledRejection', listener)
    }
  })
})

describe('meanwhile', () => {
  it('the upstream is deleted: the attempt under way ends as it would, and no other begins', async () => {
    for (const answer of ['answers', 'resets']) {
      const [a, b] = [await startServer('a', never), await startServer('b')]
      const gateway = await startGateway([a, b])
      const request = open(gateway)
      const reply = replyTo(request)
      request.end()
      const [req, res] = (await once(a.server, 'request')) as Parameters<Answer>
      await gateway.checkups.deleteUpstream('test')
      if (answer === 'answers') res.end('late')
      else req.socket.resetAndDestroy()
      expect((await reply).text).toBe(answer === 'answers' ? 'late' : '502 Bad Gateway\n')
      expect(b.connections).toBe(0)
      await eventually(() => expect(a.sockets.size).toBe(0))
    }
  })

  it('it is deleted, and then a kept connection of it breaks', async () => {
    let count = 0
    const a = await startServer('a', (req, res) => {
      req.resume()
      if (++count !== 2) res.end('a')
    })
    const gateway = await startGateway([a, await startServer('b')])
    await answers(gateway, 2)
    const reply = send(gateway)
    await eventually(() => expect(count).toBe(2))
    expect(a.connections).toBe(1)
    await gateway.checkups.deleteUpstream('test')
    for (const socket of a.sockets) socket.resetAndDestroy()
    expect((await reply).text).toBe('a')
  })

  it.each(Object.entries(proxies))(
    'the balanced proxy of %s is closed: requests under way end as they would',
    async (_, makeProxy) => {
      const [a, b] = [await startServer('a', never), await startServer('b', never)]
      const gateway = await startGateway([a, b], { proxy: makeProxy(), tryTimeout: 30_000 })
      const replies: ReturnType<typeof replyTo>[] = []
      const answering: Parameters<Answer>[1][] = []
      for (const { server } of [a, b]) {
        const request = open(gateway)
        replies.push(replyTo(request))
        request.end()
        answering.push(((await once(server, 'request')) as Parameters<Answer>)[1])
      }
      gateway.balanced.close()
      for (const res of answering) res.end('late')
      expect((await Promise.all(replies)).map(({ text }) => text)).toEqual(['late', 'late'])
      await settled(gateway)
      expect(marks(gateway, a)).toBe(0)
      await eventually(() => expect(a.sockets.size).toBe(0))
    },
  )
})

function fail(): never {
  throw new Error('of the application')
}
