import { once } from 'node:events'
import { globalAgent } from 'node:https'
import fastifyHttpProxy, { type FastifyHttpProxyOptions } from '@fastify/http-proxy'
import replyFrom, { type FastifyReplyFromHooks } from '@fastify/reply-from'
import Fastify, { type FastifyInstance } from 'fastify'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Picks } from '../../../examples/ecosystem/lib/picks.js'
import { createAgent } from '../../../src/adapter/http-agent.js'
import type { Checkups } from '../../../src/index.js'
import { bytes, refusing, startServer } from '../../support/http.js'
import { checkupsOf, CONCURRENCY, failuresSeen, FOR_GOOD, killOne, marks, settled, startThree } from './harness.js'

async function textOf(url: string, init: RequestInit = {}): Promise<string> {
  const response = await fetch(url, init)
  const text = await response.text()
  if (!response.ok) throw new Error(`status ${response.status}: ${text}`)
  return text
}

const start = async (app: FastifyInstance) => {
  onTestFinished(() => app.close())
  return app.listen({ host: '127.0.0.1', port: 0 })
}

/** As `http` of either plugin. */
function agentsOf(checkups: Checkups) {
  const agent = createAgent(checkups, 'api')
  onTestFinished(() => agent.destroy())
  return { agents: { 'http:': agent, 'https:': globalAgent } }
}

async function startHttpProxy(
  checkups: Checkups,
  replyOptions: FastifyHttpProxyOptions['replyOptions'] = {},
): Promise<string> {
  const app = Fastify()
  await app.register(fastifyHttpProxy, { upstream: 'http://api', http: agentsOf(checkups), replyOptions })
  return start(app)
}

describe('@fastify/http-proxy by an agent', () => {
  it('with its own retries: no GET fails when one of three peers is killed', async () => {
    const three = await startThree()
    const url = await startHttpProxy(three.checkups, { retriesCount: 2 })
    const result = await killOne((path) => textOf(url + path), three)
    expect(result).toEqual({ meanwhile: [], afterwards: [] })
  })

  it('without: what the peer has in flight fails, and nothing else', async () => {
    const three = await startThree()
    const url = await startHttpProxy(three.checkups)
    const { meanwhile, afterwards } = await killOne((path) => textOf(url + path), three)
    expect(meanwhile.length).toBeLessThanOrEqual(CONCURRENCY)
    expect(afterwards).toEqual([])
  })

  it('a 503 to a GET is asked again elsewhere', async () => {
    const [a, b] = [await startServer('a', (_, res) => res.writeHead(503).end()), await startServer('b')]
    const checkups = checkupsOf([a.address, b.address])
    // Nobody reads the answer that is not passed on: it is over when the peer closes its connection.
    Object.assign(a.server, { keepAliveTimeout: 50 })
    expect(await textOf(await startHttpProxy(checkups))).toBe('b')
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it('a POST goes on when a peer refuses, with its body', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([refusing(), b.address])
    const url = await startHttpProxy(checkups)
    const headers = { 'content-type': 'application/octet-stream' }
    expect(await textOf(`${url}/x`, { method: 'POST', body: bytes(100_000), headers })).toBe('b')
    expect(b.seen).toMatchObject([{ method: 'POST', url: '/x', length: 100_000, headers: { host: 'api' } }])
    expect(marks(checkups)).toEqual([1, 0])
  })
})

describe('@fastify/reply-from by an agent', () => {
  it('with its own retries: no GET fails when one of three peers is killed', async () => {
    const three = await startThree()
    const app = Fastify()
    await app.register(replyFrom, { base: 'http://api', http: agentsOf(three.checkups) })
    app.get('/*', (request, reply) => reply.from(request.url, { retriesCount: 2 }))
    const url = await start(app)
    const result = await killOne((path) => textOf(url + path), three)
    expect(result).toEqual({ meanwhile: [], afterwards: [] })
  })
})

/** A target per request, and hooks that say how it went. */
async function startGetUpstream(checkups: Checkups): Promise<string> {
  const picks = new Picks(checkups)
  const hooks: FastifyReplyFromHooks = {
    getUpstream: ({ raw }) => picks.target(raw, 'api'),
    onResponse({ raw }, reply, res) {
      picks.answered(raw, res.statusCode)
      void reply.send(res.stream)
    },
    onError(reply, { error }) {
      picks.done(reply.request.raw, error)
      void reply.send(error)
    },
  }
  const app = Fastify()
  await app.register(replyFrom)
  app.get('/*', (request, reply) => reply.from(request.url, hooks))
  app.addHook('onResponse', async ({ raw }, reply) => picks.done(raw, { status: reply.statusCode }))
  app.addHook('onRequestAbort', async ({ raw }) => picks.done(raw, 'neutral'))
  return start(app)
}

describe('@fastify/reply-from by getUpstream alone', () => {
  it.each([1, 2])('maxFails %i: so many requests see that a peer is gone', async (maxFails) => {
    const three = await startThree({ maxFails })
    const url = await startGetUpstream(three.checkups)
    const { meanwhile, afterwards } = await killOne((path) => textOf(url + path), three)
    expect(meanwhile.length).toBeLessThanOrEqual(CONCURRENCY + maxFails)
    expect(afterwards).toEqual([])
  })

  it('one request after another: exactly maxFails', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([refusing(), b.address], { maxFails: 2, failTimeout: FOR_GOOD })
    const seen = failuresSeen()
    const url = await startGetUpstream(checkups)
    const statuses: number[] = []
    for (let i = 0; i < 10; i++) statuses.push((await fetch(url)).status)
    expect(statuses.filter((status) => status !== 200)).toEqual([500, 500])
    expect([...seen.values()]).toEqual([2])
    await settled(checkups)
  })

  it('a client that leaves is held against nobody', async () => {
    const a = await startServer('a', (req) => req.resume())
    const checkups = checkupsOf([a.address, refusing()])
    const url = await startGetUpstream(checkups)
    const controller = new AbortController()
    const left = fetch(url, { signal: controller.signal }).catch(() => 'left')
    await once(a.server, 'request')
    controller.abort()
    expect(await left).toBe('left')
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })
})
