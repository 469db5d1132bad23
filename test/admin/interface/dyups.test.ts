import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { Checkups, UpstreamOptions } from '../../../src/index.js'
import { refusing, startServer } from '../../support/http.js'
import { ancestor, configOf, gatewayWith } from './support.js'

const SUCCESS = { status: 200, text: 'success' }
const FAILED = { status: 500, text: 'add server failed' }
const PLAIN = 'weight=1 max_conns=0 max_fails=1 fail_timeout=10 backup=0 down=0'

/** host1 and host2, of which each has a backend; dyhost is to come. */
async function hosts(options: { hashKey?: 'ip' } = {}) {
  const [a, b] = [await startServer('8088'), await startServer('8089')]
  const upstreams = { host1: { servers: [a.address] }, host2: { servers: [b.address] } }
  const { ask, ...world } = await gatewayWith({ dyups: true }, upstreams, options)
  const post = (body: string, name = 'dyhost') => ask('POST', `/upstream/${name}`, { body })
  return { ...world, ask, post, a: a.address, b: b.address }
}

const start = (upstreams: Record<string, UpstreamOptions>, options = {}) =>
  ancestor({ dyups: true }, { upstreams }, options)

/** Who answers, of so many. */
async function answers(get: (host: string) => Promise<string>, count: number, host = 'dyhost'): Promise<string[]> {
  const found: string[] = []
  for (let i = 0; i < count; i++) found.push(await get(host))
  return found
}

