import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { request } from 'undici'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { ProxiedRequest } from '../../../src/adapter/undici.js'
import { eventually } from '../../support/eventually.js'
import { bytes, send, settled, sha256, startServer, statusOf } from '../../support/http.js'
import type { Answer, Backend, Gateway, SendOptions, Servers } from '../../support/http.js'
import { dispatching, startProxy, type CheckupsSettings } from './support.js'

/** One way to a balanced answer: its text, or that it failed. */
type Ask = (options?: SendOptions) => Promise<string>
type Start = (servers: Servers, options?: CheckupsSettings) => Promise<{ ask: Ask; gateway: Gateway }>

const ways: [name: string, start: Start][] = [
  [
    'a dispatcher',
    async (servers, options = {}) => {
      const test = dispatching(servers, options)
      const ask: Ask = async ({ method = 'GET', body = null } = {}) => {
        const { dispatcher } = test
        const answer = await request('http://test/', { dispatcher, method, body: body as Buffer | null })
        return answer.body.text()
      }
      return { ask, gateway: test as unknown as Gateway }
    },
  ],
  [
    'a proxy',
    async (servers, options = {}) => {
      const gateway = await startProxy(servers, options)
      return { ask: async (sent) => (await send(gateway, sent)).text, gateway }
    },
  ],
]

async function startProcess(): Promise<{ address: string; name: string; process: ChildProcess }> {
  const path = fileURLToPath(new URL('../../integration/backend.ts', import.meta.url))
  const child = fork(path, { execArgv: ['--import', 'tsx'] })
  const exited = once(child, 'exit')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const [address] = (await once(child, 'message')) as [string]
  return { address, name: String(child.pid), process: child }
}

describe.each(ways)('one of three backends is killed, with %s', (_, start) => {
  it('no request fails, and none of those that come after one that has seen it goes there', async () => {
    const backends = await Promise.all([startProcess(), startProcess(), startProcess()])
    const { ask, gateway } = await start(backends.map(({ address }) => address))
    const texts: string[] = []
    let sent = 0
    const client = async () => {
      while (sent++ < 900) {
        if (sent === 300) backends[1].process.kill('SIGKILL')
        texts.push(await ask().catch((error: unknown) => String(error)))
      }
    }
    await Promise.all(Array.from({ length: 10 }, client))
    const names = backends.map(({ name }) => name)
    expect(texts.filter((text) => !names.includes(text))).toEqual([])
    expect(texts).toHaveLength(900)
    expect(texts.slice(-500)).not.toContain(names[1])
    expect(statusOf(gateway).get(backends[1].address)?.passive).toMatchObject({ state: 'banned', bans: 1 })
  })
})

it.each([1, 3])('with maxFails: %i as many requests see the dead one', async (maxFails) => {
  const backends = await Promise.all([startProcess(), startProcess(), startProcess()])
  const ended: ProxiedRequest[] = []
  const servers = backends.map(({ address }) => address)
  const gateway = await startProxy(servers, { upstream: { maxFails }, onEnd: (request) => ended.push(request) })
  const ask = () => send(gateway, { method: 'PUT', body: Buffer.from('x') })
  for (let i = 0; i < 6; i++) await ask()
  const exited = once(backends[0].process, 'exit')
  backends[0].process.kill('SIGKILL')
  await exited
  ended.length = 0
  for (let i = 0; i < 60; i++) expect((await ask()).status).toBe(200)
  await eventually(() => expect(ended).toHaveLength(60))
  expect(ended.filter(({ attempts }) => attempts.length > 1)).toHaveLength(maxFails)
})

