/** readyOk: attempts on one peer after another, until one answers or a limit says stop. */
import { Timer, type Clock } from '../clock.js'
import { brandError, CheckupsError, type ErrorCode } from '../errors.js'
import { statusOf, verdictOf, type RetryVerdict } from '../health/outcome.js'
import type { Peer } from './peer.js'
import type { PickHandle } from './pick.js'
import { levelsFor, type SelectOptions, type UnavailableReason } from './selection.js'
import type { Entry } from './state.js'
import type { Upstream } from './upstream.js'

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
  /** Whether a failure of this attempt would be followed by another one, as things stand: for whoever may pass an error on. */
  canRetry(): boolean
  /** What the upstream's `statuses` make of an HTTP status. */
  judge(status: number): RetryVerdict
  /** The peer has begun to answer: takes the latency sample and ends the time limits. See `Pick.answered`. */
  answered(status?: number): void
}

/** Limits the share of retries, in the manner of Finagle's RetryBudget; shared by as many calls as should share it. */
export interface RetryBudget {
  /** Asked before every attempt but the first: may it be made? */
  tryRetry(): boolean
  /** Told of every first attempt. */
  request?(): void
}

/** Options of `readyOk`. Those that an upstream has too, win over the upstream's. */
export interface ReadyOkOptions<T = unknown> extends Omit<SelectOptions, 'exclude'> {
  /** Attempts at most; 1 = no retry; 0 = as many as there are servers, counted at the start. */
  readonly tries?: number | undefined
  /** Milliseconds in all until the answer; 0 = no limit. */
  readonly timeout?: number | undefined
  /** Milliseconds for each attempt until the answer, after which it is aborted and has failed; 0 = no limit. */
  readonly tryTimeout?: number | undefined
  /** Ends the call; the running attempt is then neutral. */
  readonly signal?: AbortSignal | undefined
  /**
   * What a result (or, if the attempt threw or exceeded `tryTimeout`, its error) means: true or `'failed'`, false or `'ok'`, or another verdict.
   * Default: an error has failed (an AbortError is neutral), `false` has failed, a result with an HTTP `status` goes by the
   * upstream's `statuses`, anything else is ok.
   */
  readonly isFailure?: ((result: T | undefined, error: unknown) => boolean | RetryVerdict) | undefined
  /** Every attempt is pushed here as it ends, also the successful one. */
  readonly attempts?: Attempt[] | undefined
  /** Asked before every retry. Default: the instance's, or none. */
  readonly budget?: RetryBudget | undefined
}

/** Every attempt of a `readyOk` that found no peer to answer; `errors` are theirs, in order. */
export class AttemptsError extends AggregateError {
  /** Why there was no further attempt. */
  readonly code: ErrorCode
  /** All attempts, in order. */
  readonly attempts: readonly Attempt[]
  /** Why nobody was available, for `ERR_CHECKUPS_NO_PEER`. */
  readonly reason: UnavailableReason | undefined

  constructor(
    code: ErrorCode,
    key: string,
    attempts: readonly Attempt[],
    why: string,
    reason?: UnavailableReason,
    cause?: unknown,
  ) {
    const tried = attempts.map(({ peer, ms, error }) => `${peer.address} ${error?.message ?? ''} (${ms.toFixed(0)} ms)`)
    const list = tried.length === 0 ? '' : `: ${tried.join(', ')}`
    const errors = attempts.flatMap(({ error }) => (error === undefined ? [] : [error]))
    super(errors, `upstream ${JSON.stringify(key)}: ${why}${list}`, cause === undefined ? undefined : { cause })
    this.code = code
    this.attempts = attempts
    this.reason = reason
    brandError(this)
  }

  static {
    this.prototype.name = 'AttemptsError'
  }
}

/** What the caller of {@link readyOk} decides for all its calls. */
export interface RetryEnv {
  readonly clock: Clock
  readonly budget: RetryBudget | undefined
  readonly onThrow: (error: unknown, during: string) => void
}

