import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { answers, bytes, inFlight, marks, open, proxies, refusing, replyTo, send } from '../support/http.js'
import { settled, startGateway, startServer, whenRead } from '../support/http.js'
import type { Answer, GatewayOptions, SendOptions } from '../support/http.js'

const PUT = { method: 'PUT', body: bytes(1_000) }
const POST = { method: 'POST', body: bytes(1_000) }

/** An answer with everything in it that could leak into another one. */
const status =
  (code: number, body = 'refused', headers: Record<string, string> = {}): Answer =>
  (req, res) => {
    req.resume()
    res.setHeader('set-cookie', ['a=1', 'b=2'])
    res.writeHead(code, `Because ${code}`, { 'x-dropped': 'yes', etag: '"x"', ...headers })
    res.end(body)
  }
const of = (code: number) => ({ status: code, statusMessage: `Because ${code}`, text: 'refused' })

describe.each(Object.entries(proxies))('an answer that sends the request on, with %s', (_, makeProxy) => {
  const start = async (answer: Answer, options: GatewayOptions = {}) => {
    const [a, b] = [await startServer('a', answer), await startServer('b')]
    return { a, b, gateway: await startGateway([a, b], { proxy: makeProxy(), ...options }) }
  }

  const rows: [method: string, code: number, goesOn: boolean][] = [
    ...['GET', 'OPTIONS', 'DELETE', 'PUT'].flatMap((m) =>
      [502, 503, 504].map((c) => [m, c, true] as [string, number, boolean]),
    ),
    ['POST', 502, false],
    ['POST', 503, false],
    ['POST', 504, false],
    ['PATCH', 503, false],
    ['GET', 500, false],
    ['GET', 501, false],
    ['GET', 404, false],
  ]
  it.each(rows)('%s %i: %s', async (method, code, goesOn) => {
    const { a, gateway } = await start(status(code))
    const reply = await send(gateway, { ...(/^P/.test(method) ? PUT : {}), method })
    expect(reply).toMatchObject(goesOn ? { status: 200, statusMessage: 'OK', text: 'b' } : of(code))
    await settled(gateway)
    expect(marks(gateway, a)).toBe(code === 404 ? 0 : 1)
  })

  it('leaves nothing behind in the next one', async () => {
    const { gateway } = await start(status(503, 'refused', { 'content-length': '7', 'x-powered-by': 'a' }))
    const { headers, ...reply } = await send(gateway)
    expect(reply).toEqual({ status: 200, statusMessage: 'OK', text: 'b' })
    expect(Object.keys(headers).sort()).toEqual(['connection', 'content-length', 'date', 'keep-alive'])
  })

  it('is passed on as it is by the last peer', async () => {
    const { a, b, gateway } = await start(status(503, 'not I'))
    b.answer = status(502, 'nor I', { 'x-peer': 'b' })
    const reply = await send(gateway)
    expect(reply).toMatchObject({ status: 502, statusMessage: 'Because 502', text: 'nor I' })
    expect(reply.headers).toMatchObject({ 'x-peer': 'b', 'set-cookie': ['a=1', 'b=2'] })
    expect([a.seen.length, b.seen.length]).toEqual([1, 1])
  })

  it.each([1_000, 60_000, 5_000_000])('may have a body of %i bytes', async (length) => {
    const { gateway } = await start(status(503, 'x'.repeat(length), { 'content-length': String(length) }))
    expect(await send(gateway)).toMatchObject({ status: 200, text: 'b' })
    await settled(gateway)
  })

  it('may be chunked and never end', async () => {
    const { a, gateway } = await start((_req, res) => void res.writeHead(503).write('more to come'))
    expect((await send(gateway)).text).toBe('b')
    await eventually(() => expect(a.sockets.size).toBe(0))
  })
})

it('a short body of a dropped answer does not cost the connection to its peer', async () => {
  const a = await startServer('a', status(503, 'refused', { 'content-length': '7' }))
  const gateway = await startGateway([a, await startServer('b')], { upstream: { maxFails: 0 } })
  expect(await answers(gateway, 20)).toBe('b'.repeat(20))
  expect(a.seen.length).toBeGreaterThan(5)
  expect(a.connections).toBe(1)
})

