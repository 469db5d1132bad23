/**
 * One HTTP request and its attempts, whatever sends them. The attempts are those of `readyOk`, by the same rules and limits: a
 * pick for each from the current lists, nobody twice, tries fixed at the start, the retry budget asked before each but the
 * first. But no promise is made for a request that one peer answers: promises are a tenth of what such a request costs.
 */
import type { Checkups } from '../checkups.js'
import { keepAlive, systemClock, systemRandom } from '../clock.js'
import { CheckupsError, UnknownUpstreamError, type ErrorCode } from '../errors.js'
import type { RetryVerdict } from '../health/outcome.js'
import { Limits, type Attempt } from '../upstream/attempt.js'
import { pause, waitBefore, type Backoff } from '../upstream/backoff.js'
import type { RetryBudget } from '../upstream/budget.js'
import type { PickHandle } from '../upstream/pick.js'
import { AttemptsError } from '../upstream/retry.js'
import type { AttemptRequest, SelectOptions, UnavailableReason } from '../upstream/selection.js'
import type { Entry } from '../upstream/state.js'
import type { Try, TryOwner } from './try.js'
import type { UpstreamNow, Upstreams } from './upstreams.js'

/** What all exchanges of one adapter share. */
export interface ExchangeSetup {
  readonly checkups: Checkups
  readonly upstreams: Upstreams
  readonly retryStatuses: ReadonlySet<number>
  readonly bodyLimit: number
  readonly tries: number | undefined
  readonly timeout: number | undefined
  readonly tryTimeout: number | undefined
  readonly backoff: Backoff | undefined
  readonly budget: RetryBudget | undefined
}

export abstract class Exchange<T extends Try> implements TryOwner {
  readonly setup: ExchangeSetup
  readonly idempotent: boolean
  attempt: T | undefined = undefined
  /** Whether the caller is being answered: from then on there is no other attempt. */
  committed = false
  /** Whether the caller has gone away. */
  gone = false
  /** Whether it has failed through what the caller gave or did: nobody is to blame. */
  callersFault = false
  /** Whether every attempt is to be noted, not only those that came to nothing. */
  notes = false
  /** Those that were noted, in order. */
  protected attempts: Attempt[] = NONE
  #key = ''
  #hashKey: SelectOptions['hashKey'] = undefined
  #clusterKey: SelectOptions['clusterKey'] = undefined
  #upstream: UpstreamNow | undefined = undefined
  /** Attempts at most. */
  #tries = 1
  /** Entries that were tried. */
  #tried: Entry[] | undefined = undefined
  #limits: Limits | undefined = undefined
  /** Whether the budget has given its leave for the next attempt. */
  #leave = false
  /** Attempts whose answers were thrown away for others'. */
  #refused: Try[] | undefined = undefined
  /** Whether the caller has been told how it ended. */
  protected told = false
  #finished = false

  constructor(setup: ExchangeSetup, idempotent: boolean) {
    this.setup = setup
    this.idempotent = idempotent
  }

  /** Whether the request could be sent once more, as far as its body goes. */
  abstract readonly replayable: boolean
  /** An attempt at this peer, that has not begun. */
  protected abstract attemptAt(pick: PickHandle, number: number): T
  /** Sends it to the attempt's peer, `again` over a new connection. */
  abstract launch(attempt: T, again: boolean): void
  /** It has failed, before the head or after it. */
  protected abstract onFailed(error: Error): void

  /** There will be no further attempt, and the last one is over. */
  protected onFinished(): void {}

  /** Whether a peer that may have seen it may be followed by another one. */
  get repeatable(): boolean {
    return this.idempotent && this.replayable
  }

  /** Whether an answer of the peer's may be thrown away for another peer's. */
  get mayRefuse(): boolean {
    return this.repeatable
  }

