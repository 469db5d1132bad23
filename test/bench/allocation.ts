/** Bytes that a pick allocates. Runs with --expose-gc and a young generation that takes all picks without a collection. */
import { median, run, warmUp, type PickFunction } from './measure.js'
import type { Allocation } from './results.js'
import { ours } from './subjects.js'

const PEERS = 1_000
const PICKS = 1_000_000
const TIMES = 7

function bytesPerPick(pick: PickFunction): number {
  warmUp(pick)
  // The median, because what the engine compiles meanwhile is on the heap too.
  const growths = Array.from({ length: TIMES }, () => {
    globalThis.gc!()
    const before = process.memoryUsage().heapUsed
    run(pick, PICKS)
    return process.memoryUsage().heapUsed - before
  })
  return median(growths) / PICKS
}

// The control: an object must be seen.
const something = {}
const control = bytesPerPick(() => ({ something }))
if (control < 8) throw new Error(`this measurement sees ${control} bytes for an object`)

const allocation: Allocation = {
  handle: bytesPerPick(ours.handle.make(PEERS)),
  key: bytesPerPick(ours.key.make(PEERS)),
}
console.log(JSON.stringify(allocation))
