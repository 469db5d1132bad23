/**
 * Members on a {@link Ring}: 160 points per weight (nginx's and ketama's number: a share is then true to about 8 %), kept
 * in step with the list by moving only what has to move.
 */
import type { BalancerEnv, Member } from '../balancer.js'
import type { HashFinder } from './hash-finder.js'
import { hashBytes, hashKey } from './hash.js'
import { makePoints, Ring } from './ring.js'
import { Jobs, type Steps } from './slices.js'

/** How a member's points and a key are hashed. Points must be a prefix of themselves: the first n of n + m are the same. */
export interface RingHash {
  points(address: string, count: number): Uint32Array
  /** How many points a member has per weight, where all weights together are so many. */
  perWeight(weights: number): number
  key(key: string | Uint8Array): number
}

/** Point j of a server is the murmur3 hash of its address with seed j. */
export const murmurRingHash: RingHash = {
  points(address, count) {
    const bytes = new TextEncoder().encode(address)
    const points = new Uint32Array(count)
    for (let seed = 0; seed < count; seed++) points[seed] = hashBytes(bytes, seed)
    return points
  },
  perWeight(weights) {
    if (POINTS_PER_WEIGHT * weights <= MANY_POINTS) return POINTS_PER_WEIGHT
    return halved(POINTS_PER_WEIGHT / 2, weights, MOST_POINTS)
  },
  key: hashKey,
}

export const POINTS_PER_WEIGHT = 160

/**
 * From so many points on a ring is larger than a processor's second-level cache, and a pick waits for memory (measured with
 * 1,000 members: 84 ns a pick, 70 with half of the points). Members then have 80 points per weight, and shares are true to
 * 11 %.
 */
const MANY_POINTS = 131_072

/**
 * 1 M points take 10 MB. Where 80 per weight would be more, all have 40, 20, …, so many that it is not. Halving keeps the
 * points that stay where they are, so that only keys of the others move, and it is rare.
 */
const MOST_POINTS = 1_048_576

/** More than any ring has; an integer, unlike infinity, keeps the loop over them fast. */
const ALL = 2 ** 31 - 1

/**
 * A change is made at once, within the update, where no more points than this come (some 100 servers of weight 1, about
 * 3 ms of hashing) to a ring of no more than 16 times as many; a greater one beside the ring that serves meanwhile.
 */
const AT_ONCE = 16_384

interface Owner {
  readonly id: number
  readonly points: number
}

export class HashRing implements HashFinder {
  readonly #hash: RingHash
  readonly #tries: number
  readonly #jobs: Jobs
  #ring = Ring.empty
  /** By id. One that has left is undefined at once, though its points may stay for a while. */
  readonly #members: (Member | undefined)[] = []
  #free: number[] = []
  /** What the ring holds. */
  #owners: ReadonlyMap<Member, Owner> = new Map()
  /** The list as last told, which the ring may be behind. */
  #present: ReadonlySet<Member> = new Set()

  /** `tries` is how many points are looked at before it gives up; without it, all. */
  constructor(env: BalancerEnv, hash: RingHash, tries = ALL) {
    this.#hash = hash
    this.#tries = tries
    this.#jobs = new Jobs(env)
  }

  update(members: readonly Member[]): void {
    this.#present = new Set(members)
    const perWeight = this.#hash.perWeight(members.reduce((sum, { fullWeight }) => sum + fullWeight, 0))
    for (const [member, { id }] of this.#owners) this.#members[id] = this.#present.has(member) ? member : undefined
    const change = () => this.#change(members, perWeight)
    // With nobody on the ring nothing serves meanwhile.
    const { size } = this.#ring
    const atOnce = size === 0 || (size <= 16 * AT_ONCE && this.#coming(members, perWeight) <= AT_ONCE)
    if (atOnce && !this.#jobs.busy) this.#jobs.now(change)
    else this.#jobs.later(change)
  }

  /** How many points a list has that the ring has not. */
  #coming(members: readonly Member[], perWeight: number): number {
    let points = 0
    for (const member of members) {
      points += Math.max(0, member.fullWeight * perWeight - (this.#owners.get(member)?.points ?? 0))
    }
    return points
  }

  /** Members from the key's place on the ring on, each point's; at most once around. Stops when `accept` says so. */
  find(key: string | Uint8Array, accept: (member: Member) => boolean): Member | undefined {
    const ring = this.#ring
    const { size } = ring
    let position = ring.find(this.#hash.key(key))
    for (let left = size < this.#tries ? size : this.#tries; left > 0; left--) {
      const member = this.#members[ring.owner(position)]
      if (member !== undefined && accept(member)) return member
      position = ring.next(position)
    }
    return undefined
  }

  *#change(members: readonly Member[], perWeight: number): Steps {
    const wanted = new Map(members.map((member) => [member, member.fullWeight * perWeight]))
    const fates = new Uint8Array(this.#members.length)
    const lost = new Map<number, Map<number, number>>()
    const free = [...this.#free]
    let dropping = false
    for (const [member, { id, points }] of this.#owners) {
      const count = wanted.get(member)
      if (count !== undefined && count >= points) continue
      dropping = true
      fates[id] = count === undefined ? Fate.gone : Fate.shrunk
      if (count === undefined) free.push(id)
      else {
        lost.set(id, countEach(this.#hash.points(member.peer.address, points).subarray(count)))
        yield
      }
    }

    const owners = new Map<Member, Owner>()
    const addresses = this.#members.map((member) => member?.peer.address ?? '')
    const coming: { address: string; id: number; from: number; to: number }[] = []
    let points = 0
    for (const [member, to] of wanted) {
      const known = this.#owners.get(member)
      const id = known?.id ?? free.pop() ?? addresses.length
      const from = known?.points ?? 0
      owners.set(member, { id, points: to })
      addresses[id] = member.peer.address
      if (to <= from) continue
      coming.push({ address: member.peer.address, id, from, to })
      points += to - from
    }
    yield

    const added = makePoints(points, addresses.length)
    let at = 0
    for (const { address, id, from, to } of coming) {
      added.hashes.set(this.#hash.points(address, to).subarray(from), at)
      added.owners.fill(id, at, at + to - from)
      at += to - from
      yield
    }

    const ring = yield* this.#ring.change(
      added,
      (one, other) => addresses[one]! < addresses[other]!,
      dropping
        ? (owner, hash) => fates[owner] === Fate.gone || (fates[owner] === Fate.shrunk && take(lost.get(owner)!, hash))
        : undefined,
    )
    this.#ring = ring
    this.#owners = owners
    this.#free = free
    // Who is not in the last list told may have left since this change began.
    for (const [member, { id }] of owners) this.#members[id] = this.#present.has(member) ? member : undefined
  }
}

const Fate = { stays: 0, gone: 1, shrunk: 2 } as const

/** How often each number is there. */
function countEach(numbers: Uint32Array): Map<number, number> {
  const counts = new Map<number, number>()
  for (const number of numbers) counts.set(number, (counts.get(number) ?? 0) + 1)
  return counts
}

/** Takes one of a number away, if there is one. */
function take(counts: Map<number, number>, number: number): boolean {
  const count = counts.get(number) ?? 0
  if (count > 0) counts.set(number, count - 1)
  return count > 0
}

/** So many points per weight, or a half, a quarter, … of it, that all are not more than `most`; never less than 1. */
export function halved(points: number, weights: number, most: number): number {
  while (points > 1 && points * weights > most) points = Math.floor(points / 2)
  return points
}
