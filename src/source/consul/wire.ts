/** Values as the ancestors write them: numbers that may be strings, seconds, flags of 0 and 1; snake_case. */
import { isUtf8 } from 'node:buffer'
import { parseEndpoint, tcpEndpoint, unixEndpoint, type Endpoint } from '../../address.js'
import { expected, integer, record } from '../../check.js'
import type { Cluster, ServerOptions, UpstreamOptions } from '../../config.js'
import { ConfigError } from '../../errors.js'

/** 2³¹ − 1, as in nginx. */
const MAX_INT = 2 ** 31 - 1

/** What all formats say of a server, beside its address. */
export type WireServer = Pick<
  ServerOptions,
  'weight' | 'maxFails' | 'failTimeout' | 'maxConns' | 'backup' | 'down' | 'drain' | 'labels'
>

/** JSON of a value of the store. */
export function parseJson(path: string, value: Buffer): unknown {
  if (!isUtf8(value)) throw new ConfigError(path, 'expected JSON, got bytes that are no text')
  try {
    return JSON.parse(value.toString())
  } catch (error) {
    throw new ConfigError(path, `expected JSON: ${(error as Error).message}`)
  }
}

/** The fields that are there; others are somebody else's. */
export function parseWireServer(path: string, value: unknown): WireServer {
  const fields = record(path, '', value)
  const read = <T>(key: string, parse: (path: string, key: string, value: unknown) => T) =>
    fields[key] === undefined || fields[key] === null ? undefined : parse(path, key, fields[key])
  return defined({
    weight: read('weight', wireInteger),
    maxFails: read('max_fails', wireInteger),
    failTimeout: read('fail_timeout', wireSeconds),
    maxConns: read('max_conns', wireInteger),
    backup: read('backup', wireFlag),
    down: read('down', wireFlag),
    drain: read('drain', wireFlag),
    labels: read('labels', wireLabels),
  })
}

/** The fields that are given, so that they are read back as they were. */
export function printWireServer({
  weight,
  maxFails,
  failTimeout,
  maxConns,
  backup,
  down,
  drain,
  labels,
}: WireServer): Record<string, unknown> {
  const flag = (value: boolean | undefined) => (value === true ? 1 : undefined)
  return defined({
    weight,
    max_fails: maxFails,
    fail_timeout: failTimeout === undefined ? undefined : failTimeout / 1000,
    max_conns: maxConns === 0 ? undefined : maxConns,
    backup: flag(backup),
    down: flag(down),
    drain: flag(drain),
    labels: labels === undefined || Object.keys(labels).length === 0 ? undefined : labels,
  })
}

/** All names that {@link printWireServer} may write. */
export const WIRE_NAMES = 'weight max_fails fail_timeout max_conns backup down drain labels'.split(' ')

/** Whether this is a whole configuration and not a cluster alone. */
export function isOptions(upstream: Cluster | UpstreamOptions): upstream is UpstreamOptions {
  return !Array.isArray(upstream) && ('cluster' in upstream || 'servers' in upstream)
}

/** Where a server is, and what the formats say of it beside that. */
export interface SplitServer {
  readonly endpoint: Endpoint
  readonly wire: WireServer
}

export function splitServer(path: string, server: ServerOptions | string): SplitServer {
  if (typeof server === 'string') return { endpoint: parseEndpoint(path, '', server), wire: {} }
  const { host, port, path: socket, address, meta, ...wire } = server
  if (meta !== undefined) throw new ConfigError(`${path}.meta`, 'cannot be written')
  if (address !== undefined) return { endpoint: parseEndpoint(path, 'address', address), wire }
  return { endpoint: socket === undefined ? tcpEndpoint(path, host, port) : unixEndpoint(path, 'path', socket), wire }
}

/** Without the properties that are undefined. */
export function defined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T
}

/** What is wrong, without where: that is said beside it. */
export function reasonOf(error: unknown, at: string): string {
  if (!(error instanceof ConfigError)) throw error
  return error.message.startsWith(at) ? error.message.slice(at.length).replace(/^(\.|: )/, '') : error.message
}

function numeric(value: unknown): unknown {
  return typeof value === 'string' && /^-?\d+(\.\d+)?$/.test(value) ? Number(value) : value
}

export function wireInteger(path: string, key: string, value: unknown): number {
  return integer(path, key, numeric(value), 0, MAX_INT)
}

/** Milliseconds of seconds; 0 is less than nginx's second, but a ban has to last for something. */
export function wireSeconds(path: string, key: string, value: unknown): number {
  const seconds = numeric(value)
  if (typeof seconds !== 'number' || !(seconds >= 0 && seconds <= MAX_INT)) {
    throw expected(path, key, `seconds, a number from 0 to ${MAX_INT}`, value)
  }
  return Math.max(1, Math.round(seconds * 1e6) / 1e3)
}

export function wireFlag(path: string, key: string, value: unknown): boolean {
  const flag = numeric(value)
  if (flag === 0 || flag === 1) return flag === 1
  if (typeof flag === 'boolean') return flag
  throw expected(path, key, '0 or 1', value)
}

function wireLabels(path: string, key: string, value: unknown): Readonly<Record<string, string>> {
  const labels = Object.entries(record(path, key, value))
  for (const [name, label] of labels) {
    if (typeof label !== 'string') throw expected(`${path}.${key}[${JSON.stringify(name)}]`, '', 'a string', label)
  }
  return Object.fromEntries(labels) as Record<string, string>
}
