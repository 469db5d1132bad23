/**
 * A ring of points on the 32-bit circle, each owned by somebody known by a small integer: immutable, sorted, and with an
 * index of equal buckets, so that the first point at or after a hash is found in O(1) expected steps.
 */
import type { Steps } from './slices.js'

/** Points in any order: two arrays of one length. */
export interface Points {
  readonly hashes: Uint32Array
  /** The narrow one wherever it will do: a pick waits for memory most. */
  readonly owners: Uint16Array | Uint32Array
}

/** Whether owner `one` comes before `other` where both have a point at one hash. */
type Before = (one: number, other: number) => boolean

/** Whether a point goes. */
type Drops = (owner: number, hash: number) => boolean

/** Points handled between two chances to do something else: well under a millisecond. */
const STEP = 16_384

export class Ring implements Points {
  readonly hashes: Uint32Array
  readonly owners: Points['owners']
  /** Where the first point of bucket b or a later one is. */
  readonly #index: Uint32Array
  readonly #shift: number

  private constructor({ hashes, owners }: Points, index: Uint32Array, shift: number) {
    this.hashes = hashes
    this.owners = owners
    this.#index = index
    this.#shift = shift
  }

  static readonly empty = new Ring(makePoints(0, 0), new Uint32Array(1), 31)

  get size(): number {
    return this.hashes.length
  }

  /** The position of the first point whose hash is at least `hash`, around the end; −1 on an empty ring. */
  find(hash: number): number {
    const { hashes } = this
    const { length } = hashes
    let position = this.#index[hash >>> this.#shift]!
    while (position < length && hashes[position]! < hash) position++
    if (position < length) return position
    return length === 0 ? -1 : 0
  }

  owner(position: number): number {
    return this.owners[position]!
  }

  /** The position after this one. */
  next(position: number): number {
    return position + 1 === this.hashes.length ? 0 : position + 1
  }

  /**
   * Makes a ring of the points of this one, less those that `drops` (if given) names, and of new ones. `before` orders
   * owners of one hash, so that rings of the same points are the same whatever came first.
   */
  *change(added: Points, before: Before, drops?: Drops): Steps<Ring> {
    const kept = drops === undefined ? this : yield* without(this, drops)
    const merged = added.hashes.length === 0 ? kept : yield* merge(kept, yield* sort(added, before), before)
    return yield* Ring.#indexed(merged)
  }

  static *#indexed(points: Points): Steps<Ring> {
    const { hashes } = points
    // Four buckets a point and more, so that a look at one is mostly enough and the processor guesses right, as long as the
    // index stays in its caches: 65,536 buckets, or a quarter of a bucket a point. A shift by 32 would be one by 0.
    const log2 = Math.ceil(Math.log2(hashes.length + 1))
    const bits = Math.max(1, Math.min(log2 + 2, Math.max(16, log2 - 2)))
    const shift = 32 - bits
    const index = new Uint32Array(2 ** bits)
    yield
    let bucket = 0
    for (let from = 0; from < hashes.length; from += STEP) {
      bucket = fillIndex(index, bucket, shift, hashes, from, Math.min(from + STEP, hashes.length))
      yield
    }
    index.fill(hashes.length, bucket)
    return new Ring(points, index, shift)
  }
}

/** Room for so many points, of owners below `owners`. */
export function makePoints(count: number, owners: number): Points {
  return {
    hashes: new Uint32Array(count),
    owners: owners <= 2 ** 16 ? new Uint16Array(count) : new Uint32Array(count),
  }
}

/** Room for so many points of the owners of these. */
function room(count: number, ...of: readonly Points[]): Points {
  return makePoints(count, of.some(({ owners }) => owners instanceof Uint32Array) ? Infinity : 0)
}

function fillIndex(index: Uint32Array, bucket: number, shift: number, hashes: Uint32Array, from: number, to: number) {
  for (let position = from; position < to; position++) {
    const own = hashes[position]! >>> shift
    while (bucket <= own) index[bucket++] = position
  }
  return bucket
}

function* without(points: Points, drops: Drops): Steps<Points> {
  const { length } = points.hashes
  const kept = room(length, points)
  yield
  let size = 0
  for (let from = 0; from < length; from += STEP) {
    size = keep(points, from, Math.min(from + STEP, length), drops, kept, size)
    yield
  }
  return { hashes: kept.hashes.subarray(0, size), owners: kept.owners.subarray(0, size) }
}

function keep(points: Points, begin: number, end: number, drops: Drops, kept: Points, size: number): number {
  for (let i = begin; i < end; i++) {
    const owner = points.owners[i]!
    const hash = points.hashes[i]!
    if (drops(owner, hash)) continue
    kept.hashes[size] = hash
    kept.owners[size++] = owner
  }
  return size
}

/** Of a hash's 32 bits, sorted by in one pass. */
const DIGIT = 11
const DIGITS = 2 ** DIGIT
/** Where each digit begins. */
const SHIFTS = [0, DIGIT, 2 * DIGIT] as const

