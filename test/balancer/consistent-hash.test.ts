import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { nginxRingHash } from '../../src/balancer/lib/nginx-hash.js'
import { Checkups, isCheckupsError } from '../../src/index.js'
import type { ConsistentHashOptions, Pick, ServerOptions } from '../../src/index.js'
import { golden, recordedServer } from '../conformance/support.js'
import { VirtualClock } from '../support/virtual-clock.js'
import { address, harness, letterOf, level, target } from '../upstream/harness.js'
import { counts, seeded } from './policies.js'

type Options = Omit<ConsistentHashOptions, 'type'>

const KEYS = Array.from({ length: 2_000 }, (_, i) => `user-${i}`)

function hashing(servers: readonly ServerOptions[], options: Options = {}) {
  const h = harness({ servers, balancer: { type: 'consistent-hash', ...options }, maxFails: 1, failTimeout: 10_000 })
  const of = (hashKey: string | Uint8Array) => h.checkups.selectPeer('api', { hashKey })?.address ?? '-'
  return {
    ...h,
    of,
    map: (keys: readonly string[] = KEYS) => keys.map(of),
    acquire: (hashKey?: string | Uint8Array) => h.checkups.acquirePeer('api', { hashKey }),
    update: (list: readonly ServerOptions[]) => h.checkups.updateUpstream('api', [{ servers: list }]),
  }
}

const server = (letter: string, more: object = {}): ServerOptions => ({ ...target(letter), ...more })
const servers = (letters: string) => Array.from(letters, (letter) => server(letter))
/** The keys whose server differs, by position. */
const moved = (before: readonly string[], after: readonly string[]) =>
  before.flatMap((old, i) => (after[i] === old ? [] : [{ from: old, to: after[i]! }]))

/** nginx's recordings: one map per set of weights. */
interface HashRecording {
  readonly ips?: readonly string[]
  readonly maps: Readonly<Record<string, readonly number[]>>
}
const recorded = (weights: readonly number[], change: (at: number) => object = () => ({})) =>
  weights.map((weight, i) => ({ ...recordedServer(i, weight), ...change(i) }))
const positions = (map: readonly string[]) => map.map((at) => Number(at.split(':')[1]) - 23_001)
const EQUAL = [1, 1, 1, 1, 1]
const WEIGHTS = [1, 2, 3, 1, 1]

