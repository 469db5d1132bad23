/** How much each peer is asked, how often that fails, and how long it takes: measured only while somebody looks. */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { outcomeChannel, pickChannel, type OutcomeMessage, type PickMessage } from '../channels.js'
import type { Checkups } from '../checkups.js'
import { Timer, type Clock } from '../clock.js'
import type { UpstreamDeleteEvent, UpstreamUpdateEvent } from '../upstream/change.js'
import type { Peer } from '../upstream/peer.js'

/** Seconds that can be read back: a minute, and some for who is late. */
const KEPT = 64
/** Milliseconds that it goes on after the last one has looked: who comes back soon finds a minute measured. */
const QUIET = 600_000
/** Numbers of one second, in this order. */
const REQUESTS = 0
const OUTCOMES = 1
const FAILED = 2
const TIMED = 3
const TIME = 4
const SLOWEST = 5
const UNSERVED = 6
const WIDTH = 7

/**
 * What happened in one second, if anything: which second (of the clock), requests, outcomes, failed ones, the mean time of
 * those that were answered well and the longest in milliseconds (0 if there is none), and requests that found nobody.
 */
export type Sample = readonly [
  second: number,
  requests: number,
  outcomes: number,
  failed: number,
  ms: number,
  slowest: number,
  unserved: number,
]

/** One peer, or one upstream: a ring of seconds. */
class Series {
  readonly #numbers = new Float64Array(KEPT * WIDTH)
  /** The latest second that has a place. */
  #last = -1

