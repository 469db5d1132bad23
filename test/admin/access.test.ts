import { once } from 'node:events'
import { createServer } from 'node:http'
import { connect, type AddressInfo } from 'node:net'
import { networkInterfaces } from 'node:os'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { createAdminHandler, createAdminServer, type AdminOptions } from '../../src/admin/index.js'
import { Checkups, ConfigError } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { VirtualClock } from '../support/virtual-clock.js'
import { admin, asking, bearer, READ, stream, WRITE } from './support.js'

const api = { upstreams: { api: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } } }
const tokens = [READ, WRITE]
const change = ['PATCH', '/v1/upstreams/api', { body: { tries: 2 } }] as const
const basic = (user: string, token: string) => ({
  authorization: `Basic ${Buffer.from(`${user}:${token}`).toString('base64')}`,
})

/** Sends bytes as they are and reads until the end. */
async function raw(url: string, ...parts: readonly string[]): Promise<string> {
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  onTestFinished(() => void socket.destroy())
  for (const part of parts) socket.write(part)
  let text = ''
  socket.on('data', (chunk) => (text += String(chunk)))
  // A server that answers before it has read everything may reset the connection: what it has answered counts.
  socket.on('error', () => undefined)
  await new Promise((resolve) => socket.once('close', resolve))
  return text
}

describe('who is let in', () => {
  it('without tokens nobody but this machine is: another address needs one', async () => {
    const checkups = new Checkups(api)
    for (const host of ['0.0.0.0', '::', '192.0.2.1', 'example.test']) {
      await expect(createAdminServer(checkups, { host, port: 0 })).rejects.toThrow(ConfigError)
      await expect(createAdminServer(checkups, { host, port: 0 })).rejects.toThrow('expected tokens or authorize')
    }
    for (const host of ['127.0.0.1', '127.8.9.1', '::1', 'localhost']) {
      const server = await createAdminServer(checkups, { host, port: 0 })
      await server.close()
    }
    const { url } = await admin(api, { host: '0.0.0.0', tokens })
    expect((await asking(url.replace('0.0.0.0', '127.0.0.1'))('GET', '/v1/status')).status).toBe(401)
  })

  it('a handler on a server that others reach answers this machine alone, if it has no tokens', async () => {
    const others = Object.values(networkInterfaces())
      .flat()
      .find((one) => one?.family === 'IPv4' && !one.internal)
    if (others === undefined) return
    const server = createServer(createAdminHandler(new Checkups(api))).listen(0, '0.0.0.0')
    await once(server, 'listening')
    onTestFinished(() => void server.close())
    const { port } = server.address() as AddressInfo
    expect((await asking(`http://127.0.0.1:${port}/`)('GET', '/v1/status')).status).toBe(200)
    // This machine's own address, as another one would use it.
    expect((await asking(`http://${others.address}:${port}/`)('GET', '/v1/status')).status).toBe(401)
  })

  it('a token is read as Bearer and as the password of Basic, and is worth its role', async () => {
    const { ask, checkups } = await admin(api, { tokens })
    for (const headers of [bearer(READ), basic('', READ.token), basic('me', READ.token)]) {
      expect((await ask('GET', '/v1/session', { headers })).json).toEqual({ name: 'reader', role: 'read' })
      const refused = await ask(change[0], change[1], { ...change[2], headers })
      expect(refused).toMatchObject({ status: 403, json: { error: { message: 'reader may read, and not write' } } })
    }
    expect(checkups.getUpstream('api')?.tries).toBe(0)
    expect((await ask(change[0], change[1], { ...change[2], headers: bearer(WRITE) })).status).toBe(200)
    for (const authorization of [
      '',
      'Bearer',
      'Bearer x',
      `bearer ${READ.token}x`,
      `Token ${READ.token}`,
      'Basic !',
      'Basic',
      `Bearer ${READ.token} x`,
    ]) {
      const { status, headers } = await ask('GET', '/v1/status', { headers: { authorization } })
      expect([status, headers['www-authenticate']]).toEqual([401, 'Bearer realm="checkups"'])
    }
    expect((await ask('GET', '/v1/nothing-of-this')).status).toBe(401)
  })

  it('a token that could be guessed is refused', () => {
    const make = (token: unknown) => () => createAdminHandler(new Checkups(), { tokens: [token as never] })
    expect(make({ name: 'a', token: 'short' })).toThrow('createAdminHandler.tokens[0].token: expected 16 characters')
    expect(make({ name: 'a', token: 'with spaces in it, and long' })).toThrow('printable ASCII without spaces')
    expect(make({ name: '', token: WRITE.token })).toThrow('tokens[0].name')
    expect(make({ name: 'a', token: WRITE.token, role: 'root' })).toThrow('tokens[0].role: expected "read" or "write"')
    expect(make({ name: 'a', token: WRITE.token, rol: 'read' })).toThrow('unknown option')
  })

  it('every token is compared in constant time: by a digest of equal length', async () => {
    const crypto = await import('node:crypto')
    const { isSame, sealed } = await import('../../src/admin/lib/secret.js')
    expect(isSame(sealed('a'), 'a')).toBe(true)
    expect(isSame(sealed('a'), 'b'.repeat(1_000))).toBe(false)
    expect(sealed('a')).toHaveLength(sealed('b'.repeat(1_000)).length)
    expect(crypto.timingSafeEqual(sealed('a'), sealed('a'))).toBe(true)
  })

  it('authorize lets in whom it knows, at once or later', async () => {
    const options: AdminOptions = {
      authorize: async ({ headers }) =>
        headers['x-user'] === undefined ? undefined : { name: String(headers['x-user']), role: 'write' },
    }
    const { ask } = await admin(api, options)
    expect((await ask('GET', '/v1/session', { headers: { 'x-user': 'ann' } })).json).toEqual({
      name: 'ann',
      role: 'write',
    })
    expect((await ask('GET', '/v1/session')).status).toBe(401)
  })

  it('an authorize that throws lets nobody in', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const { ask } = await admin(api, {
      authorize: () => {
        throw new Error('mine')
      },
    })
    expect((await ask('GET', '/v1/status')).status).toBe(500)
    expect(warned).toHaveBeenCalled()
    warned.mockRestore()
  })
})