describe('like nginx', () => {
  const { maps } = golden('nginx-hash') as HashRecording
  const { ips, maps: ipMaps } = golden('nginx-ip-hash') as Required<HashRecording>
  const keys = Array.from({ length: 100 }, (_, i) => `key-${i}`)

  it.each([
    ['equal5', EQUAL],
    ['w12311', WEIGHTS],
  ])("hash … consistent sends 100 keys where nginx's does: %s", (name, weights) => {
    expect(positions(hashing(recorded(weights), { hash: 'nginx' }).map(keys))).toEqual(maps[name])
  })

  it('hash … consistent: removal and down move the keys of that server alone, to the same servers', async () => {
    const third = (at: number) => ({ down: at === 2 })
    const without = recorded(EQUAL).filter((_, at) => at !== 2)
    const all = maps['equal5']!
    const down = positions(hashing(recorded(EQUAL, third), { hash: 'nginx' }).map(keys))
    expect(down.map((to, i) => (all[i] === 2 ? to !== 2 : to === all[i]))).not.toContain(false)
    expect(positions(hashing(without, { hash: 'nginx' }).map(keys))).toEqual(down)
    const h = hashing(recorded(EQUAL), { hash: 'nginx' })
    await h.update(without)
    expect(positions(h.map(keys))).toEqual(down)
    await h.update(recorded(EQUAL))
    expect(positions(h.map(keys))).toEqual(all)
    await h.update(recorded(WEIGHTS))
    expect(positions(h.map(keys))).toEqual(maps['w12311'])
    await h.update(recorded(EQUAL))
    expect(positions(h.map(keys))).toEqual(all)
  })

  it.each([
    ['equal5', recorded(EQUAL)],
    ['w12311', recorded(WEIGHTS)],
    ['equal5_third_down', recorded(EQUAL, (at) => ({ down: at === 2 }))],
    ['equal5_without_third', recorded(EQUAL).filter((_, at) => at !== 2)],
  ])("ip_hash sends 50 addresses where nginx's does: %s", async (name, list) => {
    // In nginx's recording without the third server, servers keep their numbers.
    expect(positions(hashing(list, { hash: 'nginx-ip' }).map(ips))).toEqual(ipMaps[name])
    const h = hashing(recorded(EQUAL), { hash: 'nginx-ip' })
    await h.update(list)
    expect(positions(h.map(ips))).toEqual(ipMaps[name])
  })

  it('hash … consistent looks at 21 points before it gives up, as ip_hash makes 21 rounds', () => {
    // The walk of a key over the ring: 40 servers, 2 of them up; it must reach one of these at its 21st point.
    const list = recorded(new Array<number>(40).fill(1), (at) => ({ down: at !== 7 && at !== 30 }))
    const points = list
      .flatMap(({ host, port }, at) =>
        Array.from(nginxRingHash.points(`${host}:${port}`, 160), (hash) => ({ hash, at })),
      )
      .sort((a, b) => a.hash - b.hash)
    const reach = (key: string) => {
      const hash = nginxRingHash.key(key)
      const start = points.findIndex((point) => point.hash >= hash)
      for (let steps = 0; ; steps++) {
        const { at } = points[(Math.max(0, start) + steps) % points.length]!
        if (at === 7 || at === 30) return { key, steps, at }
      }
    }
    const keys = Array.from({ length: 3_000 }, (_, i) => reach(`k${i}`))
    const h = hashing(list, { hash: 'nginx' })
    for (const steps of [0, 5, 18, 19, 20]) {
      const found = keys.filter((one) => one.steps === steps)
      expect(found.length).toBeGreaterThan(3)
      for (const { key, at } of found)
        expect(positions([h.of(key), h.of(key)]), `${steps} passed over`).toEqual([at, at])
    }
    // Beyond that by turns, whatever the key.
    const far = keys.find(({ steps }) => steps > 25)!.key
    expect(positions([h.of(far), h.of(far)]).sort((a, b) => a - b)).toEqual([7, 30])
  })

  it('ip_hash: a /24 of IPv4 is one client, an IPv6 address is its sixteen bytes however it is written', () => {
    const h = hashing(recorded([1, 1, 1, 1, 1, 1, 1, 1, 1]), { hash: 'nginx-ip' })
    for (let i = 0; i < 50; i++) {
      const net = `10.${i * 5}.${i}`
      expect(new Set([`${net}.1`, `${net}.77`, `${net}.255`].map(h.of)).size).toBe(1)
      const group = (i * 1_021).toString(16)
      expect(new Set([`2001:db8::${group}`, `2001:0DB8:0:0:0:0:0:${group}`].map(h.of)).size).toBe(1)
      const bytes = Uint8Array.of(0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, (i * 1_021) >> 8, i * 1_021)
      expect(h.of(bytes)).toBe(h.of(`2001:db8::${group}`))
    }
    expect(new Set(Array.from({ length: 50 }, (_, i) => h.of(`2001:db8::${i}`))).size).toBeGreaterThan(3)
  })

  it('ip_hash: an IPv4 address in IPv6 is one client in both spellings', () => {
    const h = hashing(recorded([1, 1, 1, 1, 1, 1, 1, 1, 1]), { hash: 'nginx-ip' })
    const pairs = Array.from({ length: 30 }, (_, i) => [
      `::ffff:10.0.${i}.1`,
      `::ffff:a00:${(i * 256 + 1).toString(16)}`,
    ])
    for (const [dotted, hex] of pairs) expect(h.of(hex!), hex).toBe(h.of(dotted!))
  })
})

