/**
 * A ring of points on the 32-bit circle, each owned by somebody known by a small integer: immutable, sorted, and with an
 * index of equal buckets, so that the first point at or after a hash is found in O(1) expected steps.
 */
export class Ring {
  readonly #hashes: Uint32Array
  readonly #owners: Int32Array
  /** Where the first point of bucket b or a later one is; one bucket per point on average. */
  readonly #index: Uint32Array
  readonly #shift: number

  private constructor(hashes: Uint32Array, owners: Int32Array, index: Uint32Array, shift: number) {
    this.#hashes = hashes
    this.#owners = owners
    this.#index = index
    this.#shift = shift
  }

  static readonly empty = new Ring(new Uint32Array(0), new Int32Array(0), new Uint32Array(1), 31)

  get size(): number {
    return this.#hashes.length
  }

  /** The position of the first point whose hash is at least `hash`, around the end; −1 on an empty ring. */
  find(hash: number): number {
    const hashes = this.#hashes
    const { length } = hashes
    let position = this.#index[hash >>> this.#shift]!
    while (position < length && hashes[position]! < hash) position++
    if (position < length) return position
    return length === 0 ? -1 : 0
  }

  owner(position: number): number {
    return this.#owners[position]!
  }

  /** The position after this one. */
  next(position: number): number {
    return position + 1 === this.#hashes.length ? 0 : position + 1
  }

  /**
   * Makes a ring of the points of this one, less those that `drops` names, and of new ones, in steps: each `yield` is a place to do something
   * else. Points are packed (see {@link packPoint}); `before` orders owners of one hash, so that rings of the same points
   * are the same whatever came first.
   */
  *change(
    added: Float64Array,
    drops: (owner: number, point: number) => boolean,
    before: (owner: number, other: number) => boolean,
  ): Generator<undefined, Ring> {
    added.sort()
    settleTies(added, before)
    yield
    const kept = this.#hashes.length
    const hashes = new Uint32Array(kept + added.length)
    const owners = new Int32Array(kept + added.length)
    let size = 0
    let next = 0
    for (let k = 0; k <= kept; k++) {
      if (k % STEP === STEP - 1) yield
      const last = k === kept
      const hash = last ? Infinity : this.#hashes[k]!
      const owner = last ? -1 : this.#owners[k]!
      if (!last && drops(owner, packPoint(hash, owner))) continue
      for (; next < added.length; next++) {
        if (next % STEP === STEP - 1) yield
        const newHash = hashOf(added[next]!)
        const newOwner = ownerOf(added[next]!, newHash)
        if (newHash > hash || (newHash === hash && before(owner, newOwner))) break
        hashes[size] = newHash
        owners[size++] = newOwner
      }
      if (last) break
      hashes[size] = hash
      owners[size++] = owner
    }
    return yield* Ring.#indexed(hashes.subarray(0, size), owners.subarray(0, size))
  }

  static *#indexed(hashes: Uint32Array, owners: Int32Array): Generator<undefined, Ring> {
    // As many buckets as points, to the next power of two; at least two, as a shift by 32 would be one by 0.
    const bits = Math.max(1, Math.ceil(Math.log2(hashes.length + 1)))
    const shift = 32 - bits
    const index = new Uint32Array(2 ** bits)
    let bucket = 0
    for (let position = 0; position < hashes.length; position++) {
      if (position % STEP === STEP - 1) yield
      const own = hashes[position]! >>> shift
      while (bucket <= own) index[bucket++] = position
    }
    index.fill(hashes.length, bucket)
    return new Ring(hashes, owners, index, shift)
  }
}

/** A hash has 32 bits and a double holds 53: owners are below 2²¹. */
const OWNERS = 2 ** 21

/** A point as one number that sorts by its hash. */
export function packPoint(hash: number, owner: number): number {
  return hash * OWNERS + owner
}

function hashOf(point: number): number {
  return Math.floor(point / OWNERS)
}

/** By subtraction: the remainder of doubles is slow. */
function ownerOf(point: number, hash: number): number {
  return point - hash * OWNERS
}

/** Points handled between two chances to do something else: well under a millisecond. */
const STEP = 16_384

/** Two owners may have a point at one hash (rare: n²/2³³ of n points): brings such points into their order. */
function settleTies(points: Float64Array, before: (owner: number, other: number) => boolean): void {
  for (let i = 1; i < points.length; i++) {
    const point = points[i]!
    if (point - points[i - 1]! >= OWNERS) continue
    const hash = hashOf(point)
    let slot = i
    for (; slot > 0 && hashOf(points[slot - 1]!) === hash; slot--) {
      if (before(ownerOf(points[slot - 1]!, hash), ownerOf(point, hash))) break
      points[slot] = points[slot - 1]!
    }
    points[slot] = point
  }
}
