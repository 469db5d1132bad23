import { once } from 'node:events'
import { PassThrough } from 'node:stream'
import { text } from 'node:stream/consumers'
import { errors, fetch as undiciFetch, request, stream, type Dispatcher } from 'undici'
import { describe, expect, it } from 'vitest'
import { createDispatcher } from '../../../src/adapter/undici.js'
import type { DispatcherOptions } from '../../../src/adapter/undici.js'
import { AttemptsError, ConfigError, isCheckupsError } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { inFlight, marks, refusing, settled, startRaw, startServer, statusOf } from '../../support/http.js'
import type { Answer, Gateway, Listening } from '../../support/http.js'
import { stopSystemClock } from '../../support/system-clock.js'
import { asked, checkupsFor, dispatching, says, silent, type CheckupsSettings, type Dispatching } from './support.js'

const asGateway = (dispatching: Dispatching) => dispatching as unknown as Gateway
/** Node's own fetch; its types know another version of undici. */
const nodeFetch = fetch as unknown as typeof undiciFetch

const clients: [name: string, get: (url: string, dispatcher: Dispatcher) => Promise<string>][] = [
  ['request', async (url, dispatcher) => (await request(url, { dispatcher })).body.text()],
  ["undici's fetch", async (url, dispatcher) => (await undiciFetch(url, { dispatcher })).text()],
  ["Node's fetch", async (url, dispatcher) => (await nodeFetch(url, { dispatcher })).text()],
  ['dispatcher.request', async (url, dispatcher) => (await dispatcher.request(splitUrl(url))).body.text()],
  ['stream', (url, dispatcher) => streamed(url, dispatcher)],
  ['pipeline', (url, dispatcher) => text(dispatcher.pipeline(splitUrl(url), ({ body }) => body).end())],
]

function splitUrl(url: string): Dispatcher.RequestOptions & { origin: string } {
  const { origin, pathname } = new URL(url)
  return { origin, path: pathname, method: 'GET' }
}

async function streamed(url: string, dispatcher: Dispatcher): Promise<string> {
  const sink = new PassThrough()
  const whole = text(sink)
  await stream(url, { dispatcher, method: 'GET' }, () => sink)
  return whole
}

async function get({ dispatcher }: Dispatching, options: object = {}): Promise<string> {
  const { statusCode, body } = await request('http://test/', { dispatcher, ...options })
  return `${statusCode} ${await body.text()}`
}

/** What a promise is rejected with. */
const thrown = (work: Promise<unknown>): Promise<Error & { code?: string; cause?: unknown }> =>
  work.then(
    () => expect.unreachable('it should fail'),
    (error: unknown) => error as Error,
  )

describe.each(clients)('%s', (_, get) => {
  it('is balanced, and goes to the next peer where one refuses', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const { dispatcher } = dispatching([a, refusing(), b])
    const answers: string[] = []
    for (let i = 0; i < 6; i++) answers.push(await get('http://test/path', dispatcher))
    expect(answers.sort()).toEqual(['a', 'a', 'a', 'b', 'b', 'b'])
    expect(a.seen[0]).toMatchObject({ method: 'GET', url: '/path', headers: { host: 'test' } })
  })

  it('is told that there is no such upstream', async () => {
    const { dispatcher } = dispatching([refusing()])
    const error = await thrown(get('http://other/', dispatcher))
    expect(isCheckupsError(error.cause ?? error, 'ERR_CHECKUPS_UNKNOWN_UPSTREAM')).toBe(true)
  })

  it('is told that nobody is available, and whom it was tried with', async () => {
    const empty = await thrown(get('http://test/', dispatching([], { upstream: { allowEmpty: true } }).dispatcher))
    expect(isCheckupsError(empty.cause ?? empty, 'ERR_CHECKUPS_NO_PEER')).toBe(true)
    const failed = await thrown(get('http://test/', dispatching([refusing(0), refusing(1)]).dispatcher))
    const error = (failed.cause ?? failed) as AttemptsError
    expect(error).toBeInstanceOf(AttemptsError)
    expect(error.errors).toMatchObject([{ code: 'ECONNREFUSED' }, { code: 'ECONNREFUSED' }])
  })
})

