/** A long job in slices, so that none of them holds up the event loop for long. */
import type { BalancerEnv } from '../balancer.js'

/** Milliseconds of one slice: the promise is at most 10. */
const SLICE = 8

export class Job {
  #cancelled = false

  /** Runs `steps` now for one slice, or for as long as it takes if `atOnce`, and the rest in further slices. */
  constructor(env: BalancerEnv, steps: Generator<undefined, void>, atOnce: boolean) {
    const run = () => {
      const until = atOnce ? Infinity : env.now() + SLICE
      while (!this.#cancelled) {
        if (steps.next().done === true) return
        if (env.now() >= until) {
          env.defer(run)
          return
        }
      }
    }
    run()
  }

  /** Ends it where it is. */
  cancel(): void {
    this.#cancelled = true
  }
}
