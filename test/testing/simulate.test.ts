import { describe, expect, it } from 'vitest'
import type { BalancerFactory, Member } from '../../src/index.js'
import {
  between,
  constant,
  failing,
  quantile,
  refusing,
  sampled,
  silent,
  simulate,
  slowBetween,
  sometimes,
  type Scenario,
} from '../../src/testing/index.js'

const times = <T>(count: number, value: T) => Array.from({ length: count }, () => value)

/** Linkerd's "Beyond Round Robin" (2016): 11 peers, 1,000 requests a second for 60 s, one ten times as slow for 30 s. */
const beyondRoundRobin: Scenario = {
  peers: [slowBetween(constant(167), 15_000, 45_000, 10), ...times(10, constant(167))],
  upstream: { maxFails: 0 },
  load: { rate: 1000 },
  duration: 60_000,
}

/** The least busy of all, first come first served. */
const leastBusy: BalancerFactory = () => {
  let members: readonly Member[] = []
  return {
    update: (now) => void (members = now),
    pick: () => members.filter((m) => m.available).sort((a, b) => a.inFlight / a.weight - b.inFlight / b.weight)[0],
  }
}

describe('a simulation', () => {
  it.each([{ okWithin: 1000 }, { timeout: 1000 }])('reproduces linkerd’s round robin with %o', (limit) => {
    const result = simulate({ ...beyondRoundRobin, ...limit })
    expect(result.requests).toBe(60_000)
    expect(result.successRate).toBeGreaterThanOrEqual(0.953)
    expect(result.successRate).toBeLessThanOrEqual(0.956)
    expect(result.latency.p90).toBe(167)
    expect(result.latency.max).toBe('timeout' in limit ? 1000 : 1670)
    expect([result.unended, result.unserved, result.bans]).toEqual([0, 0, []])
    for (const { share } of result.peers) expect(share).toBeCloseTo(1 / 11, 4)
  })

  it('takes well under a second for 60,000 requests', () => {
    // Of the processor's time, of which others take none.
    const began = process.cpuUsage()
    simulate(beyondRoundRobin)
    expect(process.cpuUsage(began).user / 1_000).toBeLessThan(1_000)
  })

  it('has the same result for the same seed, and another for another', () => {
    const scenario: Scenario = {
      peers: [
        sampled([10, 20, 40]),
        sometimes(0.1, failing(503), constant(15)),
        between(50, 500, silent(), constant(9)),
      ],
      balancer: { type: 'random' },
      upstream: { maxFails: 2, failTimeout: 300 },
      load: { rate: 200 },
      duration: 3000,
      timeout: 100,
      retries: { count: 2, backoff: (attempt, random) => attempt * 10 * random() },
      instances: 3,
      seed: 4,
    }
    expect(simulate(scenario)).toEqual(simulate(scenario))
    expect(simulate({ ...scenario, seed: 5 })).not.toEqual(simulate(scenario))
  })

  it('takes a policy of the user’s own', () => {
    const result = simulate({ ...beyondRoundRobin, balancer: leastBusy, okWithin: 1000 })
    expect(result.successRate).toBeGreaterThan(0.994)
    expect(result.peers[0]!.share).toBeLessThan(0.07)
    expect(quantile(result.latencies, 0.99)).toBe(167)
  })

  it('throws what a policy throws', () => {
    const broken: BalancerFactory = () => ({
      update: () => undefined,
      pick: () => {
        throw new Error('no idea')
      },
    })
    expect(() => simulate({ ...beyondRoundRobin, balancer: broken, duration: 10 })).toThrow('no idea')
  })

  it('tells the time of bans, per instance', () => {
    const result = simulate({
      peers: [between(1000, 3500, refusing(), constant(10)), constant(10)],
      upstream: { maxFails: 1, failTimeout: 2000 },
      load: { rate: 100 },
      duration: 10_000,
      instances: 2,
    })
    expect(result.bans.map(({ instance }) => instance).sort()).toEqual([0, 0, 1, 1])
    for (const { peer, from, to } of result.bans) {
      expect(peer).toBe('10.0.0.1:80')
      expect(from).toBeGreaterThanOrEqual(1000)
      expect(to).toBeGreaterThanOrEqual(from + 2000)
      // From the failure that trips it; the trial at about 3,000 fails, that at about 5,000 does not.
      expect(to).toBeLessThan(from + 2100)
    }
    // Each instance paid once for each ban.
    expect(result.ok).toBe(1000 - 4)
  })

  it('shows a ban that does not end', () => {
    const { bans } = simulate({
      peers: [failing(500), constant(10)],
      upstream: { maxFails: 1, failTimeout: 1e6 },
      load: { rate: 100 },
      duration: 1000,
    })
    expect(bans).toMatchObject([{ instance: 0, peer: '10.0.0.1:80', to: Infinity }])
  })

  it('gives weights, keys and levels to the upstream', () => {
    const weighted = simulate({
      peers: [{ profile: constant(10), weight: 3 }, constant(10)],
      load: { rate: 100 },
      duration: 1000,
    })
    expect(weighted.peers.map(({ share }) => share)).toEqual([0.75, 0.25])
    const keys: unknown[] = []
    const noting: BalancerFactory = () => ({ update: () => undefined, pick: ({ hashKey }) => void keys.push(hashKey) })
    const load = { rate: 3 }
    const unserved = simulate({
      peers: [constant(1)],
      balancer: noting,
      load,
      duration: 1000,
      hashKey: (request) => `user ${request}`,
    })
    expect(new Set(keys)).toEqual(new Set(['user 0', 'user 1', 'user 2']))
    expect(unserved).toMatchObject({ requests: 3, ok: 0, unserved: 3, attempts: 0 })
    const levels = simulate({
      peers: [
        { profile: constant(1), address: 'near:80' },
        { profile: constant(1), address: 'FAR:80' },
      ],
      upstream: { cluster: [{ servers: ['near:80'] }, { servers: ['far:80'] }] },
      load: { rate: 10 },
      duration: 1000,
    })
    expect(levels.peers).toMatchObject([
      { address: 'near:80', share: 1 },
      { address: 'far:80', share: 0 },
    ])
  })

  it('follows a script', () => {
    const result = simulate({
      peers: times(2, constant(1)),
      load: { rate: 100 },
      duration: 1000,
      script: [{ at: 500, run: (checkups) => checkups.removeServer('simulated', '10.0.0.1:80') }],
    })
    expect(result.peers.map(({ requests }) => requests)).toEqual([25, 75])
  })

  it.each<[string, Record<string, unknown>]>([
    ['scenario.peers: expected at least one peer', { peers: [] }],
    ['scenario.peers: expected addresses that differ', { peers: times(2, { profile: constant(1), address: 'a:1' }) }],
    ['scenario.peers: expected a peer at 10.9.9.9:80', { upstream: { servers: ['10.9.9.9:80'] } }],
    ['scenario.peers[0].address', { peers: [{ profile: constant(1), address: 'nowhere' }] }],
    ['scenario.load.rate', { load: { rate: 0 } }],
    ['scenario.load.clients', { load: { clients: 0.5 } }],
    ['scenario.duration', { duration: -1 }],
    ['scenario.instances', { instances: 0 }],
    ['scenario.seeds: unknown option', { seeds: 1 }],
    ['upstreams.simulated.balancer', { balancer: 'best' }],
  ])('says %s', (message, wrong) => {
    const scenario = { peers: [constant(1)], load: { rate: 10 }, duration: 100, ...wrong } as Scenario
    expect(() => simulate(scenario)).toThrow(message)
  })

  it('tells a policy that survives a slow peer from one that does not', () => {
    const scenario: Scenario = {
      peers: [constant(20), constant(20), slowBetween(constant(20), 5_000, 15_000, 50)],
      upstream: { maxFails: 0 },
      load: { rate: 300 },
      duration: 20_000,
      okWithin: 500,
    }
    expect(simulate({ ...scenario, balancer: 'wrr' }).successRate).toBeCloseTo(1 - 1 / 6, 2)
    expect(simulate({ ...scenario, balancer: 'fastest-first' }).successRate).toBeGreaterThan(0.99)
  })
})
