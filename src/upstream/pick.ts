/** A pick and its life: acquired, perhaps answered, done once. */
import type { Result } from '../balancer/balancer.js'
import { statusOf, type Outcome, type Verdict } from '../health/outcome.js'
import type { Peer } from './peer.js'
import type { Entry, Unanswered } from './state.js'

/** What a pick needs of the upstream it came from. */
export interface PickOwner {
  now(): number
  /** The clock's time if this level's policy wants times, else NaN. */
  timeFor(entry: Entry): number
  verdict(outcome: Outcome): Verdict
  /** A peer on trial has begun to answer well: its stream may go on for hours. */
  confirmed(pick: PickHandle): void
  /** The policy's sample of a good answer. */
  answered(entry: Entry, result: Result): void
  /** The end; `told` if the policy has had its report by `answered`. The peer wants to be left alone for `retryAfter` ms. */
  done(pick: PickHandle, result: Result, told: boolean, retryAfter: number): void
  retryAfter(outcome: Outcome): number
}

/**
 * A peer acquired for one request. It counts as in flight until {@link Pick.done}, so call that in every case: `using`
 * (`Symbol.dispose`) does it with `'neutral'` if nobody has.
 */
export interface Pick extends Disposable {
  /** The peer to ask. */
  readonly peer: Peer
  /**
   * The peer has begun to answer: headers, an upgrade, a connection. Takes the sample of its latency and stops the ageing
   * of this request, so that a long stream or a WebSocket does not look like a peer that hangs. Optional; first call counts.
   *
   * @param status - HTTP status; one that counts as failed gives no sample
   */
  answered(status?: number): void
  /** The request is over. First call counts, further ones are harmless. */
  done(outcome: Outcome): void
}

export class PickHandle implements Pick, Unanswered {
  readonly peer: Peer
  readonly entry: Entry
  /** The trial's slot that this pick holds, or 0. */
  readonly lease: number
  /** Bans of the peer when it was picked: an outcome from before the last ban says nothing of the peer now. */
  readonly bans: number
  /** NaN if nobody wants to know how long it takes. */
  readonly start: number
  /** Milliseconds to the answer, once there is one; NaN before. */
  answeredAfter = NaN
  older: Unanswered | undefined = undefined
  newer: Unanswered | undefined = undefined
  readonly #owner: PickOwner
  /** Whether its policy wants to know. */
  readonly #timed: boolean
  #waiting: boolean
  #hasAnswered = false
  /** Whether the policy has had its report of the answer. */
  #told = false
  #over = false

  /** `start` is the time that the policy was asked at, if it or anybody else takes times. */
  constructor(owner: PickOwner, entry: Entry, lease: number, start: number) {
    this.#owner = owner
    this.entry = entry
    this.peer = entry.peer
    this.lease = lease
    this.bans = entry.state.passive.bans
    this.start = start
    this.#timed = this.#waiting = entry.level.timed
    if (this.#timed) entry.wait(this)
  }

  answered(status = 0): void {
    if (this.#over || this.#hasAnswered) return
    this.#hasAnswered = true
    // Nobody takes its time, and it proves nothing of a peer on trial.
    if (Number.isNaN(this.start) && this.lease === 0) return
    const now = this.#owner.now()
    const ms = (this.answeredAfter = now - this.start)
    const isAwaited = this.#stopWaiting()
    const verdict = status === 0 ? 'ok' : this.#owner.verdict({ status })
    if (verdict !== 'ok') return
    if (this.lease !== 0) this.#owner.confirmed(this)
    if (!isAwaited) return
    this.#told = true
    this.#owner.answered(this.entry, { outcome: verdict, status, ms, now, acquired: true })
  }

  done(outcome: Outcome): void {
    if (!this.#over) this.end(this.#owner.verdict(outcome), statusOf(outcome), this.#owner.retryAfter(outcome))
  }

  /** {@link done}, by one who has judged already. */
  end(verdict: Verdict, status: number, retryAfter = 0): void {
    if (this.#over) return
    this.#over = true
    const now = this.#owner.timeFor(this.entry)
    // A failure after an answer has no time of its own.
    let ms = this.#told || !this.#timed ? NaN : this.answeredAfter
    if (this.#stopWaiting()) ms = now - this.start
    this.#owner.done(this, { outcome: verdict, status, ms, now, acquired: true }, this.#told, retryAfter)
  }

  [Symbol.dispose](): void {
    this.done('neutral')
  }

  #stopWaiting(): boolean {
    if (!this.#waiting) return false
    this.#waiting = false
    this.entry.answered(this)
    return true
  }
}
