/** One attempt of an HTTP request, whatever sends it: whom it went to, and what came of it. */
import { systemClock } from '../clock.js'
import { retryAfterOf, verdictOf, type RetryVerdict } from '../health/outcome.js'
import type { Attempt } from '../upstream/attempt.js'
import type { Peer } from '../upstream/peer.js'
import type { PickHandle } from '../upstream/pick.js'

/** What an attempt needs of the exchange it belongs to. */
export interface TryOwner {
  readonly setup: { readonly retryStatuses: ReadonlySet<number> }
  /** Whether an answer of the peer's may be thrown away for another peer's. */
  readonly mayRefuse: boolean
  /** Whether every attempt is to be noted, not only those that came to nothing. */
  readonly notes: boolean
  /** What the failure of an attempt whose answer nobody has seen means. */
  verdictOf(attempt: Try): RetryVerdict
  /** What the upstream's `statuses` make of an HTTP status. */
  judge(status: number): RetryVerdict
  /** Whether a failure of this attempt would be followed by another one. Yes takes the leave of the retry budget. */
  canRetry(attempt: Try): boolean
  /** An answer has begun that the caller gets. */
  commit(): void
  note(attempt: Attempt): void
  /** Its answer is thrown away. */
  refuse(attempt: Try): void
  /** What comes after an attempt that has come to nothing. */
  goOn(attempt: Try, verdict: RetryVerdict, error: Error): void
}

export abstract class Try {
  readonly pick: PickHandle
  /** From 1. */
  readonly number: number
  over = false
  /** Of its answer, or 0. */
  protected status = 0
  readonly #begun = systemClock.now()
  /** Milliseconds for which the peer wants to be left alone. */
  #retryAfter = 0

  constructor(pick: PickHandle, number: number) {
    this.pick = pick
    this.number = number
  }

  get peer(): Peer {
    return this.pick.peer
  }

  protected abstract readonly exchange: TryOwner
  /** Whether its connection stands: from then on the peer may have seen the request. */
  abstract readonly connected: boolean
  /** What is sending it has failed, or could not even begin. */
  abstract onError(error: Error): void
  /** What is left of its answer is not waited for. */
  abstract stopReading(): void
  /** What is left of the request is torn down. */
  protected abstract tearDown(error: Error): void

  /** It is over, and what is left of the request is torn down. First call counts. */
  cut(verdict: RetryVerdict, error: Error): void {
    if (this.over) return
    this.end(verdict, error)
    this.tearDown(error)
  }

  /** It has failed; what that means depends, mostly, on how far it had come. */
  fail(error: Error, verdict = this.exchange.verdictOf(this)): void {
    if (this.over) return
    this.cut(verdict, error)
    this.exchange.goOn(this, verdict, error)
  }

  /** An answer has begun. Whether the caller gets it; if not, it is to be kept from the caller, and then {@link refuse}d. */
  protected accepts(status: number, retryAfter: number): boolean {
    const { exchange } = this
    this.status = status
    this.#retryAfter = retryAfter
    if (this.#asksOthers && exchange.mayRefuse && exchange.canRetry(this)) return false
    exchange.commit()
    this.pick.answered(status)
    return true
  }

  protected refuse(): void {
    if (this.over) return
    const { exchange, status } = this
    const verdict = exchange.judge(status) === 'next' || this.#isBusy ? 'next' : 'failed'
    const error = new Error(`status ${status}`)
    this.end(verdict, error)
    exchange.refuse(this)
    exchange.goOn(this, verdict, error)
  }

  /** It is over for the balancer. */
  protected end(verdict: RetryVerdict, error?: Error): void {
    this.over = true
    const { status } = this
    const answer = { status, retryAfter: this.#retryAfter }
    this.pick.end(verdictOf(verdict), status, this.#retryAfter > 0 ? retryAfterOf(answer, systemClock) : 0)
    if (verdict === 'ok' && !this.exchange.notes) return
    const ms = systemClock.now() - this.#begun
    this.exchange.note({ peer: this.peer, ms, verdict, status, error: error ?? errorOf(verdict, status) })
  }

  get #asksOthers(): boolean {
    const { exchange, status } = this
    return exchange.judge(status) === 'next' || this.#isBusy || exchange.setup.retryStatuses.has(status)
  }

  /** One who has had too many requests, and says so, is not ill. */
  get #isBusy(): boolean {
    return this.status === 429 && this.#retryAfter > 0
  }
}

function errorOf(verdict: RetryVerdict, status: number): Error | undefined {
  return verdict === 'ok' ? undefined : new Error(`status ${status}`)
}
