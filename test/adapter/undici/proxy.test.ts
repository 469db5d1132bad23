import { once } from 'node:events'
import { createServer as createTlsServer } from 'node:https'
import { Agent as TlsAgent, request as tlsRequest } from 'node:https'
import type { IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createProxyHandler, type ProxyOptions } from '../../../src/adapter/undici.js'
import { ConfigError } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { answers, bytes, inFlight, marks, open, refusing, replyTo, send } from '../../support/http.js'
import { settled, sha256, startServer, whenRead, type Answer, type Place } from '../../support/http.js'
import { checkupsFor, raw, says, socketPath, startProxy, startRecorder, tls } from './support.js'

describe('a request', () => {
  it('goes to the upstream that Host names, whatever its case and port, and to each peer in turn', async () => {
    const gateway = await startProxy([await startServer('a'), refusing(), await startServer('b')])
    expect(await answers(gateway, 3, { headers: { host: 'TEST:8080' } })).toBe('abb')
    expect((await send(gateway, { headers: { host: 'other' } })).status).toBe(502)
    await settled(gateway)
  })

  it('arrives as it was sent', async () => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder], { forwarded: false })
    const { read } = raw(
      gateway,
      'PUT /a/../b%20?q=1&q=2 HTTP/1.1\r\nhOsT: test\r\nX-One: 1\r\nx-one: \xfc\r\nCookie: a=b\r\n',
    )
    const rest = raw(gateway, 'PUT / HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n')
    await eventually(() => expect(rest.read()).toMatch(/r$/))
    expect(read()).toBe('')
    expect(recorder.recorded()).toBe(
      'PUT / HTTP/1.1\r\nhost: test\r\nconnection: keep-alive\r\ncontent-length: 0\r\n\r\n',
    )
    const second = raw(
      gateway,
      'PUT /a/../b%20?q=1&q=2 HTTP/1.1\r\nhOsT: test\r\nX-One: 1\r\nx-one: \xfc\r\nCookie: a=b\r\n\r\n',
    )
    await eventually(() => expect(second.read()).toMatch(/r$/))
    expect(recorder.recorded().split('\r\n\r\n')[1]).toBe(
      'PUT /a/../b%20?q=1&q=2 HTTP/1.1\r\nhost: test\r\nconnection: keep-alive\r\nX-One: 1\r\nx-one: \xfc\r\nCookie: a=b\r\ncontent-length: 0',
    )
  })

  it('is proxied by key, hashKey and clusterKey', async () => {
    const [a, b, c] = [await startServer('a'), await startServer('b'), await startServer('c')]
    const gateway = await startProxy([refusing()], {
      upstreams: {
        named: { cluster: { near: { servers: [a.address] }, far: { servers: [b.address] } } },
        hashed: { servers: [a.address, b.address, c.address], balancer: 'consistent-hash' },
      },
      key: ({ url }) => (url === '/none' ? undefined : url?.slice(1, 7).replace('/', '')),
      clusterKey: ({ headers }) => headers['x-cluster']?.toString(),
      hashKey: { header: 'X-User' },
    })
    expect((await send(gateway, { path: '/named' })).text).toBe('a')
    expect((await send(gateway, { path: '/named', headers: { 'x-cluster': 'far' } })).text).toBe('b')
    expect((await send(gateway, { path: '/none' })).status).toBe(502)
    for (const user of ['1', '2', '3', '4']) {
      const expected = gateway.checkups.selectPeer('hashed', { hashKey: user })?.address
      const name = [a, b, c].find(({ address }) => address === expected)?.name
      expect(await answers(gateway, 2, { path: '/hashed', headers: { 'x-user': user } })).toBe(`${name}${name}`)
    }
  })

  it.each(['hashKey', 'clusterKey', 'key', 'protocol', 'trust', 'connect'] as const)(
    'is answered with 502 where an option throws: %s',
    async (name) => {
      const throwing = () => {
        throw new Error('mine')
      }
      const gateway = await startProxy([refusing()], { [name]: throwing })
      expect((await send(gateway)).status).toBe(502)
      expect([inFlight(gateway), marks(gateway, { address: refusing() })]).toEqual([0, 0])
    },
  )

  const targets: [says: string, target: string, path: string, host: string][] = [
    ['with a path', 'http://test/x?y=1', '/x?y=1', 'test'],
    ['without one', 'http://test', '/', 'test'],
    ['with a query only', 'http://test?y=1', '/?y=1', 'test'],
    ['with a port', 'HTTP://Test:80/x', '/x', 'Test:80'],
  ]
  it.each(targets)(
    'may name its host in the target, %s, which counts more than Host',
    async (_, target, path, host) => {
      const recorder = await startRecorder()
      const gateway = await startProxy([recorder], { forwarded: false })
      const { read } = raw(gateway, `GET ${target} HTTP/1.1\r\nHost: other\r\n\r\n`)
      await eventually(() => expect(read()).toMatch(/r$/))
      expect(recorder.recorded()).toBe(`GET ${path} HTTP/1.1\r\nhost: ${host}\r\nconnection: keep-alive\r\n\r\n`)
    },
  )
})

