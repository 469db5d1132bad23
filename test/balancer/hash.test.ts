import fc from 'fast-check'
import murmurhash from 'murmurhash3js-revisited'
import { describe, expect, it } from 'vitest'
import { hashKey } from '../../src/balancer/lib/hash.js'
import { HashMaglev, MAGLEV_SIZE } from '../../src/balancer/lib/hash-maglev.js'
import { HashRing, murmurRingHash, type RingHash } from '../../src/balancer/lib/hash-ring.js'
import { Jobs } from '../../src/balancer/lib/slices.js'
import { nginxRingHash } from '../../src/balancer/lib/nginx-hash.js'
import { maglevTable, type Preference } from '../../src/balancer/lib/maglev.js'
import { Ring, type Points } from '../../src/balancer/lib/ring.js'
import type { BalancerEnv, Member, Peer } from '../../src/index.js'
import { counts, seeded } from './policies.js'

/** Runs steps to their end. */
function finish<T>(steps: Generator<unknown, T>): T {
  for (;;) {
    const { done, value } = steps.next()
    if (done === true) return value
  }
}

function member(address: string, fullWeight = 1): Member {
  const peer = { address } as Peer
  return {
    peer,
    weight: fullWeight,
    fullWeight,
    available: true,
    healthy: true,
    inFlight: 0,
    oldest: Infinity,
    data: undefined,
  }
}

const env: BalancerEnv = { random: () => 0, now: () => 0, defer: (task) => task() }

describe('hashKey', () => {
  const reference = (bytes: Uint8Array) => murmurhash.x86.hash32(bytes, 0)
  const text = (key: string) => reference(new TextEncoder().encode(key))

  it('is murmur3: known values', () => {
    // Of the reference implementation, seed 0.
    expect(['', 'hello', 'hello, world', 'The quick brown fox jumps over the lazy dog'].map(hashKey)).toEqual([
      0, 0x248bfa47, 0x149bbb7f, 0x2e4ff723,
    ])
  })

  it('equals the library over the UTF-8 bytes of any string', () => {
    const anything = fc.oneof(
      fc.string({ unit: 'binary', maxLength: 200 }),
      fc.string({ unit: 'grapheme', maxLength: 100 }),
      fc.string({ unit: 'binary-ascii', maxLength: 200 }),
      // Any code units: lone surrogates, halves in the wrong order.
      fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 120 }).map((units) => String.fromCharCode(...units)),
      fc
        .array(fc.integer({ min: 0xd700, max: 0xe0ff }), { maxLength: 60 })
        .map((units) => String.fromCharCode(...units)),
    )
    fc.assert(
      fc.property(anything, (key) => {
        expect(hashKey(key)).toBe(text(key))
      }),
      { numRuns: 3_000, seed: 20_264 },
    )
  })

  it('equals the library at every length from 0 to 5,000', () => {
    const units = ['x', 'é', '€', '😀', '\ud800', '\udc00', '\u007f', '\u0080', '\u07ff', '\u0800', '\uffff']
    const random = seeded(3)
    for (let length = 0; length <= 5_000; length++) {
      const odd = units[length % units.length]!
      const at = Math.floor(random() * length)
      const ascii = 'abcdefghijklmnopqrstuvwxyz'.repeat(200).slice(0, length)
      const mixed = length === 0 ? odd : (ascii.slice(0, at) + odd + ascii.slice(at + 1)).slice(0, length)
      if (hashKey(ascii) !== text(ascii)) expect.fail(`ascii, length ${length}`)
      if (hashKey(mixed) !== text(mixed)) expect.fail(`${JSON.stringify(odd)} at ${at}, length ${length}`)
    }
    for (const unit of units) {
      for (const length of [1, 2, 3, 39, 40, 41, 1_364, 1_365, 1_366, 2_047, 2_048, 2_049, 4_095, 4_096, 4_097]) {
        const key = unit.repeat(length)
        expect(hashKey(key), `${JSON.stringify(unit)} × ${length}`).toBe(text(key))
      }
    }
  })

  it('a long key leaves nothing behind for the next one', () => {
    const short = 'z'.repeat(41)
    const before = hashKey(short)
    hashKey('\uffff'.repeat(1_300))
    expect(hashKey(short)).toBe(before)
    expect(before).toBe(text(short))
  })

  it('takes bytes as they are, whatever kind of array they are in', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(7), (bytes, shift) => {
        const view = new Uint8Array(bytes.length + 16)
        view.set(bytes, shift)
        const expected = reference(bytes)
        expect(hashKey(bytes)).toBe(expected)
        expect(hashKey(Buffer.from(bytes))).toBe(expected)
        expect(hashKey(view.subarray(shift, shift + bytes.length))).toBe(expected)
      }),
      { numRuns: 500, seed: 20_265 },
    )
  })
})