it("is balanced for the agent's place: undici's and Node's global dispatcher may be one", async () => {
  const { dispatcher } = dispatching([await startServer('a')])
  const key = Symbol.for('undici.globalDispatcher.1')
  const globals = globalThis as unknown as Record<symbol, unknown>
  const before = globals[key]
  globals[key] = dispatcher
  try {
    expect(await (await fetch('http://test/')).text()).toBe('a')
  } finally {
    globals[key] = before
  }
})

describe('which upstream', () => {
  const rows: [says: string, url: string, options: DispatcherOptions, host: string][] = [
    ['the host of the origin, lower case', 'http://TEST/', {}, 'test'],
    ['without its port', 'http://test:8080/', {}, 'test:8080'],
    ['what key says', 'http://anything.example/', { key: () => 'test' }, 'anything.example'],
    ['and Host may be the peer', 'http://test/', { host: 'peer' }, '127.0.0.1:'],
  ]
  it.each(rows)('%s', async (_, url, options, host) => {
    const a = await startServer('a')
    const { dispatcher } = dispatching([a], options)
    await (await request(url, { dispatcher })).body.text()
    expect(a.seen[0]?.headers.host).toContain(host)
  })

  it('none, if key says so', async () => {
    const error = await thrown(get(dispatching([await startServer('a')], { key: () => undefined })))
    expect(error).toMatchObject({ code: 'UND_ERR_INVALID_ARG', message: 'the request names no upstream' })
  })

  const hosts: [says: string, headers: Dispatcher.DispatchOptions['headers']][] = [
    ['an object', { Host: 'own', 'x-a': '1' }],
    ['an array', ['HOST', 'own', 'x-a', '1']],
    ['pairs', new Map([['host', 'own']]).set('x-a', '1')],
  ]
  it.each(hosts)('a Host of the request stays: %s', async (_, headers) => {
    const a = await startServer('a')
    await get(dispatching([a]), { headers })
    expect(a.seen[0]?.headers).toMatchObject({ host: 'own', 'x-a': '1' })
  })

  it.each(hosts)('other fields stay beside it: %s', async (_, headers) => {
    const a = await startServer('a')
    const others = Array.isArray(headers)
      ? headers.slice(2)
      : headers instanceof Map
        ? new Map([['x-a', '1']])
        : { 'x-a': '1' }
    await get(dispatching([a]), { headers: others })
    expect(a.seen[0]?.headers).toMatchObject({ host: 'test', 'x-a': '1' })
  })

  it('hashKey and clusterKey choose the peer', async () => {
    const [a, b, c] = [await startServer('a'), await startServer('b'), await startServer('c')]
    const checkups = checkupsFor([refusing()], {
      upstreams: {
        hashed: { servers: [a.address, b.address, c.address], balancer: 'consistent-hash' },
        named: { cluster: { near: { servers: [a.address] }, far: { servers: [b.address] } } },
      },
    })
    const dispatcher = createDispatcher(checkups, {
      hashKey: ({ path }) => path,
      clusterKey: ({ method }) => (method === 'POST' ? 'far' : undefined),
    })
    const ask = async (url: string, method: 'GET' | 'POST' = 'GET') =>
      (await request(url, { dispatcher, method })).body.text()
    for (const path of ['/1', '/2', '/3', '/4']) {
      const expected = checkups.selectPeer('hashed', { hashKey: path })?.address
      const name = [a, b, c].find(({ address }) => address === expected)?.name
      expect([await ask(`http://hashed${path}`), await ask(`http://hashed${path}`)]).toEqual([name, name])
    }
    expect([await ask('http://named/'), await ask('http://named/', 'POST')]).toEqual(['a', 'b'])
    await dispatcher.close()
  })
})