describe('fields of the connection are not passed on', () => {
  const request: [field: string, passed: boolean][] = [
    ['Keep-Alive: timeout=5', false],
    ['Proxy-Connection: keep-alive', false],
    ['TE: gzip', false],
    ['Upgrade: h2c', false],
    ['Connection: X-Mine, close\r\nX-Mine: 1', false],
    ['Connection: x-mine\r\nConnection: X-Yours\r\nX-Mine: 1\r\nX-Yours: 1', false],
    ['Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA', false],
    ['X-Other: 1', true],
    ['Proxy-Authorization: Basic x', true],
  ]
  it.each(request)('of a request: %s', async (field, passed) => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder], { forwarded: false })
    const { read } = raw(gateway, `GET / HTTP/1.1\r\nHost: test\r\n${field}\r\n\r\n`)
    await eventually(() => expect(read()).toContain('\r\n\r\nr'))
    const more = passed ? `${field}\r\n` : ''
    expect(recorder.recorded()).toBe(`GET / HTTP/1.1\r\nhost: test\r\nconnection: keep-alive\r\n${more}\r\n`)
  })

  const answer: [field: string, passed: boolean][] = [
    ['Keep-Alive: timeout=5', false],
    ['Connection: X-Mine\r\nX-Mine: 1', false],
    ['Proxy-Connection: close', false],
    ['Upgrade: h2c', false],
    ['X-Other: 1', true],
    ['Set-Cookie: a=1\r\nSet-Cookie: b=2', true],
  ]
  it.each(answer)('of an answer: %s', async (field, passed) => {
    const gateway = await startProxy([await says(`HTTP/1.1 200 OK\r\n${field}\r\nContent-Length: 1\r\n\r\na`)])
    const { read } = raw(gateway, 'GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/\r\n\r\na$/))
    const own = /^(HTTP\/1.1 200 OK|content-length: 1|Date: .*|Connection: close)$/
    const lines = read().split('\r\n\r\n')[0]!.split('\r\n')
    expect(lines.filter((line) => !own.test(line))).toEqual(passed ? field.split('\r\n') : [])
  })

  it('but that trailers are taken is', async () => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder], { forwarded: false })
    const { read } = raw(gateway, 'GET / HTTP/1.1\r\nHost: test\r\nConnection: TE\r\nTE: gzip;q=0.5, trailers\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/r$/))
    expect(recorder.recorded()).toContain('\r\nte: trailers\r\n')
  })
})

