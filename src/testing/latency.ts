/** Quantiles. */
import type { LatencySummary } from './scenario.js'

/**
 * The smallest value that a share of the values does not exceed (nearest rank).
 *
 * @param sorted - ascending
 * @param share - from 0 to 1
 * @returns NaN if there are no values
 */
export function quantile(sorted: ArrayLike<number>, share: number): number {
  // 0.999 · 1000 is a little above 999: a rank is not raised by the last bits of a product.
  const rank = Math.ceil(share * sorted.length - 1e-9)
  return sorted[Math.min(sorted.length, Math.max(1, rank)) - 1] ?? NaN
}

/** @param sorted - ascending */
export function summarize(sorted: Float64Array): LatencySummary {
  const of = (share: number) => quantile(sorted, share)
  const mean = sorted.reduce((sum, latency) => sum + latency, 0) / sorted.length
  return { p50: of(0.5), p90: of(0.9), p97: of(0.97), p99: of(0.99), p999: of(0.999), mean, max: of(1) }
}
