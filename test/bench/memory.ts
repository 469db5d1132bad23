/**
 * Bytes that a subject holds per server: `memory.ts <name> <n>`, with --expose-gc. In use, that is after many picks, with
 * what it remembers of them.
 */
import { setImmediate } from 'node:timers/promises'
import { freshKeys } from './keys.js'
import { run, type PickFunction } from './measure.js'
import { keyedSubjects, subjects } from './subjects.js'

/** So many, because what the engine compiles meanwhile is on the heap too. */
const COPIES = 10
/** More than four cycles of weighted round robin over 1,000 servers, and more keys than any of those that remember some. */
const PICKS = 30_000

const [name, n] = process.argv.slice(2)

function inUse(size: number): PickFunction {
  const keyed = keyedSubjects.find((candidate) => candidate.name === name)
  const subject = subjects.find((candidate) => candidate.name === name)
  const pick = keyed === undefined ? subject?.make(size) : freshKeys(keyed.make(size))
  if (pick === undefined) throw new Error(`no subject ${JSON.stringify(name)}`)
  run(pick, PICKS)
  return pick
}

async function held(): Promise<number> {
  // What array buffers held is given back in a later turn.
  for (let i = 0; i < 3; i++) {
    globalThis.gc!()
    await setImmediate()
  }
  // Array buffers are among what is external.
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

// The code is loaded and compiled by a small one.
run(inUse(10), 1)
const before = await held()
const copies = Array.from({ length: COPIES }, () => inUse(Number(n)))
const after = await held()
// They are needed to the end.
for (const pick of copies) run(pick, 1)
console.log(JSON.stringify((after - before) / COPIES / Number(n)))
