import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Checkups, ConfigError } from '../../../src/index.js'
import type { ServerOptions, UpstreamOptions } from '../../../src/index.js'
import { parseNginx, type NginxUpstream } from '../../../src/source/nginx.js'

/** What is in the block of an upstream `a` in `http`, and what was reported of it: the first line is number 1. */
function block(text: string): NginxUpstream & { reasons: string[] } {
  const { upstreams, refused } = parseNginx(`http { upstream a { ${text} } }`, 'f')
  const reasons = refused.map(({ at, reason }) => `${at.replace('f:', '')} ${reason}`)
  return { ...upstreams.get('a')!, reasons }
}
const server = (text: string) => {
  const { options, reasons } = block(`server ${text};`)
  return [(options.servers as ServerOptions[])[0], ...reasons]
}
const A = '10.0.0.1:80'

describe('where upstreams are', () => {
  it('at the top, in http and in stream, and nowhere else', () => {
    const { upstreams, refused } = parseNginx(
      `user x; upstream top { server ${A}; }
       http { include mime.types; server { upstream no { server ${A}; } } upstream web { server ${A}; } }
       stream { upstream tcp { server ${A}; } }
       events { upstream no { server ${A}; } }`,
      'f',
    )
    expect([...upstreams].map(([name, { context, at }]) => [name, context, at])).toEqual([
      ['top', undefined, 'f:1'],
      ['web', 'http', 'f:2'],
      ['tcp', 'stream', 'f:3'],
    ])
    expect(refused).toEqual([{ at: 'f:2', reason: 'include mime.types: not followed' }])
  })

  it('once by name, whatever its case', () => {
    const { upstreams, refused } = parseNginx(`upstream a { server ${A}; }\nupstream A { server ${A}; }`, 'f')
    expect([...upstreams.keys()]).toEqual(['a'])
    expect(refused).toEqual([{ at: 'f:2', reason: 'upstream A is already in f:1' }])
  })

  it.each(['upstream;', 'upstream a;', 'upstream { }', 'upstream a b { }', 'upstream "" { }'])('not: %s', (text) => {
    const { upstreams, refused } = parseNginx(text, 'f')
    expect(upstreams.size).toBe(0)
    expect(refused).toEqual([{ at: 'f:1', reason: 'expected upstream with one name and a block' }])
  })

  it('under names that are properties of objects', () => {
    const names = ['__proto__', 'constructor', 'toString']
    const { upstreams } = parseNginx(names.map((name) => `upstream ${name} { server ${A}; }`).join(' '))
    expect([...upstreams.keys()]).toEqual(names)
  })
})

