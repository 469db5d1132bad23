import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import type { UpstreamOptions } from '../../../src/index.js'
import { SERVER } from '../../../src/admin/interface/slardar.js'
import { proxies, startServer } from '../../support/http.js'
import { ancestor, configOf, gatewayWith } from './support.js'

const start = (upstreams: Record<string, UpstreamOptions> = {}, options = {}) =>
  ancestor({ slardar: true }, { upstreams }, options)

const SERVERS = [
  { host: '127.0.0.1', port: 9091, weight: 11, max_fails: 3, fail_timeout: 1 },
  { host: '127.0.0.1', port: 9092, weight: 22, max_fails: 2, fail_timeout: 2 },
  { host: '127.0.0.1', port: 9093, weight: 33, max_fails: 1, fail_timeout: 3 },
]
const DONE = { status: 200, json: { status: 200 } }
const refused = (msg: unknown, status = 400) => ({ status, json: { status, msg } })
const one = { servers: [{ host: '10.0.0.1', port: 80 }] }

/** After the first request of Slardar's own test. */
async function posted() {
  const { ask, ...rest } = await start()
  expect(await ask('POST', '/upstream/test', { body: { servers: SERVERS } })).toMatchObject(DONE)
  const status = await ask('GET', '/status')
  return { ask, status, list: (status.json as Record<string, any[][]>)['cls:test']![0]!, ...rest } // eslint-disable-line
}

describe("Slardar's own test", () => {
  it('S01: an upstream that was posted is in the status, at once', async () => {
    const { status } = await posted()
    expect(status).toMatchObject({ status: 200, headers: { server: SERVER, 'content-type': 'application/json' } })
    expect(status.json).toMatchObject({ slardar_version: SERVER })
  })

  it('S02: with all of its servers', async () => {
    expect((await posted()).list).toHaveLength(3)
  })

  it('S03: max_fails, and fail_timeout in seconds', async () => {
    expect((await posted()).list[0]).toMatchObject({ max_fails: 3, fail_timeout: 1 })
  })

  it('S04: weight', async () => {
    expect((await posted()).list[1]).toMatchObject({ weight: 22 })
  })

  it('S05: server is the key and the address', async () => {
    expect((await posted()).list[2]).toMatchObject({ server: 'test:127.0.0.1:9093' })
  })

  it('the version is that of the package', () => {
    const url = new URL('../../../package.json', import.meta.url)
    const { name, version } = JSON.parse(readFileSync(url, 'utf8')) as { name: string; version: string }
    expect(SERVER).toBe(`${name}/${version}`)
  })
})