describe('what peers are told of the client', () => {
  const given = {
    'x-forwarded-for': '192.0.2.1',
    'x-forwarded-proto': 'https',
    'x-forwarded-host': 'outer.example',
    'x-forwarded-port': '443',
    forwarded: 'for=192.0.2.1;proto=https',
  }
  const seenAs = { 'x-forwarded-for': '127.0.0.1', 'x-forwarded-proto': 'http', 'x-forwarded-host': 'test' }
  const hop = 'for=127.0.0.1;host="test";proto=http'
  type Row = [says: string, options: ProxyOptions, told: Record<string, string>]
  const rows: Row[] = [
    ['by default X-Forwarded-*, whatever it says itself', {}, seenAs],
    ['Forwarded', { forwarded: 'forwarded' }, { forwarded: hop }],
    ['both', { forwarded: 'both' }, { ...seenAs, forwarded: hop }],
    ['nothing, and then what it says passes', { forwarded: false }, given],
    ['beside what it says, if it is trusted', { trust: true }, { ...given, 'x-forwarded-for': '192.0.2.1, 127.0.0.1' }],
    [
      'beside what it says, in both',
      { trust: () => true, forwarded: 'both' },
      { ...given, 'x-forwarded-for': '192.0.2.1, 127.0.0.1', forwarded: `${given.forwarded}, ${hop}` },
    ],
    ['not beside it, if a function does not trust it', { trust: ({ url }) => url === '/trusted' }, seenAs],
  ]
  it.each(rows)('%s', async (_, options, told) => {
    const b = await startServer('b')
    const gateway = await startProxy([refusing(), b], options)
    expect(await answers(gateway, 1, { headers: given })).toBe('b')
    const fields = Object.entries(b.seen[0]!.headers).filter(([name]) => name in given)
    expect(Object.fromEntries(fields)).toEqual(told)
  })

  it('IPv6 addresses and hosts are quoted', async () => {
    const a = await startServer('a')
    const gateway = await startProxy([a], { forwarded: 'both', key: () => 'test' })
    gateway.server.close()
    gateway.server.listen(0, '::1')
    await once(gateway.server, 'listening')
    const { port } = gateway.server.address() as AddressInfo
    const { text } = await (await fetch(`http://[::1]:${port}/`)).text().then((text) => ({ text }))
    expect(text).toBe('a')
    expect(a.seen[0]!.headers).toMatchObject({
      'x-forwarded-for': '::1',
      forwarded: `for="[::1]";host="[::1]:${port}";proto=http`,
    })
  })

  it('that it came by TLS', async () => {
    const a = await startServer('a')
    const handler = createProxyHandler(checkupsFor([a]))
    const server = createTlsServer(tls, handler).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => {
      server.close().closeAllConnections()
      handler.close()
    })
    const { port } = server.address() as AddressInfo
    const agent = new TlsAgent({ ca: tls.cert, servername: 'localhost' })
    const request = tlsRequest({ host: '127.0.0.1', port, agent, headers: { host: 'test' } }).end()
    const [answer] = (await once(request, 'response')) as [IncomingMessage]
    await once(answer.resume(), 'end')
    expect(a.seen[0]!.headers['x-forwarded-proto']).toBe('https')
  })

  it.each([
    ['client', 'test'],
    ['peer', '127.0.0.1'],
  ] as const)("its Host is the %s's", async (host, expected) => {
    const a = await startServer('a')
    const gateway = await startProxy([a], { host })
    expect(await answers(gateway, 1)).toBe('a')
    expect(a.seen[0]!.headers.host).toContain(expected)
    expect(a.seen[0]!.headers['x-forwarded-host']).toBe('test')
  })
})

describe('a peer', () => {
  const places: [says: string, place: () => Place, options: ProxyOptions][] = [
    ['at an IPv6 address', () => ({ host: '::1' }), {}],
    ['at a unix socket', () => ({ path: socketPath() }), {}],
    ['behind TLS', () => ({ tls }), { protocol: 'https', connect: { ca: tls.cert } }],
    [
      'behind TLS, which a function says',
      () => ({ tls }),
      { protocol: () => 'https', connect: () => ({ ca: tls.cert }) },
    ],
  ]
  it.each(places)('%s gets requests over one connection', async (_, place, options) => {
    const a = await startServer('a', whenRead, place())
    const gateway = await startProxy([a], options)
    expect(await answers(gateway, 5, { method: 'POST', body: bytes(10_000) })).toBe('aaaaa')
    expect([a.connections, inFlight(gateway)]).toEqual([1, 0])
  })
})

