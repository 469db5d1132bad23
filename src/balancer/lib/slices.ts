/** Long jobs in slices, so that none of them holds up the event loop for long. */
import type { BalancerEnv } from '../balancer.js'

/** Milliseconds of one slice: the promise is at most 10, and a step may overrun. */
const SLICE = 5

/** What does something in steps: each `yield` is a place to do something else. */
export type Steps<T = void> = Generator<undefined, T>

/**
 * Does one job at a time. One that comes while another is under way waits for its end, and of those that wait only the
 * last is done: however often a list changes, one job after another gets finished.
 */
export class Jobs {
  readonly #env: BalancerEnv
  #busy = false
  #current: Steps | undefined
  #waiting: (() => Steps) | undefined

  constructor(env: BalancerEnv) {
    this.#env = env
  }

  /** Whether there is anything under way or waiting. */
  get busy(): boolean {
    return this.#busy
  }

  /** Does it whole, now. */
  now(job: () => Steps): void {
    const steps = job()
    while (steps.next().done !== true);
  }

  /** Begins in a later turn. */
  later(job: () => Steps): void {
    this.#waiting = job
    if (this.#busy) return
    this.#busy = true
    // The turn after this one: the one in which the list was changed has been held long enough.
    this.#env.defer(() => this.#env.defer(() => this.#slice()))
  }

  #slice(): void {
    const until = this.#env.now() + SLICE
    do {
      if (this.#current === undefined) {
        if (this.#waiting === undefined) {
          this.#busy = false
          return
        }
        this.#current = this.#waiting()
        this.#waiting = undefined
      }
      if (this.#current.next().done === true) this.#current = undefined
    } while (this.#env.now() < until)
    this.#env.defer(() => this.#slice())
  }
}