describe('servers', () => {
  const read: [text: string, server: ServerOptions][] = [
    ['10.0.0.1', { address: A }],
    ['10.0.0.1:8080', { address: '10.0.0.1:8080' }],
    ['Example.test', { address: 'example.test:80' }],
    ['a_b:1', { address: 'a_b:1' }],
    ['[0:0::1]', { address: '[::1]:80' }],
    ['[::1]:8080', { address: '[::1]:8080' }],
    ['unix:/run/a.sock', { address: 'unix:/run/a.sock' }],
    ['"UNIX:/run/a b.sock"', { address: 'unix:/run/a b.sock' }],
    [
      `${A} weight=5 max_fails=0 fail_timeout=30s max_conns=7 backup down`,
      { address: A, weight: 5, maxFails: 0, failTimeout: 30_000, maxConns: 7, backup: true, down: true },
    ],
    [`${A} drain`, { address: A, drain: true }],
    [`${A} weight=5 weight=6`, { address: A, weight: 6 }],
  ]
  it.each(read)('%s', (text, expected) => expect(server(text)).toEqual([expected]))

  const times: [text: string, ms: number][] = [
    ['10', 10_000],
    ['10s', 10_000],
    ['1m', 60_000],
    ['1m30', 90_000],
    ['1m30s', 90_000],
    ['1s500ms', 1_500],
    ['500ms', 500],
    ['1h', 3_600_000],
    ['1d', 86_400_000],
    ['1w', 604_800_000],
    ['1M', 2_592_000_000],
    ['1y', 31_536_000_000],
    // nginx counts whole seconds, and bans until the next one begins.
    ['0', 1_000],
  ]
  it.each(times)('fail_timeout=%s', (text, failTimeout) => {
    expect(server(`${A} fail_timeout=${text}`)).toEqual([{ address: A, failTimeout }])
  })

  it('a time with spaces', () =>
    expect(server(`${A} "fail_timeout=1m 30s"`)).toEqual([{ address: A, failTimeout: 90_000 }]))

  it.each(['', 's', '-1', '1.5s', '1s1m', '1s1s', '10x', '1S', '99999999999999999999'])('no time: %j', (text) => {
    expect(server(`${A} fail_timeout=${text}`)).toEqual([
      undefined,
      `1 server ${A}: expected a time: fail_timeout=${text}`,
    ])
  })

  it.each(['slow_start=30s', 'resolve', 'route=a', 'id=1', 'nonsense', 'weight', 'backup=1', '__proto__=1'])(
    'without %s, which has no counterpart',
    (parameter) => {
      const reason = `1 server ${A}: ${parameter} has no counterpart and is ignored`
      expect(server(`${A} weight=2 ${parameter}`)).toEqual([{ address: A, weight: 2 }, reason])
    },
  )

  const refused: [text: string, reason: string][] = [
    ['""', 'server : expected "host:port", "[ipv6]:port" or "unix:/path", got ":80"'],
    ['10.0.0.1/a', 'server 10.0.0.1/a: host: expected an IP address or a host name, got "10.0.0.1/a"'],
    ['10.0.0.1:0', 'server 10.0.0.1:0: port: expected an integer from 1 to 65535, got 0'],
    [
      '10.0.0.1:80-90',
      'server 10.0.0.1:80-90: expected "host:port", "[ipv6]:port" or "unix:/path", got "10.0.0.1:80-90"',
    ],
    ['unix:a', 'server unix:a: expected an absolute path of at most 107 bytes, got "a"'],
    [`${A} weight=0`, `server ${A}: expected a weight from 1: weight=0`],
    [`${A} weight=1.5`, `server ${A}: expected a weight from 1: weight=1.5`],
    [`${A} max_fails=-1`, `server ${A}: expected a number: max_fails=-1`],
    [`${A} max_conns=x`, `server ${A}: expected a number: max_conns=x`],
    [
      'a service=http resolve',
      'server a: service=http: its hosts and ports are in DNS, which a source for DNS can follow',
    ],
  ]
  it.each(refused)('left out: %s', (text, reason) => {
    const { options, reasons } = block(`server ${text}; server 10.0.0.9;`)
    expect(options.servers).toEqual([{ address: '10.0.0.9:80' }])
    expect(reasons).toEqual([`1 ${reason}`])
  })

  it('once by address', () => {
    const { options, reasons } = block(`server 10.0.0.1 weight=2;\nserver ${A};\nserver 10.0.0.1 backup;`)
    expect(options.servers).toEqual([{ address: A, weight: 2 }])
    expect(reasons).toEqual([
      `2 server ${A}: the same address as in f:1`,
      '3 server 10.0.0.1: the same address as in f:1',
    ])
  })

  it('need a port in stream', () => {
    const { upstreams, refused } = parseNginx('stream { upstream a { server 10.0.0.1; server [::1]; server b:1; } }')
    expect(upstreams.get('a')!.options.servers).toEqual([{ address: 'b:1' }])
    expect(refused).toHaveLength(2)
  })
})

