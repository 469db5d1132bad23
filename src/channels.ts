/**
 * What an instance says of every request, on channels of `node:diagnostics_channel`: metrics, traces and live pages
 * subscribe, and while nobody does, a pick costs what it costs without them (`npm run bench`).
 */
import { channel } from 'node:diagnostics_channel'
import type { Verdict } from './health/outcome.js'
import type { ProbeStatus } from './health/probe/probe.js'
import type { SourceEvent } from './source/follow.js'
import type { ChangeEvent } from './upstream/change.js'
import type { Peer } from './upstream/peer.js'

/** What every message says. */
export interface ChannelMessage {
  /** The instance it is about, a `Checkups`: a process may have several. */
  readonly checkups: object
}

/** `checkups:pick`: somebody has asked for a peer. */
export interface PickMessage extends ChannelMessage {
  /** The upstream's key. */
  readonly upstream: string
  /** Undefined if nobody was available. */
  readonly peer: Peer | undefined
  /** Whether it counts as in flight from now on: by `acquirePeer` and `readyOk`, not by `selectPeer`. */
  readonly acquired: boolean
  /** Whether it is a further attempt of one request. */
  readonly retry: boolean
}

/** `checkups:outcome`: somebody has said how a request went. */
export interface OutcomeMessage extends ChannelMessage {
  /** The upstream's key. */
  readonly upstream: string
  /** The peer that was asked. */
  readonly peer: Peer
  /** What it means for health. */
  readonly outcome: Verdict
  /** The HTTP status, or 0. */
  readonly status: number
  /** Milliseconds until the answer (`pick.answered`, else the end); NaN if it was told by `feedbackStatus`. */
  readonly ms: number
  /** Whether it was in flight until now: false if it was told by `feedbackStatus`. */
  readonly acquired: boolean
}

/** `checkups:heartbeat`: a check is over. */
export interface HeartbeatMessage extends ChannelMessage {
  /** The upstream's key. */
  readonly upstream: string
  /** The peer that was checked. */
  readonly peer: Peer
  /** What the check found. */
  readonly status: ProbeStatus
  /** Milliseconds that it took. */
  readonly ms: number
}

/** `checkups:state`: an event, as listeners have it. */
export interface StateMessage extends ChannelMessage {
  /** The event. */
  readonly event: ChangeEvent | SourceEvent
}

export const pickChannel = channel('checkups:pick')
export const outcomeChannel = channel('checkups:outcome')
export const heartbeatChannel = channel('checkups:heartbeat')
export const stateChannel = channel('checkups:state')
