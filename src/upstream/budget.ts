/** How many retries the requests of an instance may cause. */
import { integer, milliseconds, onlyKeys, record } from '../check.js'
import { ConfigError } from '../errors.js'

/**
 * Limits the retries of many calls together, so that an outage brings little more load and not a multiple of it; shared by
 * as many calls as should share it.
 */
export interface RetryBudget {
  /** Asked before every attempt but the first: may it be made? */
  tryRetry(): boolean
  /** Told of every first attempt. */
  request?(): void
}

/** A {@link RetryBudget}, by its numbers: those of Finagle's are the defaults. */
export interface RetryBudgetOptions {
  /** Retries per request. Default 0.2: one more in five. */
  readonly ratio?: number | undefined
  /** Retries a second beyond that, for those who make few requests. Default 10. */
  readonly perSecond?: number | undefined
  /** Milliseconds for which a request counts. Default 10,000. */
  readonly window?: number | undefined
}

const OPTION_KEYS = new Set(['ratio', 'perSecond', 'window'])

/** As in Finagle's window: what falls out of it does so in tenths. */
const SLICES = 10

/**
 * Within any window there are at most `ratio` retries per request, and `perSecond` for each of its seconds: Finagle's
 * `RetryBudget(ttl, minRetriesPerSec, percentCanRetry)`, twitter/finagle, finagle-core.
 */
class WindowedBudget implements RetryBudget {
  readonly #now: () => number
  readonly #ratio: number
  readonly #reserve: number
  readonly #slice: number
  /** What each slice of the window has brought: retries earned by requests, less retries made. */
  readonly #slices = new Float64Array(SLICES)
  #sum = 0
  /** The slice that time has reached, counted from the clock's origin. */
  #current: number

  constructor(now: () => number, ratio: number, perSecond: number, window: number) {
    this.#now = now
    this.#ratio = ratio
    this.#reserve = (perSecond * window) / 1_000
    this.#slice = window / SLICES
    this.#current = Math.floor(now() / this.#slice)
  }

  request(): void {
    this.#add(this.#ratio)
  }

  tryRetry(): boolean {
    this.#add(0)
    // Sums of fractions: a billionth of a retry is not missing, it is lost in rounding.
    if (this.#sum + this.#reserve < 1 - 1e-9) return false
    this.#add(-1)
    return true
  }

  #add(amount: number): void {
    const reached = Math.floor(this.#now() / this.#slice)
    if (reached !== this.#current) {
      const passed = Math.min(SLICES, reached - this.#current)
      for (let i = 1; i <= passed; i++) this.#slices[(reached - passed + i) % SLICES] = 0
      this.#current = reached
      // Anew, so that rounding does not add up.
      this.#sum = this.#slices.reduce((a, b) => a + b, 0)
    }
    this.#slices[reached % SLICES]! += amount
    this.#sum += amount
  }
}

/** Undefined for `false`. */
export function compileBudget(path: string, key: string, value: unknown, now: () => number): RetryBudget | undefined {
  if (value === false) return undefined
  const options = record(path, key, value ?? {})
  if (typeof options['tryRetry'] === 'function') return options as unknown as RetryBudget
  const at = `${path}.${key}`
  onlyKeys(at, options, OPTION_KEYS)
  const { ratio = 0.2, perSecond = 10, window = 10_000 } = options
  if (typeof ratio !== 'number' || !(ratio >= 0 && ratio <= 1_000)) {
    throw new ConfigError(`${at}.ratio`, `expected a number from 0 to 1000, got ${String(ratio)}`)
  }
  return new WindowedBudget(
    now,
    ratio,
    integer(at, 'perSecond', perSecond, 0, 1_000_000),
    milliseconds(at, 'window', window, SLICES),
  )
}
