/** The last one left: who may be banned, who is kept although checks fail, and who comes back early when nobody is left. */
import { isUntested } from '../health/heartbeat.js'
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

/** What a peer can contribute: the word of its heartbeat, if nothing else keeps it out. */
type Grade = 'ok' | 'unstable' | 'err'

function gradeOf(state: PeerState): Grade | undefined {
  if (!state.member || !state.weighted || state.admin !== 'up' || state.passive.state === 'banned') return undefined
  if (isUntested(state.heartbeat)) return undefined
  const { found } = state.heartbeat
  return found === 'unchecked' ? 'ok' : found
}

/** Which peers are kept although their checks fail, when those of all do. */
export type Panic = 'all' | 'first' | 'none'

/**
 * What heartbeats mean for all peers of an upstream together. While one is ok, what is unstable is out. While none is, the
 * unstable are used; while there is none of these either, those kept by panic.
 */
export class Standings {
  #best: Grade = 'ok'
  /** Somebody who was ok when last looked at: saves a look at everybody. */
  #witness: PeerState | undefined

  /** The best that there is; `err` also if there is nobody at all. */
  best(peers: ReadonlyMap<string, PeerState>): Grade {
    if (this.#witness !== undefined && gradeOf(this.#witness) === 'ok') return 'ok'
    let best: Grade = 'err'
    for (const state of peers.values()) {
      const grade = gradeOf(state)
      if (grade === 'unstable') best = grade
      if (grade !== 'ok') continue
      this.#witness = state
      return grade
    }
    this.#witness = undefined
    return best
  }

  /** Gives everybody the standing that follows, where only `changed` have changed; returns who stands otherwise now. */
  settle(peers: ReadonlyMap<string, PeerState>, changed: Iterable<PeerState>, panic: Panic): PeerState[] {
    const best = this.best(peers)
    const isSame = best === this.#best && !(best === 'err' && panic === 'first')
    this.#best = best
    let isFirst = best === 'err' && panic === 'first'
    const turned: PeerState[] = []
    for (const state of isSame ? changed : peers.values()) {
      const { found } = state.heartbeat
      let standing = found
      if (found === 'unstable' && best === 'ok') standing = 'err'
      if (best === 'err' && (panic === 'all' || isFirst) && gradeOf(state) === 'err') {
        standing = 'unstable'
        isFirst = false
      }
      if (standing === state.standing) continue
      state.standing = standing
      turned.push(state)
    }
    return turned
  }
}

/**
 * Whose ban to lift when nobody else is left: of those whose checks do not fail the one that would come back first; of the
 * others only if there is none that could be kept instead.
 */
export function toLift(peers: ReadonlyMap<string, PeerState>): PeerState | undefined {
  let soonest: PeerState | undefined
  let until = Infinity
  let passing = false
  let kept = false
  for (const state of peers.values()) {
    if (!state.weighted || state.admin !== 'up') continue
    const passes = state.heartbeat.found !== 'err'
    if (state.passive.state !== 'banned') kept ||= gradeOf(state) !== undefined
    else if (passes === passing ? state.passive.until < until : passes) {
      soonest = state
      until = state.passive.until
      passing = passes
    }
  }
  return passing || !kept ? soonest : undefined
}