describe('a browser that is logged in', () => {
  async function login(options: AdminOptions = {}, token: string = WRITE.token) {
    const opened = await admin(api, { tokens, ...options })
    const answer = await opened.ask('POST', '/login', { body: `token=${token}` })
    const cookie = String(answer.headers['set-cookie'])
    const sent = { cookie: cookie.split(';')[0]! }
    return { ...opened, answer, cookie, sent }
  }

  it('has a cookie that no script reads and no other site sends', async () => {
    const { answer, cookie, sent, ask } = await login()
    expect(answer).toMatchObject({ status: 303, headers: { location: '/' } })
    expect(cookie).toMatch(/^checkups_admin=[\w-]{32}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict$/)
    expect((await ask('GET', '/v1/session', { headers: sent })).json).toMatchObject({ name: 'writer', role: 'write' })
  })

  it('changes something only with what its own page knows', async () => {
    const { sent, ask, checkups } = await login()
    const { csrf } = (await ask('GET', '/v1/session', { headers: sent })).json as { csrf: string }
    for (const other of [{}, { 'x-csrf-token': 'x' }]) {
      expect((await ask(change[0], change[1], { ...change[2], headers: { ...sent, ...other } })).status).toBe(403)
    }
    expect(checkups.getUpstream('api')?.tries).toBe(0)
    const headers = { ...sent, 'x-csrf-token': csrf }
    expect((await ask(change[0], change[1], { ...change[2], headers })).status).toBe(200)
  })

  it('is asked again after twelve hours, and after it has logged out', async () => {
    const clock = new VirtualClock()
    const { sent, ask } = await login({ clock })
    const { csrf } = (await ask('GET', '/v1/session', { headers: sent })).json as { csrf: string }
    expect((await ask('POST', '/logout', { headers: sent, body: 'csrf=wrong' })).status).toBe(403)
    expect((await ask('GET', '/v1/session', { headers: sent })).status).toBe(200)
    const out = await ask('POST', '/logout', { headers: sent, body: `csrf=${csrf}` })
    expect([out.status, String(out.headers['set-cookie'])]).toEqual([303, expect.stringContaining('Max-Age=0')])
    expect((await ask('GET', '/v1/session', { headers: sent })).status).toBe(401)

    const again = await ask('POST', '/login', { body: `token=${READ.token}` })
    const cookie = String(again.headers['set-cookie']).split(';')[0]!
    await clock.advance(12 * 3_600_000 - 1)
    expect((await ask('GET', '/v1/session', { headers: { cookie } })).status).toBe(200)
    await clock.advance(1)
    expect((await ask('GET', '/v1/session', { headers: { cookie } })).status).toBe(401)
  })

  it('with a wrong token is shown the form again, and with none at first', async () => {
    const { answer, ask } = await login({}, 'wrong-wrong-wrong-wrong')
    expect(answer).toMatchObject({ status: 401, headers: { 'content-type': 'text/html; charset=utf-8' } })
    expect(answer.text).toContain('No such token.')
    expect(answer.headers['set-cookie']).toBeUndefined()
    expect(await ask('GET', '/')).toMatchObject({ status: 401, text: expect.stringContaining('<form') as string })
  })

  it('where nobody can be asked for a token, there is no form', async () => {
    const { ask } = await admin(api)
    expect((await ask('POST', '/login', { body: 'token=x' })).status).toBe(404)
  })
})

