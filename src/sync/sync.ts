/** What keeps instances of several processes in agreement, as an instance sees it; and what it gets of the instance. */
import type { Clock, Random } from '../clock.js'
import type { Cluster, ServerOptions, UpstreamOptions } from '../config.js'
import type { Heartbeat } from '../health/heartbeat.js'
import type { Cause, Change } from '../upstream/change.js'
import type { ServerChange } from '../upstream/edit.js'

/** A change that somebody asks for, as it goes to the process in charge. */
export type Operation = Cause & {
  readonly key: string
  readonly allowEmpty: boolean | undefined
  readonly ifGeneration: number | undefined
} & (
    | { readonly op: 'update'; readonly update: Cluster | UpstreamOptions }
    | { readonly op: 'delete' }
    | { readonly op: 'add'; readonly server: ServerOptions | string; readonly level: string | undefined }
    | { readonly op: 'remove'; readonly address: string }
    | { readonly op: 'set'; readonly address: string; readonly change: ServerChange }
    | { readonly op: 'reset'; readonly address: string | undefined }
  )

/** A peer that is out because of outcomes: for how long yet, and why. */
export interface SharedBan {
  readonly address: string
  /** Milliseconds from now: every process has a clock of its own. */
  readonly ms: number
  /** Whether it asked for that itself. */
  readonly asked: boolean
  readonly reason: string
}

/** All that processes agree about of one upstream. */
export interface SharedUpstream {
  readonly key: string
  readonly generation: number
  readonly options: UpstreamOptions
  /** Of the peers that were checked, by address. */
  readonly heartbeats: readonly (readonly [address: string, heartbeat: Heartbeat])[]
  readonly bans: readonly SharedBan[]
}

/** How many requests a process has in flight, of each server. */
export interface Load {
  /** The upstream's key. */
  readonly key: string
  /** Those that have any. */
  readonly servers: readonly ServerLoad[]
}

/** Requests in flight, of one server. */
export interface ServerLoad {
  /** Canonical address. */
  readonly address: string
  /** How many. */
  readonly inFlight: number
}

/** What an instance does for its {@link Sync}. */
export interface SyncHost {
  readonly clock: Clock
  readonly random: Random
  /** Begins heartbeats and sources: this process is in charge. Resolves as `start()` does. */
  lead(): Promise<void>
  /** Makes a change here. Throws as the instance's methods reject. */
  perform(operation: Operation): number
  keys(): readonly string[]
  /** Everything that is agreed about, as it is here. */
  state(): readonly SharedUpstream[]
  /** The options of an upstream here; undefined if there is none. */
  optionsOf(key: string): UpstreamOptions | undefined
  /** Short; the same in all processes that agree. */
  digest(): string
  load(): readonly Load[]
  /** Gives an upstream this configuration, with this generation. Throws ConfigError. */
  applyConfig(key: string, options: UpstreamOptions, generation: number, by: Cause): void
  applyDelete(key: string, generation: number, by: Cause): void
  applyHeartbeat(key: string, address: string, heartbeat: Heartbeat, by: Cause): void
  /** Unless it is the last one, as seen from here. */
  applyBan(key: string, ban: SharedBan): void
  applyReset(key: string, address: string | undefined, by: Cause): void
  /** Something has gone wrong that nobody waits for. */
  caught(error: unknown, during: string): void
}

/** How an instance stands with the others. */
export interface SyncStatus {
  /** `coordinator`: it alone checks and follows sources; `worker`: it has what the coordinator says. */
  readonly role: 'coordinator' | 'worker'
  /** `connected`; `silent`: connected, but the coordinator says nothing; `lost`: it is gone, and what was agreed last stays in use. */
  readonly state: 'connected' | 'silent' | 'lost'
  /** Since when, in milliseconds since the Unix epoch. */
  readonly since: number
  /** How many changes were agreed about. */
  readonly revision: number
  /** Of a coordinator: the workers it has. */
  readonly workers: number
}

/** Keeps an instance in agreement with those of other processes; made by the functions of `checkups/cluster`. */
export interface Sync {
  /** Undefined before `start()`. @internal */
  readonly status: SyncStatus | undefined
  /** Resolves when this process has everything that is agreed about. @internal */
  start(host: SyncHost): Promise<void>
  /** A change was made here, by whomever. @internal */
  changed(key: string, change: Change): void
  /** The change that somebody here asks for; resolves when every process has it. @internal */
  request(operation: Operation): Promise<number>
  /** @internal */
  close(): Promise<void>
}
