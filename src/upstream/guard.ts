/** The last one left: who may be banned, and who comes back early when nobody is left. */
import type { PeerState } from './state.js'

/**
 * Whether a failing peer may be banned. A lone server never is; with protection (the default) neither is the last proven
 * one. A peer that is merely readmitted is no reason to ban another: it may fail at its first request.
 */
export function mayBan(peers: ReadonlyMap<string, PeerState>, failing: PeerState, isProtected: boolean): boolean {
  if (!failing.member) return true
  if (peers.size === 1) return false
  if (!isProtected) return true
  for (const state of peers.values()) if (state !== failing && state.proven) return true
  return false
}

/**
 * Whose ban to lift when admin has taken the last one that was left: of those that only a ban keeps out, the one that
 * would come back first.
 */
export function toLift(peers: ReadonlyMap<string, PeerState>): PeerState | undefined {
  let soonest: PeerState | undefined
  let until = Infinity
  for (const state of peers.values()) {
    if (!state.weighted) continue
    if (state.healthy) return undefined
    if (state.admin !== 'up' || state.passive.state !== 'banned' || state.passive.until >= until) continue
    soonest = state
    until = state.passive.until
  }
  return soonest
}
