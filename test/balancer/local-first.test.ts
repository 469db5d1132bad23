import { describe, expect, it } from 'vitest'
import { ringShares } from '../../src/balancer/local-first.js'
import { levelRandom } from '../../src/clock.js'
import { Checkups, type LocalFirstOptions, type ServerOptions } from '../../src/index.js'

const balanced = (options: Omit<LocalFirstOptions, 'type'>, servers: readonly (ServerOptions | string)[]) =>
  new Checkups({
    random: levelRandom(0.5),
    upstreams: { api: { balancer: { type: 'local-first', ...options }, servers, maxFails: 1 } },
  })

const shares = (checkups: Checkups, picks: number) => {
  const counts = new Map<string, number>()
  for (let i = 0; i < picks; i++) {
    const host = checkups.selectPeer('api')?.host ?? 'nobody'
    counts.set(host, (counts.get(host) ?? 0) + 1)
  }
  return counts
}

const zones = (count: number, near: number): ServerOptions[] =>
  Array.from({ length: count }, (_, i) => ({
    host: `10.0.0.${i + 1}`,
    port: 80,
    labels: { zone: i < near ? 'a' : 'b' },
  }))

describe('the shares of rings', () => {
  // Envoy, "Priority levels": healthy percent of each level, and the percent of the traffic that it gets.
  it.each([
    [[100, 100], '100/0'],
    [[72, 100], '100/0'],
    [[71, 100], '99/1'],
    [[50, 100], '70/30'],
    [[25, 100], '35/65'],
    [[0, 100], '0/100'],
    [[25, 25], '50/50'],
    [[25, 25, 100], '35/35/30'],
    [[25, 25, 20], '36/36/28'],
    [[0, 0], '0/0'],
  ])('%j healthy: %s', (healthy, expected) => {
    expect(ringShares(healthy.map((percent) => ({ healthy: percent, total: 100 }))).join('/')).toBe(expected)
  })

  it('of a ring without anybody is nothing', () => {
    expect(
      ringShares([
        { healthy: 0, total: 0 },
        { healthy: 3, total: 3 },
      ]),
    ).toEqual([0, 100])
  })
})

describe('a request', () => {
  const near = { rings: [{ label: 'zone', value: 'a' }] }

  it('stays in the near ring while that is healthy', () => {
    const counts = shares(balanced(near, zones(4, 2)), 100)
    expect(Object.fromEntries(counts)).toEqual({ '10.0.0.1': 50, '10.0.0.2': 50 })
  })

  it('spills in proportion when it is not: 70 to 30 with half of it out', () => {
    const checkups = balanced(near, zones(4, 2))
    checkups.feedbackStatus('api', { host: '10.0.0.1', port: 80 }, 'failed')
    const counts = shares(checkups, 10_000)
    expect(counts.get('10.0.0.1')).toBeUndefined()
    // Four standard deviations of 10,000 draws at 0.7 are 183.
    expect(Math.abs(counts.get('10.0.0.2')! - 7_000)).toBeLessThan(184)
    expect(Math.abs(counts.get('10.0.0.3')! - counts.get('10.0.0.4')!)).toBeLessThanOrEqual(1)
    expect(checkups.getStatus().upstreams[0]!.levels[0]!.balancers).toEqual([
      { shares: [70, 30], picks: [counts.get('10.0.0.2'), 10_000 - counts.get('10.0.0.2')!] },
    ])
  })

  it('never fails because the near ring is empty, down or full', async () => {
    expect(shares(balanced(near, zones(2, 0)), 10).get('nobody')).toBeUndefined()
    const checkups = balanced(
      near,
      zones(2, 1).map((server) => ({ ...server, maxConns: 1 })),
    )
    expect(['1', '2'].map(() => checkups.acquirePeer('api')?.peer.host)).toEqual(['10.0.0.1', '10.0.0.2'])
    await checkups.setServer('api', '10.0.0.1:80', { down: true, maxConns: 0 })
    await checkups.setServer('api', '10.0.0.2:80', { maxConns: 0 })
    expect([...shares(checkups, 10)]).toEqual([['10.0.0.2', 10]])
  })

  it('comes back when the near ring does', async () => {
    const checkups = balanced(near, zones(4, 2))
    await checkups.setServer('api', '10.0.0.1:80', { down: true })
    await checkups.setServer('api', '10.0.0.1:80', { down: false })
    expect([...shares(checkups, 100).keys()].sort()).toEqual(['10.0.0.1', '10.0.0.2'])
  })

  it('goes by the policy of its ring', () => {
    const checkups = balanced({ ...near, balancer: 'pick-first' }, zones(4, 2))
    expect(shares(checkups, 50).size).toBe(1)
  })

  it('tries every server once, near ones first', async () => {
    const checkups = balanced(near, zones(4, 2))
    const tried: string[] = []
    await expect(checkups.readyOk('api', ({ host }) => tried.push(host) === 0)).rejects.toThrow()
    expect([tried.slice(0, 1).sort(), [...tried].sort()]).toEqual([
      [expect.stringMatching(/^10\.0\.0\.[12]$/)],
      ['10.0.0.1', '10.0.0.2', '10.0.0.3', '10.0.0.4'],
    ])
  })
})

describe('rings', () => {
  const first = (rings: LocalFirstOptions['rings'], servers: readonly (ServerOptions | string)[]) => [
    ...shares(balanced({ rings }, servers), 40).keys(),
  ]

  it.each<[string, LocalFirstOptions['rings'], string[]]>([
    ['this machine, by loopback', ['host'], ['127.0.0.1']],
    ['subnets', [{ subnets: ['10.1.0.0/16', 'fd00::/8'] }], ['fd00::1', '10.1.2.3']],
    ['an IPv6 subnet', [{ subnets: ['fd00::/8'] }], ['fd00::1']],
    ['a function', [({ port }) => port === 81], ['192.0.2.1']],
    ['one after another', [() => false, { subnets: ['10.1.0.0/16'] }], ['10.1.2.3']],
  ])('by %s', (_, rings, expected) => {
    expect(first(rings, ['127.0.0.1:80', '10.1.2.3:80', '[fd00::1]:80', '192.0.2.1:81'])).toEqual(expected)
  })

  it('a unix socket and localhost are this machine', () => {
    expect(first(['host'], ['unix:/run/a.sock', '192.0.2.1:80'])).toEqual([''])
    expect(first(['host'], ['localhost:80', '192.0.2.1:80'])).toEqual(['localhost'])
  })

  it.each<[unknown, string, string]>([
    ['zone', 'rings[0]', 'expected "host", "subnet", { subnets }, { label, value } or a function, got "zone"'],
    [
      { subnets: ['10.0.0.0'] },
      'rings[0].subnets[0]',
      'expected a subnet as "10.1.0.0/16" or "fd00::/8", got "10.0.0.0"',
    ],
    [
      { subnets: ['10.0.0.0/33'] },
      'rings[0].subnets[0]',
      'expected a subnet as "10.1.0.0/16" or "fd00::/8", got "10.0.0.0/33"',
    ],
    [{ label: 'zone' }, 'rings[0].value', 'expected a non-empty string, got undefined'],
  ])('%j is refused', (ring, at, problem) => {
    expect(() => balanced({ rings: [ring] as never }, ['10.0.0.1:80'])).toThrow(
      `upstreams.api.balancer.${at}: ${problem}`,
    )
  })
})
