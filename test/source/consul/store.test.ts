import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { isCheckupsError, UnknownPeerError, UnknownUpstreamError } from '../../../src/index.js'
import { consulKv, ConsulStore, type ConsulStoreOptions, type StoreResult } from '../../../src/source/consul.js'
import { startConsul, whereConsul, type ConsulAgent } from '../../support/consul.js'
import { eventually } from '../../support/eventually.js'
import { freePort } from '../../support/servers.js'
import { answer, pretend, watch } from './harness.js'

const layouts = ['upsync', 'slardar'] as const
const options = (consul: Pick<ConsulAgent, 'address'>, layout: (typeof layouts)[number]): ConsulStoreOptions => ({
  ...{ prefix: 'app', layout, address: consul.address },
})
const value = async (consul: ConsulAgent, key: string) => (await consul.api('GET', `/v1/kv/${key}?raw`)).text

/** A process of its own that, once told to go, adds 1 to the weight of a server, so many times, and says what its retries were. */
async function startWriter(consul: ConsulAgent, layout: string, address: string, times: number) {
  const script = fileURLToPath(new URL('store-writer.ts', import.meta.url))
  const child = spawn(process.execPath, ['--import', 'tsx', script, consul.address, layout, address, String(times)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  const closed = once(child, 'close') as Promise<[number]>
  await Promise.race([once(child.stdout, 'data'), closed])
  return async () => {
    output = ''
    child.stdin.end('go')
    const [code] = await closed
    expect(code).toBe(0)
    return Number(output)
  }
}

whereConsul('ConsulStore against Consul', () => {
  it.each(layouts)('%s: puts, patches and deletes; every watcher has it, once', async (layout) => {
    const consul = await startConsul()
    const store = new ConsulStore(options(consul, layout))
    const watched = watch(consulKv({ ...options(consul, layout) }))
    await eventually(() => expect(watched.lists).toHaveLength(1))
    const server = { weight: 3, maxFails: 5, failTimeout: 2_500 }

    const servers = [{ host: '10.0.0.1', port: 80, ...server, backup: true }, '[::1]:81']
    expect(await store.put('api', [{ servers }])).toEqual({ changed: true, retries: 0 })
    await eventually(() => expect(Object.keys(watched.servers('api') ?? {})).toHaveLength(2))
    expect(watched.servers('api')!['10.0.0.1:80']).toEqual({ ...server, backup: true })
    expect(await store.put('api', [{ servers }])).toEqual({ changed: false, retries: 0 })

    const before = watched.lists.length
    expect(await store.patchServer('api', '10.0.0.1:80', { down: true, weight: 4 })).toEqual({
      changed: true,
      retries: 0,
    })
    await eventually(() =>
      expect(watched.servers('api')!['10.0.0.1:80']).toEqual({ ...server, weight: 4, backup: true, down: true }),
    )
    expect(watched.lists.length).toBe(before + 1)
    await store.patchServer('api', '[0:0::1]:81', ({ weight = 1 }) => ({ weight: weight + 1 }))
    await eventually(() => expect(watched.servers('api')!['::1:81']).toMatchObject({ weight: 2 }))
    await store.patchServer('api', '10.0.0.1:80', { down: false, backup: false })
    await eventually(() => expect(watched.servers('api')!['10.0.0.1:80']).toEqual({ ...server, weight: 4 }))

    await store.put('api', { servers: ['10.0.0.3:80'], maxFails: 7 })
    await eventually(() => expect(watched.servers('api')).toMatchObject({ '10.0.0.3:80': { maxFails: 7 } }))
    expect(Object.keys(watched.servers('api')!)).toHaveLength(1)
    expect(watched.lists.length).toBe(before + 4)
    await expect(store.patchServer('api', '10.0.0.9:80', {})).rejects.toThrow(UnknownPeerError)
    await expect(store.patchServer('nobody', '10.0.0.9:80', {})).rejects.toThrow(UnknownUpstreamError)
    expect(await store.delete('api')).toEqual({ changed: true, retries: 0 })
    await eventually(() => expect(watched.upstream('api')).toBeUndefined())
    expect(await store.delete('api')).toEqual({ changed: false, retries: 0 })
    expect(watched.errors).toEqual([])
    store.close()
  })

  it.each(layouts)(
    '%s: adds and removes single servers, and is asked before it writes over something',
    async (layout) => {
      const consul = await startConsul()
      const store = new ConsulStore(options(consul, layout))
      const watched = watch(consulKv(options(consul, layout)))
      const addresses = () => Object.keys(watched.servers('api') ?? {}).sort()
      await expect(store.addServer('api', '10.0.0.2:80')).rejects.toThrow(UnknownUpstreamError)
      await expect(store.removeServer('api', '10.0.0.2:80')).rejects.toThrow(UnknownUpstreamError)
      await store.put('api', [{ servers: ['10.0.0.1:80'] }])
      expect(await store.addServer('api', { address: '10.0.0.2:80', weight: 4 })).toMatchObject({ changed: true })
      await eventually(() => expect(watched.servers('api')).toMatchObject({ '10.0.0.2:80': { weight: 4 } }))
      await expect(store.addServer('api', '10.0.0.2:80')).rejects.toThrow('10.0.0.2:80 is there already')
      await expect(store.addServer('api', '10.0.0.3:80', { level: '7' })).rejects.toThrow(/level/)
      await expect(store.addServer('api', 'unix:/run/a')).rejects.toThrow('a unix socket cannot be written')
      await expect(store.removeServer('api', '10.0.0.9:80')).rejects.toThrow(UnknownPeerError)
      expect(await store.removeServer('api', '10.0.0.1:80')).toMatchObject({ changed: true })
      await eventually(() => expect(addresses()).toEqual(['10.0.0.2:80']))

      const stored: unknown[] = []
      await store.put('api', [{ servers: ['10.0.0.5:80'] }], { check: (there) => void stored.push(there) })
      expect(stored).toMatchObject([[{ servers: [{ host: '10.0.0.2', port: 80, weight: 4 }] }]])
      const mine = new Error('mine')
      const check = () => {
        throw mine
      }
      await expect(store.put('api', [{ servers: ['10.0.0.6:80'] }], { check })).rejects.toBe(mine)
      await expect(store.put('new', [{ servers: ['10.0.0.6:80'] }], { check })).rejects.toBe(mine)
      await eventually(() => expect(addresses()).toEqual(['10.0.0.5:80']))
    },
  )

  it('slardar: a server is added to the level that is named, and to the first of the levels without a name', async () => {
    const consul = await startConsul()
    const store = new ConsulStore(options(consul, 'slardar'))
    const at = 'app/upstreams/api'
    await consul.put(at, { owner: 'ops', cluster: { c1: { servers: {} }, c2: { servers: [{ host: 'a', port: 1 }] } } })
    await store.addServer('api', 'b:2', { level: 'c2' })
    await store.addServer('api', 'c:3')
    expect(JSON.parse(await value(consul, at))).toEqual({
      owner: 'ops',
      cluster: {
        c1: { servers: [{ host: 'c', port: 3 }] },
        c2: {
          servers: [
            { host: 'a', port: 1 },
            { host: 'b', port: 2 },
          ],
        },
      },
    })
    await store.removeServer('api', 'a:1')
    expect(JSON.parse(await value(consul, at))).toMatchObject({
      cluster: { c2: { servers: [{ host: 'b', port: 2 }] } },
    })
  })

  it('slardar: keeps what it does not know, and the settings beside a cluster', async () => {
    const consul = await startConsul()
    const store = new ConsulStore(options(consul, 'slardar'))
    const kept = { enable: true, timeout: 2, owner: 'ops' }
    await consul.put('app/upstreams/api', {
      ...{ ...kept, cluster: { c1: { servers: [{ host: 'A', port: 1, rack: 9, down: 1 }] }, c2: { servers: [] } } },
    })
    await store.patchServer('api', 'a:1', { down: false, weight: 2 })
    expect(JSON.parse(await value(consul, 'app/upstreams/api'))).toEqual({
      ...kept,
      cluster: { c1: { servers: [{ host: 'A', port: 1, rack: 9, weight: 2 }] }, c2: { servers: [] } },
    })
    await store.put('api', [{ servers: ['b:2'] }])
    expect(JSON.parse(await value(consul, 'app/upstreams/api'))).toEqual({
      ...{ ...kept, cluster: [{ servers: [{ host: 'b', port: 2 }] }] },
    })
    await store.put('api', { servers: ['c:3'], heartbeat: 'redis' })
    expect(JSON.parse(await value(consul, 'app/upstreams/api'))).toEqual({
      ...{ enable: true, typ: 'redis', servers: [{ host: 'c', port: 3 }] },
    })
  })

  it.each(layouts)('%s: loses none of the writes of 4 processes, 100 each, to one server', async (layout) => {
    const consul = await startConsul()
    const servers = ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80', '10.0.0.4:80'].map((address) => ({
      address,
      weight: 0,
    }))
    const store = new ConsulStore(options(consul, layout))
    await store.put('api', [{ servers }])
    const watched = watch(consulKv(options(consul, layout)))
    // In the layout of Slardar the servers share a key, in that of upsync only the same server does.
    const shared = layout === 'slardar'
    const writers = await Promise.all(
      servers.map(({ address }) => startWriter(consul, layout, shared ? address : '10.0.0.1:80', 100)),
    )
    // All at once: one that began when the others are done would meet nobody.
    const retries = await Promise.all(writers.map((go) => go()))
    const weights = () => Object.values(watched.servers('api') ?? {}).map(({ weight }) => weight)
    await eventually(() => expect(weights()).toEqual(shared ? [100, 100, 100, 100] : [400, 0, 0, 0]))
    const sum = retries.reduce((a, b) => a + b)
    expect(sum).toBeGreaterThan(0)
    console.log(`${layout}: 400 writes, ${sum} retries`)
  })

  it('says what Consul does not take', async () => {
    const consul = await startConsul()
    const store = new ConsulStore(options(consul, 'slardar'))
    const labels = { text: 'x'.repeat(600_000) } // A value may have 512 KiB.
    const error = await store.put('api', [{ servers: [{ address: 'a:1', labels }] }]).catch((error: unknown) => error)
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_CONSUL', reason: 'refused' })
  })

  it('does not write what the token may not', async () => {
    const consul = await startConsul({ acl: 'root' })
    const store = new ConsulStore(options(consul, 'slardar'))
    const denied = await store.put('api', [{ servers: ['a:1'] }]).catch((error: unknown) => error)
    expect(denied).toMatchObject({ code: 'ERR_CHECKUPS_CONSUL', reason: 'denied', status: 403 })
    await consul.api('PUT', '/v1/acl/policy', { Name: 'p', Rules: 'key_prefix "app/" { policy = "read" }' })
    const made = await consul.api('PUT', '/v1/acl/token', { Policies: [{ Name: 'p' }] })
    const token = (JSON.parse(made.text) as { SecretID: string }).SecretID
    const reader = new ConsulStore({ ...options(consul, 'slardar'), token })
    await expect(reader.put('api', [{ servers: ['a:1'] }])).rejects.toMatchObject({ reason: 'denied' })
    expect((await consul.api('GET', '/v1/kv/app/upstreams/api')).status).toBe(404)
  })
})