describe('policies', () => {
  const read: [text: string, balancer: UpstreamOptions['balancer'], ...reasons: string[]][] = [
    ['', undefined],
    ['least_conn;', { type: 'least-connections' }],
    ['ip_hash;', { type: 'consistent-hash', hash: 'nginx-ip' }],
    ['hash $uri consistent;', { type: 'consistent-hash', hash: 'nginx' }],
    ['random;', { type: 'random', choices: 1 }],
    ['random two;', { type: 'random', choices: 2 }],
    ['random two least_conn;', { type: 'random', choices: 2 }],
    [
      'random two least_time=header;',
      { type: 'random', choices: 2 },
      '1 unknown method least_time=header: least_conn is used',
    ],
    [
      'hash $uri;',
      { type: 'consistent-hash', hash: 'nginx' },
      '1 hash without consistent: the consistent one is used, keys go elsewhere',
    ],
    ['least_conn 2;', undefined, '1 unknown parameters: least_conn 2'],
    ['random three;', undefined, '1 unknown parameters: random three'],
    ['hash;', undefined, '1 unknown parameters: hash '],
    ['hash $uri sometimes;', undefined, '1 unknown parameters: hash $uri sometimes'],
    ['ip_hash; least_conn;', { type: 'least-connections' }, '1 least_conn takes the place of another method'],
  ]
  it.each(read)('%j', (text, balancer, ...reasons) => {
    const found = block(`server ${A}; ${text}`)
    expect([found.options.balancer, ...found.reasons]).toEqual([balancer, ...reasons])
  })

  it('with the key', () => {
    expect(block('hash "$uri $http_x" consistent;').hashKey).toBe('$uri $http_x')
    expect(block('hash $uri consistent; least_conn;').hashKey).toBeUndefined()
  })

  it('say which servers nginx hashes by another name', () => {
    expect(block(`hash $uri consistent; server 10.0.0.1; server ${A.replace('1:', '2:')};`).reasons).toEqual([
      `1 nginx hashes this server as 10.0.0.1, here it is ${A}: keys go elsewhere`,
    ])
  })

  it('keepalive', () => {
    expect(block('keepalive 32;').options.keepalive).toBe(32)
    expect(block('keepalive 0;').reasons).toEqual(['1 expected a number from 1: keepalive 0'])
  })

  it('say nothing of what is nginx’s own, and everything else', () => {
    const { reasons } = block(
      'zone a 64k; keepalive_timeout 5s; keepalive_requests 9; keepalive_time 1h;\nsticky cookie x;',
    )
    expect(reasons).toEqual(['2 unknown directive sticky'])
  })
})

describe('check', () => {
  const MODULE = { interval: 30_000, fall: 5, rise: 2, timeout: 1_000, defaultDown: true }
  const check = (text: string) => block(text).options.heartbeat
  const http = { type: 'http', query: 'GET / HTTP/1.0\r\n\r\n', statuses: ['2xx', '3xx'] }

  it('has the module’s defaults', () => expect(check('check;')).toEqual({ type: 'tcp', ...MODULE }))

  it('is not there if only the others are', () => {
    expect(
      check('check_http_send "GET /"; check_http_expect_alive http_2xx; check_keepalive_requests 1;'),
    ).toBeUndefined()
  })

  it('takes its parameters', () => {
    expect(
      check('check interval=3000 rise=1 fall=4 timeout=500 default_down=false type=tcp port=8081 unique=true;'),
    ).toEqual({ type: 'tcp', interval: 3_000, rise: 1, fall: 4, timeout: 500, defaultDown: false, port: 8_081 })
    expect(check('check port=0;')).toEqual({ type: 'tcp', ...MODULE })
  })

  it('of every type', () => {
    expect(check('check type=http;')).toEqual({ ...http, ...MODULE })
    expect(check('check type=ssl_hello;')).toEqual({ type: 'tls', tls: { rejectUnauthorized: false }, ...MODULE })
    expect(check('check type=mysql;')).toEqual({ type: 'mysql', ...MODULE })
    expect(check('check type=ajp;')).toEqual({ type: 'ajp', ...MODULE })
    const fastcgi = { type: 'fastcgi', method: 'GET', path: '/', scriptFilename: 'index.php', params: {} }
    expect(check('check type=fastcgi;')).toEqual({ ...fastcgi, statuses: ['2xx', '3xx'], ...MODULE })
    expect(check('check type=fastcgi; check_fastcgi_param REQUEST_URI /ping; check_fastcgi_param A b;')).toEqual({
      ...{ ...fastcgi, path: '/ping', params: { A: 'b' } },
      ...{ statuses: ['2xx', '3xx'], ...MODULE },
    })
  })

  it('takes the request and the statuses', () => {
    const text = String.raw`check_http_send "HEAD /s HTTP/1.1\r\nHost: a\r\n\r\n"; check_http_expect_alive http_2xx http_4xx;`
    expect(check(`check type=http; ${text}`)).toEqual({
      ...{ ...http, query: 'HEAD /s HTTP/1.1\r\nHost: a\r\n\r\n', statuses: ['2xx', '4xx'] },
      ...MODULE,
    })
  })

  it('reports what is wrong, and keeps the rest', () => {
    const { options, reasons } = block(
      'check interval=0 rise=2 type=udp what default_down=maybe port=70000;\ncheck_http_expect_alive 200;\n' +
        'check_keepalive_requests 9;\ncheck_http_send;\ncheck_fastcgi_param a;',
    )
    expect(options.heartbeat).toEqual({ type: 'tcp', ...MODULE })
    expect(reasons).toEqual([
      ...['interval=0', 'type=udp', 'what', 'default_down=maybe', 'port=70000'].map(
        (parameter) => `1 check: unknown or wrong parameter ${parameter}`,
      ),
      '2 expected http_2xx and its like: check_http_expect_alive 200',
      '3 check_keepalive_requests 9: every check is a connection of its own',
      '4 expected check_http_send with one request',
      '5 expected check_fastcgi_param with a name and a value',
    ])
  })

  it('is a heartbeat that an upstream takes', async () => {
    for (const type of ['tcp', 'http', 'ssl_hello', 'mysql', 'ajp', 'fastcgi']) {
      const checkups = new Checkups({ upstreams: { a: block(`server ${A}; check type=${type} port=1;`).options } })
      expect(checkups.getUpstream('a')!.heartbeat).toMatchObject({ fall: 5, port: 1 })
      await checkups.close()
    }
  })
})

