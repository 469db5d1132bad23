import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import type { Socket } from 'node:net'
import { createProxyMiddleware, type Options } from 'http-proxy-middleware'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { Picks } from '../../../examples/ecosystem/lib/picks.js'
import { createAgent } from '../../../src/adapter/http-agent.js'
import { balanceProxy } from '../../../src/adapter/http-proxy.js'
import type { Checkups } from '../../../src/index.js'
import { bytes, refusing, startServer } from '../../support/http.js'
import {
  checkupsOf,
  CONCURRENCY,
  failuresSeen,
  FOR_GOOD,
  inFlight,
  killOne,
  listen,
  marks,
  settled,
  startThree,
} from './harness.js'

/** A server before which the middleware is all there is. */
function startGateway(options: Options): Promise<string> {
  const middleware = createProxyMiddleware(options) as unknown as RequestListener
  return listen(createServer(middleware))
}

/** One connection a request: no keep-alive of the client's hides anything. */
async function textOf(url: string, init: RequestInit = {}): Promise<string> {
  const response = await fetch(url, init)
  const text = await response.text()
  if (!response.ok) throw new Error(`status ${response.status}: ${text}`)
  return text
}

const byPlugin = (checkups: Checkups): Options => ({
  target: 'http://api',
  plugins: [
    (proxy) => {
      const [web, ws] = [proxy.web.bind(proxy), proxy.ws.bind(proxy)]
      const balanced = balanceProxy(checkups, { web, ws }, { key: () => 'api' })
      onTestFinished(() => balanced.close())
      Object.assign(proxy, { web: balanced.web, ws: balanced.ws })
    },
  ],
})

const byAgent = (checkups: Checkups): Options => {
  const agent = createAgent(checkups, 'api')
  onTestFinished(() => agent.destroy())
  return { target: 'http://api', agent }
}

const byRouter = (checkups: Checkups): Options => {
  const picks = new Picks(checkups)
  return {
    router: (req) => picks.target(req, 'api'),
    on: {
      proxyReq: (_, req, res) => void res.once('close', () => picks.done(req, 'neutral')),
      proxyRes(answer, req) {
        const status = answer.statusCode ?? 0
        picks.answered(req, status)
        answer.once('close', () => picks.done(req, answer.complete ? { status } : 'failed'))
      },
      error(error, req, res) {
        picks.done(req, error)
        if ('writeHead' in res) res.writeHead(502)
        res.end()
      },
    },
  }
}

/** A WebSocket through the middleware, to the second of two peers: the first one refuses. */
async function webSocketBy(optionsOf: (checkups: Checkups) => Options): Promise<void> {
  const wss = new WebSocketServer({ noServer: true })
  const b = await startServer('b')
  b.server.on('upgrade', (req: IncomingMessage, socket: Socket, head: Buffer) => {
    wss.handleUpgrade(req, socket, head, (ws) => ws.on('message', (data) => ws.send(data)))
  })
  const checkups = checkupsOf([refusing(), b.address])
  const middleware = createProxyMiddleware({ ...optionsOf(checkups), ws: true })
  const server = createServer(middleware as unknown as RequestListener).on('upgrade', middleware.upgrade)
  const client = new WebSocket((await listen(server)).replace('http', 'ws'))
  await once(client, 'open')
  client.send('hello')
  const [message] = (await once(client, 'message')) as [Buffer]
  expect([message.toString(), inFlight(checkups), marks(checkups)]).toEqual(['hello', [0, 1], [1, 0]])
  client.close()
  await settled(checkups)
}

describe('by a plugin that hands its proxy to balanceProxy', () => {
  it('no idempotent request fails when one of three peers is killed', async () => {
    const three = await startThree()
    const url = await startGateway(byPlugin(three.checkups))
    const result = await killOne((path) => textOf(url + path), three)
    expect(result).toEqual({ meanwhile: [], afterwards: [] })
  })

  it('a POST goes on when a peer refuses, with its body, and its path rewritten', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([refusing(), b.address])
    const url = await startGateway({ ...byPlugin(checkups), pathRewrite: { '^/v1': '/v2' } })
    expect(await textOf(`${url}/v1/x`, { method: 'POST', body: bytes(100_000) })).toBe('b')
    expect(b.seen).toMatchObject([{ method: 'POST', url: '/v2/x', length: 100_000 }])
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it('WebSockets too, in flight until they close', () => webSocketBy(byPlugin))
})

describe('by an agent', () => {
  it('what a peer that is killed has in flight fails, and nothing else', async () => {
    const three = await startThree()
    const url = await startGateway(byAgent(three.checkups))
    const { meanwhile, afterwards } = await killOne((path) => textOf(url + path), three)
    expect(meanwhile.length).toBeLessThanOrEqual(CONCURRENCY)
    expect(afterwards).toEqual([])
  })

  it('a POST goes on when a peer refuses, with its body', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([refusing(), b.address])
    const url = await startGateway(byAgent(checkups))
    expect(await textOf(url, { method: 'POST', body: bytes(100_000) })).toBe('b')
    expect([b.seen[0]!.length, marks(checkups)]).toEqual([100_000, [1, 0]])
  })

  it('its router may choose the upstream, if the agent goes by the host', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const checkups = checkupsOf([a.address])
    await checkups.updateUpstream('other', { servers: [refusing(), b.address] })
    const agent = createAgent(checkups, ({ host }) => host ?? undefined)
    onTestFinished(() => agent.destroy())
    const router: Options['router'] = (req) => `http://${req.url?.startsWith('/other') === true ? 'other' : 'api'}`
    const url = await startGateway({ target: 'http://api', router, agent })
    expect((await textOf(url)) + (await textOf(`${url}/other`)) + (await textOf(url))).toBe('aba')
  })

  it('WebSockets too, in flight until they close', () => webSocketBy(byAgent))
})

describe('by its router alone', () => {
  it.each([1, 2])('maxFails %i: so many requests see that a peer is gone', async (maxFails) => {
    const three = await startThree({ maxFails })
    const url = await startGateway(byRouter(three.checkups))
    const { meanwhile, afterwards } = await killOne((path) => textOf(url + path), three)
    expect(meanwhile.length).toBeLessThanOrEqual(CONCURRENCY + maxFails)
    expect(afterwards).toEqual([])
  })

  it('one request after another: exactly maxFails', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([refusing(), b.address], { maxFails: 2, failTimeout: FOR_GOOD })
    const seen = failuresSeen()
    const url = await startGateway(byRouter(checkups))
    const statuses: number[] = []
    for (let i = 0; i < 10; i++) statuses.push((await fetch(url)).status)
    expect(statuses.filter((status) => status !== 200)).toEqual([502, 502])
    expect([...seen.values()]).toEqual([2])
    await settled(checkups)
  })

  it('a client that leaves is held against nobody', async () => {
    const a = await startServer('a', (req) => req.resume())
    const checkups = checkupsOf([a.address, refusing()])
    const url = await startGateway(byRouter(checkups))
    const controller = new AbortController()
    const left = fetch(url, { signal: controller.signal }).catch(() => 'left')
    await once(a.server, 'request')
    controller.abort()
    expect(await left).toBe('left')
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })
})
