/** What users configure: the option types with their defaults, and the checkers that compile them. */
import { isDeepStrictEqual } from 'node:util'
import { balancerFactory, type BalancerOption } from './balancer/registry.js'
import type { BalancerFactory } from './balancer/balancer.js'
import { array, boolean, expected, integer, milliseconds, oneOf, onlyKeys, record, string } from './check.js'
import { ConfigError } from './errors.js'
import type { StatusMap } from './health/outcome.js'
import { parseEndpoint, tcpEndpoint, unixEndpoint, type Endpoint } from './address.js'

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
  /** Whether the last peer left is kept although it fails. Default true, as in lua-resty-checkups. */
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
  readonly protected: boolean
  readonly allowEmpty: boolean
  readonly tries: number
  readonly timeout: number
  readonly tryTimeout: number
  readonly statuses: StatusMap
  readonly keepalive: number
  readonly timeouts: Timeouts
}

/** 2³¹ − 1: what nginx takes, and what keeps smooth round robin exact (balancer/lib/smooth.ts). */
const MAX_INT = 2 ** 31 - 1
const NO_LABELS: Readonly<Record<string, string>> = Object.freeze({})

const LEVEL_KEYS = new Set(['servers'])
const SERVER_KEYS = new Set(
  'host port path address weight maxFails failTimeout maxConns backup down drain labels meta'.split(' '),
)
const SETTING_KEYS =
  'balancer maxFails failTimeout maxConns readmit protected allowEmpty tries timeout tryTimeout statuses keepalive timeouts'
const UPSTREAM_KEYS = new Set(['cluster', 'servers', ...SETTING_KEYS.split(' ')])

/** How an upstream's configuration is called in errors. */
export function upstreamPath(key: string): string {
  return /^[\w-]+$/.test(key) ? `upstreams.${key}` : `upstreams[${JSON.stringify(key)}]`
}

/** Whether two configurations ask for the same policy, so that one in use can go on. */
export function sameBalancer({ balancer: a }: UpstreamSettings, { balancer: b }: UpstreamSettings): boolean {
  return typeof a === 'function' || typeof b === 'function' ? a === b : JSON.stringify(a) === JSON.stringify(b)
}

/** Whether a configuration compiled with the help of the other one differs from it in nothing. */
export function sameConfig(a: UpstreamConfig, b: UpstreamConfig): boolean {
  const { factory: _a, balancer: __a, ...settings } = a.settings
  const { factory: _b, balancer: __b, ...others } = b.settings
  return (
    a.keyed === b.keyed &&
    a.levels.length === b.levels.length &&
    a.levels.every(({ name, servers }, i) => {
      const other = b.levels[i]!
      return (
        name === other.name &&
        servers.length === other.servers.length &&
        servers.every((s, j) => s === other.servers[j])
      )
    }) &&
    sameBalancer(a.settings, b.settings) &&
    isDeepStrictEqual(settings, others)
  )
}

/** Whether this is a whole configuration and not a cluster alone. */
export function isWhole(value: unknown): value is UpstreamOptions {
  return (
    typeof value === 'object' && value !== null && !Array.isArray(value) && ('cluster' in value || 'servers' in value)
  )
}

/** Checks and compiles a whole configuration; of what `previous` has already, the same objects are used. */
export function compileUpstream(path: string, value: unknown, previous?: UpstreamConfig): UpstreamConfig {
  const options = record(path, '', value)
  onlyKeys(path, options, UPSTREAM_KEYS)
  const { cluster, servers } = options
  if ((cluster === undefined) === (servers === undefined))
    throw new ConfigError(path, 'expected either cluster or servers')
  const settings = compileSettings(path, options)
  if (servers === undefined) return compileCluster(`${path}.cluster`, cluster, settings, previous)
  return {
    levels: [compileLevel(path, '0', { servers }, settings, previous?.levels[0]?.servers)],
    keyed: false,
    settings,
  }
}