describe('upsync', () => {
  const DEFAULTS = { type: 'consul', interval: 5_000, timeout: 360_000, strongDependency: false }

  it('is described', () => {
    expect(
      block(`upsync 127.0.0.1:8500/v1/kv/upstreams/a/ upsync_timeout=6m upsync_interval=500ms upsync_type=consul
             strong_dependency=on; upsync_dump_path /etc/nginx/a.conf; upsync_lb least_conn;`),
    ).toMatchObject({
      options: { servers: [], balancer: { type: 'least-connections' } },
      upsync: {
        address: '127.0.0.1:8500',
        path: '/v1/kv/upstreams/a/',
        ...{ type: 'consul', interval: 500, timeout: 360_000, strongDependency: true },
        ...{ dump: '/etc/nginx/a.conf', lb: 'least_conn' },
      },
      reasons: [],
    })
  })

  it('with the module’s defaults', () => {
    const { upsync, reasons } = block('upsync consul.test:8500 upsync_what=1;')
    expect(upsync).toEqual({ address: 'consul.test:8500', path: '', ...DEFAULTS, dump: undefined, lb: undefined })
    expect(reasons).toEqual(['1 upsync: unknown or wrong parameter upsync_what=1'])
  })

  it('reports what is wrong', () => {
    const { upsync, reasons } = block('upsync /v1;\nupsync_dump_path;\nupsync_lb best;\nupsync_lb hash_modula;')
    expect(upsync).toBeUndefined()
    expect(reasons).toEqual([
      '1 expected upsync host:port/path',
      '2 expected upsync_dump_path with one file',
      '3 unknown method: upsync_lb best',
      '4 hash_modula: the consistent hash is used, keys go elsewhere',
    ])
  })
})

describe('any text', () => {
  const word = fc.oneof(
    fc.constantFrom('server', 'upstream', 'http', 'hash', 'random', 'check', 'upsync', 'keepalive', 'include'),
    fc.constantFrom(
      'a',
      '10.0.0.1',
      '[::1]:80',
      'unix:/a',
      'weight=1',
      'fail_timeout=1m',
      '=',
      'port=1',
      '__proto__',
      '""',
    ),
    fc.constantFrom('{', '{', '}', '}', ';', ';', ';'),
    fc.string({ maxLength: 5 }),
  )

  it('is read, or refused by an error of ours; and what is read can be used', () => {
    fc.assert(
      fc.property(fc.array(word, { maxLength: 40 }), (words) => {
        try {
          const { upstreams } = parseNginx(words.join(' '))
          for (const [name, { options }] of upstreams) new Checkups({ upstreams: new Map([[name, options]]) })
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError)
          expect((error as ConfigError).path).toMatch(/^nginx\.conf:\d+:\d+$/)
        }
      }),
      { numRuns: 3_000 },
    )
  })
})
