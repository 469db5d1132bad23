import { describe, expect, it } from 'vitest'
import type { Pick } from '../../src/index.js'
import { golden, recordedServer } from '../conformance/support.js'
import { address, harness, letterOf, level, target } from '../upstream/harness.js'
import { counts, seeded } from './policies.js'

interface Held {
  readonly open?: number
  readonly release?: number
}
interface Recording {
  readonly least_conn_sequential_lc_eq: readonly number[]
  readonly least_conn_sequential_lc_w: readonly number[]
  readonly least_conn_held_equal: readonly Held[]
  readonly least_conn_held_w311: readonly Held[]
}

const recording = golden('nginx-least-random') as Recording
const balancers = { all: { type: 'least-connections' }, two: { type: 'least-connections', choices: 2 } } as const

function under(weights: readonly number[], balancer: NonNullable<Parameters<typeof harness>[0]['balancer']>, seed = 0) {
  const h = harness(
    { servers: weights.map((weight, i) => recordedServer(i, weight)), balancer },
    { random: seed === 0 ? () => 0 : seeded(seed) },
  )
  return { ...h, acquire: () => h.checkups.acquirePeer('api')! }
}
const recordedAt = (index: number) => ({ host: '127.0.0.1', port: 23_001 + index })
const position = ({ peer }: Pick) => peer.port - 23_001

describe("like nginx's least_conn", () => {
  it.each([
    ['equal weights', [1, 1, 1], recording.least_conn_sequential_lc_eq],
    ['weights 5, 1, 1', [5, 1, 1], recording.least_conn_sequential_lc_w],
  ] as const)('one request after another: %s', (_, weights, expected) => {
    const h = under(weights, balancers.all)
    const picked = expected.map(() => {
      const pick = h.acquire()
      pick.done('ok')
      return position(pick)
    })
    expect(picked).toEqual(expected)
    const plain = under(weights, balancers.all)
    expect(expected.map(() => plain.checkups.selectPeer('api')!.port - 23_001)).toEqual(expected)
  })

  it.each([
    ['equal weights', [1, 1, 1], recording.least_conn_held_equal],
    ['weights 3, 1, 1', [3, 1, 1], recording.least_conn_held_w311],
  ] as const)('with requests held: %s', (_, weights, steps) => {
    const h = under(weights, balancers.all)
    const held: Pick[] = []
    const opened: (number | undefined)[] = []
    for (const { release } of steps) {
      if (release === undefined) {
        const pick = h.acquire()
        held.push(pick)
        opened.push(position(pick))
        continue
      }
      const at = held.findIndex((pick) => position(pick) === release)
      expect(at, `somebody to release at ${release}`).toBeGreaterThanOrEqual(0)
      held.splice(at, 1)[0]!.done('ok')
      opened.push(undefined)
    }
    expect(opened).toEqual(steps.map(({ open }) => open))
  })
})

