/** Which policies can be named in a configuration. */
import { expected, onlyKeys, record } from '../check.js'
import type { BalancerFactory } from './balancer.js'
import { wrr } from './wrr.js'

/** A policy by name with its options. */
export interface NamedBalancer {
  /** `wrr`: smooth weighted round robin. */
  readonly type: 'wrr'
}

/** How a level's servers are balanced: a name, a name with options, or a policy of the user's own. */
export type BalancerOption = NamedBalancer['type'] | NamedBalancer | BalancerFactory

/** Each parses its own options, which have their names checked already to be an object's. */
const policies: ReadonlyMap<string, (path: string, options: Record<string, unknown>) => BalancerFactory> = new Map([
  [
    'wrr',
    (path, options) => {
      onlyKeys(path, options, new Set(['type']))
      return wrr
    },
  ],
])

export function balancerFactory(path: string, key: string, option: unknown): BalancerFactory {
  if (typeof option === 'function') return option as BalancerFactory
  const options = typeof option === 'string' ? { type: option } : record(path, key, option)
  const policy = typeof options['type'] === 'string' ? policies.get(options['type']) : undefined
  if (policy !== undefined) return policy(`${path}.${key}`, options)
  const names = [...policies.keys()].map((name) => JSON.stringify(name)).join(', ')
  throw expected(path, key, `one of ${names}, or a function that makes a balancer`, options['type'])
}