describe('an answer that sends the request on', () => {
  const status =
    (code: number, headers: Record<string, string> = {}): Answer =>
    (req, res) => {
      req.resume()
      res.writeHead(code, headers).end('refused')
    }
  const rows: [method: string, code: number, goesOn: boolean][] = [
    ...['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'].flatMap((method) =>
      [502, 503, 504].map((code): [string, number, boolean] => [method, code, true]),
    ),
    ['POST', 503, false],
    ['PATCH', 503, false],
    ['GET', 500, false],
    ['GET', 404, false],
  ]
  it.each(rows)('%s %i: %s', async (method, code, goesOn) => {
    const [a, b] = [await startServer('a', status(code)), await startServer('b')]
    const test = dispatching([a, b])
    const answer = await get(test, { method })
    expect(answer).toBe(`${goesOn ? 200 : code} ${method === 'HEAD' ? '' : goesOn ? 'b' : 'refused'}`)
    await settled(asGateway(test))
    expect(marks(asGateway(test), a)).toBe(code === 404 ? 0 : 1)
  })

  const idempotent: [says: string, options: object, expected: string][] = [
    ['a POST that is said to be idempotent goes on', { method: 'POST', idempotent: true }, '200 b'],
    ['a GET that is said not to be stays', { method: 'GET', idempotent: false }, '503 refused'],
  ]
  it.each(idempotent)('%s', async (_, options, expected) => {
    expect(await get(dispatching([await startServer('a', status(503)), await startServer('b')]), options)).toBe(
      expected,
    )
  })

  it('is handed on by the last peer, or where tries end', async () => {
    const [a, b] = [await startServer('a', status(503)), await startServer('b', status(502))]
    expect(await get(dispatching([a, b]))).toBe('502 refused')
    expect(await get(dispatching([a, b], { tries: 1 }))).toBe('503 refused')
    expect(await get(dispatching([a, b], { retryStatuses: [] }))).toBe('503 refused')
    expect(await get(dispatching([a, b], { budget: { tryRetry: () => false } }))).toBe('503 refused')
  })

  it('asks the budget for leave, once for each retry, and tells it of every request', async () => {
    const asked: string[] = []
    const budget = { request: () => asked.push('request'), tryRetry: () => asked.push('retry') < 4 }
    const refuse = () => startServer('x', status(503))
    const servers = [await refuse(), refusing(), await refuse(), await refuse()]
    expect(await get(dispatching(servers, { budget, upstream: { maxFails: 0 } }))).toBe('503 refused')
    expect(asked).toEqual(['request', 'retry', 'retry', 'retry'])
    const spent = dispatching([refusing(0), refusing(1)], { budget: { tryRetry: () => false } })
    expect(await thrown(get(spent))).toMatchObject({ code: 'ERR_CHECKUPS_RETRY_BUDGET', attempts: [{}] })
  })

  it("the budget is the instance's, if there is no other", async () => {
    const [a, b] = [await startServer('a', status(503)), await startServer('b')]
    expect(await get(dispatching([a, b], { retryBudget: { tryRetry: () => false } }))).toBe('503 refused')
  })

  it('may be one that only means next', async () => {
    const [a, b] = [await startServer('a', status(404)), await startServer('b')]
    const test = dispatching([a, b], { upstream: { statuses: { 404: 'next' } } })
    expect(await get(test)).toBe('200 b')
    expect(marks(asGateway(test), a)).toBe(0)
  })

  it.each([10, 1_000_000])('may have a body of %i bytes; a long one costs the connection', async (length) => {
    const a = await startServer('a', (_req, res) => void res.writeHead(503).end('x'.repeat(length)))
    const test = dispatching([a, await startServer('b')], { upstream: { maxFails: 0 } })
    for (let i = 0; i < 4; i++) expect(await get(test)).toBe('200 b')
    expect(a.connections).toBe(length === 10 ? 1 : 2)
  })

  const times: [says: string, header: () => string][] = [
    ['seconds', () => '120'],
    ['a date', () => new Date(Date.now() + 120_000).toUTCString()],
  ]
  it.each(times)('with Retry-After in %s keeps the peer alone for that long', async (_, header) => {
    for (const code of [503, 429]) {
      const a = await startServer('a', status(code, { 'retry-after': header() }))
      const b = await startServer('b')
      const test = dispatching([a, b], { upstream: { maxFails: 5, failTimeout: 10 } })
      expect(await get(test)).toBe('200 b')
      await settled(asGateway(test))
      const { passive } = statusOf(asGateway(test)).get(a.address)!
      expect(passive.state).toBe('banned')
      // A date is in whole seconds, and some have passed on a busy machine.
      expect(passive.remaining).toBeGreaterThan(100_000)
      expect(passive.remaining).toBeLessThanOrEqual(120_000)
      for (let i = 0; i < 3; i++) expect(await get(test)).toBe('200 b')
    }
  })
})

