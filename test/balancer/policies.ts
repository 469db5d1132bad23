/** Every policy by name with its options, and what their tests share. */
import type { ConsistentHashOptions, NamedBalancer } from '../../src/index.js'

/** A policy under test. */
export interface Policy {
  readonly title: string
  readonly balancer: NamedBalancer
  /** Stays with one server by its nature. */
  readonly pins: boolean
  /** An update builds a table of 65,537 entries: fewer runs of what updates often. */
  readonly slow: boolean
  /** What the i-th request is about; a key that no other request has. */
  readonly key: (i: number) => string
}

const addressKey = (i: number) => `${1 + (i % 223)}.${(i * 7) % 256}.${(i * 31 + (i >> 8)) % 256}.${i % 256}`
const hashes: readonly NonNullable<ConsistentHashOptions['hash']>[] = ['ketama', 'nginx', 'nginx-ip', 'maglev']
const variants: readonly (readonly [string, Partial<ConsistentHashOptions>])[] = [
  ['', {}],
  [' bounded', { boundedLoad: 1.25 }],
  [' sticky', { sticky: { max: 100, ttl: 10_000 } }],
  [' bounded sticky', { boundedLoad: 1.25, sticky: { max: 100, ttl: 10_000 } }],
]

const policy = (title: string, balancer: NamedBalancer, more: Partial<Policy> = {}): Policy => ({
  title,
  balancer,
  pins: false,
  slow: false,
  key: (i) => `key-${i}`,
  ...more,
})

export const policies: readonly Policy[] = [
  policy('wrr', { type: 'wrr' }),
  ...hashes.flatMap((hash) =>
    variants.map(([suffix, options]) =>
      policy(
        `consistent-hash ${hash}${suffix}`,
        { type: 'consistent-hash', hash, ...options },
        { slow: hash === 'maglev', ...(hash === 'nginx-ip' && { key: addressKey }) },
      ),
    ),
  ),
  policy('fastest-first', { type: 'fastest-first' }),
  policy('least-connections all', { type: 'least-connections', choices: 'all' }),
  policy('least-connections 2', { type: 'least-connections', choices: 2 }),
  policy('random 1', { type: 'random', choices: 1 }),
  policy('random 2', { type: 'random', choices: 2 }),
  policy('pick-first', { type: 'pick-first' }, { pins: true }),
]

/** Uniform in [0, 1), the same sequence for the same seed. */
export function seeded(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x85ebca6b)
    mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
    return ((mixed ^ (mixed >>> 16)) >>> 0) / 2 ** 32
  }
}

/** How often each value is there. */
export function counts<T>(values: Iterable<T>): Map<T, number> {
  const found = new Map<T, number>()
  for (const value of values) found.set(value, (found.get(value) ?? 0) + 1)
  return found
}
