import { readFileSync } from 'node:fs'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Checkups } from '../../../src/index.js'
import { consulKv, type ConsulError, type ConsulKvOptions } from '../../../src/source/consul.js'
import { leaderOf, startCluster, startConsul, whereConsul, type ConsulAgent } from '../../support/consul.js'
import { eventually } from '../../support/eventually.js'
import { certificate, freePort } from '../../support/servers.js'
import { watch } from './harness.js'

/** A watcher of `upstreams` in the layout of upsync. */
const upsync = (consul: Pick<ConsulAgent, 'address'>, options: Partial<ConsulKvOptions> = {}) =>
  watch(consulKv({ prefix: 'upstreams', layout: 'upsync', address: consul.address, ...options }))
const addresses = (watched: ReturnType<typeof watch>, key: string) => Object.keys(watched.servers(key) ?? {})
const environment = (name: string, value: string) => {
  const before = process.env[name]
  process.env[name] = value
  onTestFinished(() => {
    if (before === undefined) Reflect.deleteProperty(process.env, name)
    else process.env[name] = before
  })
}

const defaults = { weight: 1, maxFails: 2, failTimeout: 10_000 }

whereConsul('consulKv, upsync, against Consul', () => {
  it('U02–U13: follows every change of one upstream, as nginx-upsync does', async () => {
    const consul = await startConsul()
    const watched = watch(
      consulKv({ prefix: 'upstreams/test', layout: 'upsync', upstream: 'test', address: consul.address }),
    )
    const put = (port: number, value: object | string) => consul.put(`upstreams/test/127.0.0.1:${port}`, value)
    const shows = (servers: object) => eventually(() => expect(watched.servers('test')).toEqual(servers))

    await put(8089, '') // U02: an empty value is all defaults
    await shows({ '127.0.0.1:8089': defaults })
    await put(8088, { weight: 10, max_fails: 3, fail_timeout: 10 }) // U03
    const ten = { weight: 10, maxFails: 3, failTimeout: 10_000 }
    await shows({ '127.0.0.1:8088': ten, '127.0.0.1:8089': defaults })
    expect((watched.lists.at(-1)!.upstreams as Map<string, unknown>).has('test')).toBe(true) // U04
    await consul.del('upstreams/test/127.0.0.1:8089') // U05
    await shows({ '127.0.0.1:8088': ten })
    await put(8089, { weight: 20, max_fails: 0, fail_timeout: 30 }) // U06
    const twenty = { weight: 20, maxFails: 0, failTimeout: 30_000 }
    await shows({ '127.0.0.1:8088': ten, '127.0.0.1:8089': twenty })
    await consul.del('upstreams/test/127.0.0.1:8088') // U07
    await shows({ '127.0.0.1:8089': twenty })
    await put(8088, { weight: 20, max_fails: 0, fail_timeout: 30 }) // U08
    await shows({ '127.0.0.1:8088': twenty, '127.0.0.1:8089': twenty })
    await put(8088, { weight: 40 }) // U09: what is missing goes back to its default
    await shows({ '127.0.0.1:8088': { ...defaults, weight: 40 }, '127.0.0.1:8089': twenty })
    await put(8088, { weight: 40, max_fails: 3, fail_timeout: 20, down: 1 }) // U12
    await shows({
      '127.0.0.1:8088': { weight: 40, maxFails: 3, failTimeout: 20_000, down: true },
      '127.0.0.1:8089': twenty,
    })
    await put(8088, { weight: '40', max_fails: '0', fail_timeout: '30', down: 0 }) // U13, in numeric strings
    await shows({
      '127.0.0.1:8088': { weight: 40, maxFails: 0, failTimeout: 30_000, down: false },
      '127.0.0.1:8089': twenty,
    })
    await consul.del('upstreams/test/') // U10: that it is empty is told; whoever follows keeps the last list
    await shows({})
    expect(watched.errors).toEqual([])
  })
})