describe('a peer that fails before it answers', () => {
  const timeouts = { connect: 2_000, send: 2_000, read: 2_000 }
  const rows: [says: string, peer: () => Promise<Listening>, options: DispatcherOptions & CheckupsSettings][] = [
    ['hangs beyond tryTimeout', silent, { tryTimeout: 50 }],
    ["hangs beyond the upstream's tryTimeout", silent, { upstream: { tryTimeout: 50 } }],
    ['hangs beyond timeouts.read', silent, { upstream: { timeouts: { ...timeouts, read: 50 } } }],
    ['closes', () => startRaw((socket) => void socket.once('data', () => socket.end())), {}],
    ['resets', () => startRaw((socket) => void socket.once('data', () => socket.resetAndDestroy())), {}],
    ['sends garbage', () => says('garbage\r\n\r\n'), {}],
    ['sends half a head', () => says('HTTP/1.1 200 OK\r\nA: b', (socket) => socket.end()), {}],
    ['sends too large a head', () => says(`HTTP/1.1 200 OK\r\nA: ${'b'.repeat(20_000)}\r\n\r\n`), {}],
    ['switches protocols unasked', () => says('HTTP/1.1 101 X\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n'), {}],
  ]
  it.each(rows)('%s: a GET goes on', async (_, startPeer, options) => {
    const clock = stopSystemClock()
    const [a, b] = [await startPeer(), await startServer('b')]
    const test = dispatching([a, b], options)
    const answer = get(test)
    await asked(a)
    await clock.advance(50)
    expect(await answer).toBe('200 b')
    expect(marks(asGateway(test), a)).toBe(1)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it.each(rows)('%s: a POST ends', async (_, startPeer, options) => {
    const clock = stopSystemClock()
    const [a, b] = [await startPeer(), await startServer('b')]
    const test = dispatching([a, b], options)
    const failure = thrown(get(test, { method: 'POST', body: 'x' }))
    await asked(a)
    await clock.advance(50)
    const error = await failure
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_STOPPED', attempts: [{ verdict: 'stop' }] })
    expect([marks(asGateway(test), a), b.connections, inFlight(asGateway(test))]).toEqual([1, 0, 0])
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('in time for all of it', async () => {
    const test = dispatching([await silent(), await silent()], { timeout: 50 })
    expect(await thrown(get(test))).toMatchObject({ code: 'ERR_CHECKUPS_TIMEOUT' })
    expect(await thrown(get(dispatching([await silent()], { upstream: { timeout: 50 } })))).toMatchObject({
      code: 'ERR_CHECKUPS_TIMEOUT',
    })
  })

  it('time limits end when the answer begins', async () => {
    const clock = stopSystemClock()
    let finish = (): unknown => undefined
    const a = await startServer('a', (_req, res) => {
      res.write('long ')
      finish = () => res.end('answer')
    })
    const { dispatcher } = dispatching([a], { tryTimeout: 30, timeout: 60 })
    const { body } = await request('http://test/', { dispatcher })
    await clock.advance(1_000)
    finish()
    expect(await body.text()).toBe('long answer')
  })

  it('waits before further attempts if it is told to', async () => {
    const test = dispatching([refusing(0), refusing(1), await startServer('c')], { backoff: { initial: 20 } })
    expect(await get(test)).toBe('200 c')
  })
})

describe('a peer that breaks off in its answer', () => {
  const half = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf'
  const timeouts = { connect: 2_000, send: 2_000, read: 50 }
  const rows: [says: string, peer: () => Promise<Listening>, options: CheckupsSettings][] = [
    ['closes', () => says(half, (socket) => socket.end()), {}],
    ['resets', () => says(half, (socket) => setImmediate(() => socket.resetAndDestroy())), {}],
    ['goes silent', () => says(half), { upstream: { timeouts } }],
  ]
  it.each(rows)('%s: has failed, and nobody else is asked', async (_, startPeer, options) => {
    const [a, b] = [await startPeer(), await startServer('b')]
    const test = dispatching([a, b], options)
    const { body, statusCode } = await request('http://test/', { dispatcher: test.dispatcher })
    expect(statusCode).toBe(200)
    expect((await thrown(body.text())).code).toMatch(/^(UND_ERR_|ECONNRESET)/)
    await settled(asGateway(test))
    expect([marks(asGateway(test), a), b.connections]).toEqual([1, 0])
  })
})

describe('a request that is aborted counts against nobody', () => {
  const gone = async (test: Dispatching, a: Listening, work: Promise<unknown>, controller: AbortController) => {
    controller.abort()
    expect((await thrown(work)).name).toBe('AbortError')
    await settled(asGateway(test))
    expect(marks(asGateway(test), a)).toBe(0)
    await eventually(() => expect(a.sockets.size).toBe(0))
  }

  it.each(clients.slice(0, 3).map(([name]) => name))('before it is sent: %s', async (name) => {
    const a = await silent()
    const test = dispatching([a])
    const options = { dispatcher: test.dispatcher, signal: AbortSignal.abort() }
    const client = { request, "undici's fetch": undiciFetch, "Node's fetch": nodeFetch }[name]!
    expect((await thrown(client('http://test/', options))).name).toBe('AbortError')
    await settled(asGateway(test))
    expect([marks(asGateway(test), a), a.connections]).toEqual([0, 0])
  })

  it('while it is connected', async () => {
    const a = await silent()
    const test = dispatching([a])
    const controller = new AbortController()
    const work = request('http://test/', { dispatcher: test.dispatcher, signal: controller.signal })
    // Synchronously: there is no connection yet.
    expect(inFlight(asGateway(test))).toBe(1)
    await gone(test, a, work, controller)
  })

  it.each([['request', request] as const, ['fetch', undiciFetch] as const])(
    'while it waits for its answer: %s',
    async (_, client) => {
      const a = await silent()
      const test = dispatching([a, await startServer('b')])
      const controller = new AbortController()
      const work = client('http://test/', { dispatcher: test.dispatcher, signal: controller.signal })
      await asked(a)
      await gone(test, a, work, controller)
    },
  )

  it('in the body of its answer', async () => {
    const a = await startServer('a', (_req, res) => void res.write('half'))
    const test = dispatching([a])
    const controller = new AbortController()
    const { body } = await request('http://test/', { dispatcher: test.dispatcher, signal: controller.signal })
    await gone(test, a, body.text(), controller)
  })

  it('by somebody who does not read it to its end', async () => {
    const a = await startServer('a', (_req, res) => void res.write('half'))
    const test = dispatching([a])
    const { body } = await request('http://test/', { dispatcher: test.dispatcher })
    body.on('error', () => undefined).destroy()
    await settled(asGateway(test))
    expect(marks(asGateway(test), a)).toBe(0)
  })

  it('and destroying the body of an answer that was complete is no abort', async () => {
    const a = await startServer('a')
    const test = dispatching([a])
    for (let i = 0; i < 3; i++) {
      const { body } = await request('http://test/', { dispatcher: test.dispatcher })
      await settled(asGateway(test))
      body.on('error', () => undefined).destroy()
    }
    expect([await get(test), a.connections, marks(asGateway(test), a)]).toEqual(['200 a', 1, 0])
  })
})

describe('what the caller does wrong counts against nobody', () => {
  const rows: [says: string, options: object, message: RegExp][] = [
    ['a path', { path: 'no slash' }, /path must be/],
    ['a method', { method: 'G E T' }, /invalid request method/],
    ['a field', { headers: { 'x-a': 'a\nb' } }, /invalid x-a header/],
    ['a field of the connection', { headers: { 'transfer-encoding': 'chunked' } }, /invalid transfer-encoding header/],
    ['a length', { method: 'PUT', headers: { 'content-length': '5' }, body: 'x' }, /does not match content-length/],
    ['an option', { throwOnError: true }, /invalid throwOnError/],
    ['an origin', { origin: 'ftp://test' }, /protocol/],
    ['no origin', { origin: '' }, /origin/],
    ['a body', { method: 'PUT', body: 5 }, /body must be/],
  ]
  it.each(rows)('%s', async (_, options, message) => {
    const a = await startServer('a')
    const test = dispatching([a])
    expect(await get(test)).toBe('200 a')
    const all = { origin: 'http://test', path: '/', method: 'GET' as const, ...options }
    expect((await thrown(test.dispatcher.request(all))).message).toMatch(message)
    expect(await get(test)).toBe('200 a')
    expect([marks(asGateway(test), a), a.connections]).toEqual([0, 1])
  })

  it('a handler that throws', async () => {
    const a = await startServer('a')
    const test = dispatching([a])
    for (const method of ['onHeaders', 'onData'] as const) {
      const error = new Error(`mine, in ${method}`)
      const heard = await new Promise((resolve) => {
        const handler = {
          onConnect: () => undefined,
          onHeaders: () => true,
          onData: () => true,
          onComplete: () => resolve('complete'),
          onError: resolve,
          [method]: () => {
            throw error
          },
        }
        test.dispatcher.dispatch({ origin: 'http://test', path: '/', method: 'GET' }, handler)
      })
      expect(heard).toBe(error)
    }
    await settled(asGateway(test))
    expect(marks(asGateway(test), a)).toBe(0)
  })

  it.each(['hashKey', 'clusterKey', 'key'] as const)('an option that throws: %s', async (name) => {
    const error = new Error('mine')
    const test = dispatching([await startServer('a')], {
      [name]: () => {
        throw error
      },
    })
    expect(await thrown(get(test))).toBe(error)
    await test.dispatcher.close()
  })

  it('dispatch without a handler, or without options', () => {
    const { dispatcher } = dispatching([refusing()])
    expect(() => dispatcher.dispatch({ path: '/', method: 'GET' }, undefined as never)).toThrow('handler must be')
    expect(() => dispatcher.dispatch(undefined as never, {})).toThrow('opts must be an object')
  })
})

describe('handlers', () => {
  it('of the newer form are told everything, and may pause and abort', async () => {
    const a = await startServer('a', (_req, res) => {
      res.writeHead(200, { trailer: 'x-t', 'x-a': '1' })
      res.write('one')
      res.addTrailers({ 'x-t': 'yes' })
      res.end('two')
    })
    const test = dispatching([a])
    const heard: unknown[] = []
    let controller: Dispatcher.DispatchController | undefined
    await new Promise<void>((resolve, reject) => {
      test.dispatcher.dispatch(
        { origin: 'http://test', path: '/', method: 'GET' },
        {
          onRequestStart: (given) => (controller = given),
          onResponseStart(given, status, headers, message) {
            heard.push(status, headers['x-a'], message, Array.isArray(given.rawHeaders))
            given.pause()
            setImmediate(() => {
              heard.push(given.paused)
              given.resume()
            })
          },
          onResponseData: (_, chunk) => heard.push(chunk.toString()),
          onResponseEnd(_, trailers) {
            heard.push(trailers['x-t'])
            resolve()
          },
          onResponseError: (_, error) => reject(error),
        },
      )
    })
    expect(heard).toEqual([200, '1', 'OK', true, true, 'one', 'two', 'yes'])
    expect([controller?.paused, controller?.aborted, controller?.reason]).toEqual([false, false, null])

    const reason = new Error('enough')
    const error = await new Promise((resolve) => {
      test.dispatcher.dispatch(
        { origin: 'http://test', path: '/', method: 'GET' },
        {
          onRequestStart: () => undefined,
          onResponseStart: (given) => given.abort(reason),
          onResponseError: (given, error) => resolve([given.aborted, given.reason, error]),
        },
      )
    })
    expect(error).toEqual([true, reason, reason])
    await settled(asGateway(test))
    expect(marks(asGateway(test), a)).toBe(0)
  })

  it('hear of answers of status 1xx, and of what was sent', async () => {
    const a = await startServer('a', (req, res) => {
      res.writeEarlyHints({ link: '</a.css>; rel=preload' })
      req.resume().once('end', () => res.end('a'))
    })
    const { dispatcher } = dispatching([a])
    const infos: unknown[] = []
    const { body } = await request('http://test/', { dispatcher, onInfo: (info) => infos.push(info) })
    expect(await body.text()).toBe('a')
    expect(infos).toEqual([{ statusCode: 103, headers: { link: '</a.css>; rel=preload' } }])

    const sent: unknown[] = []
    await new Promise<void>((resolve, reject) => {
      const handler = {
        onConnect: () => undefined,
        onHeaders: () => true,
        onData: () => true,
        onComplete: () => resolve(),
        onError: reject,
        onBodySent: (chunk: unknown) => sent.push(String(chunk)),
        onRequestSent: () => sent.push('all'),
        onResponseStarted: () => sent.push('started'),
      }
      dispatcher.dispatch({ origin: 'http://test', path: '/', method: 'PUT', body: 'body' }, handler)
    })
    // One for the early hints, and one for the answer.
    expect(sent).toEqual(['body', 'all', 'started', 'started'])
  })
})

describe('answers without a body, and large ones', () => {
  const rows: [method: string, code: number][] = [
    ['HEAD', 200],
    ['GET', 204],
    ['GET', 304],
  ]
  it.each(rows)('%s %i', async (method, code) => {
    const a = await startServer('a', (_req, res) => void res.writeHead(code, { 'x-a': '1' }).end())
    const test = dispatching([a])
    for (let i = 0; i < 3; i++) expect(await get(test, { method })).toBe(`${code} `)
    await settled(asGateway(test))
    expect(marks(asGateway(test), a)).toBe(0)
  })

  it('a slow reader is waited for', async () => {
    const total = 20_000_000
    let written = 0
    const a = await startServer('a', (_req, res) => {
      const chunk = Buffer.alloc(100_000, 1)
      const go = () => {
        while (written < total) {
          written += chunk.length
          if (!res.write(chunk)) return void res.once('drain', go)
        }
        res.end()
      }
      go()
    })
    const { dispatcher } = dispatching([a])
    const { body } = await request('http://test/', { dispatcher })
    await once(body, 'readable')
    // Nobody reads: what the peer could write before it had to wait is in buffers, of which there is an end.
    let before = -1
    await eventually(() => {
      const now = written
      const still = now === before
      before = now
      expect(still).toBe(true)
    }, 100)
    expect(written).toBeLessThan(total / 2)
    let length = 0
    for await (const chunk of body) length += (chunk as Buffer).length
    expect(length).toBe(total)
  })
})

describe('close and destroy', () => {
  it('close waits for what is under way, and refuses what comes', async () => {
    let finish = (): unknown => undefined
    const a = await startServer('a', (_req, res) => (finish = () => res.end('late')))
    const test = dispatching([a])
    const work = get(test)
    await once(a.server, 'request')
    const closing = [test.dispatcher.close(), new Promise<void>((resolve) => test.dispatcher.close(resolve))]
    expect((await thrown(get(test))).name).toBe('ClientClosedError')
    finish()
    expect(await work).toBe('200 late')
    await Promise.all(closing)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('destroy ends what is under way; that counts against nobody', async () => {
    const a = await silent()
    const test = dispatching([a])
    const works = [get(test), get(test, { method: 'POST', body: 'x' })]
    await once(a.server, 'connection')
    const error = new Error('going down')
    const destroyed = test.dispatcher.destroy(error)
    expect(await Promise.all(works.map(thrown))).toEqual([error, error])
    await destroyed
    await new Promise<void>((resolve) => test.dispatcher.destroy(resolve))
    await new Promise<void>((resolve) => test.dispatcher.destroy(null, resolve))
    expect(await thrown(get(test))).toBe(error)
    expect([marks(asGateway(test), a), inFlight(asGateway(test))]).toEqual([0, 0])
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('destroy without an error has one', async () => {
    const test = dispatching([await silent()])
    const work = get(test)
    await test.dispatcher.destroy()
    expect(await thrown(work)).toBeInstanceOf(errors.ClientDestroyedError)
  })

  it('events of connections are told on', async () => {
    const a = await startServer('a')
    const test = dispatching([a, refusing()])
    const events: string[] = []
    for (const event of ['connect', 'disconnect', 'connectionError'] as const) {
      test.dispatcher.on(event as 'connect', (origin, targets) => {
        expect(targets[0]).toBe(test.dispatcher)
        events.push(`${event} ${origin.host}`)
      })
    }
    await get(test)
    await get(test)
    await test.dispatcher.close()
    await eventually(() => expect(events).toContain(`disconnect ${a.address}`))
    expect(events).toContain(`connect ${a.address}`)
    expect(events).toContain(`connectionError ${refusing()}`)
  })
})

describe('options are checked', () => {
  const rows: [says: string, options: object, message: string][] = [
    ['one that does not exist', { retries: 3 }, 'options.retries'],
    ['bodyLimit', { bodyLimit: -1 }, 'options.bodyLimit'],
    ['protocol', { protocol: 'ftp' }, 'options.protocol'],
    ['host', { host: 'mine' }, 'options.host'],
    ['key', { key: 'api' }, 'options.key'],
    ['hashKey', { hashKey: 'url' }, 'options.hashKey'],
    ['clusterKey', { clusterKey: 'near' }, 'options.clusterKey'],
    ['retryStatuses', { retryStatuses: [99] }, 'options.retryStatuses[0]'],
  ]
  it.each(rows)('%s', (_, options, message) => {
    const checkups = checkupsFor([refusing()])
    expect(() => createDispatcher(checkups, options)).toThrow(ConfigError)
    expect(() => createDispatcher(checkups, options)).toThrow(message)
  })
})