describe("dyups' own tests", () => {
  it('D01: the list has the names in their order', async () => {
    const { ask } = await hosts()
    expect(await ask('GET', '/list')).toMatchObject({ status: 200, text: 'host1\nhost2\n' })
  })

  it('D02: the detail has their servers', async () => {
    const { ask, a, b } = await hosts()
    const text = `host1\nserver ${a} ${PLAIN}\n\nhost2\nserver ${b} ${PLAIN}\n\n`
    expect(await ask('GET', '/detail')).toMatchObject({ status: 200, text })
  })

  it('D03: one upstream', async () => {
    const { ask, a } = await hosts()
    expect(await ask('GET', '/upstream/host1')).toMatchObject({ status: 200, text: `server ${a}\n` })
  })

  it('D04: a new one is there at once, and the others are as they were', async () => {
    const { post, get, a } = await hosts()
    expect(await get('dyhost')).toBe('502')
    expect(await post(`server ${a};`)).toMatchObject(SUCCESS)
    expect([await get('dyhost'), await get('host1'), await get('host2')]).toEqual(['8088', '8088', '8089'])
  })

  it('D05: it is in the list and in the detail, after the others', async () => {
    const { ask, post, a } = await hosts()
    await post(`server ${a};`)
    expect((await ask('GET', '/list')).text).toBe('host1\nhost2\ndyhost\n')
    expect((await ask('GET', '/detail')).text).toMatch(new RegExp(`\n\ndyhost\nserver ${a} ${PLAIN}\n\n$`))
  })

  it('D06: a further one replaces it', async () => {
    const { ask, post, get, a, b } = await hosts()
    await post(`server ${a} weight=5;`)
    expect(await post(`server ${a};server ${b};`)).toMatchObject(SUCCESS)
    expect((await answers(get, 4)).toSorted()).toEqual(['8088', '8088', '8089', '8089'])
    expect((await ask('GET', '/upstream/dyhost')).text).toBe(`server ${a}\nserver ${b}\n`)
  })

  it('D07: deleted, it is nowhere', async () => {
    const { ask, post, get, a } = await hosts()
    await post(`server ${a};`)
    expect(await ask('DELETE', '/upstream/dyhost')).toMatchObject(SUCCESS)
    expect(await get('dyhost')).toBe('502')
    expect((await ask('GET', '/list')).text).toBe('host1\nhost2\n')
    expect((await ask('GET', '/detail')).text).not.toContain('dyhost')
  })

  it('D08: deleted again, it is not found', async () => {
    const { ask, post, a } = await hosts()
    await post(`server ${a};`)
    await ask('DELETE', '/upstream/dyhost')
    expect(await ask('DELETE', '/upstream/dyhost')).toMatchObject({ status: 404, text: 'not found uptream' })
    expect(await ask('GET', '/upstream/dyhost')).toMatchObject({ status: 404, text: 'not found uptream' })
  })

  it('D09: one of the program can be deleted, too', async () => {
    const { ask, get } = await hosts()
    expect(await ask('DELETE', '/upstream/host1')).toMatchObject(SUCCESS)
    expect([await get('host1'), await get('host2')]).toEqual(['502', '8089'])
    expect((await ask('GET', '/detail')).text).not.toContain('host1')
  })

  it('D10: what was deleted can come again', async () => {
    const { ask, post, get, a, b } = await hosts()
    await post(`server ${a};`)
    await ask('DELETE', '/upstream/dyhost')
    expect(await post(`server ${b};`)).toMatchObject(SUCCESS)
    expect(await get('dyhost')).toBe('8089')
  })

  it('D11: weights', async () => {
    const { post, get, a, b } = await hosts()
    expect(await post(`server ${a} weight=3;server ${b} weight=1;`)).toMatchObject(SUCCESS)
    expect((await answers(get, 8)).filter((name) => name === '8088')).toHaveLength(6)
  })

  it('D12: a backup that is dead harms nobody', async () => {
    const { ask, post, get, a } = await hosts()
    expect(await post(`server ${a};server ${refusing()} backup;`)).toMatchObject(SUCCESS)
    expect(await answers(get, 3)).toEqual(['8088', '8088', '8088'])
    expect((await ask('GET', '/detail')).text).toContain(
      `server ${refusing()} ${PLAIN.replace('backup=0', 'backup=1')}\n`,
    )
  })

  it('D13: with ip_hash a client stays with its server', async () => {
    const { post, get, a, b } = await hosts({ hashKey: 'ip' })
    expect(await post(`ip_hash;server ${a};server ${b};`)).toMatchObject(SUCCESS)
    expect(new Set(await answers(get, 6)).size).toBe(1)
  })

  it.each([
    ['D14: a parameter that is none', (a: string) => `ip_hash aaa;server ${a};`],
    ['D15: a directive that is none', (a: string) => `ip_hash;aaserver ${a};`],
  ])('%s: what was there stays', async (_, body) => {
    const { post, get, checkups, a, b } = await hosts()
    await post(`server ${b};`)
    const before = configOf(checkups)
    expect(await post(body(a))).toMatchObject(FAILED)
    expect(configOf(checkups)).toEqual(before)
    expect(await get('dyhost')).toBe('8089')
  })

  it('D16: a unix socket', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'checkups-dyups-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const { address } = await startServer('unix', undefined, { path: join(folder, 'dyups.sock') })
    const { ask, post, get } = await hosts()
    expect(await post(`server ${address};`)).toMatchObject(SUCCESS)
    expect(await get('dyhost')).toBe('unix')
    expect((await ask('GET', '/upstream/dyhost')).text).toBe(`server ${address}\n`)
  })

  it('D17: with checks and default_down=false it is in use at once', async () => {
    const { post, get, checkups, a } = await hosts()
    await checkups.start()
    const check = 'check interval=3000 rise=2 fall=5 timeout=1000 type=http default_down=false;'
    expect(await post(`server ${a};${check}check_http_send "GET / HTTP/1.0\\r\\n\\r\\n";`)).toMatchObject(SUCCESS)
    expect(await get('dyhost')).toBe('8088')
  })

  it('D18: with default_down=true it is in use once its checks have passed', async () => {
    const { post, get, checkups, a } = await hosts()
    // With `protected` a peer that nobody can replace is kept, as soon as it was checked at all.
    await checkups.updateUpstream('dyhost', { servers: [a], protected: false })
    await checkups.start()
    const up = upOf(checkups, 'dyhost')
    const check = 'check interval=1000 rise=2 fall=5 timeout=1000 type=tcp default_down=true;'
    expect(await post(`server ${a};${check}`)).toMatchObject(SUCCESS)
    // Nobody is available, which our gateway calls 503.
    expect(await get('dyhost')).toBe('503')
    await up
    expect(await get('dyhost')).toBe('8088')
  })

  it('D19: one of the program is replaced as often as one likes', async () => {
    const { post, get, a, b } = await hosts()
    for (const [address, name] of [
      [b, '8089'],
      [a, '8088'],
      [b, '8089'],
    ] as const) {
      expect(await post(`server ${address};`, 'host1')).toMatchObject(SUCCESS)
      expect(await get('host1')).toBe(name)
    }
    expect(await get('host2')).toBe('8089')
  })
})

