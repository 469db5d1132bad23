/** What can change about an upstream: every control change is one {@link Change}, and its effects are {@link ChangeEvent}s. */
import type { UpstreamConfig } from '../config.js'
import type { Heartbeat } from '../health/heartbeat.js'
import type { Passive } from '../health/passive.js'
import type { HealthWord } from '../health/record.js'
import type { Peer } from './peer.js'

/**
 * Where a change came from: the program (`code`), a source (`source`, with its name as the reason), outcomes (`passive`), checks (`heartbeat`), time (`timer`), the
 * last-available guard (`guard`), an operator's word for a server (`admin`).
 */
export type ChangeSource = 'code' | 'source' | 'admin' | 'passive' | 'heartbeat' | 'timer' | 'guard'

/** Where a change came from, and why. */
export interface Cause {
  readonly source: ChangeSource
  /** In words, for people. */
  readonly reason: string
}

/** A change on its way in, by the one door `Upstream.apply`. */
export type Change = Cause & {
  /** Its place among all changes of the instance. */
  readonly generation: number
} & (
    | { readonly what: 'config'; readonly config: UpstreamConfig }
    | { readonly what: 'passive'; readonly address: string; readonly passive: Passive }
    | { readonly what: 'heartbeat'; readonly address: string; readonly heartbeat: Heartbeat }
    | { readonly what: 'delete' }
  )

/** What every event about a change says. */
export interface ChangeInfo {
  /** The upstream's key. */
  readonly upstream: string
  /** The change's place among all changes of the instance: an integer that grows. */
  readonly generation: number
  /** Where the change came from. */
  readonly source: ChangeSource
  /** Why, in words. */
  readonly reason: string
  /** When, in milliseconds since the Unix epoch. */
  readonly at: number
}

/** An upstream was created, or its servers or options have changed. */
export interface UpstreamUpdateEvent extends ChangeInfo {
  /** The event's name. */
  readonly type: 'upstream:update'
  /** Whether the upstream is new. */
  readonly created: boolean
  /** Peers that came. */
  readonly added: readonly Peer[]
  /** Peers that left. */
  readonly removed: readonly Peer[]
  /** Peers that stayed, with other options. */
  readonly changed: readonly Peer[]
}

/** An upstream was deleted. */
export interface UpstreamDeleteEvent extends ChangeInfo {
  /** The event's name. */
  readonly type: 'upstream:delete'
}

/** A peer was taken out of selection, or came back. */
export interface PeerEvent extends ChangeInfo {
  /** The event's name. */
  readonly type: 'peer:down' | 'peer:up'
  /** The peer. */
  readonly peer: Peer
  /** What it is now. */
  readonly health: HealthWord
  /** Milliseconds it spent in the state before. */
  readonly lasted: number
}

/** A draining peer has finished its last request. */
export interface PeerDrainedEvent extends ChangeInfo {
  /** The event's name. */
  readonly type: 'peer:drained'
  /** The peer. */
  readonly peer: Peer
}

/** An effect of a change, as told to listeners. */
export type ChangeEvent = UpstreamUpdateEvent | UpstreamDeleteEvent | PeerEvent | PeerDrainedEvent