describe.each(['ketama', 'nginx', 'maglev'] as const)('%s', (hash) => {
  const ring = hash !== 'maglev'

  it('sends a key to the same server every time, of whatever process, in whatever order its list is', async () => {
    const list = [server('a'), server('b', { weight: 3 }), server('c'), server('d', { weight: 2 }), server('e')]
    const first = hashing(list, { hash }).map()
    expect(hashing([...list].reverse(), { hash }).map()).toEqual(first)
    const other = new Checkups({
      random: () => 0.73,
      upstreams: { api: { servers: [...list].reverse(), balancer: { type: 'consistent-hash', hash } } },
    })
    expect(KEYS.map((hashKey) => other.selectPeer('api', { hashKey })!.address)).toEqual(first)
    expect(new Set(first).size).toBe(5)
  })

  it('is the same after any history of updates', async () => {
    const one = fc.record({
      letter: fc.constantFrom(...Array.from('abcdefghij')),
      weight: fc.integer({ min: 0, max: 4 }),
    })
    const list = fc.uniqueArray(one, { selector: ({ letter }) => letter, minLength: 1, maxLength: 10 })
    const keys = KEYS.slice(0, 300)
    const options = (rows: readonly { letter: string; weight: number }[]) =>
      rows.map(({ letter, weight }) => server(letter, { weight }))
    await fc.assert(
      fc.asyncProperty(fc.array(list, { minLength: 2, maxLength: 6 }), fc.boolean(), async (lists, hold) => {
        const h = hashing(options(lists[0]!), { hash })
        const held: (Pick | undefined)[] = []
        for (const next of lists) {
          if (hold) held.push(h.acquire('x'), h.acquire('y'))
          await h.update(options(next))
        }
        expect(h.map(keys)).toEqual(hashing(options(lists.at(-1)!), { hash }).map(keys))
      }),
      { numRuns: ring ? 60 : 10, seed: 20_262 },
    )
  })

  it('moves the keys of a server that fails or is down, no other, and they come back', async () => {
    const h = hashing(servers('abcdefgh'), { hash })
    const before = h.map()
    h.feedback('c')
    const banned = h.map()
    const away = moved(before, banned)
    expect(away.length).toBe(counts(before).get(address('c')))
    expect(new Set(away.map(({ from }) => from))).toEqual(new Set([address('c')]))
    // Not all to one: what a failed server had is spread.
    expect(new Set(away.map(({ to }) => to)).size).toBeGreaterThan(3)
    await h.clock.advance(10_000)
    h.checkups.acquirePeer('api', { hashKey: KEYS[before.indexOf(address('c'))]! })!.done('ok')
    expect(h.map()).toEqual(before)
    await h.checkups.setServer('api', target('c'), { down: true })
    expect(h.map()).toEqual(banned)
    await h.checkups.setServer('api', target('c'), { down: false, drain: true })
    expect(h.map()).toEqual(banned)
    await h.checkups.setServer('api', target('c'), { drain: false })
    expect(h.map()).toEqual(before)
  })

  it.runIf(ring)('down is the same map as removed and as weight 0', async () => {
    const list = servers('abcdefgh')
    const h = hashing(list, { hash })
    for (const letter of 'adh') {
      const change = (more: object) => list.map((one) => (one.port === target(letter).port ? { ...one, ...more } : one))
      await h.update(change({ down: true }))
      const down = h.map()
      await h.update(list.filter(({ port }) => port !== target(letter).port))
      expect(h.map()).toEqual(down)
      await h.update(change({ weight: 0 }))
      expect(h.map()).toEqual(down)
    }
  })

  it.runIf(ring)('adding a server moves keys to it alone; removing it moves them back', async () => {
    const h = hashing(servers('abcdefg'), { hash })
    const before = h.map()
    await h.update(servers('hgfedcba'))
    const after = h.map()
    const to = moved(before, after)
    expect(new Set(to.map((move) => move.to))).toEqual(new Set([address('h')]))
    expect(to.length).toBe(counts(after).get(address('h')))
    expect(to.length / KEYS.length).toBeGreaterThan(0.75 / 8)
    expect(to.length / KEYS.length).toBeLessThan(1.25 / 8)
    await h.update(servers('abcdefg'))
    expect(h.map()).toEqual(before)
  })

  it.runIf(ring)('a weight that grows moves keys to its server alone, one that shrinks from it alone', async () => {
    const h = hashing(servers('abcdef'), { hash })
    const before = h.map()
    await h.checkups.setServer('api', target('b'), { weight: 3 })
    const grown = moved(before, h.map())
    expect(grown.length).toBeGreaterThan(100)
    expect(new Set(grown.map(({ to }) => to))).toEqual(new Set([address('b')]))
    const heavy = h.map()
    await h.checkups.setServer('api', target('b'), { weight: 2 })
    const shrunk = moved(heavy, h.map())
    expect(shrunk.length).toBeGreaterThan(50)
    expect(new Set(shrunk.map(({ from }) => from))).toEqual(new Set([address('b')]))
    await h.checkups.setServer('api', target('b'), { weight: 1 })
    expect(h.map()).toEqual(before)
  })

  it('shares keys evenly for equal weights, in proportion for others', () => {
    const many = Array.from({ length: 40_000 }, (_, i) => `session/${i * 7_919}`)
    const equal = [...counts(hashing(servers('abcdefghij'), { hash }).map(many)).values()]
    expect(equal).toHaveLength(10)
    for (const share of equal) expect(Math.abs(share / 4_000 - 1)).toBeLessThan(0.25)
    const weighted = counts(
      hashing(
        [1, 2, 3, 4].map((weight, i) => server('abcd'[i]!, { weight })),
        { hash },
      ).map(many),
    )
    for (const [i, letter] of Array.from('abcd').entries()) {
      expect(Math.abs(weighted.get(address(letter))! / (4_000 * (i + 1)) - 1), letter).toBeLessThan(0.25)
    }
  })

  it('hashes a string and its bytes alike', () => {
    const h = hashing(servers('abcdefghij'), { hash })
    const keys = [...KEYS.slice(0, 200), 'ü', '日本語', '😀', 'x'.repeat(100), 'é'.repeat(3_000)]
    for (const key of keys) {
      const at = h.of(key)
      expect([h.of(Buffer.from(key)), h.of(new TextEncoder().encode(key))], key).toEqual([at, at])
      // A view into a larger buffer is those bytes alone.
      expect(h.of(Buffer.from(`<<<${key}>>>`).subarray(3, -3)), key).toBe(at)
    }
  })
})

