/** Who belongs to an upstream: its levels, its peers, and those that left but are not done with yet. */
import type { Balancer, BalancerEnv } from '../balancer/balancer.js'
import { expected } from '../check.js'
import { levelRandom, type Clock, type Random, type TimerHandle } from '../clock.js'
import { sameBalancer, upstreamPath } from '../compile.js'
import type { LevelConfig, ServerConfig, UpstreamConfig, UpstreamSettings } from '../config.js'
import { Level, type OnThrow } from './level.js'
import { PeerState } from './state.js'

/** Addresses that left are remembered, the last so many: late feedback by host and port is then no error. */
const DEPARTED_KEPT = 10_000

/** What a new configuration did. */
export interface Difference {
  readonly added: readonly PeerState[]
  readonly removed: readonly PeerState[]
  readonly changed: readonly PeerState[]
}

interface Env {
  readonly clock: Clock
  readonly random: Random
  readonly onThrow: OnThrow
}

interface PlannedLevel {
  readonly level: Level
  readonly servers: readonly ServerConfig[]
  /** The policy, if the level is to have another one. */
  readonly balancer: Balancer | undefined
}

export class Membership {
  /** Primaries and backups of every level, in the order they are tried. */
  levels: readonly Level[] = []
  /** By address. */
  peers: ReadonlyMap<string, PeerState> = new Map()
  readonly #key: string
  readonly #env: Env
  readonly #due: (state: PeerState) => void
  /** Gone from every level, but with requests in flight or a ban to serve; a return revives the same object. */
  readonly #leavers = new Map<string, PeerState>()
  readonly #departed = new Set<string>()
  /** Timers of what balancers have put off. */
  readonly #deferred = new Set<TimerHandle>()
  #settings: UpstreamSettings | undefined

  constructor(key: string, env: Env, due: (state: PeerState) => void) {
    this.#key = key
    this.#env = env
    this.#due = due
  }

  /** Takes over a configuration. A policy's factory may throw: then nothing has changed. */
  apply(config: UpstreamConfig): Difference {
    const levels = this.#planLevels(config)
    const before = this.peers
    const peers = new Map<string, PeerState>()
    const added: PeerState[] = []
    for (const { servers } of config.levels) {
      for (const server of servers) {
        const { address } = server.endpoint
        let state = before.get(address) ?? peers.get(address)
        if (state === undefined) added.push((state = this.#arrive(server)))
        state.configure(server, config.settings.readmit)
        peers.set(address, state)
      }
    }

    this.#settings = config.settings
    this.peers = peers
    const touched = new Set<PeerState>()
    const gone = new Set(this.levels)
    for (const { level, servers, balancer } of levels) {
      gone.delete(level)
      for (const state of level.update(servers, peers, balancer)) touched.add(state)
    }
    for (const level of gone) for (const state of level.update([], peers)) touched.add(state)
    this.levels = levels.map(({ level }) => level)

    const removed: PeerState[] = []
    const stayed = peers.size - added.length
    if (stayed < before.size) for (const [address, state] of before) if (!peers.has(address)) removed.push(state)
    for (const state of removed) this.#leave(state)
    const changed = Array.from(touched).filter((state) => state.member && before.has(state.peer.address))
    return { added, removed, changed }
  }

  /** A member, or one that left and is not done with. */
  find(address: string): PeerState | undefined {
    return this.peers.get(address) ?? this.#leavers.get(address)
  }

  /** Whether the address has belonged to the upstream before. */
  hasLeft(address: string): boolean {
    return this.#departed.has(address)
  }

  /** Forgets a peer that left, once it has nothing in flight and no ban to serve. */
  forgetIfDone(state: PeerState): void {
    if (state.member || state.inFlight > 0 || state.passive.state === 'banned') return
    state.timer.stop()
    this.#leavers.delete(state.peer.address)
  }

  stopTimers(): void {
    for (const handle of this.#deferred) this.#env.clock.clearTimeout(handle)
    this.#deferred.clear()
    for (const state of [...this.peers.values(), ...this.#leavers.values()]) state.timer.stop()
  }

  /** A level stays the same while its name does; primaries and backups are two lists. */
  #planLevels(config: UpstreamConfig): PlannedLevel[] {
    const samePolicy = this.#settings !== undefined && sameBalancer(this.#settings, config.settings)
    const plan = ({ name, servers }: LevelConfig, backup: boolean): PlannedLevel[] => {
      const own = servers.filter((server) => server.backup === backup)
      if (backup && own.length === 0) return []
      const known = this.levels.find((level) => level.name === name && level.backup === backup)
      const balancer = known !== undefined && samePolicy ? undefined : this.#newBalancer(config.settings)
      return [{ level: known ?? new Level(name, backup, balancer!, this.#env.onThrow), servers: own, balancer }]
    }
    return config.levels.flatMap((level) => [...plan(level, false), ...plan(level, true)])
  }

  #newBalancer({ factory }: UpstreamSettings): Balancer {
    const { clock, random, onThrow } = this.#env
    const defer = (task: () => void) => {
      const handle = clock.setTimeout(() => {
        this.#deferred.delete(handle)
        try {
          task()
        } catch (error) {
          onThrow(error, 'a deferred task of a balancer')
        }
      }, 0)
      this.#deferred.add(handle)
    }
    const env: BalancerEnv = { random: levelRandom(random()), now: () => clock.now(), defer }
    const balancer = factory(env) as Partial<Balancer> | undefined
    if (typeof balancer?.pick === 'function' && typeof balancer.update === 'function') return balancer as Balancer
    throw expected(upstreamPath(this.#key), 'balancer', 'a factory of objects with update and pick', balancer)
  }

  /** A new peer, or one that left and has not been forgotten. */
  #arrive(server: ServerConfig): PeerState {
    const { address } = server.endpoint
    const back = this.#leavers.get(address)
    this.#leavers.delete(address)
    this.#departed.delete(address)
    if (back === undefined) return new PeerState(this.#key, server, this.#env.clock, this.#due)
    back.member = true
    // What was found of it before it left is old.
    back.forgetChecks()
    back.standing = 'unchecked'
    return back
  }

  #leave(state: PeerState): void {
    const { address } = state.peer
    state.member = false
    this.#leavers.set(address, state)
    this.#departed.add(address)
    for (const oldest of this.#departed) {
      if (this.#departed.size <= DEPARTED_KEPT) break
      this.#departed.delete(oldest)
    }
    this.forgetIfDone(state)
  }
}
