/**
 * Maglev's table (Eisenbud et al., NSDI 2016, 3.4): every owner fills, in turn, the first free entry of its own
 * permutation of the entries, so that all get equally many, and few entries change hands when an owner leaves.
 */
import type { Steps } from './slices.js'

/** An owner's permutation is offset, offset + skip, offset + 2·skip, … modulo the size. */
export interface Preference {
  readonly offset: number
  readonly skip: number
  /** Its share; one with half the weight of the greatest takes every other turn. */
  readonly weight: number
}

/** Fills a table of `size` (a prime) entries with indexes of `owners`, in steps: each `yield` is a place to pause. */
export function* maglevTable(owners: readonly Preference[], size: number): Steps<Int32Array> {
  const table = new Int32Array(size).fill(-1)
  if (owners.length === 0) return table
  const greatest = owners.reduce((max, { weight }) => Math.max(max, weight), 0)
  const position = Int32Array.from(owners, ({ offset }) => offset)
  const credit = new Float64Array(owners.length)
  // Without the remainder of a division: both are below the size.
  const after = (entry: number, skip: number) => (entry + skip < size ? entry + skip : entry + skip - size)
  let filled = 0
  for (;;) {
    for (let i = 0; i < owners.length; i++) {
      credit[i]! += owners[i]!.weight
      if (credit[i]! < greatest) continue
      credit[i]! -= greatest
      const { skip } = owners[i]!
      let entry = position[i]!
      while (table[entry]! >= 0) entry = after(entry, skip)
      table[entry] = i
      position[i] = after(entry, skip)
      if (++filled === size) return table
      if (filled % STEP === 0) yield
    }
  }
}

/** Entries filled between two chances to do something else: about a millisecond. */
const STEP = 4_096