describe.each(['ketama', 'nginx', 'nginx-ip', 'maglev'] as const)('without a key: %s', (hash) => {
  it('goes on as wrr would, with the sequence of its own', async () => {
    const list = [server('a', { weight: 5 }), server('b'), server('c', { weight: 2 })]
    const h = hashing(list, { hash })
    const plain = harness({ servers: list })
    const without = [{}, { hashKey: '' }, { hashKey: undefined }, { hashKey: new Uint8Array(0) }, undefined]
    const sequence = (count: number) =>
      Array.from({ length: count }, (_, i) => {
        if (i % 3 === 0) h.of('10.1.2.3')
        return letterOf(h.checkups.selectPeer('api', without[i % without.length]))
      }).join('')
    expect(sequence(24)).toBe(plain.picks(24))
    h.feedback('a')
    plain.feedback('a')
    await h.checkups.setServer('api', target('b'), { down: true })
    await plain.checkups.setServer('api', target('b'), { down: true })
    expect(sequence(6)).toBe(plain.picks(6))
  })
})

describe.each([{}, { sticky: { max: 10, ttl: 1_000 } }])('a key of a caller without types: %j', (options) => {
  it.each([
    ['numbers', [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]],
    ['null', [null]],
    ['an object', [{}]],
    ['true', [true]],
  ])('%s: spread like any keys, or refused with a code; never all to one server in silence', (_, keys) => {
    const h = hashing(servers('abcd'), options)
    const results = keys.map((key) => {
      try {
        return h.of(key as never)
      } catch (error) {
        return isCheckupsError(error) ? 'refused' : String(error)
      }
    })
    expect(results.join()).not.toContain('TypeError')
    if (keys.length > 1 && results[0] !== 'refused') expect(new Set(results).size).toBeGreaterThan(1)
  })
})

/** Every look at it takes time, so that a long job is cut into slices. */
class TickingClock extends VirtualClock {
  #ticks = 0
  tick = 0

  override now(): number {
    this.#ticks += this.tick
    return super.now() + this.#ticks
  }
}

