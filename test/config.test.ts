import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Checkups, ConfigError, toCheckupsStatus } from '../src/index.js'
import type { ServerOptions, UpstreamOptions } from '../src/index.js'
import { harness, level, target } from './upstream/harness.js'

/** A configuration that TypeScript would refuse. */
const bad = (upstream: unknown) => upstream as UpstreamOptions
const server = (options: object) => bad({ servers: [{ host: '10.0.0.1', port: 1, ...options }] })
const errorOf = (act: () => unknown): unknown => {
  try {
    act()
    return undefined
  } catch (error) {
    return error
  }
}
const KNOWN_SERVER =
  'host, port, path, address, weight, maxFails, failTimeout, maxConns, backup, down, drain, labels, meta'
const KNOWN_UPSTREAM =
  'cluster, servers, balancer, maxFails, failTimeout, maxConns, readmit, heartbeat, protected, allowEmpty, tries, timeout, ' +
  'tryTimeout, statuses, keepalive, timeouts'
const S = 'upstreams.api.servers[0]'
const INTEGER = 'expected an integer from 0 to 2147483647, got'
const MILLISECONDS = 'expected milliseconds, a finite number from'

/** Path, problem, configuration. */
const table: [path: string, problem: string, upstream: UpstreamOptions][] = [
  ['upstreams.api', 'expected an object, got null', bad(null)],
  ['upstreams.api', 'expected an object, got "10.0.0.1:80"', bad('10.0.0.1:80')],
  ['upstreams.api', 'expected an object, got an array of 1', bad([level('a')])],
  ['upstreams.api', 'expected either cluster or servers', {}],
  ['upstreams.api', 'expected either cluster or servers', { servers: [], cluster: [] }],
  ['upstreams.api.max_fails', `unknown option; known are ${KNOWN_UPSTREAM}`, bad({ servers: [], max_fails: 1 })],
  ['upstreams.api.servers', 'expected an array, got "a:1"', bad({ servers: 'a:1' })],
  ['upstreams.api.servers', 'expected an array, got an object', bad({ servers: { host: 'a', port: 1 } })],
  ['upstreams.api.cluster', 'expected an object, got "a:1"', bad({ cluster: 'a:1' })],
  ['upstreams.api.cluster[0]', 'expected an object, got "a:1"', bad({ cluster: ['a:1'] })],
  ['upstreams.api.cluster[1]', 'expected an object, got an array of 0', bad({ cluster: [level('a'), []] })],
  ['upstreams.api.cluster["x y"]', 'expected an object, got undefined', bad({ cluster: { 'x y': undefined } })],
  ['upstreams.api.cluster["x"].servers', 'expected an array, got undefined', bad({ cluster: { x: {} } })],
  [
    'upstreams.api.cluster[0].weight',
    'unknown option; known are servers',
    bad({ cluster: [{ servers: [], weight: 1 }] }),
  ],
  [S, 'expected an object, got null', bad({ servers: [null] })],
  [S, 'expected an object, got 7', bad({ servers: [7] })],
  [S, 'expected host and port, or path, or address', bad({ servers: [{}] })],
  [S, 'expected host and port, or path, or address', server({ address: '10.0.0.1:1' })],
  [S, 'expected host and port, or path, or address', server({ path: '/run/a.sock' })],
  [`${S}.port`, 'expected an integer from 1 to 65535, got 0', server({ port: 0 })],
  [`${S}.port`, 'expected an integer from 1 to 65535, got "80"', server({ port: '80' })],
  [`${S}.port`, 'expected an integer from 1 to 65535, got undefined', server({ port: undefined })],
  [`${S}.host`, 'expected an IP address or a host name, got undefined', server({ host: undefined })],
  [`${S}.host`, 'expected an IP address or a host name, got "a b"', server({ host: 'a b' })],
  [`${S}.path`, 'expected an absolute path of at most 107 bytes, got "run"', bad({ servers: [{ path: 'run' }] })],
  [`${S}.address`, 'expected "host:port", "[ipv6]:port" or "unix:/path", got "a"', bad({ servers: ['a'] })],
  [`${S}.address`, 'expected a non-empty string, got ""', bad({ servers: [''] })],
  [`${S}.address`, 'expected a non-empty string, got 7', bad({ servers: [{ address: 7 }] })],
  [`${S}.weight`, `${INTEGER} -1`, server({ weight: -1 })],
  [`${S}.weight`, `${INTEGER} 1.5`, server({ weight: 1.5 })],
  [`${S}.weight`, `${INTEGER} 2147483648`, server({ weight: 2 ** 31 })],
  [`${S}.weight`, `${INTEGER} NaN`, server({ weight: NaN })],
  [`${S}.weight`, `${INTEGER} 1`, server({ weight: 1n })],
  [`${S}.maxFails`, `${INTEGER} -1`, server({ maxFails: -1 })],
  [`${S}.failTimeout`, `${MILLISECONDS} 1, got 0`, server({ failTimeout: 0 })],
  [`${S}.failTimeout`, `${MILLISECONDS} 1, got Infinity`, server({ failTimeout: Infinity })],
  [`${S}.failTimeout`, `${MILLISECONDS} 1, got "10s"`, server({ failTimeout: '10s' })],
  [`${S}.maxConns`, `${INTEGER} 0.5`, server({ maxConns: 0.5 })],
  [`${S}.backup`, 'expected true or false, got 1', server({ backup: 1 })],
  [`${S}.down`, 'expected true or false, got "yes"', server({ down: 'yes' })],
  [`${S}.drain`, 'expected true or false, got 0', server({ drain: 0 })],
  [`${S}.labels`, 'expected an object, got an array of 1', server({ labels: ['a'] })],
  [`${S}.labels["zone"]`, 'expected a string, got 7', server({ labels: { zone: 7 } })],
  [`${S}.fail_timeout`, `unknown option; known are ${KNOWN_SERVER}`, server({ fail_timeout: 1 })],
  [`${S}.constructor`, `unknown option; known are ${KNOWN_SERVER}`, server({ constructor: 1 })],
  ['upstreams.api.servers[1]', `the same address as ${S}`, { servers: ['[::1]:80', { host: '0:0::1', port: 80 }] }],
  [
    'upstreams.api.cluster[1].servers[2]',
    'the same address as upstreams.api.cluster[1].servers[0]',
    { cluster: [level('a'), { servers: ['A.test:1', 'b:1', 'a.TEST:1'] }] },
  ],
  [
    'upstreams.api.balancer',
    'expected one of "wrr", "consistent-hash", "fastest-first", "local-first", "least-connections", "random", "pick-first", or a function that makes a balancer, got "rr"',
    server0('balancer', 'rr'),
  ],
  ['upstreams.api.balancer', 'expected an object, got 7', server0('balancer', 7)],
  [
    'upstreams.api.balancer',
    'expected one of "wrr", "consistent-hash", "fastest-first", "local-first", "least-connections", "random", "pick-first", or a function that makes a balancer, got undefined',
    server0('balancer', {}),
  ],
  ['upstreams.api.balancer.x', 'unknown option; known are type', server0('balancer', { type: 'wrr', x: 1 })],
  ['upstreams.api.maxFails', `${INTEGER} "3"`, server0('maxFails', '3')],
  ['upstreams.api.failTimeout', `${MILLISECONDS} 1, got -1`, server0('failTimeout', -1)],
  ['upstreams.api.maxConns', `${INTEGER} Infinity`, server0('maxConns', Infinity)],
  ['upstreams.api.readmit', 'expected "trial" or "fresh", got "slow"', server0('readmit', 'slow')],
  ['upstreams.api.protected', 'expected true or false, got 0', server0('protected', 0)],
  ['upstreams.api.allowEmpty', 'expected true or false, got "no"', server0('allowEmpty', 'no')],
  ['upstreams.api.tries', `${INTEGER} -1`, server0('tries', -1)],
  ['upstreams.api.timeout', `${MILLISECONDS} 0, got -1`, server0('timeout', -1)],
  ['upstreams.api.tryTimeout', `${MILLISECONDS} 0, got NaN`, server0('tryTimeout', NaN)],
  ['upstreams.api.keepalive', `${INTEGER} true`, server0('keepalive', true)],
  ['upstreams.api.statuses', 'expected an object, got an array of 1', server0('statuses', [500])],
  [
    'upstreams.api.statuses["5x"]',
    'expected a status from 100 to 999 or a class as "5xx"',
    server0('statuses', { '5x': true }),
  ],
  [
    'upstreams.api.statuses["99"]',
    'expected a status from 100 to 999 or a class as "5xx"',
    server0('statuses', { 99: true }),
  ],
  [
    'upstreams.api.statuses["404"]',
    'expected "ok" or "failed" or "neutral" or "next" or "stop", got "retry"',
    server0('statuses', { 404: 'retry' }),
  ],
  ['upstreams.api.timeouts', 'expected an object, got 5000', server0('timeouts', 5000)],
  ['upstreams.api.timeouts.idle', 'unknown option; known are connect, send, read', server0('timeouts', { idle: 1 })],
  ['upstreams.api.timeouts.read', `${MILLISECONDS} 0, got "1s"`, server0('timeouts', { read: '1s' })],
  [
    'upstreams.api.cluster[1].servers[1].maxFails',
    '3, but upstreams.api.cluster[0].servers[0].maxFails, the same address, has 2',
    { cluster: [level('', { a: { maxFails: 2 } }), level('b', { a: { maxFails: 3 } })] },
  ],
  ...(['failTimeout', 'maxConns'] as const).map((key): (typeof table)[number] => [
    `upstreams.api.cluster["y"].servers[0].${key}`,
    `9, but upstreams.api.cluster["x"].servers[0].${key}, the same address, has 8`,
    { cluster: { x: level('', { a: { [key]: 8 } }), y: level('', { a: { [key]: 9 } }) } },
  ]),
  ...(['down', 'drain'] as const).map((key): (typeof table)[number] => [
    `upstreams.api.cluster[1].servers[0].${key}`,
    `true, but upstreams.api.cluster[0].servers[0].${key}, the same address, has false`,
    { cluster: [level('a'), level('', { a: { [key]: true } })] },
  ]),
  [
    'upstreams.api.cluster["2"].servers[0].maxFails',
    '9, but upstreams.api.cluster["1"].servers[0].maxFails, the same address, has 1',
    { cluster: { 1: level('a'), 2: level('', { a: { maxFails: 9 } }) } },
  ],
]