describe('answers of status 1xx', () => {
  it('103 is passed on, and so are several fields', async () => {
    const early: Answer = (_req, res) => {
      res.writeEarlyHints({ link: ['</a.css>; rel=preload; as=style', '</b.js>; rel=preload'], 'x-hint': '1' })
      res.end('a')
    }
    const gateway = await startProxy([await startServer('a', early)])
    const { read } = raw(gateway, 'GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/\r\n\r\na$/))
    expect(read()).toMatch(
      /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a\.css>; rel=preload; as=style, <\/b\.js>; rel=preload\r\nx-hint: 1\r\n\r\nHTTP\/1\.1 200 OK\r\n/,
    )
  })

  it('103 from a peer that fails then does no harm', async () => {
    const early: Answer = (req, res) => {
      res.writeEarlyHints({ link: '</a.css>; rel=preload' })
      setImmediate(() => req.socket.resetAndDestroy())
    }
    const gateway = await startProxy([await startServer('a', early), await startServer('b')])
    const { read } = raw(gateway, 'GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/\r\n\r\nb$/))
    expect(read()).toMatch(/^HTTP\/1\.1 103 [^]*HTTP\/1\.1 200 OK/)
  })

  it('103 that Node would not pass on is left out', async () => {
    const gateway = await startProxy([
      await says('HTTP/1.1 103 X\r\nLink: nonsense\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na'),
    ])
    const { read } = raw(gateway, 'GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*a$/))
  })

  it('102 is passed on, and not to who speaks HTTP/1.0', async () => {
    const processing: Answer = (_req, res) => {
      res.writeProcessing()
      res.end('a')
    }
    const gateway = await startProxy([await startServer('a', processing)])
    const newer = raw(gateway, 'GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    const older = raw(gateway, 'GET / HTTP/1.0\r\nHost: test\r\n\r\n')
    await eventually(() => expect([newer.read(), older.read()].join()).toMatch(/a,[^]*a$/))
    expect(newer.read()).toMatch(/^HTTP\/1\.1 102 Processing\r\n\r\nHTTP\/1\.1 200 OK/)
    expect(older.read()).toMatch(/^HTTP\/1\.1 200 OK/)
  })
})

describe('Expect: 100-continue', () => {
  const HEAD = 'POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n'

  it.each([false, true])('is answered, and peers hear nothing of it (by the proxy: %s)', async (checkContinue) => {
    const a = await startServer('a')
    const gateway = await startProxy([refusing(), a], { checkContinue })
    const { socket, read } = raw(gateway, HEAD)
    await eventually(() => expect(read()).toBe('HTTP/1.1 100 Continue\r\n\r\n'))
    socket.write('hello')
    await eventually(() => expect(read()).toMatch(/HTTP\/1\.1 200 OK[^]*a$/))
    expect(a.seen).toMatchObject([{ length: 5, sha: sha256(Buffer.from('hello')) }])
    expect(a.seen[0]!.headers).not.toHaveProperty('expect')
    expect(read().match(/100 Continue/g)).toHaveLength(1)
  })

  it('is not answered by the proxy before a peer is connected to', async () => {
    const gateway = await startProxy([refusing(0), refusing(1)], { checkContinue: true })
    const { read } = raw(gateway, HEAD)
    await eventually(() => expect(read()).toMatch(/^HTTP\/1\.1 502 Bad Gateway/))
  })
})

describe('trailers', () => {
  const CHUNKED = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum, x-other\r\n\r\n1\r\na\r\n0\r\n'

  it('of an answer are passed on, but those that are no trailers', async () => {
    const gateway = await startProxy([await says(`${CHUNKED}X-Sum: 1\r\nx-other: \xfc\r\nset-cookie: a=b\r\n\r\n`)])
    const { read } = raw(gateway, 'GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/\r\n0\r\n[^]*\r\n\r\n$/))
    expect(read()).toMatch(/\r\ntrailer: x-sum, x-other\r\n/)
    expect(read().split('\r\n0\r\n')[1]).toBe('X-Sum: 1\r\nx-other: \xfc\r\n\r\n')
  })

  it('of an answer to HTTP/1.0 are left out, and its end is the end of the connection', async () => {
    const gateway = await startProxy([await says(`${CHUNKED}x-sum: 1\r\n\r\n`)])
    const { socket, read } = raw(gateway, 'GET / HTTP/1.0\r\nHost: test\r\n\r\n')
    await once(socket, 'close')
    expect(read()).toMatch(/\r\n\r\na$/)
    expect(read()).not.toMatch(/transfer-encoding|content-length/i)
  })

  const request = (trailers: string) =>
    'PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Host, Content-Length\r\n\r\n' +
    `5\r\nhello\r\n0\r\n${trailers}\r\n`

  it('of a request are passed on: those that were announced, and may be trailers', async () => {
    const seen: string[][] = []
    const a = await startServer('a', (req, res) => {
      const chunks: Buffer[] = []
      req.on('data', (chunk: Buffer) => chunks.push(chunk))
      req.once('end', () => {
        seen.push([Buffer.concat(chunks).toString(), ...req.rawTrailers])
        res.end('a')
      })
    })
    const gateway = await startProxy([refusing(), a])
    for (let i = 0; i < 3; i++) {
      const { read } = raw(gateway, request('x-sum: 42\r\nHost: evil\r\nX-Unannounced: 1\r\n'))
      await eventually(() => expect(read()).toMatch(/\r\n\r\na$/))
    }
    // Also over a connection that was used before; a request without trailers has none.
    expect(seen).toEqual(Array(3).fill(['hello', 'x-sum', '42']))
    expect(await answers(gateway, 1, { method: 'PUT', body: [Buffer.from('x'), Buffer.from('y')] })).toBe('a')
    expect([seen[3], a.connections]).toEqual([['xy'], 1])
  })

  it('of a request are not those of the next one over its connection', async () => {
    const seen: string[][] = []
    const a = await startServer('a', (req, res) => {
      req.resume().once('end', () => {
        seen.push(req.rawTrailers)
        res.end('a')
      })
    })
    const gateway = await startProxy([a])
    // A body with nothing in it has a length instead of chunks, and no trailers.
    const { read } = raw(gateway, request('x-sum: 42\r\n').replace('5\r\nhello\r\n', ''))
    await eventually(() => expect(read()).toMatch(/\r\n\r\na$/))
    const chunks = [Buffer.from('x'), Buffer.from('y')]
    expect(await answers(gateway, 2, { method: 'PUT', body: chunks })).toBe('aa')
    expect([seen, a.connections]).toEqual([[[], [], []], 1])
  })

  it('of a request go with it to the next peer', async () => {
    const b = await startServer('b')
    const a = await startServer('a', (req) => void req.once('data', () => req.socket.resetAndDestroy()))
    const gateway = await startProxy([a, b])
    const { read } = raw(gateway, request('x-sum: 42\r\n'))
    await eventually(() => expect(read()).toMatch(/\r\n\r\nb$/))
    expect(b.seen[0]!.req.rawTrailers).toEqual(['x-sum', '42'])
  })
})

describe('answers without a body', () => {
  const rows: [says: string, method: string, answer: string, passed: RegExp][] = [
    ['HEAD with a length', 'HEAD', '200 OK\r\nContent-Length: 5\r\n\r\n', /^content-length: 5$/im],
    ['HEAD without', 'HEAD', '200 OK\r\nX-A: 1\r\n\r\n', /^x-a: 1$/im],
    ['HEAD of a chunked one', 'HEAD', '200 OK\r\nTransfer-Encoding: chunked\r\nX-A: 1\r\n\r\n', /^x-a: 1$/im],
    ['204', 'GET', '204 No Content\r\nX-A: 1\r\n\r\n', /^x-a: 1$/im],
    ['304', 'GET', '304 Not Modified\r\nETag: "x"\r\n\r\n', /^etag: "x"$/im],
    ['304 with a length', 'GET', '304 Not Modified\r\nContent-Length: 5\r\n\r\n', /^content-length: 5$/im],
    ['a length of 0', 'GET', '200 OK\r\nContent-Length: 0\r\n\r\n', /^content-length: 0$/im],
  ]
  it.each(rows)('%s', async (_, method, answer, passed) => {
    const a = await says(`HTTP/1.1 ${answer}`)
    const gateway = await startProxy([a])
    const { socket, read } = raw(gateway, `${method} / HTTP/1.1\r\nHost: test\r\n\r\n`)
    await eventually(() => expect(read()).toMatch(/\r\n\r\n$/))
    expect(read()).toMatch(/^HTTP\/1\.1 (200|204|304) /)
    expect(read().replaceAll('\r', '')).toMatch(passed)
    // The connection goes on, as what comes next shows.
    socket.write('GET / HTTP/1.1\r\nHost: other\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/\r\n\r\nHTTP\/1\.1 502 /))
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
  })

  it('204 has no length, whatever its peer says', async () => {
    const gateway = await startProxy([await says('HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n')])
    const reply = await send(gateway)
    expect([reply.status, reply.headers['content-length']]).toEqual([204, undefined])
  })
})

describe('an answer that is not well-formed', () => {
  it('has no reason phrase that could not be passed on', async () => {
    const gateway = await startProxy([await says('HTTP/1.1 200 O\u0001K\r\nContent-Length: 1\r\n\r\na')])
    expect(await send(gateway)).toMatchObject({ status: 200, text: 'a' })
    const own = await startProxy([await says('HTTP/1.1 299 Mine\r\nContent-Length: 1\r\n\r\na')])
    expect(await send(own)).toMatchObject({ status: 299, statusMessage: 'Mine', text: 'a' })
  })

  const rows: [says: string, answer: string][] = [
    ['two lengths', '200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\na'],
    ['a length that is none', '200 OK\r\nContent-Length: x\r\n\r\na'],
    ['a length and a coding', '200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n'],
    ['a field without a name', '200 OK\r\n: a\r\nContent-Length: 1\r\n\r\na'],
    ['a status of two digits', '20 OK\r\nContent-Length: 1\r\n\r\na'],
  ]
  it.each(rows)('is a failure of its peer: %s', async (_, answer) => {
    const a = await says(`HTTP/1.1 ${answer}`)
    const gateway = await startProxy([a])
    expect((await send(gateway, { method: 'POST' })).status).toBe(502)
    await settled(gateway)
    expect(marks(gateway, a)).toBe(1)
    const next = await startProxy([await says(`HTTP/1.1 ${answer}`), await startServer('b')])
    expect((await send(next)).text).toBe('b')
  })

  it('is a failure of its peer where a field could not be passed on', async () => {
    const a = await says('HTTP/1.1 200 OK\r\nX-A: a\u0001b\r\nContent-Length: 1\r\n\r\na')
    const gateway = await startProxy([a])
    expect((await send(gateway)).status).toBe(502)
    await settled(gateway)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('cannot bring another one along with it', async () => {
    const two = 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\naHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nsplit'
    const gateway = await startProxy([await says(two), await startServer('b')])
    expect(await answers(gateway, 4)).toBe('abab')
  })
})

describe('clients that do not wait', () => {
  it('get their answers in order', async () => {
    const slow: Answer = (_req, res) => void setTimeout(() => res.end('slow'), 30)
    const gateway = await startProxy([await startServer('a', slow), await startServer('b'), await startServer('c')])
    const one = 'GET / HTTP/1.1\r\nHost: test\r\n\r\n'
    const { read } = raw(gateway, one + one + one.replace('\r\n\r\n', '\r\nConnection: close\r\n\r\n'))
    await eventually(() => expect(read()).toMatch(/slow[^]*\r\n\r\nb[^]*\r\n\r\nc$/))
    await settled(gateway)
  })

  it('and go away, leave nothing behind', async () => {
    const a = await startServer('a', (req) => req.resume())
    const gateway = await startProxy([a])
    const one = 'GET / HTTP/1.1\r\nHost: test\r\n\r\n'
    const { socket } = raw(gateway, one + one + one)
    await eventually(() => expect(inFlight(gateway)).toBe(3))
    socket.destroy()
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })
})

describe('the application', () => {
  it('may set fields of the answer before, several of one name among them', async () => {
    const a = await startServer('a', (_req, res) => void res.writeHead(200, { 'set-cookie': ['a=1', 'b=2'] }).end('a'))
    const gateway = await startProxy([a], {
      onRequest: (req, res, proxy) => {
        res.setHeader('x-gateway', 'yes')
        proxy(req, res)
      },
    })
    const reply = await send(gateway)
    expect(reply.headers).toMatchObject({ 'x-gateway': 'yes', 'set-cookie': ['a=1', 'b=2'] })
    expect(reply.text).toBe('a')
  })

  it('may answer meanwhile: the answer of the peer is let go', async () => {
    const a = await startServer('a', (_req, res) => void setTimeout(() => res.end('a'), 50))
    const gateway = await startProxy([a], {
      onRequest: (req, res, proxy) => {
        proxy(req, res)
        setImmediate(() => res.writeHead(408).end('too late'))
      },
    })
    expect(await send(gateway)).toMatchObject({ status: 408, text: 'too late' })
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
  })

  it('may use it in the place of balanceProxy', async () => {
    const gateway = await startProxy([await startServer('a')], { onRequest: (req, res, proxy) => proxy.web(req, res) })
    expect(gateway.handler.ws).toBe(gateway.handler.upgrade)
    expect(await answers(gateway, 1)).toBe('a')
  })

  it('may close it: requests under way go on, idle connections are closed', async () => {
    let finish = (): unknown => undefined
    const a = await startServer('a', (_req, res) => (finish = () => res.end('late')))
    const gateway = await startProxy([a])
    const request = open(gateway)
    const reply = replyTo(request)
    request.end()
    await once(a.server, 'request')
    gateway.handler.close()
    gateway.handler.close()
    finish()
    expect((await reply).text).toBe('late')
    await eventually(() => expect(a.sockets.size).toBe(0))
  })
})

describe('options are checked when the handler is made', () => {
  const rows: [says: string, options: object, message: string][] = [
    ['one that does not exist', { retries: 3 }, 'options.retries'],
    ['protocol', { protocol: 'ftp' }, 'options.protocol'],
    ['bodyLimit', { bodyLimit: -1 }, 'options.bodyLimit'],
    ['host', { host: 'mine' }, 'options.host'],
    ['forwarded', { forwarded: true }, 'options.forwarded'],
    ['trust', { trust: '10.0.0.0/8' }, 'options.trust'],
    ['key', { key: 'api' }, 'options.key'],
    ['clusterKey', { clusterKey: ['near'] }, 'options.clusterKey'],
    ['hashKey', { hashKey: 'uri' }, 'options.hashKey'],
    ['the header of hashKey', { hashKey: { name: 'x-user' } }, 'options.hashKey.header'],
    ['onEnd', { onEnd: {} }, 'options.onEnd'],
    ['onFailure', { onFailure: 502 }, 'options.onFailure'],
    ['retryStatuses', { retryStatuses: 503 }, 'options.retryStatuses'],
    ['one of retryStatuses', { retryStatuses: [503, '502'] }, 'options.retryStatuses[1]'],
  ]
  it.each(rows)('%s', (_, options, message) => {
    const checkups = checkupsFor([refusing()])
    expect(() => createProxyHandler(checkups, options)).toThrow(ConfigError)
    expect(() => createProxyHandler(checkups, options)).toThrow(message)
  })
})
