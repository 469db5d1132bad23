/** How a pick is timed: warmed up, then the median of batches that are long enough for the clock. */

export type PickFunction = () => unknown

const WARM_UP_PICKS = 400_000
const WARM_UP_MS = 25
/** A pick of 170 µs would be warmed up for a minute. */
const WARM_UP_MS_AT_MOST = 400
/** Short ones, shorter than a time slice: another process that takes the core then spoils few, and the median none. */
const BATCHES = 25
const BATCH_MS = 0.7

/** Keeps what was picked alive, without reading any of it. */
let sink: unknown

/** Milliseconds that so many picks take. */
export function run(pick: PickFunction, count: number): number {
  const start = performance.now()
  // A local variable, because a store into the heap would cost more for a young object than for an old one.
  let picked: unknown
  for (let i = 0; i < count; i++) picked = pick()
  const elapsed = performance.now() - start
  sink = picked
  return elapsed
}

/** Brings a pick to its steady state: compiled by the engine, and at 10,000 peers its cycle of 55,000 picks learned. */
export function warmUp(pick: PickFunction): void {
  runFor(pick, WARM_UP_MS, WARM_UP_PICKS)
  // What lives on is old in a process that has run for a while; its place in the caches it then has to find again.
  globalThis.gc?.()
  runFor(pick, WARM_UP_MS, 0)
  if (sink === undefined) throw new Error('the subject picks nobody')
}

function runFor(pick: PickFunction, ms: number, picksAtLeast: number): void {
  let elapsed = 0
  for (let picks = 0; elapsed < WARM_UP_MS_AT_MOST && (elapsed < ms || picks < picksAtLeast); picks += 100) {
    elapsed += run(pick, 100)
  }
}

/** Nanoseconds per pick in the steady state, loop and sink included. */
export function nsPerPick(pick: PickFunction): number {
  warmUp(pick)
  let count = 1
  while (Math.min(run(pick, count), run(pick, count)) < BATCH_MS) count *= 2
  return median(Array.from({ length: BATCHES }, () => (run(pick, count) * 1e6) / count))
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
