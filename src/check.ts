/**
 * Small checkers for values from outside: each returns the value, typed, or throws a ConfigError naming its path, which is
 * that of the object it stands in and its key there (joined only when there is something to say).
 */
import { ConfigError } from './errors.js'

/** How a bad value reads in a message: short, and never its insides beyond the first characters. */
function got(value: unknown): string {
  if (typeof value === 'string') return JSON.stringify(value.length > 60 ? `${value.slice(0, 60)}…` : value)
  if (value === null || value === undefined || typeof value === 'boolean') return String(value)
  if (typeof value === 'number' || typeof value === 'bigint') return String(value)
  if (Array.isArray(value)) return `an array of ${value.length}`
  return `a${typeof value === 'object' ? 'n' : ''} ${typeof value}`
}

export function expected(path: string, key: string, what: string, value: unknown): ConfigError {
  return new ConfigError(key === '' ? path : `${path}.${key}`, `expected ${what}, got ${got(value)}`)
}

export function integer(path: string, key: string, value: unknown, min: number, max: number): number {
  if (typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max) return value
  throw expected(path, key, `an integer from ${min} to ${max}`, value)
}

/** A duration in milliseconds; fractions are allowed. */
export function milliseconds(path: string, key: string, value: unknown, min = 0): number {
  if (typeof value === 'number' && Number.isFinite(value) && value >= min) return value
  throw expected(path, key, `milliseconds, a finite number from ${min}`, value)
}

export function boolean(path: string, key: string, value: unknown): boolean {
  if (typeof value === 'boolean') return value
  throw expected(path, key, 'true or false', value)
}

export function string(path: string, key: string, value: unknown): string {
  if (typeof value === 'string' && value !== '') return value
  throw expected(path, key, 'a non-empty string', value)
}

export function oneOf<const T extends string>(path: string, key: string, value: unknown, choices: readonly T[]): T {
  if (choices.includes(value as T)) return value as T
  throw expected(path, key, choices.map((choice) => JSON.stringify(choice)).join(' or '), value)
}

export function record(path: string, key: string, value: unknown): Record<string, unknown> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  throw expected(path, key, 'an object', value)
}

export function array(path: string, key: string, value: unknown): readonly unknown[] {
  if (Array.isArray(value)) return value
  throw expected(path, key, 'an array', value)
}

/** Those of them that are given. */
export function functions<T extends object>(path: string, value: T, keys: readonly (string & keyof T)[]): void {
  for (const key of keys) {
    const one: unknown = value[key]
    if (one !== undefined && typeof one !== 'function') throw expected(path, key, 'a function', one)
  }
}

/** Refuses a misspelt option before it is silently ignored. */
export function onlyKeys(path: string, value: object, known: ReadonlySet<string>): void {
  for (const key in value) {
    if (!known.has(key)) throw new ConfigError(`${path}.${key}`, `unknown option; known are ${[...known].join(', ')}`)
  }
}