whereConsul('consulKv against Consul', () => {
  it('takes every folder below the prefix as an upstream, and none that only begins alike', async () => {
    const consul = await startConsul()
    await consul.put('upstreams_1/x/127.0.0.1:1', '')
    await consul.put('upstreams/a/127.0.0.1:1', '')
    await consul.put('upstreams/a_1/[::1]:2', '')
    await consul.put('upstreams/__proto__/127.0.0.1:3', '')
    await consul.put('upstreams/empty/', '')
    const all = upsync(consul, { prefix: '/upstreams' })
    const one = upsync(consul, { prefix: 'upstreams/a', upstream: 'a' })
    await eventually(() => expect([all.lists.length, one.lists.length]).toEqual([1, 1]))
    expect([...(all.lists[0]!.upstreams as Map<string, unknown>).keys()].sort()).toEqual([
      '__proto__',
      'a',
      'a_1',
      'empty',
    ])
    expect(addresses(all, 'a_1')).toEqual(['::1:2'])
    expect(addresses(all, 'empty')).toEqual([])
    expect(addresses(one, 'a')).toEqual(['127.0.0.1:1'])
    expect([all.refused(), one.refused()]).toEqual([[], []])
  })

  it('leaves out what cannot be used, and says which key and why', async () => {
    const consul = await startConsul()
    await consul.put('upstreams/a/127.0.0.1:1', '{"weight": 3')
    await consul.put('upstreams/a/127.0.0.1:2', Buffer.from([0xff, 0xfe, 0x00]))
    await consul.put('upstreams/a/127.0.0.1:3', { weight: -1 })
    await consul.put('upstreams/a/127.0.0.1', '')
    await consul.put('upstreams/a/b/127.0.0.1:4', '')
    await consul.put('upstreams/127.0.0.1:5', '')
    await consul.put('upstreams/a/[0:0::1]:6', '')
    await consul.put('upstreams/a/[::1]:6', '')
    await consul.put('upstreams/a/127.0.0.1:7', {
      other: [1],
      weight: 0,
      backup: true,
      max_conns: 4,
      labels: { zone: 'b' },
    })
    const watched = upsync(consul)
    await eventually(() => expect(watched.lists).toHaveLength(1))
    expect(watched.servers('a')).toEqual({
      '::1:6': defaults,
      '127.0.0.1:7': { ...defaults, weight: 0, backup: true, maxConns: 4, labels: { zone: 'b' } },
    })
    expect(new Map(watched.refused().map(({ at, reason }) => [at, reason]))).toEqual(
      new Map([
        ['upstreams/127.0.0.1:5', 'no key of a server'],
        ['upstreams/a/127.0.0.1', expect.stringContaining('expected "host:port"') as string],
        ['upstreams/a/127.0.0.1:1', expect.stringMatching(/^expected JSON: /) as string],
        ['upstreams/a/127.0.0.1:2', 'expected JSON, got bytes that are no text'],
        ['upstreams/a/127.0.0.1:3', 'weight: expected an integer from 0 to 2147483647, got -1'],
        ['upstreams/a/[::1]:6', 'the same address as another key'],
        ['upstreams/a/b/127.0.0.1:4', 'no key of a server'],
      ]),
    )
  })

  it('reads 1,000 keys, is not woken by the same value again, and ends 100 puts at once with all of them', async () => {
    const consul = await startConsul()
    const put = (from: number, count: number) =>
      Promise.all(Array.from({ length: count }, (_, i) => consul.put(`upstreams/a/10.0.0.1:${from + i}`, '')))
    for (let from = 1; from <= 1_000; from += 50) await put(from, 50)
    const watched = upsync(consul)
    await eventually(() => expect(addresses(watched, 'a')).toHaveLength(1_000))
    await put(1, 1)
    await consul.put('upstreams_1/x', 'elsewhere')
    await put(2_000, 1)
    await eventually(() => expect(addresses(watched, 'a')).toHaveLength(1_001))
    expect(watched.lists).toHaveLength(2)
    await put(3_000, 100)
    await eventually(() => expect(addresses(watched, 'a')).toHaveLength(1_101))
    expect(watched.errors).toEqual([])
  })

  it('sees a new key at once after the agent was killed and has come back empty', async () => {
    const consul = await startConsul()
    for (let i = 0; i < 20; i++) await consul.put('upstreams/a/127.0.0.1:1', { weight: i })
    const watched = upsync(consul)
    await eventually(() => expect(watched.servers('a')?.['127.0.0.1:1']).toMatchObject({ weight: 19 }))
    await consul.kill()
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(2))
    expect(new Set(watched.errors.map((error) => (error as ConsulError).reason))).toEqual(new Set(['unreachable']))
    const before = watched.lists.length
    await consul.start()
    await eventually(() => expect(watched.lists.length).toBeGreaterThan(before))
    expect(watched.servers('a')).toBeUndefined() // That all is gone is judged by whoever follows.
    await consul.put('upstreams/a/127.0.0.1:2', '')
    await eventually(() => expect(addresses(watched, 'a')).toEqual(['127.0.0.1:2'])) // The wait is 60 s.
  })

  it('sees a new key at once though an agent that shuts down answers with the index of before', async () => {
    const consul = await startConsul()
    for (let i = 0; i < 20; i++) await consul.put('upstreams/a/127.0.0.1:1', { weight: i })
    const watched = upsync(consul)
    await eventually(() => expect(watched.lists.length).toBeGreaterThan(0))
    consul.signal('SIGTERM')
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(0))
    await consul.kill()
    await consul.start()
    await consul.put('upstreams/a/127.0.0.1:2', '')
    await eventually(() => expect(addresses(watched, 'a')).toEqual(['127.0.0.1:2'])) // The wait is 60 s.
  })

  it('does not take a revoked or a missing token for an empty store', async () => {
    const consul = await startConsul({ acl: 'root' })
    await consul.put('upstreams/a/127.0.0.1:1', '')
    const token = async (policy: string, rules: string) => {
      await consul.api('PUT', '/v1/acl/policy', { Name: policy, Rules: rules })
      const reply = await consul.api('PUT', '/v1/acl/token', { Policies: [{ Name: policy }] })
      return JSON.parse(reply.text) as { SecretID: string; AccessorID: string }
    }
    const reader = await token('reader', 'key_prefix "upstreams/" { policy = "read" }')
    const other = await token('other', 'key_prefix "elsewhere/" { policy = "read" }')
    environment('CONSUL_HTTP_TOKEN', reader.SecretID)
    const good = upsync(consul)
    const strange = upsync(consul, { token: other.SecretID })
    await eventually(() => expect(addresses(good, 'a')).toEqual(['127.0.0.1:1']))
    await eventually(() => expect(strange.errors.length).toBeGreaterThan(0))
    expect(strange.lists).toEqual([])
    expect(strange.errors[0]).toMatchObject({ code: 'ERR_CHECKUPS_CONSUL', reason: 'denied', status: 403 })
    expect(strange.errors[0]!.message).toMatch(/^denied: the token may not read "upstreams\/"/)
    await consul.api('DELETE', `/v1/acl/token/${reader.AccessorID}`)
    await consul.put('upstreams/a/127.0.0.1:2', '') // Who is already waiting still gets its answer.
    await eventually(() => expect(good.errors.length).toBeGreaterThan(0))
    expect(good.errors[0]!.message).toMatch(/^denied: ACL not found/)
    expect(addresses(good, 'a').length).toBeGreaterThan(0)
  })

  it('probes a key it had before it believes that all is gone', async () => {
    const consul = await startConsul({ acl: 'root' })
    await consul.put('upstreams/a/127.0.0.1:1', '')
    const policy = async (rules: string, id?: string) => {
      const path = `/v1/acl/policy${id === undefined ? '' : `/${id}`}`
      const reply = await consul.api('PUT', path, { Name: 'reader', Rules: rules })
      return (JSON.parse(reply.text) as { ID: string }).ID
    }
    const id = await policy('key_prefix "upstreams/" { policy = "read" }')
    const made = await consul.api('PUT', '/v1/acl/token', { Policies: [{ Name: 'reader' }] })
    const watched = upsync(consul, { token: (JSON.parse(made.text) as { SecretID: string }).SecretID, wait: 200 })
    await eventually(() => expect(watched.lists.length).toBeGreaterThan(0))
    await policy('key_prefix "elsewhere/" { policy = "read" }', id) // The token stays, its right does not.
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(0))
    expect(watched.errors[0]!.message).toMatch(/^denied: the token may not read "upstreams\/a\/127.0.0.1:1"/)
    expect(addresses(watched, 'a')).toEqual(['127.0.0.1:1'])
    await policy('key_prefix "upstreams/" { policy = "read" }', id)
    await consul.put('upstreams/a/127.0.0.1:2', '')
    await eventually(() => expect(addresses(watched, 'a')).toHaveLength(2))

    await consul.del('upstreams/')
    await eventually(() => expect(watched.servers('a')).toBeUndefined())
    const before = watched.errors.length
    await policy('key_prefix "elsewhere/" { policy = "read" }', id) // Lost while nothing is there.
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(before))
    expect(watched.errors.at(-1)!.message).toMatch(/^denied: /)
  })

  it('speaks TLS with a private authority', async () => {
    const consul = await startConsul({ tls: true })
    await consul.put('upstreams/a/127.0.0.1:1', '')
    const ca = readFileSync(certificate.cert, 'utf8')
    const address = `127.0.0.1:${consul.tlsPort}`
    const trusting = upsync({ address }, { tls: { ca } })
    const by = upsync({ address: `https://${address}` })
    await eventually(() => expect(addresses(trusting, 'a')).toEqual(['127.0.0.1:1']))
    await eventually(() => expect(by.errors.length).toBeGreaterThan(0))
    expect(by.errors[0]!.message).toMatch(/self[- ]signed certificate/)
    expect(by.lists).toEqual([])
  })

  it('goes to the next address when one fails, and takes CONSUL_HTTP_ADDR if it is given none', async () => {
    const [first, second] = [await startConsul(), await startConsul()]
    await first.put('upstreams/a/127.0.0.1:1', '')
    for (let i = 0; i < 20; i++) await first.put('upstreams/a/127.0.0.1:1', { weight: i })
    await second.put('upstreams/a/127.0.0.1:2', '')
    const nobody = `127.0.0.1:${await freePort()}`
    const source = consulKv({
      ...{ prefix: 'upstreams', layout: 'upsync' },
      addresses: [nobody, first.address, second.address],
    })
    const watched = watch(source)
    await eventually(() => expect(addresses(watched, 'a')).toEqual(['127.0.0.1:1']))
    await first.kill()
    await eventually(() => expect(addresses(watched, 'a')).toEqual(['127.0.0.1:2']))
    expect(watched.errors).toEqual([])

    environment('CONSUL_HTTP_ADDR', `http://${second.address}`)
    const byEnvironment = watch(consulKv({ prefix: 'upstreams', layout: 'upsync' }))
    await eventually(() => expect(addresses(byEnvironment, 'a')).toEqual(['127.0.0.1:2']))
  })

  it('ends at once amid a long poll, and tells whoever watches again everything at once', async () => {
    const consul = await startConsul()
    await consul.put('upstreams/a/127.0.0.1:1', '')
    const source = consulKv({ prefix: 'upstreams', layout: 'upsync', address: consul.address })
    for (let i = 0; i < 2; i++) {
      const watched = watch(source)
      await eventually(() => expect(watched.asks()).toBe(2))
      await new Promise((resolve) => setTimeout(resolve, 50)) // Until the second ask is with Consul.
      const begun = performance.now()
      await watched.end()
      expect(performance.now() - begun).toBeLessThan(10_000) // The wait is 60 s.
      expect(watched.lists).toHaveLength(1)
      expect(watched.errors).toEqual([])
    }
  })

  it('gives up an agent that is frozen when its time is over, and goes on when it is not any more', async () => {
    const consul = await startConsul()
    await consul.put('upstreams/a/127.0.0.1:1', '')
    const watched = upsync(consul, { wait: 500, requestTimeout: 300 })
    await eventually(() => expect(watched.lists.length).toBeGreaterThan(0))
    consul.signal('SIGSTOP')
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(0))
    expect(watched.errors[0]!.message).toMatch(/did not answer in time$/)
    consul.signal('SIGCONT')
    await consul.put('upstreams/a/127.0.0.1:2', '')
    await eventually(() => expect(addresses(watched, 'a')).toHaveLength(2))
  })

  it('goes on through a cluster that loses its leader, its quorum, and gets a server back', async () => {
    const agents = await startCluster()
    const leader = await leaderOf(agents)
    const [one, two] = agents.filter((agent) => agent !== leader) as [ConsulAgent, ConsulAgent]
    await leader.put('upstreams/a/127.0.0.1:1', '')
    // A server that has lost its leader does not wake who waits: that ends with the wait.
    const addresses = [leader, one, two].map(({ address }) => address)
    const watched = watch(consulKv({ prefix: 'upstreams', layout: 'upsync', wait: 2_000, addresses }))
    const count = () => Object.keys(watched.servers('a') ?? {}).length
    const write = (port: number) => untilDone(() => one.put(`upstreams/a/127.0.0.1:${port}`, ''))
    await eventually(() => expect(count()).toBe(1))
    await leader.kill()
    await write(2)
    await eventually(() => expect(count()).toBe(2))
    const before = watched.errors.length
    await two.kill()
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(before))
    expect(count()).toBe(2)
    await two.start()
    await write(3)
    await eventually(() => expect(count()).toBe(3))
  }, 180_000)

  it('goes on when the leader of a cluster is frozen: reads hang, and a deadline of its own ends them', async () => {
    const agents = await startCluster()
    const leader = await leaderOf(agents)
    const other = agents.find((agent) => agent !== leader)!
    await other.put('upstreams/a/127.0.0.1:1', '')
    const options = { prefix: 'upstreams', layout: 'upsync', wait: 1_000, requestTimeout: 1_000 } as const
    const checkups = new Checkups({ sources: [consulKv({ ...options, address: other.address })] })
    onTestFinished(() => checkups.close())
    await checkups.start()
    const state = () => checkups.getStatus().sources[0]!.state
    expect(state()).toBe('current')
    leader.signal('SIGSTOP')
    await eventually(() => expect(state()).toBe('stale'))
    expect(checkups.selectPeer('a')!.address).toBe('127.0.0.1:1')
    leader.signal('SIGCONT')
    await untilDone(() => other.put('upstreams/a/127.0.0.1:2', ''))
    await eventually(() => expect(state()).toBe('current'))
    await eventually(() => expect(checkups.getStatus().upstreams[0]!.levels[0]!.servers).toHaveLength(2))
  }, 180_000)
})

