/** How often a source is asked: a rate that holds even where answers are instant, and waits that grow after failures. */
import type { Random } from '../clock.js'

/** Asks a second in the long run, and at once after a quiet time: five is quick to follow, and no load for any store. */
const RATE = 5
const BURST = 20

/** A token bucket. */
export class RateLimit {
  #tokens = BURST
  #at: number

  constructor(now: number) {
    this.#at = now
  }

  /** Milliseconds to wait before the next ask, which is taken as made then. */
  take(now: number): number {
    this.#tokens = Math.min(BURST, this.#tokens + ((now - this.#at) / 1_000) * RATE) - 1
    this.#at = now
    return this.#tokens >= 0 ? 0 : (-this.#tokens / RATE) * 1_000
  }
}

/** Milliseconds: of the first wait; and at most for a source that was there once, which is missed, and for one that was not. */
const FIRST = 100
const LONGEST_KNOWN = 2_000
const LONGEST_UNKNOWN = 30_000

/** Milliseconds to wait after so many failures in a row: doubled each time, and up to a half of it less at random. */
export function backOff(failures: number, known: boolean, random: Random): number {
  const longest = known ? LONGEST_KNOWN : LONGEST_UNKNOWN
  return Math.min(longest, FIRST * 2 ** (failures - 1)) * (1 - random() / 2)
}