describe.each(ways)('a slow peer, with %s', (_, start) => {
  it('gets little from fastest-first', async () => {
    const slow: Answer = (req, res) => void req.resume().once('end', () => setTimeout(() => res.end('slow'), 400))
    const backends = [await startServer('slow', slow), await startServer('b'), await startServer('c')]
    const { ask } = await start(backends, { upstream: { balancer: 'fastest-first' } })
    const texts: string[] = []
    const client = async () => {
      for (let i = 0; i < 60; i++) texts.push(await ask())
    }
    await Promise.all(Array.from({ length: 6 }, client))
    expect(texts.filter((text) => text === 'slow').length).toBeLessThan(60)
  })
})

/** The same sequence every time. */
function seeded(seed: number): () => number {
  let state = seed
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    return state / 2 ** 32
  }
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
  return startServer(name, answer)
}

describe.each(ways)('2,000 requests while one of three peers fails at random, with %s', (_, start) => {
  it('none fails, and nothing is left', async () => {
    const [total, keepalive] = [2_000, 4]
    const warned: string[] = []
    const onWarning = ({ message }: Error) => void warned.push(message)
    process.on('warning', onWarning)
    onTestFinished(() => void process.off('warning', onWarning))
    const random = seeded(42)
    let bad = 0
    const peers = await Promise.all(['a', 'b', 'c'].map((name, i) => startMoody(name, random, () => bad === i)))
    const ports = peers.map(({ server }) => (server.address() as AddressInfo).port)
    // A peer that fails so often and is never out takes more retries than a budget allows.
    const { ask, gateway } = await start(peers, { upstream: { maxFails: 0, keepalive }, retryBudget: false })
    const got: string[] = []
    let sent = 0
    const client = async () => {
      while (sent++ < total) {
        // Every 500 requests it is another one, and it refuses for the first half of that.
        if (sent % 500 === 0) {
          bad = (bad + 1) % 3
          peers[bad]!.server.close()
        } else if (sent % 500 === 250 && !peers[bad]!.server.listening)
          peers[bad]!.server.listen(ports[bad], '127.0.0.1')
        got.push(await ask().catch((error: unknown) => String(error)))
      }
    }
    await Promise.all(Array.from({ length: 20 }, client))
    expect(got.filter((text) => !/^[abc]$/.test(text))).toEqual([])
    expect(got).toHaveLength(total)
    await settled(gateway)
    await eventually(() => {
      for (const { sockets } of peers) expect(sockets.size).toBeLessThanOrEqual(keepalive)
    })
    expect(warned).toEqual([])
  })
})

describe.each(ways)('all peers replaced under load, with %s', (_, start) => {
  it('no request fails, POSTs included', async () => {
    const body = bytes(20_000)
    const pair = (round: number) => Promise.all([startServer(`${round}a`), startServer(`${round}b`)])
    let current = await pair(0)
    const all = [...current]
    const { ask, gateway } = await start(current)
    const got: string[] = []
    let running = true
    const client = async () => {
      for (let i = 0; running; i++) {
        const options = { method: ['GET', 'PUT', 'POST'][i % 3]!, ...(i % 3 === 0 ? {} : { body }) }
        got.push(await ask(options).catch((error: unknown) => String(error)))
      }
    }
    const clients = Array.from({ length: 8 }, client)
    for (let round = 1; round <= 5; round++) {
      const before = got.length
      await eventually(() => expect(got.length).toBeGreaterThan(before + 50))
      const next = await pair(round)
      all.push(...next)
      await gateway.checkups.updateUpstream('test', { servers: next.map(({ address }) => address) })
      const old = current
      current = next
      // A graceful end: what is under way is answered, idle connections have been closed.
      await eventually(() => {
        for (const { sockets } of old) expect(sockets.size).toBe(0)
      })
      for (const { server } of old) server.close()
    }
    running = false
    await Promise.all(clients)
    expect(got.filter((text) => !/^\d[ab]$/.test(text))).toEqual([])
    const whole = all.flatMap(({ seen }) => seen.filter(({ method }) => method !== 'GET'))
    expect(new Set(whole.map(({ sha }) => sha))).toEqual(new Set([sha256(body)]))
    await settled(gateway)
  })
})