describe('least-connections', () => {
  it.each([1, 2, 3, 4])('all: always one with the least per weight, at any state (seed %i)', (seed) => {
    const weights = [1, 2, 3, 1, 5]
    const h = under(weights, balancers.all, seed)
    const random = seeded(seed)
    const held: Pick[] = []
    const inFlight = weights.map(() => 0)
    for (let i = 0; i < 600; i++) {
      if (random() < 0.45 && held.length > 0) {
        const [pick] = held.splice(Math.floor(random() * held.length), 1)
        pick!.done('ok')
        inFlight[position(pick!)]!--
        continue
      }
      const least = Math.min(...weights.map((weight, at) => inFlight[at]! / weight))
      const pick = h.acquire()
      expect(inFlight[position(pick)]! / weights[position(pick)]!).toBe(least)
      inFlight[position(pick)]!++
      held.push(pick)
    }
  })

  it('all: ties go round, in proportion to weight', () => {
    const h = under([1, 2, 3], balancers.all)
    const seen = Array.from({ length: 60 }, () => h.checkups.selectPeer('api')!.port - 23_001)
    expect(counts(seen)).toEqual(
      new Map([
        [2, 30],
        [1, 20],
        [0, 10],
      ]),
    )
    for (let i = 0; i < 60; i += 6) expect(counts(seen.slice(i, i + 6)).get(2)).toBe(3)
  })

  it('all: processes begin at different servers', () => {
    const first = Array.from({ length: 40 }, (_, i) => under([1, 1, 1, 1], balancers.all, i + 1).acquire().peer.port)
    expect(new Set(first).size).toBe(4)
  })

  it('all: a server that has been away does not catch up', async () => {
    const h = under([1, 1, 1], balancers.all)
    await h.checkups.setServer('api', recordedAt(0), { down: true })
    for (let i = 0; i < 90; i++) h.acquire().done('ok')
    await h.checkups.setServer('api', recordedAt(0), { down: false })
    const got = Array.from({ length: 9 }, () => {
      const pick = h.acquire()
      pick.done('ok')
      return position(pick)
    })
    expect(counts(got)).toEqual(new Map(got.slice(0, 3).map((at) => [at, 3])))
  })

  it('2: a slow server gets little', async () => {
    const h = under([1, 1, 1, 1, 1], balancers.two, 9)
    const slow: Pick[] = []
    const got: number[] = []
    for (let i = 0; i < 2_000; i++) {
      const pick = h.acquire()
      got.push(position(pick))
      if (position(pick) === 2) slow.push(pick)
      else pick.done('ok')
      // It answers one request in the time that the others answer fifty.
      if (i % 50 === 49) slow.shift()?.done('ok')
    }
    expect(counts(got).get(2)! / got.length).toBeLessThan(0.05)
    expect(counts(got).get(2)).toBeGreaterThan(10)
    for (const at of [0, 1, 3, 4]) expect(counts(got).get(at)! / got.length).toBeGreaterThan(0.2)
  })

  it('2: thousands of requests held are spread as the theory of two choices says', () => {
    const h = under(new Array<number>(50).fill(1), balancers.two, 4)
    const got = counts(Array.from({ length: 5_000 }, () => position(h.acquire())))
    expect(got.size).toBe(50)
    expect(Math.max(...got.values())).toBeLessThanOrEqual(104)
  })

  it('2: requests held follow the weights', () => {
    const h = under([1, 2, 3, 4], balancers.two, 4)
    const got = counts(Array.from({ length: 5_000 }, () => position(h.acquire())))
    for (const at of [0, 1, 2]) expect(Math.abs(got.get(at)! / (500 * (at + 1)) - 1), `${at}`).toBeLessThan(0.1)
  })
})

describe('random', () => {
  const shares = (weights: readonly number[], choices: 1 | 2, count = 20_000) => {
    const h = under(weights, { type: 'random', choices }, 11)
    const got = counts(Array.from({ length: count }, () => h.checkups.selectPeer('api')!.port - 23_001))
    return weights.map((_, at) => got.get(at)! / count)
  }

  it.each([1, 2] as const)('equal weights, equal shares: choices %i', (choices) => {
    for (const share of shares([1, 1, 1, 1, 1], choices)) expect(Math.abs(share - 0.2)).toBeLessThan(0.012)
  })

  it('shares by weight', () => {
    const weights = [1, 2, 3, 1, 1]
    for (const [at, share] of shares(weights, 1).entries())
      expect(Math.abs(share - weights[at]! / 8)).toBeLessThan(0.012)
    const steep = shares([1, 1_000], 1)
    expect(steep[0]).toBeLessThan(0.003)
    expect(steep[0]).toBeGreaterThan(0.0002)
  })

  it("2: nginx's shares of `random two` by weight, one request after another", () => {
    const recorded = [746, 1_295, 1_441, 738, 780]
    for (const [at, share] of shares([1, 2, 3, 1, 1], 2).entries()) {
      expect(Math.abs(share - recorded[at]! / 5_000), `server ${at}`).toBeLessThan(0.02)
    }
  })

  it('passes over those who are out without changing the shares of the others', async () => {
    const h = under([1, 2, 3, 1, 1], { type: 'random' }, 12)
    for (const at of [0, 2]) await h.checkups.setServer('api', recordedAt(at), { down: true })
    const got = counts(Array.from({ length: 12_000 }, () => h.checkups.selectPeer('api')!.port - 23_001))
    expect([...got.keys()].sort()).toEqual([1, 3, 4])
    for (const [at, weight] of [
      [1, 2],
      [3, 1],
      [4, 1],
    ] as const) {
      expect(Math.abs(got.get(at)! / 12_000 - weight / 4)).toBeLessThan(0.02)
    }
  })

  it('finds the one that is left of a thousand', async () => {
    const servers = Array.from({ length: 1_000 }, (_, i) => ({ host: '10.0.0.3', port: i + 1, down: i !== 777 }))
    const h = harness({ servers, balancer: 'random' }, { random: seeded(3) })
    for (let i = 0; i < 20; i++) expect(h.checkups.selectPeer('api')!.port).toBe(778)
    await h.checkups.setServer('api', servers[777]!, { down: true })
    expect(h.checkups.selectPeer('api')).toBeUndefined()
  })
})

