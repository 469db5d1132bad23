/** What users configure, with the defaults, and what it compiles to. */
import type { Endpoint } from './address.js'
import type { BalancerFactory } from './balancer/balancer.js'
import type { BalancerOption } from './balancer/registry.js'
import type { StatusMap } from './health/outcome.js'
import type { HeartbeatOptions, HeartbeatPlan, NamedProbe } from './health/schedule.js'

/** What may be set for one server or, as the default of all its servers, for an upstream. */
export interface ServerDefaults {
  /**
   * Failures within {@link ServerDefaults.failTimeout} after which the peer is taken out; 0 = never. Default 1, which is
   * nginx's: lua-resty-checkups has 0, but that leaves a dead peer in for whoever sets nothing. All entries of one address
   * must agree.
   */
  readonly maxFails?: number | undefined
  /**
   * Milliseconds: the window of {@link ServerDefaults.maxFails}, and how long the peer is then out. Default 10,000, as in
   * nginx and lua-resty-checkups. All entries of one address must agree.
   */
  readonly failTimeout?: number | undefined
  /**
   * Requests in flight at once, in this process, counted for `acquirePeer` and `readyOk`; at the limit the peer is passed
   * over. Default 0 = no limit, as in nginx. All entries of one address must agree.
   */
  readonly maxConns?: number | undefined
}

/**
 * One server of one level. Where it is: `host` and `port`, or `path` (a unix socket), or `address`
 * (`'10.0.0.1:80'`, `'[::1]:80'`, `'unix:/run/app.sock'`). A plain string is an address with all defaults.
 */
export interface ServerOptions extends ServerDefaults {
  /** IP address or host name; a name is left to whoever connects. */
  readonly host?: string | undefined
  /** TCP port, 1 to 65535. */
  readonly port?: number | undefined
  /** Absolute path of a unix socket. */
  readonly path?: string | undefined
  /** Host and port, or socket, in one string. */
  readonly address?: string | undefined
  /** Its share, relative to the others: an integer from 0 to 2³¹ − 1; 0 = never picked, but shown in status. Default 1. */
  readonly weight?: number | undefined
  /** Only when no primary server of the level is left. Default false. */
  readonly backup?: boolean | undefined
  /** Out, by hand. Default false. All entries of one address must agree. */
  readonly down?: boolean | undefined
  /** Gets nothing new and finishes what it has; `peer:drained` says when. Default false. All entries must agree. */
  readonly drain?: boolean | undefined
  /** For people and policies, as `{ zone: 'b' }`. Of several entries of one address the last one's count. */
  readonly labels?: Readonly<Record<string, string>> | undefined
  /** Anything of yours, found again at `peer.meta`. */
  readonly meta?: unknown
}

/** A level of priority, or one of several named clusters. */
export interface LevelOptions {
  /** Its servers. May be empty as long as another level is not. */
  readonly servers: readonly (ServerOptions | string)[]
}

/**
 * The servers of an upstream. An array is levels by priority: level 2 is used when level 1 has nobody left. An object is
 * named clusters: `clusterKey` says which, in which order; without it all, in the order they are written.
 */
export type Cluster = readonly LevelOptions[] | Readonly<Record<string, LevelOptions>>

/** Milliseconds, for adapters: how long a connection and its two directions may take. */
export interface Timeouts {
  /** Until a connection stands. Default 5,000, from lua-resty-checkups: a peer of one's own network answers or is gone. */
  readonly connect: number
  /** Between two writes. Default 60,000, from nginx: the ancestor's 5,000 would cut large bodies. */
  readonly send: number
  /** Between two reads. Default 60,000, from nginx: the ancestor's 5,000 would cut slow answers. */
  readonly read: number
}

/** An upstream: its servers and how they are used. */
export interface UpstreamOptions extends ServerDefaults {
  /** Levels or named clusters of servers. */
  readonly cluster?: Cluster | undefined
  /** Short for a cluster of one level: `{ servers: ['10.0.0.1:80', '10.0.0.2:80'] }`. */
  readonly servers?: LevelOptions['servers'] | undefined
  /** The policy that picks within a level. Default `'wrr'`. */
  readonly balancer?: BalancerOption | undefined
  /**
   * How a banned peer comes back when its time is over: `'trial'` lets one attempt try it, `'fresh'` (the ancestor's) gives
   * it its full count of failures again, at once. Default `'trial'`: a dead peer then costs one attempt per failTimeout.
   */
  readonly readmit?: 'trial' | 'fresh' | undefined
  /** Active checks, once `start()` was called; the name of a probe will do, as `'tcp'`. Default: none. */
  readonly heartbeat?: HeartbeatOptions | NamedProbe | false | undefined
  /**
   * Whether the last peer left is kept although it fails, and, when the heartbeats of all fail, those that `heartbeat.panic`
   * says. Default true, as in lua-resty-checkups.
   */
  readonly protected?: boolean | undefined
  /** Whether an update may leave the upstream without any server. Default false: an empty list is mostly a mistake. */
  readonly allowEmpty?: boolean | undefined
  /** Attempts of one `readyOk`; 1 = no retry. Default 0 = as many as there are servers, the ancestor's. */
  readonly tries?: number | undefined
  /** Milliseconds in all for one `readyOk` until the answer (the ancestor's try_timeout). Default 0 = no limit. */
  readonly timeout?: number | undefined
  /** Milliseconds for one attempt of a `readyOk` until the answer; the attempt is then aborted. Default 0 = no limit. */
  readonly tryTimeout?: number | undefined
  /** What HTTP statuses mean, as `{ 404: 'next', 500: true }`. Default: 5xx failed, all else ok. */
  readonly statuses?: StatusMap | undefined
  /** For adapters: idle connections kept per peer; 0 = none. Default 256, which is `http.Agent`'s. */
  readonly keepalive?: number | undefined
  /** For adapters; see `getUpstreamTimeouts`. */
  readonly timeouts?: Partial<Timeouts> | undefined
}

/** One server, compiled: every default filled in. */
export interface ServerConfig extends Required<
  Pick<ServerOptions, 'weight' | 'maxFails' | 'failTimeout' | 'maxConns'>
> {
  readonly weight: number
  readonly maxFails: number
  readonly failTimeout: number
  readonly maxConns: number
  readonly endpoint: Endpoint
  readonly backup: boolean
  readonly down: boolean
  readonly drain: boolean
  readonly labels: Readonly<Record<string, string>>
  readonly meta: unknown
}

/** A level, compiled. Levels of an array are named by their position, from '0'. */
export interface LevelConfig {
  readonly name: string
  readonly servers: readonly ServerConfig[]
}

/** An upstream, compiled. */
export interface UpstreamConfig {
  readonly levels: readonly LevelConfig[]
  /** Whether the levels are named clusters. */
  readonly keyed: boolean
  readonly settings: UpstreamSettings
}

/** All of an upstream but its servers; what an update of the cluster alone keeps. */
export interface UpstreamSettings extends Required<ServerDefaults> {
  readonly maxFails: number
  readonly failTimeout: number
  readonly maxConns: number
  readonly balancer: BalancerOption
  readonly factory: BalancerFactory
  readonly readmit: 'trial' | 'fresh'
  readonly heartbeat: HeartbeatPlan | undefined
  readonly protected: boolean
  readonly allowEmpty: boolean
  readonly tries: number
  readonly timeout: number
  readonly tryTimeout: number
  readonly statuses: StatusMap
  readonly keepalive: number
  readonly timeouts: Timeouts
}
