/** What every policy keeps, whatever it optimises. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AttemptsError, Checkups } from '../../src/index.js'
import type { Peer, Pick, SelectOptions, ServerOptions, UpstreamOptions } from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'
import { address, harness, letterOf, level, target } from '../upstream/harness.js'
import { policies, seeded, type Policy } from './policies.js'

/** An upstream under the policy, asked with a fresh key each time. */
function world({ balancer, key }: Policy, upstream: UpstreamOptions, seed = 1) {
  const h = harness({ balancer, ...upstream }, { random: seeded(seed) })
  let asked = 0
  const options = (more: SelectOptions = {}): SelectOptions => ({ hashKey: key(asked++), ...more })
  const pick = (more?: SelectOptions) => letterOf(h.checkups.selectPeer('api', options(more)))
  return {
    ...h,
    pick,
    options,
    acquire: (more?: SelectOptions) => h.checkups.acquirePeer('api', options(more)),
    /** Who was returned in so many picks, in the order of the alphabet. */
    seen: (count: number, more?: SelectOptions) =>
      [...new Set(Array.from({ length: count }, () => pick(more)))].sort().join(''),
    inFlight: () => [...h.status().values()].reduce((sum, server) => sum + server.inFlight, 0),
    update: (change: UpstreamOptions) => h.checkups.updateUpstream('api', { balancer, ...upstream, ...change }),
  }
}

const others = (letters: string, ...kept: string[]) =>
  Array.from(letters)
    .filter((one) => !kept.includes(one))
    .map(target)