describe('pick-first', () => {
  const first = (letters: string, seed = 0) =>
    harness({ ...level(letters), balancer: 'pick-first', maxFails: 3 }, { random: seed === 0 ? () => 0 : seeded(seed) })

  it('stays, moves on at a failure, and stays there', async () => {
    const h = first('abcd')
    expect(h.picks(5)).toBe('aaaaa')
    h.feedback('a')
    expect(h.picks(5)).toBe('bbbbb')
    // What others do is no matter, and neither is a late failure of one that it has left.
    h.feedback('a')
    h.feedback('c')
    expect(h.picks(5)).toBe('bbbbb')
    const pick = h.checkups.acquirePeer('api')!
    pick.done({ status: 404 })
    h.checkups.acquirePeer('api')!.done('neutral')
    expect(h.picks(3)).toBe('bbb')
    h.checkups.acquirePeer('api')!.done({ status: 502 })
    expect(h.picks(3)).toBe('ccc')
    await h.checkups.setServer('api', target('c'), { down: true })
    expect(h.picks(3)).toBe('ddd')
    await h.checkups.setServer('api', target('c'), { down: false })
    expect(h.picks(3)).toBe('ddd')
    h.feedback('d')
    // Around the end of the list.
    expect(h.picks(3)).toBe('aaa')
  })

  it('stays through updates that keep its server, and goes on to the next one when it leaves', async () => {
    const h = first('abcd')
    h.feedback('a')
    expect(h.picks(2)).toBe('bb')
    await h.checkups.updateUpstream('api', [level('dcbaef')])
    expect(h.picks(2)).toBe('bb')
    await h.checkups.updateUpstream('api', [level('dcaef')])
    expect(h.picks(2)).toBe('aa')
    await h.checkups.updateUpstream('api', [level('x')])
    expect(h.picks(2)).toBe('xx')
  })

  it('does not move for a request that may not go to its server', () => {
    const h = first('abc')
    expect(h.picks(2)).toBe('aa')
    expect(letterOf(h.checkups.selectPeer('api', { exclude: [target('a')] }))).toBe('b')
    expect(h.picks(2)).toBe('aa')
  })

  it('does not move for a retry of an answer that was no failure', async () => {
    const h = first('abc')
    const tried: string[] = []
    await h.checkups.readyOk('api', (peer) => void tried.push(letterOf(peer)), {
      isFailure: () => (tried.length === 1 ? 'next' : 'ok'),
    })
    expect(tried).toEqual(['a', 'b'])
    expect(h.picks(2)).toBe('aa')
  })

  it('processes begin at different servers', () => {
    expect(new Set(Array.from({ length: 40 }, (_, i) => first('abcd', i + 1).picks(1))).size).toBe(4)
  })

  it('moves when its server is full', async () => {
    const h = harness({ ...level('ab'), balancer: 'pick-first', maxConns: 2 })
    const held = Array.from({ length: 4 }, () => h.checkups.acquirePeer('api')!)
    expect(held.map(({ peer }) => peer.address)).toEqual(['a', 'a', 'b', 'b'].map(address))
    expect(h.checkups.acquirePeer('api')).toBeUndefined()
  })
})
