import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { UpstreamOptions } from '../../../src/index.js'
import { parseSlardarValue, parseUpsyncValue, printSlardarValue, printUpsyncValue } from '../../../src/source/consul.js'

const parse = (value: unknown) => parseSlardarValue('key', value, ({ reason }) => expect.fail(reason))
const text = (value: object | string) => Buffer.from(typeof value === 'string' ? value : JSON.stringify(value))

const wire = fc.record(
  {
    weight: fc.integer({ min: 0, max: 2 ** 31 - 1 }),
    maxFails: fc.nat(100),
    failTimeout: fc.integer({ min: 1, max: 600_000 }),
    maxConns: fc.integer({ min: 1, max: 1_000 }),
    backup: fc.constant(true),
    down: fc.constant(true),
    drain: fc.constant(true),
    labels: fc.dictionary(fc.string(), fc.string(), { minKeys: 1 }),
  },
  { requiredKeys: [] },
)

describe('the value of nginx-upsync', () => {
  it('is read back as it was written', () => {
    fc.assert(
      fc.property(wire, (server) => {
        const defaults = { weight: 1, maxFails: 2, failTimeout: 10_000 }
        expect(parseUpsyncValue('key', text(printUpsyncValue(server)))).toEqual({ ...defaults, ...server })
      }),
    )
  })

  it.each([
    ['', {}],
    [{}, {}],
    [
      { weight: '5', fail_timeout: '0.5', down: '1', backup: false },
      { weight: 5, failTimeout: 500, down: true, backup: false },
    ],
    [{ fail_timeout: 0 }, { failTimeout: 1 }],
    [{ weight: null, unknown: {} }, {}],
  ])('%j is read', (value, expected) => {
    expect(parseUpsyncValue('key', text(value))).toEqual({ weight: 1, maxFails: 2, failTimeout: 10_000, ...expected })
  })

  it.each([
    [[], /^key: expected an object/],
    ['5', /^key: expected an object/],
    [{ weight: '5x' }, /^key.weight: expected an integer/],
    [{ weight: 2 ** 31 }, /^key.weight: /],
    [{ fail_timeout: -1 }, /^key.fail_timeout: expected seconds/],
    [{ down: 2 }, /^key.down: expected 0 or 1/],
    [{ labels: { a: 1 } }, /^key.labels\["a"\]: expected a string/],
  ])('%j is refused', (value, message) => {
    expect(() => parseUpsyncValue('key', text(value))).toThrow(message)
  })
})

