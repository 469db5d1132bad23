/** From options to configurations and back: the checkers, and what makes an update reuse what has not changed. */
import { isDeepStrictEqual } from 'node:util'
import { parseEndpoint, tcpEndpoint, unixEndpoint, type Endpoint } from './address.js'
import { balancerFactory, type BalancerOption } from './balancer/registry.js'
import { array, boolean, expected, integer, milliseconds, oneOf, onlyKeys, record, string } from './check.js'
import type { Cluster, LevelConfig, LevelOptions, ServerConfig, ServerOptions } from './config.js'
import type { UpstreamConfig, UpstreamOptions, UpstreamSettings } from './config.js'
import { ConfigError } from './errors.js'
import type { StatusMap } from './health/outcome.js'
import { compileHeartbeat, type HeartbeatPlan } from './health/schedule.js'

/** 2³¹ − 1: what nginx takes, and what keeps smooth round robin exact (balancer/lib/smooth.ts). */
const MAX_INT = 2 ** 31 - 1
const NO_LABELS: Readonly<Record<string, string>> = Object.freeze({})

const LEVEL_KEYS = new Set(['servers'])
const SERVER_KEYS = new Set(
  'host port path address weight maxFails failTimeout maxConns backup down drain labels meta'.split(' '),
)
const SETTING_KEYS =
  'balancer maxFails failTimeout maxConns readmit heartbeat protected allowEmpty tries timeout tryTimeout statuses keepalive timeouts'
const UPSTREAM_KEYS = new Set(['cluster', 'servers', ...SETTING_KEYS.split(' ')])

/** How an upstream's configuration is called in errors. */
export function upstreamPath(key: string): string {
  return /^[\w-]+$/.test(key) ? `upstreams.${key}` : `upstreams[${JSON.stringify(key)}]`
}

/** Whether two configurations ask for the same policy, so that one in use can go on. */
export function sameBalancer({ balancer: a }: UpstreamSettings, { balancer: b }: UpstreamSettings): boolean {
  return typeof a === 'function' || typeof b === 'function' ? a === b : JSON.stringify(a) === JSON.stringify(b)
}

/** Whether two plans are made of the same options, so that one in use can go on. */
export function sameHeartbeat(a: HeartbeatPlan | undefined, b: HeartbeatPlan | undefined): boolean {
  return isDeepStrictEqual(a?.options, b?.options)
}

/** Whether a configuration compiled with the help of the other one differs from it in nothing. */
export function sameConfig(a: UpstreamConfig, b: UpstreamConfig): boolean {
  const { factory: _a, balancer: __a, heartbeat, ...settings } = a.settings
  const { factory: _b, balancer: __b, heartbeat: other, ...others } = b.settings
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
    sameHeartbeat(heartbeat, other) &&
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

/**
 * A cluster or a whole configuration without those of its servers that cannot be used, and why not: what does not compile,
 * and an address that its level has already.
 */
export function withoutBadServers(
  path: string,
  value: unknown,
  settings: UpstreamSettings | undefined,
): { value: unknown; errors: readonly ConfigError[] } {
  const errors: ConfigError[] = []
  const rules =
    isWhole(value) || settings === undefined ? compileSettings(path, isWhole(value) ? { ...value } : {}) : settings
  const level = (at: string, options: unknown) => {
    const { servers } = record(at, '', options)
    const seen = new Set<string>()
    const usable = array(at, 'servers', servers).filter((server, i) => {
      try {
        const { address } = compileServer(`${at}.servers[${i}]`, server, rules).endpoint
        if (seen.has(address)) throw new ConfigError(`${at}.servers[${i}]`, `${address} is there already`)
        seen.add(address)
        return true
      } catch (error) {
        errors.push(error as ConfigError)
        return false
      }
    })
    return { ...(options as object), servers: usable }
  }
  const cluster = (at: string, levels: unknown) =>
    Array.isArray(levels)
      ? levels.map((options, i) => level(`${at}[${i}]`, options))
      : Object.fromEntries(
          Object.entries(record(at, '', levels)).map(([name, options]) => [
            name,
            level(`${at}[${JSON.stringify(name)}]`, options),
          ]),
        )
  if (!isWhole(value)) return { value: cluster(`${path}.cluster`, value), errors }
  if (value.servers !== undefined) return { value: level(path, value), errors }
  return { value: { ...value, cluster: cluster(`${path}.cluster`, value.cluster) }, errors }
}

/** The options that compile to this configuration, every default written out. */
export function toOptions(config: UpstreamConfig): UpstreamOptions {
  const { factory: _factory, heartbeat, ...settings } = config.settings
  return {
    ...settings,
    heartbeat: heartbeat?.options,
    cluster: toCluster(config, ({ servers }) => servers.map(serverOptions)),
  }
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

/** The canonical address of a server that is an address, or options. */
export function serverAddress(path: string, server: unknown): string {
  const { address } =
    typeof server === 'string' ? parseEndpoint(path, '', server) : compileEndpoint(path, record(path, '', server))
  return address
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
    heartbeat: compileHeartbeat(path, 'heartbeat', options['heartbeat']),
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
