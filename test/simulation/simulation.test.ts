import { readFile } from 'node:fs/promises'
import { beforeAll, describe, expect, it } from 'vitest'
import type { BalancerFactory, Member } from '../../src/index.js'
import { measure, measureAll, type Results } from './measure.js'
import { render, REPORT } from './report.js'
import { EXPERIMENTS } from './scenarios.js'

interface Estimate {
  cost: number
  at: number
}

/** A user's own, and wrong: peak EWMA as published. It takes an error in no time for a fast answer. */
const plainPeakEwma: BalancerFactory = ({ random, now }) => {
  const DECAY = 10_000
  let members: readonly Member<Estimate>[] = []
  const drawFrom = (list: typeof members) => list[Math.floor(random() * list.length)]
  const expected = (cost: number, at: number) => cost * Math.exp((at - now()) / DECAY)
  const load = ({ data, inFlight }: Member<Estimate>) =>
    data === undefined ? 0 : expected(data.cost, data.at) * (inFlight + 1)
  return {
    timed: true,
    update: (list) => void (members = list as typeof members),
    pick: () => {
      const available = members.filter((member) => member.available)
      const one = drawFrom(available)
      const other = drawFrom(available.filter((member) => member !== one))
      return one !== undefined && other !== undefined && load(other) < load(one) ? other : one
    },
    report: (member, { ms }) => {
      if (Number.isNaN(ms)) return
      const { cost, at } = (member.data as Estimate | undefined) ?? { cost: 0, at: now() }
      const before = expected(cost, at)
      const share = Math.exp((at - now()) / DECAY)
      member.data = { cost: ms > before ? ms : before * share + ms * (1 - share), at: now() }
    },
  }
}

describe('the published experiments', () => {
  let alone: Results
  let withHealth: Results

  // Some twenty seconds; a busy machine may take several times that.
  beforeAll(() => {
    alone = measureAll(false)
    withHealth = measureAll(true)
  }, 180_000)

  it('have the figures of the report', async () => {
    expect(await render(alone, withHealth)).toBe(await readFile(REPORT, 'utf8'))
  })

  it('round robin: a request in eleven meets the slow server', () => {
    expect(alone.beyondRoundRobin.wrr.ok).toBeGreaterThanOrEqual(0.953)
    expect(alone.beyondRoundRobin.wrr.ok).toBeLessThanOrEqual(0.956)
  })

  it('least-connections with two choices: 99.40 % under a second', () => {
    expect(alone.beyondRoundRobin['least-connections (2)'].ok).toBeGreaterThanOrEqual(0.994)
  })

  it('fastest-first: 99.90 % under a second, and P99.9 as if nobody were slow', () => {
    expect(alone.beyondRoundRobin['fastest-first'].ok).toBeGreaterThanOrEqual(0.999)
    expect(alone.beyondRoundRobin['fastest-first'].p999).toBeLessThanOrEqual(205)
  })

  it('fastest-first: fast errors cost nothing', () => {
    expect(alone.fast503s['fastest-first'].ok).toBeGreaterThanOrEqual(0.9999)
  })

  it('fastest-first: a server that never answers takes a few requests', () => {
    expect(alone.blackHole['fastest-first'].ok).toBeGreaterThanOrEqual(0.95)
  })

  it('fastest-first: slow errors are hardly noticed', () => {
    expect(alone.slow503s['fastest-first'].mean).toBeLessThanOrEqual(90)
  })

  it('passive health repairs what a policy does not see: fast errors are lost by none', () => {
    for (const [name, { ok }] of Object.entries(withHealth.fast503s)) expect(ok, name).toBeGreaterThanOrEqual(0.9999)
  })

  it('tell a wrong policy: plain peak EWMA does not survive fast errors', () => {
    expect(measure(EXPERIMENTS.beyondRoundRobin, plainPeakEwma, false).ok).toBeGreaterThan(0.998)
    expect(measure(EXPERIMENTS.fast503s, plainPeakEwma, false).ok).toBeLessThan(0.6)
  })
})