function upOf(checkups: Checkups, upstream: string): Promise<void> {
  return new Promise((resolve) => checkups.on('peer:up', (event) => event.upstream === upstream && resolve()))
}

describe('what a block says', () => {
  const whole: UpstreamOptions = {
    cluster: [{ servers: ['10.0.0.1:80'] }, { servers: ['10.0.0.2:80'] }],
    balancer: { type: 'consistent-hash', hash: 'nginx', boundedLoad: 1.25 },
    keepalive: 7,
    heartbeat: { type: 'http', path: '/alive', interval: 700 },
    ...{ tries: 3, timeout: 900, statuses: { 404: 'next' as const }, timeouts: { read: 1_234 }, maxFails: 4 },
  }

  it('replaces all that a block can say, and nothing that it cannot', async () => {
    const { ask, checkups } = await start({ test: whole })
    expect(await ask('POST', '/upstream/test', { body: 'server 10.0.0.3:80 max_fails=2;' })).toMatchObject(SUCCESS)
    expect(checkups.getUpstream('test')).toMatchObject({
      cluster: [{ servers: [{ host: '10.0.0.3', port: 80, weight: 1, maxFails: 2, failTimeout: 10_000 }] }],
      balancer: 'wrr',
      keepalive: 256,
      heartbeat: undefined,
      ...{ tries: 3, timeout: 900, statuses: { 404: 'next' }, timeouts: { connect: 5_000, read: 1_234 }, maxFails: 4 },
    })
  })

  it('another method and another check bring their own options', async () => {
    const { ask, checkups } = await start({ test: whole })
    const body = `
      # comments, and lines
      least_conn;
      server 10.0.0.3 weight=2 max_conns=9 fail_timeout=500ms;
      server [::1]:81 down;
      keepalive 16; keepalive_timeout 60s; zone test 64k;
      check interval=3000 rise=1 fall=2 timeout=500 type=ssl_hello port=8443;`
    expect(await ask('POST', '/upstream/test', { body })).toMatchObject(SUCCESS)
    expect(checkups.getUpstream('test')).toMatchObject({
      cluster: [
        {
          servers: [
            { host: '10.0.0.3', port: 80, weight: 2, maxConns: 9, failTimeout: 500 },
            { host: '::1', port: 81, down: true },
          ],
        },
      ],
      balancer: { type: 'least-connections' },
      keepalive: 16,
      heartbeat: { type: 'tls', interval: 3_000, rise: 1, fall: 2, timeout: 500, port: 8_443, defaultDown: true },
    })
    expect(checkups.getUpstream('test')?.balancer).toEqual({ type: 'least-connections' })
    await ask('POST', '/upstream/test', { body: 'ip_hash; server 10.0.0.3:80;' })
    expect(checkups.getUpstream('test')?.balancer).toEqual({ type: 'consistent-hash', hash: 'nginx-ip' })
    await ask('POST', '/upstream/test', { body: 'hash $request_uri consistent; server 10.0.0.3:80;' })
    expect(checkups.getUpstream('test')?.balancer).toEqual({ type: 'consistent-hash', hash: 'nginx' })
  })

  it('what is shown of levels: all after the first are backups', async () => {
    const { ask } = await start({
      test: {
        cluster: [
          { servers: [{ address: '10.0.0.1:80', weight: 4, maxConns: 5, maxFails: 0, failTimeout: 1_500 }] },
          { servers: [{ address: '10.0.0.2:80', down: true }] },
        ],
      },
      named: { cluster: { a: { servers: ['a:1', { address: 'b:1', backup: true }] }, b: { servers: ['c:1'] } } },
    })
    const backup = PLAIN.replace('backup=0', 'backup=1')
    expect((await ask('GET', '/detail')).text).toBe(
      [
        'test',
        'server 10.0.0.1:80 weight=4 max_conns=5 max_fails=0 fail_timeout=1.5 backup=0 down=0',
        `server 10.0.0.2:80 ${backup.replace('down=0', 'down=1')}`,
        '',
        'named',
        `server a:1 ${PLAIN}`,
        `server b:1 ${backup}`,
        `server c:1 ${backup}`,
        '',
        '',
      ].join('\n'),
    )
  })

  const wrong: [what: string, body: string][] = [
    ['no server', 'ip_hash;'],
    ['no directive', ' \n# nothing\n'],
    ['an include', 'server 10.0.0.3:80; include /etc/passwd;'],
    ['a brace that closes what is around it', 'server 10.0.0.3:80; } upstream other { server 10.0.0.4:80;'],
    ['a block', 'server 10.0.0.3:80 { }'],
    ['a whole upstream', 'upstream test { server 10.0.0.3:80; }'],
    ['Lua', 'balancer_by_lua_block { os.exit() } server 10.0.0.3:80;'],
    ['no end', 'server 10.0.0.3:80'],
    ['no end of a word', 'server "10.0.0.3:80;'],
    ['an address that is none', 'server 10.0.0.3:80; server 10.0.0.300:99999;'],
    ['a server twice', 'server 10.0.0.3:80; server 10.0.0.3:80;'],
    ['a parameter that is none', 'server 10.0.0.3:80 wait=3;'],
    ['a weight that is none', 'server 10.0.0.3:80 weight=many;'],
    ['a check that is none', 'server 10.0.0.3:80; check interval=never;'],
    ['a hash whose ring is another one', 'hash $request_uri; server 10.0.0.3:80;'],
    ['servers that come from elsewhere', 'upsync 127.0.0.1:8500/v1/kv/x upsync_type=consul; server 10.0.0.3:80;'],
  ]
  it.each(wrong)('%s is refused, and nothing has changed', async (_, body) => {
    const { ask, checkups } = await start({ test: whole })
    const before = configOf(checkups)
    const answer = await ask('POST', '/upstream/test', { body })
    expect(answer).toMatchObject(FAILED)
    expect(answer.headers['x-checkups-reason']).toMatch(/./)
    expect(await ask('POST', '/upstream/other', { body })).toMatchObject(FAILED)
    expect(configOf(checkups)).toEqual(before)
  })

  it('the reason is there for whoever looks for it, whatever was sent', async () => {
    const { ask } = await start({ test: whole })
    const reason = async (body: string) => (await ask('POST', '/upstream/test', { body })).headers['x-checkups-reason']
    expect(await reason('server 10.0.0.3:80;\nip_hash aaa;')).toBe('body:2: unknown parameters: ip_hash aaa')
    expect(await reason('"sërver\n\r\tx";')).toMatch(/^body:1: unknown directive [\x20-\x7e]+$/)
  })
})