  /**
   * Begins.
   *
   * @throws UnknownUpstreamError
   */
  protected run(key: string, hashKey: SelectOptions['hashKey'], clusterKey: SelectOptions['clusterKey']): void {
    const { upstreams, tries, timeout, tryTimeout, budget } = this.setup
    const upstream = (this.#upstream = upstreams.of(key))
    this.#key = key
    this.#hashKey = hashKey
    this.#clusterKey = clusterKey
    this.#tries = (tries ?? upstream.tries) || upstream.countServers(clusterKey)
    if ((timeout ?? upstream.timeout) > 0 || (tryTimeout ?? upstream.tryTimeout) > 0) {
      this.#limits = new Limits(systemClock, { timeout, tryTimeout }, upstream)
    }
    budget?.request?.()
    this.#try(1)
  }

  /** The caller wants it no more. Harmless when it is over. */
  abort(reason: Error): void {
    if (this.gone || this.told) return
    this.gone = true
    this.attempt?.cut('neutral', reason)
    this.finish(reason)
  }

  /** What the failure of an attempt whose answer nobody has seen means. */
  verdictOf(attempt: Try): RetryVerdict {
    if (this.gone) return 'neutral'
    if (this.committed || !this.replayable) return 'stop'
    return !attempt.connected || this.idempotent ? 'failed' : 'stop'
  }

  /** What the upstream's `statuses` make of an HTTP status. */
  judge(status: number): RetryVerdict {
    return this.#upstream!.statuses.of(status)
  }

  /** Whether no other one is allowed after this. */
  protected isLast({ number }: Try): boolean {
    return number >= this.#tries
  }

  /** Whether a failure of this attempt would be followed by another one. Yes takes the leave of the retry budget. */
  canRetry(attempt: Try): boolean {
    if (this.isLast(attempt) || this.gone || this.#upstream!.deleted || this.#limits?.over === true) return false
    if (this.setup.checkups.unavailableReason(this.#key, this.#request()) !== undefined) return false
    return (this.#leave ||= this.setup.budget?.tryRetry() !== false)
  }

  /** An answer has begun that the caller gets: nothing has a time limit any more. */
  commit(): void {
    this.committed = true
    this.#limits?.end()
  }

  note(attempt: Attempt): void {
    if (this.attempts === NONE) this.attempts = []
    this.attempts.push(attempt)
  }

  refuse(attempt: Try): void {
    ;(this.#refused ??= []).push(attempt)
  }

  /** What comes after an attempt that has come to nothing. */
  goOn({ number }: Try, verdict: RetryVerdict, error: Error): void {
    if (verdict === 'neutral') return this.#giveUp('ERR_CHECKUPS_ABORTED', 'aborted', undefined, error)
    if (verdict === 'stop') return this.#giveUp('ERR_CHECKUPS_STOPPED', 'must not be retried')
    if (this.#limits?.over === true) return this.#outOfTime()
    if (number < this.#tries) {
      // Who has told of the end may be in the middle of reading an answer, and not bear that another request begins now.
      queueMicrotask(() => void this.#retry(number + 1).catch((thrown: unknown) => this.finish(thrown as Error)))
      return
    }
    const tries = number === 1 ? 'try' : 'tries'
    this.#giveUp('ERR_CHECKUPS_TRIES_EXCEEDED', `no answer in ${number} ${tries}`)
  }

  /** It is over; with an error the caller is told, who may know already. First call counts. */
  finish(error?: Error): void {
    if (error !== undefined && !this.told) {
      this.told = true
      this.onFailed(error)
    }
    if (this.#finished) return
    this.#finished = true
    this.#limits?.end()
    if (this.#refused !== undefined) for (const attempt of this.#refused) attempt.stopReading()
    this.onFinished()
  }

  async #retry(number: number): Promise<void> {
    const { budget, backoff } = this.setup
    if (this.#finished) return
    if (this.#upstream!.deleted) {
      this.#deleted()
      return
    }
    if (!this.#leave && budget?.tryRetry() === false) {
      this.#giveUp('ERR_CHECKUPS_RETRY_BUDGET', 'the retry budget is spent')
      return
    }
    if (backoff !== undefined) {
      const wait = Math.min(waitBefore(number, backoff, systemRandom), this.#limits?.left ?? Infinity)
      await keepAlive(pause(wait, systemClock, undefined))
      // eslint-disable-next-line @typescript-eslint/no-unnecessary-condition -- it may have been aborted meanwhile
      if (this.#finished) return
      if (this.#limits?.over === true) {
        this.#outOfTime()
        return
      }
    }
    this.#leave = false
    this.#try(number)
  }

  #try(number: number): void {
    const request = number === 1 ? { hashKey: this.#hashKey, clusterKey: this.#clusterKey } : this.#request()
    let pick: PickHandle | undefined
    try {
      pick = this.setup.checkups.acquirePeer(this.#key, request) as PickHandle | undefined
    } catch (error) {
      if (error instanceof UnknownUpstreamError) return this.#deleted()
      throw error
    }
    if (pick === undefined) {
      const reason = this.setup.checkups.unavailableReason(this.#key, this.#request()) ?? 'down'
      return this.#giveUp('ERR_CHECKUPS_NO_PEER', `nobody is available (${reason})`, reason)
    }
    const attempt = (this.attempt = this.attemptAt(pick, number))
    if (this.#limits !== undefined) {
      this.#limits.onLimit = (by) => this.#onLimit(attempt, by)
      this.#limits.beginAttempt()
    }
    try {
      this.launch(attempt, false)
    } catch (error) {
      // Code of the caller's: where connections go, what stands before an agent.
      this.callersFault = true
      attempt.onError(error as Error)
    }
  }

  /** What a further pick is asked for. */
  #request(): AttemptRequest {
    const entry = this.attempt?.pick.entry
    const tried = (this.#tried ??= [])
    if (entry !== undefined && !tried.includes(entry)) tried.push(entry)
    return { hashKey: this.#hashKey, clusterKey: this.#clusterKey, tried }
  }

  #onLimit(attempt: Try, by: 'timeout' | 'tryTimeout'): void {
    const ms = this.#limits![by]
    const error = new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', `no answer within ${ms} ms`)
    if (by === 'tryTimeout') return attempt.fail(error)
    // The peer had all the time there was, or only what others had left of it: that says nothing about the peer.
    attempt.cut(attempt.number === 1 ? 'failed' : 'neutral', error)
    this.#outOfTime()
  }

  #outOfTime(): void {
    this.#giveUp('ERR_CHECKUPS_TIMEOUT', `no answer within ${this.#limits?.timeout ?? 0} ms`)
  }

  #deleted(): void {
    this.#giveUp('ERR_CHECKUPS_UPSTREAM_DELETED', 'deleted meanwhile')
  }

  #giveUp(code: ErrorCode, why: string, reason?: UnavailableReason, cause?: unknown): void {
    this.finish(new AttemptsError(code, this.#key, this.attempts, why, reason, cause))
  }
}

/** Of most requests no attempt is noted. */
const NONE = Object.freeze([]) as readonly Attempt[] as Attempt[]