describe('ConsulStore', () => {
  const nobody = async () => ({ address: `127.0.0.1:${await freePort()}` })

  it('rejects with an error of its own when Consul is down', async () => {
    const store = new ConsulStore(options(await nobody(), 'slardar'))
    const calls = [store.put('api', [{ servers: [] }]), store.patchServer('api', 'a:1', {}), store.delete('api')].map(
      (call) => call.catch((error: unknown) => error),
    )
    for (const error of await Promise.all(calls)) {
      expect(isCheckupsError(error)).toBe(true)
      expect(error).toMatchObject({ code: 'ERR_CHECKUPS_CONSUL', reason: 'unreachable' })
    }
  })

  it('says how long what it writes is, and writes only over what it has read', async () => {
    const seen: string[] = []
    const address = await pretend((req, res) => {
      seen.push(`${req.method!} ${req.url!} ${req.headers['content-length'] ?? '-'}`)
      if (req.method === 'GET') return answer(res, { 'app/upstreams/api': '{}' })
      return res.setHeader('content-type', 'application/json').end('{}')
    })
    const store = new ConsulStore(options({ address }, 'slardar'))
    await store.put('api', [{ servers: ['a:1'] }])
    expect(seen).toEqual(['GET /v1/kv/app%2Fupstreams%2Fapi -', expect.stringMatching(/^PUT \/v1\/txn \d+$/)])
  })

  it('gives up after as many conflicts as it may, and does not write twice what may have been written', async () => {
    const writes: string[] = []
    const start = (status: number | undefined) =>
      pretend((req, res) => {
        if (req.method === 'GET') return answer(res, { 'app/upstreams/api': '{}' })
        writes.push(req.url!)
        if (status === undefined) return req.socket.resetAndDestroy()
        return res
          .setHeader('content-type', 'application/json')
          .writeHead(status)
          .end('{"Errors":[{"What":"failed to set key, index is stale"}]}')
      })
    const conflicting = new ConsulStore({ ...options({ address: await start(409) }, 'slardar'), retries: 3 })
    await expect(conflicting.put('api', [{ servers: ['a:1'] }])).rejects.toMatchObject({ reason: 'conflict' })
    expect(writes).toHaveLength(4)
    const { address: _, ...rest } = options({ address: '' }, 'slardar')
    const store = new ConsulStore({ ...rest, addresses: [await start(undefined), await start(200)] })
    await expect(store.put('api', [{ servers: ['a:1'] }])).rejects.toMatchObject({ reason: 'unreachable' })
    expect(writes).toHaveLength(5)
  })

  it('goes to the next address when nobody is at the first', async () => {
    const address = await pretend((req, res) => {
      if (req.method === 'GET') return res.writeHead(404, { 'x-consul-index': 1 }).end()
      return res.setHeader('content-type', 'application/json').end('{}')
    })
    const { address: _, ...rest } = options({ address: '' }, 'upsync')
    const store = new ConsulStore({ ...rest, addresses: [(await nobody()).address, address] })
    expect(await store.put('api', { servers: ['a:1', 'b:2'] })).toEqual<StoreResult>({ changed: true, retries: 0 })
  })

  it.each<[string, unknown, RegExp]>([
    ['a/b', [{ servers: [] }], /^key: expected the name of a key/],
    ['..', [{ servers: [] }], /^key: expected the name of a key/],
    ['api', [{ servers: [] }, { servers: [] }], /^api.cluster: only one level/],
    ['api', { servers: [], balancer: 'wrr' }, /^api.balancer: cannot be written in the layout of upsync/],
    ['api', [{ servers: ['unix:/run/a'] }], /^api.servers\[0\]: a unix socket/],
    ['api', [{ servers: ['a:1', 'A:1'] }], /^api.servers\[1\]: the same address/],
    ['api', [{ servers: [{ address: 'a:1', weight: -1 }] }], /^api.servers\[0\].weight: expected an integer/],
    ['api', [{ servers: [{ address: 'a:1', meta: {} }] }], /^api.servers\[0\].meta: cannot be written/],
  ])('refuses to write %s: %j', async (key, upstream, message) => {
    const store = new ConsulStore(options(await nobody(), 'upsync'))
    await expect(store.put(key, upstream as never)).rejects.toThrow(message)
  })
})
