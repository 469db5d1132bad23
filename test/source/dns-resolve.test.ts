/** Servers whose hosts are names that the source asks for. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Checkups } from '../../src/index.js'
import { dns, type DnsOptions } from '../../src/source/dns.js'
import { a, aaaa, SERVFAIL, SILENT, startDns, zoneOf } from '../support/dns.js'
import type { DnsServer } from '../support/dns.js'

type Upstreams = DnsOptions['upstreams']

/** An instance that follows, closed with the test. Every name is asked for again after 200 ms, or before, by its back-off. */
async function start(server: DnsServer, upstreams: Upstreams, options: Partial<DnsOptions> = {}) {
  const times = { minTtl: 200, jitter: 0 }
  const checkups = new Checkups({ sources: [dns({ upstreams, servers: [server.address], ...times, ...options })] })
  onTestFinished(() => checkups.close())
  await checkups.start()
  return checkups
}

/** The servers of an upstream as configured, by level. */
function serversOf(checkups: Checkups, key: string) {
  const found = checkups.getStatus().upstreams.find((upstream) => upstream.key === key)
  return found?.levels.map(({ servers }) => servers.map(({ server }) => server))
}

function addressesOf(checkups: Checkups, key: string) {
  return serversOf(checkups, key)?.map((servers) => servers.map(({ host, port }) => `${host}:${port}`))
}

const source = (checkups: Checkups) => checkups.getStatus().sources[0]!

const zone = zoneOf([
  a('api.test', '10.0.0.2', 0),
  a('api.test', '10.0.0.1', 0),
  aaaa('api.test', '2001:db8::1', 0),
  a('other.test', '10.0.0.1', 0),
  a('other.test', '10.0.0.9', 0),
])

