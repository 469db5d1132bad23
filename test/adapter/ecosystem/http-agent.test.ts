import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { get, request as httpRequest, type Agent, type ClientRequest, type IncomingMessage } from 'node:http'
import type { RequestOptions } from 'node:http'
import { request as httpsRequest } from 'node:https'
import type { Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocketServer, WebSocket } from 'ws'
import { createAgent, type BalancedAgentOptions } from '../../../src/adapter/http-agent.js'
import { ConfigError, type Checkups } from '../../../src/index.js'
import { socketPath, startStuck } from '../../health/probe/servers.js'
import { eventually } from '../../support/eventually.js'
import {
  bytes,
  ENOUGH_KEYS,
  refusing,
  SILENCE,
  startRaw,
  startServer,
  whenRead,
  type Answer,
} from '../../support/http.js'
import { certificate } from '../../support/servers.js'
import { VirtualClock } from '../../support/virtual-clock.js'
import { checkupsOf, CONCURRENCY, failuresSeen, inFlight, killOne, marks, settled, startThree } from './harness.js'

const never: Answer = (req) => req.resume()
const [cert, key] = [readFileSync(certificate.cert, 'utf8'), readFileSync(certificate.key, 'utf8')]

function agentOf(checkups: Checkups, options?: BalancedAgentOptions): Agent {
  const agent = createAgent(checkups, 'api', options)
  onTestFinished(() => agent.destroy())
  return agent
}

interface Reply {
  readonly status: number
  readonly text: string
}

async function textOf(response: IncomingMessage): Promise<string> {
  let text = ''
  for await (const chunk of response) text += String(chunk)
  return text
}

async function replyTo(request: ClientRequest): Promise<Reply> {
  const [response] = (await once(request, 'response')) as [IncomingMessage]
  // From Node 24 on a request also tells of what breaks its answer.
  request.on('error', () => undefined)
  return { status: response.statusCode ?? 0, text: await textOf(response) }
}

/** A request to `http://api/`, of which only the agent knows where that is. */
function ask(agent: Agent, options: RequestOptions & { readonly body?: Buffer } = {}): Promise<Reply> {
  const { body, ...rest } = options
  const request = httpRequest({ host: 'api', path: '/', agent, ...rest })
  const reply = replyTo(request)
  request.end(body)
  return reply
}

async function texts(
  agent: Agent,
  count: number,
  options?: RequestOptions & { readonly body?: Buffer },
): Promise<string> {
  let all = ''
  for (let i = 0; i < count; i++) all += (await ask(agent, options)).text
  return all
}

const failureOf = (promise: Promise<unknown>): Promise<NodeJS.ErrnoException | undefined> =>
  promise.then(
    () => undefined,
    (error: unknown) => error as NodeJS.ErrnoException,
  )