/** Runs attempts on `upstream` until one is judged ok. */
export async function readyOk<T>(
  upstream: Upstream,
  callback: (peer: Peer, attempt: AttemptContext) => T | PromiseLike<T>,
  options: ReadyOkOptions<T>,
  env: RetryEnv,
): Promise<T> {
  const { signal, budget = env.budget, attempts = [] } = options
  const { hashKey, clusterKey } = options
  const tries = (options.tries ?? upstream.settings.tries) || countServers(upstream, clusterKey)
  const limits = new Limits(env.clock, options, upstream.settings)
  const tried: Entry[] = []
  const fail = (code: ErrorCode, why: string, reason?: UnavailableReason, cause?: unknown) =>
    new AttemptsError(code, upstream.key, attempts, why, reason, cause)
  const request = { hashKey, clusterKey, tried }
  budget?.request?.()

  try {
    for (let number = 1; ; number++) {
      if (isAborted(signal)) throw fail('ERR_CHECKUPS_ABORTED', 'aborted by the caller', undefined, signal?.reason)
      if (upstream.deleted) throw fail('ERR_CHECKUPS_UPSTREAM_DELETED', 'deleted meanwhile')
      if (number > 1 && budget?.tryRetry() === false)
        throw fail('ERR_CHECKUPS_RETRY_BUDGET', 'the retry budget is spent')
      // Nothing has been tried yet: the pick may take the steady path.
      const pick = upstream.acquirePeer(number === 1 ? { hashKey, clusterKey } : request)
      if (pick === undefined) {
        const reason = upstream.unavailable(request) ?? 'down'
        throw fail('ERR_CHECKUPS_NO_PEER', `nobody is available (${reason})`, reason)
      }
      tried.push(pick.entry)
      const canRetry = () => number < tries && !upstream.deleted && !isAborted(signal) && upstream.hasOthers(request)
      const ended = await new Run(pick, number, canRetry, upstream, limits, signal).run(callback)
      const { verdict, status, error } = judge(ended, upstream, options, env)
      pick.end(verdictOf(verdict), status)
      attempts.push({ peer: pick.peer, ms: ended.ms, verdict, status, error })
      if (verdict === 'ok') return ended.result as T
      discard(ended.result)
      if (isAborted(signal)) throw fail('ERR_CHECKUPS_ABORTED', 'aborted by the caller', undefined, signal?.reason)
      if (verdict === 'neutral' && ended.by !== 'timeout')
        throw fail('ERR_CHECKUPS_ABORTED', 'aborted', undefined, error)
      if (verdict === 'stop') throw fail('ERR_CHECKUPS_STOPPED', 'must not be retried')
      if (limits.over) throw fail('ERR_CHECKUPS_TIMEOUT', `no answer within ${limits.timeout} ms`)
      if (number >= tries)
        throw fail('ERR_CHECKUPS_TRIES_EXCEEDED', `no answer in ${number} ${number === 1 ? 'try' : 'tries'}`)
    }
  } finally {
    limits.end()
  }
}

function countServers({ membership }: Upstream, clusterKey: SelectOptions['clusterKey']): number {
  return levelsFor(membership, clusterKey).reduce((sum, { entries }) => sum + entries.length, 0)
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true
}

/** A result that is not handed on and holds a connection while its body is not read: a fetch Response. */
function discard(result: unknown): void {
  if (result instanceof Response && result.body !== null && !result.body.locked)
    result.body.cancel().catch(() => undefined)
}

/** The two time limits of a call. */
class Limits {
  readonly timeout: number
  readonly tryTimeout: number
  readonly clock: Clock
  /** Called when a limit is reached while an attempt runs. */
  onLimit: ((by: 'timeout' | 'tryTimeout') => void) | undefined = undefined
  readonly #deadline: number
  readonly #total: Timer | undefined
  readonly #each: Timer | undefined

