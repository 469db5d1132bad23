import { expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../src/clock.js'
import { dns } from '../../src/source/dns.js'
import type { LevelOptions } from '../../src/config.js'
import { startConsul, whereConsul } from '../support/consul.js'

interface Instance {
  readonly Service: { readonly Weights: { readonly Passing: number } }
}

whereConsul('the DNS of a real Consul', () => {
  // More than fits into an answer over UDP: then Consul leaves out what does not, without the TC bit.
  it.each([40, 200])('gives all of %i instances, and follows them', async (count) => {
    const consul = await startConsul()
    const { text } = await consul.api('GET', '/v1/agent/self')
    const { DebugConfig } = JSON.parse(text) as { DebugConfig: { DNSPort: number } }
    const register = (i: number, Passing: number) =>
      consul.api('PUT', '/v1/agent/service/register', {
        ID: `web-${i}`,
        Name: 'web',
        Address: `127.0.${i >> 8}.${i & 255}`,
        Port: 8_000,
        Weights: { Passing, Warning: 1 },
      })
    // The agent tells its catalogue by and by.
    const told = async (Passing: number) => {
      const { text } = await consul.api('GET', '/v1/health/service/web')
      return (JSON.parse(text) as Instance[]).filter(({ Service }) => Service.Weights.Passing === Passing).length
    }
    for (let i = 0; i < count; i++) await register(i, 5)
    await expect.poll(() => told(5)).toBe(count)

    const source = dns({
      upstreams: { web: { name: 'web.service.consul', type: 'SRV' } },
      servers: [`127.0.0.1:${DebugConfig.DNSPort}`],
    })
    const controller = new AbortController()
    onTestFinished(() => controller.abort())
    // Consul says a time to live of 0, so it is asked again after minTtl, which is over when the test says so.
    let again: (() => void) | undefined
    const sleep = (ms: number) => new Promise<void>((resolve) => (ms === 2_000 ? undefined : (again = resolve)))
    let given: ((web: readonly LevelOptions[]) => void) | undefined
    const next = () => new Promise<readonly LevelOptions[]>((resolve) => (given = resolve))
    const first = next()
    const apply = ({ upstreams }: { upstreams: unknown }) => {
      given!((upstreams as Map<string, readonly LevelOptions[]>).get('web')!)
    }
    source.watch(apply, { signal: controller.signal, clock: systemClock, sleep }).catch(() => undefined)

    const levels = await first
    expect(levels).toHaveLength(1)
    expect(levels[0]!.servers).toHaveLength(count)
    expect(levels[0]!.servers[0]).toEqual({ host: '127.0.0.0', port: 8_000, weight: 5 })

    await register(0, 9)
    await expect.poll(() => told(9)).toBe(1)
    await expect.poll(() => again).toBeDefined()
    const second = next()
    again!()
    const [level] = await second
    expect(level!.servers).toHaveLength(count)
    expect(level!.servers[0]).toEqual({ host: '127.0.0.0', port: 8_000, weight: 9 })
  })
})
