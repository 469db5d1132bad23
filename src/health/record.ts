/** The health of one peer: its parts, and the few questions that selection, the guard and status ask of them together. */
import type { Passive } from './passive.js'

/** What an operator said: `down` takes the peer out, `drain` gives it nothing new and lets it finish. */
export type Admin = 'up' | 'down' | 'drain'

export interface HealthParts {
  readonly admin: Admin
  readonly passive: Passive
}

/**
 * One word for all parts: `ok`; `unstable` (usable, but nothing confirms it: kept as the last one, or back without a
 * success so far); `err` (banned); `down` and `drain` as the operator said.
 */
export type HealthWord = 'ok' | 'unstable' | 'err' | 'down' | 'drain'

/** Whether health and admin let the peer be picked; fullness and the trial's slot are not health. */
export function isHealthy({ admin, passive }: HealthParts): boolean {
  return admin === 'up' && passive.state !== 'banned'
}

/** Healthy, and not merely readmitted: what the last-available guard counts. */
export function isProven({ admin, passive }: HealthParts): boolean {
  return admin === 'up' && passive.state === 'up' && passive.proven
}

export function healthWord({ admin, passive }: HealthParts): HealthWord {
  if (admin !== 'up') return admin
  if (passive.state === 'banned') return 'err'
  return passive.state === 'trial' || passive.unstable || !passive.proven ? 'unstable' : 'ok'
}
