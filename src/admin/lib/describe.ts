/** Configurations as JSON for people: without secrets, and without what JSON cannot say. */
import { ConfigError } from '../../errors.js'

/** What JSON can say. */
export type Json = null | boolean | number | string | readonly Json[] | { readonly [key: string]: Json }

/** Stands for a secret, or for what is no JSON; given back in the same place it means what is there. */
export const NOT_SHOWN = '(not shown)'

/** Names under which secrets stand: passwords of probes, keys of TLS, headers of requests. */
const SECRET = /pass(word|phrase)?$|secret|token|authorization|cookie|(^|[-_])key$|pfx/i
/** A request written out, with a header that authorises it. */
const SECRET_LINE = /^(proxy-)?authorization:|^cookie:|^x-[\w-]*(key|token):/im

const DEEPEST = 32

/** As JSON. What is deeper than anything that this library reads is left out. */
export function describe(value: unknown, name = '', depth = 0): Json | undefined {
  switch (typeof value) {
    case 'undefined':
      return undefined
    case 'boolean':
      return value
    case 'number':
      return Number.isFinite(value) ? value : null
    case 'string':
      return SECRET.test(name) || SECRET_LINE.test(value) ? NOT_SHOWN : value
    case 'object':
      break
    default:
      return NOT_SHOWN
  }
  if (value === null) return null
  if (depth > DEEPEST || ArrayBuffer.isView(value)) return NOT_SHOWN
  if (Array.isArray(value)) return value.map((item) => describe(item, name, depth + 1) ?? null)
  const entries = Object.entries(value).flatMap(([key, item]) => {
    const described = describe(item, key, depth + 1)
    return described === undefined ? [] : [[key, described] as const]
  })
  // fromEntries defines own properties: a key named __proto__ is one like any other.
  return Object.fromEntries(entries)
}

/**
 * With what {@link describe} has not shown, taken from where it stands now. Servers are found by address, not by place. What
 * has nothing of that in it, and what is no JSON, is what it was.
 */
export function restore(path: string, value: unknown, current: unknown): unknown {
  if (value === NOT_SHOWN) {
    if (current === undefined) throw new ConfigError(path, `${NOT_SHOWN} stands for what is there, and nothing is`)
    return current
  }
  if (Array.isArray(value)) {
    const others = Array.isArray(current) ? (current as readonly unknown[]) : []
    const items = value.map((item: unknown, i) => {
      const address = addressOf(item)
      const other = address === undefined ? others[i] : others.find((one) => addressOf(one) === address)
      return restore(`${path}[${i}]`, item, other)
    })
    return items.every((item, i) => item === value[i]) ? value : items
  }
  if (!isPlain(value)) return value
  const others = isPlain(current) ? current : {}
  const entries = Object.entries(value).map(([key, item]) => {
    const other = Object.hasOwn(others, key) ? others[key] : undefined
    return [key, restore(`${path}.${key}`, item, other)] as const
  })
  return entries.every(([key, item]) => item === value[key]) ? value : Object.fromEntries(entries)
}

/** What JSON makes of an object, and no instance of a class. */
export function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) return false
  const prototype: unknown = Object.getPrototypeOf(value)
  return prototype === Object.prototype || prototype === null
}

function addressOf(value: unknown): string | undefined {
  if (typeof value !== 'object' || value === null) return undefined
  const { host, port, path } = value as Record<string, unknown>
  return host === undefined && path === undefined ? undefined : `${String(host)} ${String(port)} ${String(path)}`
}
