import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, type IncomingMessage, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { Socket } from 'node:net'
import type { TLSSocket } from 'node:tls'
import { promisify } from 'node:util'
import { describe, expect, it } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { parseHttp } from '../../../src/health/probe/http.js'
import { probeContract } from './contract.js'
import { checkOnce, deserted, listen, probeOf, socketPath, startTcp, targetOf, type Place } from './servers.js'

const pem = (name: string) => readFileSync(new URL(`../../support/tls/${name}.pem`, import.meta.url), 'utf8')
const good = { cert: pem('cert'), key: pem('key') }
const expired = { cert: pem('expired-cert'), key: pem('expired-key') }

const fine: RequestListener = (_, res) => void res.end('all is fine')
const startHttp = (listener = fine, place?: Place) => listen(createServer(listener), place)
const startHttps = (listener = fine, tls = good) =>
  listen(createTlsServer(tls, listener).on('tlsClientError', () => undefined))
const answering = (status: number, body = '') => startHttp((_, res) => void res.writeHead(status).end(body))

const http = (options: object = {}) => probeOf(parseHttp, { type: 'http', ...options })
const https = (options: object = {}) => probeOf(parseHttp, { type: 'https', tls: { ca: good.cert }, ...options })

const query = 'GET / HTTP/1.0\r\n\r\n'
const trusted = { ca: good.cert, servername: 'localhost' }
const statusLine = { expected: 'ok', reason: 'the status line is in the first half' } as const

probeContract('http', { parse: parseHttp, options: { type: 'http', body: 'fine' }, healthy: startHttp })
probeContract('http without keepAlive', {
  parse: parseHttp,
  options: { type: 'http', keepAlive: false },
  healthy: startHttp,
})
probeContract('http with query', {
  parse: parseHttp,
  options: { type: 'http', query },
  healthy: startHttp,
  exceptions: { half: statusLine },
})
probeContract('https', { parse: parseHttp, options: { type: 'https', tls: trusted }, healthy: () => startHttps() })
probeContract('https with query', {
  parse: parseHttp,
  options: { type: 'https', query, tls: trusted },
  healthy: () => startHttps(),
})

/** What a server was asked. */
async function asked(options: object): Promise<IncomingMessage & { readonly port: number }> {
  let seen: IncomingMessage | undefined
  const server = await startHttp((req, res) => {
    seen = req
    res.end()
  })
  expect(await checkOnce(http(options), server)).toMatchObject({ status: 'ok' })
  return Object.assign(seen!, { port: server.port })
}

describe('http: the request', () => {
  it('is GET / by default, and says who asks', async () => {
    const { method, url, headers, port } = await asked({})
    expect({ method, url }).toEqual({ method: 'GET', url: '/' })
    expect(headers).toEqual({ 'user-agent': 'checkups', host: `127.0.0.1:${port}`, connection: 'keep-alive' })
  })

  it('is what the options say', async () => {
    const { method, url, headers } = await asked({
      method: 'HEAD',
      path: '/status?deep=1',
      headers: { 'User-Agent': 'me', 'X-Token': 'abc' },
      hostHeader: 'api.test:8080',
      keepAlive: false,
    })
    expect({ method, url }).toEqual({ method: 'HEAD', url: '/status?deep=1' })
    expect(headers).toEqual({ 'user-agent': 'me', 'x-token': 'abc', host: 'api.test:8080', connection: 'close' })
  })

  it('is the query as it stands', async () => {
    let said = ''
    const server = await startTcp((socket) =>
      socket.on('data', (chunk: Buffer) => {
        said += chunk.toString()
        if (said.endsWith('\r\n\r\n')) socket.write('HTTP/1.0 204 No Content\r\n')
      }),
    )
    const raw = 'GET /Status HTTP/1.0\r\nhost:  x\r\n\r\n'
    expect(await checkOnce(http({ query: raw }), server)).toEqual({ status: 'ok', facts: { status: 204 } })
    expect(said).toBe(raw)
  })

  it('goes to unix sockets', async () => {
    const server = await startHttp(fine, { path: socketPath() })
    for (const options of [{}, { query }]) {
      expect(await checkOnce(http(options), server)).toMatchObject({ status: 'ok' })
    }
    const report = await checkOnce(http(), { path: socketPath() })
    expect(report).toEqual({ status: 'err', message: 'no such socket' })
  })

  it('goes to IPv6 addresses', async () => {
    const server = await startHttp(fine, { host: '::1' })
    expect(await checkOnce(http(), server)).toMatchObject({ status: 'ok' })
  })
})

