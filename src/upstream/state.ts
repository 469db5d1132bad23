/**
 * What an upstream knows at run time: of one address its health and its requests in flight ({@link PeerState}), and of one
 * server of one level what its policy sees ({@link Entry}). Two levels may name one address: two entries, one state.
 */
import type { Member, Result } from '../balancer/balancer.js'
import { Timer, type Clock } from '../clock.js'
import type { ServerConfig } from '../config.js'
import { unchecked, type Found, type Heartbeat } from '../health/heartbeat.js'
import { healthyStart, type Passive, type PassiveRules } from '../health/passive.js'
import { healthWord, isHealthy, isProven, type Admin, type HealthWord } from '../health/record.js'
import { PeerObject } from './peer.js'

export class PeerState {
  readonly peer: PeerObject
  readonly entries = new Set<Entry>()
  rules: PassiveRules = { maxFails: 0, failTimeout: 0, readmit: 'trial' }
  maxConns = 0
  admin: Admin = 'up'
  /** Whether it has been told that a draining peer is idle. */
  drained = false
  passive: Passive = healthyStart
  heartbeat: Heartbeat = unchecked
  /** When its heartbeats last found something else, in milliseconds since the Unix epoch; NaN before. */
  foundSince = NaN
  /** What its heartbeat means beside those of the others. */
  standing: Found = 'unchecked'
  /** Acquired and not done, over all its entries. */
  inFlight = 0
  /** False once no level names it any more. */
  member = true
  /** Lets a trial be tried although its slot is taken, for the length of one pick: nobody else is left. */
  lastResort = false
  /** Whether it is healthy, as listeners know. */
  told = true
  /** When health last flipped, of the clock. */
  since: number
  /** The same for people: milliseconds since the epoch. */
  sinceWall: number
  /** Why it is as it is, in words; empty while nothing has happened. */
  reason = ''
  /** Ends a ban, or the lease of a trial. */
  readonly timer: Timer

  constructor(upstream: string, server: ServerConfig, clock: Clock, due: (state: PeerState) => void) {
    this.peer = new PeerObject(upstream, server.endpoint, server.labels, server.meta)
    this.since = clock.now()
    this.sinceWall = clock.wallTime()
    this.timer = new Timer(clock, () => due(this))
  }

  /** Takes the options that belong to an address; entries in several levels agree about them. */
  configure(server: ServerConfig, readmit: PassiveRules['readmit']): void {
    const { maxFails, failTimeout, maxConns, down, drain, labels, meta } = server
    this.rules = { maxFails, failTimeout, readmit }
    this.maxConns = maxConns
    this.admin = down ? 'down' : drain ? 'drain' : 'up'
    this.drained &&= this.admin === 'drain'
    this.peer.labels = labels
    this.peer.meta = meta
  }

  /** What its heartbeats have found is old; its standing follows when all are settled. */
  forgetChecks(): void {
    this.heartbeat = unchecked
    this.foundSince = NaN
  }

  get healthy(): boolean {
    return isHealthy(this)
  }

  /** Counts for the guard: proven, and with a weight somewhere. Being full is no matter. */
  get proven(): boolean {
    return isProven(this) && this.weighted
  }

  get word(): HealthWord {
    return healthWord(this)
  }

  get full(): boolean {
    return this.maxConns > 0 && this.inFlight >= this.maxConns
  }

  /** Whether a trial is under way whose slot is taken. */
  get onTrial(): boolean {
    return this.passive.state === 'trial' && this.passive.lease !== undefined
  }

  /** Whether a pick may return it, as far as its address is concerned. */
  get open(): boolean {
    return this.healthy && !this.full && (!this.onTrial || this.lastResort)
  }

  get weighted(): boolean {
    for (const { weight } of this.entries) if (weight > 0) return true
    return false
  }

  /** After anything that {@link open} or {@link healthy} depends on. */
  refresh(): void {
    for (const entry of this.entries) entry.level.refresh(entry)
  }
}

/** A request that was acquired and not answered yet, in the order of acquiring: a list that the entry is the head of. */
export interface Unanswered {
  readonly start: number
  newer: Unanswered | undefined
  older: Unanswered | undefined
}

/** What an entry needs of the level it stands in. */
export interface EntryLevel {
  readonly name: string
  readonly backup: boolean
  readonly timed: boolean
  refresh(entry: Entry): void
  acquired(entry: Entry): void
  released(entry: Entry): void
  report(entry: Entry, result: Result): void
}

export class Entry implements Member {
  // What picks read stands first: in one cache line or two.
  readonly peer: PeerObject
  available = false
  healthy = false
  weight: number
  inFlight = 0
  data: unknown = undefined
  #oldest: Unanswered | undefined = undefined
  #newest: Unanswered | undefined = undefined
  readonly state: PeerState
  readonly level: EntryLevel
  fullWeight: number
  /** As configured. */
  server: ServerConfig
  /** Whether it is in the list that the policy has. */
  listed = false
  /** Held back in this call: tried already, or excluded by the caller. */
  hidden = false

  constructor(level: EntryLevel, state: PeerState, server: ServerConfig) {
    this.peer = state.peer
    this.level = level
    this.state = state
    this.server = server
    this.weight = server.weight
    this.fullWeight = server.weight
  }

  get oldest(): number {
    return this.#oldest === undefined ? Infinity : this.#oldest.start
  }

  /** A request waits for its answer from now on. */
  wait(request: Unanswered): void {
    request.older = this.#newest
    if (this.#newest === undefined) this.#oldest = request
    else this.#newest.newer = request
    this.#newest = request
  }

  /** It has its answer. */
  answered(request: Unanswered): void {
    if (request.older === undefined) this.#oldest = request.newer
    else request.older.newer = request.newer
    if (request.newer === undefined) this.#newest = request.older
    else request.newer.older = request.older
    request.older = request.newer = undefined
  }
}
