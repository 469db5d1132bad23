import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Checkups, ConfigError } from '../../../src/index.js'
import type { ServerOptions, UpstreamOptions } from '../../../src/index.js'
import { parseNginx, printNginx, type PrintNginxOptions } from '../../../src/source/nginx.js'
import { installed, whereInstalled } from '../../support/servers.js'

const A = '10.0.0.1:80'
const B = '10.0.0.2:80'
const C = '10.0.0.3:80'
const lines = (upstream: UpstreamOptions, options?: PrintNginxOptions) => printNginx('a', upstream, options).split('\n')
const errorOf = (upstream: UpstreamOptions, options?: PrintNginxOptions, name = 'a'): ConfigError => {
  try {
    printNginx(name, upstream, options)
  } catch (error) {
    return error as ConfigError
  }
  throw new Error('no error')
}

describe('what is written', () => {
  it('a block', () => {
    const server = { address: B, weight: 5, maxFails: 0, failTimeout: 30_000, maxConns: 7, backup: true, down: true }
    const upstream = { servers: [A, server], balancer: 'least-connections', keepalive: 32 } as const
    expect(printNginx('api', upstream)).toBe(
      'upstream api {\n' +
        '    least_conn;\n' +
        '    server 10.0.0.1:80;\n' +
        '    server 10.0.0.2:80 weight=5 max_fails=0 fail_timeout=30s max_conns=7 backup down;\n' +
        '    keepalive 32;\n' +
        '}\n',
    )
  })

  it('a dump, as nginx-upsync writes it', () => {
    const servers = [A, { address: B, weight: 20, maxFails: 3, failTimeout: 30_000, down: true }]
    expect(printNginx('api', { servers, balancer: 'fastest-first' }, { format: 'dump' })).toBe(
      'server 10.0.0.1:80 weight=1 max_fails=1 fail_timeout=10s;\n' +
        'server 10.0.0.2:80 weight=20 max_fails=3 fail_timeout=30s down;\n',
    )
  })

  it('what is live, with every default written out', async () => {
    const checkups = new Checkups({ upstreams: { a: { servers: [A, B], maxFails: 3, failTimeout: 5_000 } } })
    await checkups.setServer('a', B, { down: true })
    expect(lines(checkups.getUpstream('a')!)).toEqual([
      ...['upstream a {', `    server ${A} max_fails=3 fail_timeout=5s;`],
      ...[`    server ${B} max_fails=3 fail_timeout=5s down;`, '    keepalive 256;', '}', ''],
    ])
    await checkups.close()
  })

  const tiers: [name: string, upstream: UpstreamOptions, servers: string[]][] = [
    ['two levels', { cluster: [{ servers: [A] }, { servers: [B] }] }, [A, `${B} backup`]],
    ['an empty level', { cluster: [{ servers: [] }, { servers: [A] }, { servers: [B] }] }, [A, `${B} backup`]],
    ['only backups, who are the ones to be asked', { servers: [{ address: A, backup: true }] }, [A]],
    ['one named cluster', { cluster: { x: { servers: [A] }, y: { servers: [] } } }, [A]],
    ['sockets', { servers: [{ path: '/run/a b"\\\n.sock' }] }, [String.raw`"unix:/run/a b\"\\\n.sock"`]],
    ['IPv6', { servers: [{ host: '::1', port: 80 }] }, ['[::1]:80']],
  ]
  it.each(tiers)('%s', (_, upstream, servers) => {
    expect(lines(upstream)).toEqual(['upstream a {', ...servers.map((server) => `    server ${server};`), '}', ''])
  })

  const policies: [balancer: UpstreamOptions['balancer'], method: string, options?: PrintNginxOptions][] = [
    [{ type: 'least-connections', choices: 'all' }, 'least_conn'],
    ['random', 'random'],
    [{ type: 'random', choices: 2 }, 'random two least_conn'],
    [{ type: 'consistent-hash', hash: 'nginx-ip' }, 'ip_hash'],
    [{ type: 'consistent-hash', hash: 'nginx' }, 'hash $request_uri consistent', { hashKey: '$request_uri' }],
    [{ type: 'consistent-hash', hash: 'nginx' }, 'hash "$uri ${a}" consistent', { hashKey: '$uri ${a}' }],
  ]
  it.each(policies)('%j', (balancer, method, options) => {
    expect(lines({ servers: [A], balancer }, options)[1]).toBe(`    ${method};`)
  })

  it('names that need quotes', () => {
    const name = 'a b;{"}\\\t#\'é'
    expect([...parseNginx(printNginx(name, { servers: [A] })).upstreams.keys()]).toEqual([name])
  })

  it('no keepalive in stream', () => {
    expect(lines({ servers: [A], keepalive: 3 }, { context: 'stream' })).toEqual([
      'upstream a {',
      `    server ${A};`,
      '}',
      '',
    ])
  })
})