describe('what a page of another site sends', () => {
  const cross = [
    { 'sec-fetch-site': 'cross-site' },
    { 'sec-fetch-site': 'same-site' },
    { origin: 'http://evil.test' },
    { origin: 'null' },
    { 'sec-fetch-site': 'same-origin', origin: 'http://evil.test' },
  ]

  it.each(cross)('is refused, whatever its type and its credentials: %j', async (headers) => {
    const { ask, checkups } = await admin(api)
    for (const type of ['application/json', 'text/plain', 'application/x-www-form-urlencoded']) {
      const asked = { body: { tries: 2 }, headers: { ...headers, 'content-type': type } }
      expect((await ask('PATCH', '/v1/upstreams/api', asked)).status).toBe(403)
    }
    expect((await ask('GET', '/v1/status', { headers })).status).toBe(403)
    expect((await ask('POST', '/v1/upstreams/api/reset', { headers })).status).toBe(403)
    expect(checkups.getUpstream('api')?.tries).toBe(0)

    const guarded = await admin(api, { tokens })
    const asked = { body: { tries: 2 }, headers: { ...headers, ...bearer(WRITE) } }
    expect((await guarded.ask('PATCH', '/v1/upstreams/api', asked)).status).toBe(403)
    expect((await guarded.ask('POST', '/login', { body: `token=${WRITE.token}`, headers })).status).toBe(403)
  })

  it('its links may be followed, but not to what changes something', async () => {
    const { ask, checkups } = await admin(api, {
      stateChangingGets: true,
      interfaces: { sharedDict: { upstream: 'api' } },
    })
    const headers = { 'sec-fetch-site': 'cross-site', 'sec-fetch-mode': 'navigate', 'sec-fetch-dest': 'document' }
    expect((await ask('GET', '/', { headers })).status).toBe(200)
    expect((await ask('GET', '/add?ip=10.0.0.9&port=80&no=9', { headers })).status).toBe(403)
    expect((await ask('GET', '/', { headers: { ...headers, 'sec-fetch-dest': 'iframe' } })).status).toBe(403)
    expect(checkups.getStatus().generation).toBe(1)
  })

  it('our own page, whatever it is called, may', async () => {
    const { ask, url } = await admin(api, { hosts: ['admin.example'] })
    const own = [
      { 'sec-fetch-site': 'same-origin', origin: url.replace(/\/$/, '') },
      { host: 'admin.example', origin: 'https://admin.example' },
      { 'sec-fetch-site': 'none' },
    ]
    for (const headers of own) expect((await ask(change[0], change[1], { ...change[2], headers })).status).toBe(200)
  })

  it('no page can frame it, nor load anything into it', async () => {
    const { ask } = await admin(api)
    const { headers } = await ask('GET', '/')
    expect(headers['content-security-policy']).toContain("default-src 'none'; script-src 'self'; style-src 'self'")
    expect(headers['content-security-policy']).toContain("frame-ancestors 'none'")
    expect(headers).toMatchObject({
      'x-frame-options': 'DENY',
      'x-content-type-options': 'nosniff',
      'cache-control': 'no-store',
    })
    const data = await ask('GET', '/v1/status')
    expect(data.headers['content-security-policy']).toBe("default-src 'none'; frame-ancestors 'none'")
  })
})

