/** Whatever is sent: there is an answer, and one that is none of success has changed nothing. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { checkModule } from '../../../src/admin/interface/check-module.js'
import { dynamicUpstream } from '../../../src/admin/interface/dynamic-upstream.js'
import { dyups } from '../../../src/admin/interface/dyups.js'
import { sharedDict } from '../../../src/admin/interface/shared-dict.js'
import { slardar } from '../../../src/admin/interface/slardar.js'
import { upsync } from '../../../src/admin/interface/upsync.js'
import type { Interface } from '../../../src/admin/lib/route.js'
import type { Operations } from '../../../src/admin/operations.js'
import type { UpstreamOptions } from '../../../src/index.js'
import { bare, configOf } from './support.js'

const upstreams: Record<string, UpstreamOptions> = {
  test: {
    cluster: [
      { servers: ['10.0.0.1:80', { address: '10.0.0.2:80', labels: { no: '1' } }] },
      { servers: ['10.0.0.3:80'] },
    ],
    balancer: { type: 'consistent-hash', hash: 'nginx' },
    heartbeat: { type: 'http', path: '/alive' },
    tries: 2,
  },
}

const method = fc.constantFrom('GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'PATCH', 'OPTIONS')
const name = fc.constantFrom('test', 'TEST', 'new', '__proto__', 'constructor', '', '%ff', 'a%20b', 'x'.repeat(200))
const junk = fc.string({ unit: 'binary', maxLength: 40 })

type Sent = readonly [method: string, url: string, body: string]

/** Some of what is sent at one instance, one after another. Returns how often each status came. */
async function survives(
  make: (operations: Operations) => Interface,
  sent: fc.Arbitrary<Sent>,
): Promise<Map<number, number>> {
  const seen = new Map<number, number>()
  await fc.assert(
    fc.asyncProperty(fc.array(sent, { minLength: 1, maxLength: 4 }), async (requests) => {
      const { checkups, ask } = bare(upstreams, make)
      try {
        for (const request of requests) {
          const before = configOf(checkups)
          const reply = await ask(...request)
          if (reply === undefined) continue
          expect(reply.status).toBeGreaterThanOrEqual(200)
          expect(reply.status).toBeLessThan(600)
          // node:http would refuse any other.
          for (const value of Object.values(reply.headers ?? {})) expect(value).toMatch(/^[\x20-\x7e]*$/)
          if (reply.status >= 400 || request[0] === 'HEAD') expect(configOf(checkups)).toEqual(before)
          seen.set(reply.status, (seen.get(reply.status) ?? 0) + 1)
        }
      } finally {
        await checkups.close()
      }
    }),
    { numRuns: 500 },
  )
  return seen
}

