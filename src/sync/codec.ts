/** Options as messages between processes: what JSON cannot say is tagged; what belongs to one process stays there. */
import { ConfigError } from '../errors.js'

/** Marks what stands for something else. */
const TAG = '$checkups'

interface Tagged {
  readonly [TAG]: 'bytes' | 'local' | 'number' | 'entries'
  readonly value?: unknown
}

const tagged = (kind: Tagged[typeof TAG], value?: unknown): Tagged => ({ [TAG]: kind, value })

/** What only this process has (functions, instances of classes) is named as such: the other one has its own in the same place. */
export function encode(value: unknown): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number') return Number.isFinite(value) ? value : tagged('number', String(value))
  if (typeof value !== 'object') return value === undefined ? undefined : tagged('local')
  if (ArrayBuffer.isView(value)) {
    return tagged('bytes', Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString('base64'))
  }
  if (Array.isArray(value)) return value.map((item) => encode(item) ?? null)
  const prototype: unknown = Object.getPrototypeOf(value)
  if (prototype !== Object.prototype && prototype !== null) return tagged('local')
  const entries = Object.entries(value).flatMap(([key, item]) =>
    item === undefined ? [] : [[key, encode(item)] as const],
  )
  // Also a key that is a tag, or __proto__, is one like any other.
  if (Object.hasOwn(value, TAG)) return tagged('entries', entries)
  return Object.fromEntries(entries)
}

/**
 * What {@link encode} has made a message of; `local` is what this process has in its place.
 *
 * @throws ConfigError for a function that this process does not have
 */
export function decode(path: string, value: unknown, local: unknown): unknown {
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) {
    const others = Array.isArray(local) ? (local as readonly unknown[]) : []
    return value.map((item: unknown, i) => {
      const address = addressOf(item)
      const other = address === undefined ? others[i] : others.find((one) => addressOf(one) === address)
      return decode(`${path}[${i}]`, item, other)
    })
  }
  const { [TAG]: kind, value: inner } = value as Partial<Tagged>
  switch (kind) {
    case 'bytes':
      return Buffer.from(inner as string, 'base64')
    case 'number':
      return Number(inner)
    case 'local':
      if (local !== undefined || path.endsWith('.meta')) return local
      throw new ConfigError(path, 'only the process in charge has it: a function must be configured in every process')
    case 'entries':
      return decodeEntries(path, inner as [string, unknown][], local)
    default:
      return decodeEntries(path, Object.entries(value), local)
  }
}

function decodeEntries(path: string, entries: readonly (readonly [string, unknown])[], local: unknown): object {
  const others = new Map(typeof local === 'object' && local !== null ? Object.entries(local) : [])
  return Object.fromEntries(entries.map(([key, item]) => [key, decode(`${path}.${key}`, item, others.get(key))]))
}

function addressOf(server: unknown): string | undefined {
  if (typeof server !== 'object' || server === null) return undefined
  const { host, port, path } = server as Record<string, unknown>
  return host === undefined && path === undefined ? undefined : `${String(host)} ${String(port)} ${String(path)}`
}

/**
 * A change that somebody asks for, as a message.
 *
 * @throws ConfigError for what cannot leave this process
 */
export function encodeRequest(path: string, value: unknown): unknown {
  const encoded = encode(value)
  const at = findLocal(path, encoded)
  if (at !== undefined) throw new ConfigError(at, 'cannot be sent to the process in charge')
  return encoded
}

function findLocal(path: string, value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  if ((value as Partial<Tagged>)[TAG] === 'local') return path
  for (const [key, item] of Object.entries(value)) {
    const found = findLocal(Array.isArray(value) ? `${path}[${key}]` : `${path}.${key}`, item)
    if (found !== undefined) return found
  }
  return undefined
}