describe.each(policies)('$title', (policy) => {
  it('returns members that are up, have weight and do not drain, and every one of them', async () => {
    const list = level('af', { b: { down: true }, c: { drain: true }, d: { weight: 0 }, e: {} })
    const w = world(policy, list)
    w.feedback('e')
    expect(w.seen(400)).toEqual(policy.pins ? expect.stringMatching(/^[af]$/) : 'af')
    expect(w.pick({ exclude: [target('a')] })).toBe('f')
    expect(w.pick({ exclude: [target('f')] })).toBe('a')
    expect(w.pick({ exclude: [target('a'), target('f')] })).toBe('-')
    await w.update(level('abcdf'))
    if (!policy.pins) expect(w.seen(1000)).toBe('abcdf')
    for (const letter of 'abcdf') expect(w.pick({ exclude: others('abcdf', letter) })).toBe(letter)
  })

  it('uses backups when no primary is left, and the next level after them', async () => {
    const cluster = (down: string) => {
      const server = (letter: string, more: object = {}) => ({
        ...target(letter),
        down: down.includes(letter),
        ...more,
      })
      return [{ servers: [server('a'), server('c', { backup: true }), server('b')] }, { servers: [server('d')] }]
    }
    const w = world(policy, { cluster: cluster('') })
    expect(w.seen(200)).toEqual(policy.pins ? expect.stringMatching(/^[ab]$/) : 'ab')
    for (const [down, seen] of [
      ['a', 'b'],
      ['ab', 'c'],
      ['abc', 'd'],
      ['abcd', '-'],
      ['bcd', 'a'],
    ] as const) {
      await w.update({ cluster: cluster(down) })
      expect(w.seen(50), `down: ${down}`).toBe(seen)
    }
    expect(w.pick({ exclude: [target('a')] })).toBe('-')
  })

  it('has nobody: undefined, with the reason, and goes on when somebody comes', async () => {
    const w = world(policy, { ...level(''), allowEmpty: true })
    expect(w.pick()).toBe('-')
    expect(w.checkups.unavailableReason('api')).toBe('empty')
    await w.update({ ...level('', { a: { down: true } }) })
    expect([w.pick(), w.acquire(), w.checkups.unavailableReason('api')]).toEqual(['-', undefined, 'down'])
    await w.update({ ...level('b') })
    expect(w.pick()).toBe('b')
    await w.update({ ...level(''), allowEmpty: true })
    expect(w.pick()).toBe('-')
  })

  it('tries every server of every level once, in readyOk', async () => {
    const w = world(policy, { ...level('abcdefg', { h: { backup: true } }), maxFails: 0 })
    for (let call = 0; call < 5; call++) {
      const tried: string[] = []
      const ended = w.checkups.readyOk('api', (peer) => void tried.push(letterOf(peer)), {
        ...w.options(),
        isFailure: () => true,
      })
      await expect(ended).rejects.toBeInstanceOf(AttemptsError)
      expect(tried.slice(0, 7).sort().join('')).toBe('abcdefg')
      expect(tried[7]).toBe('h')
      expect(tried).toHaveLength(8)
    }
    expect(w.inFlight()).toBe(0)
  })

  it('fills every server to its maxConns, and no further', () => {
    const w = world(policy, { ...level('ab', { c: { maxConns: 5 } }), maxConns: 2 })
    const picks = Array.from({ length: 9 }, () => w.acquire()!)
    expect(
      picks
        .map(({ peer }) => letterOf(peer))
        .sort()
        .join(''),
    ).toBe('aabbccccc')
    expect([w.acquire(), w.pick(), w.checkups.unavailableReason('api')]).toEqual([undefined, '-', 'full'])
    const [freed] = picks.splice(4, 1)
    freed!.done('ok')
    const again = w.acquire()!
    expect(again.peer).toBe(freed!.peer)
    for (const pick of [...picks, again]) pick.done('ok')
    expect(w.inFlight()).toBe(0)
  })

  it('bans, tries and takes back a server', async () => {
    const w = world(policy, { ...level('abc'), maxFails: 1, failTimeout: 5_000 })
    w.feedback('b')
    expect(w.seen(300)).not.toContain('b')
    await w.clock.advance(4_999)
    expect(w.seen(300)).not.toContain('b')
    await w.clock.advance(1)
    const trial = w.acquire({ exclude: [target('a'), target('c')] })!
    expect(letterOf(trial.peer)).toBe('b')
    expect(w.seen(300)).not.toContain('b')
    trial.done('ok')
    expect(w.pick({ exclude: [target('a'), target('c')] })).toBe('b')
    if (!policy.pins) {
      // Failures are forgotten by time, where a policy counts them.
      await w.clock.advance(200_000)
      expect(w.seen(600)).toBe('abc')
    }
  })

  it('picks the same whether it is asked about in between or not', async () => {
    const run = async (ask: boolean) => {
      const w = world(policy, level('ac', { b: { weight: 3 }, d: { weight: 2, maxConns: 3 } }), 7)
      const sequence: string[] = []
      const held: Pick[] = []
      for (let i = 0; i < 120; i++) {
        if (ask) {
          w.checkups.getStatus()
          w.checkups.getUpstream('api')
          w.checkups.unavailableReason('api')
          w.checkups.unavailableReason('api', { exclude: [target('a'), target('b')], hashKey: policy.key(i) })
          w.checkups.upstream('api')
        }
        const pick = w.acquire()!
        sequence.push(letterOf(pick.peer))
        held.push(pick)
        if (held.length > 4) held.splice(i % 4, 1)[0]!.done(i % 9 === 0 ? 'neutral' : 'ok')
        if (i % 10 === 0) await w.clock.advance(20)
      }
      return sequence.join('')
    }
    expect(await run(true)).toBe(await run(false))
  })

  it('keeps requests in flight through a change of policy, either way', async () => {
    const w = world(policy, level('abc'))
    const held = Array.from({ length: 7 }, () => w.acquire()!)
    const spread = () => Array.from('abc').map((letter) => w.server(letter).inFlight)
    const before = spread()
    expect(before.reduce((a, b) => a + b)).toBe(7)
    await w.update({ balancer: { type: policy.balancer.type === 'wrr' ? 'least-connections' : 'wrr' } })
    expect(spread()).toEqual(before)
    held.push(w.acquire()!, w.acquire()!)
    await w.update({})
    held.push(w.acquire()!)
    expect(w.inFlight()).toBe(10)
    for (const pick of held) pick.done('ok')
    expect(spread()).toEqual([0, 0, 0])
    expect(w.seen(300)).toEqual(policy.pins ? expect.stringMatching(/^[abc]$/) : 'abc')
  })

  it('hands out only members that are available, through any history', async () => {
    const letters = Array.from('abcdefgh')
    const server = fc.record({
      letter: fc.constantFrom(...letters),
      weight: fc.constantFrom(1, 1, 2, 5, 0),
      backup: fc.boolean(),
      down: fc.constantFrom(false, false, false, true),
      drain: fc.constantFrom(false, false, false, true),
      maxConns: fc.constantFrom(0, 0, 3),
    })
    const list = fc.uniqueArray(server, { selector: ({ letter }) => letter, maxLength: 8 })
    const step = fc.oneof(
      { weight: 6, arbitrary: fc.record({ do: fc.constant('acquire' as const), key: fc.nat(20) }) },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('select' as const), key: fc.nat(20) }) },
      {
        weight: 5,
        arbitrary: fc.record({
          do: fc.constant('done' as const),
          which: fc.nat(),
          outcome: fc.constantFrom('ok' as const, 'failed' as const, 'neutral' as const, { status: 404 }),
          answered: fc.boolean(),
        }),
      },
      {
        weight: 2,
        arbitrary: fc.record({ do: fc.constant('exclude' as const), key: fc.nat(20), who: fc.subarray(letters) }),
      },
      { weight: 2, arbitrary: fc.record({ do: fc.constant('update' as const), servers: list }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), ms: fc.integer({ min: 1, max: 8_000 }) }) },
    )
    const history = fc.record({ first: list, steps: fc.array(step, { maxLength: 60 }), seed: fc.nat() })
    await fc.assert(
      fc.asyncProperty(history, async ({ first, steps, seed }) => {
        const options = (servers: typeof first): UpstreamOptions => ({
          servers: servers.map(({ letter, ...rest }): ServerOptions => ({ ...target(letter), ...rest })),
          allowEmpty: true,
          failTimeout: 3_000,
        })
        const w = world(policy, options(first), seed)
        const held: Pick[] = []
        const check = (peer: Peer | undefined, before: ReturnType<typeof w.status>, hidden: readonly string[]) => {
          const rows = [...before.values()].filter((row) => !hidden.includes(row.address))
          const open = rows.filter(({ available }) => available)
          const primary = open.filter(({ server: { backup } }) => backup !== true)
          const fair = (primary.length > 0 ? primary : open).map((row) => row.address)
          if (fair.length > 0) expect(fair).toContain(peer?.address)
          // A trial whose slot is taken is the last resort; who is out otherwise is out.
          else if (peer !== undefined) {
            expect(rows.map((row) => row.address)).toContain(peer.address)
            const { passive, server: row } = before.get(peer.address)!
            expect([passive.state, row.weight === 0, row.down, row.drain]).toEqual(['trial', false, false, false])
          }
        }
        for (const one of steps) {
          const before = w.status()
          if (one.do === 'wait') await w.clock.advance(one.ms)
          else if (one.do === 'update')
            await w.checkups.updateUpstream('api', { ...options(one.servers), balancer: policy.balancer })
          else if (one.do === 'done') {
            const [pick] = held.splice(one.which % Math.max(1, held.length), 1)
            if (one.answered) pick?.answered(200)
            pick?.done(one.outcome)
          } else {
            const exclude = one.do === 'exclude' ? one.who.map(target) : []
            const request = { hashKey: policy.key(one.key), exclude }
            const pick = one.do === 'acquire' ? w.checkups.acquirePeer('api', request) : undefined
            const peer = one.do === 'acquire' ? pick?.peer : w.checkups.selectPeer('api', request)
            check(peer, before, one.do === 'exclude' ? one.who.map(address) : [])
            if (pick !== undefined) held.push(pick)
          }
          const now = w.status()
          for (const [at, row] of now) {
            expect(row.inFlight, at).toBeLessThanOrEqual(held.filter(({ peer }) => peer.address === at).length)
          }
        }
        for (const pick of held) pick.done('ok')
        expect(w.inFlight()).toBe(0)
        expect(w.events.filter(({ name }) => name === 'error')).toEqual([])
      }),
      { numRuns: policy.slow ? 10 : 60, seed: 20_261 },
    )
  })
})

