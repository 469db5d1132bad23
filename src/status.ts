/** What an instance says of itself: for programs and people, and in the shape that lua-resty-checkups has. */
import type { BalancerOption } from './balancer/registry.js'
import { serverOptions } from './compile.js'
import type { ServerOptions } from './config.js'
import type { Found } from './health/heartbeat.js'
import type { Passive } from './health/passive.js'
import type { ProbeReport } from './health/probe/probe.js'
import type { HealthWord } from './health/record.js'
import type { CheckTimes, SchedulerStatus } from './health/scheduler.js'
import type { SourceStatus } from './source/follow.js'
import type { SyncStatus } from './sync/sync.js'
import type { Level } from './upstream/level.js'
import type { PeerState } from './upstream/state.js'
import type { Upstream } from './upstream/upstream.js'

/** Passive health of a peer: what outcomes have made of it. */
export interface PassiveStatus {
  /** `up`, `banned` until its time is over, or on `trial` after that. */
  readonly state: Passive['state']
  /** Failures that count now. */
  readonly failures: number
  /** Bans so far. */
  readonly bans: number
  /** Milliseconds until the ban ends; 0 if there is none. */
  readonly remaining: number
}

/** Active health of a peer: what its heartbeats have found. */
export interface HeartbeatStatus extends CheckTimes {
  /**
   * What it means for selection: `unchecked` before the first check; `unstable` also for a peer that is out and kept
   * because all are; `err` also for an unstable one while others are ok.
   */
  readonly state: Found
  /** What the checks say, `rise` and `fall` counted in. */
  readonly found: Found
  /** Of the last check, in words. */
  readonly message: string
  /** What the probe has learnt of it: a version, a role. */
  readonly facts: NonNullable<ProbeReport['facts']>
  /** Checks in a row that passed; 0 after one that did not. */
  readonly rise: number
  /** Checks in a row that did not pass; 0 after one that did. */
  readonly fall: number
  /** When `found` last turned, in milliseconds since the Unix epoch; NaN before. */
  readonly since: number
}

/** One server of one level. */
export interface ServerStatus {
  /** Canonical address. */
  readonly address: string
  /** As configured, every default written out. */
  readonly server: ServerOptions
  /** Whether it could be picked now. */
  readonly available: boolean
  /** All parts of health in one word. */
  readonly health: HealthWord
  /** Why it last changed, in words; empty if it never has. */
  readonly reason: string
  /** Milliseconds since it last went down or came up (or was made). */
  readonly age: number
  /** When that was, in milliseconds since the Unix epoch. */
  readonly since: number
  /** What outcomes have made of it. */
  readonly passive: PassiveStatus
  /** What its heartbeats have found; undefined if it has none. */
  readonly heartbeat: HeartbeatStatus | undefined
  /** Requests in flight from this entry; the cap counts those of the address. */
  readonly inFlight: number
}

/** A level or named cluster. */
export interface LevelStatus {
  /** Its name; the levels of an array are named by position, from '0'. */
  readonly name: string
  /** Its servers in order, primaries and backups. */
  readonly servers: readonly ServerStatus[]
  /** What its policy says of itself, if anything: of the primaries' and, where there are any, the backups'. */
  readonly balancers: readonly (object | undefined)[]
}

/** An upstream. */
export interface UpstreamStatus {
  /** Its key. */
  readonly key: string
  /** Of its last change. */
  readonly generation: number
  /** The name of its policy; of one of your own that of its factory. */
  readonly balancer: string
  /** What its heartbeats are made with, if it has any. */
  readonly probe: string | undefined
  /** Whether the levels are named clusters. */
  readonly keyed: boolean
  /** In order. */
  readonly levels: readonly LevelStatus[]
}

/** The whole instance. */
export interface CheckupsStatus {
  /** When it was made, in milliseconds since the Unix epoch. */
  readonly startedAt: number
  /** When this status was, likewise. */
  readonly at: number
  /** Of the last change of anything. */
  readonly generation: number
  /** How often the servers or options of an upstream were changed since it was made. */
  readonly updates: number
  /** How it stands with other processes; undefined if it agrees with none. */
  readonly sync: SyncStatus | undefined
  /** The scheduler of all heartbeats. */
  readonly heartbeats: SchedulerStatus
  /** The sources, in order. */
  readonly sources: readonly SourceStatus[]
  /** All upstreams, in the order they were made. */
  readonly upstreams: readonly UpstreamStatus[]
}