/** Checks and compiles a cluster under settings that stay; of what `previous` has already, the same objects are used. */
export function compileCluster(
  path: string,
  value: unknown,
  settings: UpstreamSettings,
  previous?: UpstreamConfig,
): UpstreamConfig {
  const keyed = !Array.isArray(value)
  const named = keyed
    ? Object.entries(record(path, '', value)).map(([name, level]) => ({
        name,
        level,
        at: `${path}[${JSON.stringify(name)}]`,
      }))
    : array(path, '', value).map((level, i) => ({ name: String(i), level, at: `${path}[${i}]` }))
  const before = new Map(previous?.levels.map(({ name, servers }) => [name, servers]))
  const levels = named.map(({ name, level, at }) => compileLevel(at, name, level, settings, before.get(name)))
  checkSharedAddresses(path, levels, keyed)
  return { levels, keyed, settings }
}

/** The options that compile to this configuration, every default written out. */
export function toOptions(config: UpstreamConfig): UpstreamOptions {
  const { factory: _factory, ...settings } = config.settings
  return { ...settings, cluster: toCluster(config, ({ servers }) => servers.map(serverOptions)) }
}

/** A cluster with the levels of this configuration, and in them the servers that `serversOf` says. */
export function toCluster(
  { levels, keyed }: UpstreamConfig,
  serversOf: (level: LevelConfig) => LevelOptions['servers'],
): Cluster {
  // fromEntries defines own properties: a level named __proto__ is one like any other.
  if (keyed) return Object.fromEntries(levels.map((level) => [level.name, { servers: serversOf(level) }]))
  return levels.map((level) => ({ servers: serversOf(level) }))
}

/** The options that compile to this server. */
export function serverOptions({ endpoint, ...rest }: ServerConfig): ServerOptions {
  const { host, port, path } = endpoint
  return path === undefined ? { host, port, ...rest } : { path, ...rest }
}

function compileSettings(path: string, options: Record<string, unknown>): UpstreamSettings {
  const timeouts = record(path, 'timeouts', options['timeouts'] ?? {})
  const timeoutsPath = `${path}.timeouts`
  onlyKeys(timeoutsPath, timeouts, new Set(['connect', 'send', 'read']))
  const balancer = (options['balancer'] ?? 'wrr') as BalancerOption
  return Object.freeze({
    ...compileDefaults(path, options, { maxFails: 1, failTimeout: 10_000, maxConns: 0 }),
    balancer,
    factory: balancerFactory(path, 'balancer', balancer),
    readmit: oneOf(path, 'readmit', options['readmit'] ?? 'trial', ['trial', 'fresh']),
    protected: boolean(path, 'protected', options['protected'] ?? true),
    allowEmpty: boolean(path, 'allowEmpty', options['allowEmpty'] ?? false),
    tries: integer(path, 'tries', options['tries'] ?? 0, 0, MAX_INT),
    timeout: milliseconds(path, 'timeout', options['timeout'] ?? 0),
    tryTimeout: milliseconds(path, 'tryTimeout', options['tryTimeout'] ?? 0),
    statuses: compileStatuses(path, 'statuses', options['statuses'] ?? {}),
    keepalive: integer(path, 'keepalive', options['keepalive'] ?? 256, 0, MAX_INT),
    timeouts: Object.freeze({
      connect: milliseconds(timeoutsPath, 'connect', timeouts['connect'] ?? 5_000),
      send: milliseconds(timeoutsPath, 'send', timeouts['send'] ?? 60_000),
      read: milliseconds(timeoutsPath, 'read', timeouts['read'] ?? 60_000),
    }),
  })
}

type Defaults = Pick<ServerConfig, 'maxFails' | 'failTimeout' | 'maxConns'>