describe('Ring', () => {
  interface Point {
    readonly hash: number
    readonly owner: number
  }
  const MOST = 2 ** 32 - 1
  // Few hashes, so that they collide, and the ends of the circle.
  const hash = fc.oneof(
    fc.integer({ min: 0, max: 20 }),
    fc.constantFrom(0, 1, MOST - 1, MOST),
    fc.integer({ min: 0, max: MOST }),
  )
  const idOf = (point: Point) => `${point.hash} of ${point.owner}`
  const points = fc.uniqueArray(fc.record({ hash, owner: fc.nat(7) }), {
    selector: idOf,
    maxLength: 60,
  })
  const pack = (list: readonly Point[]): Points => ({
    hashes: Uint32Array.from(list, (point) => point.hash),
    owners: Uint16Array.from(list, (point) => point.owner),
  })
  /** Owners of one hash stand in the order of a rank that is not that of their numbers. */
  const rank = (owner: number) => (owner * 5 + 3) % 8
  const before = (one: number, other: number) => rank(one) < rank(other)
  const sorted = (list: readonly Point[]) => [...list].sort((a, b) => a.hash - b.hash || rank(a.owner) - rank(b.owner))
  const build = (list: readonly Point[]) => finish(Ring.empty.change(pack(list), before))
  const owners = (ring: Ring) => Array.from({ length: ring.size }, (_, position) => ring.owner(position))

  it('finds what a scan finds', () => {
    fc.assert(
      fc.property(points, fc.array(hash, { minLength: 1, maxLength: 30 }), (list, looks) => {
        const ring = build(list)
        const scan = sorted(list)
        expect(owners(ring)).toEqual(scan.map(({ owner }) => owner))
        for (const look of [...looks, 0, MOST, ...scan.map((point) => point.hash)]) {
          const at = scan.findIndex((point) => point.hash >= look)
          expect(ring.find(look)).toBe(scan.length === 0 ? -1 : Math.max(at, 0))
        }
        if (scan.length > 0) expect(ring.next(scan.length - 1)).toBe(0)
      }),
      { numRuns: 1_000, seed: 20_266 },
    )
  })

  it('changed is the same as built anew', () => {
    fc.assert(
      fc.property(
        points,
        fc.array(fc.record({ added: points, gone: fc.subarray([0, 1, 2, 3, 4, 5, 6, 7]) }), { maxLength: 5 }),
        (first, changes) => {
          let ring = build(first)
          let list = first
          for (const { added, gone } of changes) {
            const kept = list.filter(({ owner }) => !gone.includes(owner))
            const has = new Set(kept.map(idOf))
            const fresh = added.filter((point) => !has.has(idOf(point)))
            ring = finish(ring.change(pack(fresh), before, (owner) => gone.includes(owner)))
            list = [...kept, ...fresh]
            expect(owners(ring)).toEqual(owners(build(list)))
            for (const point of list) expect(ring.find(point.hash)).toBe(build(list).find(point.hash))
          }
        },
      ),
      { numRuns: 500, seed: 20_267 },
    )
  })

  it('is right with many points, in buckets of all sizes', () => {
    const random = seeded(5)
    // Dense at one place, sparse elsewhere.
    const list = Array.from({ length: 50_000 }, (_, i) => ({
      hash: i % 2 === 0 ? Math.floor(random() * 2 ** 32) : 3_000_000_000 + i,
      owner: i % 8,
    }))
    const ring = build(list)
    const hashes = sorted(list).map((point) => point.hash)
    for (let i = 0; i < 20_000; i++) {
      const look = i % 2 === 0 ? Math.floor(random() * 2 ** 32) : 3_000_000_000 + Math.floor(random() * 60_000)
      const at = ring.find(look)
      if (hashes[at]! < look ? at !== 0 || look <= hashes.at(-1)! : at > 0 && hashes[at - 1]! >= look)
        expect.fail(`${look} at ${at}`)
    }
  })
})