describe('whatever is sent', () => {
  it('as a block to dyups', async () => {
    const word = fc.oneof(
      fc.constantFrom(
        'server',
        'ip_hash',
        'least_conn',
        'hash',
        '$request_uri',
        'consistent',
        'keepalive',
        '32',
        'down',
      ),
      fc.constantFrom('10.0.0.4:80', '10.0.0.5', 'unix:/tmp/a', 'weight=3', 'max_fails=x', 'backup', 'fail_timeout=1m'),
      fc.constantFrom(
        'check',
        'interval=300',
        'rise=2',
        'type=http',
        'type=x',
        'include',
        'random',
        'two',
        '"a b"',
        '#',
      ),
      junk,
    )
    const end = fc.constantFrom(';', ';\n', '; ', '{', '}', '')
    const server = fc.tuple(
      fc.constantFrom(4, 5, 6),
      fc.constantFrom('', ' weight=2', ' backup', ' down max_conns=3', ' fail_timeout=2'),
    )
    const good = server.map(([n, parameter]) => `server 10.0.0.${n}:80${parameter};`)
    const loose = fc.tuple(fc.array(word, { maxLength: 4 }), end).map(([words, last]) => `${words.join(' ')}${last}`)
    const body = fc.oneof(
      junk,
      fc.array(fc.oneof(good, loose), { maxLength: 4 }).map((parts) => parts.join('')),
    )
    const path = fc.oneof(
      { weight: 4, arbitrary: name.map((one) => `/upstream/${one}`) },
      { weight: 1, arbitrary: fc.constantFrom('/list', '/detail', '/', '/upstream', '//', '/upstream/a/b') },
    )
    const methods = fc.oneof({ weight: 4, arbitrary: fc.constant('POST') }, { weight: 1, arbitrary: method })
    const seen = await survives(dyups, fc.tuple(methods, path, body))
    for (const status of [200, 204, 404, 405, 500]) expect(seen.get(status)).toBeGreaterThan(0)
  })

  it('as JSON to Slardar', async () => {
    const wild = fc.oneof(
      fc.jsonValue({ maxDepth: 3 }),
      fc.constantFrom(0, 1, -1, '7', true, null, '(not shown)', 1e99),
    )
    const server = fc.record(
      {
        host: fc.oneof(fc.constant('10.0.0.4'), wild),
        port: fc.oneof(fc.integer({ min: 1, max: 9 }), wild),
        weight: wild,
        max_fails: wild,
        fail_timeout: wild,
        down: wild,
        labels: wild,
      },
      { requiredKeys: ['host', 'port'] },
    )
    const good = fc.record({ host: fc.constant('10.0.0.4'), port: fc.integer({ min: 1, max: 65_535 }) })
    const servers = fc.oneof(fc.array(good, { minLength: 1, maxLength: 3 }), fc.array(server, { maxLength: 3 }), wild)
    const cluster = fc.oneof(
      fc.array(fc.record({ servers }), { maxLength: 2 }),
      fc.dictionary(fc.constantFrom('a', 'b', '__proto__', 'servers', 'x y'), fc.record({ servers }), { maxKeys: 2 }),
      wild,
    )
    const settings = fc.record(
      {
        mode: fc.constantFrom('wrr', 'hash', '', 'x', null),
        enable: fc.oneof(fc.boolean(), wild),
        typ: fc.constantFrom('http', 'redis', 'mysql', 'general', null, 7),
        timeout: wild,
        sensibility: wild,
        try: wild,
        http_opts: fc.oneof(fc.constant({ query: 'GET / HTTP/1.0\r\n\r\n', statuses: { 500: false } }), wild),
        protected: wild,
        pass: wild,
        user: wild,
      },
      { requiredKeys: [] },
    )
    const value = fc.oneof(
      fc.tuple(fc.record({ servers }), settings).map(([a, b]) => ({ ...b, ...a })),
      fc.tuple(fc.record({ cluster }), settings).map(([a, b]) => ({ ...b, ...a })),
      fc.record({ servers: fc.array(good, { minLength: 1, maxLength: 2 }) }),
      wild,
    )
    const body = fc.oneof(
      { weight: 9, arbitrary: value.map((one) => JSON.stringify(one)) },
      { weight: 1, arbitrary: junk },
    )
    const path = fc.oneof(
      { weight: 6, arbitrary: fc.constant('/upstream/test') },
      { weight: 2, arbitrary: name.map((one) => `/upstream/${one}`) },
      { weight: 1, arbitrary: fc.constantFrom('/status', '/upstreams', '/') },
    )
    const methods = fc.oneof({ weight: 4, arbitrary: fc.constantFrom('PUT', 'POST') }, { weight: 1, arbitrary: method })
    const seen = await survives(slardar, fc.tuple(methods, path, body))
    for (const status of [200, 400, 405]) expect(seen.get(status)).toBeGreaterThan(0)
  })

  it('as a query to the others', async () => {
    const value = fc.oneof(
      fc.constantFrom(
        '',
        '0',
        '1',
        '7',
        'test',
        '10.0.0.1:80',
        '10.0.0.9:80',
        '10.0.0.9',
        '80',
        '-1',
        '1e3',
        'csv',
        'json',
        'down',
      ),
      junk,
    )
    const key = fc.oneof(
      fc.constantFrom(
        'upstream',
        'server',
        'add',
        'remove',
        'weight',
        'max_fails',
        'fail_timeout',
        'up',
        'down',
        'backup',
      ),
      fc.constantFrom('verbose', 'ip', 'port', 'no', 'format', 'status', 'test', '__proto__'),
      junk,
    )
    const query = fc.array(fc.tuple(key, value), { maxLength: 6 }).map((pairs) => new URLSearchParams(pairs).toString())
    const aimed = fc.oneof(
      query,
      query.map((one) => `upstream=test&${one}`),
      query.map((one) => `ip=10.0.0.9&port=81&no=2&${one}`),
    )
    const all = (operations: Operations): Interface => {
      const parts = [
        dynamicUpstream(operations),
        sharedDict(operations, 'test'),
        upsync(operations),
        checkModule(operations),
      ]
      return (...asked) => parts.map((find) => find(...asked)).find((route) => route !== undefined)
    }
    const path = fc.constantFrom('/dynamic', '/add', '/get', '/delete', '/upstream_show', '/check_status', '/')
    const methods = fc.oneof({ weight: 5, arbitrary: fc.constant('GET') }, { weight: 1, arbitrary: method })
    const seen = await survives(
      all,
      fc.tuple(
        methods,
        fc.tuple(path, aimed).map((parts) => parts.join('?')),
        fc.constant(''),
      ),
    )
    for (const status of [200, 400, 404, 405]) expect(seen.get(status)).toBeGreaterThan(0)
  })
})