  constructor(clock: Clock, options: ReadyOkOptions<never>, settings: { timeout: number; tryTimeout: number }) {
    this.clock = clock
    this.timeout = options.timeout ?? settings.timeout
    this.tryTimeout = options.tryTimeout ?? settings.tryTimeout
    this.#deadline = this.timeout > 0 ? clock.now() + this.timeout : Infinity
    this.#total = this.timeout > 0 ? new Timer(clock, () => this.onLimit?.('timeout')) : undefined
    this.#each = this.tryTimeout > 0 ? new Timer(clock, () => this.onLimit?.('tryTimeout')) : undefined
  }

  /** Whether the total time is over. */
  get over(): boolean {
    return this.#deadline !== Infinity && this.clock.now() >= this.#deadline
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

interface Ended {
  readonly result: unknown
  readonly error: unknown
  readonly threw: boolean
  readonly ms: number
  /** What cut it short. */
  readonly by: 'itself' | 'timeout' | 'tryTimeout' | 'signal'
  readonly number: number
}

/** One attempt under way. */
class Run implements AttemptContext {
  readonly number: number
  readonly canRetry: () => boolean
  readonly #pick: PickHandle
  readonly #upstream: Upstream
  readonly #limits: Limits
  readonly #callerSignal: AbortSignal | undefined
  #controller: AbortController | undefined
  #over = false

  constructor(
    pick: PickHandle,
    number: number,
    canRetry: () => boolean,
    upstream: Upstream,
    limits: Limits,
    signal: AbortSignal | undefined,
  ) {
    this.#pick = pick
    this.#upstream = upstream
    this.number = number
    this.canRetry = canRetry
    this.#limits = limits
    this.#callerSignal = signal
  }

  get signal(): AbortSignal {
    return (this.#controller ??= new AbortController()).signal
  }

  judge(status: number): RetryVerdict {
    return this.#upstream.statuses.of(status)
  }

  answered(status?: number): void {
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
        this.#controller?.abort(error)
      }
      const onAbort = () => cut('signal')
      const stop = () => {
        signal?.removeEventListener('abort', onAbort)
        this.#limits.onLimit = undefined
      }
      signal?.addEventListener('abort', onAbort)
      this.#limits.onLimit = cut
      this.#limits.beginAttempt()
      void call().then((ended) => {
        stop()
        resolve(ended)
      })
    })
  }

  #timeoutError(by: 'timeout' | 'tryTimeout'): CheckupsError {
    const ms = by === 'timeout' ? this.#limits.timeout : this.#limits.tryTimeout
    return new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', `no answer within ${ms} ms`)
  }
}

function judge<T>(
  ended: Ended,
  upstream: Upstream,
  { isFailure }: ReadyOkOptions<T>,
  { onThrow }: RetryEnv,
): { verdict: RetryVerdict; status: number; error: Error | undefined } {
  const status = statusOf(ended.result)
  let verdict: RetryVerdict = byDefault(ended, upstream)
  if (isFailure !== undefined && (ended.by === 'itself' || ended.by === 'tryTimeout')) {
    try {
      const said = isFailure(ended.result as T | undefined, ended.error)
      verdict = typeof said === 'boolean' ? (said ? 'failed' : 'ok') : said
    } catch (error) {
      onThrow(error, 'isFailure')
    }
  }
  if (verdict === 'ok') return { verdict, status, error: undefined }
  if (!ended.threw)
    return { verdict, status, error: new Error(status === 0 ? 'reported as failed' : `status ${status}`) }
  const error = ended.error instanceof Error ? ended.error : new Error(String(ended.error), { cause: ended.error })
  return { verdict, status, error }
}

function byDefault({ by, threw, result, error, number }: Ended, upstream: Upstream): RetryVerdict {
  if (by === 'signal') return 'neutral'
  // The peer had all the time there was, or only what others had left of it: that says nothing about the peer.
  if (by === 'timeout') return number === 1 ? 'failed' : 'neutral'
  if (threw) return upstream.statuses.outcome(error instanceof Error ? error : 'failed')
  if (result === false) return 'failed'
  const status = statusOf(result)
  return status === 0 ? 'ok' : upstream.statuses.of(status)
}
