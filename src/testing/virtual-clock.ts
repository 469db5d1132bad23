/** Time that stands still until a test lets it pass. */
import type { Clock } from '../clock.js'

/** A timer of a {@link VirtualClock}. */
export interface VirtualTimer {
  /** Milliseconds of the clock at which it is due. */
  readonly at: number
}

interface HeapTimer extends VirtualTimer {
  readonly order: number
  readonly fn: () => void
  /** Where it stands in the heap; −1 when it has run or was cleared. */
  index: number
}

/**
 * A {@link Clock} that goes only when told to. Timers of one instant run in the order they were made, before the caller of
 * `advance` goes on. Setting and clearing one costs O(log n).
 *
 * @example
 * ```ts
 * const clock = new VirtualClock()
 * const checkups = new Checkups({ clock, upstreams })
 * await clock.advance(10_000)
 * ```
 */
export class VirtualClock implements Clock {
  /** The wall time at time 0, in milliseconds since the Unix epoch: 2026-01-01T00:00:00Z. */
  readonly epoch = Date.UTC(2026, 0, 1)
  #now = 0
  #order = 0
  /** A binary heap: a timer never comes before its parent, at (i − 1) >> 1. Holds no timer that was cleared. */
  readonly #heap: HeapTimer[] = []

  /** Milliseconds that have passed; 0 at first. */
  now(): number {
    return this.#now
  }

  /** {@link epoch} and what has passed since. */
  wallTime(): number {
    return this.epoch + this.#now
  }

  /** Calls `fn` once, `ms` milliseconds from now. */
  setTimeout(fn: () => void, ms: number): VirtualTimer {
    return this.at(ms > 0 ? this.#now + ms : this.#now, fn)
  }

  /** Calls `fn` once, at this time of the clock; for one that is past, as soon as the clock goes. */
  at(time: number, fn: () => void): VirtualTimer {
    const timer = { at: time > this.#now ? time : this.#now, order: this.#order++, fn, index: this.#heap.length }
    this.#heap.push(timer)
    this.#rise(timer)
    return timer
  }

  /** Forgets a timer; one that has run already is no error. */
  clearTimeout(handle: unknown): void {
    const timer = handle as HeapTimer | undefined
    if (timer !== undefined && this.#heap[timer.index] === timer) this.#remove(timer)
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#heap.length
  }

  /** Resolves when `ms` milliseconds have passed on this clock. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.setTimeout(resolve, ms))
  }

  /** Lets `ms` milliseconds pass: every timer due runs at its time, and what it set off in promises before the next one. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    await drain()
    while (this.step(end)) await drain()
    this.#now = Math.max(this.#now, end)
  }

  /** {@link advance} for what uses no promises: returns when `ms` milliseconds have passed, and is much faster. */
  advanceSync(ms: number): void {
    const end = this.#now + ms
    while (this.step(end));
    this.#now = Math.max(this.#now, end)
  }

  /**
   * Lets time pass until no timer is set, draining promises as {@link advance} does.
   *
   * @param limit - most timers to run, for something that sets itself again for ever. Default 100,000.
   * @returns whether no timer is set any more
   */
  async runUntilIdle(limit = 100_000): Promise<boolean> {
    await drain()
    for (let run = 0; run < limit && this.step(); run++) await drain()
    return this.#heap.length === 0
  }

  /**
   * Goes to the next timer and runs it, without draining promises.
   *
   * @param until - the latest time of the clock to go to, in milliseconds. Default Infinity.
   * @returns false, with the time unchanged, if no timer is due until then
   */
  step(until = Infinity): boolean {
    const next = this.#heap[0]
    if (next === undefined || next.at > until) return false
    this.#remove(next)
    this.#now = next.at
    next.fn()
    return true
  }

  #remove(timer: HeapTimer): void {
    const last = this.#heap.pop()!
    if (last !== timer) {
      last.index = timer.index
      this.#heap[last.index] = last
      this.#rise(last)
      this.#sink(last)
    }
    timer.index = -1
  }

  #rise(timer: HeapTimer): void {
    while (timer.index > 0) {
      const parent = this.#heap[(timer.index - 1) >> 1]!
      if (before(parent, timer)) return
      this.#swap(parent, timer)
    }
  }

  #sink(timer: HeapTimer): void {
    for (;;) {
      const left = this.#heap[2 * timer.index + 1]
      const right = this.#heap[2 * timer.index + 2]
      const child = left !== undefined && right !== undefined && before(right, left) ? right : left
      if (child === undefined || before(timer, child)) return
      this.#swap(timer, child)
    }
  }

  #swap(upper: HeapTimer, lower: HeapTimer): void {
    const { index } = upper
    upper.index = lower.index
    lower.index = index
    this.#heap[upper.index] = upper
    this.#heap[lower.index] = lower
  }
}

function before(one: HeapTimer, other: HeapTimer): boolean {
  return one.at < other.at || (one.at === other.at && one.order < other.order)
}

/** Every microtask, and those they queue, has run when a macrotask is over. */
function drain(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
