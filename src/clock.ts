/**
 * Time and chance. The only file that touches the real ones: everything timed or random in the library goes through a
 * {@link Clock} and a {@link Random}, so that a caller can drive all of it on a virtual clock and a seeded generator.
 */

/** What {@link Clock.setTimeout} returns; opaque to the library. */
export type TimerHandle = unknown

/** A source of time. All durations are milliseconds. */
export interface Clock {
  /** Monotonic milliseconds from an arbitrary origin. */
  now(): number
  /** Milliseconds since the Unix epoch; only for what people read (status, events). */
  wallTime(): number
  /** Calls `fn` once, `ms` from now (`ms` is at most 2³¹ − 1). Must not keep the process alive. */
  setTimeout(fn: () => void, ms: number): TimerHandle
  /** Makes sure that the timer's function is not called any more. */
  clearTimeout(handle: TimerHandle): void
}

/** A uniform random number in [0, 1), as `Math.random`. */
export type Random = () => number

/** The machine's clock; its timers are unref'd. */
export const systemClock: Clock = {
  now: () => performance.now(),
  wallTime: () => Date.now(),
  setTimeout: (fn, ms) => setTimeout(fn, ms).unref(),
  clearTimeout: (handle) => clearTimeout(handle as NodeJS.Timeout),
}

/** Waits for what somebody waits for: unref'd timers alone would let the process end before. */
export async function keepAlive<T>(work: Promise<T>): Promise<T> {
  const handle = setInterval(() => undefined, LONGEST_DELAY)
  try {
    return await work
  } finally {
    clearInterval(handle)
  }
}

/** The process's own randomness. */
export const systemRandom: Random = Math.random

/** setTimeout keeps its delay in a signed 32-bit integer; a longer one would fire at once. */
const LONGEST_DELAY = 2 ** 31 - 1

/**
 * A one-shot timer that keeps its deadline: one that fires early is armed again (Node's may, by up to a millisecond of
 * the monotonic clock), one that is longer than a clock can take is split. A throw in `fn` reaches the clock's caller.
 */
export class Timer {
  readonly #clock: Clock
  readonly #fn: () => void
  #handle: TimerHandle = undefined
  #deadline = NaN

  constructor(clock: Clock, fn: () => void) {
    this.#clock = clock
    this.#fn = fn
  }

  /** Fires at `deadline` (of `clock.now()`), instead of any time set before. */
  at(deadline: number): void {
    this.stop()
    this.#deadline = deadline
    this.#arm()
  }

  /** Fires no more. */
  stop(): void {
    if (Number.isNaN(this.#deadline)) return
    this.#clock.clearTimeout(this.#handle)
    this.#deadline = NaN
  }

  #arm(): void {
    const left = Math.max(0, this.#deadline - this.#clock.now())
    this.#handle = this.#clock.setTimeout(() => this.#fire(), Math.min(Math.ceil(left), LONGEST_DELAY))
  }

  #fire(): void {
    if (this.#clock.now() < this.#deadline) return this.#arm()
    this.#deadline = NaN
    this.#fn()
  }
}

/**
 * A level's own generator: its first number is `first`, the others are mulberry32 (Tommy Ettinger, public domain) seeded
 * by it. One draw of the user's `random` decides all that a level does with chance, so that what others draw in between
 * never changes its pick sequence.
 */
export function levelRandom(first: number): Random {
  let state = Math.floor(first * 2 ** 32)
  let started = false
  return () => {
    if (!started) {
      started = true
      return first
    }
    state = (state + 0x6d2b79f5) | 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