describe('what nginx cannot say', () => {
  const S = 'upstreams.a.servers[1]'
  const ring = 'nginx has another ring; with hash "nginx" it is the same'
  const under = 'under this policy nginx has no backups'
  const hash = { type: 'consistent-hash', hash: 'nginx' } as const
  const spare = { address: B, backup: true }
  const unsayable: [
    path: string,
    problem: string,
    upstream: UpstreamOptions,
    left: string[],
    options?: PrintNginxOptions,
  ][] = [
    [S, 'nginx has no weight 0', { servers: [A, { address: B, weight: 0 }] }, [`server ${A}`]],
    [S, 'nginx cannot drain a server', { servers: [A, { address: B, drain: true }] }, [`server ${A}`]],
    [S, 'nginx takes no zone of an IPv6 address', { servers: [A, '[fe80::1%eth0]:80'] }, [`server ${A}`]],
    [S, 'nginx takes this name for a unix socket', { servers: [A, { host: 'unix', port: 80 }] }, [`server ${A}`]],
    [
      `${S}.failTimeout`,
      'nginx has whole seconds, got 1500 ms',
      { servers: [A, { address: B, failTimeout: 1_500 }] },
      [`server ${A}`, `server ${B} fail_timeout=2s`],
    ],
    [
      'upstreams.a.cluster[2].servers[0]',
      'nginx has no third level',
      { cluster: [A, B, C].map((one) => ({ servers: [one] })) },
      [`server ${A}`, `server ${B} backup`],
    ],
    [
      'upstreams.a.cluster[1].servers[0]',
      'nginx has no third level',
      { cluster: [{ servers: [A, spare] }, { servers: [C] }] },
      [`server ${A}`, `server ${B} backup`],
    ],
    [
      'upstreams.a.cluster',
      'nginx has no named clusters, only levels',
      { cluster: { x: { servers: [A] }, y: { servers: [B] } } },
      [`server ${A}`, `server ${B} backup`],
    ],
    [S, under, { servers: [A, spare], balancer: hash }, ['hash $uri consistent', `server ${A}`], { hashKey: '$uri' }],
    [S, under, { servers: [A, spare], balancer: { ...hash, hash: 'nginx-ip' } }, ['ip_hash', `server ${A}`]],
    [S, under, { servers: [A, spare], balancer: 'random' }, ['random', `server ${A}`]],
    [
      'upstreams.a.balancer',
      'nginx must know what to hash: give hashKey, as "$request_uri"',
      { servers: [A], balancer: hash },
      [`server ${A}`],
    ],
    ['upstreams.a.balancer', ring, { servers: [A], balancer: 'consistent-hash' }, [`server ${A}`]],
    [
      'upstreams.a.balancer',
      'nginx does not have boundedLoad',
      { servers: [A], balancer: { ...hash, boundedLoad: 2 } },
      [`server ${A}`],
      { hashKey: 'a' },
    ],
    [
      'upstreams.a.balancer',
      'nginx does not have sticky keys',
      { servers: [A], balancer: { ...hash, sticky: { max: 1, ttl: 1 } } },
      [`server ${A}`],
      { hashKey: 'a' },
    ],
    [
      'upstreams.a.balancer',
      'nginx has no ip_hash in stream',
      { servers: [A], balancer: { ...hash, hash: 'nginx-ip' } },
      [`server ${A}`],
      { context: 'stream' },
    ],
    [
      'upstreams.a.balancer',
      'nginx does not draw two for least_conn',
      { servers: [A], balancer: { type: 'least-connections', choices: 2 } },
      [`server ${A}`],
    ],
    [
      'upstreams.a.balancer',
      'nginx does not have fastest-first',
      { servers: [A], balancer: 'fastest-first' },
      [`server ${A}`],
    ],
    [
      'upstreams.a.balancer',
      'nginx does not have this policy',
      { servers: [A], balancer: () => ({ update: () => undefined, pick: () => undefined }) },
      [`server ${A}`],
    ],
  ]
  it.each(unsayable)('%s: %s', (path, problem, upstream, left, options) => {
    const error = errorOf(upstream, options)
    expect(error).toBeInstanceOf(ConfigError)
    expect([error.path, error.message]).toEqual([path, `${path}: ${problem}`])
    expect(lines(upstream, { ...options, unsupported: 'comment' })).toEqual([
      'upstream a {',
      ...[`# left out: ${path}: ${problem}`, ...left.map((line) => `${line};`)].map((line) => `    ${line}`),
      ...['}', ''],
    ])
  })

  const EMPTY = 'expected a server: nginx takes no upstream without'
  it.each([
    [{ servers: [] }, []],
    [{ servers: [{ address: A, weight: 0 }] }, ['upstreams.a.servers[0]: nginx has no weight 0']],
  ])('no server: %j', (upstream, comments) => {
    expect(errorOf(upstream, {}).path).toBe(comments[0]?.split(':')[0] ?? 'upstreams.a')
    const expected = [...comments, `upstreams.a: ${EMPTY}`].map((comment) => `# left out: ${comment}`)
    expect(lines(upstream, { unsupported: 'comment' })).toEqual([...expected, ''])
    expect(lines(upstream, { unsupported: 'comment', format: 'dump' })).toEqual([...expected, ''])
  })

  it('characters and lengths', () => {
    const characters = 'it has characters that a file for nginx cannot have'
    for (const unsupported of ['error', 'comment'] as const) {
      expect(errorOf({ servers: [A] }, { unsupported }, 'a\0').message).toBe(`upstreams["a\\u0000"]: ${characters}`)
      expect(errorOf({ servers: [A] }, { unsupported }, '\ud800').message).toContain(characters)
      expect(errorOf({ servers: [A] }, { unsupported }, 'é'.repeat(2_047)).message).toContain(
        'nginx takes at most 4094 bytes',
      )
    }
    expect(errorOf({ servers: [{ path: '/\ud800' }] }).message).toBe(`upstreams.a.servers[0]: ${characters}`)
  })

  it('bad options', () => {
    expect(errorOf({ servers: [A] }, { unsupported: 'maybe' as 'error' }).path).toBe('printNginx.unsupported')
    expect(errorOf({ servers: [A] }, { what: 1 } as PrintNginxOptions).path).toBe('printNginx.what')
    expect(errorOf({ servers: ['a'] }).path).toBe('upstreams.a.servers[0].address')
  })
})

