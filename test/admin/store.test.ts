import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { existsSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { FileStore, type AdminServerOptions } from '../../src/admin/index.js'
import { Checkups, type UpstreamOptions } from '../../src/index.js'
import { consulKv, ConsulStore } from '../../src/source/consul.js'
import { startConsul, whereConsul } from '../support/consul.js'
import { ownHost } from '../support/servers.js'
import { admin, asking, folder } from './support.js'

const upstreams = { api: { servers: ['10.0.0.1:80'], tries: 7 }, other: { servers: ['10.0.0.1:80'] } }

/** An instance that follows a file, and its admin interface; again is a process that begins anew. */
async function kept(
  path: string,
  configured: Record<string, UpstreamOptions> = upstreams,
  options: AdminServerOptions = {},
) {
  const store = new FileStore({ path })
  const checkups = new Checkups({ upstreams: configured, sources: [store] })
  await checkups.start()
  return { store, ...(await admin(checkups, { store, ...options })) }
}

const serversOf = (checkups: Checkups, key = 'api') =>
  checkups
    .getStatus()
    .upstreams.find((one) => one.key === key)
    ?.levels.map(({ servers }) => servers.map(({ address }) => address))

describe('a store in a file', () => {
  it('keeps every kind of change, and the next process has them', async () => {
    const path = join(folder(), 'deep', 'store.json')
    const { ask, checkups } = await kept(path)
    const done = async (method: string, at: string, body?: unknown) => {
      const { status, json } = await ask(method, `/v1/upstreams/${at}`, body === undefined ? {} : { body })
      expect(json, at).toMatchObject({ persisted: true, applied: true })
      return status
    }
    expect(await done('POST', 'api/servers', { address: '10.0.0.2:80', weight: 3 })).toBe(201)
    expect(await done('PATCH', 'api/servers/10.0.0.1%3A80', { drain: true })).toBe(200)
    expect(await done('PUT', 'new', { servers: ['10.0.1.1:80', '10.0.1.2:80'], balancer: 'random', maxFails: 3 })).toBe(
      201,
    )
    expect(await done('DELETE', 'new/servers/10.0.1.1%3A80')).toBe(200)
    expect(await done('PATCH', 'new', { tries: 2 })).toBe(200)
    expect(await done('POST', 'new/servers', '"10.0.1.3:80"')).toBe(201)
    expect(await done('DELETE', 'other')).toBe(200)
    expect(checkups.getUpstreams().size).toBe(2)
    const before = checkups.getUpstreams()

    const again = await kept(path)
    expect(again.checkups.getUpstreams()).toEqual(before)
    expect(again.checkups.getUpstream('api')).toMatchObject({ tries: 7 })
    expect(again.checkups.getUpstream('new')).toMatchObject({ tries: 2, balancer: 'random', maxFails: 3 })
    expect(serversOf(again.checkups, 'new')).toEqual([['10.0.1.2:80', '10.0.1.3:80']])
    expect(again.checkups.getUpstream('other')).toBeUndefined()
    // What was deleted may be made again.
    expect((await again.ask('PUT', '/v1/upstreams/other', { body: { servers: ['10.0.2.1:80'] } })).status).toBe(201)
    expect(serversOf((await kept(path)).checkups, 'other')).toEqual([['10.0.2.1:80']])
  })

  it('says no more than somebody has said: defaults stay the program’s', async () => {
    const path = join(folder(), 'store.json')
    const { ask } = await kept(path)
    await ask('PATCH', '/v1/upstreams/api/servers/10.0.0.1%3A80', { body: { weight: 2 } })
    expect(JSON.parse(readFileSync(path, 'utf8'))).toEqual({
      upstreams: { api: [{ servers: [{ host: '10.0.0.1', port: 80, weight: 2 }] }] },
      deleted: [],
    })
    const { checkups } = await kept(path, { api: { servers: ['10.0.0.1:80'], maxFails: 9 } })
    expect(checkups.getStatus().upstreams[0]!.levels[0]!.servers[0]!.server).toMatchObject({ weight: 2, maxFails: 9 })
  })

  it('named levels, the last server by force, and what is there already', async () => {
    const path = join(folder(), 'store.json')
    const { ask, checkups } = await kept(path, {
      api: { cluster: { a: { servers: ['10.0.0.1:80'] }, b: { servers: [] } } },
    })
    expect((await ask('POST', '/v1/upstreams/api/servers?level=b', { body: '"10.0.0.2:80"' })).status).toBe(201)
    expect((await ask('POST', '/v1/upstreams/api/servers?level=b', { body: '"10.0.0.3:80"' })).status).toBe(201)
    expect((await ask('POST', '/v1/upstreams/api/servers?level=c', { body: '"10.0.0.3:80"' })).status).toBe(400)
    expect(serversOf(checkups)).toEqual([['10.0.0.1:80'], ['10.0.0.2:80', '10.0.0.3:80']])
    await ask('PUT', '/v1/upstreams/api', { body: [{ servers: ['10.0.0.1:80'] }] })
    expect((await ask('PUT', '/v1/upstreams/api', { body: [{ servers: [] }] })).status).toBe(400)
    expect((await ask('DELETE', '/v1/upstreams/api/servers/10.0.0.1%3A80')).status).toBe(409)
    expect((await ask('DELETE', '/v1/upstreams/api/servers/10.0.0.1%3A80?force=true')).json.applied).toBe(true)
    expect(serversOf((await kept(path)).checkups)).toEqual([[]])
  })

  it('can be asked without an interface', async () => {
    const { store, checkups } = await kept(join(folder(), 'store.json'))
    await expect(store.patchServer('api', '10.0.0.1:80', { weight: 2 })).rejects.toThrow('unknown upstream "api"')
    await expect(store.addServer('api', '10.0.0.1:80')).rejects.toThrow('unknown upstream "api"')
    await store.put('api', { servers: ['10.0.0.1:80'], tries: 3 })
    await expect(store.removeServer('api', '10.9.9.9:80')).rejects.toThrow('has no peer 10.9.9.9:80')
    expect(await store.put('api', [{ servers: ['10.0.0.2:80'] }])).toEqual({ changed: true })
    expect(await store.put('api', [{ servers: ['10.0.0.2:80'] }])).toEqual({ changed: false })
    expect(checkups.getUpstream('api')).toMatchObject({ tries: 3, cluster: [{ servers: [{ host: '10.0.0.2' }] }] })
    expect(await store.delete('api')).toEqual({ changed: true })
    expect(await store.delete('api')).toEqual({ changed: false })
    const meta = () => 1
    await expect(store.put('x', { servers: [{ address: '10.0.0.1:80', meta }] })).rejects.toThrow(
      'x.servers[0].meta: cannot be kept',
    )
  })

  it('keeps secrets from other users, and leaves no other file', async () => {
    const at = folder()
    const { ask } = await kept(join(at, 'store.json'))
    await ask('PATCH', '/v1/upstreams/api', { body: { tries: 2 } })
    expect(statSync(join(at, 'store.json')).mode & 0o777).toBe(0o600)
    expect(readdirSync(at)).toEqual(['store.json'])
  })

  it('that cannot be written answers 503, and nothing has changed', async () => {
    const at = folder()
    const file = join(at, 'occupied')
    writeFileSync(file, '')
    // A folder of this name cannot be made, also not by root.
    const { ask, checkups } = await admin(
      new Checkups({ upstreams, sources: [new FileStore({ path: join(at, 'a.json') })] }),
      {
        store: new FileStore({ path: join(file, 'store.json') }),
      },
    )
    const before = checkups.getUpstreams()
    const answers = [
      await ask('PATCH', '/v1/upstreams/api', { body: { tries: 2 } }),
      await ask('DELETE', '/v1/upstreams/api'),
      await ask('DELETE', '/v1/upstreams/other'),
    ]
    for (const answer of answers) expect(answer).toMatchObject({ status: 503, json: { error: { reason: 'store' } } })
    expect(checkups.getUpstreams()).toEqual(before)
  })

  it('that is broken is not written over', async () => {
    const path = join(folder(), 'store.json')
    writeFileSync(path, '{"upstreams": {')
    const { ask, checkups } = await kept(path)
    expect(checkups.getStatus().sources[0]).toMatchObject({
      state: 'waiting',
      error: expect.stringContaining('too early') as string,
    })
    expect((await ask('PATCH', '/v1/upstreams/api', { body: { tries: 2 } })).status).toBe(503)
    expect(readFileSync(path, 'utf8')).toBe('{"upstreams": {')
  })

  it('needs a source that brings back what it has', async () => {
    const store = new FileStore({ path: join(folder(), 'store.json') })
    await expect(admin({ upstreams }, { store })).rejects.toThrow('expected an instance with a source')
    await expect(admin({ upstreams }, { store: {} as never })).rejects.toThrow(
      'createAdminHandler.store.put: expected a function',
    )
    expect(() => new FileStore({ path: '' })).toThrow('FileStore.path')
  })

  it('what was answered with 200 is there after a SIGKILL at any moment', async () => {
    const path = join(folder(), 'store.json')
    const child = fileURLToPath(new URL('store-child.js', import.meta.url))
    const begin = async (): Promise<{ process: ChildProcess; url: string }> => {
      const process = fork(child, [path])
      onTestFinished(() => void process.kill('SIGKILL'))
      const [url] = (await once(process, 'message')) as [string]
      return { process, url }
    }
    const accepted = new Map<string, number>()
    let sent = 0
    for (let round = 0; round < 4; round++) {
      const { process, url } = await begin()
      const ask = asking(url)
      const { json } = await ask('GET', '/v1/upstreams')
      const there = new Map(
        (json.upstreams as { key: string; config: { tries: number } }[]).map(({ key, config }) => [key, config.tries]),
      )
      for (const [key, tries] of accepted) expect(there.get(key), key).toBeGreaterThanOrEqual(tries)
      if (round === 3) {
        process.kill('SIGKILL')
        break
      }
      const writer = async (key: string) => {
        for (;;) {
          const tries = ++sent
          const { status } = await ask('PUT', `/v1/upstreams/${key}`, { body: { servers: ['10.0.0.1:80'], tries } })
          expect([200, 201]).toContain(status)
          accepted.set(key, tries)
          if (tries % 40 === 17 + round) process.kill('SIGKILL')
        }
      }
      await Promise.allSettled(['a', 'b', 'c', 'api'].map(writer))
      await (process.exitCode === null && process.signalCode === null ? once(process, 'exit') : undefined)
    }
    expect(accepted.size).toBeGreaterThan(2)
    expect(existsSync(path)).toBe(true)
  })
})

whereConsul('a store in Consul', () => {
  it.each(['upsync', 'slardar'] as const)(
    'in the layout of %s: a change by one process is in use in every other',
    async (layout) => {
      const { address } = await startConsul()
      const prefix = 'gateway'
      const node = async () => {
        const store = new ConsulStore({ address, prefix, layout })
        const source = consulKv({ address, prefix, layout, prune: true, allowEmpty: true })
        const checkups = new Checkups({ sources: [source] })
        await checkups.start()
        return { store, ...(await admin(checkups, { store })) }
      }
      const [a, b] = [await node(), await node()]
      const path = '/v1/upstreams/shop'
      const done = async (method: string, at: string, body?: unknown) => {
        const answer = await a.ask(method, `${path}${at}`, body === undefined ? {} : { body })
        expect(answer.json, `${method} ${at}`).toMatchObject({ persisted: true, applied: true })
      }
      const inB = (servers: unknown) =>
        expect.poll(() => serversOf(b.checkups, 'shop'), { interval: 2, timeout: 10_000 }).toEqual(servers)
      await done('PUT', '', [{ servers: ['127.0.0.1:81', '127.0.0.1:82'] }])
      await inB([['127.0.0.1:81', '127.0.0.1:82']])
      await done('POST', '/servers', { address: '127.0.0.1:83', weight: 5 })
      await inB([['127.0.0.1:81', '127.0.0.1:82', '127.0.0.1:83']])
      await done('PATCH', '/servers/127.0.0.1%3A81', { down: true, weight: 3 })
      await done('DELETE', '/servers/127.0.0.1%3A82')
      await inB([['127.0.0.1:81', '127.0.0.1:83']])
      expect(a.checkups.getUpstream('shop')!.cluster).toMatchObject([
        { servers: [{ down: true, weight: 3 }, { weight: 5 }] },
      ])
      expect((await a.ask('POST', `${path}/servers`, { body: '"127.0.0.1:83"' })).status).toBe(409)

      // Two nodes at once: neither takes away what the other has added.
      const added = await Promise.all([
        a.ask('POST', `${path}/servers`, { body: '"127.0.0.1:84"' }),
        b.ask('POST', `${path}/servers`, { body: '"127.0.0.1:85"' }),
      ])
      expect(added.map(({ status }) => status)).toEqual([201, 201])
      await expect
        .poll(() => serversOf(a.checkups, 'shop')![0]!.toSorted())
        .toEqual([81, 83, 84, 85].map((port) => `127.0.0.1:${port}`))
      await done('DELETE', '')
      await inB(undefined)
    },
  )

  it('what the layout cannot say is 400, naming it', async () => {
    const { address } = await startConsul()
    const prefix = 'gateway'
    const store = new ConsulStore({ address, prefix, layout: 'upsync' })
    const checkups = new Checkups({ sources: [consulKv({ address, prefix, layout: 'upsync' })] })
    const { ask } = await admin(checkups, { store })
    const answer = await ask('PUT', '/v1/upstreams/shop', { body: { servers: ['127.0.0.1:81'], balancer: 'random' } })
    expect(answer).toMatchObject({ status: 400, json: { error: { path: 'shop.balancer' } } })
  })
})

describe('a store that cannot be reached', () => {
  it('answers 503, and nothing has changed', async () => {
    // Nobody listens there.
    const address = `${ownHost()}:8500`
    const store = new ConsulStore({ address, prefix: 'x', layout: 'upsync' })
    const { ask, checkups } = await admin(
      new Checkups({ upstreams, sources: [consulKv({ address, prefix: 'x', layout: 'upsync' })] }),
      { store },
    )
    const before = checkups.getUpstreams()
    for (const [method, path, body] of [
      ['PUT', 'api', [{ servers: ['10.0.0.9:80'] }]],
      ['DELETE', 'api', undefined],
      ['PATCH', 'api/servers/10.0.0.1%3A80', { weight: 2 }],
      ['POST', 'api/servers', '"10.0.0.9:80"'],
    ] as const) {
      expect(await ask(method, `/v1/upstreams/${path}`, body === undefined ? {} : { body })).toMatchObject({
        status: 503,
        json: { error: { reason: 'store' } },
      })
    }
    expect(checkups.getUpstreams()).toEqual(before)
  })
})