describe('the value of Slardar', () => {
  const server = { host: 'a', port: 1 }
  const servers = [server]
  const cluster = [{ servers }]

  it.each<[string, object, object]>([
    ['servers alone', {}, cluster],
    ['a type', { typ: 'general' }, { heartbeat: { type: 'tcp' } }],
    ['no heartbeats', { enable: false, typ: 'redis' }, { heartbeat: false }],
    ['a sensibility', { sensibility: 2 }, { heartbeat: { type: 'tcp', sensibility: 2 } }],
    ['a type nobody knows, as in the ancestor', { typ: 'ldap' }, { heartbeat: { type: 'tcp' } }],
    ['redis', { enable: true, typ: 'redis' }, { heartbeat: { type: 'redis' } }],
    [
      'mysql',
      { typ: 'mysql', user: 'u', pass: 'p', name: 'd', charset: 'utf8' },
      { heartbeat: { type: 'mysql', user: 'u', password: 'p', database: 'd' } },
    ],
    ['http without a request', { typ: 'http' }, { heartbeat: { type: 'tcp' } }],
    [
      'http',
      { typ: 'http', http_opts: { query: 'GET / HTTP/1.0\r\n\r\n', statuses: { 502: false } } },
      {
        heartbeat: { type: 'http', query: 'GET / HTTP/1.0\r\n\r\n', statuses: { 502: false } },
        statuses: { 502: false },
      },
    ],
    [
      'times',
      { timeout: 2, read_timeout: 30, try_timeout: 1.5, try: 3 },
      { timeouts: { connect: 2_000, send: 2_000, read: 30_000 }, timeout: 1_500, tries: 3 },
    ],
    ['no limit of time', { try_timeout: 0 }, { timeout: 0 }],
    ['a hash', { mode: 'ip_hash' }, { balancer: 'consistent-hash' }],
    ['wrr, which the ancestor could not say', { mode: 'wrr', protected: false }, { protected: false }],
  ])('with %s is read', (_, fields, expected) => {
    expect(parse({ servers, ...fields })).toEqual(Array.isArray(expected) ? expected : { cluster, ...expected })
  })

  it.each<[object, RegExp]>([
    [{}, /^key: expected servers or cluster/],
    [{ servers, cluster }, /^key: expected servers or cluster/],
    [{ servers: {} }, /^key.servers: expected an array/],
    [{ cluster: [{}] }, /^key.cluster\[0\].servers: expected an array/],
    [{ servers, mode: 'magic' }, /^key.mode: expected/],
    [{ servers, timeout: 'x' }, /^key.timeout: expected seconds/],
    [{ servers, enable: 1 }, /^key.enable: expected true or false/],
    [{ servers, http_opts: { statuses: { x: false } } }, /statuses/],
    [
      { cluster: [{ servers: [{ ...server, max_fails: 1 }] }, { servers: [{ ...server, max_fails: 2 }] }] },
      /max_?fails/i,
    ],
  ])('%j is refused', (value, message) => {
    expect(() => parse(value)).toThrow(message)
  })

  it('keeps names of clusters that are names of everything', () => {
    const value = JSON.parse(
      '{"cluster":{"__proto__":{"servers":[]},"constructor":{"servers":[{"host":"a","port":1}]}}}',
    ) as object
    expect(Object.keys(parse(value))).toEqual(['__proto__', 'constructor'])
    expect(printSlardarValue('key', parse(value))).toEqual(value)
  })

  it('is read back as it was written', () => {
    const anyServer = fc
      .tuple(fc.integer({ min: 1, max: 65_535 }), wire)
      .map(([port, fields]) => ({ host: '10.0.0.1', port, ...fields }))
    const level = fc
      .uniqueArray(anyServer, { selector: ({ port }) => port, maxLength: 5 })
      .map((servers) => ({ servers }))
    const heartbeat = fc.constantFrom<UpstreamOptions['heartbeat']>(
      ...[false as const, { type: 'tcp' as const }, { type: 'redis' as const, sensibility: 3 }],
      { type: 'http', query: 'GET / HTTP/1.0\r\n\r\n' },
      { type: 'mysql', user: 'u', password: 'p' },
    )
    const options = fc.record(
      {
        heartbeat,
        balancer: fc.constant('consistent-hash' as const),
        protected: fc.boolean(),
        tries: fc.nat(9),
        timeout: fc.nat(9_000),
        timeouts: fc.constantFrom({ connect: 500, send: 1_000, read: 1_500 }, { read: 20 }),
      },
      { requiredKeys: ['protected'] },
    )
    fc.assert(
      fc.property(fc.option(options), level, (settings, { servers }) => {
        const upstream = settings === null ? [{ servers }] : { ...settings, cluster: [{ servers }] }
        // The value has one time for both.
        if ('heartbeat' in upstream && typeof upstream.heartbeat === 'object' && upstream.timeouts?.connect) {
          upstream.heartbeat = { ...upstream.heartbeat, timeout: upstream.timeouts.connect }
        }
        const printed = JSON.parse(JSON.stringify(printSlardarValue('key', upstream))) as unknown
        expect(parse(printed)).toEqual(upstream)
      }),
    )
  })

  it.each<[UpstreamOptions, RegExp]>([
    [{ servers: [], keepalive: 5 }, /^key.keepalive: cannot be written in the layout of Slardar/],
    [{ servers: [], balancer: 'fastest-first' }, /^key.balancer: only/],
    [{ servers: [], heartbeat: { type: 'tcp', interval: 5 } }, /^key.heartbeat.interval: cannot be written/],
    [{ servers: [], heartbeat: 'fastcgi' }, /^key.heartbeat.type: expected/],
    [{ servers: [], heartbeat: { type: 'tcp', timeout: 5 } }, /^key.heartbeat.timeout: must be timeouts.connect/],
    [{ servers: [], heartbeat: 'http' }, /^key.heartbeat: only the query/],
    [{ servers: [], statuses: { 404: 'next' } }, /^key.statuses.404: expected true or false/],
    [{ servers: ['unix:/run/a'] }, /^key.servers\[0\]: a unix socket/],
  ])('says what it cannot hold of %j', (upstream, message) => {
    expect(() => printSlardarValue('key', upstream)).toThrow(message)
  })

  it('takes defaults of an upstream into its servers', () => {
    const written = printSlardarValue('key', {
      servers: ['a:1', { address: 'b:2', maxFails: 0 }],
      maxFails: 4,
      failTimeout: 500,
    })
    expect(written).toEqual({
      servers: [
        { host: 'a', port: 1, max_fails: 4, fail_timeout: 0.5 },
        { host: 'b', port: 2, max_fails: 0, fail_timeout: 0.5 },
      ],
    })
  })
})