const port = fc.integer({ min: 1, max: 65_535 })
/** Distinct by its number, so that a list of them has no address twice. */
const address = fc.oneof(
  fc.tuple(fc.ipV4(), port).map(([host, number]) => `${host}:${number}`),
  fc.tuple(fc.ipV6(), port).map(([host, number]) => `[${host}]:${number}`),
  fc
    .string({ unit: 'grapheme', minLength: 1, maxLength: 12 })
    .filter((path) => !path.includes('\0'))
    .map((path) => `unix:/${path}`),
)
const server = fc.record(
  {
    address,
    weight: fc.integer({ min: 1, max: 100 }),
    maxFails: fc.nat(100),
    failTimeout: fc.integer({ min: 1, max: 100_000 }).map((seconds) => seconds * 1_000),
    maxConns: fc.nat(100),
    down: fc.boolean(),
  },
  { requiredKeys: ['address'] },
)
const policy = fc.constantFrom<UpstreamOptions['balancer']>(
  ...(['wrr', 'least-connections', 'random'] as const),
  { type: 'random', choices: 2 },
  ...(['nginx', 'nginx-ip'] as const).map((hash) => ({ type: 'consistent-hash', hash }) as const),
)
const addressOf = ({ address }: ServerOptions) =>
  new URL(`http://${address!.startsWith('unix:') ? 'x' : address!}`).host + address!
const upstream = fc
  .record({
    servers: fc.uniqueArray(server, { minLength: 1, maxLength: 6, selector: addressOf }),
    backups: fc.nat(3),
    balancer: policy,
    keepalive: fc.option(fc.integer({ min: 1, max: 1_000 }), { nil: undefined }),
  })
  .map(({ servers, backups, balancer, keepalive }): UpstreamOptions => {
    const mayHaveBackups = balancer === 'wrr' || balancer === 'least-connections'
    const first = Math.max(1, servers.length - backups)
    return {
      servers: servers.map((one, i) => (mayHaveBackups && i >= first ? { ...one, backup: true } : one)),
      balancer,
      ...(keepalive !== undefined && { keepalive }),
    }
  })
const name = fc
  .oneof(fc.stringMatching(/^[a-z][a-z_.-]{0,10}$/), fc.string({ minLength: 1, maxLength: 10 }))
  .filter((text) => !text.includes('\0'))
const print = { hashKey: '$request_uri' }

/** The whole configuration that options compile to. */
const compiled = (options: UpstreamOptions) => new Checkups({ upstreams: { a: options } }).getUpstream('a')

describe('what was printed', () => {
  it('is read as what it was, and printed again as the same text', () => {
    fc.assert(
      fc.property(name, upstream, (key, options) => {
        const text = printNginx(key, options, print)
        const { upstreams, refused } = parseNginx(text)
        const read = upstreams.get(key)!
        expect(refused).toEqual([])
        expect(compiled({ balancer: 'wrr', ...read.options })).toEqual(
          compiled(
            options.balancer === 'random'
              ? { ...options, balancer: { type: 'random', choices: 1 } }
              : options.balancer === 'least-connections'
                ? { ...options, balancer: { type: 'least-connections' } }
                : options,
          ),
        )
        expect(printNginx(key, read.options, { hashKey: read.hashKey })).toBe(text)
        expect(parseNginx(printNginx(key, read.options, { hashKey: read.hashKey })).upstreams).toEqual(upstreams)
      }),
      { numRuns: 1_000 },
    )
  })

  it('as a dump too', () => {
    fc.assert(
      fc.property(upstream, (options) => {
        const text = printNginx('a', options, { format: 'dump' })
        const read = parseNginx(`upstream a { ${text} }`).upstreams.get('a')!
        expect(compiled(read.options)!.cluster).toEqual(compiled(options)!.cluster)
      }),
    )
  })
})

