/** The instance as the page shows it, and what has changed since it was shown before. */
import type { LevelStatus, ServerStatus, UpstreamStatus } from '../../status.js'
import type { SourceStatus } from '../../source/follow.js'
import type { Journal, JournalEntry } from '../journal.js'
import { unguessable } from '../lib/secret.js'
import type { Meter, Sample } from '../meter.js'
import type { Operations } from '../operations.js'
import type { EventModel, Model, Patch, PeerChange, PeerModel, PeerWord, SourceModel, UpstreamModel } from './model.js'
import { told } from './told.js'

/** Events that a page begins with, and at most so many of one patch: what is more nobody reads. */
const EVENTS = 100
/** Seconds of a chart. */
export const MINUTE = 60
/** Samples that a page begins with; with more peers its charts begin empty, rather than the page late. */
const MOST_SAMPLES = 100_000
/** Milliseconds: two looks at one time, each by its distance from now, differ by no more. */
const SAME = 250

export interface ReaderEnv {
  readonly operations: Operations
  readonly journal: Journal
  readonly meter: Meter
  /** Of the page's files. */
  readonly version: () => string
}

/** What was read of an upstream before: numbers stay with who has them. */
interface Known {
  readonly id: number
  readonly levels: ReadonlyMap<string, ReadonlyMap<string, PeerModel>>
}

export class Reader {
  readonly #env: ReaderEnv
  readonly #run = unguessable().slice(0, 8)
  #known: ReadonlyMap<string, Known> = new Map()
  #ids = 0
  /** Who has said something of a server last: by upstream and address. */
  #hands = new Map<string, string>()
  #handsUntil = 0
  readonly #told = new WeakMap<JournalEntry, EventModel | null>()

  constructor(env: ReaderEnv) {
    this.#env = env
  }