describe('the Host header', () => {
  it('must be a name of this machine: another one may have been made to point here', async () => {
    const { ask, url } = await admin(api, { hosts: ['Admin.Example'] })
    expect(await raw(url, 'GET /v1/status HTTP/1.0\r\n\r\n')).toMatch(/^HTTP\/1\.1 421 /)
    for (const host of ['evil.test', 'evil.test:1995', '127.0.0.1.evil.test', 'localhost.evil.test']) {
      expect((await ask('GET', '/v1/status', { headers: { host } })).status).toBe(421)
    }
    for (const host of [
      'localhost',
      'localhost:1995',
      'a.localhost',
      '10.1.2.3',
      '[::1]:80',
      'admin.example:443',
      'ADMIN.EXAMPLE',
    ]) {
      expect((await ask('GET', '/v1/status', { headers: { host } })).status).toBe(200)
    }
  })
})

describe('what is too much', () => {
  it('a body over 1 MiB is 413, said or not', async () => {
    const { ask, checkups, url } = await admin(api)
    const large = 'x'.repeat(1_048_577)
    expect(await ask('PUT', '/v1/upstreams/api', { body: large })).toMatchObject({
      status: 413,
      headers: { connection: 'close' },
    })
    const head = 'PUT /v1/upstreams/api HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n'
    const chunks = `${(65_536).toString(16)}\r\n${'x'.repeat(65_536)}\r\n`.repeat(17)
    expect(await raw(url, head, chunks)).toMatch(/^HTTP\/1\.1 413 /)
    expect(checkups.getStatus().generation).toBe(1)
    const small = await admin(api, { maxBody: 10 })
    expect((await small.ask('PATCH', '/v1/upstreams/api', { body: { tries: 1234567 } })).status).toBe(413)
  })

  it('a body that comes too slowly is cut', async () => {
    const clock = new VirtualClock()
    const { url } = await admin(api, { clock })
    const answered = raw(url, 'PUT /v1/upstreams/api HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n', '{"a')
    await eventually(() => expect(clock.pending).toBeGreaterThan(0))
    await clock.advance(10_000)
    expect(await answered).toMatch(/^HTTP\/1\.1 408 /)
  })

  it('headers and requests that come too slowly are cut', async () => {
    const { url } = await admin(api, { headersTimeout: 200, requestTimeout: 400 })
    expect(await raw(url, 'GET / HTTP/1.1\r\nhost: loc')).toMatch(/^HTTP\/1\.1 408 /)
    expect(await raw(url, 'PUT /v1/upstreams/api HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n')).toMatch(
      /^HTTP\/1\.1 408 /,
    )
  })

  it('headers over 16 KiB, encodings and bytes that are no text are refused', async () => {
    const { ask } = await admin(api)
    expect((await ask('GET', '/v1/status', { headers: { 'x-a': 'x'.repeat(16_384) } })).status).toBe(431)
    expect((await ask(change[0], change[1], { ...change[2], headers: { 'content-encoding': 'gzip' } })).status).toBe(
      415,
    )
    const { url } = await admin(api)
    const { port } = new URL(url)
    const socket = connect(Number(port), '127.0.0.1')
    onTestFinished(() => void socket.destroy())
    socket.write('PUT /v1/upstreams/api HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: 2\r\n\r\n')
    socket.write(Buffer.from([0xff, 0xfe]))
    const [answer] = (await once(socket, 'data')) as [Buffer]
    expect(String(answer)).toMatch(/^HTTP\/1\.1 400 /)
  })

  it('a client that goes away amid its body changes nothing', async () => {
    const { url, server, checkups } = await admin(api)
    const socket = connect(Number(new URL(url).port), '127.0.0.1')
    socket.write('PUT /v1/upstreams/api HTTP/1.1\r\nhost: localhost\r\ncontent-length: 100\r\n\r\n{"servers":[')
    const [request] = (await once(server, 'request')) as [NodeJS.EventEmitter]
    const closed = new Promise((resolve) => request.on('close', resolve))
    socket.destroy()
    await closed
    expect(checkups.getStatus().generation).toBe(1)
  })

  it('more streams than people there are find no place', async () => {
    const { url } = await admin(api)
    await Promise.all(Array.from({ length: 256 }, () => stream(`${url}v1/events`)))
    expect((await (await stream(`${url}v1/events`)).next()).value?.event).toBe('full')
  })
})