/** Until it does not reject. */
async function untilDone(act: () => Promise<void>): Promise<void> {
  for (let tries = 0; ; tries++) {
    try {
      await act()
      return
    } catch (error) {
      if (tries === 100) throw error
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
}

whereConsul('consulKv, slardar, against Consul', () => {
  it('reads levels, clusters and settings, and keeps an upstream whose value is broken', async () => {
    const consul = await startConsul()
    const put = (name: string, value: object | string) => consul.put(`config/slardar/upstreams/${name}`, value)
    await put('plain', { servers: [{ host: '10.0.0.1', port: 80, weight: 3, max_fails: 2, fail_timeout: 5 }] })
    await put('levels', { cluster: [{ servers: [{ host: 'a', port: '1' }] }, { servers: [{ host: 'b', port: 2 }] }] })
    await put('checked', {
      enable: true,
      timeout: 2,
      servers: [{ host: 'a', port: 1 }, { host: 'a', port: 1 }, { host: '' }],
    })
    await consul.put('config/slardar/lua/script', 'return 1')
    await consul.put('config/slardar/upstreams_stream/1935', '{}')
    const watched = watch(consulKv({ prefix: 'config/slardar/', layout: 'slardar', address: consul.address }))
    await eventually(() => expect(watched.lists).toHaveLength(1))
    const plain = [{ servers: [{ host: '10.0.0.1', port: 80, weight: 3, maxFails: 2, failTimeout: 5_000 }] }]
    expect(watched.lists[0]!.upstreams).toEqual(
      new Map<string, unknown>([
        [
          'checked',
          {
            cluster: [{ servers: [{ host: 'a', port: 1 }] }],
            heartbeat: { type: 'tcp', timeout: 2_000 },
            timeouts: { connect: 2_000, send: 2_000, read: 2_000 },
          },
        ],
        ['levels', [{ servers: [{ host: 'a', port: 1 }] }, { servers: [{ host: 'b', port: 2 }] }]],
        ['plain', plain],
      ]),
    )
    expect(watched.refused().map(({ at, reason }) => `${at}: ${reason}`)).toEqual([
      'config/slardar/upstreams/checked: servers[1]: the same address as a server before it',
      'config/slardar/upstreams/checked: servers[2].port: expected an integer from 1 to 65535, got undefined',
    ])
    await put('plain', '{"servers": [')
    await eventually(() => expect(watched.refused()).toHaveLength(3))
    expect(watched.upstream('plain')).toEqual(plain)
    await consul.del('config/slardar/upstreams/plain')
    await eventually(() => expect(watched.upstream('plain')).toBeUndefined())
  })
})

describe('consulKv', () => {
  const base = { prefix: 'upstreams', layout: 'upsync' } as const
  it.each([
    [{}, /^consulKv.prefix: expected a non-empty string/],
    [{ ...base, prefix: '//' }, /^consulKv.prefix: expected a folder of keys/],
    [{ ...base, layout: 'etcd' }, /^consulKv.layout: expected "upsync" or "slardar"/],
    [{ ...base, layout: 'slardar', upstream: 'a' }, /^consulKv.upstream: only with/],
    [{ ...base, adress: '' }, /^consulKv.adress: unknown option/],
    [{ ...base, wait: 0 }, /^consulKv.wait: expected milliseconds/],
    [{ ...base, wait: 700_000 }, /^consulKv.wait: .*at most 600,000/],
    [{ ...base, address: 'unix:///run/consul.sock' }, /^consulKv.address: expected "host:port"/],
    [{ ...base, address: 'http://h:1/v1' }, /^consulKv.address: expected "host:port"/],
    [{ ...base, address: 'http://h:1', tls: true }, /^consulKv.address: is http/],
    [{ ...base, addresses: [] }, /^consulKv.addresses: expected at least one/],
    [{ ...base, addresses: ['a', 5] }, /^consulKv.addresses\[1\]: expected a non-empty string/],
    [{ ...base, address: 'a', addresses: ['b'] }, /^consulKv: expected address or addresses/],
    [{ ...base, token: 5 }, /^consulKv.token: expected a non-empty string/],
    [{ ...base, requestTimeout: 0 }, /^consulKv.requestTimeout: /],
  ])('refuses %j', (options, message) => {
    expect(() => consulKv(options as never)).toThrow(message)
  })

  it('passes on how it is to be followed, and nothing else', () => {
    const source = consulKv({ ...base, allowEmpty: true, required: true, snapshot: 'x', address: '[::1]:8500' })
    expect(source.options).toEqual({ allowEmpty: true, required: true, snapshot: 'x' })
    expect(source.name).toBe('consul:upstreams/')
  })
})
