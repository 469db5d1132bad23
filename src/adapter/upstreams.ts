/** What adapters go by of the upstreams they send to, read once and again with every change. */
import type { Checkups } from '../checkups.js'
import type { Timeouts } from '../config.js'
import { Statuses } from '../health/outcome.js'
import type { UpstreamDeleteEvent, UpstreamUpdateEvent } from '../upstream/change.js'
import type { SelectOptions } from '../upstream/selection.js'

/** What requests to an upstream go by; changes with it. */
export class UpstreamNow {
  /** Idle connections kept per peer. */
  keepalive = 0
  timeouts: Timeouts = { connect: 0, send: 0, read: 0 }
  tries = 0
  timeout = 0
  tryTimeout = 0
  statuses = new Statuses()
  /** Whether there is no such upstream any more, or another one of its name. */
  deleted = false
  /** Servers by level, and of all. */
  readonly #servers = new Map<string, number>()
  #total = 0

  /** How many may be tried. */
  countServers(clusterKey: SelectOptions['clusterKey']): number {
    if (clusterKey === undefined) return this.#total
    const names = typeof clusterKey === 'string' ? [clusterKey] : clusterKey
    return names.reduce((sum, name) => sum + (this.#servers.get(name) ?? 0), 0)
  }

  /** @throws UnknownUpstreamError */
  read(checkups: Checkups, key: string): void {
    this.timeouts = checkups.getUpstreamTimeouts(key)
    const { keepalive = 0, tries = 0, timeout = 0, tryTimeout = 0, statuses, cluster = [] } = checkups.getUpstream(key)!
    Object.assign(this, { keepalive, tries, timeout, tryTimeout })
    this.statuses = new Statuses(statuses)
    this.#servers.clear()
    // The levels of an array are named by their places.
    for (const [name, { servers }] of Object.entries(cluster)) this.#servers.set(name, servers.length)
    this.#total = 0
    for (const count of this.#servers.values()) this.#total += count
  }
}

/** Who has connections to peers, and must hear of changes. */
export interface UpstreamsOwner {
  /** An upstream that is known has changed. */
  onUpdate(now: UpstreamNow, event: UpstreamUpdateEvent): void
  /** It is no more. */
  onDelete(key: string): void
}

/** The upstreams that have been sent to. */
export class Upstreams {
  readonly #checkups: Checkups
  readonly #known = new Map<string, UpstreamNow>()
  readonly #onUpdate: (event: UpstreamUpdateEvent) => void
  readonly #onDelete: (event: UpstreamDeleteEvent) => void

  constructor(checkups: Checkups, owner: UpstreamsOwner) {
    this.#checkups = checkups
    this.#onUpdate = (event) => {
      const now = this.#known.get(event.upstream)
      if (now === undefined) return
      now.read(checkups, event.upstream)
      owner.onUpdate(now, event)
    }
    this.#onDelete = ({ upstream }) => {
      const now = this.#known.get(upstream)
      if (now === undefined) return
      now.deleted = true
      this.#known.delete(upstream)
      owner.onDelete(upstream)
    }
    checkups.on('upstream:update', this.#onUpdate)
    checkups.on('upstream:delete', this.#onDelete)
  }

  /** @throws UnknownUpstreamError */
  of(key: string): UpstreamNow {
    let now = this.#known.get(key)
    if (now === undefined) {
      now = new UpstreamNow()
      now.read(this.#checkups, key)
      this.#known.set(key, now)
    }
    return now
  }

  /** Whether there is such an upstream. */
  has(key: string): boolean {
    return this.#known.has(key) || this.#checkups.getUpstream(key) !== undefined
  }

  /** Follows them no more. */
  close(): void {
    this.#checkups.off('upstream:update', this.#onUpdate)
    this.#checkups.off('upstream:delete', this.#onDelete)
  }
}
