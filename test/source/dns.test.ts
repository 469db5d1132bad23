import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { systemClock } from '../../src/clock.js'
import { Checkups } from '../../src/index.js'
import { dns, type DnsOptions } from '../../src/source/dns.js'
import type { SourceErrorEvent } from '../../src/source/follow.js'
import type { Refused, SourceLists } from '../../src/source/source.js'
import { a, aaaa, NXDOMAIN, SERVFAIL, SILENT, srv, startDns, zoneOf } from '../support/dns.js'
import type { DnsServer, Zone } from '../support/dns.js'
import { eventually } from '../support/eventually.js'
import { startDnsmasq, whereInstalled } from '../support/servers.js'

type Upstreams = DnsOptions['upstreams']

const api: Upstreams = { api: { name: 'api.test', type: 'A', port: 80 } }
const service: Upstreams = { api: { name: '_http._tcp.test', type: 'SRV' } }

/** Lists by key, and what was refused. */
type Given = Record<string, unknown> & { readonly refused: readonly Refused[] }

/** Follows with sleeps that end when the test says so. */
function follow(server: Pick<DnsServer, 'address'>, options: Partial<DnsOptions> & Pick<DnsOptions, 'upstreams'>) {
  const controller = new AbortController()
  const applied: SourceLists[] = []
  const sleeps: { ms: number; end: () => void }[] = []
  const source = dns({ servers: [server.address], jitter: 0, ...options })
  let told: () => void = () => undefined
  const run = () => {
    const done = source.watch(
      (lists) => {
        applied.push(lists)
        told()
      },
      {
        signal: controller.signal,
        clock: systemClock,
        sleep: (ms) =>
          new Promise((resolve, reject) => {
            sleeps.push({ ms, end: resolve })
            controller.signal.addEventListener('abort', () => reject(controller.signal.reason as Error))
          }),
      },
    )
    done.catch(() => undefined)
    return done
  }
  onTestFinished(() => controller.abort())
  return {
    controller,
    source,
    run,
    applied,
    /** Ends all sleeps of so many milliseconds. */
    pass: (ms: number) => {
      const due = sleeps.filter((sleep) => sleep.ms === ms)
      expect(due.length, `a sleep of ${ms} ms among ${sleeps.map(({ ms }) => ms).join()}`).toBeGreaterThan(0)
      for (const sleep of due) sleeps.splice(sleeps.indexOf(sleep), 1)[0]!.end()
    },
    sleeps,
    /** The lists that are applied next, or were since it was asked last. */
    next: async (): Promise<Given> => {
      if (applied.length === 0) await new Promise<void>((resolve) => (told = resolve))
      const { upstreams, refused } = applied.shift()!
      return { ...Object.fromEntries(upstreams as Map<string, unknown>), refused: refused! }
    },
  }
}

const level = (...servers: readonly [host: string, port: number, weight?: number][]) => ({
  servers: servers.map(([host, port, weight = 1]) => ({ host, port, weight })),
})

async function lists(zone: Zone, upstreams: Upstreams): Promise<Given> {
  const { run, next } = follow(await startDns(zone), { upstreams })
  return Promise.race([next(), run().then(() => Promise.reject(new Error('it does not end')))])
}

