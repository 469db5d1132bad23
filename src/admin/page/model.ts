/** What the page shows, as the server sends it and the browser keeps it. Times are milliseconds since the Unix epoch. */
import type { Sample } from '../meter.js'

/**
 * A peer in one word: `up`, `unstable`, on `trial`, `full`, `banned`, `down` as its heartbeats say, `drain`, and `hand`: down
 * by an operator's word.
 */
export type PeerWord = 'up' | 'unstable' | 'trial' | 'full' | 'banned' | 'down' | 'drain' | 'hand'

/** One server of one level. What has nothing to say is left out. */
export interface PeerModel {
  /** Of this level entry, as long as it is there; of no other in this process. */
  readonly id: number
  readonly address: string
  readonly word: PeerWord
  /** Whether it could be picked now. */
  readonly usable: boolean
  readonly since: number
  /** Why it is as it is. */
  readonly why?: string | undefined
  /** When the ban ends, and how long it is. */
  readonly until?: number | undefined
  readonly ban?: number | undefined
  readonly weight: number
  readonly inFlight: number
  readonly maxConns?: number | undefined
  readonly backup?: boolean | undefined
  readonly labels?: string | undefined
  /** What an operator has said, whatever else is true of it. */
  readonly down?: boolean | undefined
  readonly drain?: boolean | undefined
  /** What its heartbeats found, how many in a row did not pass, and when the last one ended after how many milliseconds. */
  readonly beat?: string | undefined
  readonly beatFails?: number | undefined
  readonly beatAt?: number | undefined
  readonly beatMs?: number | undefined
}

/** What is different now, of one peer: null takes the place of what is not there any more. */
export type PeerChange = { readonly [Name in keyof PeerModel]?: PeerModel[Name] | null }

export interface LevelModel {
  readonly name: string
  readonly peers: readonly PeerModel[]
}

export interface UpstreamModel {
  /** As of peers, and from the same numbers. */
  readonly id: number
  readonly key: string
  readonly balancer: string
  readonly probe?: string | undefined
  /** Whether levels are named clusters, of which requests say which. */
  readonly keyed: boolean
  readonly levels: readonly LevelModel[]
}

export interface SourceModel {
  readonly name: string
  readonly state: 'waiting' | 'current' | 'stale'
  readonly since: number
  readonly contact?: number | undefined
  readonly change?: number | undefined
  readonly fromSnapshot: boolean
  readonly error: string
  /** How many entries were left out, and the first of them in words. */
  readonly refused: number
  readonly refusal?: string | undefined
  readonly upstreams: readonly string[]
}

/** Something that has happened. */
export interface EventModel {
  readonly id: number
  readonly at: number
  /** What it looks like: a peer's word, or that something was changed. */
  readonly tone: PeerWord | 'change'
  readonly upstream?: string | undefined
  readonly address?: string | undefined
  readonly text: string
}

/** All heartbeats. */
export interface BeatsModel {
  readonly started: boolean
  readonly peers: number
  readonly waiting: number
  /** Milliseconds that they begin too late. */
  readonly lag: number
}

export interface Model {
  readonly at: number
  readonly startedAt: number
  /** Another process, or another page of it, has another one: numbers mean nothing then. */
  readonly run: string
  /** Of the page's files. */
  readonly version: string
  readonly upstreams: readonly UpstreamModel[]
  readonly sources: readonly SourceModel[]
  readonly beats: BeatsModel
  /** The last ones, newest first. */
  readonly events: readonly EventModel[]
  /** The last second that is over, and the first that was measured whole. */
  readonly second: number
  readonly from: number
  /** By the number of a peer or an upstream: the last minute, seconds without anything left out. */
  readonly history: readonly (readonly [id: number, samples: readonly Sample[]])[]
}

/** What has changed since the patch before, or the snapshot. What has not is left out. */
export interface Patch {
  readonly at: number
  readonly second: number
  readonly from: number
  /** All upstreams in their order, if it is another one. */
  readonly order?: readonly number[] | undefined
  /** Those that are new, or have other servers. */
  readonly upstreams?: readonly UpstreamModel[] | undefined
  readonly peers?: readonly (readonly [id: number, change: PeerChange])[] | undefined
  readonly sources?: readonly SourceModel[] | undefined
  readonly beats?: BeatsModel | undefined
  /** Oldest first. */
  readonly events?: readonly EventModel[] | undefined
  readonly samples?: readonly (readonly [id: number, sample: Sample])[] | undefined
}

/** Which peers are shown. */
export interface Filter {
  /** What an upstream's key, an address, a label, a word or a reason must contain, in any case. */
  readonly text: string
  /** Empty for all. */
  readonly word: '' | PeerWord | 'trouble'
}