function server0(key: string, value: unknown): UpstreamOptions {
  return bad({ servers: ['10.0.0.1:1'], [key]: value })
}

describe('a bad configuration', () => {
  it.each(table)('%s: %s', (path, problem, upstream) => {
    const error = errorOf(() => new Checkups({ upstreams: { api: upstream } }))
    expect(error).toBeInstanceOf(ConfigError)
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_CONFIG', path, message: `${path}: ${problem}` })
  })

  it.each(table)('changes nothing as an update: %s: %s', async (path, problem, upstream) => {
    const { checkups, clock, feedback, picks, told } = harness({ ...level('abc'), maxFails: 2 })
    const twin = harness({ ...level('abc'), maxFails: 2 })
    for (const made of [{ picks, feedback }, twin]) {
      made.picks(1)
      made.feedback('b')
    }
    const before = checkups.getStatus()
    // What is no whole configuration is taken for a cluster.
    const whole = typeof upstream === 'object' && (upstream as unknown) !== null && !Array.isArray(upstream)
    const named = whole && ('servers' in upstream || 'cluster' in upstream)
    const rejected = await checkups.updateUpstream('api', upstream).then(
      () => 'nothing',
      (error: unknown) => error,
    )
    if (named) expect(rejected).toMatchObject({ path, message: `${path}: ${problem}` })
    else if (!Array.isArray(upstream)) expect(rejected).toBeInstanceOf(ConfigError)
    if (Array.isArray(upstream)) return
    expect(checkups.getStatus()).toEqual(before)
    expect(told()).toEqual([])
    expect(picks(5)).toBe(twin.picks(5))
    expect(clock.pending).toBe(0)
  })

  it.each<[string, string, () => unknown]>([
    ['options', 'expected an object, got 7', () => new Checkups(7 as never)],
    [
      'options.upstream',
      'unknown option; known are upstreams, clock, random, retryBudget, concurrency, sources, sync',
      () => new Checkups({ upstream: {} } as never),
    ],
    ['options.random', 'expected a function, got 7', () => new Checkups({ random: 7 as never })],
    ['options.clock.now', 'expected a function, got undefined', () => new Checkups({ clock: {} as never })],
    ['upstreams', 'expected an object, got an array of 0', () => new Checkups({ upstreams: [] as never })],
    [
      'upstreams["www.example.test"]',
      'expected either cluster or servers',
      () => new Checkups({ upstreams: { 'www.example.test': {} } }),
    ],
    [
      'upstreams.__proto__',
      'expected either cluster or servers',
      () => new Checkups({ upstreams: JSON.parse('{"__proto__": {}}') as never }),
    ],
  ])('of the instance: %s: %s', (path, problem, act) => {
    expect(errorOf(act)).toMatchObject({ code: 'ERR_CHECKUPS_CONFIG', path, message: `${path}: ${problem}` })
  })

  it('shows no more of a value than its beginning', () => {
    const error = errorOf(() => new Checkups({ upstreams: { api: bad({ servers: ['x'.repeat(1000)] }) } }))
    expect((error as Error).message.length).toBeLessThan(200)
  })
})