describe('PUT and POST of an upstream', () => {
  it('is what the next request goes by', async () => {
    const backends = [await startServer('a'), await startServer('b')]
    const { ask, get } = await gatewayWith({ slardar: true }, {}, { proxy: proxies['http-proxy']() })
    expect(await get('new')).toBe('502')
    for (const { address, name } of backends) {
      const [host, port] = address.split(':')
      expect(await ask('PUT', '/upstream/new', { body: { servers: [{ host, port: Number(port) }] } })).toMatchObject(
        DONE,
      )
      expect(await get('new')).toBe(name)
    }
    expect(await ask('DELETE', '/upstream/new')).toMatchObject(DONE)
    expect(await get('new')).toBe('502')
  })

  it('takes levels, named clusters and all that the format has', async () => {
    const { ask, checkups } = await start()
    const body = {
      cluster: { near: one, far: { servers: [{ host: '10.0.0.2', port: '81', down: 1, max_conns: 7 }] } },
      ...{ mode: 'hash', try: 2, try_timeout: 1.5, timeout: 2, protected: false },
    }
    expect(await ask('PUT', '/upstream/a.b-c_D', { body })).toMatchObject(DONE)
    expect(checkups.getUpstream('a.b-c_D')).toMatchObject({
      cluster: {
        near: { servers: [{ host: '10.0.0.1', port: 80 }] },
        far: { servers: [{ host: '10.0.0.2', port: 81, down: true, maxConns: 7 }] },
      },
      balancer: 'consistent-hash',
      tries: 2,
      timeout: 1_500,
      timeouts: { connect: 2_000, send: 2_000, read: 2_000 },
      protected: false,
    })
    expect(await ask('PUT', '/upstream/a.b-c_D', { body: { cluster: [one, one] } })).toMatchObject(DONE)
    expect(checkups.getUpstream('a.b-c_D')?.cluster).toHaveLength(2)
  })

  it('keeps the options that it does not name', async () => {
    const options = { balancer: 'random', tries: 3, statuses: { 404: 'next' }, maxFails: 9, keepalive: 5 } as const
    const { ask, checkups } = await start({ test: { servers: ['10.0.0.9:80'], ...options } })
    expect(await ask('PUT', '/upstream/test', { body: { servers: SERVERS, protected: false } })).toMatchObject(DONE)
    expect(checkups.getUpstream('test')).toMatchObject({ ...options, protected: false })
    expect(checkups.getUpstream('test')?.cluster).toMatchObject([
      { servers: [{ weight: 11 }, {}, { failTimeout: 3_000 }] },
    ])
  })

  it('a mode and a map of statuses replace those before', async () => {
    const balancer = { type: 'consistent-hash', hash: 'nginx' } as const
    const { ask, checkups } = await start({ test: { servers: ['10.0.0.9:80'], balancer, statuses: { 404: 'next' } } })
    await ask('PUT', '/upstream/test', { body: { ...one, mode: 'hash', http_opts: { statuses: { 500: true } } } })
    expect(checkups.getUpstream('test')).toMatchObject({ balancer: 'consistent-hash', statuses: { 500: true } })
    expect(checkups.getUpstream('test')?.statuses).toEqual({ 500: true })
    await ask('PUT', '/upstream/test', { body: { ...one, mode: 'wrr' } })
    expect(checkups.getUpstream('test')).toMatchObject({ balancer: 'wrr', statuses: { 500: true } })
  })

  it('what is not said of heartbeats stays, and another type brings its own options', async () => {
    const heartbeat = { type: 'http', path: '/alive', interval: 700, fall: 9 } as const
    const { ask, checkups } = await start({ test: { servers: ['10.0.0.9:80'], heartbeat } })
    const after = async (body: object) => {
      expect(await ask('PUT', '/upstream/test', { body: { ...one, ...body } })).toMatchObject(DONE)
      return checkups.getUpstream('test')?.heartbeat
    }
    expect(await after({ enable: true })).toMatchObject(heartbeat)
    expect(await after({ sensibility: 2, timeout: 0.3 })).toMatchObject({ ...heartbeat, fall: 2, timeout: 300 })
    const query = 'GET / HTTP/1.0\r\n\r\n'
    const http = await after({ typ: 'http', http_opts: { query } })
    expect(http).toMatchObject({ type: 'http', query, interval: 700, fall: 2 })
    expect(http).not.toHaveProperty('path')
    const redis = await after({ typ: 'redis' })
    expect(redis).toMatchObject({ type: 'redis', interval: 700, fall: 2 })
    expect(redis).not.toHaveProperty('query')
    expect(await after({ enable: false })).toBeUndefined()
    expect(await after({ enable: true, sensibility: 4 })).toMatchObject({ type: 'tcp', fall: 4, interval: 5_000 })
  })

  it('of many at once every one is whole: the last one is there', async () => {
    const heartbeat = { type: 'http', path: '/alive' } as const
    const { ask, checkups } = await start({ test: { servers: ['10.0.0.9:80'], heartbeat } })
    const bodies = Array.from({ length: 20 }, (_, i) => ({
      servers: [{ host: '10.0.0.1', port: i + 1 }],
      sensibility: i + 1,
    }))
    const answers = await Promise.all(bodies.map((body) => ask('PUT', '/upstream/test', { body })))
    for (const answer of answers) expect(answer).toMatchObject(DONE)
    const test = checkups.getUpstream('test') as { cluster: { servers: { port: number }[] }[]; heartbeat: object }
    const port = test.cluster[0]!.servers[0]!.port
    expect(test).toMatchObject({
      cluster: [{ servers: [{ host: '10.0.0.1' }] }],
      heartbeat: { ...heartbeat, fall: port },
    })
  })
})

describe('what Slardar refuses', () => {
  const server = one.servers[0]!
  const invalid: [what: string, body: unknown, msg: unknown][] = [
    ['nothing', '', 'body too big'],
    ['more than it takes', { servers: [server], padding: 'x'.repeat(5_000) }, 'body too big'],
    ['no JSON', '{"servers":', 'decode body error'],
    ['a key that is there twice', '{"servers":[],"servers":[]}', 'decode body error'],
    ['JSON too deep for anything', `{"servers":${'['.repeat(2_000)}${']'.repeat(2_000)}}`, 'decode body error'],
    ['a list', [], 'body invalid'],
    ['null', null, 'body invalid'],
    ['neither servers nor cluster', { enable: true }, 'body invalid'],
    ['both', { servers: [server], cluster: [] }, 'body invalid'],
    ['no servers', { servers: [] }, expect.stringContaining('at least one server')],
    ['servers that are no list', { servers: { 0: server } }, expect.stringContaining('servers: expected an array')],
    ['one server that is none among good ones', { servers: [server, 7] }, expect.stringContaining('servers[1]')],
    ['a port that is none', { servers: [server, { host: 'b', port: 0 }] }, expect.stringContaining('servers[1].port')],
    ['the same twice', { servers: [server, server] }, expect.stringContaining('servers[1]')],
    [
      'a bad one in a second level',
      { cluster: [one, { servers: [{}] }] },
      expect.stringContaining('cluster[1].servers[0]'),
    ],
    ['a mode that is none', { ...one, mode: 'dice' }, expect.stringContaining('mode')],
    [
      'times that are none',
      { servers: [{ ...server, fail_timeout: 'soon' }] },
      expect.stringContaining('fail_timeout'),
    ],
    ['a cluster by a name that is none', { cluster: { 'a b': one } }, expect.stringContaining('cluster')],
  ]
  it.each(invalid)('%s', async (_, body, msg) => {
    const { ask, checkups } = await start(
      { test: { servers: ['10.0.0.9:80'], balancer: 'random' } },
      { maxBody: 4_096 },
    )
    const before = configOf(checkups)
    for (const method of ['PUT', 'POST']) {
      expect(await ask(method, '/upstream/test', { body })).toMatchObject(refused(msg))
      expect(await ask(method, '/upstream/other', { body })).toMatchObject(refused(msg))
    }
    expect(configOf(checkups)).toEqual(before)
  })

  it('to delete what is not there', async () => {
    const { ask } = await start()
    expect(await ask('DELETE', '/upstream/nobody')).toMatchObject(refused('upstream nobody not found'))
    const long = 'x'.repeat(200)
    expect(await ask('DELETE', `/upstream/${long}`)).toMatchObject(refused(`upstream ${long} not found`))
    expect(await ask('PUT', `/upstream/${long}`, { body: one })).toMatchObject(refused(expect.stringContaining('name')))
  })

  it('other methods', async () => {
    const { ask } = await start()
    for (const method of ['GET', 'PATCH', 'OPTIONS']) {
      expect(await ask(method, '/upstream/test')).toMatchObject(refused('method not allowed', 405))
    }
    expect(await ask('HEAD', '/upstream/test')).toMatchObject({ status: 405, text: '' })
    expect(await ask('POST', '/status', { body: {} })).toMatchObject({ status: 405 })
  })

  it.each([
    '/',
    '/lua',
    '/lua/x',
    '/upstream',
    '/upstream/',
    '/upstream/a/b',
    '/upstream/a%20b',
    '/Status',
    '/status/',
  ])('anything else, as %s', async (path) => {
    const { ask } = await start()
    for (const method of ['GET', 'POST', 'DELETE']) {
      expect(await ask(method, path)).toMatchObject({ status: 400, text: '{}' })
    }
  })
})

