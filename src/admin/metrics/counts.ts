/**
 * What the channels say, counted by upstream and peer. A message finds its counts by the identity of its peer and adds a
 * number: it builds no string and allocates nothing. Who is there, and in what state, is asked when somebody looks.
 */
import type { HeartbeatMessage, OutcomeMessage, PickMessage, StateMessage } from '../../channels.js'
import type { Verdict } from '../../health/outcome.js'
import type { ProbeStatus } from '../../health/probe/probe.js'
import type { HealthWord } from '../../health/record.js'
import type { CheckupsStatus, ServerStatus, UpstreamStatus } from '../../status.js'
import type { ChangeInfo } from '../../upstream/change.js'
import type { Peer } from '../../upstream/peer.js'
import { Histogram } from './histogram.js'

/** Stands for all peers that have no counts of their own; no address is like it. */
export const OTHER = 'other'

export const STATES: readonly HealthWord[] = ['ok', 'unstable', 'err', 'down', 'drain']
export const OUTCOMES: readonly Verdict[] = ['ok', 'failed', 'neutral']
export const FOUND: readonly ProbeStatus[] = ['ok', 'unstable', 'err']

export interface CountsOptions {
  /** Whether each peer has its own counts. */
  readonly peers: boolean
  /** How many have, over all upstreams. */
  readonly maxPeers: number
  /** Bounds of histograms, in seconds. */
  readonly buckets: readonly number[]
}

export type Labels = Readonly<Record<string, string>>

/** The labels of all series of one upstream or peer. They stay the same objects: prom-client writes each of them out once. */
export class SeriesLabels {
  /** What all of them have. */
  readonly plain: Labels
  readonly #made = new Map<string, Labels>()

  constructor(plain: Labels) {
    this.plain = plain
  }

  /** With one more, of few values. */
  with(name: string, value: string): Labels {
    const key = `${name}=${value}`
    const known = this.#made.get(key)
    if (known !== undefined) return known
    const labels = { ...this.plain, [name]: value }
    this.#made.set(key, labels)
    return labels
  }
}

/** Of one peer, of all others ({@link OTHER}), or, undefined, of all peers of an upstream. */
export class PeerCounts {
  readonly upstream: UpstreamCounts
  readonly labels: SeriesLabels
  picks = 0
  bans = 0
  readonly outcomes: Record<Verdict, number> = { ok: 0, failed: 0, neutral: 0 }
  readonly latency: Record<Verdict, Histogram | undefined> = { ok: undefined, failed: undefined, neutral: undefined }
  readonly heartbeats: Record<ProbeStatus, number> = { ok: 0, unstable: 0, err: 0 }
  /** Whether it is, or was, checked. */
  checked = false
  /** Requests in flight at the last look. */
  inFlight = 0
  /** At the last look; undefined if it had left by then, or stands for several. */
  state: HealthWord | undefined = undefined
  /** Whether it had left by the last look. */
  left = false

  constructor(upstream: UpstreamCounts, peer: string | undefined) {
    this.upstream = upstream
    this.labels = new SeriesLabels(peer === undefined ? { upstream: upstream.key } : { upstream: upstream.key, peer })
  }
}

/** Of one upstream. */
export class UpstreamCounts {
  readonly key: string
  readonly labels: SeriesLabels
  readonly peers = new Map<string, PeerCounts>()
  /** Of all peers together, or of those without counts of their own; made when there are any. */
  rest: PeerCounts | undefined = undefined
  /** Picks that found nobody. */
  nobody = 0
  retries = 0
  heartbeats: Histogram | undefined = undefined
  /** Peers by state at the last look. */
  readonly states = new Map<HealthWord, number>()
  /** Of its last change, at the last look. */
  generation = 0
  /** Whether anybody has looked since it is there. */
  seen = false
  /** Whether it had left by the last look. */
  left = false

  constructor(key: string) {
    this.key = key
    this.labels = new SeriesLabels({ upstream: key })
  }

  /** All counts by peer. */
  *all(): Generator<PeerCounts> {
    yield* this.peers.values()
    if (this.rest !== undefined) yield this.rest
  }
}

/** Of one source. */
export interface SourceCounts {
  changes: number
  errors: number
}

export class Counts {
  /** By key. */
  readonly upstreams = new Map<string, UpstreamCounts>()
  /** By name. */
  readonly sources = new Map<string, SourceCounts>()
  /** Peers without counts of their own, at the last look. */
  others = 0
  readonly #options: CountsOptions
  /** Peers with counts of their own. */
  #own = 0
  /** What a message finds at once. What is not in it is found by key and address. */
  #byPeer = new WeakMap<Peer, PeerCounts>()

  constructor(options: CountsOptions) {
    this.#options = options
  }

  pick({ upstream, peer, retry }: PickMessage): void {
    if (peer === undefined) {
      const counts = this.#upstream(upstream)
      counts.nobody++
      if (retry) counts.retries++
      return
    }
    const counts = this.#find(peer)
    counts.picks++
    if (retry) counts.upstream.retries++
  }