/** A change is made in slices where a ring has more than 262,144 points, a table more than 1,000 servers. */
describe.each([
  { hash: 'ketama', scale: 1, weight: 10 },
  { hash: 'nginx', scale: 1, weight: 10 },
  { hash: 'maglev', scale: 8, weight: 1 },
] as const)('a list taken over in slices: $hash', ({ hash, scale, weight }) => {
  const many = (from: number, count: number): ServerOptions[] =>
    Array.from({ length: count * scale }, (_, i) => {
      const n = from * scale + i
      return { host: `10.1.${n >> 8}.${n & 255}`, port: 80, weight }
    })

  function slow() {
    const clock = new TickingClock()
    const upstreams = { api: { servers: many(0, 200), balancer: { type: 'consistent-hash', hash } } } as const
    const checkups = new Checkups({ clock, random: () => 0, upstreams })
    const map = () => KEYS.map((hashKey) => checkups.selectPeer('api', { hashKey })!.address)
    return { clock, checkups, map }
  }
  const fresh = (list: readonly ServerOptions[]) => {
    const upstreams = { api: { servers: list, balancer: { type: 'consistent-hash', hash } } } as const
    const checkups = new Checkups({ random: () => 0, upstreams })
    return KEYS.map((hashKey) => checkups.selectPeer('api', { hashKey })!.address)
  }

  it('serves from the old ring, less who left, until the new one is done', async () => {
    const { clock, checkups, map } = slow()
    const before = map()
    clock.tick = 3
    const list = many(50, 200)
    await checkups.updateUpstream('api', [{ servers: list }])
    expect(clock.pending).toBe(1)
    const there = new Set(list.map(({ host }) => `${host}:80`))
    let looks = 0
    for (; clock.pending > 0; looks++) {
      const now = map()
      for (const [i, at] of now.entries()) {
        expect(there).toContain(at)
        // Nothing moves but what has to, while the old ring serves.
        if (there.has(before[i]!)) expect(at).toBe(before[i])
      }
      await clock.advance(0)
    }
    expect(looks).toBeGreaterThan(0)
    expect(map()).toEqual(fresh(list))
  })

  it('an update during an update wins, whatever came before', async () => {
    const { clock, checkups, map } = slow()
    clock.tick = 3
    await checkups.updateUpstream('api', [{ servers: many(100, 200) }])
    expect(clock.pending).toBe(1)
    const picked = checkups.acquirePeer('api', { hashKey: 'held' })!
    await checkups.updateUpstream('api', [{ servers: many(300, 100) }])
    expect(new Set(map()).size).toBeGreaterThan(1)
    // Back to those that left a moment ago, one of them with a request in flight.
    const list = [...many(0, 150), ...many(290, 60)]
    await checkups.updateUpstream('api', [{ servers: list }])
    const there = new Set(list.map(({ host }) => `${host}:80`))
    for (const at of map()) expect(there).toContain(at)
    while (clock.pending > 0) await clock.advance(1)
    expect(map()).toEqual(fresh(list))
    picked.done('ok')
    expect(map()).toEqual(fresh(list))
  })

  it('a close ends the slices too', async () => {
    const { clock, checkups } = slow()
    clock.tick = 3
    await checkups.updateUpstream('api', [{ servers: many(100, 200) }])
    expect(clock.pending).toBe(1)
    await checkups.close()
    expect(clock.pending).toBe(0)
  })

  it('deleting the upstream ends the slices too', async () => {
    const { clock, checkups } = slow()
    clock.tick = 3
    await checkups.updateUpstream('api', [{ servers: many(100, 200) }])
    expect(clock.pending).toBe(1)
    await checkups.deleteUpstream('api')
    expect(clock.pending).toBe(0)
  })
})

