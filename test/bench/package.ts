/** The built package, as users run it, and the servers that every subject balances. */
import type * as Package from 'checkups'

const built = new URL('../../dist/index.js', import.meta.url)

export const { Checkups } = (await import(built.href)) as typeof Package

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
