import { Agent, fetch as undiciFetch, interceptors, request, type Dispatcher } from 'undici'
import { describe, expect, it, onTestFinished } from 'vitest'
import { balance, type InterceptorOptions } from '../../../src/adapter/undici.js'
import { ConfigError, isCheckupsError } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { inFlight, marks, refusing, settled, startRaw, startServer, whenRead } from '../../support/http.js'
import type { Gateway, Servers } from '../../support/http.js'
import { stopSystemClock } from '../../support/system-clock.js'
import { asked, checkupsFor, silent, socketPath, tls, type CheckupsSettings } from './support.js'

function composed(servers: Servers, options: CheckupsSettings & InterceptorOptions & { agent?: Agent.Options } = {}) {
  const { upstream, upstreams, retryBudget, agent: agentOptions, ...rest } = options
  const checkups = checkupsFor(servers, { upstream, upstreams, retryBudget } as CheckupsSettings)
  const agent = new Agent(agentOptions)
  onTestFinished(() => agent.destroy())
  const dispatcher = agent.compose(balance(checkups, rest))
  return { checkups, agent, dispatcher, gateway: { checkups } as unknown as Gateway }
}

const get = async (dispatcher: Dispatcher, url = 'http://test/', options: object = {}) =>
  (await request(url, { dispatcher, ...options })).body.text()

const clients: [name: string, get: (dispatcher: Dispatcher) => Promise<string>][] = [
  ['request', (dispatcher) => get(dispatcher)],
  ["undici's fetch", async (dispatcher) => (await undiciFetch('http://test/', { dispatcher })).text()],
  [
    "Node's fetch",
    async (dispatcher) => (await (fetch as unknown as typeof undiciFetch)('http://test/', { dispatcher })).text(),
  ],
]

it.each(clients)('%s is balanced over the connections of the agent', async (_, get) => {
  const [a, b] = [await startServer('a'), await startServer('b')]
  const { dispatcher, agent } = composed([a, refusing(), b])
  const origins: string[] = []
  agent.on('connect', (origin) => origins.push(origin.host))
  const answers: string[] = []
  for (let i = 0; i < 6; i++) answers.push(await get(dispatcher))
  expect(answers.sort().join('')).toBe('aaabbb')
  expect(new Set(origins)).toEqual(new Set([a.address, b.address]))
  expect(a.seen[0]?.headers.host).toBe('test')
})

it('answers that send a request on, bodies and time limits are as with a dispatcher', async () => {
  const clock = stopSystemClock()
  const a = await startServer('a', (req, res) => void req.resume().once('end', () => res.writeHead(503).end()))
  const b = await startServer('b')
  const hangs = await silent()
  const { dispatcher, gateway } = composed([a, hangs, b], { tryTimeout: 50 })
  const answer = get(dispatcher, 'http://test/', { method: 'PUT', body: 'body' })
  await asked(hangs)
  await clock.advance(50)
  expect(await answer).toBe('b')
  expect(b.seen).toMatchObject([{ length: 4 }])
  expect(marks(gateway, a)).toBe(1)
})

it('what the agent knows of TLS is used, and the name of a peer', async () => {
  const a = await startServer('a', whenRead, { host: 'localhost', tls })
  const { dispatcher } = composed([a], { agent: { connect: { ca: tls.cert } } })
  expect(await get(dispatcher, 'https://test/')).toBe('a')
  const { dispatcher: byOption } = composed([a], { protocol: 'https', agent: { connect: { ca: tls.cert } } })
  expect(await get(byOption)).toBe('a')
})

it('peers on unix sockets are reached as well', async () => {
  const a = await startServer('a', whenRead, { path: socketPath() })
  const { dispatcher } = composed([a, await startServer('b')])
  const answers: string[] = []
  for (let i = 0; i < 4; i++) answers.push(await get(dispatcher))
  expect(answers.join('')).toBe('abab')
})

it('keepalive: 0 keeps no connection of the agent', async () => {
  const a = await startServer('a')
  const { dispatcher } = composed([a], { upstream: { keepalive: 0 } })
  for (let i = 0; i < 3; i++) expect(await get(dispatcher)).toBe('a')
  expect(a.connections).toBe(3)
})

describe('an origin that is no upstream', () => {
  it('fails', async () => {
    const { dispatcher } = composed([refusing()])
    await expect(get(dispatcher, 'http://other/')).rejects.toSatisfy((error) =>
      isCheckupsError(error, 'ERR_CHECKUPS_UNKNOWN_UPSTREAM'),
    )
  })

  it('or goes where it would go without this', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const { dispatcher, checkups } = composed([a], { passUnknown: true })
    expect([await get(dispatcher), await get(dispatcher, `http://${b.address}/`)]).toEqual(['a', 'b'])
    await checkups.updateUpstream('127.0.0.1', { servers: [a.address] })
    expect(await get(dispatcher, `http://${b.address}/`)).toBe('a')
    await checkups.deleteUpstream('127.0.0.1')
    expect(await get(dispatcher, `http://${b.address}/`)).toBe('b')
  })
})

describe('beside other interceptors', () => {
  it('below and above', async () => {
    const a = await startServer('a', (_req, res) => void res.writeHead(302, { location: '/next' }).end())
    const b = await startServer('b')
    const { agent, checkups } = composed([a, b])
    const seen: string[] = []
    const below: Dispatcher.DispatcherComposeInterceptor = (dispatch) => (options, handler) => {
      seen.push(`${String(options.origin)}${options.path}`)
      return dispatch(options, handler)
    }
    const dispatcher = agent.compose(below, balance(checkups), interceptors.redirect({ maxRedirections: 2 }))
    expect(await get(dispatcher)).toBe('b')
    expect(seen).toEqual([`http://${a.address}/`, `http://${b.address}/next`])
  })

  it('one that throws counts against nobody', async () => {
    const a = await startServer('a')
    const { agent, checkups, gateway } = composed([a])
    const error = new Error('mine')
    const below: Dispatcher.DispatcherComposeInterceptor = () => (_options, _handler) => {
      throw error
    }
    await expect(get(agent.compose(below, balance(checkups)))).rejects.toBe(error)
    expect([marks(gateway, a), inFlight(gateway)]).toEqual([0, 0])
  })
})

it('an abort is neutral, also before there is a connection', async () => {
  const a = await startRaw((socket) => socket.resume())
  const { dispatcher, gateway } = composed([a])
  for (const wait of [false, true]) {
    const controller = new AbortController()
    const work = get(dispatcher, 'http://test/', { signal: controller.signal })
    if (wait) await eventually(() => expect(a.connections).toBe(2))
    controller.abort()
    await expect(work).rejects.toMatchObject({ name: 'AbortError' })
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
    if (!wait) await eventually(() => expect([a.connections, a.sockets.size]).toEqual([1, 0]))
  }
})

it('options are checked', () => {
  const checkups = checkupsFor([refusing()])
  expect(() => balance(checkups, { connect: {} } as object)).toThrow(ConfigError)
  expect(() => balance(checkups, { passUnknown: 1 } as object)).toThrow('options.passUnknown')
})
