/** Durations in buckets, as Prometheus has them. */

export class Histogram {
  /** Upper bounds in seconds, ascending; what is longer than the last is counted beyond it. */
  readonly bounds: readonly number[]
  /** One more than bounds; each holds those that are in no bucket before it. */
  readonly #counts: Float64Array
  /** Numbers in typed arrays are changed in place: an observation allocates nothing. */
  readonly #sum = new Float64Array(1)

  constructor(bounds: readonly number[]) {
    this.bounds = bounds
    this.#counts = new Float64Array(bounds.length + 1)
  }

  observe(seconds: number): void {
    const { bounds } = this
    let i = 0
    while (i < bounds.length && seconds > bounds[i]!) i++
    this.#counts[i]!++
    this.#sum[0]! += seconds
  }

  /** In seconds. */
  get sum(): number {
    return this.#sum[0]!
  }

  /** How many were at most as long as each bound, and at last all of them. */
  cumulative(): number[] {
    let count = 0
    return Array.from(this.#counts, (own) => (count += own))
  }
}
