/** Consul behind a whole instance: picks, status and events while it changes, breaks and comes back. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it, onTestFinished } from 'vitest'
import { Checkups, type CheckupsOptions } from '../../../src/index.js'
import { consulKv, consulServices, ConsulStore, type ConsulKvOptions } from '../../../src/source/consul.js'
import { startConsul, whereConsul, type ConsulAgent } from '../../support/consul.js'
import { eventually } from '../../support/eventually.js'
import { freePort } from '../../support/servers.js'
import { register } from './harness.js'

const kv = (consul: Pick<ConsulAgent, 'address'>, options: Partial<ConsulKvOptions> = {}) =>
  consulKv({ prefix: 'upstreams', layout: 'upsync', address: consul.address, ...options })

function open(options: CheckupsOptions) {
  const checkups = new Checkups({ random: () => 0, ...options })
  onTestFinished(() => checkups.close())
  return checkups
}
const ports = (checkups: Checkups, key = 'api') =>
  checkups
    .getStatus()
    .upstreams.find((one) => one.key === key)
    ?.levels[0]?.servers.map(({ address }) => address.split(':')[1])
const source = (checkups: Checkups) => checkups.getStatus().sources[0]!

whereConsul('an instance that follows Consul', () => {
  it('picks what is there from the start on, follows changes, and keeps the state of the others', async () => {
    const consul = await startConsul()
    await consul.put('upstreams/api/127.0.0.1:1', { max_fails: 1 })
    await consul.put('upstreams/api/127.0.0.1:2', '')
    const other = { servers: ['127.0.0.1:9'] }
    const checkups = open({
      upstreams: { other, api: { balancer: 'pick-first', servers: ['127.0.0.1:8'] } },
      sources: [kv(consul)],
    })
    expect(checkups.selectPeer('api')?.port).toBe(8)
    await checkups.start()
    const first = checkups.selectPeer('api')!
    expect(first.port).toBe(1)
    checkups.feedbackStatus('api', first, 'failed')
    expect(checkups.selectPeer('api')?.port).toBe(2)
    await consul.put('upstreams/api/127.0.0.1:3', '')
    await eventually(() => expect(ports(checkups)).toEqual(['1', '2', '3']))
    expect(checkups.selectPeer('api')?.port).toBe(2) // The first one is still out.
    expect(checkups.upstream('other').selectPeer()?.port).toBe(9)
    expect(source(checkups)).toMatchObject({
      name: 'consul:upstreams/',
      state: 'current',
      error: '',
      upstreams: ['api'],
    })
  })

  it.each([false, true])(
    'keeps the list when the agent comes back empty, and when all is deleted (allowEmpty: %s)',
    async (allowEmpty) => {
      const consul = await startConsul()
      await consul.put('upstreams/api/127.0.0.1:1', '')
      const updates: unknown[] = []
      const checkups = open({ sources: [kv(consul, { allowEmpty })] })
      checkups.on('upstream:update', (event) => updates.push(event))
      await checkups.start()
      expect(ports(checkups)).toEqual(['1'])
      await consul.kill()
      await eventually(() => expect(source(checkups).state).toBe('stale'))
      expect(ports(checkups)).toEqual(['1'])
      const { error, since } = source(checkups)
      expect([error.length > 0, since > 0]).toEqual([true, true])
      await consul.start()
      if (allowEmpty) await eventually(() => expect(checkups.selectPeer('api')).toBeUndefined())
      else await eventually(() => expect(source(checkups).error).toMatch(/gone/))
      expect(ports(checkups)).toEqual(allowEmpty ? [] : ['1'])
      await consul.put('upstreams/api/127.0.0.1:2', '')
      await eventually(() => expect(ports(checkups)).toEqual(['2'])) // The wait is 60 s.
      expect(source(checkups)).toMatchObject({ state: 'current', error: '' })
    },
  )

  it('keeps the list though allowEmpty when the token has lost its right, and says so', async () => {
    const consul = await startConsul({ acl: 'root' })
    await consul.put('upstreams/api/127.0.0.1:1', '')
    const rules = (Rules: string) => ({ Name: 'reader', Rules })
    const policy = await consul.api('PUT', '/v1/acl/policy', rules('key_prefix "upstreams/" { policy = "read" }'))
    const made = await consul.api('PUT', '/v1/acl/token', { Policies: [{ Name: 'reader' }] })
    const token = (JSON.parse(made.text) as { SecretID: string }).SecretID
    const checkups = open({ sources: [kv(consul, { token, allowEmpty: true, wait: 100 })] })
    await checkups.start()
    const { ID } = JSON.parse(policy.text) as { ID: string }
    await consul.api('PUT', `/v1/acl/policy/${ID}`, rules('key_prefix "elsewhere/" { policy = "read" }'))
    await eventually(() => expect(source(checkups)).toMatchObject({ state: 'stale' }))
    expect(source(checkups).error).toMatch(/^denied: /)
    expect(ports(checkups)).toEqual(['1'])
  })

  it('starts from its snapshot with Consul down, and not at all if it must and has none', async () => {
    const consul = await startConsul()
    await consul.put('upstreams/api/127.0.0.1:1', '')
    const folder = mkdtempSync(join(tmpdir(), 'checkups-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const snapshot = join(folder, 'consul.json')
    const before = open({ sources: [kv(consul, { snapshot })] })
    await before.start()
    await before.close()
    await consul.kill()
    const after = open({ sources: [kv(consul, { snapshot, required: true })] })
    await after.start()
    expect(ports(after)).toEqual(['1'])
    expect(source(after)).toMatchObject({ fromSnapshot: true })
    const nobody = { address: `127.0.0.1:${await freePort()}` }
    await expect(open({ sources: [kv(nobody, { required: true, timeout: 200 })] }).start()).rejects.toThrow(
      /in 200 ms: .*ECONNREFUSED/,
    )
    await consul.start()
    await consul.put('upstreams/api/127.0.0.1:2', '')
    await eventually(() => expect(ports(after)).toEqual(['2']))
  })

  it('applies what a store writes everywhere, in this process too, and once', async () => {
    const consul = await startConsul()
    const options = { prefix: 'config/slardar', layout: 'slardar', address: consul.address } as const
    const store = new ConsulStore(options)
    onTestFinished(() => store.close())
    const [one, two] = [open({ sources: [consulKv(options)] }), open({ sources: [consulKv(options)] })]
    const updates: string[] = []
    one.on('upstream:update', () => updates.push('one'))
    two.on('upstream:update', () => updates.push('two'))
    await Promise.all([one.start(), two.start()])
    await store.put('api', { servers: ['127.0.0.1:1', '127.0.0.1:2'], heartbeat: { type: 'tcp' } })
    for (const checkups of [one, two]) await eventually(() => expect(ports(checkups)).toEqual(['1', '2']))
    updates.length = 0
    await store.patchServer('api', '127.0.0.1:1', { down: true })
    for (const checkups of [one, two]) await eventually(() => expect(checkups.selectPeer('api')?.port).toBe(2))
    await eventually(() => expect(updates.sort()).toEqual(['one', 'two']))
  })

  it('follows services, each by itself', async () => {
    const consul = await startConsul()
    for (const [Name, Port] of [
      ['api', 81],
      ['web', 82],
    ] as const) {
      await register(consul, { Name, Port })
    }
    const checkups = open({
      sources: consulServices({ services: { api: 'api', web: 'web' }, address: consul.address }),
    })
    await checkups.start()
    expect([ports(checkups, 'api'), ports(checkups, 'web')]).toEqual([['81'], ['82']])
    await consul.api('PUT', '/v1/agent/service/maintenance/api?enable=true')
    await register(consul, { Name: 'web', Port: 83 })
    await eventually(() => expect(ports(checkups, 'web')).toEqual(['83']))
    await eventually(() => expect(checkups.getStatus().sources.map(({ state }) => state)).toEqual(['stale', 'current']))
    expect(ports(checkups, 'api')).toEqual(['81']) // The last one stays.
  })

  it('closes in less than 100 ms amid its long polls', async () => {
    const consul = await startConsul()
    await consul.put('upstreams/api/127.0.0.1:1', '')
    const times: number[] = []
    for (let i = 0; i < 5; i++) {
      const services = consulServices({ services: { web: 'web' }, address: consul.address })
      const checkups = open({ sources: [kv(consul), ...services] })
      await checkups.start()
      await eventually(() => expect(checkups.getStatus().sources.every(({ asks }) => asks >= 2)).toBe(true))
      const begun = performance.now()
      await checkups.close()
      times.push(performance.now() - begun)
    }
    // The fastest: a busy machine may take longer.
    expect(Math.min(...times)).toBeLessThan(100)
  })
})