describe('an update', () => {
  it.each([
    { name: 'of nothing', update: [] },
    { name: 'of empty levels', update: [{ servers: [] }, { servers: [] }] },
    { name: 'of no clusters', update: {} },
    { name: 'of an empty list', update: { servers: [] } },
  ])('$name is refused, unless allowEmpty', async ({ update }) => {
    const { checkups, picks } = harness(level('a'))
    const message = /upstreams\.api: expected at least one server/
    await expect(checkups.updateUpstream('api', update)).rejects.toThrow(message)
    expect(picks(1)).toBe('a')
    await checkups.updateUpstream('api', { ...level('a'), allowEmpty: true })
    const cluster = 'servers' in update ? { ...update, allowEmpty: true } : update
    await checkups.updateUpstream('api', cluster)
    expect(picks(1)).toBe('-')
    expect(checkups.unavailableReason('api')).toBe('empty')
  })

  it('an instance may begin empty', () => {
    expect(harness({ servers: [] }).picks(1)).toBe('-')
    expect(harness({ cluster: [] }).picks(1)).toBe('-')
  })

  it('of a cluster keeps the other options; a whole configuration replaces them', async () => {
    const { checkups } = harness({ ...level('a'), tries: 2, keepalive: 3 })
    await checkups.updateUpstream('api', [level('ab')])
    expect(checkups.getUpstream('api')).toMatchObject({ tries: 2, keepalive: 3, cluster: [level('ab')] })
    await checkups.updateUpstream('api', { x: level('c') })
    expect(checkups.getUpstream('api')).toMatchObject({ tries: 2, keepalive: 3, cluster: { x: level('c') } })
    await checkups.updateUpstream('api', { ...level('c'), tries: 4 })
    expect(checkups.getUpstream('api')).toMatchObject({ tries: 4, keepalive: 256, cluster: [level('c')] })
  })

  it('checks what stands where a server was that it only looks like', async () => {
    const { checkups } = harness({ servers: ['unix:/run/a.sock'] })
    await expect(checkups.updateUpstream('api', [{ servers: [{ host: '', port: 0 }] }])).rejects.toThrow(ConfigError)
  })

  it('refuses two servers of one address that an update brings apart', async () => {
    const { checkups } = harness(level('abc'))
    await expect(checkups.updateUpstream('api', [{ servers: ['c', 'a', 'b', 'a'].map(target) }])).rejects.toThrow(
      'upstreams.api.cluster[0].servers[3]: the same address as upstreams.api.cluster[0].servers[1]',
    )
  })

  it('with new defaults reaches the servers that set nothing', async () => {
    const { checkups, feedback, server: of } = harness({ ...level('ab'), maxFails: 5 })
    await checkups.updateUpstream('api', { ...level('ab'), maxFails: 1 })
    feedback('a')
    expect(of('a').health).toBe('err')
  })

  it('comes to what a new instance of the same options comes to, also where they are wrong', async () => {
    const one = fc.oneof(
      fc.constantFrom('10.0.0.1:1', '[::1]:80', '[0::1]:80', 'unix:/run/a', 'A.test:1', 'a.test:1', 'bad', ''),
      fc.record(
        {
          host: fc.constantFrom('10.0.0.1', '::1', 'a.test', 'A.test', '', undefined),
          port: fc.constantFrom(1, 2, 80, 0, undefined),
          path: fc.constantFrom('/run/a', 'run', undefined),
          address: fc.constantFrom('10.0.0.1:2', '10.0.0.1:3', undefined),
          weight: fc.constantFrom(1, 2, 0, -1, undefined),
          backup: fc.constantFrom(true, false),
          labels: fc.constantFrom({}, { z: '1' }, { z: '2' }, { z: '1', y: '2' }, { z: 1 }, undefined),
          meta: fc.constantFrom(1, null, { x: 1 }, { x: 2 }, undefined),
        },
        { requiredKeys: ['host', 'port'] },
      ),
    )
    const right = fc.integer({ min: 1, max: 6 }).map((port) => ({ host: '10.0.0.1', port }))
    const list = fc.array(fc.oneof({ weight: 6, arbitrary: right }, one), { maxLength: 8, size: 'max' })
    const compile = (servers: unknown) => {
      const checkups = new Checkups({ upstreams: { api: bad({ cluster: [{ servers }], allowEmpty: true }) } })
      return checkups.getUpstream('api')
    }
    const seen = { right: 0, wrong: 0 }
    await fc.assert(
      fc.asyncProperty(list, list, async (first, second) => {
        fc.pre(errorOf(() => compile(first)) === undefined)
        const { checkups } = harness(bad({ cluster: [{ servers: first }], allowEmpty: true }))
        const before = checkups.getUpstream('api')
        const wanted = errorOf(() => compile(second)) as Error | undefined
        const got = await checkups.updateUpstream('api', bad([{ servers: second }])).then(
          () => undefined,
          (error: unknown) => error as Error,
        )
        expect(got?.message).toBe(wanted?.message)
        expect(checkups.getUpstream('api')).toEqual(wanted === undefined ? compile(second) : before)
        seen[wanted === undefined ? 'right' : 'wrong']++
      }),
      { numRuns: 500 },
    )
    expect(Math.min(seen.right, seen.wrong)).toBeGreaterThan(30)
  })

  it('that changes nothing is none', async () => {
    const { checkups, told } = harness({ cluster: { x: level('ab'), y: level('c', { d: { labels: { z: '1' } } }) } })
    const { generation } = checkups.getStatus()
    const again = () => checkups.updateUpstream('api', { x: level('ab'), y: level('c', { d: { labels: { z: '1' } } }) })
    expect(await again()).toBe(generation)
    expect(told()).toEqual([])
    expect(checkups.getStatus().generation).toBe(generation)
  })
})

