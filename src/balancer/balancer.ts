/** The contract between the core and a balancing policy. */
import type { Peer } from '../upstream/peer.js'
import type { Verdict } from '../health/outcome.js'

/**
 * One server of one level, as a policy sees it; the same object while the server stays in that level. A peer that two
 * levels name has two members.
 */
export interface Member<D = unknown> {
  /** The peer; one object per address per upstream. */
  readonly peer: Peer
  /** Balance by this now: an integer from 1. */
  readonly weight: number
  /** The weight as configured; rings use it. Differs from {@link weight} while a peer starts slowly. */
  readonly fullWeight: number
  /** May be returned by *this* pick: healthy, not full, its trial's slot free, not tried before in this call. */
  readonly available: boolean
  /** Health and admin only; what shares and spill-over count. */
  readonly healthy: boolean
  /** Requests acquired from this member and not done. */
  readonly inFlight: number
  /** Clock time at which the oldest unanswered request was acquired, or Infinity; kept only if the policy is `timed`. */
  readonly oldest: number
  /** The policy's own; survives updates and leaves with the member. */
  data: D | undefined
}

/** What a pick is asked for. */
export interface Request {
  /** What a hashing policy hashes. */
  readonly hashKey?: string | Uint8Array | undefined
}

/** How a request went. One object is reused for every report: read it, do not keep it. */
export interface Result {
  /** `ok` comes with the answer, `failed` and `neutral` with the end of the request. */
  readonly outcome: Verdict
  /** HTTP status, or 0 where there is none. */
  readonly status: number
  /** Milliseconds to the answer (or to the end, unanswered); NaN unless the policy is `timed` and the request acquired. */
  readonly ms: number
  /** Clock time of the report; NaN unless the policy is `timed`. */
  readonly now: number
  /** False if told by `feedbackStatus`, which names a peer and not a request. */
  readonly acquired: boolean
}

/**
 * A balancing policy over the servers of one level. A class or a plain object; a user's own takes ten lines.
 *
 * The core keeps health, levels, retries and in-flight counts: before a retry it marks the tried members unavailable,
 * calls `changed` for each, picks, and takes it back, so that every policy gets exclusion for nothing.
 */
export interface Balancer<D = unknown> {
  /** The members have changed, or their weights; unavailable ones included, weight 0 left out. Called before any pick. */
  update(members: readonly Member<D>[]): void
  /**
   * The member for this request: an available one, or undefined if there is none.
   *
   * @param now - clock time, NaN unless `timed`
   */
  pick(request: Request, now: number): Member<D> | undefined
  /** `available` or `healthy` of this member has flipped; O(log n) at most. */
  changed?(member: Member<D>): void
  /** The pick has become a request in flight (acquirePeer, readyOk). */
  acquired?(member: Member<D>): void
  /** A request in flight has ended; comes after its `report`. */
  released?(member: Member<D>): void
  /** A request went so. */
  report?(member: Member<D>, result: Result): void
  /** What it has to say of itself, for the status of its level. */
  status?(): object
  /** Whether the policy needs times; without it no clock is read at acquire and done. */
  readonly timed?: boolean
}

/** What a policy may use instead of real time and chance. */
export interface BalancerEnv {
  /** Uniform in [0, 1); the level's own generator. */
  readonly random: () => number
  /** The clock's monotonic milliseconds. */
  readonly now: () => number
  /** Calls `task` soon, not now: a long job goes in slices, so that it does not hold up the event loop. */
  readonly defer: (task: () => void) => void
}

/** Makes the policy's state for one level. */
export type BalancerFactory = (env: BalancerEnv) => Balancer