describe('boundedLoad', () => {
  const step = fc.oneof(
    { weight: 5, arbitrary: fc.record({ do: fc.constant('acquire' as const), key: fc.nat(12) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('done' as const), which: fc.nat() }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('down' as const), who: fc.subarray(Array.from('abcdef')) }) },
    {
      weight: 1,
      arbitrary: fc.record({
        do: fc.constant('list' as const),
        weights: fc.array(fc.integer({ min: 0, max: 4 }), { minLength: 6, maxLength: 6 }),
      }),
    },
  )
  const history = fc.record({
    bound: fc.constantFrom(1, 1.1, 1.25, 2),
    weights: fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 6, maxLength: 6 }),
    steps: fc.array(step, { maxLength: 120 }),
  })

  const kinds = (['ketama', 'nginx', 'nginx-ip', 'maglev'] as const).flatMap((hash) =>
    [false, true].flatMap((sticky) => [true, false].map((keyed) => ({ hash, sticky, keyed }))),
  )
  it.each(kinds)(
    'nobody is taken above the bound: $hash, sticky $sticky, all keyed $keyed',
    async ({ hash, ...kind }) => {
      await fc.assert(
        fc.asyncProperty(history, async ({ bound, weights, steps }) => {
          const sticky = kind.sticky ? { max: 100, ttl: 60_000 } : undefined
          let list = weights
          let down: readonly string[] = []
          const servers = () =>
            list.map((weight, i) => server('abcdef'[i]!, { weight, down: down.includes('abcdef'[i]!) }))
          const h = hashing(servers(), { hash, boundedLoad: bound, sticky })
          const held: Pick[] = []
          for (const one of steps) {
            if (one.do === 'done') held.splice(one.which % Math.max(1, held.length), 1)[0]?.done('ok')
            else if (one.do === 'acquire') {
              const before = h.status()
              const rows = [...before.values()]
              const total = rows.reduce((sum, { inFlight }) => sum + inFlight, 0)
              const open = rows.filter(({ available }) => available)
              const weightOf = (row: (typeof rows)[number]) => row.server.weight!
              const sum = open.reduce((all, row) => all + weightOf(row), 0)
              const key = hash === 'nginx-ip' ? `10.${one.key * 9}.${one.key}.1` : `hot-${one.key}`
              const pick = h.acquire(kind.keyed || one.key % 4 > 0 ? key : undefined)
              expect(pick === undefined).toBe(open.length === 0)
              if (pick === undefined) continue
              held.push(pick)
              const row = before.get(pick.peer.address)!
              const most = Math.ceil((bound * (total + 1) * weightOf(row)) / sum)
              expect(row.inFlight + 1, `of ${most}`).toBeLessThanOrEqual(most)
            } else {
              if (one.do === 'down') down = one.who
              else list = one.weights.some((weight) => weight > 0) ? one.weights : list
              await h.update(servers())
            }
          }
        }),
        { numRuns: hash === 'maglev' ? 15 : 60, seed: 20_263 },
      )
    },
  )

  it.each(['ketama', 'nginx', 'nginx-ip', 'maglev'] as const)('a hot key goes round all servers: %s', (hash) => {
    const list = Array.from({ length: 40 }, (_, i) => ({ host: '10.0.0.2', port: i + 1 }))
    const h = hashing(list, { hash, boundedLoad: 1 })
    // Of 40 requests in flight the fair share is one each.
    const taken = counts(list.map(() => h.acquire('10.9.8.7')!.peer.address))
    expect(Math.max(...taken.values())).toBe(1)
    expect(taken.size).toBe(40)
  })

  it('a hot key overflows to others, always the same, and comes home when there is room', () => {
    const h = hashing(servers('abcdefgh'), { boundedLoad: 1.25 })
    const home = h.of('hot')
    const held = Array.from({ length: 40 }, () => h.acquire('hot')!)
    const inOrder = held.map(({ peer }) => peer.address)
    expect(inOrder[0]).toBe(home)
    // ceil(1.25 · 40 / 8)
    expect(Math.max(...counts(inOrder).values())).toBeLessThanOrEqual(7)
    for (const pick of held) pick.done('ok')
    expect(h.of('hot')).toBe(home)
    const again = Array.from({ length: 40 }, () => h.acquire('hot')!.peer.address)
    expect(again).toEqual(inOrder)
  })

  it('keys that spread by themselves stay at home', () => {
    const h = hashing(servers('abcdefgh'), { boundedLoad: 2 })
    const free = hashing(servers('abcdefgh'))
    const keys = KEYS.slice(0, 800)
    const taken = keys.map((key) => h.acquire(key)!.peer.address)
    const away = keys.filter((key, i) => taken[i] !== free.of(key))
    expect(away.length / keys.length).toBeLessThan(0.02)
  })
})

