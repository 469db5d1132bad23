/** The built package, as users run it, and the servers that every subject balances. */
import type * as Package from 'checkups'
import type * as Hash from '../../src/balancer/lib/hash.js'

const built = (file: string): Promise<unknown> => import(new URL(`../../dist/${file}`, import.meta.url).href)

export const { Checkups } = (await built('index.js')) as typeof Package
/** The bare hash of a key. */
export const { hashKey } = (await built('balancer/lib/hash.js')) as typeof Hash

export interface Server {
  readonly host: string
  readonly port: number
  readonly weight: number
}

/** Servers of weights 1 to 10, not in order. */
export function servers(n: number): Server[] {
  return Array.from({ length: n }, (_, i) => ({
    host: `10.0.${i >> 8}.${i & 255}`,
    port: 80,
    weight: 1 + ((i * 7) % 10),
  }))
}

/** Servers of weight 1. */
export function equalServers(n: number): Server[] {
  return servers(n).map((server) => ({ ...server, weight: 1 }))
}
