/** The layout of Slardar: `<prefix>/upstreams/<name>`, a key for an upstream, with levels. */
import { isDeepStrictEqual } from 'node:util'
import { tcpEndpoint } from '../../address.js'
import { array, boolean, expected, record, string } from '../../check.js'
import { compileUpstream } from '../../compile.js'
import type { Cluster, LevelOptions, ServerDefaults, ServerOptions, Timeouts, UpstreamOptions } from '../../config.js'
import { ConfigError } from '../../errors.js'
import type { StatusMap } from '../../health/outcome.js'
import type { HeartbeatOptions } from '../../health/schedule.js'
import type { Refused, SourceLists } from '../source.js'
import { folderOf, type KvEntry, type Layout } from './layout.js'
import { defined, isOptions, parseJson, parseWireServer, printWireServer, reasonOf, splitServer } from './wire.js'
import { wireInteger, wireSeconds } from './wire.js'

/** The upstreams below `prefix`. */
export function slardarLayout(prefix: string): Layout {
  const folder = `${folderOf(prefix)}upstreams/`
  let last: Upstreams = new Map()
  return {
    folder,
    parse: (entries) => {
      const lists = parseSlardar(folder, entries, last)
      last = lists.upstreams
      return lists
    },
  }
}

/** Values of a key of Slardar's layout, as they are. */
export type SlardarValue = Record<string, unknown>

/** Beside `servers` and `cluster`; an upstream with none of them keeps the options that it has. */
const SETTINGS = (
  'enable typ timeout read_timeout send_timeout http_opts mode protected sensibility try try_timeout ' +
  'name user pass charset'
).split(' ')

/**
 * Reads the value of a key of Slardar's layout. A value with nothing but `servers` or `cluster` is a cluster; any other is a
 * whole configuration. A server that cannot be used is left out and reported.
 *
 * @throws `ConfigError`
 */
export function parseSlardarValue(
  path: string,
  value: unknown,
  refuse: (refused: Refused) => void,
): Cluster | UpstreamOptions {
  const fields = record(path, '', value)
  const { servers, cluster } = fields
  if ((servers === undefined) === (cluster === undefined)) throw new ConfigError(path, 'expected servers or cluster')
  const parsed = servers === undefined ? parseCluster(path, cluster, refuse) : [parseLevel(path, path, fields, refuse)]
  const settings = parseSettings(path, fields)
  const options = { ...settings, cluster: parsed } as UpstreamOptions
  compileUpstream(path, { allowEmpty: true, ...options })
  return SETTINGS.some((name) => fields[name] !== undefined) ? options : parsed
}

type Upstreams = ReadonlyMap<string, Cluster | UpstreamOptions>

/** An upstream whose value is broken is what it was in `last`: to leave it out would be to say that it was deleted. */
function parseSlardar(
  folder: string,
  entries: readonly KvEntry[],
  last: Upstreams,
): SourceLists & { readonly upstreams: Upstreams } {
  const upstreams = new Map<string, Cluster | UpstreamOptions>()
  const refused: Refused[] = []
  for (const { key, value } of entries) {
    const name = key.slice(folder.length)
    // A key that ends in a slash is a folder, which Consul's own pages make.
    if (name === '' || (name.endsWith('/') && value === null)) continue
    try {
      if (name.includes('/')) throw new ConfigError(key, 'no key of an upstream')
      if (value === null || value.length === 0) throw new ConfigError(key, 'is empty')
      upstreams.set(
        name,
        parseSlardarValue(key, parseJson(key, value), (one) => refused.push(one)),
      )
    } catch (error) {
      refused.push({ at: key, reason: reasonOf(error, key) })
      const before = last.get(name)
      if (before !== undefined) upstreams.set(name, before)
    }
  }
  return { upstreams, refused }
}

function parseCluster(path: string, value: unknown, refuse: (refused: Refused) => void): Cluster {
  if (Array.isArray(value)) {
    return value.map((level: unknown, i) => parseLevel(path, `${path}.cluster[${i}]`, level, refuse))
  }
  return Object.fromEntries(
    Object.entries(record(path, 'cluster', value)).map(([name, level]) => [
      name,
      parseLevel(path, `${path}.cluster[${JSON.stringify(name)}]`, level, refuse),
    ]),
  )
}

function parseLevel(key: string, path: string, value: unknown, refuse: (refused: Refused) => void): LevelOptions {
  const known = new Set<string>()
  const servers = array(path, 'servers', record(path, '', value)['servers']).flatMap((server, i): ServerOptions[] => {
    const at = `${path}.servers[${i}]`
    try {
      const parsed = parseServer(at, server)
      const { address } = tcpEndpoint(at, parsed.host, parsed.port)
      if (known.has(address)) throw new ConfigError(at, 'the same address as a server before it')
      known.add(address)
      return [parsed]
    } catch (error) {
      refuse({ at: key, reason: reasonOf(error, key) })
      return []
    }
  })
  return { servers }
}