describe('names from outside', () => {
  const names = ['__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', '']

  it.each(names.filter((name) => name !== ''))('upstream %s', async (key) => {
    const upstreams = JSON.parse(`{"${key}": {"servers": ["10.0.0.1:1"]}}`) as Record<string, UpstreamOptions>
    const checkups = new Checkups({ upstreams })
    expect(checkups.selectPeer(key)).toMatchObject({ upstream: key, port: 1 })
    expect(checkups.getUpstream(key)).toBeDefined()
    await checkups.updateUpstream(key, [{ servers: ['10.0.0.1:2'] }])
    expect(checkups.selectPeer(key)?.port).toBe(2)
    expect(Object.keys(toCheckupsStatus(checkups.getStatus()))).toContain(`cls:${key}`)
    await checkups.deleteUpstream(key)
    expect(checkups.getUpstream(key)).toBeUndefined()
    for (const other of names) expect(checkups.getUpstream(other)).toBeUndefined()
    expect(({} as Record<string, unknown>)['servers']).toBeUndefined()
  })

  it.each(names)('cluster %j', async (name) => {
    const cluster = JSON.parse(`{"${name}": {"servers": ["10.0.0.1:1"]}, "x": {"servers": ["10.0.0.1:2"]}}`) as Record<
      string,
      { servers: string[] }
    >
    const { checkups, told } = harness({ cluster })
    expect(checkups.selectPeer('api', { clusterKey: name })?.port).toBe(1)
    await checkups.updateUpstream('api', checkups.getUpstream('api')!)
    expect(told()).toEqual([])
    await checkups.addServer('api', '10.0.0.1:3', { level: name })
    expect(checkups.getStatus().upstreams[0]?.levels.map((of) => [of.name, of.servers.length])).toEqual([
      [name, 2],
      ['x', 1],
    ])
    const status = toCheckupsStatus(checkups.getStatus())['cls:api'] as object
    expect(Object.keys(status)).toEqual([name, 'x'])
  })

  it('label __proto__', () => {
    const labels = JSON.parse('{"__proto__": "x", "constructor": "y"}') as Record<string, string>
    const { checkups } = harness({ servers: [{ ...target('a'), labels }] })
    const peer = checkups.selectPeer('api')!
    expect(Object.entries(peer.labels)).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ])
  })

  it('cannot be set by options of a prototype', () => {
    const polluted = JSON.parse(
      '{"servers": [{"host": "a", "port": 1, "__proto__": {"weight": 5}}]}',
    ) as UpstreamOptions
    expect(errorOf(() => harness(polluted))).toBeInstanceOf(ConfigError)
  })

  it('upstreams may be a Map', () => {
    const upstreams = new Map([
      ['b', level('b')],
      ['a', level('a')],
    ])
    const checkups = new Checkups({ upstreams })
    expect([...checkups.getUpstreams().keys()]).toEqual(['b', 'a'])
    expect(checkups.getStatus().upstreams.map(({ key }) => key)).toEqual(['b', 'a'])
    expect(errorOf(() => new Checkups({ upstreams: new Map([['a', {}]]) }))).toMatchObject({ path: 'upstreams.a' })
  })

  it.each(['', 7])('key %j is refused, everywhere alike', async (key) => {
    const problem = expect.objectContaining({ code: 'ERR_CHECKUPS_CONFIG' }) as object
    const { checkups } = harness(level('a'))
    await expect(checkups.updateUpstream(key as string, [level('a')])).rejects.toEqual(problem)
    expect(errorOf(() => new Checkups({ upstreams: new Map([[key as string, level('a')]]) }))).toEqual(problem)
  })
})

