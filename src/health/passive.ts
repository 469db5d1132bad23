/**
 * Passive health of one peer as a pure state machine: a state, an event and the time give the next state.
 *
 *     up ──maxFails within failTimeout──► banned ──failTimeout──► trial ──ok──► up
 *      ▲                                    ▲ │                    │
 *      └──────── lifted, passed, reset ─────┼─┘ ◄─────failed───────┘
 *
 * A state that an event does not change is returned as it is, so identity tells whether anything happened.
 */

/** The rules of one peer. */
export interface PassiveRules {
  /** Failures within {@link failTimeout} that ban the peer; 0 switches passive health off. */
  readonly maxFails: number
  /** Milliseconds: the window failures are counted in, how long a ban lasts, and how long a trial may take. */
  readonly failTimeout: number
  /** How a ban ends: `trial` lets one attempt try the peer, `fresh` gives it a full count again. */
  readonly readmit: 'trial' | 'fresh'
}

/**
 * The one slot of a trial. A lease of `select` belongs to nobody who could end it (selectPeer gives no handle): when it
 * lapses without a failure reported the peer is fully back. One of `acquire` lapses neutrally.
 */
export interface Lease {
  readonly id: number
  readonly kind: 'select' | 'acquire'
  readonly until: number
}

interface Up {
  readonly state: 'up'
  readonly bans: number
  /** When the failures were that still count, oldest first; at most maxFails of them. */
  readonly failures: readonly number[]
  /** False after a return that no success has confirmed yet. */
  readonly proven: boolean
  /** Kept although it failed: the last one left. */
  readonly unstable: boolean
}

interface Banned {
  readonly state: 'banned'
  readonly bans: number
  readonly until: number
  /** Whether it has asked for that itself: then it is back without a trial. */
  readonly asked?: true
}

interface Trial {
  readonly state: 'trial'
  readonly bans: number
  readonly lease: Lease | undefined
}

/** `bans` counts bans so far: an outcome of an attempt begun before the last one says nothing about the peer now. */
export type Passive = Up | Banned | Trial

export type PassiveEvent =
  | { readonly type: 'ok' }
  /** `mayBan` is false for the last peer left: it is kept. */
  | { readonly type: 'failed'; readonly mayBan: boolean }
  | { readonly type: 'neutral'; readonly lease: number }
  /** The trial's slot is taken. */
  | { readonly type: 'lease'; readonly lease: Lease }
  /** The time of a ban or a lease is over. */
  | { readonly type: 'due' }
  /** The ban ends now because nobody else is left. */
  | { readonly type: 'lifted' }
  /** It wants to be left alone until then. */
  | { readonly type: 'away'; readonly until: number; readonly mayBan: boolean }
  /** A heartbeat passes, which is to end a ban. */
  | { readonly type: 'passed' }
  /** Somebody says that it is well. */
  | { readonly type: 'reset' }

const up = (bans: number, proven: boolean, failures: readonly number[] = [], unstable = false): Up => ({
  state: 'up',
  bans,
  failures,
  proven,
  unstable,
})

/** A peer nobody has complained about. */
export const healthyStart: Passive = up(0, true)

/** Whether a success would change nothing. */
export function isClean(passive: Passive): boolean {
  return passive.state === 'up' && passive.proven && !passive.unstable && passive.failures.length === 0
}

export function nextPassive(passive: Passive, event: PassiveEvent, now: number, rules: PassiveRules): Passive {
  const { bans } = passive
  switch (event.type) {
    case 'ok':
      // A ban ends by its time, not by the success of a request that may have begun before it.
      return passive.state === 'banned' || isClean(passive) ? passive : up(bans, true)
    case 'failed':
      return passive.state === 'banned' ? passive : failed(passive, event.mayBan, now, rules)
    case 'neutral':
      return passive.state === 'trial' && passive.lease?.id === event.lease ? { ...passive, lease: undefined } : passive
    case 'lease':
      return passive.state === 'trial' && passive.lease === undefined ? { ...passive, lease: event.lease } : passive
    case 'due':
      return due(passive, now, rules)
    case 'lifted':
      return passive.state === 'banned' ? up(bans, false, [], true) : passive
    case 'passed':
      return passive.state === 'banned' ? up(bans, false) : passive
    case 'away':
      return away(passive, event.until, event.mayBan)
    case 'reset':
      return isClean(passive) ? passive : up(bans, true)
  }
}

function failed(passive: Up | Trial, mayBan: boolean, now: number, { maxFails, failTimeout }: PassiveRules): Passive {
  const { bans } = passive
  const banned: Banned = { state: 'banned', bans: bans + 1, until: now + failTimeout }
  // One failure of a trial is enough, however many maxFails says.
  if (passive.state === 'trial') {
    if (mayBan && maxFails > 0) return banned
    return passive.lease === undefined ? passive : { state: 'trial', bans, lease: undefined }
  }
  if (maxFails === 0) return passive
  const failures = [...passive.failures.filter((at) => now - at < failTimeout), now].slice(-maxFails)
  const reached = failures.length >= maxFails
  if (reached && mayBan) return banned
  return up(bans, passive.proven, failures, passive.unstable || reached)
}

/** A ban that is under way lasts at least as long; one because of failures is still followed by a trial. */
function away(passive: Passive, until: number, mayBan: boolean): Passive {
  if (passive.state === 'banned') return passive.until < until ? { ...passive, until } : passive
  if (!mayBan) return passive
  const banned: Banned = { state: 'banned', bans: passive.bans + 1, until }
  return passive.state === 'up' ? { ...banned, asked: true } : banned
}

function due(passive: Passive, now: number, { readmit }: PassiveRules): Passive {
  const { bans } = passive
  if (passive.state === 'banned' && now >= passive.until) {
    if (passive.asked === true) return up(bans, true)
    return readmit === 'trial' ? { state: 'trial', bans, lease: undefined } : up(bans, false)
  }
  if (passive.state === 'trial' && passive.lease !== undefined && now >= passive.lease.until) {
    return passive.lease.kind === 'select' ? up(bans, true) : { state: 'trial', bans, lease: undefined }
  }
  return passive
}