describe('resolve', () => {
  it('makes a server of each address, with the options of the server; others stay as they are', async () => {
    const labels = { zone: 'b' }
    const meta = { any: 'thing' }
    const checkups = await start(await startDns(zone), {
      api: [
        {
          servers: [
            {
              host: 'API.test.',
              port: 80,
              weight: 3,
              maxFails: 4,
              maxConns: 5,
              backup: true,
              labels,
              meta,
              resolve: 'A',
            },
            { address: 'other.test:81', resolve: false },
            { host: 'plain.test', port: 82 },
            '10.0.0.7:83',
          ],
        },
        { servers: [{ address: 'api.test:84', resolve: 'AAAA' }, { path: '/run/app.sock' }] },
      ],
    })
    const same = { weight: 3, maxFails: 4, maxConns: 5, backup: true, labels, meta }
    expect(serversOf(checkups, 'api')).toMatchObject([
      [
        { host: '10.0.0.1', port: 80, ...same },
        { host: '10.0.0.2', port: 80, ...same },
        { host: 'other.test', port: 81, weight: 1 },
        { host: 'plain.test', port: 82 },
        { host: '10.0.0.7', port: 83 },
      ],
      [{ host: '2001:db8::1', port: 84 }, { path: '/run/app.sock' }],
    ])
    expect(source(checkups)).toMatchObject({ state: 'current', refused: [] })
  })

  it('takes named clusters and whole configurations, by either key; true is both families', async () => {
    const server = { host: 'api.test', port: 80, resolve: true } as const
    const checkups = await start(await startDns(zone), {
      // Of names that a name has as its options.
      named: { name: { servers: [server] }, type: { servers: ['10.0.0.8:80'] } },
      whole: { servers: [server], balancer: 'least-connections', maxFails: 7 },
      levels: { cluster: [{ servers: [server] }], tries: 2 },
    })
    const all = ['10.0.0.1:80', '10.0.0.2:80', '2001:db8::1:80']
    expect(addressesOf(checkups, 'named')).toEqual([all, ['10.0.0.8:80']])
    expect(checkups.getUpstream('named')).toMatchObject({ cluster: { name: {}, type: {} } })
    expect(addressesOf(checkups, 'whole')).toEqual([all])
    expect(checkups.getUpstream('whole')).toMatchObject({ balancer: 'least-connections', maxFails: 7 })
    expect(addressesOf(checkups, 'levels')).toEqual([all])
    expect(checkups.getUpstream('levels')).toMatchObject({ tries: 2 })
  })

  it('asks once for a name that several servers have', async () => {
    const server = await startDns(() => ({ answers: [a('api.test', '10.0.0.1', 60)] }))
    const checkups = await start(server, {
      api: [80, 81].map((port) => ({ servers: [{ host: 'api.test', port, resolve: 'A' as const }] })),
      other: { servers: [{ host: 'api.test', port: 82, resolve: 'A' }] },
      third: { name: 'api.test', type: 'A', port: 83 },
    })
    expect(addressesOf(checkups, 'api')).toEqual([['10.0.0.1:80'], ['10.0.0.1:81']])
    expect(addressesOf(checkups, 'other')).toEqual([['10.0.0.1:82']])
    expect(addressesOf(checkups, 'third')).toEqual([['10.0.0.1:83']])
    expect(server.asked).toHaveLength(1)
  })

  it('of an address that two names of a level stand for takes the first, and says so', async () => {
    const checkups = await start(await startDns(zone), {
      api: {
        servers: [
          { host: 'api.test', port: 80, weight: 2, resolve: 'A' },
          { host: 'other.test', port: 80, weight: 5, resolve: 'A' },
        ],
      },
    })
    expect(serversOf(checkups, 'api')).toMatchObject([
      [
        { host: '10.0.0.1', weight: 2 },
        { host: '10.0.0.2', weight: 2 },
        { host: '10.0.0.9', weight: 5 },
      ],
    ])
    expect(source(checkups).refused).toEqual([
      { at: 'upstreams.api.servers[2]', reason: '10.0.0.1:80 is there already' },
    ])
  })

  it('keeps what is known of the peers that stay when addresses change', async () => {
    const server = await startDns(zone)
    const checkups = await start(server, {
      api: { servers: ['10.0.0.7:80', { address: 'api.test:80', resolve: 'A' }] },
    })
    const failed = { host: '10.0.0.2', port: 80 }
    expect(checkups.feedbackStatus('api', failed, 'failed')).toBe(true)
    const updated = new Promise<{ added: readonly object[]; removed: readonly object[] }>((resolve) => {
      checkups.on('upstream:update', resolve)
    })
    server.zone = () => ({ answers: [a('api.test', '10.0.0.2', 0), a('api.test', '10.0.0.3', 0)] })
    expect(await updated).toMatchObject({ added: [{ address: '10.0.0.3:80' }], removed: [{ address: '10.0.0.1:80' }] })
    expect(addressesOf(checkups, 'api')).toEqual([['10.0.0.7:80', '10.0.0.2:80', '10.0.0.3:80']])
    const [level] = checkups.getStatus().upstreams[0]!.levels
    expect(level!.servers.map(({ passive }) => passive.state)).toEqual(['up', 'banned', 'up'])
  })

  it('of a name that fails keeps its addresses; the others go on', async () => {
    const server = await startDns(zone)
    const checkups = await start(server, {
      api: {
        servers: [
          { host: 'api.test', port: 80, resolve: 'A' },
          { host: 'other.test', port: 81, resolve: 'A' },
        ],
      },
    })
    const updated = new Promise((resolve) => checkups.on('upstream:update', resolve))
    server.zone = ({ name }) => (name === 'api.test' ? { code: SERVFAIL } : { answers: [a(name, '10.0.0.5', 0)] })
    await updated
    expect(addressesOf(checkups, 'api')).toEqual([['10.0.0.1:80', '10.0.0.2:80', '10.0.0.5:81']])
    const reason = `api.test A: SERVFAIL (${server.address})`
    await expect.poll(() => source(checkups).refused).toEqual([{ at: 'api', reason }])
    expect(source(checkups).state).toBe('current')
  })

  it('of a name that never was there leaves its servers out until it is; an upstream without any is not read', async () => {
    const server = await startDns((asked) => (asked.name === 'other.test' ? { code: SERVFAIL } : zone(asked)))
    const other = { host: 'other.test', port: 80, resolve: 'A' } as const
    const checkups = await start(server, {
      both: {
        servers: [
          { host: 'api.test', port: 80, resolve: 'A' },
          { ...other, port: 81 },
        ],
      },
      none: [{ servers: [other] }],
    })
    expect(addressesOf(checkups, 'both')).toEqual([['10.0.0.1:80', '10.0.0.2:80']])
    expect(addressesOf(checkups, 'none')).toBeUndefined()
    const reason = `other.test A: SERVFAIL (${server.address})`
    expect(source(checkups).refused).toEqual([
      { at: 'both', reason },
      { at: 'none', reason },
    ])
    server.zone = zone
    await expect.poll(() => addressesOf(checkups, 'none')).toEqual([['10.0.0.1:80', '10.0.0.9:80']])
    expect(addressesOf(checkups, 'both')).toEqual([['10.0.0.1:80', '10.0.0.2:80', '10.0.0.1:81', '10.0.0.9:81']])
    expect(source(checkups).refused).toEqual([])
  })

  it('of a name that is not answered yet says so when the others are given', async () => {
    const server = await startDns((asked) => (asked.name === 'other.test' ? SILENT : zone(asked)))
    const servers = ['api', 'other'].map((name) => ({ host: `${name}.test`, port: 80, resolve: 'A' as const }))
    const checkups = await start(server, { api: { servers } }, { queryTimeout: 500 })
    expect(addressesOf(checkups, 'api')).toEqual([['10.0.0.1:80', '10.0.0.2:80']])
    expect(source(checkups).refused).toEqual([{ at: 'api', reason: 'other.test A: no answer yet' }])
  })

  it('holds up no server that needs no name: they are there though all names fail, and the source says that they do', async () => {
    const server = await startDns(() => ({ code: SERVFAIL }))
    const checkups = await start(server, {
      api: { servers: ['10.0.0.7:80', { address: 'api.test:80', resolve: 'A' }] },
    })
    expect(addressesOf(checkups, 'api')).toEqual([['10.0.0.7:80']])
    await expect.poll(() => source(checkups).state).toBe('stale')
    expect(source(checkups).error).toContain('api.test A: SERVFAIL')
    // Failing again and again it does not become current in between.
    const ups: unknown[] = []
    checkups.on('source:up', (event) => ups.push(event))
    await expect.poll(() => server.asked.length).toBeGreaterThanOrEqual(3)
    await expect.poll(() => source(checkups).asks).toBeGreaterThanOrEqual(3)
    expect(ups).toEqual([])
    server.zone = zone
    await expect.poll(() => addressesOf(checkups, 'api')).toEqual([['10.0.0.7:80', '10.0.0.1:80', '10.0.0.2:80']])
    expect(source(checkups).state).toBe('current')
  })

  it('nowhere: the servers are given at once, and nobody is asked', async () => {
    const server = await startDns(zone)
    const servers = ['10.0.0.7:80', { address: 'api.test:80', resolve: false }]
    const checkups = await start(server, { api: [{ servers }] }, { queryTimeout: 60_000 })
    expect(addressesOf(checkups, 'api')).toEqual([['10.0.0.7:80', 'api.test:80']])
    expect(source(checkups).state).toBe('current')
    expect(server.asked).toEqual([])
  })

  it('is not known to what comes after: a snapshot has the addresses', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'checkups-dns-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const snapshot = join(folder, 'snapshot')
    const server = await startDns(zone)
    const upstreams: Upstreams = { api: { servers: [{ address: 'api.test:80', weight: 2, resolve: 'A' }] } }
    await (await start(server, upstreams, { snapshot })).close()
    server.zone = () => ({ code: SERVFAIL })
    const after = await start(server, upstreams, { snapshot })
    expect(serversOf(after, 'api')).toMatchObject([[{ host: '10.0.0.1', weight: 2 }, { host: '10.0.0.2' }]])
    expect(source(after).fromSnapshot).toBe(true)
  })

  it('is checked, with all else that a configuration may say', () => {
    const bad = (value: unknown) => () => dns({ upstreams: { api: value } } as unknown as DnsOptions)
    const server = (options: object) => bad([{ servers: ['10.0.0.7:80', options] }])
    const at = 'dns.upstreams.api.cluster[0].servers[1]'
    expect(server({ host: 'api.test', port: 80, resolve: 'SRV' })).toThrow(`${at}.resolve: expected true, false, "A"`)
    expect(server({ host: '10.0.0.1', port: 80, resolve: true })).toThrow(`${at}.resolve: only with a domain name`)
    expect(server({ address: '[::1]:80', resolve: true })).toThrow(`${at}.resolve: only with a domain name`)
    expect(server({ host: 'a..b', port: 80, resolve: true })).toThrow(`${at}.resolve: only with a domain name`)
    expect(server({ path: '/run/app.sock', resolve: true })).toThrow(`${at}.resolve: not with a unix socket`)
    expect(server({ address: 'unix:/run/app.sock', resolve: true })).toThrow(`${at}.resolve: only with a domain name`)
    expect(server({ host: 'api.test', resolve: true })).toThrow(`${at}.port: expected an integer`)
    expect(server({ address: 'api.test', resolve: true })).toThrow(`${at}.address: expected "host:port"`)
    expect(server({ host: 'api.test', address: 'api.test:80', port: 80, resolve: true })).toThrow(
      `${at}: expected host`,
    )
    expect(server({ address: 'api.test:80', resolve: true, wait: 1 })).toThrow(`${at}.wait: unknown option`)
    expect(server({ address: 'api.test:80', weight: -1 })).toThrow(`${at}.weight: expected an integer`)
    expect(server({ address: '10.0.0.7:80' })).toThrow(`${at}: the same address as`)
    const one = { address: 'api.test:80', resolve: true }
    expect(bad({ servers: [one, one] })).toThrow('dns.upstreams.api.servers[1]: the same address as')
    expect(bad({ servers: [one], balancer: 'none' })).toThrow('dns.upstreams.api.balancer: ')
    expect(bad({ blue: { servers: one } })).toThrow('dns.upstreams.api.cluster["blue"].servers: expected an array')
    expect(bad({ cluster: { blue: { servers: [one], weight: 1 } } })).toThrow('cluster["blue"].weight: unknown option')
    expect(bad('10.0.0.7:80')).toThrow('dns.upstreams.api: expected an object')
  })
})