describe('getUpstream', () => {
  it('writes every default out', () => {
    const { checkups } = harness({ servers: ['10.0.0.1:80'] })
    expect(checkups.getUpstream('api')).toEqual({
      cluster: [
        {
          servers: [
            {
              host: '10.0.0.1',
              port: 80,
              weight: 1,
              maxFails: 1,
              failTimeout: 10_000,
              maxConns: 0,
              backup: false,
              down: false,
              drain: false,
              labels: {},
              meta: undefined,
            },
          ],
        },
      ],
      balancer: 'wrr',
      maxFails: 1,
      failTimeout: 10_000,
      maxConns: 0,
      readmit: 'trial',
      protected: true,
      allowEmpty: false,
      tries: 0,
      timeout: 0,
      tryTimeout: 0,
      statuses: {},
      keepalive: 256,
      timeouts: { connect: 5000, send: 60_000, read: 60_000 },
    })
  })

  it('gives nothing that changes the upstream when it is changed', () => {
    const { checkups, picks } = harness({ ...level('ab'), timeouts: { connect: 7 } })
    const config = checkups.getUpstream('api') as { cluster: { servers: ServerOptions[] }[] }
    config.cluster[0]!.servers.pop()
    config.cluster.push({ servers: [] })
    expect(picks(2)).toBe('ab')
    expect(errorOf(() => Object.assign(checkups.getUpstreamTimeouts('api'), { connect: 8 }))).toBeInstanceOf(TypeError)
    expect(checkups.getUpstreamTimeouts('api')).toEqual({ connect: 7, send: 60_000, read: 60_000 })
  })

  it('nor do options that were given and are changed later', async () => {
    const options = {
      servers: [{ ...target('a'), weight: 3, labels: { zone: 'x' } }],
      statuses: { 404: 'next' as string },
    }
    const { checkups, told } = harness(options as UpstreamOptions)
    const given = options.servers[0]!
    given.weight = 9
    given.labels.zone = 'y'
    options.statuses[404] = 'stop'
    options.servers.pop()
    expect(checkups.getUpstream('api')).toMatchObject({
      cluster: [{ servers: [{ weight: 3, labels: { zone: 'x' } }] }],
      statuses: { 404: 'next' },
    })
    await checkups.updateUpstream('api', [{ servers: [{ ...target('a'), weight: 3, labels: { zone: 'x' } }] }])
    expect(told()).toEqual([])
  })

  it('comes back as it is: the same update changes nothing', async () => {
    const port = fc.integer({ min: 1, max: 65_535 })
    const place = fc.oneof(
      fc.record({ host: fc.oneof(fc.ipV4(), fc.ipV6(), fc.constantFrom('a.test', 'B.test')), port }),
      fc.record({ path: fc.stringMatching(/^\/[a-z]{1,8}$/) }),
      fc.record({
        address: fc.oneof(
          fc.constant('unix:/x'),
          port.map((p) => `[2001:DB8::0:1]:${p}`),
        ),
      }),
    )
    const options = fc.record(
      {
        weight: fc.nat(2 ** 31 - 1),
        backup: fc.boolean(),
        labels: fc.dictionary(fc.string(), fc.string(), { maxKeys: 2 }),
        meta: fc.oneof(fc.jsonValue(), fc.constant(undefined)),
      },
      { requiredKeys: [] },
    )
    const milliseconds = fc.double({ min: 1, max: 1e9, noNaN: true })
    const settings = fc.record(
      {
        maxFails: fc.nat(9),
        failTimeout: milliseconds,
        maxConns: fc.nat(9),
        readmit: fc.constantFrom('trial' as const, 'fresh' as const),
        protected: fc.boolean(),
        allowEmpty: fc.boolean(),
        tries: fc.nat(9),
        timeout: milliseconds,
        tryTimeout: milliseconds,
        keepalive: fc.nat(9),
        balancer: fc.constantFrom('wrr' as const, { type: 'wrr' as const }),
        statuses: fc.dictionary(fc.constantFrom('404', '5xx', '503'), fc.constantFrom(true, false, 'next' as const), {
          maxKeys: 3,
        }),
        timeouts: fc.record({ connect: milliseconds, read: milliseconds }, { requiredKeys: [] }),
      },
      { requiredKeys: [] },
    )
    // Two spellings of one address would be refused: the ports of a level are made different.
    const servers = fc.array(fc.tuple(place, options), { minLength: 1, maxLength: 5 }).map((list) => ({
      servers: list.map(([where, rest], i) =>
        'host' in where ? { ...where, port: 1 + ((where.port + i * 7919) % 65_535), ...rest } : { ...where, ...rest },
      ),
    }))
    const cluster = fc.oneof(
      fc.array(servers, { minLength: 1, maxLength: 3 }),
      fc.dictionary(fc.string(), servers, { minKeys: 1, maxKeys: 3 }),
    )
    await fc.assert(
      fc.asyncProperty(cluster, settings, async (lists, rest) => {
        let made
        try {
          made = harness({ cluster: lists, ...rest })
        } catch (error) {
          if (error instanceof ConfigError && /the same address/.test(error.message)) fc.pre(false)
          throw error
        }
        const { checkups, told } = made
        const config = checkups.getUpstream('api')!
        const before = checkups.getStatus()
        expect(await checkups.updateUpstream('api', config)).toBe(before.generation)
        expect(await checkups.updateUpstream('api', config.cluster!)).toBe(before.generation)
        expect(await checkups.updateUpstream('api', { cluster: lists, ...rest })).toBe(before.generation)
        expect(checkups.getUpstream('api')).toEqual(config)
        expect(checkups.getStatus()).toEqual(before)
        expect(told()).toEqual([])
        // A second instance made of it is the same.
        expect(new Checkups({ upstreams: { api: config } }).getUpstream('api')).toEqual(config)
      }),
      { numRuns: 200 },
    )
  })
})