/** By hash, and within a hash by `before`: a radix sort, which goes in steps, as the arrays' own does not. */
function* sort(points: Points, before: Before): Steps<Points> {
  const { length } = points.hashes
  // Of each pass, how many hashes have which digit, and from that where those of a digit go.
  const starts = new Uint32Array(SHIFTS.length * DIGITS)
  for (let at = 0; at < length; at += STEP) {
    countDigits(points.hashes, at, Math.min(at + STEP, length), starts)
    yield
  }
  for (const pass of SHIFTS.keys()) startWhereOthersEnd(starts.subarray(pass * DIGITS, (pass + 1) * DIGITS))
  let from = points
  let to = room(length, points)
  for (const [pass, shift] of SHIFTS.entries()) {
    for (let at = 0; at < length; at += STEP) {
      scatter(from, to, starts.subarray(pass * DIGITS), shift, at, Math.min(at + STEP, length))
      yield
    }
    const sorted = to
    to = from === points ? room(length, points) : from
    from = sorted
  }
  for (let at = 0; at < length; at += STEP) {
    settleTies(from, at, Math.min(at + STEP, length), before)
    yield
  }
  return from
}

function countDigits(hashes: Uint32Array, begin: number, end: number, counts: Uint32Array): void {
  for (let i = begin; i < end; i++) {
    const hash = hashes[i]!
    counts[hash & (DIGITS - 1)]!++
    counts[DIGITS + ((hash >>> DIGIT) & (DIGITS - 1))]!++
    counts[2 * DIGITS + (hash >>> (2 * DIGIT))]!++
  }
}

/** From counts to where each begins. */
function startWhereOthersEnd(counts: Uint32Array): void {
  let sum = 0
  for (let digit = 0; digit < counts.length; digit++) {
    const count = counts[digit]!
    counts[digit] = sum
    sum += count
  }
}

function scatter(from: Points, to: Points, starts: Uint32Array, shift: number, begin: number, end: number): void {
  const { hashes, owners } = from
  for (let i = begin; i < end; i++) {
    const hash = hashes[i]!
    const slot = starts[(hash >>> shift) & (DIGITS - 1)]!++
    to.hashes[slot] = hash
    to.owners[slot] = owners[i]!
  }
}

/** Two owners may have a point at one hash (rare: n²/2³³ of n points): brings such points into their order. */
function settleTies({ hashes, owners }: Points, begin: number, end: number, before: Before): void {
  for (let i = Math.max(1, begin); i < end; i++) {
    if (hashes[i] !== hashes[i - 1]) continue
    const owner = owners[i]!
    let slot = i
    for (; slot > 0 && hashes[slot - 1] === hashes[i]; slot--) {
      if (before(owners[slot - 1]!, owner)) break
      owners[slot] = owners[slot - 1]!
    }
    owners[slot] = owner
  }
}

/** Both sorted. Stretches of old points are copied as blocks: mostly few come to many. */
function* merge(old: Points, added: Points, before: Before): Steps<Points> {
  const coming = added.hashes.length
  const merged = room(old.hashes.length + coming, old, added)
  yield
  let taken = 0
  for (let next = 0; next < coming; next += STEP) {
    taken = mergeSome(old, taken, added, next, Math.min(next + STEP, coming), merged, before)
    yield
  }
  copy(old, taken, old.hashes.length, merged, taken + coming)
  yield
  return merged
}

/** Puts some of those added in their places, and the old ones before them: returns how many old ones are taken. */
function mergeSome(
  old: Points,
  taken: number,
  added: Points,
  begin: number,
  end: number,
  merged: Points,
  before: Before,
): number {
  for (let next = begin; next < end; next++) {
    const hash = added.hashes[next]!
    const owner = added.owners[next]!
    let until = firstFrom(old.hashes, hash, taken)
    while (until < old.hashes.length && old.hashes[until] === hash && before(old.owners[until]!, owner)) until++
    copy(old, taken, until, merged, taken + next)
    taken = until
    merged.hashes[taken + next] = hash
    merged.owners[taken + next] = owner
  }
  return taken
}

/** The first position from `from` on whose hash is at least `hash`: in strides that double, then by halving. */
function firstFrom(hashes: Uint32Array, hash: number, from: number): number {
  let low = from
  let stride = 1
  while (low + stride <= hashes.length && hashes[low + stride - 1]! < hash) {
    low += stride
    stride *= 2
  }
  let high = Math.min(low + stride, hashes.length)
  while (low < high) {
    const middle = (low + high) >>> 1
    if (hashes[middle]! < hash) low = middle + 1
    else high = middle
  }
  return low
}

/** Below this a loop is faster than two views and a copy. */
const BLOCK = 64

function copy(from: Points, begin: number, end: number, to: Points, at: number): void {
  if (end - begin > BLOCK) {
    to.hashes.set(from.hashes.subarray(begin, end), at)
    to.owners.set(from.owners.subarray(begin, end), at)
    return
  }
  for (let i = begin; i < end; i++, at++) {
    to.hashes[at] = from.hashes[i]!
    to.owners[at] = from.owners[i]!
  }
}
