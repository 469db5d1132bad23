import { once } from 'node:events'
import type { Agent, ClientRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { eventually } from '../support/eventually.js'
import { bytes, eventsOf, inFlight, open, proxies, replyTo, send, settled, sha256 } from '../support/http.js'
import { startGateway, startServer } from '../support/http.js'
import { ownHost } from '../support/servers.js'
import type { Answer, Backend, Gateway } from '../support/http.js'

/** The same sequence every time. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
}

/** But for those of what http-proxy itself uses of Node. */
function warnings(): string[] {
  const seen: string[] = []
  const onWarning = ({ name, message }: Error) => {
    if (name !== 'DeprecationWarning') seen.push(`${name}: ${message}`)
  }
  process.on('warning', onWarning)
  onTestFinished(() => void process.off('warning', onWarning))
  return seen
}

/** Answers as it should, until it is told to be bad: then it resets, answers 503 or breaks its head off, at random. */
async function startMoody(name: string, random: () => number, isBad: () => boolean): Promise<Backend> {
  const answer: Answer = (req, res) => {
    req.resume()
    const mood = isBad() ? random() : 1
    if (mood < 0.3) req.socket.resetAndDestroy()
    else if (mood < 0.5) res.writeHead(503, { 'content-length': '4' }).end('busy')
    else if (mood < 0.6) res.writeHead(503).end('busy')
    else if (mood < 0.7) req.socket.end('HTTP/1.1 200 OK\r\nServer')
    else res.end(name)
  }
  // While it is closed its port must not become another test's.
  return startServer(name, answer, { host: ownHost() })
}

describe.each(Object.entries(proxies))(
  '10,000 requests while one of three peers fails at random, with %s',
  (_, makeProxy) => {
    it('none fails, and nothing is left', async () => {
      const [total, concurrency, keepalive] = [10_000, 20, 4]
      const warned = warnings()
      const random = seeded(42)
      let bad = 0
      const peers = await Promise.all(['a', 'b', 'c'].map((name, i) => startMoody(name, random, () => bad === i)))
      const places = peers.map(({ server }) => server.address() as AddressInfo)
      const proxy = makeProxy()
      const requests: ClientRequest[] = []
      eventsOf(proxy).once('proxyReq', (request: ClientRequest) => requests.push(request))
      // A peer that fails so often and is never out takes more retries than a budget allows.
      const options = { proxy, upstream: { maxFails: 0, keepalive }, retryBudget: false } as const
      const gateway = await startGateway(peers, options)
      const listeners = () => eventsOf(proxy).listenerCount('proxyRes')
      const before = listeners()

      const got: string[] = []
      let sent = 0
      const client = async () => {
        while (sent < total) {
          sent++
          // Every 500 requests it is another one, and it refuses for the first half of that.
          if (sent % 500 === 0) {
            bad = (bad + 1) % 3
            peers[bad]!.server.close()
          } else if (sent % 500 === 250 && !peers[bad]!.server.listening)
            peers[bad]!.server.listen(places[bad]!.port, places[bad]!.address)
          const reply = await send(gateway).catch((error: unknown) => ({ text: String(error) }))
          got.push(reply.text)
        }
      }
      await Promise.all(Array.from({ length: concurrency }, client))

      expect(got.filter((text) => !/^[abc]$/.test(text))).toEqual([])
      expect(got).toHaveLength(total)
      await settled(gateway)
      const { agent } = requests[0] as ClientRequest & { agent: Agent }
      await eventually(() => expect(Object.values(agent.sockets).flat()).toHaveLength(0))
      const idle = () => Object.values(agent.freeSockets).flatMap((sockets = []) => sockets)
      expect(idle().length).toBeLessThanOrEqual(3 * keepalive)
      // The last one that closed has closed what was idle, too: that has to arrive.
      await eventually(() => expect(peers.reduce((sum, { sockets }) => sum + sockets.size, 0)).toBe(idle().length))
      for (const socket of idle()) {
        expect(
          ['close', 'error', 'timeout', 'end', 'data'].map((event) => socket.listenerCount(event)).every((n) => n < 5),
        ).toBe(true)
      }
      expect([listeners(), warned]).toEqual([before, []])
    })
  },
)

describe.each(Object.entries(proxies))('all peers replaced under load, with %s', (_, makeProxy) => {
  it('no request fails, POSTs included', async () => {
    const warned = warnings()
    const body = bytes(20_000)
    const sha = sha256(body)
    const pair = (round: number) => Promise.all([startServer(`${round}a`), startServer(`${round}b`)])
    let current = await pair(0)
    const all = [...current]
    const gateway = await startGateway(current, { proxy: makeProxy() })
    const load = startLoad(gateway, body)

    for (let round = 1; round <= 6; round++) {
      await load.more(300)
      const old = current
      current = await pair(round)
      all.push(...current)
      await gateway.checkups.updateUpstream('test', [{ servers: current.map(({ address }) => address) }])
      // Only once nobody asks them any more are the old ones closed; that takes no kicking: nothing is left open.
      await load.underWay()
      const seen = old.map((backend) => backend.seen.length)
      await Promise.all(old.map(({ server }) => (server.close(), once(server, 'close'))))
      expect(old.map((backend) => backend.seen.length)).toEqual(seen)
    }
    await load.more(300)
    await load.stop()

    expect(load.failures).toEqual([])
    const posts = all.flatMap(({ seen }) => seen.filter(({ method }) => method === 'POST'))
    expect(posts.filter((seen) => seen.sha !== sha)).toEqual([])
    expect(posts).toHaveLength(load.counts.POST)
    expect(all.every(({ seen }) => seen.length > 50)).toBe(true)
    await settled(gateway)
    expect([inFlight(gateway), warned]).toEqual([0, []])
  })
})

/** 50 clients, each with its own connection: half of them ask, the others send a body. */
function startLoad(gateway: Gateway, body: Buffer) {
  const failures: string[] = []
  const counts = { GET: 0, POST: 0 }
  const pending = new Set<Promise<unknown>>()
  let running = true
  let done = 0
  let waiting: { until: number; resolve: () => void } | undefined
  gateway.agent.maxSockets = 50

  const ask = async (method: 'GET' | 'POST') => {
    counts[method]++
    const request = open(gateway, { method })
    const reply = replyTo(request)
    request.end(method === 'POST' ? body : undefined)
    try {
      const { status, text } = await reply
      if (status !== 200) failures.push(`${method} ${status} ${text}`)
    } catch (error) {
      failures.push(`${method} ${String(error)}`)
    }
    if (++done === waiting?.until) waiting.resolve()
  }
  const client = async (_: unknown, i: number) => {
    while (running) {
      const asked = ask(i % 2 === 0 ? 'GET' : 'POST')
      pending.add(asked)
      await asked
      pending.delete(asked)
    }
  }
  const clients = Array.from({ length: 50 }, client)
  return {
    failures,
    counts,
    /** So many further requests have ended. */
    more: (count: number) => new Promise<void>((resolve) => (waiting = { until: done + count, resolve })),
    /** All that were under way have ended. */
    underWay: () => Promise.all(pending),
    async stop() {
      running = false
      await Promise.all(clients)
    },
  }
}