describe('HashRing', () => {
  /** Few points, so that servers share them. */
  const colliding: RingHash = {
    points: (address, count) => Uint32Array.from({ length: count }, (_, j) => (Number(address) * 7 + j * 3) % 500),
    perWeight: () => 160,
    key: (key) => Number(key),
  }

  it('servers with points at one hash stand there in the same order, whoever came first', () => {
    const list = fc.subarray(['1', '2', '3', '4', '5', '6'], { minLength: 1 })
    const shuffled = list.chain((names) => fc.shuffledSubarray(names, { minLength: names.length }))
    fc.assert(
      fc.property(fc.array(shuffled, { minLength: 2, maxLength: 8 }), (lists) => {
        const members = new Map(['1', '2', '3', '4', '5', '6'].map((name) => [name, member(name)]))
        const of = (names: readonly string[]) => names.map((name) => members.get(name)!)
        const grown = new HashRing(env, colliding)
        for (const names of lists) grown.update(of(names))
        const fresh = new HashRing(env, colliding)
        fresh.update(of([...lists.at(-1)!].sort()))
        const walk = (ring: HashRing, key: string) => {
          const seen: Member[] = []
          ring.find(key, (one) => {
            seen.push(one)
            return false
          })
          return seen.map(({ peer }) => peer.address).join('')
        }
        for (const key of ['0', '100', '250', '499', '500', '4294967295']) {
          expect(walk(grown, key)).toBe(walk(fresh, key))
          expect(new Set(walk(grown, key))).toEqual(new Set(lists.at(-1)))
        }
      }),
      { numRuns: 300, seed: 20_268 },
    )
  })

  it('gives up after so many points', () => {
    const ring = new HashRing(env, colliding, 5)
    ring.update([member('1'), member('2')])
    let looks = 0
    expect(
      ring.find('0', () => {
        looks++
        return false
      }),
    ).toBeUndefined()
    expect(looks).toBe(5)
  })
})

describe('maglevTable', () => {
  const paper: Preference[] = [
    { offset: 3, skip: 4, weight: 1 },
    { offset: 0, skip: 2, weight: 1 },
    { offset: 3, skip: 1, weight: 1 },
  ]

  it("is the paper's example, with its second backend and without", () => {
    expect([...finish(maglevTable(paper, 7))]).toEqual([1, 0, 1, 0, 2, 2, 0])
    // Of the two that are left, the second is the paper's third.
    expect([...finish(maglevTable([paper[0]!, paper[2]!], 7))]).toEqual([0, 0, 0, 0, 1, 1, 1])
  })

  it('fills every entry, as often each at equal weights, give or take one', () => {
    const preference = fc.record({ offset: fc.nat(1_008), skip: fc.integer({ min: 1, max: 1_008 }) })
    fc.assert(
      fc.property(
        fc.array(preference, { minLength: 1, maxLength: 60 }),
        fc.integer({ min: 1, max: 9 }),
        (list, weight) => {
          const table = finish(
            maglevTable(
              list.map((one) => ({ ...one, weight })),
              1_009,
            ),
          )
          const entries = list.map((_, i) => table.filter((owner) => owner === i).length)
          expect(entries.reduce((a, b) => a + b)).toBe(1_009)
          expect(Math.max(...entries) - Math.min(...entries)).toBeLessThanOrEqual(1)
        },
      ),
      { numRuns: 300, seed: 20_269 },
    )
  })

  it('shares entries in proportion to weights', () => {
    const random = seeded(8)
    const weights = [1, 2, 3, 7, 20, 100]
    const list = weights.map((weight) => ({
      offset: Math.floor(random() * MAGLEV_SIZE),
      skip: 1 + Math.floor(random() * (MAGLEV_SIZE - 1)),
      weight,
    }))
    const entries = counts(finish(maglevTable(list, MAGLEV_SIZE)))
    for (const [i, weight] of weights.entries()) {
      expect(Math.abs(entries.get(i)! - (MAGLEV_SIZE * weight) / 133), `weight ${weight}`).toBeLessThanOrEqual(
        weights.length,
      )
    }
  })
})

