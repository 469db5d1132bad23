import { describe, expect, it } from 'vitest'
import { quantile } from '../../src/testing/index.js'
import { LATENCIES } from './latencies.js'

describe('the thinned latencies', () => {
  it.each([
    [0.5, 167.483],
    [0.9, 176.7],
    [0.95, 181.7],
    [0.99, 192.3],
    [0.999, 198.8],
  ])('have the published quantile %d: %d ms', (share, published) => {
    expect(Math.abs(quantile(LATENCIES, share) / published - 1)).toBeLessThan(share > 0.99 ? 0.01 : 0.001)
  })

  it('have the published mean and extremes', () => {
    const mean = LATENCIES.reduce((sum, ms) => sum + ms, 0) / LATENCIES.length
    expect(mean).toBeCloseTo(169.56, 1)
    expect([LATENCIES[0], LATENCIES.at(-1)]).toEqual([164.09, 199.99])
  })
})