  /** All of it, now. */
  read(): Model {
    const { operations, journal, meter, version } = this.#env
    this.#readHands()
    const status = operations.status()
    const { at, startedAt, heartbeats } = status
    const known = new Map<string, Known>()
    const upstreams = status.upstreams.map((upstream) => this.#upstream(upstream, at, known))
    this.#known = known
    const { started, peers, waiting, lag } = heartbeats
    return {
      at,
      startedAt,
      run: this.#run,
      version: version(),
      upstreams,
      sources: status.sources.map(sourceModel),
      beats: { started, peers, waiting, lag: Math.round(lag / 100) * 100 },
      events: this.#events(journal.entries).reverse(),
      second: meter.second,
      from: meter.from,
      history: [],
    }
  }

  /** The same, with the last minute of every peer. */
  withHistory(model: Model): Model {
    const { meter } = this.#env
    const history: [number, Sample[]][] = []
    let count = 0
    const add = (id: number, key: string, address?: string) => {
      if (count > MOST_SAMPLES) return
      const samples = meter.samples(model.second - MINUTE + 1, model.second, key, address)
      count += samples.length
      if (samples.length > 0) history.push([id, samples])
    }
    for (const { id, key } of model.upstreams) add(id, key)
    for (const { key, levels } of model.upstreams) {
      for (const { peers } of levels) for (const { id, address } of peers) add(id, key, address)
    }
    return { ...model, history }
  }

  /** What is different from `before`, and what was measured since. */
  patch(before: Model, now: Model): Patch {
    const { journal, meter } = this.#env
    const peers: [number, PeerChange][] = []
    const upstreams: UpstreamModel[] = []
    const samples: [number, Sample][] = []
    const old = new Map(before.upstreams.map((upstream) => [upstream.id, upstream]))
    const first = Math.max(before.second, now.second - MINUTE) + 1
    const measure = (id: number, key: string, address?: string) => {
      for (const sample of meter.samples(first, now.second, key, address)) samples.push([id, sample])
    }
    for (const upstream of now.upstreams) {
      const { id, key, levels } = upstream
      const other = old.get(id)
      if (other === undefined || !isSameShape(other, upstream)) upstreams.push(upstream)
      else {
        levels.forEach((level, l) =>
          level.peers.forEach((peer, p) => {
            const change = changeOf(other.levels[l]!.peers[p]!, peer)
            if (change !== undefined) peers.push([peer.id, change])
          }),
        )
      }
      measure(id, key)
      for (const level of levels) for (const peer of level.peers) measure(peer.id, key, peer.address)
    }
    const order = now.upstreams.map(({ id }) => id)
    const isSameOrder = order.length === old.size && before.upstreams.every(({ id }, i) => id === order[i])
    const since = before.events[0]?.id ?? 0
    const events = this.#events(journal.since(since) ?? journal.entries)
    const { at, second, from, sources, beats } = now
    return {
      at,
      second,
      from,
      order: isSameOrder ? undefined : order,
      upstreams: some(upstreams),
      peers: some(peers),
      sources: JSON.stringify(sources) === JSON.stringify(before.sources) ? undefined : sources,
      beats: JSON.stringify(beats) === JSON.stringify(before.beats) ? undefined : beats,
      events: some(events),
      samples: some(samples),
    }
  }

  #upstream(status: UpstreamStatus, at: number, known: Map<string, Known>): UpstreamModel {
    const { key, balancer, probe, keyed } = status
    const before = this.#known.get(key)
    const id = before?.id ?? ++this.#ids
    const seen = new Map<string, Map<string, PeerModel>>()
    const levels = status.levels.map(({ name, servers }: LevelStatus) => {
      const old = before?.levels.get(name)
      const byAddress = new Map<string, PeerModel>()
      for (const server of servers) {
        const { address } = server
        byAddress.set(address, this.#peer(key, server, at, old?.get(address)))
      }
      seen.set(name, byAddress)
      return { name, peers: [...byAddress.values()] }
    })
    known.set(key, { id, levels: seen })
    return { id, key, balancer, probe, keyed, levels }
  }

  #peer(key: string, status: ServerStatus, at: number, before: PeerModel | undefined): PeerModel {
    const { address, server, available, since, passive, heartbeat, inFlight } = status
    const { weight = 1, maxConns = 0, failTimeout = 0, backup, down, drain, labels = {} } = server
    const word = wordOf(status)
    // Of one whose heartbeats fail, too, nothing ends with the ban.
    const isBanned = word === 'banned' && passive.state === 'banned'
    const isByHand = word === 'hand' || word === 'drain'
    const names = Object.entries(labels).map(([name, value]) => `${name} ${value}`)
    return {
      id: before?.id ?? ++this.#ids,
      address,
      word,
      usable: available,
      since,
      why: (isByHand ? this.#handOf(key, word, address, before) : whyOf(word, status)) || undefined,
      until: isBanned ? steady(before?.until, at + passive.remaining) : undefined,
      ban: isBanned ? failTimeout : undefined,
      weight,
      inFlight,
      maxConns: maxConns || undefined,
      backup: backup || undefined,
      labels: names.join(', ') || undefined,
      down: down || undefined,
      drain: drain || undefined,
      beat: heartbeat?.found,
      beatFails: heartbeat?.fall || undefined,
      beatAt: heartbeat && steady(before?.beatAt, at - heartbeat.age),
      beatMs: heartbeat && numberOf(Math.round(heartbeat.duration * 10) / 10),
    }
  }

  /** The journal has who has drained what; the status has only that somebody has. */
  #readHands(): void {
    const { journal } = this.#env
    if (journal.last === this.#handsUntil) return
    this.#handsUntil = journal.last
    this.#hands = new Map()
    for (const { type, data } of journal.entries) {
      if (type !== 'admin:change' || data['what'] !== 'server.set' || typeof data['who'] !== 'string') continue
      this.#hands.set(JSON.stringify([data['upstream'], data['address']]), data['who'])
    }
  }

  /** The journal forgets; whoever is looking need not. */
  #handOf(key: string, word: PeerWord, address: string, before: PeerModel | undefined): string | undefined {
    const who = this.#hands.get(JSON.stringify([key, address]))
    return who === undefined ? (before?.word === word ? before.why : undefined) : `by ${who}`
  }