describe('addresses', () => {
  const zone = zoneOf([
    a('api.test', '10.0.0.2'),
    a('api.test', '10.0.0.10'),
    a('api.test', '10.0.0.2'),
    aaaa('api.test', '2001:db8:0:0::1'),
  ])

  it('are sorted and each there once', async () => {
    expect(await lists(zone, { api: { name: 'API.test.', type: 'A', port: 80, weight: 5 } })).toEqual({
      api: [level(['10.0.0.10', 80, 5], ['10.0.0.2', 80, 5])],
      refused: [],
    })
  })

  it('of IPv6 are as the library spells them', async () => {
    const upstreams: Upstreams = { api: { name: 'api.test', type: 'AAAA', port: 80 } }
    expect(await lists(zone, upstreams)).toMatchObject({ api: [level(['2001:db8::1', 80])] })
  })

  it('of both families are one list; if one is not answered there is none', async () => {
    const upstreams: Upstreams = { api: { name: 'api.test', type: 'A+AAAA', port: 80 } }
    const all = level(['10.0.0.10', 80], ['10.0.0.2', 80], ['2001:db8::1', 80])
    expect(await lists(zone, upstreams)).toMatchObject({ api: [all] })
    const half: Zone = (asked) => (asked.type === 'A' ? zone(asked) : { code: SERVFAIL })
    await expect(lists(half, upstreams)).rejects.toThrow('api.test AAAA: SERVFAIL')
  })

  it('of a name that has none are an empty list, for the guard of the loop', async () => {
    expect(await lists(() => ({}), api)).toEqual({ api: [level()], refused: [] })
  })

  it('of one name for several upstreams are asked for once', async () => {
    const server = await startDns(zone)
    const upstreams: Upstreams = { ...api, other: { name: 'api.test', type: 'A', port: 81 } }
    const { run, next } = follow(server, { upstreams })
    void run()
    expect(await next()).toMatchObject({
      api: [level(['10.0.0.10', 80], ['10.0.0.2', 80])],
      other: [level(['10.0.0.10', 81], ['10.0.0.2', 81])],
    })
    expect(server.asked).toHaveLength(1)
  })

  it('belong to keys of any name', async () => {
    const upstreams = Object.fromEntries([['__proto__', api['api']!]])
    const { run, applied } = follow(await startDns(zone), { upstreams })
    void run()
    await eventually(() => expect(applied).toHaveLength(1))
    expect([...(applied[0]!.upstreams as Map<string, unknown>).keys()]).toEqual(['__proto__'])
  })
})

