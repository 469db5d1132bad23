import { describe, expect, it } from 'vitest'
import {
  between,
  constant,
  failing,
  limited,
  linear,
  refusing,
  sampled,
  seededRandom,
  silent,
  SimulatedPeer,
  slowBetween,
  sometimes,
  VirtualClock,
  type Answer,
  type Profile,
} from '../../src/testing/index.js'

const random = seededRandom(1)
const ask = (profile: Profile, now = 0, inFlight = 1) => profile(now, inFlight, random)

describe('profiles', () => {
  it.each<[string, Profile, number, number, Answer | 'silent']>([
    ['constant', constant(20), 0, 1, { latency: 20 }],
    ['linear, idle', linear(60, 60), 0, 0, { latency: 60 }],
    ['linear, half full', linear(60, 60), 0, 30, { latency: 90 }],
    ['linear, full', linear(60, 60), 0, 60, { latency: 120 }],
    ['linear, above', linear(60, 60), 0, 61, { latency: 300 }],
    ['failing at once', failing(503), 0, 1, { latency: 0, status: 503 }],
    ['failing later', failing(500, 40), 0, 1, { latency: 40, status: 500 }],
    ['failing by a profile', failing(503, linear(1000, 10)), 0, 5, { latency: 1500, status: 503 }],
    ['failing by a silent profile', failing(503, silent()), 0, 1, 'silent'],
    ['refusing', refusing(), 0, 1, { latency: 0, error: 'refused' }],
    ['silent', silent(), 0, 1, 'silent'],
    ['before', between(100, 200, silent(), constant(1)), 99, 1, { latency: 1 }],
    ['at the beginning', between(100, 200, silent(), constant(1)), 100, 1, 'silent'],
    ['just in', between(100, 200, silent(), constant(1)), 199, 1, 'silent'],
    ['at the end', between(100, 200, silent(), constant(1)), 200, 1, { latency: 1 }],
    ['slow, outside', slowBetween(constant(167), 100, 200, 10), 99, 1, { latency: 167 }],
    ['slow, inside', slowBetween(constant(167), 100, 200, 10), 100, 1, { latency: 1670 }],
    ['slow keeps the rest', slowBetween(failing(500, 10), 0, 1, 3), 0, 1, { latency: 30, status: 500 }],
    ['limited, below', limited(2, constant(5)), 0, 2, { latency: 5 }],
    ['limited, above', limited(2, constant(5)), 0, 3, { latency: 0, status: 429 }],
    ['limited, above, otherwise', limited(2, constant(5), refusing(1)), 0, 3, { latency: 1, error: 'refused' }],
  ])('%s', (_name, profile, now, inFlight, response) => {
    expect(ask(profile, now, inFlight)).toEqual(response)
  })

  it('samples evenly', () => {
    const counts = new Map<number, number>()
    const profile = sampled([1, 2, 4, 8])
    for (let i = 0; i < 8000; i++) {
      const { latency } = ask(profile) as Answer
      counts.set(latency, (counts.get(latency) ?? 0) + 1)
    }
    expect([...counts.keys()].sort()).toEqual([1, 2, 4, 8])
    // 2,000 each, give or take five standard deviations.
    for (const count of counts.values()) expect(Math.abs(count - 2000)).toBeLessThan(200)
    expect(() => sampled([])).toThrow('sampled.latencies: expected at least one number')
  })

  it('does something by chance', () => {
    const profile = sometimes(0.25, silent(), constant(1))
    const silences = Array.from({ length: 8000 }, () => ask(profile)).filter((response) => response === 'silent')
    expect(Math.abs(silences.length - 2000)).toBeLessThan(200)
  })
})

describe('a simulated peer', () => {
  const made = (profile: Profile) => {
    const clock = new VirtualClock()
    return { clock, peer: new SimulatedPeer({ address: '10.0.0.1:80', profile, clock, random }) }
  }

  it('answers in its time, with this request counted as in flight', () => {
    const { clock, peer } = made(linear(100, 10))
    const answers: [number, Answer][] = []
    for (let i = 0; i < 2; i++) expect(peer.request((answer) => answers.push([clock.now(), answer]))).toBe(true)
    expect([peer.inFlight, peer.requests, peer.responses]).toEqual([2, 2, 0])
    clock.advanceSync(1000)
    expect(answers).toEqual([
      [110, { latency: 110 }],
      [120, { latency: 120 }],
    ])
    expect([peer.inFlight, peer.requests, peer.responses]).toEqual([0, 2, 2])
  })

  it('never answers before the call returns; a refusal is no response', () => {
    const { clock, peer } = made(refusing())
    const answers: Answer[] = []
    peer.request((answer) => answers.push(answer))
    expect(answers).toEqual([])
    clock.advanceSync(0)
    expect(answers).toEqual([{ latency: 0, error: 'refused' }])
    expect([peer.requests, peer.responses, peer.inFlight]).toEqual([1, 0, 0])
  })

  it('holds a request that it does not answer until the client hangs up', () => {
    const { clock, peer } = made(silent())
    expect(peer.request(() => expect.unreachable())).toBe(false)
    clock.advanceSync(1e9)
    expect(peer.inFlight).toBe(1)
    peer.hangUp()
    expect(peer.inFlight).toBe(0)
  })
})
