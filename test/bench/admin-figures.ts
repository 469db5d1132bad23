/** What the two processes of the benchmark of the admin interface agree on. */
import type { ServerOptions } from 'checkups'

export const PEERS = 100
/** Every change gives these two one and the same new weight: who reads two different ones has read half a change. */
export const FIRST = 0
export const SECOND = PEERS - 1

export function servers(weight = 1): ServerOptions[] {
  return Array.from({ length: PEERS }, (_, i) => ({
    host: `10.0.0.${i}`,
    port: 80,
    weight: i === FIRST || i === SECOND ? weight : 1,
  }))
}

export interface ChildResult {
  readonly picks: number
  readonly failed: number
  /** The weight that each change has brought, in order. */
  readonly changes: readonly number[]
  readonly weights: readonly number[]
}