describe('requests', () => {
  it('go to one peer after another, although its connection is idle', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const checkups = checkupsOf([a.address, b.address])
    expect(await texts(agentOf(checkups), 10)).toBe('ababababab')
    expect([a.connections, b.connections]).toEqual([1, 1])
    expect(a.seen[0]!.headers).toMatchObject({ host: 'api', connection: 'keep-alive' })
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })

  it('go by weight, by hash key and by named cluster', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const weights = [
      { address: a.address, weight: 3 },
      { address: b.address, weight: 1 },
    ]
    expect(await texts(agentOf(checkupsOf(weights)), 8)).toBe('aabaaaba')

    const hashed = checkupsOf([a.address, b.address], { balancer: 'consistent-hash' })
    const rows: [BalancedAgentOptions['hashKey'], (n: number) => RequestOptions][] = [
      ['url', (n) => ({ path: `/${n}` })],
      [{ header: 'X-User' }, (n) => ({ headers: { 'x-user': `${n}` } })],
      [(request) => String(request.getHeader('x-id')), (n) => ({ headers: { 'x-id': `${n}` } })],
    ]
    for (const [hashKey, optionsOf] of rows) {
      const agent = agentOf(hashed, { hashKey })
      const names = async () => {
        let all = ''
        for (let i = 0; i < ENOUGH_KEYS; i++) all += await texts(agent, 1, optionsOf(i))
        return all
      }
      const first = await names()
      expect(new Set(first)).toEqual(new Set('ab'))
      expect(await names()).toBe(first)
    }

    const named = checkupsOf(undefined, {
      cluster: { one: { servers: [a.address] }, two: { servers: [b.address] } },
    })
    const clusterKey: BalancedAgentOptions['clusterKey'] = (request) => request.path.slice(1)
    expect(await texts(agentOf(named, { clusterKey }), 2, { path: '/two' })).toBe('bb')
  })

  it('reach peers by IPv6 and by unix sockets', async () => {
    const [a, b] = [
      await startServer('a', whenRead, { host: '::1' }),
      await startServer('b', whenRead, { path: socketPath() }),
    ]
    const agent = agentOf(checkupsOf([a.address, b.address]))
    expect(await texts(agent, 6)).toBe('ababab')
    expect([a.connections, b.connections]).toEqual([1, 1])
  })

  it('are in flight until their answers have been read', async () => {
    const a = await startServer('a', (_, res) => res.write('half'))
    const checkups = checkupsOf([a.address])
    const request = get({ host: 'api', agent: agentOf(checkups) })
    expect(inFlight(checkups)).toEqual([1])
    const [response] = (await once(request, 'response')) as [IncomingMessage]
    response.resume()
    await once(response, 'data')
    expect(inFlight(checkups)).toEqual([1])
    response.destroy()
    await settled(checkups)
    expect(marks(checkups)).toEqual([0])
  })

  it('go elsewhere when a peer is full, and nowhere when all are', async () => {
    const [a, b] = [await startServer('a', never), await startServer('b', never)]
    const checkups = checkupsOf([a.address, b.address], { maxConns: 1 })
    const agent = agentOf(checkups)
    const held = [get({ host: 'api', agent }), get({ host: 'api', agent })]
    for (const request of held) request.on('error', () => undefined)
    await eventually(() => expect([a.seen.length, b.seen.length]).toEqual([1, 1]))
    expect(await failureOf(ask(agent))).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason: 'full' })
    for (const request of held) request.destroy()
    await settled(checkups)
  })

  it('go where their URLs say, if the function that names the upstream says nothing', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const checkups = checkupsOf([a.address])
    const agent = createAgent(checkups, ({ host }) => (host === 'api' ? 'api' : undefined))
    onTestFinished(() => agent.destroy())
    const port = Number(b.address.split(':')[1])
    expect((await ask(agent)).text + (await ask(agent, { host: '127.0.0.1', port })).text).toBe('ab')
    expect(await failureOf(ask(createAgent(checkups, () => 'none')))).toMatchObject({
      code: 'ERR_CHECKUPS_UNKNOWN_UPSTREAM',
    })
  })
})

describe('a connection that cannot be made', () => {
  it.each([
    ['is refused', () => refusing()],
    ['has a socket that does not exist', () => 'unix:/nonexistent/app.sock'],
    ['has a name that nobody knows', () => 'unknown.invalid:80'],
    ['is not answered', async () => `127.0.0.1:${(await startStuck()).port!}`],
  ])('%s: the next peer gets the request, also a POST with its body', async (_, bad) => {
    const b = await startServer('b')
    const checkups = checkupsOf([await bad(), b.address], { timeouts: { connect: SILENCE } })
    const body = bytes(1_000_000)
    expect(await ask(agentOf(checkups), { method: 'POST', body })).toEqual({ status: 200, text: 'b' })
    expect([b.seen[0]!.length, marks(checkups)]).toEqual([1_000_000, [1, 0]])
    await settled(checkups)
  })

  it('is not needed when the next peer has one that is idle', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([refusing(), b.address], { maxFails: 0 })
    expect(await texts(agentOf(checkups), 6)).toBe('bbbbbb')
    expect(b.connections).toBe(1)
  })

  it('takes longer than tryTimeout', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([`127.0.0.1:${(await startStuck()).port!}`, b.address])
    expect(await texts(agentOf(checkups, { tryTimeout: SILENCE }), 1)).toBe('b')
    expect(marks(checkups)).toEqual([1, 0])
  })

  it('to anybody: the client has one error, with those of all', async () => {
    const checkups = checkupsOf([refusing(0), refusing(1)])
    const error = await failureOf(ask(agentOf(checkups)))
    expect(error).toMatchObject({
      code: 'ERR_CHECKUPS_TRIES_EXCEEDED',
      errors: [{ code: 'ECONNREFUSED' }, { code: 'ECONNREFUSED' }],
    })
    expect(await failureOf(ask(agentOf(checkups, { tries: 1 })))).toMatchObject({ errors: [{ code: 'ECONNREFUSED' }] })
    await settled(checkups)
  })
})