function compileDefaults(path: string, options: Record<string, unknown>, otherwise: Defaults): Defaults {
  return {
    maxFails: integer(path, 'maxFails', options['maxFails'] ?? otherwise.maxFails, 0, MAX_INT),
    // A ban of no time would end before it began.
    failTimeout: milliseconds(path, 'failTimeout', options['failTimeout'] ?? otherwise.failTimeout, 1),
    maxConns: integer(path, 'maxConns', options['maxConns'] ?? otherwise.maxConns, 0, MAX_INT),
  }
}

function compileStatuses(path: string, key: string, value: unknown): StatusMap {
  const verdicts = ['ok', 'failed', 'neutral', 'next', 'stop'] as const
  for (const [code, meaning] of Object.entries(record(path, key, value))) {
    const at = `${path}.${key}[${JSON.stringify(code)}]`
    if (!/^[1-9](\d\d|xx)$/.test(code))
      throw new ConfigError(at, 'expected a status from 100 to 999 or a class as "5xx"')
    if (typeof meaning !== 'boolean') oneOf(at, '', meaning, verdicts)
  }
  return Object.freeze({ ...(value as StatusMap) })
}

function compileLevel(
  path: string,
  name: string,
  value: unknown,
  settings: UpstreamSettings,
  previous: readonly ServerConfig[] = [],
): LevelConfig {
  const level = record(path, '', value)
  onlyKeys(path, level, LEVEL_KEYS)
  const at = `${path}.servers`
  // A list mostly comes back as it was, or with a few servers more or fewer: `next` walks along in the one before, whose
  // addresses are known to differ. What does not match there is compiled and looked up.
  let next = 0
  let before: Map<string, number> | undefined
  const takenBy = new Int32Array(previous.length).fill(-1)
  const compiled = new Map<string, number>()
  const isAt = (index: number, server: unknown) =>
    index < previous.length && isUnchanged(server, previous[index]!, settings)
  const servers = array(path, 'servers', level['servers']).map((server, i) => {
    const index = isAt(next, server) ? next : isAt(next + 1, server) ? next + 1 : -1
    if (index >= 0) {
      const known = previous[index]!
      next = index + 1
      const twin = takenBy[index]! >= 0 ? takenBy[index] : compiled.get(known.endpoint.address)
      if (twin !== undefined) throw new ConfigError(`${at}[${i}]`, `the same address as ${at}[${twin}]`)
      takenBy[index] = i
      return known
    }
    const fresh = compileServer(`${at}[${i}]`, server, settings)
    const { address } = fresh.endpoint
    before ??= new Map(previous.map(({ endpoint }, at) => [endpoint.address, at]))
    const old = before.get(address)
    const twin = old !== undefined && takenBy[old]! >= 0 ? takenBy[old] : compiled.get(address)
    if (twin !== undefined) throw new ConfigError(`${at}[${i}]`, `the same address as ${at}[${twin}]`)
    compiled.set(address, i)
    if (old === undefined) return fresh
    takenBy[old] = i
    next = old + 1
    return isSameServer(previous[old]!, fresh) ? previous[old]! : fresh
  })
  return { name, servers }
}

/** Whether these options compile to this server: they then need no checking. Cheap; true for no bad value. */
function isUnchanged(server: unknown, known: ServerConfig, settings: UpstreamSettings): boolean {
  const { endpoint } = known
  if (typeof server === 'string') {
    return server === endpoint.address && isUnchanged({ address: server }, known, settings)
  }
  if (typeof server !== 'object' || server === null) return false
  for (const key in server) if (!SERVER_KEYS.has(key)) return false
  const { host, port, path, address, weight, maxFails, failTimeout, maxConns, backup, down, drain, labels, meta } =
    server as ServerOptions
  const isThere =
    host === undefined && port === undefined
      ? address === undefined
        ? path !== undefined && path === endpoint.path
        : path === undefined && address === endpoint.address
      : path === undefined &&
        address === undefined &&
        endpoint.path === undefined &&
        host === endpoint.host &&
        port === endpoint.port
  return (
    isThere &&
    (weight ?? 1) === known.weight &&
    (maxFails ?? settings.maxFails) === known.maxFails &&
    (failTimeout ?? settings.failTimeout) === known.failTimeout &&
    (maxConns ?? settings.maxConns) === known.maxConns &&
    (backup ?? false) === known.backup &&
    (down ?? false) === known.down &&
    (drain ?? false) === known.drain &&
    (labels === undefined ? known.labels === NO_LABELS : sameLabels(labels, known.labels)) &&
    meta === known.meta
  )
}