describe('metrics', () => {
  it('are served to whoever may read, and to nobody else', async () => {
    const metrics = { contentType: 'text/plain; version=0.0.4', metrics: async () => 'up 1\n' }
    const { ask } = await admin(api, { tokens, metrics })
    expect((await ask('GET', '/metrics')).status).toBe(401)
    expect(await ask('GET', '/metrics', { headers: bearer(READ) })).toMatchObject({
      status: 200,
      text: 'up 1\n',
      headers: { 'content-type': 'text/plain; version=0.0.4' },
    })
    expect((await ask('POST', '/metrics', { headers: bearer(WRITE) })).status).toBe(404)
    expect(() => createAdminHandler(new Checkups(), { metrics: {} as never })).toThrow('a registry of prom-client')
  })
})

describe('whatever is sent', () => {
  it('there is an answer, and after a refusal nothing has changed', async () => {
    const { ask, checkups } = await admin(api)
    const before = JSON.stringify(checkups.getUpstream('api'))
    const methods = fc.constantFrom('GET', 'PUT', 'PATCH', 'POST', 'DELETE', 'OPTIONS')
    const paths = fc.oneof(
      fc.constantFrom('/v1/upstreams/api', '/v1/upstreams/api/servers', '/v1/upstreams/api/servers/10.0.0.1%3A80'),
      fc.webPath().map((path) => `/v1${path}`),
      fc.webPath(),
    )
    const bodies = fc.oneof(
      fc.string(),
      fc.json(),
      fc.jsonValue().map((value) => JSON.stringify({ servers: value })),
    )
    await fc.assert(
      fc.asyncProperty(methods, paths, fc.webQueryParameters(), bodies, async (method, path, query, body) => {
        const { status } = await ask(method, `${path === '' ? '/' : path}?${query}`, { body })
        expect(status).not.toBe(500)
        if (status < 400) {
          // What was asked for may have been done.
          await checkups.updateUpstream('api', api.upstreams.api)
        }
        expect(JSON.stringify(checkups.getUpstream('api'))).toBe(before)
      }),
      { numRuns: 400 },
    )
  })
})