describe('what happens to a request counts for its peer', () => {
  const half = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf'
  const says = (text: string, then: (socket: Socket) => unknown = () => undefined) =>
    startRaw((socket) => void socket.once('data', () => socket.write(text, 'latin1', () => then(socket))))

  it.each([
    [200, 0],
    [404, 0],
    [500, 1],
    [503, 1],
  ])('status %i', async (status, expected) => {
    const a = await startServer('a', (_, res) => res.writeHead(status).end('x'))
    const checkups = checkupsOf([a.address, refusing()], { maxFails: 3 })
    expect(await ask(agentOf(checkups))).toEqual({ status, text: 'x' })
    await settled(checkups)
    expect(marks(checkups)).toEqual([expected, 0])
  })

  it('what the statuses of its upstream say', async () => {
    const a = await startServer('a', (_, res) => res.writeHead(404).end('x'))
    const checkups = checkupsOf([a.address, refusing()], { maxFails: 3, statuses: { 404: 'failed' } })
    await ask(agentOf(checkups))
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it.each([
    ['resets', () => startRaw((socket) => void socket.once('data', () => socket.resetAndDestroy()))],
    ['closes', () => startRaw((socket) => void socket.once('data', () => socket.end()))],
    ['sends garbage', () => says('garbage\r\n\r\n')],
    ['breaks off in its answer', () => says(half, (socket) => socket.resetAndDestroy())],
    ['ends in the middle of its answer', () => says(half, (socket) => socket.end())],
  ])('a peer that %s has failed, and nobody else gets the request', async (_, start) => {
    const [a, b] = [await start(), await startServer('b')]
    const checkups = checkupsOf([a.address, b.address], { maxFails: 3 })
    expect(await failureOf(ask(agentOf(checkups)))).toBeInstanceOf(Error)
    await settled(checkups)
    expect([marks(checkups), b.connections]).toEqual([[1, 0], 0])
  })

  it.each<[string, (request: ClientRequest) => unknown, number]>([
    ['leaves', (request) => request.destroy(), 0],
    ['leaves with an error of its own', (request) => request.destroy(new Error('mine')), 0],
    ['aborts', (request) => (request as { abort(): void }).abort(), 0],
    ['has waited too long', (request) => request.setTimeout(30, () => request.destroy()), 1],
    [
      'says that it took too long',
      (request) => request.destroy(Object.assign(new Error('late'), { name: 'TimeoutError' })),
      1,
    ],
  ])('a client that %s', async (_, leave, expected) => {
    const a = await startServer('a', never)
    const checkups = checkupsOf([a.address, refusing()], { maxFails: 3 })
    const request = get({ host: 'api', agent: agentOf(checkups) })
    request.on('error', () => undefined)
    await once(a.server, 'request')
    void leave(request)
    await new Promise((resolve) => request.once('close', resolve))
    await settled(checkups)
    expect(marks(checkups)).toEqual([expected, 0])
  })

  it.each<[string, () => AbortSignal, number]>([
    ['a signal', () => AbortSignal.abort(), 0],
    ['a signal, later', () => abortSoon(), 0],
    ['the time of a signal', () => AbortSignal.timeout(30), 1],
  ])('a client that leaves by %s', async (_, signal, expected) => {
    const a = await startServer('a', never)
    const checkups = checkupsOf([a.address, refusing()], { maxFails: 3 })
    const request = get({ host: 'api', agent: agentOf(checkups), signal: signal() })
    const [error] = (await once(request, 'error')) as [Error]
    expect(error.name).toBe('AbortError')
    await settled(checkups)
    expect(marks(checkups)).toEqual([expected, 0])
  })

  it('a client that leaves while its connection is made hears of it at once', async () => {
    const checkups = checkupsOf([`127.0.0.1:${(await startStuck()).port!}`, refusing()])
    const request = get({ host: 'api', agent: agentOf(checkups) })
    await eventually(() => expect(inFlight(checkups)).toEqual([1, 0]))
    const events: string[] = []
    request.on('error', ({ code }: NodeJS.ErrnoException) => events.push(code ?? ''))
    request.on('close', () => events.push('close'))
    request.destroy()
    await eventually(() => expect(events).toEqual(['ECONNRESET', 'close']))
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })

  it('tryTimeout: the client is told, and the peer has failed', async () => {
    const a = await startServer('a', never)
    const checkups = checkupsOf([a.address, refusing()], { maxFails: 3, tryTimeout: SILENCE })
    expect(await failureOf(ask(agentOf(checkups)))).toMatchObject({ code: 'ERR_CHECKUPS_ATTEMPT_TIMEOUT' })
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('a kept connection that the peer closes when it is used again: against nobody', async () => {
    const a = await startRaw((socket) => {
      socket.once('data', () => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na')
        socket.once('data', () => socket.resetAndDestroy())
      })
    })
    const checkups = checkupsOf([a.address])
    const seen = failuresSeen()
    const agent = agentOf(checkups)
    expect(await texts(agent, 1)).toBe('a')
    const request = get({ host: 'api', agent })
    const [error] = (await once(request, 'error')) as [NodeJS.ErrnoException]
    expect([request.reusedSocket, error.code]).toEqual([true, 'ECONNRESET'])
    await settled(checkups)
    expect(seen.size).toBe(0)
  })
})

const abortSoon = (): AbortSignal => {
  const controller = new AbortController()
  setTimeout(() => controller.abort(), 30)
  return controller.signal
}

describe('nothing is other than without the agent', () => {
  it('an answer that nobody listens to is read, and its connection used again', async () => {
    const a = await startServer('a', (_, res) => res.end(bytes(200_000)))
    const checkups = checkupsOf([a.address])
    const agent = agentOf(checkups)
    for (let i = 0; i < 3; i++) {
      httpRequest({ host: 'api', agent }).end()
      await eventually(() => expect(a.seen).toHaveLength(i + 1))
      await settled(checkups)
    }
    expect(a.connections).toBe(1)
  })

  it('an answer is there for who listens once', async () => {
    const a = await startServer('a')
    const agent = agentOf(checkupsOf([a.address]))
    const text = await new Promise((resolve, reject) => {
      const onResponse = (response: IncomingMessage) => {
        // Read a while later: nobody else may have begun to.
        setTimeout(() => void textOf(response).then(resolve, reject), 20)
      }
      httpRequest({ host: 'api', agent }, onResponse).end()
    })
    expect(text).toBe('a')
  })

  it('an upgrade: the socket is the client’s, in flight until it closes', async () => {
    const wss = new WebSocketServer({ noServer: true })
    const a = await startServer('a')
    a.server.on('upgrade', (req: IncomingMessage, socket: Socket, head: Buffer) => {
      wss.handleUpgrade(req, socket, head, (ws) => ws.on('message', (data) => ws.send(data)))
    })
    const checkups = checkupsOf([refusing(), a.address])
    const client = new WebSocket('ws://api/', { agent: agentOf(checkups) })
    await once(client, 'open')
    client.send('hello')
    const [message] = (await once(client, 'message')) as [Buffer]
    expect([message.toString(), inFlight(checkups)]).toEqual(['hello', [0, 1]])
    client.close()
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it('options of requests count: timeout', async () => {
    const a = await startServer('a', never)
    const checkups = checkupsOf([a.address])
    const request = get({ host: 'api', agent: agentOf(checkups), timeout: 30 })
    await once(request, 'timeout')
    request.on('error', () => undefined).destroy()
    await settled(checkups)
  })
})

describe('connections', () => {
  it('as many are kept as keepalive says, and those of a peer that leaves are closed', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const checkups = checkupsOf([a.address, b.address], { keepalive: 1 })
    const agent = agentOf(checkups)
    await Promise.all(Array.from({ length: 8 }, () => ask(agent)))
    await eventually(() => expect([a.sockets.size, b.sockets.size]).toEqual([1, 1]))
    await checkups.removeServer('api', a.address)
    await eventually(() => expect([a.sockets.size, b.sockets.size]).toEqual([0, 1]))
    agent.destroy()
    await eventually(() => expect(b.sockets.size).toBe(0))
  })
})

it('the listeners of a request go away with it', async () => {
  const a = await startServer('a')
  const checkups = checkupsOf([a.address])
  const agent = agentOf(checkups)
  const counts: number[] = []
  for (let i = 0; i < 10; i++) {
    const request = httpRequest({ host: 'api', agent })
    const reply = replyTo(request)
    request.end()
    await reply
    const { socket } = request
    await settled(checkups)
    const events = ['close', 'error', 'end', 'timeout', 'free', 'connect', 'drain', 'data', 'agentRemove']
    counts.push(events.reduce((sum, event) => sum + socket!.listenerCount(event), 0))
  }
  expect(counts).toEqual(counts.map(() => counts[0]))
  expect(a.connections).toBe(1)
})

it(
  '10,000 requests while one of three peers fails at random: only what it had in flight fails, and nothing is left',
  { timeout: 120_000 },
  async () => {
    let bad = false
    let state = 1
    // The same sequence every time.
    const random = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32
    const moody: Answer = (req, res) => {
      req.resume()
      const mood = bad ? random() : 1
      if (mood < 0.4) req.socket.resetAndDestroy()
      else if (mood < 0.7) res.writeHead(503).end('busy')
      else res.end('a')
    }
    const peers = [await startServer('a', moody), await startServer('b'), await startServer('c')]
    // A millisecond a request: how many requests a ban takes does not depend on the machine.
    const clock = new VirtualClock()
    const addresses = peers.map(({ address }) => address)
    const checkups = checkupsOf(addresses, { failTimeout: 50, keepalive: 4 }, clock)
    const agent = agentOf(checkups)
    let failed = 0
    let left = 10_000
    const client = async () => {
      for (; left > 0; left--) {
        if (left % 500 === 0) bad = !bad
        const reply = await ask(agent, left % 3 === 0 ? { method: 'POST', body: bytes(1_000) } : {}).catch(
          () => undefined,
        )
        if (reply?.status !== 200) failed++
        clock.advanceSync(1)
      }
    }
    await Promise.all(Array.from({ length: 20 }, client))
    expect(failed).toBeGreaterThan(0)
    // Each ban lets through what is in flight then; each trial one.
    expect(failed).toBeLessThan(1_000)
    await settled(checkups)
    await eventually(() => expect(peers.map(({ sockets }) => sockets.size <= 4)).toEqual([true, true, true]))
    agent.destroy()
    await eventually(() => expect(peers.map(({ sockets }) => sockets.size)).toEqual([0, 0, 0]))
  },
)

describe('https', () => {
  const tls = { cert, key }
  const secure = (agent: Agent, options: RequestOptions = {}) => {
    const request = httpsRequest({ host: 'api', agent, ...options })
    const reply = replyTo(request)
    request.end()
    return reply
  }

  it('checks certificates for the name of a peer, else for that of the URL', async () => {
    const [a, b] = [await startServer('a', whenRead, { tls }), await startServer('b', whenRead, { tls })]
    const options = { protocol: 'https', agent: { ca: cert } } as const
    const byName = agentOf(checkupsOf([a, b].map(({ address }) => address.replace('127.0.0.1', 'localhost'))), options)
    expect((await secure(byName)).text + (await secure(byName)).text + (await secure(byName)).text).toBe('aba')
    expect([a.connections, b.connections]).toEqual([1, 1])

    const byUrl = agentOf(checkupsOf([a.address, b.address]), options)
    expect((await secure(byUrl, { host: 'localhost' })).text).toBe('a')
    const error = await failureOf(secure(byUrl, { host: 'other.test' }))
    expect(error).toMatchObject({
      errors: [{ code: 'ERR_TLS_CERT_ALTNAME_INVALID' }, { code: 'ERR_TLS_CERT_ALTNAME_INVALID' }],
    })
  })

  it('goes on when a peer does not speak TLS', async () => {
    const [a, b] = [await startServer('a'), await startServer('b', whenRead, { tls })]
    const checkups = checkupsOf([a.address, b.address])
    const agent = agentOf(checkups, { protocol: 'https', agent: { ca: cert, servername: 'localhost' } })
    expect((await secure(agent)).text).toBe('b')
    expect(marks(checkups)).toEqual([1, 0])
  })
})

it('options are checked when the agent is made', () => {
  const checkups = checkupsOf([refusing()])
  const bad = [{ retries: 1 }, { protocol: 'ftp' }, { hashKey: 'ip' }, { hashKey: {} }, { clusterKey: 'near' }]
  for (const options of bad as object[]) {
    expect(() => createAgent(checkups, 'api', options)).toThrow(ConfigError)
  }
  expect(() => createAgent(checkups, '')).toThrow(ConfigError)
})

describe('one of three peers is killed in the middle of traffic', () => {
  it.each([1, 3])('maxFails %i: what it had in flight fails, and nothing else', async (maxFails) => {
    const three = await startThree({ maxFails })
    const agent = agentOf(three.checkups)
    const result = await killOne(async (path) => (await ask(agent, { path })).text, three)
    expect(result.meanwhile.length).toBeLessThanOrEqual(CONCURRENCY)
    expect(result.afterwards).toEqual([])
  })

  it('a new connection to it is tried at most maxFails times, one request after another', async () => {
    const three = await startThree({ maxFails: 2 })
    const agent = agentOf(three.checkups)
    await texts(agent, 6)
    const seen = failuresSeen()
    three.peers[1]!.child.kill('SIGKILL')
    await once(three.peers[1]!.child, 'exit')
    expect(await texts(agent, 12)).toMatch(/^([ac] GET \/ 0)+$/)
    expect([...seen]).toEqual([[three.peers[1]!.address, 2]])
  })
})