  /** The last so many of these, in words. */
  #events(entries: readonly JournalEntry[]): EventModel[] {
    const events: EventModel[] = []
    for (let i = entries.length - 1; i >= 0 && events.length < EVENTS; i--) {
      const entry = entries[i]!
      let event = this.#told.get(entry)
      if (event === undefined) this.#told.set(entry, (event = told(entry) ?? null))
      if (event !== null) events.push(event)
    }
    return events.reverse()
  }
}

function wordOf({ health, available, server, passive, heartbeat }: ServerStatus): PeerWord {
  switch (health) {
    case 'down':
      return 'hand'
    case 'drain':
      return 'drain'
    case 'err':
      return heartbeat?.state === 'err' ? 'down' : 'banned'
    case 'unstable':
      return passive.state === 'trial' ? 'trial' : 'unstable'
    case 'ok':
      return !available && server.weight !== 0 && (server.maxConns ?? 0) > 0 ? 'full' : 'up'
  }
}

/** Of those that are up nobody asks. */
function whyOf(word: PeerWord, { reason, passive, server, heartbeat }: ServerStatus): string {
  const { maxFails = 0 } = server
  const failures = passive.failures > 0 && maxFails > 1 ? `${passive.failures} of ${maxFails} failures` : ''
  if (word === 'up' || word === 'full') return failures
  if (word === 'down') return heartbeat?.message || reason
  if (heartbeat?.found === 'err') return `kept, for nobody is well: ${heartbeat.message}`
  return reason || failures
}

function steady(before: number | undefined, now: number): number | undefined {
  if (Number.isNaN(now)) return undefined
  return before !== undefined && Math.abs(before - now) < SAME ? before : Math.round(now)
}

function numberOf(value: number): number | undefined {
  return Number.isNaN(value) ? undefined : value
}

function sourceModel(source: SourceStatus): SourceModel {
  const { name, state, since, lastContact, lastChange, fromSnapshot, error, refused, upstreams } = source
  const [first] = refused
  return {
    name,
    state,
    since,
    contact: numberOf(lastContact),
    change: numberOf(lastChange),
    fromSnapshot,
    error,
    refused: refused.length,
    refusal: first && `${first.at}: ${first.reason}`,
    upstreams,
  }
}

function some<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length === 0 ? undefined : list
}

/** Whether the same peers stand in the same places, so that each can be told by its number. */
function isSameShape(a: UpstreamModel, b: UpstreamModel): boolean {
  if (a.balancer !== b.balancer || a.probe !== b.probe || a.keyed !== b.keyed) return false
  if (a.levels.length !== b.levels.length) return false
  return a.levels.every(({ name, peers }, l) => {
    const other = b.levels[l]!
    if (name !== other.name || peers.length !== other.peers.length) return false
    return peers.every(({ id }, p) => id === other.peers[p]!.id)
  })
}

/** All names of a peer: those that it does not have now among them. */
const NAMES = [
  'word',
  'usable',
  'since',
  'why',
  'until',
  'ban',
  'weight',
  'inFlight',
  'maxConns',
  'backup',
  'labels',
  'down',
  'drain',
  'beat',
  'beatFails',
  'beatAt',
  'beatMs',
] as const satisfies readonly (keyof PeerModel)[]

function changeOf(before: PeerModel, now: PeerModel): PeerChange | undefined {
  const changed = NAMES.filter((name) => before[name] !== now[name])
  return changed.length === 0 ? undefined : Object.fromEntries(changed.map((name) => [name, now[name] ?? null]))
}
