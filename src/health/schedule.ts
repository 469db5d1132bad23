/** How often and how heartbeats are made: the options of an upstream's `heartbeat`. */
import { tcpEndpoint } from '../address.js'
import { boolean, integer, milliseconds, oneOf, record } from '../check.js'
import { ConfigError } from '../errors.js'
import type { HeartbeatRules } from './heartbeat.js'
import type { ProbeFactory } from './probe/probe.js'
import { probeFactory, type ProbeOptions } from './probe/registry.js'

/** When an upstream's peers are checked, and when their state turns. */
export interface HeartbeatSchedule {
  /** Whether there are heartbeats. Default true; with false every peer is `unchecked`. */
  readonly enable?: boolean | undefined
  /**
   * Milliseconds from the start of one check of a peer to that of the next. Default 5,000, of lua-resty-checkups and NGINX
   * Plus: the check module's 30 s is longer than its users wait.
   */
  readonly interval?: number | undefined
  /**
   * Milliseconds that a check may take; then it has failed. Default 1,000, the check module's: checkups waits for 5 s,
   * which no user of a request would.
   */
  readonly timeout?: number | undefined
  /** Milliseconds, up to which every interval is longer at random, so that checks do not march in step. Default: a tenth of it. */
  readonly jitter?: number | undefined
  /**
   * Milliseconds to the next check while a state has begun to turn, but not often enough. Default: 1,000, or the interval if
   * that is less, so that to be sure takes seconds and not intervals.
   */
  readonly fastInterval?: number | undefined
  /** Milliseconds to the next check of a peer that is out. Default: the interval. */
  readonly downInterval?: number | undefined
  /**
   * Checks in a row that must pass before a peer that is out comes back. Default 1, of checkups and NGINX Plus: what answers
   * is of use, and passive health is still there.
   */
  readonly rise?: number | undefined
  /**
   * Checks in a row that must fail before a peer is taken out. Default 3, HAProxy's: a lost packet or a pause of either
   * process is no death (checkups: 1, the check module: 5); requests that fail are seen at once, by passive health.
   */
  readonly fall?: number | undefined
  /** The ancestor's name of {@link HeartbeatSchedule.fall}. */
  readonly sensibility?: number | undefined
  /**
   * Whether a peer is out until its first `rise` checks have passed. Default false, as in checkups: the check module's true
   * makes every start an outage until then. With true, the first checks are made at once, and `start()` waits for them.
   */
  readonly defaultDown?: boolean | undefined
  /** Checked in place of the peer's own host: a sidecar, a management address. */
  readonly host?: string | undefined
  /** Checked in place of the peer's own port. */
  readonly port?: number | undefined
  /**
   * Which peers stay in use when all are out and the upstream is `protected`: `all` of them, or the `first` alone, as in
   * checkups. Default `'all'`: that no check passes is more often the check's fault than every server's, and one server
   * cannot carry the load of all.
   */
  readonly panic?: 'all' | 'first' | undefined
  /** Whether a check that passes ends a passive ban. Default false: a server may pass and still fail its users. */
  readonly liftsBan?: boolean | undefined
  /** Whether a passive ban has the peer checked at once. Default true: then its state is known sooner. */
  readonly checkOnBan?: boolean | undefined
}

/** Heartbeats of an upstream: a probe with its options (without a `type`: `tcp`), and when. */
export type HeartbeatOptions = HeartbeatSchedule & (ProbeOptions | NoProbeOptions)

/** Without a `type`, the probe is `tcp`. */
export interface NoProbeOptions {
  /** The probe. */
  readonly type?: undefined
}

/** Probes that need no options. */
export type NamedProbe = Exclude<ProbeOptions['type'], 'custom'>

/** Every default written out. */
export interface Schedule extends HeartbeatRules {
  readonly interval: number
  readonly timeout: number
  readonly jitter: number
  readonly fastInterval: number
  readonly downInterval: number
  readonly host: string | undefined
  readonly port: number | undefined
  readonly panic: 'all' | 'first'
  readonly liftsBan: boolean
  readonly checkOnBan: boolean
}

/** Compiled. */
export interface HeartbeatPlan {
  /** Every default written out; equal options make equal plans. */
  readonly options: HeartbeatOptions
  readonly schedule: Schedule
  readonly probe: ProbeFactory
}

/** What is no option of the probe. */
export const SCHEDULE_KEYS: ReadonlySet<string> = new Set(
  (
    'enable interval timeout jitter fastInterval downInterval rise fall sensibility defaultDown host port panic liftsBan ' +
    'checkOnBan'
  ).split(' '),
)

/** As many as a 32-bit counter holds. */
const MAX_COUNT = 2 ** 31 - 1

/** Undefined if there are to be no heartbeats. */
export function compileHeartbeat(path: string, key: string, value: unknown): HeartbeatPlan | undefined {
  if (value === undefined || value === false) return undefined
  const options = typeof value === 'string' ? { type: value } : record(path, key, value)
  const at = `${path}.${key}`
  const probeOptions = Object.fromEntries(Object.entries(options).filter(([name]) => !SCHEDULE_KEYS.has(name)))
  const { probe, type } = probeFactory(at, probeOptions)
  const schedule = compileSchedule(at, options)
  if (!boolean(at, 'enable', options['enable'] ?? true)) return undefined
  return { options: { ...probeOptions, ...schedule, type } as HeartbeatOptions, schedule, probe }
}

function compileSchedule(path: string, options: Record<string, unknown>): Schedule {
  const { fall, sensibility, host, port } = options
  if (fall !== undefined && sensibility !== undefined) {
    throw new ConfigError(`${path}.sensibility`, 'the same as fall, which is there too')
  }
  const interval = milliseconds(path, 'interval', options['interval'] ?? 5_000, 1)
  return Object.freeze({
    interval,
    timeout: milliseconds(path, 'timeout', options['timeout'] ?? 1_000, 1),
    jitter: milliseconds(path, 'jitter', options['jitter'] ?? interval / 10),
    fastInterval: milliseconds(path, 'fastInterval', options['fastInterval'] ?? Math.min(interval, 1_000), 1),
    downInterval: milliseconds(path, 'downInterval', options['downInterval'] ?? interval, 1),
    rise: integer(path, 'rise', options['rise'] ?? 1, 1, MAX_COUNT),
    fall: integer(
      path,
      fall === undefined && sensibility !== undefined ? 'sensibility' : 'fall',
      fall ?? sensibility ?? 3,
      1,
      MAX_COUNT,
    ),
    defaultDown: boolean(path, 'defaultDown', options['defaultDown'] ?? false),
    host: host === undefined ? undefined : tcpEndpoint(path, host, 1).host,
    port: port === undefined ? undefined : integer(path, 'port', port, 1, 65535),
    panic: oneOf(path, 'panic', options['panic'] ?? 'all', ['all', 'first']),
    liftsBan: boolean(path, 'liftsBan', options['liftsBan'] ?? false),
    checkOnBan: boolean(path, 'checkOnBan', options['checkOnBan'] ?? true),
  })
}
