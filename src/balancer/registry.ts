/** Which policies can be named in a configuration. */
import { expected, onlyKeys, record } from '../check.js'
import type { BalancerFactory } from './balancer.js'
import { parseConsistentHash, type ConsistentHashOptions } from './consistent-hash.js'
import { parseFastestFirst, type FastestFirstOptions } from './fastest-first.js'
import { parseLocalFirst, type LocalFirstRings } from './local-first.js'
import { parseLeastConnections, type LeastConnectionsOptions } from './least-connections.js'
import { parsePickFirst, type PickFirstOptions } from './pick-first.js'
import { parseRandom, type RandomOptions } from './random.js'
import { wrr } from './wrr.js'

/** Options of `wrr`, smooth weighted round robin: it has none. */
export interface WrrOptions {
  /** The policy. */
  readonly type: 'wrr'
}

/** Options of `local-first`. */
export interface LocalFirstOptions extends LocalFirstRings {
  /** The policy within each ring. Default `'wrr'`. */
  readonly balancer?: BalancerOption | undefined
}

/** A policy by name with its options. */
export type NamedBalancer =
  | WrrOptions
  | ConsistentHashOptions
  | FastestFirstOptions
  | LeastConnectionsOptions
  | LocalFirstOptions
  | RandomOptions
  | PickFirstOptions

/** How a level's servers are balanced: a name, a name with options, or a policy of the user's own. */
export type BalancerOption = NamedBalancer['type'] | NamedBalancer | BalancerFactory

/** Each parses its own options. */
type Parse = (path: string, options: Record<string, unknown>) => BalancerFactory

const policies: ReadonlyMap<string, Parse> = new Map<string, Parse>([
  [
    'wrr',
    (path, options) => {
      onlyKeys(path, options, new Set(['type']))
      return wrr
    },
  ],
  ['consistent-hash', parseConsistentHash],
  ['fastest-first', parseFastestFirst],
  ['local-first', (path, options) => parseLocalFirst(path, options, balancerFactory)],
  ['least-connections', parseLeastConnections],
  ['random', parseRandom],
  ['pick-first', parsePickFirst],
])

export function balancerFactory(path: string, key: string, option: unknown): BalancerFactory {
  if (typeof option === 'function') return option as BalancerFactory
  const options = typeof option === 'string' ? { type: option } : record(path, key, option)
  const policy = typeof options['type'] === 'string' ? policies.get(options['type']) : undefined
  if (policy !== undefined) return policy(`${path}.${key}`, options)
  const names = [...policies.keys()].map((name) => JSON.stringify(name)).join(', ')
  throw expected(path, key, `one of ${names}, or a function that makes a balancer`, options['type'])
}