describe('what Slardar shows', () => {
  it('a query string is no reason not to', async () => {
    const { ask } = await start({ test: one })
    expect(await ask('GET', '/status?a=b')).toMatchObject({ status: 200 })
    expect(await ask('DELETE', '/upstream/test?a=b')).toMatchObject(DONE)
  })

  it('the head alone', async () => {
    const { ask } = await start({ test: one })
    expect(await ask('HEAD', '/status')).toMatchObject({ status: 200, text: '', headers: { server: SERVER } })
  })

  it('configurations in its own names and units, as far as these go', async () => {
    const { ask } = await start({
      plain: { servers: ['10.0.0.1:80', { path: '/run/app.sock', labels: { zone: 'b' }, meta: { any: 'thing' } }] },
      full: {
        cluster: {
          a: { servers: [{ host: '::1', port: 80, weight: 3, maxFails: 2, failTimeout: 1_500, down: true }] },
        },
        balancer: () => ({ update: () => undefined, pick: () => undefined }),
        tries: 2,
        timeout: 2_500,
        timeouts: { connect: 1_000 },
        statuses: { 500: true, 404: 'next' },
        heartbeat: { type: 'mysql', user: 'monitor', password: 'secret', database: 'd', fall: 2 },
        protected: false,
      },
      http: { ...one, heartbeat: { type: 'http', query: 'GET / HTTP/1.0\r\nAuthorization: Basic c2VjcmV0\r\n\r\n' } },
    })
    const answer = await ask('GET', '/upstreams')
    expect(answer.status).toBe(200)
    expect(answer.text).not.toMatch(/secret|c2VjcmV0|thing/)
    expect(answer.json).toMatchObject({
      plain: {
        cluster: [
          {
            servers: [
              { host: '10.0.0.1', port: 80, weight: 1, max_fails: 1, fail_timeout: 10 },
              { path: '/run/app.sock', labels: { zone: 'b' } },
            ],
          },
        ],
        enable: false,
        mode: 'wrr',
        protected: true,
        timeout: 5,
        read_timeout: 60,
      },
      full: {
        cluster: { a: { servers: [{ host: '::1', port: 80, weight: 3, max_fails: 2, fail_timeout: 1.5, down: 1 }] } },
        enable: true,
        typ: 'mysql',
        sensibility: 2,
        user: 'monitor',
        pass: '(not shown)',
        name: 'd',
        try: 2,
        try_timeout: 2.5,
        timeout: 1,
        http_opts: { statuses: { 500: true } },
        protected: false,
      },
      http: { typ: 'http', http_opts: { query: '(not shown)' } },
    })
  })

  it('what it shows can be put back, and changes nothing', async () => {
    const { ask, checkups } = await start({
      test: {
        cluster: [{ servers: ['10.0.0.1:80'] }, { servers: [{ address: '10.0.0.2:80', weight: 2, backup: true }] }],
        balancer: 'consistent-hash',
        heartbeat: { type: 'mysql', user: 'monitor', password: 'secret', fall: 2, timeout: 5_000 },
        statuses: { 500: true },
      },
    })
    const before = configOf(checkups)
    const { test } = (await ask('GET', '/upstreams')).json as { test: object }
    expect(await ask('PUT', '/upstream/test', { body: test })).toMatchObject(DONE)
    expect(configOf(checkups)).toEqual(before)
  })
})
