import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { BalancedProxyOptions } from '../../src/adapter/http-proxy.js'
import { balanceProxy } from '../../src/adapter/http-proxy.js'
import { Checkups, ConfigError } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { answers, bytes, inFlight, marks, proxies, refusing, send } from '../support/http.js'
import { SILENCE, startGateway, startRaw, startServer, whenRead } from '../support/http.js'
import type { Place } from '../support/http.js'

const pem = (name: string) => readFileSync(new URL(`../support/tls/${name}.pem`, import.meta.url), 'utf8')
const tls = { key: pem('key'), cert: pem('cert') }
// Without a name of its own a peer's certificate is held against the Host header, as http-proxy does it.
const https = { protocol: 'https', agent: { ca: tls.cert, servername: 'localhost' } } as const

function socketPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'checkups-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return join(folder, 'app.sock')
}

describe.each(Object.entries(proxies))('a peer, with %s', (_, makeProxy) => {
  const places: [says: string, place: () => Place, options: BalancedProxyOptions][] = [
    ['at an IPv6 address', () => ({ host: '::1' }), {}],
    ['at a host name', () => ({ host: 'localhost' }), {}],
    ['at a unix socket', () => ({ path: socketPath() }), {}],
    ['behind TLS', () => ({ tls }), https],
    ['behind TLS at an IPv6 address', () => ({ host: '::1', tls }), https],
    ['behind TLS at a host name', () => ({ host: 'localhost', tls }), https],
  ]
  it.each(places)('%s gets requests over one connection', async (_, place, options) => {
    const a = await startServer('a', whenRead, place())
    const gateway = await startGateway([a], { proxy: makeProxy(), ...options })
    expect(await answers(gateway, 5, { method: 'POST', body: bytes(10_000) })).toBe('aaaaa')
    expect([a.connections, inFlight(gateway)]).toEqual([1, 0])
    expect(a.seen[0]?.headers.host).toBe('test')
  })

  it('with a certificate that nobody vouches for is refused; that is a connection not made', async () => {
    const a = await startServer('a', whenRead, { tls })
    const gateway = await startGateway([a, refusing()], { proxy: makeProxy(), protocol: 'https' })
    expect((await send(gateway, { method: 'POST', body: bytes(10) })).status).toBe(502)
    expect([marks(gateway, a), marks(gateway, { address: refusing() }), a.seen.length]).toEqual([1, 1, 0])
  })
})

it('a peer that accepts and does not finish the TLS handshake is given up after timeouts.connect', async () => {
  const a = await startRaw((socket) => socket.resume())
  const b = await startServer('b', whenRead, { tls })
  const timeouts = { connect: SILENCE, send: 60_000, read: 60_000 }
  const gateway = await startGateway([a, b], { ...https, upstream: { timeouts } })
  expect(await send(gateway, { method: 'POST', body: bytes(10) })).toMatchObject({ status: 200, text: 'b' })
  expect(marks(gateway, a)).toBe(1)
  await eventually(() => expect(a.sockets.size).toBe(0))
})

describe('what peers are told of the client', () => {
  const rows: [says: string, given: Record<string, string>, forwarded: string][] = [
    ['its address, once', {}, '127.0.0.1'],
    ['its address, once, after those before', { 'x-forwarded-for': '192.0.2.1' }, '192.0.2.1,127.0.0.1'],
  ]
  it.each(rows)('%s, however many were tried', async (_, headers, forwarded) => {
    const b = await startServer('b', (_req, res) => void res.writeHead(503).end())
    const c = await startServer('c')
    const gateway = await startGateway([refusing(0), refusing(1), b, c], { proxyOptions: { xfwd: true } })
    expect(await answers(gateway, 1, { headers })).toBe('c')
    for (const { seen } of [b, c]) {
      expect(seen[0]?.headers).toMatchObject({
        'x-forwarded-for': forwarded,
        'x-forwarded-proto': 'http',
        'x-forwarded-host': 'test',
      })
    }
  })

  it('what proxyOptions say, but not where to go', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const proxyOptions = {
      headers: { 'x-gateway': 'yes' },
      changeOrigin: true,
      target: `http://${b.address}`,
      agent: false,
    }
    const gateway = await startGateway([a], { proxyOptions })
    expect(await answers(gateway, 2, { path: '/p?q=1' })).toBe('aa')
    expect(a.seen[0]).toMatchObject({ url: '/p?q=1', headers: { 'x-gateway': 'yes', host: a.address } })
    expect(a.connections).toBe(1)
  })
})

describe('options are checked when the balanced proxy is made', () => {
  const rows: [says: string, options: object, message: string][] = [
    ['one that does not exist', { retries: 3 }, 'options.retries'],
    ['protocol', { protocol: 'ftp' }, 'options.protocol'],
    ['bodyLimit', { bodyLimit: -1 }, 'options.bodyLimit'],
    ['key', { key: 'api' }, 'options.key'],
    ['hashKey', { hashKey: 'header' }, 'options.hashKey'],
  ]
  it.each(rows)('%s', async (_, options, message) => {
    const error = await startGateway([refusing()], options).then(
      () => undefined,
      (thrown: unknown) => thrown,
    )
    expect(error).toBeInstanceOf(ConfigError)
    expect((error as Error).message).toContain(message)
  })

  it('and the proxy is one, and in its place', () => {
    const checkups = new Checkups()
    expect(() => balanceProxy(proxies['http-proxy']() as never, checkups as never)).toThrow(
      new ConfigError('proxy.web', 'expected a function, got undefined'),
    )
  })
})
