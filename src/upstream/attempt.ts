/** One attempt of a `readyOk`: what its callback is given, what it ends with, and the time it may take. */
import { Timer, type Clock } from '../clock.js'
import { CheckupsError } from '../errors.js'
import type { RetryVerdict } from '../health/outcome.js'
import type { Peer } from './peer.js'
import type { PickHandle } from './pick.js'

/** One attempt as it went. */
export interface Attempt {
  /** The peer it went to. */
  readonly peer: Peer
  /** Milliseconds it took. */
  readonly ms: number
  /** What it was judged to be. */
  readonly verdict: RetryVerdict
  /** The HTTP status of its result, or 0. */
  readonly status: number
  /** What it ended with, if it did not succeed. */
  readonly error: Error | undefined
}

/** What a callback of `readyOk` is given beside the peer. */
export interface AttemptContext {
  /** From 1. */
  readonly number: number
  /** Aborted when the attempt's time is over, the total time is, or the caller's signal says so. */
  readonly signal: AbortSignal
  /** Whether no other one is allowed after this. */
  readonly last: boolean
  /**
   * Whether a failure of this attempt would be followed by another one, as things stand: for whoever could pass on a bad
   * answer instead. Yes takes the leave of the retry budget, so ask only if the answer decides.
   */
  canRetry(): boolean
  /** What the upstream's `statuses` make of an HTTP status. */
  judge(status: number): RetryVerdict
  /** The peer has begun to answer: takes the latency sample and ends the time limits. See `Pick.answered`. */
  answered(status?: number): void
}

/** Milliseconds; 0 = no limit. */
export interface TimeLimits {
  /** In all. */
  readonly timeout?: number | undefined
  /** For each attempt. */
  readonly tryTimeout?: number | undefined
}

/** The two time limits of a call. */
export class Limits {
  readonly timeout: number
  readonly tryTimeout: number
  readonly clock: Clock
  /** Called when a limit is reached while an attempt runs. */
  onLimit: ((by: 'timeout' | 'tryTimeout') => void) | undefined = undefined
  readonly #deadline: number
  readonly #total: Timer | undefined
  readonly #each: Timer | undefined

  constructor(clock: Clock, options: TimeLimits, settings: Required<TimeLimits>) {
    this.clock = clock
    this.timeout = options.timeout ?? settings.timeout ?? 0
    this.tryTimeout = options.tryTimeout ?? settings.tryTimeout ?? 0
    this.#deadline = this.timeout > 0 ? clock.now() + this.timeout : Infinity
    this.#total = this.timeout > 0 ? new Timer(clock, () => this.onLimit?.('timeout')) : undefined
    this.#each = this.tryTimeout > 0 ? new Timer(clock, () => this.onLimit?.('tryTimeout')) : undefined
  }

  /** Whether the total time is over. */
  get over(): boolean {
    return this.#deadline !== Infinity && this.clock.now() >= this.#deadline
  }

  /** Milliseconds of the total time. */
  get left(): number {
    return this.#deadline === Infinity ? Infinity : Math.max(0, this.#deadline - this.clock.now())
  }

  get any(): boolean {
    return this.#total !== undefined || this.#each !== undefined
  }

  beginAttempt(): void {
    this.#total?.at(this.#deadline)
    this.#each?.at(this.clock.now() + this.tryTimeout)
  }

  end(): void {
    this.#each?.stop()
    this.#total?.stop()
  }
}

export interface Ended {
  readonly result: unknown
  readonly error: unknown
  readonly threw: boolean
  readonly ms: number
  /** What cut it short. */
  readonly by: 'itself' | 'timeout' | 'tryTimeout' | 'signal'
  readonly number: number
}

/** What an attempt can ask of its call. */
export type RunContext = Omit<AttemptContext, 'signal' | 'answered'>

/** One attempt under way. */
export class Run implements AttemptContext {
  readonly number: number
  readonly last: boolean
  readonly canRetry: () => boolean
  readonly judge: (status: number) => RetryVerdict
  readonly #pick: PickHandle
  readonly #limits: Limits
  readonly #callerSignal: AbortSignal | undefined
  #controller: AbortController | undefined
  /** Set when it was cut short. */
  #cut: { readonly reason: unknown } | undefined
  #over = false

  constructor(pick: PickHandle, context: RunContext, limits: Limits, signal: AbortSignal | undefined) {
    this.number = context.number
    this.last = context.last
    this.canRetry = context.canRetry
    this.judge = context.judge
    this.#pick = pick
    this.#limits = limits
    this.#callerSignal = signal
  }

  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#cut !== undefined) this.#controller.abort(this.#cut.reason)
    }
    return this.#controller.signal
  }

  /** Needs no `this`. */
  readonly answered = (status?: number): void => {
    if (this.#over) return
    this.#limits.end()
    this.#pick.answered(status)
  }

  async run(callback: (peer: Peer, attempt: AttemptContext) => unknown): Promise<Ended> {
    const { clock } = this.#limits
    const begun = clock.now()
    const end = (by: Ended['by'], threw: boolean, result: unknown, error: unknown): Ended => {
      this.#over = true
      return { by, threw, result, error, ms: clock.now() - begun, number: this.number }
    }
    const call = async () => {
      try {
        return end('itself', false, await callback(this.#pick.peer, this), undefined)
      } catch (error) {
        return end('itself', true, undefined, error)
      }
    }
    const signal = this.#callerSignal
    if (!this.#limits.any && signal === undefined) return call()
    return new Promise<Ended>((resolve) => {
      const cut = (by: 'timeout' | 'tryTimeout' | 'signal') => {
        const error: unknown = by === 'signal' ? signal?.reason : this.#timeoutError(by)
        stop()
        resolve(end(by, true, undefined, error))
        this.#cut = { reason: error }
        this.#controller?.abort(error)
      }
      const onAbort = () => cut('signal')
      // Once: when a callback that was cut short ends at last, the limits are another attempt's.
      const stop = () => {
        signal?.removeEventListener('abort', onAbort)
        if (this.#limits.onLimit === cut) this.#limits.onLimit = undefined
      }
      signal?.addEventListener('abort', onAbort)
      this.#limits.onLimit = cut
      this.#limits.beginAttempt()
      void call().then((ended) => {
        stop()
        if (this.#cut !== undefined) discard(ended.result)
        resolve(ended)
      })
    })
  }

  #timeoutError(by: 'timeout' | 'tryTimeout'): CheckupsError {
    const ms = by === 'timeout' ? this.#limits.timeout : this.#limits.tryTimeout
    return new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', `no answer within ${ms} ms`)
  }
}

/** A result that is not handed on and holds a connection while its body is not read: a fetch Response. */
export function discard(result: unknown): void {
  if (result instanceof Response && result.body !== null && !result.body.locked)
    result.body.cancel().catch(() => undefined)
}
