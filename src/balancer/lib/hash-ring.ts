/**
 * Members on a {@link Ring}: 160 points per weight (nginx's and ketama's number: a share is then true to about 8 %), kept
 * in step with the list by moving only what has to move.
 */
import type { BalancerEnv, Member } from '../balancer.js'
import type { HashFinder } from './hash-finder.js'
import { hashBytes, hashKey } from './hash.js'
import { packPoint, Ring } from './ring.js'
import { Job } from './slices.js'

/** How a member's points and a key are hashed. Points must be a prefix of themselves: the first n of n + m are the same. */
export interface RingHash {
  points(address: string, count: number): Uint32Array
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
  key: hashKey,
}

const POINTS_PER_WEIGHT = 160

/**
 * 4 M points take 80 MB. Where 160 per weight would be more, all members have 80, 40, …, so many that it is not: halving
 * keeps the points that stay where they are, so that only keys of the others move, and it happens rarely.
 */
const MOST_POINTS = 4_194_304

interface Owner {
  readonly id: number
  readonly points: number
}

export class HashRing implements HashFinder {
  readonly #env: BalancerEnv
  readonly #hash: RingHash
  readonly #tries: number
  #ring = Ring.empty
  /** By id. One that has left is undefined at once, though its points may stay for a while. */
  readonly #members: (Member | undefined)[] = []
  #free: number[] = []
  /** What the ring holds. */
  #owners = new Map<Member, Owner>()
  #job: Job | undefined

  /** `tries` is how many points are looked at before it gives up; without it, all. */
  constructor(env: BalancerEnv, hash: RingHash, tries = Infinity) {
    this.#env = env
    this.#hash = hash
    this.#tries = tries
  }

  /** Takes over a list. The first one is built at once, a further one beside the ring that serves meanwhile. */
  update(members: readonly Member[]): void {
    this.#job?.cancel()
    const present = new Set(members)
    for (const [member, { id }] of this.#owners) if (!present.has(member)) this.#members[id] = undefined
    this.#job = new Job(this.#env, this.#change(members), this.#ring.size === 0)
  }

  /** Members from the key's place on the ring on, each point's; at most once around. Stops when `accept` says so. */
  find(key: string | Uint8Array, accept: (member: Member) => boolean): Member | undefined {
    let position = this.#ring.find(this.#hash.key(key))
    for (let left = Math.min(this.#ring.size, this.#tries); left > 0; left--) {
      const member = this.#members[this.#ring.owner(position)]
      if (member !== undefined && accept(member)) return member
      position = this.#ring.next(position)
    }
    return undefined
  }

  *#change(members: readonly Member[]): Generator<undefined, void> {
    const perWeight = pointsPerWeight(members)
    const wanted = new Map(members.map((member) => [member, member.fullWeight * perWeight]))
    const gone = new Set<number>()
    const lost = new Set<number>()
    const shrunk = new Set<number>()
    for (const [member, { id, points }] of this.#owners) {
      const count = wanted.get(member)
      if (count === undefined) gone.add(id)
      else if (count < points) {
        shrunk.add(id)
        for (const hash of this.#hash.points(member.peer.address, points).subarray(count)) lost.add(packPoint(hash, id))
        yield
      }
    }

    const owners = new Map<Member, Owner>()
    const free = [...this.#free]
    let next = this.#members.length
    const added: Float64Array[] = []
    const arrived = new Map<number, Member>()
    for (const [member, points] of wanted) {
      const known = this.#owners.get(member)
      const id = known?.id ?? free.pop() ?? next++
      owners.set(member, { id, points })
      if (known === undefined) arrived.set(id, member)
      else if (points <= known.points) continue
      const hashes = this.#hash.points(member.peer.address, points).subarray(known?.points ?? 0)
      added.push(packed(hashes, id))
      yield
    }

    const address = (id: number) => (arrived.get(id) ?? this.#members[id])?.peer.address ?? ''
    const ring = yield* this.#ring.change(
      concat(added),
      (owner, point) => gone.has(owner) || (shrunk.has(owner) && lost.has(point)),
      (owner, other) => address(owner) < address(other),
    )
    this.#ring = ring
    this.#owners = owners
    this.#free = [...free, ...gone]
    for (const id of gone) this.#members[id] = undefined
    for (const [member, { id }] of owners) this.#members[id] = member
  }
}

/** 160, or a half, a quarter, … of it, never less than 1. */
function pointsPerWeight(members: readonly Member[]): number {
  const weights = members.reduce((sum, { fullWeight }) => sum + fullWeight, 0)
  let points = POINTS_PER_WEIGHT
  while (points > 1 && points * weights > MOST_POINTS) points = Math.floor(points / 2)
  return points
}

function packed(hashes: Uint32Array, owner: number): Float64Array {
  const points = new Float64Array(hashes.length)
  for (let i = 0; i < hashes.length; i++) points[i] = packPoint(hashes[i]!, owner)
  return points
}

function concat(parts: readonly Float64Array[]): Float64Array {
  const whole = new Float64Array(parts.reduce((sum, { length }) => sum + length, 0))
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}
