/**
 * Smooth weighted round robin, as nginx does it, in less than a scan of all servers per pick.
 *
 * The rule (ngx_http_upstream_get_peer): every available server's current weight grows by its effective weight; the one
 * with the greatest, the first in the list among equals, is picked and gives back the sum of all effective weights. A
 * server whose effective weight is below its weight gets one back per round; a failure halves it (lua-resty-checkups;
 * rounded up, so never below 1).
 *
 * Servers of one weight that are not recovering move in parallel, so after T rounds a server's current weight is
 * `key + weight·T` and their order is the order of their keys: one heap per distinct weight, and a pick compares the heads.
 * What is recovering (few, and for at most `weight` rounds) is scanned; what is unavailable stands still.
 */
export class Smooth {
  /** A server in a heap: current weight − weight·T. Any other: its current weight. */
  readonly #key: Float64Array
  readonly #weight: Float64Array
  readonly #effective: Float64Array
  /** Position in {@link #heap}, or one of the two below. */
  readonly #slot: Int32Array
  readonly #group: Int32Array
  /** One heap after another; group g's begins at `#start[g]` and has `#size[g]` servers. Greatest key first, then lowest index. */
  readonly #heap: Int32Array
  readonly #start: Int32Array
  readonly #size: Int32Array
  readonly #groupWeight: Float64Array
  #recovering: number[] = []
  /** T: the rounds since the keys were made. */
  #rounds = 0
  /** The sum of the weights of all servers in heaps. */
  #settled = 0
  readonly #maxRounds: number

  constructor(servers: readonly Readonly<SmoothServer>[]) {
    const n = servers.length
    this.#key = new Float64Array(n)
    this.#weight = new Float64Array(n)
    this.#effective = new Float64Array(n)
    this.#slot = new Int32Array(n).fill(FROZEN)
    this.#group = new Int32Array(n)
    this.#heap = new Int32Array(n)

    const groups = new Map<number, number>()
    const capacity: number[] = []
    servers.forEach(({ weight, effective, current }, i) => {
      let group = groups.get(weight)
      if (group === undefined) groups.set(weight, (group = groups.size))
      capacity[group] = (capacity[group] ?? 0) + 1
      this.#group[i] = group
      this.#key[i] = current
      this.#weight[i] = weight
      this.#effective[i] = effective
    })
    this.#groupWeight = Float64Array.from(groups.keys())
    this.#size = new Int32Array(groups.size)
    this.#start = new Int32Array(groups.size)
    for (let g = 1; g < groups.size; g++) this.#start[g] = this.#start[g - 1]! + capacity[g - 1]!

    // Current weights stay within the sum of weights, so key = current − weight·T is exact in a double while weight·T is
    // below 2⁵² (keys are made anew before that).
    this.#maxRounds = 2 ** 52 / this.#groupWeight.reduce((a, b) => Math.max(a, b), 1)
    servers.forEach((server, i) => {
      if (server.available) this.#insert(i)
    })
  }