describe('LoadDistribution: 5 clients send 150 requests each', () => {
  const names = Array.from({ length: 20 }, (_, i) => String.fromCharCode(97 + i)).join('')
  const spreading = policies.filter(({ pins }) => !pins)

  /** Rounds of 150 requests of each client, each round to another list; how many every server got in all. */
  async function run({ balancer, key }: Policy, rounds: readonly string[]): Promise<number[]> {
    const clock = new VirtualClock()
    const clients = Array.from({ length: 5 }, (_, i) => {
      const upstreams = { api: { balancer, ...level(rounds[0]!) } }
      return { checkups: new Checkups({ clock, random: seeded(100 + i), upstreams }), held: [] as Pick[] }
    })
    const got = new Map<string, number>()
    let asked = 0
    for (const [round, letters] of rounds.entries()) {
      for (const { checkups } of clients) if (round > 0) await checkups.updateUpstream('api', [level(letters)])
      for (let request = 0; request < 150; request++) {
        for (const { checkups, held } of clients) {
          const pick = checkups.acquirePeer('api', { hashKey: key(asked++) })!
          const letter = letterOf(pick.peer)
          expect(letters).toContain(letter)
          got.set(letter, (got.get(letter) ?? 0) + 1)
          held.push(pick)
          if (held.length > 3) held.shift()!.done('ok')
        }
        await clock.advance(5)
      }
    }
    return [...got.values()]
  }

  const scenarios = [
    { title: '10 servers', rounds: [names.slice(0, 10)], most: 155 },
    {
      title: 'a rolling deploy of 10 servers, 5 at a time',
      rounds: [names.slice(0, 10), names.slice(5, 15), names.slice(10, 20)],
      most: 450,
    },
    { title: 'a pool that shrinks from 10 to 5', rounds: [names.slice(0, 10), names.slice(0, 5)], most: 300 },
    { title: 'a pool that grows from 10 to 15', rounds: [names.slice(0, 10), names.slice(0, 15)], most: 300 },
  ]
  describe.each(scenarios)('$title', ({ rounds, most }) => {
    it.each(spreading)('$title: no server gets more than twice its share', async (policy) => {
      const got = await run(policy, rounds)
      expect(got.reduce((a, b) => a + b)).toBe(750 * rounds.length)
      expect(Math.max(...got)).toBeLessThanOrEqual(most)
    })
    it.skip('pick-first: pins every client to one server, on purpose', () => undefined)
  })

  it('covers every policy but the one that pins', () => {
    expect(policies.filter((policy) => !spreading.includes(policy)).map(({ title }) => title)).toEqual(['pick-first'])
  })
})