/** What is not there is the default of the upstream: 1 for max_fails, where the ancestor has 0 = never. */
function parseServer(path: string, value: unknown): ServerOptions {
  const { host, port } = record(path, '', value)
  const endpoint = tcpEndpoint(path, host, typeof port === 'string' && /^\d+$/.test(port) ? Number(port) : port)
  return { host: endpoint.host, port: endpoint.port, ...parseWireServer(path, value) }
}

function parseSettings(path: string, fields: Record<string, unknown>): UpstreamOptions {
  const read = <T>(key: string, parse: (path: string, key: string, value: unknown) => T) =>
    fields[key] === undefined || fields[key] === null ? undefined : parse(path, key, fields[key])
  const timeout = read('timeout', wireSeconds)
  const statuses = parseStatuses(path, fields)
  return defined<UpstreamOptions>({
    heartbeat: parseHeartbeat(path, fields, timeout),
    balancer: parseMode(path, fields['mode'] ?? ''),
    protected: read('protected', boolean),
    tries: read('try', wireInteger),
    timeout: fields['try_timeout'] === 0 ? 0 : read('try_timeout', wireSeconds),
    statuses,
    timeouts: parseTimeouts(timeout, read('send_timeout', wireSeconds), read('read_timeout', wireSeconds)),
  })
}

/** One time for all, as in the ancestor, where there is no other. */
function parseTimeouts(connect?: number, send = connect, read = connect): Partial<Timeouts> | undefined {
  const timeouts = defined({ connect, send, read }) as Partial<Timeouts>
  return Object.keys(timeouts).length === 0 ? undefined : timeouts
}

/** Of the hashes, adapters choose the key, as the ancestor's caller does. */
function parseMode(path: string, mode: unknown): UpstreamOptions['balancer'] {
  if (mode === '' || mode === 'rr' || mode === 'wrr') return undefined
  if (mode === 'hash' || mode === 'url_hash' || mode === 'ip_hash' || mode === 'header_hash') return 'consistent-hash'
  throw expected(path, 'mode', '"wrr", "hash", "url_hash", "ip_hash" or "header_hash"', mode)
}

/** Heartbeats are there if they are asked for: by `enable`, by a type. Without a type they are TCP connections. */
function parseHeartbeat(
  path: string,
  fields: Record<string, unknown>,
  timeout: number | undefined,
): HeartbeatOptions | false | undefined {
  const { enable, typ, sensibility } = fields
  if (enable !== undefined && !boolean(path, 'enable', enable)) return false
  if (enable === undefined && typ === undefined && sensibility === undefined) return undefined
  const schedule = defined({
    timeout,
    sensibility: sensibility === undefined ? undefined : wireInteger(path, 'sensibility', sensibility),
  })
  switch (typ) {
    case 'http': {
      const { query } = httpOptions(path, fields)
      // Without a request the ancestor only connects.
      if (query === undefined) return { type: 'tcp', ...schedule }
      const statuses = parseStatuses(path, fields)
      return {
        type: 'http',
        query: string(`${path}.http_opts`, 'query', query),
        ...(statuses !== undefined && { statuses }),
        ...schedule,
      }
    }
    case 'mysql': {
      const { user, pass, name } = fields
      return { type: 'mysql', ...(defined({ user, password: pass, database: name }) as { user?: string }), ...schedule }
    }
    case 'redis':
      return { type: 'redis', ...schedule }
    default:
      return { type: 'tcp', ...schedule }
  }
}

function httpOptions(path: string, { http_opts: options }: Record<string, unknown>): Record<string, unknown> {
  return options === undefined ? {} : record(path, 'http_opts', options)
}

/** The ancestor's map says which statuses are failures, of checks and of requests alike. */
function parseStatuses(path: string, fields: Record<string, unknown>): Readonly<Record<string, boolean>> | undefined {
  const { statuses } = httpOptions(path, fields)
  if (statuses === undefined) return undefined
  const at = `${path}.http_opts.statuses`
  return Object.fromEntries(
    Object.entries(record(`${path}.http_opts`, 'statuses', statuses)).map(([status, ok]) => [
      status,
      boolean(at, status, ok),
    ]),
  )
}

/**
 * Writes a cluster or a whole configuration as a value of Slardar's layout.
 *
 * @throws `ConfigError` about what the layout cannot say.
 */