  outcome({ peer, outcome, ms, acquired }: OutcomeMessage): void {
    const counts = acquired ? this.#findEarlier(peer) : this.#find(peer)
    if (counts === undefined) return
    counts.outcomes[outcome]++
    // NaN was not taken.
    if (ms >= 0) (counts.latency[outcome] ??= new Histogram(this.#options.buckets)).observe(ms / 1000)
  }

  heartbeat({ peer, status, ms }: HeartbeatMessage): void {
    const counts = this.#find(peer)
    counts.checked = true
    counts.heartbeats[status]++
    const { upstream } = counts
    upstream.heartbeats ??= new Histogram(this.#options.buckets)
    upstream.heartbeats.observe(ms / 1000)
  }

  state({ event }: StateMessage): void {
    switch (event.type) {
      case 'peer:down':
        // By outcomes alone a peer goes down in one way: it is banned.
        if (event.source === 'passive') this.#find(event.peer).bans++
        return
      case 'source:error':
        this.source(event.source).errors++
        return
      case 'upstream:update':
        return this.#changed(event)
      case 'upstream:delete':
        this.#changed(event)
        return this.#forget(event.upstream)
      case 'peer:up':
      case 'peer:drained':
      case 'source:up':
    }
  }

  source(name: string): SourceCounts {
    const known = this.sources.get(name)
    if (known !== undefined) return known
    const counts = { changes: 0, errors: 0 }
    this.sources.set(name, counts)
    return counts
  }

  /** The reason of a source's change is its name. */
  #changed({ source, reason }: ChangeInfo): void {
    if (source === 'source') this.source(reason).changes++
  }

  /**
   * Brings all that is not counted up to date. Who has left keeps its counts for this look, so that the last of them are
   * seen, and has none at the next.
   */
  look(status: CheckupsStatus): void {
    const members = new Map(status.upstreams.map((upstream) => [upstream.key, byAddress(upstream)]))
    this.#dropThoseThatLeft(members)
    this.others = 0
    for (const upstream of status.upstreams) this.#lookAt(upstream, members.get(upstream.key)!)
  }

  /** Begins anew. */
  reset(): void {
    this.upstreams.clear()
    this.sources.clear()
    this.#byPeer = new WeakMap()
    this.#own = 0
  }

  #dropThoseThatLeft(members: ReadonlyMap<string, ReadonlyMap<string, unknown>>): void {
    for (const upstream of this.upstreams.values()) {
      const servers = members.get(upstream.key)
      if (servers === undefined && upstream.left) {
        this.#drop(upstream)
        continue
      }
      upstream.left = servers === undefined
      for (const [address, counts] of upstream.peers) {
        counts.state = undefined
        counts.inFlight = 0
        if (servers?.has(address) === true) counts.left = false
        else if (!counts.left) counts.left = true
        else {
          upstream.peers.delete(address)
          this.#freed(1)
        }
      }
    }
  }

  #lookAt(status: UpstreamStatus, servers: ReadonlyMap<string, readonly ServerStatus[]>): void {
    const upstream = this.#upstream(status.key)
    upstream.seen = true
    upstream.generation = status.generation
    upstream.states.clear()
    for (const state of STATES) upstream.states.set(state, 0)
    if (upstream.rest !== undefined) upstream.rest.inFlight = 0
    for (const [address, entries] of servers) {
      const counts = this.#countsOf(upstream, address)
      const [{ health, heartbeat }] = entries as [ServerStatus]
      upstream.states.set(health, upstream.states.get(health)! + 1)
      for (const { inFlight } of entries) counts.inFlight += inFlight
      if (heartbeat !== undefined) counts.checked = true
      if (counts !== upstream.rest) counts.state = health
      else if (this.#options.peers) this.others++
    }
  }

  #upstream(key: string): UpstreamCounts {
    const known = this.upstreams.get(key)
    if (known !== undefined) return known
    const upstream = new UpstreamCounts(key)
    this.upstreams.set(key, upstream)
    return upstream
  }

  /** Of a peer that is there now. */
  #find(peer: Peer): PeerCounts {
    const found = this.#byPeer.get(peer)
    if (found !== undefined) return found
    const counts = this.#countsOf(this.#upstream(peer.upstream), peer.address)
    this.#byPeer.set(peer, counts)
    return counts
  }

  /**
   * Of a peer that was there when it was picked. If it has left and its counts are gone, they do not come back: a request
   * that ends so late is one of the others'; where the upstream is gone, too, it is nobody's.
   */
  #findEarlier(peer: Peer): PeerCounts | undefined {
    const found = this.#byPeer.get(peer)
    if (found !== undefined) return found
    const upstream = this.upstreams.get(peer.upstream)
    // Not kept: the peer may come back.
    return upstream === undefined ? undefined : (upstream.peers.get(peer.address) ?? this.#rest(upstream))
  }

  #countsOf(upstream: UpstreamCounts, address: string): PeerCounts {
    const known = upstream.peers.get(address)
    if (known !== undefined) return known
    if (!this.#options.peers || this.#own >= this.#options.maxPeers) return this.#rest(upstream)
    const counts = new PeerCounts(upstream, address)
    upstream.peers.set(address, counts)
    this.#own++
    return counts
  }

  #rest(upstream: UpstreamCounts): PeerCounts {
    return (upstream.rest ??= new PeerCounts(upstream, this.#options.peers ? OTHER : undefined))
  }

  /** An upstream that was deleted before anybody has looked is not kept for a last look, which may never come. */
  #forget(key: string): void {
    const upstream = this.upstreams.get(key)
    if (upstream?.seen === false) this.#drop(upstream)
  }

  #drop(upstream: UpstreamCounts): void {
    this.upstreams.delete(upstream.key)
    this.#freed(upstream.peers.size)
  }

  /** What peers are counted by is looked up anew: some have no counts any more, others may have their own now. */
  #freed(count: number): void {
    this.#own -= count
    this.#byPeer = new WeakMap()
  }
}

/** A peer that several levels name has an entry in each. */
function byAddress({ levels }: UpstreamStatus): Map<string, ServerStatus[]> {
  const servers = new Map<string, ServerStatus[]>()
  for (const level of levels) {
    for (const server of level.servers) {
      const entries = servers.get(server.address)
      if (entries === undefined) servers.set(server.address, [server])
      else entries.push(server)
    }
  }
  return servers
}
