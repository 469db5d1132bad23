/** One list of servers that a balancer chooses from: a level's primaries, or its backups. */
import type { Balancer, Member, Request, Result } from '../balancer/balancer.js'
import type { ServerConfig } from '../config.js'
import { Entry, type EntryLevel, type PeerState } from './state.js'

/** Told of a throw in a user's own code, which must not end what the core was doing. */
export type OnThrow = (error: unknown, during: string) => void

export class Level implements EntryLevel {
  readonly name: string
  readonly backup: boolean
  /** All servers, also those of weight 0, in the order of the configuration. */
  entries: readonly Entry[] = []
  byAddress: ReadonlyMap<string, Entry> = new Map()
  /** Entries that left with requests in flight; a return before those are done takes them back. */
  readonly #away = new Map<string, Entry>()
  /** How many entries are available now. */
  available = 0
  /** Bound once: a call through a field costs the same however many kinds of policy a process runs. */
  pick: (request: Request, now: number) => Member | undefined
  timed: boolean
  #balancer: Balancer
  readonly #onThrow: OnThrow

  constructor(name: string, backup: boolean, balancer: Balancer, onThrow: OnThrow) {
    this.name = name
    this.backup = backup
    this.#onThrow = onThrow
    this.#balancer = balancer
    this.pick = balancer.pick.bind(balancer)
    this.timed = balancer.timed === true
  }

  /**
   * Takes over a list and, if there is one, another policy. Entries of servers that stay are kept, with their requests in
   * flight and, under the same policy, all that it knows of them. Returns the peers whose entries came, changed or left.
   */
  update(servers: readonly ServerConfig[], peers: ReadonlyMap<string, PeerState>, balancer?: Balancer): Set<PeerState> {
    const touched = new Set<PeerState>()
    const before = this.entries
    const entries: Entry[] = []
    let kept = 0
    let moved = servers.length !== before.length
    for (const [i, server] of servers.entries()) {
      const { address } = server.endpoint
      const own = before[i]?.server === server ? before[i] : this.byAddress.get(address)
      const entry = own ?? this.#arrive(peers.get(address)!, server)
      if (own !== undefined) kept++
      if (own === undefined || entry.server !== server) touched.add(entry.state)
      if (entry !== before[i]) moved = true
      entry.server = server
      entry.weight = entry.fullWeight = server.weight
      entries.push(entry)
    }
    if (touched.size === 0 && !moved && balancer === undefined) return touched
    const byAddress = new Map<string, Entry>()
    const unlisted: Entry[] = []
    this.available = 0
    for (const entry of entries) {
      byAddress.set(entry.peer.address, entry)
      entry.state.entries.add(entry)
      setFlags(entry)
      if (entry.available) this.available++
      if (entry.listed && entry.weight === 0) unlisted.push(entry)
      entry.listed = entry.weight > 0
    }
    for (const [address, { inFlight }] of this.#away) {
      if (inFlight === 0 || byAddress.has(address)) this.#away.delete(address)
    }
    if (kept < before.length) {
      for (const entry of before) {
        const { address } = entry.peer
        if (byAddress.get(address) === entry) continue
        entry.state.entries.delete(entry)
        entry.available = entry.healthy = false
        entry.listed = false
        unlisted.push(entry)
        if (entry.inFlight > 0) this.#away.set(address, entry)
        touched.add(entry.state)
      }
    }
    this.entries = entries
    this.byAddress = byAddress
    if (balancer !== undefined && balancer !== this.#balancer) this.#replaceBalancer(balancer)
    this.#guarded('update', () => this.#balancer.update(entries.filter(({ listed }) => listed)))
    // Who leaves the policy's list leaves its data behind, once the policy has seen the new list.
    for (const entry of unlisted) entry.data = undefined
    return touched
  }

  #arrive(state: PeerState, server: ServerConfig): Entry {
    const back = this.#away.get(state.peer.address)
    // Once a peer is forgotten, another state has its address.
    return back?.state === state ? back : new Entry(this, state, server)
  }

  /** Brings an entry's flags up to date, and tells the policy if one has flipped. */
  refresh(entry: Entry): void {
    const { available, healthy } = entry
    setFlags(entry)
    if (available === entry.available && healthy === entry.healthy) return
    this.available += Number(entry.available) - Number(available)
    if (entry.listed) this.#guarded('changed', () => this.#balancer.changed?.(entry))
  }

  /** What the policy says of itself. */
  status(): object | undefined {
    return this.#balancer.status?.()
  }

  acquired(entry: Entry): void {
    if (this.#balancer.acquired !== undefined && entry.listed)
      this.#guarded('acquired', () => this.#balancer.acquired?.(entry))
  }

  released(entry: Entry): void {
    if (this.#balancer.released !== undefined && entry.listed) {
      this.#guarded('released', () => this.#balancer.released?.(entry))
    }
  }

  report(entry: Entry, result: Result): void {
    if (this.#balancer.report !== undefined && entry.listed)
      this.#guarded('report', () => this.#balancer.report?.(entry, result))
  }

  #replaceBalancer(balancer: Balancer): void {
    this.#balancer = balancer
    this.pick = balancer.pick.bind(balancer)
    this.timed = balancer.timed === true
    for (const entry of this.entries) entry.data = undefined
  }

  #guarded(during: string, call: () => void): void {
    try {
      call()
    } catch (error) {
      this.#onThrow(error, `${during} of the balancer of level ${JSON.stringify(this.name)}`)
    }
  }
}

function setFlags(entry: Entry): void {
  entry.healthy = entry.state.healthy
  entry.available = entry.state.open && entry.weight > 0 && !entry.hidden
}