whereInstalled('nginx -t', 'nginx', () => {
  function test(http: string, stream = '') {
    const folder = mkdtempSync(join(tmpdir(), 'checkups-nginx-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    // Debian has stream as a module of its own.
    const file = join(folder, 'nginx.conf')
    writeFileSync(file, `pid ${folder}/pid;\nerror_log stderr;\nevents {}\nhttp {\n${http}}\n${stream}`)
    const { status, stderr } = spawnSync(installed('nginx')!, ['-t', '-q', '-p', folder, '-c', file], {
      encoding: 'utf8',
    })
    return status === 0 ? 'ok' : stderr.replace(/^.*could not open error log.*\n/gm, '').replaceAll(folder, '')
  }
  const sampled = <T>(arbitrary: fc.Arbitrary<T>, count: number) => fc.sample(arbitrary, { numRuns: count, seed: 42 })

  it('takes every block', () => {
    const all = sampled(fc.tuple(name, upstream), 500).map(([key, options], i) =>
      printNginx(`${i} ${key}`, options, print),
    )
    expect(test(all.join('\n'))).toBe('ok')
  })

  it('takes every dump', () => {
    const all = sampled(upstream, 200).map(
      (options, i) => `upstream u${i} {\n${printNginx('a', options, { format: 'dump' })}}\n`,
    )
    expect(test(all.join('\n'))).toBe('ok')
  })

  it('takes what was left out with comments', () => {
    const any = fc.record({
      cluster: fc.array(
        fc.record({
          servers: fc.uniqueArray(
            fc
              .tuple(server, fc.boolean(), fc.constantFrom(0, 1, 2), fc.constantFrom(1, 1_500, 2_000))
              .map(([one, backup, weight, failTimeout]): ServerOptions => ({
                ...one,
                down: false,
                maxFails: 1,
                maxConns: 0,
                backup,
                weight,
                failTimeout,
              })),
            { maxLength: 3, selector: addressOf },
          ),
        }),
        { maxLength: 4 },
      ),
      balancer: fc.oneof(policy, fc.constantFrom('fastest-first', 'consistent-hash' as const)),
    })
    const all = sampled(any, 500).flatMap((options, i) => {
      try {
        return [printNginx(`u${i}`, options, { ...print, unsupported: 'comment' })]
      } catch (error) {
        // One address in two levels with other times.
        expect((error as ConfigError).message).toContain('the same address')
        return []
      }
    })
    expect(all.length).toBeGreaterThan(300)
    expect(test(all.join('\n'))).toBe('ok')
  })

  it('takes names of hosts as ours, if they can be resolved', () => {
    expect(test(printNginx('a', { servers: ['localhost:80'] }))).toBe('ok')
    const unknown = test(printNginx('a', { servers: ['a_b.invalid:80'] }))
    // Not an invalid one.
    expect(unknown).toContain('host not found in upstream "a_b.invalid:80"')
  })

  it('takes the longest word, and no longer one', () => {
    const longest = 'x'.repeat(4_094)
    expect(test(printNginx(longest, { servers: [A] }))).toBe('ok')
    expect(test(`upstream ${longest}x { server ${A}; }`)).toContain('too long parameter')
  })

  it('really refuses what is refused here', () => {
    const refused: [text: string, reason: string][] = [
      [`server ${A} weight=0;`, 'invalid parameter "weight=0"'],
      [`server ${A} drain;`, 'invalid parameter "drain"'],
      [`server ${A} fail_timeout=500ms;`, 'invalid parameter "fail_timeout=500ms"'],
      ['server [fe80::1%eth0]:80;', 'invalid IPv6 address'],
      [`hash $uri; server ${A}; server ${B} backup;`, 'does not support parameter "backup"'],
      [`ip_hash; server ${A}; server ${B} backup;`, 'does not support parameter "backup"'],
      [`random; server ${A}; server ${B} backup;`, 'does not support parameter "backup"'],
      [`server ${A} backup;`, 'no servers in upstream'],
      ['', 'no servers are inside upstream'],
      [`keepalive 0; server ${A};`, 'invalid value "0"'],
    ]
    for (const [text, reason] of refused) expect(test(`upstream a { ${text} }`)).toContain(reason)
  })
})