describe('sticky', () => {
  const keys = KEYS.slice(0, 100)
  const minute = { sticky: { max: 1_000, ttl: 60_000 } }

  it.each(['ketama', 'nginx', 'maglev'] as const)(
    'keeps keys where they are while the list changes: %s',
    async (hash) => {
      const h = hashing(servers('abc'), { hash, ...minute })
      const before = h.map(keys)
      await h.update(servers('abcdefghij'))
      expect(h.map(keys)).toEqual(before)
      expect(hashing(servers('abcdefghij'), { hash }).map(keys)).not.toEqual(before)
      // New keys follow the ring.
      expect(new Set(h.map(KEYS.slice(100, 400))).size).toBe(10)
    },
  )

  it('a key goes elsewhere when its server is out, and stays there', () => {
    const h = hashing(servers('abc'), minute)
    const before = h.map(keys)
    h.feedback('a')
    const out = h.map(keys)
    expect(moved(before, out).every(({ from }) => from === address('a'))).toBe(true)
    expect(out).not.toContain(address('a'))
    h.checkups.feedbackStatus('api', target('a'), 'ok')
    expect(h.map(keys)).toEqual(out)
  })

  it('a key is not kept at a server that has left, also not when another of its address comes', async () => {
    const h = hashing(servers('abc'), minute)
    const before = h.map(keys)
    const held = keys.map((key) => h.acquire(key)!)
    await h.update(servers('bc'))
    const without = h.map(keys)
    expect(without).not.toContain(address('a'))
    for (const pick of held) pick.done('ok')
    await h.update(servers('abc'))
    expect(h.map(keys)).toEqual(without)
    expect(moved(before, without).length).toBe(counts(before).get(address('a')))
  })

  it.each([0, 1_000])('a key is forgotten ttl after its last use, by the clock: begun at %i ms', async (start) => {
    const h = hashing(servers('ab'), { sticky: { max: 1_000, ttl: 5_000 } })
    await h.clock.advance(start)
    const before = h.map(keys)
    const ring = hashing(servers('abcdefghij')).map(keys)
    await h.update(servers('abcdefghij'))
    await h.clock.advance(4_000)
    expect(h.map(keys)).toEqual(before)
    await h.clock.advance(4_999)
    expect(h.map(keys)).toEqual(before)
    await h.clock.advance(5_001)
    expect(h.map(keys)).toEqual(ring)
  })

  it('a key that was never used again is forgotten even if it was kept at the very start of time', async () => {
    const h = hashing(servers('ab'), { sticky: { max: 1_000, ttl: 5_000 } })
    h.map(keys)
    await h.update(servers('abcdefghij'))
    await h.clock.advance(5_001)
    expect(h.map(keys)).toEqual(hashing(servers('abcdefghij')).map(keys))
  })

  it('remembers max keys, the last used', async () => {
    const h = hashing(servers('ab'), { sticky: { max: 10, ttl: 60_000 } })
    const before = h.map(keys)
    await h.update(servers('abcdefghij'))
    const ring = hashing(servers('abcdefghij')).map(keys)
    expect(h.map(keys.slice(90))).toEqual(before.slice(90))
    expect(h.map(keys.slice(0, 90))).toEqual(ring.slice(0, 90))
  })

  it('a string and its bytes are one key', async () => {
    const h = hashing(servers('ab'), minute)
    const before = h.map(keys)
    await h.update(servers('abcdefghij'))
    expect(keys.map((key) => h.of(Buffer.from(key)))).toEqual(before)
  })

  it('a key stays after a single request of it that may not go there', async () => {
    const h = hashing(servers('abc'), minute)
    const before = h.map(keys)
    for (const [i, hashKey] of keys.entries()) {
      const [host, port] = before[i]!.split(':')
      expect(h.checkups.selectPeer('api', { hashKey, exclude: [{ host: host!, port: port! }] })!.address).not.toBe(
        before[i],
      )
    }
    expect(h.map(keys)).toEqual(before)
  })

  it('a key stays after a retry of an answer that was no failure', async () => {
    const h = hashing(servers('abc'), minute)
    const before = h.map(keys)
    for (const hashKey of keys) {
      let calls = 0
      await h.checkups.readyOk('api', () => ++calls, { hashKey, isFailure: (call) => (call === 1 ? 'next' : 'ok') })
      expect(calls).toBe(2)
    }
    expect(h.map(keys)).toEqual(before)
  })

  it('bytes that are not text are kept apart', async () => {
    const h = hashing(servers('ab'), minute)
    const bytes = Array.from({ length: 256 }, (_, i) => Uint8Array.of(0xff, i))
    const before = bytes.map(h.of)
    await h.update(servers('abcdefghij'))
    expect(bytes.map(h.of)).toEqual(before)
  })
})

it('two processes with other random starts agree on every key', () => {
  const maps = [1, 2, 3].map((seed) => {
    const upstreams = { api: { ...level('abcdef'), balancer: 'consistent-hash' } } as const
    const checkups = new Checkups({ random: seeded(seed), upstreams })
    return KEYS.map((hashKey) => checkups.selectPeer('api', { hashKey })!.address)
  })
  expect(maps[1]).toEqual(maps[0])
  expect(maps[2]).toEqual(maps[0])
})