describe('http: the answer', () => {
  it.each<[number, unknown, boolean]>([
    [200, undefined, true],
    [304, undefined, true],
    [404, undefined, false],
    [502, undefined, false],
    [404, [404], true],
    [200, [404], false],
    [403, ['2xx', '4xx'], true],
    [302, ['2xx', '4xx'], false],
    [399, ['200-399'], true],
    [400, ['200-399'], false],
    [502, { 502: false }, false],
    [503, { 502: false }, true],
    [503, { '5xx': false }, false],
    [503, { 503: true, '5xx': false }, true],
  ])('of status %d, with %j: %s', async (status, statuses, ok) => {
    const report = await checkOnce(http({ statuses }), await answering(status))
    const facts = { status }
    expect(report).toEqual(ok ? { status: 'ok', facts } : { status: 'err', message: `status ${status}`, facts })
  })

  it('is not followed elsewhere', async () => {
    let requests = 0
    const server = await startHttp((_, res) => {
      requests++
      res.writeHead(302, { location: '/broken' }).end()
    })
    expect(await checkOnce(http(), server)).toEqual({ status: 'ok', facts: { status: 302 } })
    expect(requests).toBe(1)
  })

  it.each<[string, unknown, string, boolean]>([
    ['contains the text', 'fine', 'all is fine', true],
    ['does not', 'fine', 'all is lost', false],
    ['matches', /is (ok|fine)$/, 'all is fine', true],
    ['matches again and again', /fine/g, 'all is fine', true],
    ['does not match', /^fine/, 'all is fine', false],
    ['is beyond ASCII', 'schön', 'alles schön', true],
    ['is empty', /./, '', false],
  ])('whose body %s', async (_, body, text, ok) => {
    const probe = http({ body })
    const server = await answering(200, text)
    for (let i = 0; i < 2; i++) {
      const report = await checkOnce(probe, server)
      expect(report).toMatchObject(ok ? { status: 'ok' } : { status: 'err', message: 'body does not match' })
    }
  })

  it.each([false, true])('is read as far as 64 KiB, and its connection not kept (chunked: %s)', async (chunked) => {
    const text = `${'x'.repeat(65_532)}fine${'y'.repeat(500_000)}late`
    const server = await startHttp((_, res) => {
      if (chunked) res.write(text.slice(0, 65_534))
      res.end(chunked ? text.slice(65_534) : text)
    })
    expect(await checkOnce(http(), server)).toMatchObject({ status: 'ok' })
    expect(await checkOnce(http({ body: 'fine' }), server)).toMatchObject({ status: 'ok' })
    expect(await checkOnce(http({ body: 'late' }), server)).toMatchObject({ message: 'body does not match' })
    await deserted(server)
  })

  it('of a bad status fails by that, even if it breaks off', async () => {
    const server = await startTcp((socket) => socket.end('HTTP/1.1 502 Bad\r\ncontent-length: 9\r\n\r\nxx'))
    expect(await checkOnce(http(), server)).toMatchObject({ status: 'err', message: 'status 502' })
  })

  it.each<[string, object, string, string]>([
    ['nothing', {}, '', 'closed without an answer'],
    ['nothing', { query }, '', 'closed without an answer'],
    ['half a body', {}, 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nxx', 'closed amid its answer'],
    ['another protocol', {}, '+PONG\r\n', 'invalid HTTP answer: Expected HTTP/'],
    ['another protocol', { query }, '+PONG\r\n', 'invalid HTTP answer: "+PONG"'],
    ['no status', { query }, 'HTTP/1.1 OK\r\n', 'invalid HTTP answer: "HTTP/1.1 OK"'],
    ['headers without end', {}, `HTTP/1.1 200 OK\r\nx: ${'x'.repeat(99_999)}`, 'invalid HTTP answer: '],
    ['a line without end', { query }, 'x'.repeat(99_999), 'an answer of more than 65536 bytes'],
  ])('that is %s fails (%j)', async (_, options, answer, message) => {
    const server = await startTcp((socket) => socket.resume().end(answer))
    const report = await checkOnce(http(options), server)
    expect(report.status).toBe('err')
    expect(report.message).toContain(message)
  })

  it('to a query may have any status, unless statuses are named', async () => {
    const server = await answering(502)
    expect(await checkOnce(http({ query }), server)).toEqual({ status: 'ok', facts: { status: 502 } })
    const report = await checkOnce(http({ query, statuses: { 502: false } }), server)
    expect(report).toEqual({ status: 'err', message: 'status 502', facts: { status: 502 } })
  })
})

describe('http: kept connections', () => {
  it('are one per peer, used again and again', async () => {
    const servers = [await startHttp(), await startHttp()]
    const probe = http()
    const targets = servers.map(targetOf)
    for (let i = 0; i < 5; i++) for (const target of targets) await checkOnce(probe, target)
    expect(servers.map(({ connections }) => connections)).toEqual([1, 1])
    probe.forget?.(targets[0]!)
    await deserted(servers[0]!)
    await checkOnce(probe, targets[1]!)
    expect(servers[1]!.connections).toBe(1)
  })

  it.each([
    ['http', startHttp, http],
    ['https', startHttps, https],
  ] as const)('of %s that the server ended in the meantime are replaced', async (_, start, make) => {
    const server = await start()
    const probe = make()
    const target = targetOf(server)
    for (let i = 1; i <= 3; i++) {
      expect(await checkOnce(probe, target)).toMatchObject({ status: 'ok' })
      expect(server.connections).toBe(i)
      for (const socket of server.sockets) socket.end()
      await deserted(server)
    }
  })

  /** Resets every connection at its second request; `fresh` says what it does with a first one. */
  const startForgetful = (fresh: (socket: Socket, connection: number) => void) => {
    let connections = 0
    return startTcp((socket) => {
      const connection = ++connections
      let requests = 0
      socket.on('data', () => (++requests === 1 ? fresh(socket, connection) : socket.resetAndDestroy()))
    })
  }
  const ok = (socket: Socket) => void socket.write('HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n')

  it('that the server resets at the next request are replaced once, within the check', async () => {
    const server = await startForgetful(ok)
    const probe = http()
    const target = targetOf(server)
    for (let i = 1; i <= 4; i++) {
      expect(await checkOnce(probe, target)).toMatchObject({ status: 'ok' })
      expect(server.connections).toBe(i)
    }
  })

  it('are replaced only once: a new one that is reset has failed', async () => {
    const server = await startForgetful((socket, connection) => {
      if (connection === 1) ok(socket)
      else socket.resetAndDestroy()
    })
    const probe = http()
    const target = targetOf(server)
    expect(await checkOnce(probe, target)).toMatchObject({ status: 'ok' })
    expect(await checkOnce(probe, target)).toEqual({ status: 'err', message: 'connection reset' })
    expect(server.connections).toBe(2)
  })

  it('are not replaced by a check that was aborted', async () => {
    let requests = 0
    const server = await startTcp((socket) => socket.on('data', () => ++requests === 1 && ok(socket)))
    const probe = http()
    const target = targetOf(server)
    expect(await checkOnce(probe, target)).toMatchObject({ status: 'ok' })
    const [kept] = server.sockets
    const controller = new AbortController()
    const check = probe.check(target, controller.signal)
    await once(kept!, 'data')
    const reason = new Error('over')
    controller.abort(reason)
    await expect(check).rejects.toBe(reason)
    await deserted(server)
    expect(server.connections).toBe(1)
  })

  it('do not keep the process alive', async () => {
    const server = await startHttp()
    const module = new URL('../../../src/health/probe/http.ts', import.meta.url).href
    const script = `
      import { parseHttp } from ${JSON.stringify(module)}
      const probe = parseHttp('x', { type: 'http' })({ wallTime: () => 0 })
      const connect = { host: '127.0.0.1', port: ${server.port} }
      const hold = setInterval(() => undefined, 1_000)
      console.log(await probe.check({ ...connect, connect }, new AbortController().signal))
      clearInterval(hold)`
    const args = ['--import', 'tsx', '--input-type=module', '-e', script]
    const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 30_000 })
    expect(stdout).toBe("{ status: 'ok', facts: { status: 200 } }\n")
  })
})

