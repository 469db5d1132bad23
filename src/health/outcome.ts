/** What a caller says of an attempt, and what it means for health. */
import { expected } from '../check.js'
import type { Clock } from '../clock.js'

/**
 * How an attempt ended, for health: `ok` clears failures, `failed` counts one, `neutral` (the client went away, the caller
 * gave up) changes nothing.
 */
export type Verdict = 'ok' | 'failed' | 'neutral'

/**
 * What retries make of a result or an error: the three verdicts, and
 * `next` (go on to the next peer without a mark, as nginx does for a 404 named in proxy_next_upstream) and
 * `stop` (failed, and must not be repeated: a part of the body is gone, the answer has begun).
 */
export type RetryVerdict = Verdict | 'next' | 'stop'

/** Anything with the status code of an HTTP answer: `{ status: 503 }`, a fetch `Response`. */
export interface HasStatus {
  /** The status code. */
  readonly status: number
  /**
   * Milliseconds for which the peer has asked to be left alone: of `Retry-After` with 429 or 503. A fetch `Response` says it
   * by its headers. For that long (at most five minutes) the peer is out, unless it is the last one.
   */
  readonly retryAfter?: number | undefined
}

/**
 * How an attempt ended: a {@link Verdict}, a boolean (`true` = failed, the form of lua-resty-checkups), an HTTP answer, or
 * the error it ended with (an `AbortError` is neutral, any other is failed).
 */
export type Outcome = Verdict | boolean | HasStatus | Error

/**
 * What HTTP statuses mean, by code (`'404'`) or class (`'5xx'`; a code wins over its class). `false` is `failed` and `true`
 * is `ok`, as in the ancestor's `statuses`. What is not named keeps the default: 5xx failed, everything else ok.
 */
export type StatusMap = Readonly<Record<string, boolean | RetryVerdict>>

/** Compiled: the meaning of every status from 100 to 999 in one look-up. */
export class Statuses {
  readonly #verdicts: readonly RetryVerdict[]

  constructor(map: StatusMap = {}) {
    const named = new Map(
      Object.entries(map).map(([code, meaning]) => [
        code,
        typeof meaning === 'boolean' ? (meaning ? 'ok' : 'failed') : meaning,
      ]),
    )
    this.#verdicts = Array.from({ length: 1000 }, (_, status) => {
      const byDefault = status >= 500 && status < 600 ? 'failed' : 'ok'
      return named.get(String(status)) ?? named.get(`${Math.floor(status / 100)}xx`) ?? byDefault
    })
  }

  of(status: number): RetryVerdict {
    return this.#verdicts[status] ?? 'ok'
  }

  /** Of an outcome that a caller reported. */
  outcome(outcome: Outcome): RetryVerdict {
    if (outcome === 'ok' || outcome === 'failed' || outcome === 'neutral') return outcome
    if (typeof outcome === 'boolean') return outcome ? 'failed' : 'ok'
    if (outcome instanceof Error) return outcome.name === 'AbortError' ? 'neutral' : 'failed'
    if (typeof (outcome as Partial<HasStatus> | null)?.status === 'number') return this.of(outcome.status)
    throw expected('outcome', '', '"ok", "failed", "neutral", true or false, { status }, or an Error', outcome)
  }
}

/** Health knows three verdicts: a `next` leaves no mark, a `stop` failed. */
export function verdictOf(verdict: RetryVerdict): Verdict {
  if (verdict === 'next') return 'neutral'
  return verdict === 'stop' ? 'failed' : verdict
}

/** The status code in an outcome or a result, or 0. */
export function statusOf(value: unknown): number {
  if (typeof value !== 'object' || value === null || !('status' in value)) return 0
  return typeof value.status === 'number' ? value.status : 0
}

/** Milliseconds. Longer is no load that will pass; 300 s is what Envoy and dialogue take at most. */
const LONGEST_RETRY_AFTER = 300_000

/** Milliseconds for which a peer wants to be left alone, by an outcome or a result; 0 if it does not. */
export function retryAfterOf(value: unknown, clock: Pick<Clock, 'wallTime'>): number {
  const status = statusOf(value)
  if (status !== 429 && status !== 503) return 0
  const { retryAfter, headers } = value as Partial<HasStatus> & { headers?: unknown }
  const header = headers instanceof Headers ? headers.get('retry-after') : null
  const ms = retryAfter ?? (header === null ? 0 : parseRetryAfter(header, clock.wallTime()))
  return typeof ms === 'number' && ms > 0 ? Math.min(ms, LONGEST_RETRY_AFTER) : 0
}

/** Milliseconds of the header's seconds, or until its date (RFC 9110, 10.2.3); 0 if it is neither. */
export function parseRetryAfter(header: string, wallTime: number): number {
  if (/^\d{1,9}$/.test(header)) return Number(header) * 1_000
  const date = /^[A-Za-z]/.test(header) ? Date.parse(header) : NaN
  return Number.isNaN(date) ? 0 : Math.max(0, date - wallTime)
}