describe("the rest of dyups' interface", () => {
  it('names are found whatever their case', async () => {
    const { ask, checkups } = await start({ ImgProcess: { servers: ['10.0.0.1:80'] } })
    expect((await ask('GET', '/upstream/imgprocess')).text).toBe('server 10.0.0.1:80\n')
    expect(await ask('POST', '/upstream/IMGPROCESS', { body: 'server 10.0.0.2:80;' })).toMatchObject(SUCCESS)
    expect((await ask('GET', '/list')).text).toBe('ImgProcess\n')
    expect((await ask('GET', '/DETAIL')).text).toContain('10.0.0.2:80')
    expect(await ask('DELETE', '/Upstream/imgPROCESS')).toMatchObject(SUCCESS)
    expect(checkups.getUpstreams().size).toBe(0)
  })

  it('a name that is there exactly goes before one that is there in another case', async () => {
    const { ask } = await start({ a: { servers: ['10.0.0.1:80'] }, A: { servers: ['10.0.0.2:80'] } })
    expect((await ask('GET', '/upstream/A')).text).toBe('server 10.0.0.2:80\n')
    expect((await ask('GET', '/upstream/a')).text).toBe('server 10.0.0.1:80\n')
  })

  it('names are decoded', async () => {
    const { ask } = await start({ 'a b': { servers: ['10.0.0.1:80'] } })
    expect((await ask('GET', '/upstream/a%20b')).text).toBe('server 10.0.0.1:80\n')
    expect(await ask('GET', '/upstream/%ff')).toMatchObject({ status: 404, text: 'not found uptream' })
    expect(await ask('POST', '/upstream/c%20d', { body: 'server 10.0.0.1:80;' })).toMatchObject({ status: 400 })
    expect(await ask('DELETE', '/upstream/c%20d')).toMatchObject({ status: 404, text: 'not found uptream' })
  })

  it('nothing to show, nothing to do: 204', async () => {
    const { ask } = await start({})
    for (const [method, path] of [
      ['GET', '/list'],
      ['GET', '/detail'],
      ['POST', '/upstream/test'],
    ] as const) {
      expect(await ask(method, path)).toMatchObject({ status: 204, text: '' })
    }
  })

  it.each([
    ['GET', '/', 404, 'not support this api'],
    ['GET', '/other', 404, 'not support this api'],
    ['GET', '/upstream', 404, 'not support this interface'],
    ['GET', '/upstream/', 404, 'not support this interface'],
    ['POST', '/upstream', 404, 'not support this interface'],
    ['POST', '/upstream/a/b', 404, 'not support this interface'],
    ['POST', '/list', 404, 'not support this interface'],
    ['POST', '/other/name', 404, 'not support this api'],
    ['DELETE', '/upstream', 405, 'not support this interface'],
    ['DELETE', '/other/name', 405, 'not support this api'],
    ['PUT', '/upstream/test', 405, 'not support this interface'],
  ])('%s %s is %i %s', async (method, path, status, text) => {
    const { ask } = await start({ test: { servers: ['10.0.0.1:80'] } })
    expect(await ask(method, path, { body: 'server 10.0.0.1:80;' })).toMatchObject({ status, text })
  })

  it('heads', async () => {
    const { ask } = await start({ test: { servers: ['10.0.0.1:80'] } })
    expect(await ask('HEAD', '/list')).toMatchObject({ status: 200, text: '', headers: { 'content-length': '5' } })
  })

  it('a body that is too large', async () => {
    const { ask, checkups } = await start({ test: { servers: ['10.0.0.1:80'] } }, { maxBody: 64 })
    const body = `server 10.0.0.2:80;${' '.repeat(100)}`
    expect(await ask('POST', '/upstream/test', { body })).toMatchObject({ status: 413 })
    expect(checkups.getUpstream('test')?.cluster).toMatchObject([{ servers: [{ host: '10.0.0.1' }] }])
  })

  it('no name makes a line of its own', async () => {
    const { ask } = await start({ 'a\nserver evil:1': { servers: [{ path: '/tmp/a\nserver evil:1' }] } })
    expect((await ask('GET', '/list')).text).toBe('a?server evil:1\n')
    expect((await ask('GET', '/detail')).text).not.toContain('\nserver evil')
  })
})
