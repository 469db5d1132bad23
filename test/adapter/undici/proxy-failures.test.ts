import { AsyncLocalStorage } from 'node:async_hooks'
import { once } from 'node:events'
import type { IncomingMessage } from 'node:http'
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { ProxiedRequest, ProxyFailure } from '../../../src/adapter/undici.js'
import { isCheckupsError, type ErrorCode } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { answers, bytes, inFlight, marks, open, refusing, replyTo, send } from '../../support/http.js'
import { settled, sha256, startRaw, startServer, statusOf, whenRead } from '../../support/http.js'
import type { Answer, Listening, SendOptions } from '../../support/http.js'
import { stopSystemClock } from '../../support/system-clock.js'
import { raw, says, silent, startProxy, type ProxySettings } from './support.js'

const MB = bytes(1_000_000)
const SHA = sha256(MB)
const POST = { method: 'POST', body: bytes(1_000) }
const chunksOf = (body: Buffer, size: number) =>
  Array.from({ length: Math.ceil(body.length / size) }, (_, i) => body.subarray(i * size, (i + 1) * size))
const resetAfter = (limit: number) =>
  startRaw((socket) => {
    let length = 0
    socket.on('data', (chunk) => {
      length += chunk.length
      if (length > limit) socket.resetAndDestroy()
    })
  })

const forms: [form: string, body: Buffer | Buffer[]][] = [
  ['with its length', MB],
  ['chunked', chunksOf(MB, 40_000)],
]

describe.each(forms)('a body of 1 MB, %s', (_, body) => {
  it.each(['PUT', 'POST'])('of a %s arrives whole where the first peers refuse', async (method) => {
    const b = await startServer('b')
    const gateway = await startProxy([refusing(0), refusing(1), b])
    expect(await send(gateway, { method, body })).toMatchObject({ status: 200, text: 'b' })
    expect(b.seen).toMatchObject([{ method, length: MB.length, sha: SHA }])
    await settled(gateway)
  })

  it('of a PUT arrives whole after the first peer has read some and reset', async () => {
    const [a, b] = [await resetAfter(100_000), await startServer('b')]
    const gateway = await startProxy([a, b])
    expect(await send(gateway, { method: 'PUT', body })).toMatchObject({ status: 200, text: 'b' })
    expect(b.seen).toMatchObject([{ length: MB.length, sha: SHA }])
    expect([a.connections, marks(gateway, a)]).toEqual([1, 1])
  })

  it('of a POST that a peer has seen goes to no other one', async () => {
    const [a, b] = [await resetAfter(0), await startServer('b')]
    const gateway = await startProxy([a, b])
    expect(await send(gateway, { method: 'POST', body })).toMatchObject({ status: 502, text: '502 Bad Gateway\n' })
    expect([b.connections, marks(gateway, a)]).toEqual([0, 1])
    await settled(gateway)
  })

  it('beyond the limit is given up, not truncated', async () => {
    const [a, b] = [await resetAfter(600_000), await startServer('b')]
    const gateway = await startProxy([a, b], { bodyLimit: 500_000 })
    expect((await send(gateway, { method: 'PUT', body })).status).toBe(502)
    expect([b.connections, marks(gateway, a)]).toEqual([0, 1])
  })
})