  /** Picks a server: its index, or −1 when none is available. */
  pick(): number {
    if (++this.#rounds >= this.#maxRounds) this.#rebase()
    const rounds = this.#rounds
    let best = -1
    let greatest = -Infinity
    for (let g = 0; g < this.#size.length; g++) {
      if (this.#size[g] === 0) continue
      const head = this.#heap[this.#start[g]!]!
      const current = this.#key[head]! + this.#groupWeight[g]! * rounds
      if (current > greatest || (current === greatest && head < best)) {
        best = head
        greatest = current
      }
    }
    let total = this.#settled
    for (const i of this.#recovering) {
      const current = (this.#key[i]! += this.#effective[i]!)
      total += this.#effective[i]!
      this.#effective[i]! += 1
      if (current > greatest || (current === greatest && i < best)) {
        best = i
        greatest = current
      }
    }
    if (best < 0) return best
    this.#key[best]! -= total
    if (this.#slot[best]! >= 0) this.#sink(this.#slot[best]!, this.#group[best]!)
    if (this.#recovering.length > 0) this.#settle()
    return best
  }

  /** Whether any server is still on its way back to its weight. */
  get recovering(): boolean {
    return this.#recovering.length > 0
  }

  /** The server may be picked again, or not any more. */
  setAvailable(i: number, available: boolean): void {
    if (available) return this.#insert(i)
    if (this.#slot[i] === RECOVERING) {
      this.#recovering = this.#recovering.filter((other) => other !== i)
      this.#slot[i] = FROZEN
    } else if (this.#slot[i] !== FROZEN) this.#remove(i)
  }

  /** A request to the server failed: its effective weight is halved. */
  halve(i: number): void {
    const half = Math.ceil(this.#effective[i]! / 2)
    if (half === this.#effective[i]) return
    const settled = this.#slot[i]! >= 0
    if (settled) this.#remove(i)
    this.#effective[i] = half
    if (settled) this.#insert(i)
  }

  current(i: number): number {
    return this.#slot[i]! >= 0 ? this.#key[i]! + this.#weight[i]! * this.#rounds : this.#key[i]!
  }

  effective(i: number): number {
    return this.#effective[i]!
  }

  /** The picks after which the sequence repeats, ever since some time; meaningful while nobody is recovering. */
  period(): number {
    let divisor = 0
    for (let g = 0; g < this.#size.length; g++) if (this.#size[g]! > 0) divisor = gcd(divisor, this.#groupWeight[g]!)
    return divisor === 0 ? 0 : this.#settled / divisor
  }

  /** How many of a period's picks are this server's. */
  share(i: number, period: number): number {
    return this.#slot[i]! >= 0 ? (this.#weight[i]! * period) / this.#settled : 0
  }

  /**
   * Brings the weights to where picks have led that were made elsewhere by the same rule, while nobody was recovering:
   * `picks[i]` of server i, `count` in all.
   */
  advance(picks: Uint32Array, count: number): void {
    for (let i = 0; i < picks.length; i++) this.#key[i]! -= picks[i]! * this.#settled
    this.#rounds += count
    for (let g = 0; g < this.#size.length; g++) {
      for (let slot = this.#size[g]! >> 1; slot-- > 0;) this.#sink(this.#start[g]! + slot, g)
    }
  }

  #rebase(): void {
    this.#key.forEach((_, i) => {
      if (this.#slot[i]! >= 0) this.#key[i]! += this.#weight[i]! * (this.#rounds - 1)
    })
    this.#rounds = 1
  }

  /** Those that have their weight again go to their heap. */
  #settle(): void {
    const settled = this.#recovering.filter((i) => this.#effective[i]! >= this.#weight[i]!)
    if (settled.length === 0) return
    this.#recovering = this.#recovering.filter((i) => this.#effective[i]! < this.#weight[i]!)
    for (const i of settled) this.#insert(i)
  }

  #insert(i: number): void {
    if (this.#effective[i]! < this.#weight[i]!) {
      this.#slot[i] = RECOVERING
      this.#recovering.push(i)
      return
    }
    const group = this.#group[i]!
    this.#key[i]! -= this.#weight[i]! * this.#rounds
    this.#settled += this.#weight[i]!
    const slot = this.#start[group]! + this.#size[group]!++
    this.#place(slot, i)
    this.#rise(slot, group)
  }

  #remove(i: number): void {
    const group = this.#group[i]!
    const slot = this.#slot[i]!
    const last = this.#heap[this.#start[group]! + --this.#size[group]!]!
    this.#slot[i] = FROZEN
    this.#key[i]! += this.#weight[i]! * this.#rounds
    this.#settled -= this.#weight[i]!
    if (last === i) return
    this.#place(slot, last)
    this.#rise(slot, group)
    this.#sink(this.#slot[last]!, group)
  }

  #place(slot: number, i: number): void {
    this.#heap[slot] = i
    this.#slot[i] = slot
  }

  /** Whether the server comes before the other one of its weight. */
  #before(i: number, other: number): boolean {
    const difference = this.#key[i]! - this.#key[other]!
    return difference > 0 || (difference === 0 && i < other)
  }

  #rise(slot: number, group: number): void {
    const start = this.#start[group]!
    const i = this.#heap[slot]!
    while (slot > start) {
      const parent = start + ((slot - start - 1) >> 1)
      if (!this.#before(i, this.#heap[parent]!)) break
      this.#place(slot, this.#heap[parent]!)
      slot = parent
    }
    this.#place(slot, i)
  }

  #sink(slot: number, group: number): void {
    const start = this.#start[group]!
    const end = start + this.#size[group]!
    const i = this.#heap[slot]!
    for (;;) {
      let child = start + 2 * (slot - start) + 1
      if (child >= end) break
      if (child + 1 < end && this.#before(this.#heap[child + 1]!, this.#heap[child]!)) child++
      if (this.#before(i, this.#heap[child]!)) break
      this.#place(slot, this.#heap[child]!)
      slot = child
    }
    this.#place(slot, i)
  }
}

/** One server as {@link Smooth} begins with it. */
export interface SmoothServer {
  weight: number
  /** Its effective weight, from 1 to `weight`. */
  effective: number
  /** Its current weight. */
  current: number
  available: boolean
}

/** Slots of a server that is in no heap: scanned, or out of play. */
const RECOVERING = -1
const FROZEN = -2

export function gcd(a: number, b: number): number {
  while (b !== 0) [a, b] = [b, a % b]
  return a
}