  /** Where the numbers of this second begin. */
  place(second: number): number {
    if (second > this.#last) {
      const first = Math.max(this.#last + 1, second - KEPT + 1)
      for (let s = first; s <= second; s++) this.#numbers.fill(0, (s % KEPT) * WIDTH, ((s % KEPT) + 1) * WIDTH)
      this.#last = second
    }
    return (second % KEPT) * WIDTH
  }

  add(place: number, outcome: OutcomeMessage['outcome'], ms: number): void {
    const numbers = this.#numbers
    numbers[place + OUTCOMES]!++
    if (outcome === 'failed') numbers[place + FAILED]!++
    // A refused connection is fast, a hung one slow; neither says how fast answers are.
    if (outcome !== 'ok' || Number.isNaN(ms)) return
    numbers[place + TIMED]!++
    numbers[place + TIME]! += ms
    if (ms > numbers[place + SLOWEST]!) numbers[place + SLOWEST] = ms
  }

  count(place: number, what: typeof REQUESTS | typeof UNSERVED): void {
    this.#numbers[place + what]!++
  }

  sample(second: number): Sample | undefined {
    if (second < 0 || second > this.#last || second <= this.#last - KEPT) return undefined
    const numbers = this.#numbers
    const at = (second % KEPT) * WIDTH
    const requests = numbers[at + REQUESTS]!
    const outcomes = numbers[at + OUTCOMES]!
    const unserved = numbers[at + UNSERVED]!
    if (requests === 0 && outcomes === 0 && unserved === 0) return undefined
    const timed = numbers[at + TIMED]!
    const mean = timed === 0 ? 0 : Math.max(0.01, rounded(numbers[at + TIME]! / timed))
    return [second, requests, outcomes, numbers[at + FAILED]!, mean, rounded(numbers[at + SLOWEST]!), unserved]
  }
}

/** To three digits or so: more is noise. */
function rounded(ms: number): number {
  return ms < 10 ? Math.round(ms * 100) / 100 : Math.round(ms * 10) / 10
}

interface Measured {
  readonly total: Series
  /** By address. */
  readonly peers: Map<string, Series>
}

/** Of one instance. */
export class Meter {
  readonly #checkups: Checkups
  readonly #clock: Clock
  readonly #upstreams = new Map<string, Measured>()
  /** By the peer itself: what is told of one that has left finds its old place, and makes no new one. */
  #ofPeer = new WeakMap<Peer, Series>()
  #ofUpstream = new WeakMap<Peer, Series>()
  #isListening = false
  #from = NaN
  #watching = 0
  readonly #quiet: Timer

  constructor(checkups: Checkups, clock: Clock) {
    this.#checkups = checkups
    this.#clock = clock
    this.#quiet = new Timer(clock, () => this.#stop())
  }

  /** Whether it costs anything now. */
  get isListening(): boolean {
    return this.#isListening
  }

  /** The first second that is measured whole; NaN while it does not listen. */
  get from(): number {
    return this.#from
  }

  /** The last second that is over. */
  get second(): number {
    return Math.floor(this.#clock.now() / 1_000) - 1
  }

  /** Somebody has looked, and may look again. */
  look(): void {
    this.#start()
    if (this.#watching === 0) this.#quiet.at(this.#clock.now() + QUIET)
  }

  /** Somebody looks until what it returns is called. */
  watch(): () => void {
    this.#start()
    this.#quiet.stop()
    this.#watching++
    let isWatching = true
    return () => {
      if (!isWatching) return
      isWatching = false
      this.#watching--
      if (this.#isListening) this.look()
    }
  }

  /** What a peer, or all of an upstream, did from one second to another, both among them; seconds without anything left out. */
  samples(first: number, last: number, upstream: string, address?: string): Sample[] {
    const measured = this.#upstreams.get(upstream)
    const series = address === undefined ? measured?.total : measured?.peers.get(address)
    const samples: Sample[] = []
    if (series === undefined) return samples
    for (let second = first; second <= last; second++) {
      const sample = series.sample(second)
      if (sample !== undefined) samples.push(sample)
    }
    return samples
  }

  close(): void {
    this.#quiet.stop()
    this.#stop()
  }

  #start(): void {
    if (this.#isListening) return
    this.#isListening = true
    this.#from = Math.floor(this.#clock.now() / 1_000) + 1
    subscribe(pickChannel.name, this.#picked)
    subscribe(outcomeChannel.name, this.#ended)
    this.#checkups.on('upstream:update', this.#updated).on('upstream:delete', this.#deleted)
  }

  #stop(): void {
    if (!this.#isListening) return
    this.#isListening = false
    this.#from = NaN
    unsubscribe(pickChannel.name, this.#picked)
    unsubscribe(outcomeChannel.name, this.#ended)
    this.#checkups.off('upstream:update', this.#updated).off('upstream:delete', this.#deleted)
    this.#upstreams.clear()
    this.#ofPeer = new WeakMap()
    this.#ofUpstream = new WeakMap()
  }

  readonly #picked = (message: unknown): void => {
    const { checkups, upstream, peer, retry } = message as PickMessage
    if (checkups !== this.#checkups) return
    const second = this.#now()
    if (peer === undefined) {
      // A further attempt that finds nobody is the end of a request that somebody has failed.
      if (retry) return
      const { total } = this.#measured(upstream)
      total.count(total.place(second), UNSERVED)
      return
    }
    const series = this.#seriesOf(peer)
    series.count(series.place(second), REQUESTS)
    const total = this.#ofUpstream.get(peer)!
    total.count(total.place(second), REQUESTS)
  }

  readonly #ended = (message: unknown): void => {
    const { checkups, peer, outcome, ms } = message as OutcomeMessage
    if (checkups !== this.#checkups) return
    const second = this.#now()
    const series = this.#seriesOf(peer)
    series.add(series.place(second), outcome, ms)
    const total = this.#ofUpstream.get(peer)!
    total.add(total.place(second), outcome, ms)
  }

  readonly #updated = ({ upstream, added, removed }: UpstreamUpdateEvent): void => {
    const measured = this.#upstreams.get(upstream)
    for (const { address } of removed) measured?.peers.delete(address)
    // The same object may come back.
    for (const peer of added) this.#ofPeer.delete(peer)
  }

  readonly #deleted = ({ upstream }: UpstreamDeleteEvent): void => {
    this.#upstreams.delete(upstream)
  }

  #now(): number {
    return Math.floor(this.#clock.now() / 1_000)
  }

  #seriesOf(peer: Peer): Series {
    const known = this.#ofPeer.get(peer)
    if (known !== undefined) return known
    const series = new Series()
    const { total, peers } = this.#measured(peer.upstream)
    peers.set(peer.address, series)
    this.#ofPeer.set(peer, series)
    this.#ofUpstream.set(peer, total)
    return series
  }

  #measured(upstream: string): Measured {
    const known = this.#upstreams.get(upstream)
    if (known !== undefined) return known
    const measured = { total: new Series(), peers: new Map<string, Series>() }
    this.#upstreams.set(upstream, measured)
    return measured
  }
}
