/** readyOk: attempts on one peer after another, until one answers or a limit says stop. */
import { integer, milliseconds } from '../check.js'
import { keepAlive, type Clock, type Random } from '../clock.js'
import { brandError, type ErrorCode } from '../errors.js'
import { retryAfterOf, statusOf, verdictOf, type RetryVerdict } from '../health/outcome.js'
import { discard, Limits, Run, type Attempt, type AttemptContext, type Ended } from './attempt.js'
import { checkBackoff, pause, waitBefore, type Backoff } from './backoff.js'
import type { RetryBudget } from './budget.js'
import type { Peer } from './peer.js'
import { levelsFor, type SelectOptions, type UnavailableReason } from './selection.js'
import type { Entry } from './state.js'
import type { Upstream } from './upstream.js'

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
  /** Asked before every retry. Default: the instance's. */
  readonly budget?: RetryBudget | undefined
  /** How long to wait before a further attempt. Default: not at all, for it goes to somebody else. */
  readonly backoff?: Backoff | undefined
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
    const tried = attempts.map(
      ({ peer, ms, error }) => `${peer.address} ${error === undefined ? '' : inWords(error)} (${ms.toFixed(0)} ms)`,
    )
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

/** fetch says no more than "fetch failed"; why is in the cause. */
function inWords({ message, cause }: Error): string {
  const code: unknown = cause instanceof Error && 'code' in cause ? cause.code : undefined
  return typeof code === 'string' && !message.includes(code) ? `${message}, ${code}` : message
}

/** What the caller of {@link readyOk} decides for all its calls. */
export interface RetryEnv {
  readonly clock: Clock
  readonly random: Random
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
  checkOptions(options)
  const { signal, budget = env.budget, backoff } = options
  const attempts: Attempt[] = []
  const { hashKey, clusterKey } = options
  const tries = (options.tries ?? upstream.settings.tries) || countServers(upstream, clusterKey)
  const limits = new Limits(env.clock, options, upstream.settings)
  const tried: Entry[] = []
  const fail = (code: ErrorCode, why: string, reason?: UnavailableReason, cause?: unknown) =>
    new AttemptsError(code, upstream.key, attempts, why, reason, cause)
  const request = { hashKey, clusterKey, tried }
  /** The budget's leave for the next attempt, once somebody has asked for it. */
  const leave = { given: false }
  budget?.request?.()

  try {
    for (let number = 1; ; number++) {
      if (isAborted(signal)) throw fail('ERR_CHECKUPS_ABORTED', 'aborted by the caller', undefined, signal?.reason)
      if (upstream.deleted) throw fail('ERR_CHECKUPS_UPSTREAM_DELETED', 'deleted meanwhile')
      if (number > 1 && !leave.given && budget?.tryRetry() === false) {
        throw fail('ERR_CHECKUPS_RETRY_BUDGET', 'the retry budget is spent')
      }
      if (number > 1 && backoff !== undefined) {
        const wait = Math.min(waitBefore(number, backoff, env.random), limits.left)
        await keepAlive(pause(wait, env.clock, signal))
        if (isAborted(signal)) throw fail('ERR_CHECKUPS_ABORTED', 'aborted by the caller', undefined, signal?.reason)
        if (limits.over) throw fail('ERR_CHECKUPS_TIMEOUT', `no answer within ${limits.timeout} ms`)
      }
      // Nothing has been tried yet: the pick may take the steady path.
      const pick = upstream.acquirePeer(number === 1 ? { hashKey, clusterKey } : request)
      if (pick === undefined) {
        const reason = upstream.unavailable(request) ?? 'down'
        throw fail('ERR_CHECKUPS_NO_PEER', `nobody is available (${reason})`, reason)
      }
      tried.push(pick.entry)
      leave.given = false
      const canRetry = () => {
        if (number >= tries || limits.over || upstream.deleted || isAborted(signal)) return false
        return upstream.hasOthers(request) && (leave.given ||= budget?.tryRetry() !== false)
      }
      const context = { number, last: number >= tries, canRetry, judge: (code: number) => upstream.statuses.of(code) }
      const ended = await new Run(pick, context, limits, signal).run(callback)
      const { verdict, status, error } = judge(ended, upstream, options, env)
      pick.end(verdictOf(verdict), status, retryAfterOf(ended.result, env.clock))
      const attempt = { peer: pick.peer, ms: ended.ms, verdict, status, error }
      attempts.push(attempt)
      options.attempts?.push(attempt)
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

const MOST_TRIES = 2 ** 31 - 1

function checkOptions({ tries = 0, timeout = 0, tryTimeout = 0, backoff }: ReadyOkOptions<never>): void {
  if (backoff !== undefined) checkBackoff('options', backoff)
  integer('options', 'tries', tries, 0, MOST_TRIES)
  milliseconds('options', 'timeout', timeout)
  milliseconds('options', 'tryTimeout', tryTimeout)
}

function countServers({ membership }: Upstream, clusterKey: SelectOptions['clusterKey']): number {
  return levelsFor(membership, clusterKey).reduce((sum, { entries }) => sum + entries.length, 0)
}

function isAborted(signal: AbortSignal | undefined): boolean {
  return signal?.aborted === true
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
      // What was cut short has no result to succeed with.
      if (verdict === 'ok' && ended.by === 'tryTimeout') verdict = 'failed'
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