describe('large bodies', () => {
  it('go both ways, over connections that are kept', async () => {
    const large = bytes(30_000_000)
    const a = await startServer('a', (req, res) => req.pipe(res))
    const gateway = await startProxy([a])
    for (let i = 0; i < 2; i++) {
      const { text } = await send(gateway, { method: 'POST', body: large })
      expect(sha256(Buffer.from(text, 'latin1'))).toBe(sha256(large))
    }
    expect(a.connections).toBe(1)
  })

  /** The number at which something that grows stands still. */
  async function standstill(value: () => number): Promise<number> {
    let before = -1
    await eventually(() => {
      const now = value()
      const still = now > 0 && now === before
      before = now
      expect(still).toBe(true)
    }, 100)
    return before
  }

  it('of an answer are read no faster than the client takes them', async () => {
    const total = 100_000_000
    let written = 0
    const endless: Answer = (_req, res) => {
      const chunk = Buffer.alloc(100_000, 1)
      const go = () => {
        while (written < total) {
          written += chunk.length
          if (!res.write(chunk)) return void res.once('drain', go)
        }
        res.end()
      }
      go()
    }
    const gateway = await startProxy([await startServer('a', endless)])
    const socket = connect(gateway.port, '127.0.0.1')
    socket.write('GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await once(socket, 'readable')
    const rss = process.memoryUsage.rss()
    expect(await standstill(() => written)).toBeLessThan(total / 4)
    expect(process.memoryUsage.rss() - rss).toBeLessThan(total / 2)
    let length = 0
    socket.on('data', (chunk) => (length += chunk.length))
    await once(socket, 'close')
    expect(length).toBeGreaterThan(total)
    await settled(gateway)
  })

  it('of a request are read no faster than the peer takes them', async () => {
    const total = 100_000_000
    let go = (): unknown => undefined
    const a = await startServer('a', (req, res) => {
      let length = 0
      go = () => req.on('data', (chunk: Buffer) => (length += chunk.length))
      req.once('end', () => res.end(String(length)))
    })
    const gateway = await startProxy([a])
    const request = open(gateway, { method: 'POST', headers: { 'content-length': String(total) } })
    const reply = replyTo(request)
    let written = 0
    const write = () => {
      while (written < total) {
        written += 100_000
        if (!request.write(Buffer.alloc(100_000))) return void request.once('drain', write)
      }
      request.end()
    }
    write()
    expect(await standstill(() => written)).toBeLessThan(total / 4)
    go()
    expect((await reply).text).toBe(String(total))
  })
})

describe('a peer that answers before it has the body', () => {
  const early: Answer = (_req, res) => {
    res.writeHead(413, { 'content-length': '4' })
    res.end('much')
  }
  it.each([true, false])('and reads on: the client gets the answer and goes on (others: %s)', async (others) => {
    const a = await startServer('a', early)
    const gateway = await startProxy(others ? [a, await startServer('b')] : [a])
    const { socket, read } = raw(gateway, 'POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3000000\r\n\r\n')
    socket.write(bytes(100_000))
    await eventually(() => expect(read()).toMatch(/^HTTP\/1\.1 413 [^]*much$/))
    socket.write(bytes(2_900_000))
    a.answer = (_req, res) => res.end('again')
    socket.write('GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await once(socket, 'end')
    expect(read()).toMatch(others ? /\r\n\r\nb$/ : /again$/)
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
  })
})

describe('an answer that sends the request on', () => {
  const status =
    (code: number, headers: Record<string, string> = {}): Answer =>
    (req, res) => {
      req.resume()
      res.writeHead(code, `Because ${code}`, { 'set-cookie': 'a=1', ...headers }).end('refused')
    }
  const rows: [method: string, code: number, goesOn: boolean][] = [
    ...['GET', 'OPTIONS', 'DELETE', 'PUT'].flatMap((method) =>
      [502, 503, 504].map((code): [string, number, boolean] => [method, code, true]),
    ),
    ['POST', 503, false],
    ['PATCH', 503, false],
    ['GET', 500, false],
    ['GET', 404, false],
  ]
  it.each(rows)('%s %i: %s', async (method, code, goesOn) => {
    const [a, b] = [await startServer('a', status(code)), await startServer('b')]
    const gateway = await startProxy([a, b])
    const reply = await send(gateway, { ...(/^P/.test(method) ? { body: bytes(1_000) } : {}), method })
    expect([reply.status, reply.statusMessage, reply.text]).toEqual(
      goesOn ? [200, 'OK', 'b'] : [code, `Because ${code}`, 'refused'],
    )
    expect(reply.headers['set-cookie']).toEqual(goesOn ? undefined : ['a=1'])
    await settled(gateway)
    expect(marks(gateway, a)).toBe(code === 404 ? 0 : 1)
  })

  it('is passed on by the last peer; and Retry-After keeps the first one alone', async () => {
    const a = await startServer('a', status(503, { 'retry-after': '30' }))
    const b = await startServer('b', status(503))
    const gateway = await startProxy([a, b], { upstream: { maxFails: 9 } })
    expect((await send(gateway)).text).toBe('refused')
    await settled(gateway)
    const passive = statusOf(gateway).get(a.address)!.passive
    expect(passive.state).toBe('banned')
    expect(passive.remaining).toBeGreaterThan(20_000)
    b.answer = whenRead
    expect(await answers(gateway, 3)).toBe('bbb')
  })

  it('may be one that never ends', async () => {
    const a = await startServer('a', (_req, res) => void res.writeHead(503).write('more to come'))
    const gateway = await startProxy([a, await startServer('b')])
    expect((await send(gateway)).text).toBe('b')
    await eventually(() => expect(a.sockets.size).toBe(0))
  })
})

describe('a client that goes away counts against nobody', () => {
  const never: Answer = (req) => req.resume()
  const rows: [says: string, answer: Answer, options: SendOptions][] = [
    ['before the answer', never, {}],
    ['while it sends its body', never, { method: 'POST', headers: { 'content-length': '1000' } }],
    ['in the answer', (_req, res) => void res.write('half'), {}],
    [
      'in the answer, of a known length',
      (_req, res) => void res.writeHead(200, { 'content-length': '100' }).write('x'),
      {},
    ],
  ]
  it.each(rows)('%s', async (_, answer, options) => {
    const [a, b] = [await startServer('a', answer), await startServer('b')]
    const ended: ProxiedRequest[] = []
    const gateway = await startProxy([a, b], { onEnd: (request) => ended.push(request) })
    const request = open(gateway, options)
    if (options.method === undefined) request.end()
    else request.write('some')
    await once(a.server, 'request')
    if (answer !== never) await once(request, 'response')
    request.destroy()
    await settled(gateway)
    expect([marks(gateway, a), b.connections]).toEqual([0, 0])
    await eventually(() => expect(a.sockets.size).toBe(0))
    expect(ended).toMatchObject([{ upstream: 'test', attempts: [{ verdict: 'neutral' }] }])
  })

  it('while a connection is made: no other peer is asked', async () => {
    const clock = stopSystemClock()
    const [a, b] = [await silent(), await startServer('b')]
    const gateway = await startProxy([a, b], { tryTimeout: 50 })
    const request = open(gateway)
    request.end()
    await once(a.server, 'connection')
    request.destroy()
    await settled(gateway)
    await clock.advance(50)
    expect([marks(gateway, a), b.connections]).toEqual([0, 0])
  })

  it('that is slow to send is waited for, whatever timeouts.read says', async () => {
    const a = await startServer('a')
    const gateway = await startProxy([a], { upstream: { timeouts: { read: 50 } } })
    const request = open(gateway, { method: 'POST', headers: { 'content-length': '4' } })
    const reply = replyTo(request)
    request.write('ab')
    await once(a.server, 'request')
    // This request is only there to tell that so much time has passed: undici's timers are half a second coarse.
    const other = await startProxy([await silent()], { upstream: { timeouts: { read: 600 } } })
    expect((await send(other)).status).toBe(504)
    request.end('cd')
    expect((await reply).text).toBe('a')
  })
})

describe('a peer that breaks off in its answer', () => {
  const half = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf'
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'
  const timeouts = { connect: 2_000, send: 2_000, read: 50 }
  const rows: [says: string, peer: () => Promise<Listening>, options: ProxySettings][] = [
    ['resets', () => says(half, (socket) => setImmediate(() => socket.resetAndDestroy())), {}],
    ['closes', () => says(half, (socket) => socket.end()), {}],
    ['closes a chunked one', () => says(chunked, (socket) => socket.end()), {}],
    ['sends garbage in a chunked one', () => says(`${chunked}garbage\r\n`), {}],
    ['goes silent', () => says(half), { upstream: { timeouts } }],
  ]
  it.each(rows)('%s: the client sees that', async (_, startPeer, options) => {
    const [a, b] = [await startPeer(), await startServer('b')]
    const gateway = await startProxy([a, b], options)
    await expect(send(gateway)).rejects.toMatchObject({ code: 'ECONNRESET' })
    await settled(gateway)
    expect([marks(gateway, a), b.connections]).toEqual([1, 0])
    await eventually(() => expect(a.sockets.size).toBe(0))
  })
})

it('onEnd and onFailure are called in the context of their request, whatever connection was used', async () => {
  const asked = new AsyncLocalStorage<string>()
  const told: unknown[] = []
  const tell = (what: string, { url }: IncomingMessage) => void told.push([what, url, asked.getStore()])
  let count = 0
  const a = await startServer('a', (req, res) => {
    req.resume()
    if (++count === 3) req.socket.resetAndDestroy()
    else res.end()
  })
  const gateway = await startProxy([a], {
    onEnd: ({ req }) => tell('end', req),
    onFailure({ status, req }, res) {
      tell('failure', req)
      res.writeHead(status).end()
    },
    onRequest: (req, res, handler) => asked.run(req.url!, handler, req, res),
  })
  for (const path of ['/1', '/2', '/3']) await send(gateway, { path, method: 'POST' })
  expect(a.connections).toBe(1)
  await eventually(() => expect(told).toHaveLength(4))
  expect(told).toEqual([
    ['end', '/1', '/1'],
    ['end', '/2', '/2'],
    ['failure', '/3', '/3'],
    ['end', '/3', '/3'],
  ])
})

describe('what a client is told', () => {
  const hang: Answer = (req) => req.resume()
  const timeouts = { connect: 2_000, send: 2_000, read: 50 }
  type Row = [says: string, servers: readonly string[], options: ProxySettings, status: number, code: ErrorCode]
  const rows: Row[] = [
    ['all refuse', [refusing(0), refusing(1)], {}, 502, 'ERR_CHECKUPS_TRIES_EXCEEDED'],
    ['the only one refuses', [refusing()], {}, 502, 'ERR_CHECKUPS_TRIES_EXCEEDED'],
    ['tries are used up', [refusing(0), refusing(1), refusing(2)], { tries: 2 }, 502, 'ERR_CHECKUPS_TRIES_EXCEEDED'],
    ['there is nobody', [], { upstream: { allowEmpty: true } }, 503, 'ERR_CHECKUPS_NO_PEER'],
    ['there is no such upstream', [refusing()], { key: () => 'other' }, 502, 'ERR_CHECKUPS_UNKNOWN_UPSTREAM'],
  ]
  it.each(rows)('%s', async (_, servers, options, status, code) => {
    const failures: ProxyFailure[] = []
    const ended: ProxiedRequest[] = []
    const onFailure: ProxySettings['onFailure'] = (failure, res) => {
      failures.push(failure)
      res.writeHead(failure.status, { 'x-custom': 'yes' }).end('custom')
    }
    for (const more of [{}, { onFailure, onEnd: (request: ProxiedRequest) => ended.push(request) }]) {
      const gateway = await startProxy(servers, { ...options, ...more })
      const { text, headers, ...reply } = await send(gateway, { path: '/x' })
      expect(reply.status).toBe(status)
      expect([text, headers['x-custom']]).toEqual(
        'onFailure' in more ? ['custom', 'yes'] : [`${status} ${reply.statusMessage}\n`, undefined],
      )
      expect(inFlight(gateway)).toBe(0)
    }
    expect(failures).toMatchObject([{ status, req: { url: '/x' } }])
    expect(isCheckupsError(failures[0]?.error, code)).toBe(true)
    await eventually(() => expect(ended).toHaveLength(1))
    const asked = code === 'ERR_CHECKUPS_TRIES_EXCEEDED' ? (options.tries ?? servers.length) : 0
    expect(ended[0]?.attempts).toHaveLength(asked)
  })

  const late: [says: string, options: ProxySettings, request: SendOptions][] = [
    ['the total time is over', { timeout: 50 }, {}],
    ['the total time of the upstream is over', { upstream: { timeout: 50 } }, {}],
    ['the time of the last attempt is over', { tryTimeout: 50 }, {}],
    ['a POST was given up', { tryTimeout: 50 }, POST],
    ['a POST was given up because of timeouts.read', { upstream: { timeouts } }, POST],
  ]
  it.each(late)('504: %s', async (_, options, request) => {
    const peers = [await startServer('a', hang), await startServer('b', hang)]
    const gateway = await startProxy(peers, options)
    expect(await send(gateway, request)).toMatchObject({ status: 504, text: '504 Gateway Timeout\n' })
    await settled(gateway)
    await eventually(() => expect(peers.map(({ sockets }) => sockets.size)).toEqual([0, 0]))
  })

  it('503: all are down, or full', async () => {
    const a = await silent()
    const gateway = await startProxy([
      { address: a.address, maxConns: 1 },
      { address: refusing(), down: true },
    ])
    const first = open(gateway)
    first.end()
    await once(a.server, 'connection')
    expect(await send(gateway)).toMatchObject({ status: 503, text: '503 Service Unavailable\n' })
    first.destroy()
    await settled(gateway)
  })

  const broken: [says: string, onFailure: ProxySettings['onFailure'], expected: object][] = [
    [
      'throws',
      () => {
        throw new Error('mine')
      },
      { status: 502, text: '502 Bad Gateway\n' },
    ],
    ['rejects', () => Promise.reject(new Error('mine')), { status: 502 }],
  ]
  it.each(broken)('an onFailure that %s is no reason to fall', async (_, onFailure, expected) => {
    const gateway = await startProxy([refusing()], { onFailure })
    expect(await send(gateway)).toMatchObject(expected)
  })

  it('nor is an onEnd that throws', async () => {
    const warned = once(process, 'warning') as Promise<[Error]>
    const gateway = await startProxy([await startServer('a')], {
      onEnd: () => {
        throw new Error('mine')
      },
    })
    expect(await answers(gateway, 2)).toBe('aa')
    expect((await warned)[0].message).toBe('onEnd threw: Error: mine')
  })
})