describe('HashMaglev', () => {
  /** Who has each entry. A key's entry is its hash modulo the size; a number's four bytes are no matter here. */
  const keys = Array.from({ length: 60_000 }, (_, i) => `key-${i}`)
  const map = (finder: HashMaglev) => keys.map((key) => finder.find(key, () => true)!.peer.address)

  it.each([10, 100, 1_000])('when one of %i leaves, few more keys move than its own', (count) => {
    const members = Array.from({ length: count }, (_, i) => member(`10.0.${i >> 8}.${i & 255}:80`))
    const finder = new HashMaglev(env)
    finder.update(members)
    const before = map(finder)
    for (const leaver of [0, Math.floor(count / 2), count - 1]) {
      const other = new HashMaglev(env)
      other.update(members.filter((_, i) => i !== leaver))
      const after = map(other)
      const moved = after.filter((address, i) => address !== before[i]).length
      const own = before.filter((address) => address === members[leaver]!.peer.address).length
      expect(moved).toBeGreaterThanOrEqual(own)
      expect(((moved - own) / keys.length) * 100).toBeLessThanOrEqual(0.7)
    }
  })
})

describe('points per weight', () => {
  it.each([
    [819, 160],
    [820, 80],
    [13_107, 80],
    [13_108, 40],
    [26_215, 20],
    [2 ** 31, 1],
  ])('of all weights %i: %i', (weights, expected) => {
    expect(murmurRingHash.perWeight(weights)).toBe(expected)
  })

  it.each([
    [104_857, 160],
    [104_858, 80],
  ])('of nginx, of all weights %i: %i', (weights, expected) => {
    expect(nginxRingHash.perWeight(weights)).toBe(expected)
  })

  it('when there are half as many, keys of the points that stay stay', () => {
    const list = [member('10.0.0.1:80', 800), member('10.0.0.2:80', 19)]
    const keys = Array.from({ length: 20_000 }, (_, i) => `key-${i}`)
    const map = (ring: HashRing) => keys.map((key) => ring.find(key, () => true)!.peer.address)
    const ring = new HashRing(env, murmurRingHash)
    ring.update(list)
    const before = map(ring)
    const more = [...list, member('10.0.0.3:80', 1)]
    ring.update(more)
    const fresh = new HashRing(env, murmurRingHash)
    fresh.update(more)
    expect(map(ring)).toEqual(map(fresh))
    // Between the two servers shares are as before, to what chance allows.
    const moved = map(ring).filter((address, i) => address !== before[i]).length
    expect(moved / keys.length).toBeLessThan(0.03)
  })
})

describe('Jobs', () => {
  /** Time passes with every look, and turns are counted by hand. */
  function world() {
    const turns: (() => void)[] = []
    let now = 0
    const jobs = new Jobs({ random: () => 0, now: () => (now += 2), defer: (task) => void turns.push(task) })
    const done: string[] = []
    const job = (name: string, steps: number) =>
      function* () {
        for (let step = 0; step < steps; step++) yield
        done.push(name)
      }
    return { jobs, done, job, turn: () => turns.shift()?.(), waiting: () => turns.length }
  }

  it('what comes faster than it is done: one after another is finished, and the last one is the last', () => {
    const { jobs, done, job, turn, waiting } = world()
    for (let i = 0; i < 50; i++) {
      jobs.later(job(`${i}`, 20))
      // One slice a turn, however many jobs have come.
      expect(waiting()).toBe(1)
      for (let turns = 0; turns < 4; turns++) turn()
    }
    expect(done.length).toBeGreaterThan(20)
    expect(done.map(Number)).toEqual([...done].map(Number).sort((a, b) => a - b))
    while (jobs.busy) turn()
    expect(done.at(-1)).toBe('49')
  })

  it('begins in a later turn, and gives up the turn while there is more to do', () => {
    const { jobs, done, job, turn } = world()
    let turns = 0
    jobs.later(job('long', 100))
    expect(jobs.busy).toBe(true)
    for (; jobs.busy; turns++) turn()
    expect(done).toEqual(['long'])
    expect(turns).toBeGreaterThan(20)
    jobs.now(job('at once', 100))
    expect(done).toEqual(['long', 'at once'])
  })
})
