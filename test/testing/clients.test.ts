import { describe, expect, it } from 'vitest'
import { constant, failing, refusing, silent, simulate, type Scenario } from '../../src/testing/index.js'

const times = <T>(count: number, value: T) => Array.from({ length: count }, () => value)

describe('the clients of a simulation', () => {
  it('retry, on another peer unless told otherwise', () => {
    const scenario: Scenario = {
      peers: [failing(503, 1), constant(10)],
      upstream: { maxFails: 0 },
      load: { rate: 100 },
      duration: 1000,
    }
    expect(simulate(scenario)).toMatchObject({ requests: 100, ok: 50, attempts: 100, responses: 100 })
    const retries = { count: 1 }
    expect(simulate({ ...scenario, retries })).toMatchObject({ ok: 100, attempts: 150, responses: 150 })
    const others = { ...retries, statuses: [500] }
    expect(simulate({ ...scenario, retries: others })).toMatchObject({ ok: 50, attempts: 100 })
    const alone = { ...scenario, peers: [failing(503, 1)] }
    expect(simulate({ ...alone, retries })).toMatchObject({ ok: 0, unserved: 100, attempts: 100 })
    const same = { count: 3, exclude: false, backoff: () => 5 }
    const result = simulate({ ...alone, retries: same })
    expect(result).toMatchObject({ ok: 0, unserved: 0, attempts: 400 })
    expect(result.latency.mean).toBeCloseTo(4 * 1 + 3 * 5)
  })

  it('retry what was refused or never answered, if so told', () => {
    const scenario: Scenario = {
      peers: [refusing(), silent(), constant(10)],
      upstream: { maxFails: 0 },
      load: { rate: 300 },
      duration: 1000,
      timeout: 50,
      retries: { count: 2 },
    }
    expect(simulate(scenario)).toMatchObject({ requests: 300, ok: 300 })
    expect(simulate({ ...scenario, retries: { count: 2, errors: false } })).toMatchObject({ ok: 100, attempts: 300 })
  })

  it('may wait for ever', () => {
    const result = simulate({ peers: [silent(), constant(10)], load: { rate: 100 }, duration: 1000 })
    expect(result).toMatchObject({ requests: 100, ok: 50, unended: 50, attempts: 100, responses: 50 })
    expect(result.latencies).toHaveLength(50)
  })

  it('wait for the last answers as long as they are told', () => {
    const scenario: Scenario = { peers: [constant(500)], load: { rate: 10 }, duration: 1000 }
    expect(simulate(scenario)).toMatchObject({ requests: 10, ok: 10, unended: 0 })
    expect(simulate({ ...scenario, grace: 0 })).toMatchObject({ ok: 6, unended: 4 })
    expect(simulate({ ...scenario, grace: 200 })).toMatchObject({ ok: 8, unended: 2 })
  })

  it('wait for their answers in a closed loop', () => {
    const scenario: Scenario = { peers: times(2, constant(10)), load: { clients: 4 }, duration: 1000 }
    expect(simulate(scenario)).toMatchObject({ requests: 400, ok: 400 })
    expect(simulate({ ...scenario, load: { clients: 4, think: 10 } })).toMatchObject({ requests: 200, ok: 200 })
    // Nobody takes any time: 1 ms from one to the next.
    expect(simulate({ ...scenario, peers: [failing(404)] })).toMatchObject({ requests: 4000, ok: 0 })
  })

  it('judge by the scenario’s statuses', () => {
    const scenario: Scenario = { peers: [failing(404, 5)], load: { rate: 10 }, duration: 1000 }
    expect(simulate(scenario).ok).toBe(0)
    expect(simulate({ ...scenario, okStatus: (status) => status === 404 }).ok).toBe(10)
  })
})