describe('service records', () => {
  const name = '_http._tcp.test'

  it('are levels by priority and servers by weight; a weight of 0 is 1', async () => {
    const zone: Zone = () => ({
      answers: [srv(name, 'c.test', 83, 20, 7), srv(name, 'b.test', 82, 10, 0), srv(name, 'a.test', 81, 10, 60)],
      additionals: [a('a.test', '10.0.0.1'), a('b.test', '10.0.0.2'), a('c.test', '10.0.0.3')],
    })
    expect(await lists(zone, service)).toEqual({
      api: [level(['10.0.0.1', 81, 60], ['10.0.0.2', 82, 1]), level(['10.0.0.3', 83, 7])],
      refused: [],
    })
  })

  it('take the addresses that came with them, and ask for the others', async () => {
    const asked: string[] = []
    const zone: Zone = ({ name: asks, type }) => {
      asked.push(`${asks} ${type}`)
      if (type === 'SRV') {
        return {
          answers: ['a.test', 'b.test', 'c.test', 'd.test'].map((target, i) => srv(name, target, 81 + i)),
          additionals: [aaaa('a.test', '::9'), a('A.test', '10.0.0.1'), aaaa('b.test', '::2'), a('x.test', '10.6.6.6')],
        }
      }
      return zoneOf([a('c.test', '10.0.0.3'), a('c.test', '10.0.0.33'), aaaa('c.test', '::3'), aaaa('d.test', '::4')])({
        ...{ name: asks, type, over: 'udp', id: 0, port: 0, size: 0 },
      })
    }
    expect(await lists(zone, service)).toEqual({
      api: [level(['10.0.0.1', 81], ['10.0.0.33', 83], ['10.0.0.3', 83], ['::2', 82], ['::4', 84])],
      refused: [],
    })
    expect(asked.sort()).toEqual([`${name} SRV`, 'c.test A', 'd.test A', 'd.test AAAA'].sort())
  })

  it('of one server under two names are one; one that is there twice is there once', async () => {
    const zone: Zone = () => ({
      answers: [srv(name, 'a.test', 80, 0, 2), srv(name, 'b.test', 80, 0, 3), srv(name, 'a.test', 80, 0, 2)],
      additionals: [a('a.test', '10.0.0.1'), a('b.test', '10.0.0.1')],
    })
    expect(await lists(zone, service)).toMatchObject({ api: [level(['10.0.0.1', 80, 5])] })
  })

  it('that are of no use are left out, and reported', async () => {
    const zone: Zone = ({ type, name: asked }) =>
      type === 'SRV'
        ? {
            answers: [
              srv(name, 'a.test', 80),
              srv(name, 'a.test', 0),
              srv(name, 'no name.test', 80),
              srv(name, 'empty.test', 80),
              srv(name, 'gone.test', 80),
            ],
            additionals: [a('a.test', '10.0.0.1')],
          }
        : asked === 'gone.test'
          ? { code: NXDOMAIN }
          : {}
    const { api: cluster, refused } = await lists(zone, service)
    expect(cluster).toEqual([level(['10.0.0.1', 80])])
    expect(refused).toEqual([
      { at: `${name} SRV "no name.test"`, reason: 'not a host name' },
      { at: `${name} SRV a.test`, reason: 'the port 0' },
      { at: `${name} SRV empty.test`, reason: 'no address' },
      { at: `${name} SRV gone.test`, reason: expect.stringContaining('gone.test A: NXDOMAIN') as string },
    ])
  })

  it('of a service that is decidedly not there are an empty list', async () => {
    expect(await lists(() => ({ answers: [srv(name, '.', 0)] }), service)).toEqual({ api: [level()], refused: [] })
  })

  it('keep what is known of a target while nobody can say; nothing known of any is a failure', async () => {
    let isUp = true
    const zone: Zone = ({ type }) =>
      type === 'SRV'
        ? { answers: [srv(name, 'a.test', 80)] }
        : isUp
          ? { answers: [a('a.test', '10.0.0.1', 0)] }
          : { code: 2 }
    const server = await startDns(zone)
    const { run, next, pass } = follow(server, { upstreams: service, minTtl: 777 })
    void run()
    expect(await next()).toEqual({ api: [level(['10.0.0.1', 80])], refused: [] })
    isUp = false
    pass(777)
    const { api: cluster, refused } = await next()
    expect(cluster).toEqual([level(['10.0.0.1', 80])])
    expect(refused).toMatchObject([{ at: `${name} SRV a.test` }])
    await expect(lists(zone, service)).rejects.toThrow('a.test A: SERVFAIL')
  })

  it('ask for a target no sooner than its own time to live is over', async () => {
    const zone: Zone = ({ type }) =>
      type === 'SRV' ? { answers: [srv(name, 'a.test', 80, 0, 1, 1)] } : { answers: [a('a.test', '10.0.0.1', 600)] }
    const server = await startDns(zone)
    const { run, next, pass } = follow(server, { upstreams: service, minTtl: 777 })
    void run()
    await next()
    pass(1_000)
    await next()
    expect(server.asked.map(({ type }) => type)).toEqual(['SRV', 'A', 'SRV'])
  })
})

describe('time', () => {
  it.each([
    [0, 5_000],
    [60, 60_000],
    [86_400, 300_000],
  ])('a time to live of %i s is asked again after %i ms', async (ttl, ms) => {
    const server = await startDns(() => ({ answers: [a('api.test', '10.0.0.1', ttl)] }))
    const { run, next, pass } = follow(server, { upstreams: api })
    void run()
    const first = await next()
    await eventually(() => pass(ms))
    expect(await next()).toEqual(first)
    expect(server.asked).toHaveLength(2)
  })

  it('is stretched by chance', async () => {
    const server = await startDns(() => ({ answers: [a('api.test', '10.0.0.1', 60)] }))
    const names = Array.from({ length: 40 }, (_, i) => [`n${i}`, { name: 'api.test', type: 'A', port: 80 }] as const)
    const times = new Set<number>()
    for (const [key, value] of names) {
      const { run, next, sleeps, controller } = follow(server, { upstreams: { [key]: value }, jitter: 0.5 })
      void run()
      await next()
      await eventually(() => expect(sleeps).toHaveLength(2))
      const { ms } = sleeps.find(({ ms }) => ms !== 2_000)!
      expect(ms).toBeGreaterThanOrEqual(60_000)
      expect(ms).toBeLessThan(90_000)
      times.add(ms)
      controller.abort()
    }
    expect(times.size).toBeGreaterThan(30)
  })

  it('another order of the same addresses gives the same list, the same object', async () => {
    const answers = [a('api.test', '10.0.0.1'), a('api.test', '10.0.0.2')]
    const server = await startDns(() => ({ answers: answers.reverse() }))
    const { run, next, pass } = follow(server, { upstreams: api })
    void run()
    const first = await next()
    pass(60_000)
    expect((await next())['api']).toBe(first['api'])
  })
})

