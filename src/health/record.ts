/** The health of one peer: its parts, and the few questions that selection, the guard and status ask of them together. */
import type { Found } from './heartbeat.js'
import type { Passive } from './passive.js'

/** What an operator said: `down` takes the peer out, `drain` gives it nothing new and lets it finish. */
export type Admin = 'up' | 'down' | 'drain'

export interface HealthParts {
  readonly admin: Admin
  readonly passive: Passive
  /**
   * What its heartbeats make of it beside the other peers: what they found, but `err` for an unstable one while others are
   * ok, and `unstable` for one that is out and kept because all are.
   */
  readonly standing: Found
}

/**
 * One word for all parts: `ok`; `unstable` (usable, but nothing confirms it: kept as the last one, back without a success
 * so far, or called so by a heartbeat); `err` (banned, or heartbeats fail); `down` and `drain` as the operator said.
 */
export type HealthWord = 'ok' | 'unstable' | 'err' | 'down' | 'drain'

/** Whether health and admin let the peer be picked; fullness and the trial's slot are not health. */
export function isHealthy({ admin, passive, standing }: HealthParts): boolean {
  return admin === 'up' && passive.state !== 'banned' && standing !== 'err'
}

/** Healthy, and not merely readmitted or kept: what the last-available guard counts. */
export function isProven(parts: HealthParts): boolean {
  const { passive, standing } = parts
  return isHealthy(parts) && passive.state === 'up' && passive.proven && standing !== 'unstable'
}

export function healthWord({ admin, passive, standing }: HealthParts): HealthWord {
  if (admin !== 'up') return admin
  if (passive.state === 'banned' || standing === 'err') return 'err'
  const isConfirmed = passive.state === 'up' && passive.proven && !passive.unstable && standing !== 'unstable'
  return isConfirmed ? 'ok' : 'unstable'
}
