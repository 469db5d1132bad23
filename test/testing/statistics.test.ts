import { describe, expect, it } from 'vitest'
import { summarize } from '../../src/testing/latency.js'
import { quantile, seededRandom } from '../../src/testing/index.js'
import { seededStreams } from '../../src/testing/random.js'

describe('quantiles', () => {
  const thousand = Float64Array.from({ length: 1000 }, (_, index) => index + 1)

  it.each([
    [0, 1],
    [0.0005, 1],
    [0.001, 1],
    [0.0011, 2],
    [0.5, 500],
    [0.97, 970],
    [0.999, 999],
    [0.9991, 1000],
    [1, 1000],
  ])('%d of 1…1000 is %d', (share, value) => {
    expect(quantile(thousand, share)).toBe(value)
  })

  it('are exact for every rank of every length', () => {
    for (let length = 1; length <= 200; length++) {
      const values = thousand.subarray(0, length)
      for (let rank = 1; rank <= length; rank++) expect(quantile(values, rank / length)).toBe(rank)
    }
  })

  it('summarize', () => {
    const summary = { p50: 500, p90: 900, p97: 970, p99: 990, p999: 999, mean: 500.5, max: 1000 }
    expect(summarize(thousand)).toEqual(summary)
    expect(Object.values(summarize(new Float64Array())).every(Number.isNaN)).toBe(true)
  })
})

describe('seeded chance', () => {
  it('is mulberry32, whatever the seed', () => {
    // The published code, seeds 1 and −1.
    for (const seed of [1, -1]) {
      let a = seed
      const published = () => {
        let t = (a += 0x6d2b79f5)
        t = Math.imul(t ^ (t >>> 15), t | 1)
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
        return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
      }
      const random = seededRandom(seed)
      for (let i = 0; i < 20; i++) expect(random()).toBe(published())
    }
  })

  it('has streams that do not disturb each other', () => {
    const draws = (others: number) => {
      const stream = seededStreams(7)
      const [first, second] = [stream(), stream()]
      for (let i = 0; i < others; i++) first()
      return Array.from({ length: 10 }, second)
    }
    expect(draws(5)).toEqual(draws(0))
    expect(seededStreams(7)()()).not.toBe(seededStreams(8)()())
  })
})