describe('failures', () => {
  const both: Upstreams = { ...api, other: { name: 'other.test', type: 'A', port: 80 } }
  const ok = { answers: [a('api.test', '10.0.0.1')] }

  it('of all names reject; NXDOMAIN is not an empty list', async () => {
    await expect(lists(() => ({ code: NXDOMAIN }), api)).rejects.toThrow(/^api\.test A: NXDOMAIN \(127\.0\.0\.1:\d+\)$/)
    await expect(lists(() => ({ code: SERVFAIL }), both)).rejects.toThrow(
      /api\.test A: SERVFAIL.*other\.test A: SERVFAIL/,
    )
  })

  it('of one name are reported; the others go on, and it keeps what it had', async () => {
    const server = await startDns(({ name }) => ({ answers: [a(name, '10.0.0.1')] }))
    const { run, next, pass, sleeps } = follow(server, { upstreams: both })
    void run()
    const servers = [level(['10.0.0.1', 80])]
    expect(await next()).toEqual({ api: servers, other: servers, refused: [] })
    server.zone = ({ name }) => (name === 'api.test' ? { answers: [a(name, '10.0.0.2')] } : { code: NXDOMAIN })
    pass(60_000)
    await eventually(() => expect(sleeps.filter(({ ms }) => ms !== 2_000)).toHaveLength(2))
    await next()
    expect(await next()).toEqual({
      api: [level(['10.0.0.2', 80])],
      other: servers,
      refused: [{ at: 'other', reason: `other.test A: NXDOMAIN (${server.address})` }],
    })
    // It is asked again soon, whatever the others do.
    const soon = sleeps.find(({ ms }) => ms <= 100)!
    server.zone = ({ name }) => ({ answers: [a(name, '10.0.0.3')] })
    soon.end()
    expect(await next()).toEqual({ api: [level(['10.0.0.2', 80])], other: [level(['10.0.0.3', 80])], refused: [] })
  })

  it('of a name that never was there leave it out', async () => {
    const server = await startDns(({ name }) => (name === 'api.test' ? ok : { code: NXDOMAIN }))
    const { run, next } = follow(server, { upstreams: both })
    void run()
    const given = await next()
    expect(Object.keys(given)).toEqual(['api', 'refused'])
    expect(given.refused).toHaveLength(1)
  })

  it('end when watch is called again, and what was known stays', async () => {
    const server = await startDns(({ name }) => ({ answers: [a(name, '10.0.0.1')] }))
    const { run, next, pass } = follow(server, { upstreams: both })
    const first = run()
    const before = await next()
    server.zone = () => ({ code: SERVFAIL })
    pass(60_000)
    await next()
    await expect(first).rejects.toThrow('SERVFAIL')
    server.zone = ({ name }) => (name === 'api.test' ? ok : { code: SERVFAIL })
    void run()
    expect(await next()).toEqual({ ...before, refused: [{ at: 'other', reason: expect.any(String) as string }] })
  })

  it('that take their time do not hold up the other names for long', async () => {
    const server = await startDns(({ name }) => (name === 'api.test' ? ok : SILENT))
    const { run, next, pass, applied, controller, sleeps } = follow(server, { upstreams: both, queryTimeout: 3_000 })
    const done = run()
    await eventually(() => expect(sleeps).toHaveLength(2))
    expect(applied).toEqual([])
    pass(3_000)
    expect(await next()).toEqual({ api: [level(['10.0.0.1', 80])], refused: [] })
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(done).rejects.toBe(reason)
  })

  it('are no lists: nothing is applied before something is known', async () => {
    let answer: (() => void) | undefined
    const late = new Promise<void>((resolve) => (answer = resolve))
    const server = await startDns(({ name }) => (name === 'api.test' ? late.then(() => ok) : { code: NXDOMAIN }))
    const { run, next, pass, applied, sleeps } = follow(server, { upstreams: both, queryTimeout: 3_000 })
    void run()
    await eventually(() => expect(sleeps).toHaveLength(2))
    pass(3_000)
    sleeps[0]!.end()
    await eventually(() => expect(server.asked.filter(({ name }) => name === 'other.test')).toHaveLength(2))
    expect(applied).toEqual([])
    answer!()
    expect(await next()).toMatchObject({ api: [level(['10.0.0.1', 80])], refused: [{ at: 'other' }] })
  })

  it('of a name of which only a snapshot knows something do not have it taken for gone', async () => {
    const server = await startDns(({ name }) => ({ answers: [a(name, '10.0.0.1')] }))
    const folder = mkdtempSync(join(tmpdir(), 'checkups-dns-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const begin = () => {
      const options = { allowEmpty: true, snapshot: join(folder, 'snapshot') }
      return new Checkups({ sources: [dns({ upstreams: both, servers: [server.address], ...options })] })
    }
    const before = begin()
    await before.start()
    await before.close()
    server.zone = ({ name }) => (name === 'api.test' ? { answers: [a(name, '10.0.0.2')] } : { code: SERVFAIL })
    const after = begin()
    onTestFinished(() => after.close())
    const failed = new Promise<SourceErrorEvent>((resolve) => after.on('source:error', resolve))
    await after.start()
    expect((await failed).error).toMatchObject({ message: expect.stringContaining('other.test A: SERVFAIL') as string })
    expect(after.selectPeer('other')?.address).toBe('10.0.0.1:80')
    const updated = new Promise((resolve) => after.on('upstream:update', resolve))
    server.zone = ({ name }) => ({ answers: [a(name, '10.0.0.3')] })
    await updated
    await expect.poll(() => after.selectPeer('other')?.address).toBe('10.0.0.3:80')
  })

  it('and answers of many names warn nobody of listeners', async () => {
    const warned = vi.fn()
    process.on('warning', warned)
    onTestFinished(() => void process.off('warning', warned))
    const server = await startDns(({ name }) => ({ answers: [a(name, '10.0.0.1')] }))
    const names = Array.from({ length: 100 }, (_, i) => [`n${i}`, { name: `n${i}.test`, type: 'A', port: 80 }] as const)
    const { run, next } = follow(server, { upstreams: Object.fromEntries(names) })
    void run()
    expect(Object.keys(await next())).toHaveLength(101)
    // A warning is told in the next tick.
    await new Promise(setImmediate)
    expect(warned).not.toHaveBeenCalled()
  })
})

describe('options', () => {
  const bad = (options: unknown) => () => dns(options as DnsOptions)

  it('are checked', () => {
    expect(bad(undefined)).toThrow('dns: expected an object')
    expect(bad({ upstreams: api, server: [] })).toThrow('dns.server: unknown option')
    expect(bad({})).toThrow('dns.upstreams: expected an object')
    expect(bad({ upstreams: { api: { name: '', type: 'A' } } })).toThrow('dns.upstreams.api.name: expected a non-empty')
    for (const name of ['a b', '10.0.0.1', '::1', 'a..b', `${'a'.repeat(64)}.test`, '.']) {
      expect(bad({ upstreams: { api: { name, type: 'A' } } })).toThrow('dns.upstreams.api.name: expected a domain name')
    }
    expect(bad({ upstreams: { api: { name: 'a', type: 'MX' } } })).toThrow('dns.upstreams.api.type: expected "A" or')
    expect(bad({ upstreams: { api: { name: 'a', type: 'A' } } })).toThrow('dns.upstreams.api.port: expected an integer')
    expect(bad({ upstreams: { api: { name: 'a', type: 'SRV', port: 80 } } })).toThrow('port: not with SRV')
    expect(bad({ upstreams: { api: { name: 'a', type: 'SRV', weight: 1 } } })).toThrow('weight: not with SRV')
    expect(bad({ upstreams: { api: { name: 'a', type: 'SRV', ttl: 1 } } })).toThrow('api.ttl: unknown option')
    expect(bad({ upstreams: api, servers: [] })).toThrow('dns.servers: expected at least one')
    expect(bad({ upstreams: api, servers: ['localhost'] })).toThrow('dns.servers[0]: expected')
    expect(bad({ upstreams: api, servers: ['a.test:53'] })).toThrow('dns.servers[0]: expected an IP address')
    expect(bad({ upstreams: api, minTtl: 100 })).toThrow('dns.minTtl: expected milliseconds')
    expect(bad({ upstreams: api, minTtl: 500, maxTtl: 400 })).toThrow('dns.maxTtl: expected milliseconds')
    expect(bad({ upstreams: api, jitter: 2 })).toThrow('dns.jitter: expected a number from 0 to 1')
    expect(bad({ upstreams: api, queryTimeout: 0 })).toThrow('dns.queryTimeout: expected milliseconds')
  })

  it('name servers with and without port, of both families', () => {
    const servers = ['127.0.0.1', '127.0.0.1:8600', '::1', '[::1]', '[::1]:8600', 'fe80::1%eth0']
    expect(bad({ upstreams: api, servers, minTtl: 600_000 })).not.toThrow()
  })

  it('of the loop are handed to it', () => {
    expect(dns({ upstreams: api })).toMatchObject({ name: 'dns', options: {} })
    expect(dns({ upstreams: api, name: 'consul', snapshot: 'x', allowEmpty: true })).toMatchObject({
      name: 'consul',
      options: { snapshot: 'x', allowEmpty: true },
    })
  })

  it('without name servers the system is asked for them', async () => {
    const { run, next } = follow(await startDns(zoneOf([])), { upstreams: api, servers: undefined })
    // Whatever it has, of the reserved domain nobody knows anything.
    await expect(Promise.race([run(), next()])).rejects.toThrow('api.test A: ')
  })
})

whereInstalled('dnsmasq', 'dnsmasq', () => {
  it('serves addresses, aliases and service records', async () => {
    const server = await startDnsmasq([
      '--host-record=a.test,10.0.0.1,2001:db8::1,30',
      '--host-record=b.test,10.0.0.2,30',
      '--cname=alias.test,a.test,20',
      '--srv-host=_http._tcp.test,a.test,8080,10,5',
      '--srv-host=_http._tcp.test,b.test,8081,20,0',
      '--address=/empty.test/',
    ])
    onTestFinished(() => server.stop())
    const { run, next } = follow(
      { address: `127.0.0.1:${server.port}` },
      {
        upstreams: {
          a: { name: 'a.test', type: 'A+AAAA', port: 80 },
          alias: { name: 'alias.test', type: 'A', port: 80 },
          none: { name: 'b.test', type: 'AAAA', port: 80 },
          gone: { name: 'gone.test', type: 'A', port: 80 },
          service: { name: '_http._tcp.test', type: 'SRV' },
        },
      },
    )
    void run()
    expect(await next()).toEqual({
      a: [level(['10.0.0.1', 80], ['2001:db8::1', 80])],
      alias: [level(['10.0.0.1', 80])],
      none: [level()],
      service: [level(['10.0.0.1', 8080, 5]), level(['10.0.0.2', 8081, 1])],
      refused: [{ at: 'gone', reason: `gone.test A: NXDOMAIN (127.0.0.1:${server.port})` }],
    })
  })

  it('serves 300 service records', async () => {
    const records = Array.from({ length: 300 }, (_, i) => [
      `--host-record=server-${i}.test,10.0.${i >> 8}.${i & 255}`,
      `--srv-host=_http._tcp.test,server-${i}.test,8080,10,5`,
    ])
    const server = await startDnsmasq(records.flat())
    onTestFinished(() => server.stop())
    const { run, next } = follow({ address: `127.0.0.1:${server.port}` }, { upstreams: service })
    void run()
    const { api: cluster } = await next()
    expect(cluster).toMatchObject([{ servers: { length: 300 } }])
  })
})