describe('https', () => {
  it('asks for the servername, else for the name in hostHeader, else for the host if it is a name', async () => {
    const names: unknown[] = []
    const server = await startHttps()
    server.server.on('secureConnection', ({ servername }: { servername: unknown }) => names.push(servername))
    const checks = [
      [{ tls: trusted, hostHeader: 'other.test' }, '127.0.0.1'],
      [{ hostHeader: 'localhost:8443' }, '127.0.0.1'],
      [{ hostHeader: '127.0.0.1' }, 'localhost'],
      [{}, '127.0.0.1'],
    ] as const
    for (const [options, host] of checks) {
      const report = await checkOnce(https(options), { host, port: server.port })
      expect(report).toEqual({ status: 'ok', facts: { status: 200 } })
    }
    expect(names).toEqual(['localhost', 'localhost', 'localhost', false])
  })

  it.each<[string, object, typeof good, string]>([
    ['an expired certificate', { tls: { ca: expired.cert } }, expired, 'certificate has expired'],
    ['an unknown certificate', { tls: {} }, good, 'self-signed certificate'],
    ['another name', { hostHeader: 'other.test' }, good, 'certificate is for another name'],
  ])('fails with %s', async (_, options, tls, message) => {
    for (const more of [{}, { query }]) {
      if ('query' in more && 'hostHeader' in options) continue
      const report = await checkOnce(https({ ...options, ...more }), await startHttps(fine, tls))
      expect(report).toEqual({ status: 'err', message })
    }
  })

  it('looks at the certificate of every new connection', async () => {
    const server = createTlsServer(good, fine).on('tlsClientError', () => undefined)
    const resumed: boolean[] = []
    server.on('secureConnection', (socket: TLSSocket) => resumed.push(socket.isSessionReused()))
    const place = await listen(server)
    const probe = https({ tls: { ca: [good.cert, expired.cert] }, keepAlive: false })
    const target = targetOf(place)
    for (let i = 0; i < 2; i++) expect(await checkOnce(probe, target)).toMatchObject({ status: 'ok' })
    expect(resumed).toEqual([false, false])
    server.setSecureContext(expired)
    expect(await checkOnce(probe, target)).toEqual({ status: 'err', message: 'certificate has expired' })
  })

  it('shows its own certificate', async () => {
    const server = await listen(
      createTlsServer({ ...good, ca: good.cert, requestCert: true }, fine).on('tlsClientError', () => undefined),
    )
    expect(await checkOnce(https({ tls: { ca: good.cert, ...good } }), server)).toMatchObject({ status: 'ok' })
    expect(await checkOnce(https(), server)).toMatchObject({ status: 'err' })
  })
})

