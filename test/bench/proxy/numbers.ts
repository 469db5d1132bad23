/** Numbers of several runs, and how tables show them. */
import { isQuiet, type Limits } from '../output.js'

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const half = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[half]! : (sorted[half - 1]! + sorted[half]!) / 2
}

/** What was measured of a program that has a core for itself and more to do than it can. */
export interface Measured {
  /** Requests a second. */
  readonly rate: number
  /** Microseconds of its core for a request. */
  readonly processor: number
}

/**
 * What is compared, more is better. On a quiet machine it is the rate. If others take their share of the core, the rate says
 * how much they took; then it is what the rate would be without them.
 */
export function pace({ rate, processor }: Measured): number {
  return isQuiet ? rate : 1e6 / processor
}

/** What the ratios of this run are of. */
export const compared = isQuiet ? 'rates' : 'processor time for a request, as the machine was busy before'

/** Of what was measured in the same rounds: noise of a round is in both. */
export function medianRatio(all: readonly Measured[], to: readonly Measured[]): number {
  return median(all.map((one, round) => pace(one) / pace(to[round]!)))
}

/** Collects a ratio that falls short. */
export function atLeast(limits: Limits, what: string, ratio: number, limit: number): void {
  if (!(ratio >= limit)) limits.misses.push(`${what}: ${ratio.toFixed(3)} times, expected at least ${limit}`)
}

export function whole(value: number): string {
  return Math.round(value).toLocaleString('en')
}

/** Two cells: the median, and all. */
export function rateCells(all: readonly Pick<Measured, 'rate'>[]): string[] {
  const rates = all.map(({ rate }) => rate)
  return [whole(median(rates)), rates.map(whole).join('; ')]
}