export function printSlardarValue(path: string, upstream: Cluster | UpstreamOptions): SlardarValue {
  if (!isOptions(upstream)) return { cluster: printCluster(path, upstream, {}) }
  const { cluster, servers, heartbeat, balancer, tries, timeout, timeouts, statuses, ...others } = upstream
  const { protected: isProtected, maxFails, failTimeout, maxConns, ...rest } = others
  nothingElse(path, rest)
  const defaults = defined<ServerDefaults>({ maxFails, failTimeout, maxConns })
  return defined({
    ...printHeartbeat(path, heartbeat, timeouts?.connect, statuses),
    ...(servers !== undefined && printLevel(path, { servers }, defaults)),
    ...(cluster !== undefined && { cluster: printCluster(path, cluster, defaults) }),
    mode: printMode(path, balancer),
    protected: isProtected,
    try: tries,
    try_timeout: seconds(timeout),
    timeout: seconds(timeouts?.connect),
    send_timeout: seconds(timeouts?.send),
    read_timeout: seconds(timeouts?.read),
  })
}

const seconds = (ms: number | undefined) => (ms === undefined ? undefined : ms / 1000)

function nothingElse(path: string, options: object, known: readonly string[] = []): void {
  const other = Object.keys(defined(options)).find((name) => !known.includes(name))
  if (other !== undefined) throw new ConfigError(`${path}.${other}`, 'cannot be written in the layout of Slardar')
}

function printCluster(path: string, cluster: Cluster, defaults: ServerDefaults): unknown {
  if (Array.isArray(cluster)) {
    return (cluster as readonly LevelOptions[]).map((level, i) => printLevel(`${path}.cluster[${i}]`, level, defaults))
  }
  return Object.fromEntries(
    Object.entries(cluster as Readonly<Record<string, LevelOptions>>).map(([name, level]) => [
      name,
      printLevel(`${path}.cluster[${JSON.stringify(name)}]`, level, defaults),
    ]),
  )
}

function printLevel(path: string, { servers }: LevelOptions, defaults: ServerDefaults): SlardarValue {
  return { servers: servers.map((server, i) => printServer(`${path}.servers[${i}]`, server, defaults)) }
}

function printServer(path: string, server: ServerOptions | string, defaults: ServerDefaults): SlardarValue {
  const { endpoint, wire } = splitServer(path, server)
  if (endpoint.path !== undefined)
    throw new ConfigError(path, 'a unix socket cannot be written in the layout of Slardar')
  return { host: endpoint.host, port: endpoint.port, ...printWireServer({ ...defaults, ...wire }) }
}

const PROBES: ReadonlyMap<unknown, string> = new Map([
  ['tcp', 'general'],
  ['http', 'http'],
  ['redis', 'redis'],
  ['mysql', 'mysql'],
])

/** The value has one `timeout` and one map of statuses, for heartbeats and requests alike. */
function printHeartbeat(
  path: string,
  heartbeat: UpstreamOptions['heartbeat'],
  connect: number | undefined,
  statuses: StatusMap | undefined,
): SlardarValue {
  const options: Record<string, unknown> =
    typeof heartbeat === 'object' ? { ...heartbeat } : typeof heartbeat === 'string' ? { type: heartbeat } : {}
  const { type = 'tcp', enable = true, query, timeout, sensibility, fall, user, password, database, ...rest } = options
  const { statuses: checked, ...other } = rest
  const at = `${path}.heartbeat`
  nothingElse(at, other)
  if (!PROBES.has(type)) throw expected(at, 'type', '"tcp", "http", "redis" or "mysql"', type)
  if (type === 'http' && query === undefined) throw new ConfigError(at, 'only the query of a check can be written')
  if (Object.keys(options).length > 0 && timeout !== connect)
    throw new ConfigError(`${at}.timeout`, 'must be timeouts.connect')
  if (checked !== undefined && !isDeepStrictEqual(checked, statuses)) {
    throw new ConfigError(`${at}.statuses`, 'must be the statuses of the upstream')
  }
  for (const [status, ok] of Object.entries(statuses ?? {})) boolean(`${path}.statuses`, status, ok)
  const httpOptions = defined({ query, statuses })
  return defined({
    http_opts: Object.keys(httpOptions).length === 0 ? undefined : httpOptions,
    ...(heartbeat === false && { enable: false }),
    ...(typeof heartbeat !== 'boolean' &&
      heartbeat !== undefined && {
        enable,
        typ: type === 'tcp' ? undefined : PROBES.get(type),
        sensibility: sensibility ?? fall,
        user,
        pass: password,
        name: database,
      }),
  })
}

function printMode(path: string, balancer: UpstreamOptions['balancer']): string | undefined {
  if (balancer === undefined || balancer === 'wrr') return undefined
  if (balancer === 'consistent-hash') return 'hash'
  throw new ConfigError(`${path}.balancer`, 'only "wrr" and "consistent-hash" can be written in the layout of Slardar')
}