describe('http: options', () => {
  it.each<[object, string]>([
    [{ tls: {} }, 'heartbeat.tls: only for the type "https"'],
    [{ method: 'POST' }, 'heartbeat.method: expected "GET" or "HEAD" or "OPTIONS", got "POST"'],
    [{ method: 'HEAD', body: 'x' }, 'heartbeat.body: only with the method GET'],
    [{ path: 'status' }, 'heartbeat.path: expected a path that begins with "/", without spaces, got "status"'],
    [{ path: '/a b' }, 'heartbeat.path: expected'],
    [{ path: '/a\r\nb: c' }, 'heartbeat.path: expected'],
    [{ headers: ['a'] }, 'heartbeat.headers: expected an object, got an array of 1'],
    [{ headers: { 'a b': 'c' } }, 'heartbeat.headers.a b: '],
    [{ headers: { a: 'b\r\nc: d' } }, 'heartbeat.headers.a: '],
    [{ headers: { a: 5 } }, 'heartbeat.headers.a: expected a string, got 5'],
    [{ headers: { Host: 'x' } }, 'heartbeat.headers.Host: is the option hostHeader'],
    [{ hostHeader: 'http://x' }, 'heartbeat.hostHeader: expected "name" or "name:port", got "http://x"'],
    [{ keepAlive: 'no' }, 'heartbeat.keepAlive: expected true or false, got "no"'],
    [{ body: 5 }, 'heartbeat.body: expected a non-empty string or a RegExp, got 5'],
    [{ statuses: 200 }, 'heartbeat.statuses: expected an array, got 200'],
    [{ statuses: [] }, 'heartbeat.statuses: expected at least one status, got an array of 0'],
    [{ statuses: [200, '2x'] }, 'heartbeat.statuses[1]: expected a status as 200, a class as "2xx" or a range'],
    [{ statuses: ['399-200'] }, 'heartbeat.statuses[0]: expected'],
    [{ statuses: [99] }, 'heartbeat.statuses[0]: expected'],
    [{ statuses: { 502: 'bad' } }, 'heartbeat.statuses.502: expected true or false, got "bad"'],
    [{ statuses: { bad: false } }, 'heartbeat.statuses.bad: a status is a code as 502 or a class as "5xx"'],
    [{ query: '' }, 'heartbeat.query: expected a non-empty string, got ""'],
    [{ query, path: '/' }, 'heartbeat.path: not together with query, which says it all'],
  ])('refuses %j', (options, message) => {
    expect(() => http(options)).toThrow(ConfigError)
    expect(() => http(options)).toThrow(message)
  })
})
