/**
 * Active health of one peer as a pure state machine: a state and what a probe reported give the next state.
 *
 *     unchecked ──any──► ok ──fall not ok in a row──► err, unstable ──rise ok in a row──► ok
 */
import type { ProbeReport, ProbeStatus } from './probe/probe.js'

/** When a peer's state turns. */
export interface HeartbeatRules {
  /** Checks in a row that must pass before a peer that is out comes back. */
  readonly rise: number
  /** Checks in a row that must fail before a peer is taken out. */
  readonly fall: number
  /** Whether a peer is out until its first `rise` checks have passed. */
  readonly defaultDown: boolean
}

/** What checks have found; `unchecked` while there has been none. */
export type Found = ProbeStatus | 'unchecked'

export interface Heartbeat {
  readonly found: Found
  /** Checks in a row that passed; 0 after one that did not. */
  readonly successes: number
  /** Checks in a row that did not pass; 0 after one that did. */
  readonly failures: number
  /** Of the last check. */
  readonly message: string
  /** Of the last check that had any. */
  readonly facts: NonNullable<ProbeReport['facts']>
}

const NO_FACTS = Object.freeze({})

/** Without heartbeats, or before the first. */
export const unchecked: Heartbeat = { found: 'unchecked', successes: 0, failures: 0, message: '', facts: NO_FACTS }

export function firstHeartbeat({ defaultDown }: HeartbeatRules): Heartbeat {
  return defaultDown ? { ...unchecked, found: 'err', message: 'not checked yet' } : unchecked
}

export function nextHeartbeat(before: Heartbeat, report: ProbeReport, { rise, fall }: HeartbeatRules): Heartbeat {
  const message = report.message ?? ''
  const facts = report.facts ?? before.facts
  if (report.status === 'ok') {
    const successes = before.successes + 1
    const isOut = before.found === 'err' || before.found === 'unstable'
    return { found: isOut && successes < rise ? before.found : 'ok', successes, failures: 0, message, facts }
  }
  const failures = before.failures + 1
  // In before enough checks have failed: nothing is known that would take it out.
  const still = before.found === 'unchecked' ? 'ok' : before.found
  return { found: failures < fall ? still : report.status, successes: 0, failures, message, facts }
}

/** Whether a peer is out only because it has not been checked yet: that says nothing of it. */
export function isUntested({ found, successes, failures }: Heartbeat): boolean {
  return found === 'err' && successes === 0 && failures === 0
}

/** How the next check is paced: a state that has begun to turn is looked at sooner. */
export function paceOf({ found, successes, failures }: Heartbeat): 'steady' | 'changing' | 'down' {
  if (found === 'ok') return failures > 0 ? 'changing' : 'steady'
  if (found !== 'unchecked' && successes > 0) return 'changing'
  return found === 'err' ? 'down' : 'steady'
}