/** Nobody but its owner can tell whether a `meta` is still the same: another object is another meta. */
function isSameServer(a: ServerConfig, b: ServerConfig): boolean {
  return a.meta === b.meta && isDeepStrictEqual({ ...a, meta: undefined }, { ...b, meta: undefined })
}

function sameLabels(labels: unknown, known: ServerConfig['labels']): boolean {
  if (typeof labels !== 'object' || labels === null) return false
  let count = 0
  for (const name in labels) {
    if (!Object.hasOwn(known, name) || known[name] !== (labels as Record<string, unknown>)[name]) return false
    count++
  }
  return count === Object.keys(known).length
}

function compileServer(path: string, value: unknown, settings: UpstreamSettings): ServerConfig {
  if (typeof value === 'string') return compileServer(path, { address: value }, settings)
  const options = record(path, '', value)
  onlyKeys(path, options, SERVER_KEYS)
  const { labels, meta } = options
  return Object.freeze({
    endpoint: compileEndpoint(path, options),
    weight: integer(path, 'weight', options['weight'] ?? 1, 0, MAX_INT),
    ...compileDefaults(path, options, settings),
    backup: boolean(path, 'backup', options['backup'] ?? false),
    down: boolean(path, 'down', options['down'] ?? false),
    drain: boolean(path, 'drain', options['drain'] ?? false),
    labels: labels === undefined ? NO_LABELS : compileLabels(path, 'labels', labels),
    meta,
  })
}

function compileEndpoint(path: string, { host, port, path: socket, address }: Record<string, unknown>): Endpoint {
  const ways = [host !== undefined || port !== undefined, socket !== undefined, address !== undefined]
  if (ways.filter(Boolean).length !== 1) throw new ConfigError(path, 'expected host and port, or path, or address')
  if (address !== undefined) return parseEndpoint(path, 'address', string(path, 'address', address))
  return socket === undefined ? tcpEndpoint(path, host, port) : unixEndpoint(path, 'path', socket)
}

function compileLabels(path: string, key: string, value: unknown): Readonly<Record<string, string>> {
  const labels = Object.entries(record(path, key, value))
  for (const [name, label] of labels) {
    if (typeof label !== 'string') throw expected(`${path}.${key}[${JSON.stringify(name)}]`, '', 'a string', label)
  }
  return Object.freeze(Object.fromEntries(labels) as Record<string, string>)
}

const SHARED = ['maxFails', 'failTimeout', 'maxConns', 'down', 'drain'] as const

/** Health, the cap on requests and admin state belong to an address, so its entries in several levels must agree. */
function checkSharedAddresses(path: string, levels: readonly LevelConfig[], keyed: boolean): void {
  if (levels.length < 2) return
  const first = new Map<string, { server: ServerConfig; name: string; i: number }>()
  levels.forEach(({ name, servers }) =>
    servers.forEach((server, i) => {
      const { address } = server.endpoint
      const other = first.get(address)
      if (other === undefined) return void first.set(address, { server, name, i })
      const key = SHARED.find((shared) => server[shared] !== other.server[shared])
      if (key === undefined) return
      const at = (level: string, index: number) =>
        `${path}[${keyed ? JSON.stringify(level) : level}].servers[${index}].${key}`
      const theirs = `${at(other.name, other.i)}, the same address, has ${other.server[key]}`
      throw new ConfigError(at(name, i), `${server[key]}, but ${theirs}`)
    }),
  )
}