describe('what statuses mean', () => {
  const rows: [
    says: string,
    code: number,
    options: GatewayOptions,
    request: SendOptions,
    status: number,
    marked: number,
  ][] = [
    ['next goes on without a mark', 404, { upstream: { statuses: { 404: 'next' } } }, {}, 200, 0],
    ['next does not repeat a POST', 404, { upstream: { statuses: { 404: 'next' } } }, POST, 404, 0],
    [
      'next does not repeat a body that is gone',
      404,
      { upstream: { statuses: { 404: 'next' } }, bodyLimit: 10 },
      PUT,
      404,
      0,
    ],
    ['retryStatuses: [] switches it off', 503, { retryStatuses: [] }, {}, 503, 1],
    ['retryStatuses replaces the default', 503, { retryStatuses: [500] }, {}, 503, 1],
    ['retryStatuses adds one', 500, { retryStatuses: [500] }, {}, 200, 1],
    ['tries: 1 passes it on', 503, { tries: 1 }, {}, 503, 1],
    ['a body beyond the limit passes it on', 503, { bodyLimit: 10 }, PUT, 503, 1],
    ['ok leaves no mark', 500, { upstream: { statuses: { 500: 'ok' } } }, {}, 500, 0],
    ['neutral leaves no mark', 500, { upstream: { statuses: { '5xx': 'neutral' } } }, {}, 500, 0],
    ['failed marks', 404, { upstream: { statuses: { 404: 'failed' } } }, {}, 404, 1],
  ]
  it.each(rows)('%s', async (_, code, options, request, expected, marked) => {
    const [a, b] = [await startServer('a', status(code)), await startServer('b')]
    const gateway = await startGateway([a, b], options)
    expect((await send(gateway, request)).status).toBe(expected)
    await settled(gateway)
    expect([marks(gateway, a), marks(gateway, b)]).toEqual([marked, 0])
    expect([a.seen.length, b.seen.length]).toEqual([1, expected === 200 ? 1 : 0])
  })

  it('next of the last peer is passed on, once, also when another peer is there by then', async () => {
    let finish = (): unknown => undefined
    const a = await startServer('a', (_req, res) => {
      res.writeHead(404).write('no')
      finish = () => res.end('thing')
    })
    const gateway = await startGateway([a], { upstream: { statuses: { 404: 'next' }, tries: 5 } })
    const request = open(gateway)
    const reply = replyTo(request)
    request.end()
    await once(request, 'response')
    const b = await startServer('b')
    await gateway.checkups.addServer('test', b.address)
    finish()
    expect(await reply).toMatchObject({ status: 404, text: 'nothing' })
    await settled(gateway)
    expect(b.seen.length).toBe(0)
  })

  it('an answer is not dropped for the sake of a retry that the budget forbids', async () => {
    const [a, b] = [await startServer('a', status(503)), await startServer('b')]
    const gateway = await startGateway([a, b], { retryBudget: { tryRetry: () => false } })
    expect(await send(gateway)).toMatchObject(of(503))
    expect(b.seen.length).toBe(0)
  })
})

describe('answers without a body', () => {
  const rows: [says: string, request: SendOptions, answer: Answer, status: number, length: string | undefined][] = [
    [
      'HEAD',
      { method: 'HEAD' },
      (_req, res) => void res.writeHead(200, { 'content-length': '7000' }).end(),
      200,
      '7000',
    ],
    [
      '304',
      { headers: { 'if-none-match': '"x"' } },
      (_req, res) => void res.writeHead(304, { etag: '"x"' }).end(),
      304,
      undefined,
    ],
    ['204', { method: 'DELETE' }, (_req, res) => void res.writeHead(204).end(), 204, undefined],
  ]
  it.each(rows)('%s', async (_, request, answer, expected, length) => {
    const b = await startServer('b', answer)
    const a = await startServer('a', (_req, res) => void res.writeHead(503, { 'content-length': '7000' }).end())
    a.answer = request.method === 'HEAD' ? a.answer : status(503)
    const gateway = await startGateway([a, refusing(), b])
    const reply = await send(gateway, request)
    expect(reply).toMatchObject({ status: expected, text: '' })
    expect(reply.headers['content-length']).toBe(length)
    await settled(gateway)
    expect(b.connections).toBe(1)
  })
})

describe('what the application does to the request and its answer survives a dropped one', () => {
  it('its own writeHead, write and end', async () => {
    const [a, b] = [await startServer('a', status(503)), await startServer('b')]
    const called: string[] = []
    const gateway = await startGateway([a, b], {
      onRequest(req, res, { web }) {
        // As compression and session middleware do.
        const end = res.end.bind(res) as (...args: unknown[]) => typeof res
        const writeHead = res.writeHead.bind(res) as (...args: unknown[]) => typeof res
        res.end = (...args: unknown[]) => (called.push('end'), end(...args))
        res.writeHead = (...args: unknown[]) => (called.push('writeHead'), writeHead(...args))
        web(req, res)
      },
    })
    expect((await send(gateway)).text).toBe('b')
    expect(called).toEqual(['writeHead', 'end'])
  })

  it('headers set before', async () => {
    const [a, b] = [await startServer('a', status(503)), await startServer('b')]
    const gateway = await startGateway([a, b], {
      onRequest: (req, res, { web }) => web(req, res.setHeader('x-application', 'yes')),
    })
    expect((await send(gateway)).headers['x-application']).toBe('yes')
  })

  it.each(['before', 'after'])('listeners added %s', async (when) => {
    const [a, b] = [await startServer('a', status(503)), await startServer('b', whenRead)]
    const heard: string[] = []
    const gateway = await startGateway([refusing(), a, b], {
      onRequest(req, res, { web }) {
        const listen = () => {
          res.once('close', () => heard.push('res'))
          req.once('close', () => heard.push('req'))
        }
        if (when === 'before') listen()
        web(req, res)
        if (when === 'after') listen()
      },
    })
    expect((await send(gateway)).text).toBe('b')
    await settled(gateway)
    expect(heard.sort()).toEqual(['req', 'res'])
  })
})

it('two balanced proxies may share a proxy', async () => {
  const [a, b] = [await startServer('a', status(503)), await startServer('b')]
  const one = await startGateway([a, b])
  const two = await startGateway([b, a], { proxy: one.proxy })
  expect([await answers(one, 2), await answers(two, 2)]).toEqual(['bb', 'bb'])
  expect([inFlight(one), inFlight(two)]).toEqual([0, 0])
})
