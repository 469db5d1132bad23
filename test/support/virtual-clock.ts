import type { Clock } from '../../src/index.js'

interface VirtualTimer {
  readonly at: number
  readonly order: number
  readonly fn: () => void
}

/** Time that stands still until it is advanced. Timers of one instant run in the order they were made. */
export class VirtualClock implements Clock {
  #now = 0
  #order = 0
  readonly #timers = new Set<VirtualTimer>()
  /** 2026-01-01T00:00:00Z at time 0. */
  readonly epoch = Date.UTC(2026, 0, 1)

  now(): number {
    return this.#now
  }

  wallTime(): number {
    return this.epoch + this.#now
  }

  setTimeout(fn: () => void, ms: number): VirtualTimer {
    const timer = { at: this.#now + ms, order: this.#order++, fn }
    this.#timers.add(timer)
    return timer
  }

  clearTimeout(handle: unknown): void {
    this.#timers.delete(handle as VirtualTimer)
  }

  /** How many timers are set. */
  get pending(): number {
    return this.#timers.size
  }

  /** Lets `ms` pass: every timer due runs at its time, and what it set off in promises runs before the next one. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    await drain()
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      this.#timers.delete(next)
      this.#now = Math.max(this.#now, next.at)
      next.fn()
      await drain()
    }
    this.#now = end
    await drain()
  }

  /** Resolves when so much time has passed on this clock. */
  sleep(ms: number): Promise<void> {
    return new Promise((resolve) => this.setTimeout(resolve, ms))
  }

  #next(end: number): VirtualTimer | undefined {
    let first: VirtualTimer | undefined
    for (const timer of this.#timers) {
      if (timer.at > end) continue
      if (first === undefined || timer.at < first.at || (timer.at === first.at && timer.order < first.order))
        first = timer
    }
    return first
  }
}

/** A macrotask later every microtask has run. */
function drain(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