export function upstreamStatus(upstream: Upstream, now: number): UpstreamStatus {
  const { levels } = upstream.membership
  const named = upstream.config.levels.map(({ name, servers }) => {
    const lists = levels.filter((level) => level.name === name)
    const balancers = lists.map((level) => level.status())
    const own = servers.map(({ endpoint }) => serverStatus(upstream, lists, endpoint.address, now))
    return { name, servers: own, balancers }
  })
  const { balancer, heartbeat } = upstream.settings
  return {
    key: upstream.key,
    generation: upstream.generation,
    balancer: balancerName(balancer),
    probe: heartbeat?.options.type,
    keyed: upstream.config.keyed,
    levels: named,
  }
}

function balancerName(balancer: BalancerOption): string {
  if (typeof balancer === 'string') return balancer
  return typeof balancer === 'function' ? balancer.name || 'custom' : balancer.type
}

function serverStatus(upstream: Upstream, lists: readonly Level[], address: string, now: number): ServerStatus {
  const entry = lists.map((level) => level.byAddress.get(address)).find((found) => found !== undefined)!
  const { state, server } = entry
  return {
    address,
    server: serverOptions(server),
    available: entry.available,
    health: state.word,
    reason: state.reason,
    age: now - state.since,
    since: state.sinceWall,
    passive: passiveStatus(state, now),
    heartbeat: heartbeatStatus(state, upstream.heartbeats.timesOf(state)),
    inFlight: entry.inFlight,
  }
}

function heartbeatStatus(
  { heartbeat, standing, foundSince }: PeerState,
  times: CheckTimes | undefined,
): HeartbeatStatus | undefined {
  if (times === undefined) return undefined
  const { found, message, facts, successes, failures } = heartbeat
  return { state: standing, found, message, facts, rise: successes, fall: failures, since: foundSince, ...times }
}

function passiveStatus({ passive }: PeerState, now: number): PassiveStatus {
  return {
    state: passive.state,
    failures: passive.state === 'up' ? passive.failures.length : 0,
    bans: passive.bans,
    remaining: passive.state === 'banned' ? Math.max(0, passive.until - now) : 0,
  }
}

/**
 * A server as lua-resty-checkups shows it (times in seconds), with what that hides: passive health. What the probe has
 * learnt stands beside: `redis_version`, `role`.
 */
export interface CheckupsServerStatus {
  /** `key:host:port`. */
  readonly server: string
  /** What its heartbeats say; `unchecked` if it has none, or has not been checked. */
  readonly status: Found
  /** Of the last check; null if it has nothing to say. Absent without heartbeats, like the two below. */
  readonly msg?: string | null
  /** Checks in a row that failed. */
  readonly fail_num?: number
  /** When the status last turned, in local time; null before. */
  readonly lastmodified?: string | null
  /** As configured. */
  readonly weight: number
  /** As configured. */
  readonly max_fails: number
  /** Seconds. */
  readonly fail_timeout: number
  /** Not in the ancestor. `remaining` is in seconds. */
  readonly passive: PassiveStatus
}

/**
 * The status in the shape of lua-resty-checkups' `get_status()`: `cls:<key>` is an array of levels, or an object of named
 * clusters, of arrays of servers; times in seconds. What workers share there has no counterpart here and is left out.
 */
export function toCheckupsStatus(status: CheckupsStatus): Record<string, unknown> {
  const levelsOf = ({ key, keyed, levels }: UpstreamStatus) => {
    const written = levels.map(
      ({ name, servers }) => [name, servers.map((server) => legacyServer(key, server))] as const,
    )
    return keyed ? Object.fromEntries(written) : written.map(([, servers]) => servers)
  }
  return Object.fromEntries<unknown>([
    ...status.upstreams.map((upstream) => [`cls:${upstream.key}`, levelsOf(upstream)] as const),
    ['start_time', localTime(status.startedAt)],
    ['conf_hash', null],
    ['shd_config_version', status.generation],
  ])
}

function legacyServer(key: string, { address, server, passive, heartbeat }: ServerStatus): CheckupsServerStatus {
  const found = heartbeat && {
    msg: heartbeat.message === '' ? null : heartbeat.message,
    fail_num: heartbeat.fall,
    lastmodified: Number.isNaN(heartbeat.since) ? null : localTime(heartbeat.since),
  }
  return {
    ...heartbeat?.facts,
    server: `${key}:${address}`,
    status: heartbeat?.state ?? 'unchecked',
    ...found,
    weight: server.weight ?? 1,
    max_fails: server.maxFails ?? 0,
    fail_timeout: (server.failTimeout ?? 0) / 1000,
    passive: { ...passive, remaining: passive.remaining / 1000 },
  }
}

/** `YYYY-MM-DD hh:mm:ss` in local time, as ngx.localtime() writes it. */
function localTime(wall: number): string {
  const date = new Date(wall)
  return new Date(wall - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19).replace('T', ' ')
}
