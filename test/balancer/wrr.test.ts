import fc from 'fast-check'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { Smooth } from '../../src/balancer/lib/smooth.js'
import { wrr } from '../../src/balancer/wrr.js'
import { Checkups, type Balancer, type Member, type Peer, type Result } from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'

/** A server as the core would show it to the policy. */
class Server implements Member {
  readonly peer: Peer
  weight: number
  fullWeight: number
  available = true
  healthy = true
  readonly inFlight = 0
  readonly oldest = Infinity
  data: unknown = undefined

  constructor(weight: number, name = '') {
    this.weight = this.fullWeight = weight
    this.peer = { address: name } as Peer
  }
}

interface Row {
  readonly server: Server
  weight: number
  current: number
  effective: number
}

/** The rule of nginx and lua-resty-checkups as it reads: a scan of all servers per pick. */
class Scan {
  rows: Row[] = []

  update(servers: readonly Server[]): void {
    this.rows = servers.map((server) => {
      const { weight } = server
      const known = this.rows.find((row) => row.server === server)
      return known?.weight === weight ? known : { server, weight, current: 0, effective: weight }
    })
  }

  pick(): Server | undefined {
    let best: Row | undefined
    let total = 0
    for (const row of this.rows) {
      if (!row.server.available) continue
      row.current += row.effective
      total += row.effective
      if (row.effective < row.weight) row.effective++
      if (best === undefined || row.current > best.current) best = row
    }
    if (best !== undefined) best.current -= total
    return best?.server
  }

  failed(server: Server): void {
    const row = this.rows.find((other) => other.server === server)
    if (row !== undefined) row.effective = Math.max(1, Math.ceil(row.effective / 2))
  }
}

const start = (u: number): Balancer => wrr({ random: () => u, now: () => NaN, defer: (task) => task() })
const request = Object.freeze({})
const picksOf = (balancer: Balancer, count: number) =>
  Array.from({ length: count }, () => balancer.pick(request, NaN) as Server | undefined)
const servers = (weights: readonly number[]) => weights.map((weight, i) => new Server(weight, String(i)))
const started = (weights: readonly number[], u = 0) => {
  const members = servers(weights)
  const balancer = start(u)
  balancer.update(members)
  return { balancer, members }
}
const report = (outcome: Result['outcome'], acquired: boolean): Result => ({
  outcome,
  acquired,
  status: 0,
  ms: NaN,
  now: NaN,
})
const gcd = (a: number, b: number): number => (b === 0 ? a : gcd(b, a % b))
const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0)
const period = (weights: readonly number[]) => sum(weights) / weights.reduce(gcd, 0)

/** Counts how many picks were worked out, and so how many came from the remembered cycle. */
const spyOnSmooth = () => vi.spyOn(Smooth.prototype, 'pick')
afterEach(() => {
  vi.restoreAllMocks()
})

const smallWeights = fc.oneof(
  fc.constant(1),
  fc.constantFrom(1, 2, 3, 5),
  fc.constantFrom(2, 4, 6),
  fc.constantFrom(10, 20, 50),
  fc.integer({ min: 1, max: 100 }),
)
const hugeWeights = fc.oneof(
  fc.constantFrom(2 ** 31 - 1, 2 ** 31 - 2, 2 ** 30, 1, 3),
  fc.integer({ min: 1, max: 2 ** 31 - 1 }),
)
const at = fc.nat()
const few = fc.array(at, { maxLength: 4 })

type Operation =
  | { readonly type: 'pick'; readonly count: number }
  | { readonly type: 'cycles'; readonly more: number }
  | { readonly type: 'flip'; readonly at: readonly number[] }
  | { readonly type: 'failed'; readonly at: number; readonly acquired: boolean }
  | { readonly type: 'report'; readonly at: number; readonly outcome: 'ok' | 'neutral' }
  | { readonly type: 'exclude'; readonly at: readonly number[] }
  | { readonly type: 'weight'; readonly at: number; readonly weight: number }
  | { readonly type: 'add'; readonly at: number; readonly weight: number }
  | { readonly type: 'remove' | 'move'; readonly at: number }
  | { readonly type: 'update'; readonly flips: readonly number[] }

const operation = (weights: fc.Arbitrary<number>): fc.Arbitrary<Operation> =>
  fc.oneof(
    { weight: 4, arbitrary: fc.record({ type: fc.constant('pick' as const), count: fc.integer({ min: 1, max: 40 }) }) },
    { weight: 4, arbitrary: fc.record({ type: fc.constant('cycles' as const), more: fc.nat(30) }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('flip' as const), at: few }) },
    { weight: 2, arbitrary: fc.record({ type: fc.constant('failed' as const), at, acquired: fc.boolean() }) },
    fc.record({ type: fc.constant('report' as const), at, outcome: fc.constantFrom('ok', 'neutral') }),
    { weight: 2, arbitrary: fc.record({ type: fc.constant('exclude' as const), at: few }) },
    fc.record({ type: fc.constant('weight' as const), at, weight: weights }),
    fc.record({ type: fc.constant('add' as const), at, weight: weights }),
    fc.record({ type: fc.constantFrom('remove', 'move'), at }),
    fc.record({ type: fc.constant('update' as const), flips: few }),
  )

/** Runs a history on the policy and on the scan, and says where they first differ. */
function replayHistory(weights: readonly number[], operations: readonly Operation[]): number {
  const list = servers(weights)
  const balancer = start(0)
  const scan = new Scan()
  let names = list.length
  let picks = 0
  const update = () => {
    balancer.update([...list])
    scan.update(list)
  }
  const pick = (count: number, during: string) => {
    for (let i = 0; i < count; i++) {
      const got = balancer.pick(request, NaN)
      const wanted = scan.pick()
      if (got !== wanted) {
        expect.fail(`pick ${picks} (${during}): expected ${wanted?.peer.address}, got ${got?.peer.address}`)
      }
      picks++
    }
  }
  const flip = (server: Server) => {
    server.available = !server.available
    balancer.changed?.(server)
  }
  const chosen = (indexes: readonly number[]) => [...new Set(indexes.map((index) => list[index % list.length]!))]

  update()
  for (const op of operations) {
    const server = 'at' in op && typeof op.at === 'number' ? list[op.at % list.length]! : list[0]!
    switch (op.type) {
      case 'pick':
        pick(op.count, op.type)
        break
      case 'cycles': {
        // Long enough to learn the cycle and to go round in it, where that is affordable.
        const now = list.filter(({ available }) => available).map(({ weight }) => weight)
        const long = list.length + 100 + 6 * (now.length === 0 ? 0 : period(now)) + op.more
        pick(long * list.length > 60_000 ? 50 : long, op.type)
        break
      }
      case 'flip':
        chosen(op.at).forEach(flip)
        break
      case 'failed':
        balancer.report?.(server, report('failed', op.acquired))
        if (op.acquired) scan.failed(server)
        break
      case 'report':
        balancer.report?.(server, report(op.outcome, true))
        break
      case 'exclude': {
        const excluded = chosen(op.at).filter(({ available }) => available)
        excluded.forEach(flip)
        pick(1, op.type)
        excluded.forEach(flip)
        break
      }
      case 'weight':
        server.weight = server.fullWeight = op.weight
        update()
        break
      case 'add':
        list.splice(op.at % (list.length + 1), 0, new Server(op.weight, String(names++)))
        update()
        break
      case 'remove':
        if (list.length > 1) list.splice(op.at % list.length, 1)
        update()
        break
      case 'move':
        list.push(...list.splice(op.at % list.length, 1))
        update()
        break
      case 'update':
        for (const other of chosen(op.flips)) other.available = !other.available
        update()
    }
  }
  pick(20, 'at the end')
  return picks
}

describe('every pick is the one of a plain scan', () => {
  const history = (weights: fc.Arbitrary<number>, maxLength: number) =>
    [
      fc.array(weights, { minLength: 1, maxLength, size: 'max' }),
      fc.array(operation(weights), { minLength: 1, maxLength: 50, size: 'max' }),
    ] as const

  it('over histories of bans, failures, excluded picks and updates, in and out of the remembered cycle', () => {
    const worked = spyOnSmooth()
    let picks = 0
    let recalled = 0
    fc.assert(
      fc.property(...history(smallWeights, 60), (weights, operations) => {
        worked.mockClear()
        const made = replayHistory(weights, operations)
        picks += made
        recalled += made - worked.mock.calls.length
      }),
      { numRuns: 400 },
    )
    // Otherwise the test would say little of the layer that remembers.
    expect(picks).toBeGreaterThan(100_000)
    expect(recalled / picks).toBeGreaterThan(0.1)
  })

  it('with weights up to 2³¹ − 1', () => {
    fc.assert(
      fc.property(...history(hugeWeights, 60), (weights, operations) => void replayHistory(weights, operations)),
      { numRuns: 100 },
    )
  })

  it('over picks so many that the keys of the greatest weights are made anew', () => {
    const weights = [2 ** 31 - 1, 2 ** 31 - 19, 1_999_999_973, 1_073_741_827, 123_456_789, 12_345]
    const { balancer, members } = started(weights)
    const scan = new Scan()
    scan.update(members)
    let wrong = 0
    for (let i = 0; i < 5_000_000; i++) if (balancer.pick(request, NaN) !== scan.pick()) wrong++
    expect(wrong).toBe(0)
  })

  it.each([
    { name: 'two weights', weights: [40_000, 30_001] },
    { name: 'greatest weights', weights: [2 ** 31 - 1, 2 ** 31 - 2, 1] },
    { name: 'one weight more than fits', weights: [65_536, 1] },
    { name: 'the longest that is remembered', weights: [65_535, 1] },
  ])('when the cycle is too long or just not: $name', ({ weights }) => {
    const { balancer, members } = started(weights)
    const scan = new Scan()
    scan.update(members)
    let wrong = 0
    for (let i = 0; i < 400_000; i++) {
      if (balancer.pick(request, NaN) !== scan.pick()) wrong++
      if (i === 350_000) {
        members[0]!.available = false
        balancer.changed?.(members[0]!)
      }
      if (i === 350_010) {
        members[0]!.available = true
        balancer.changed?.(members[0]!)
      }
    }
    expect(wrong).toBe(0)
  })
})

describe('the remembered cycle', () => {
  it.each([
    { weights: [1] },
    { weights: [1, 1, 1] },
    { weights: [5, 1, 1] },
    { weights: [2, 4, 6, 8] },
    { weights: Array.from({ length: 1000 }, (_, i) => 1 + (i % 10)) },
    { weights: [65_535, 1] },
    { weights: [1_000_000, 2_000_000, 3_000_000] },
  ])('answers after a calm while, without working anything out', ({ weights }) => {
    const { balancer } = started(weights)
    const worked = spyOnSmooth()
    picksOf(balancer, weights.length + 5 * period(weights))
    worked.mockClear()
    picksOf(balancer, 1000)
    expect(worked).not.toHaveBeenCalled()
  })

  it('is not kept where it would be longer than 65,536 picks', () => {
    const { balancer } = started([65_536, 1])
    picksOf(balancer, 5 * 65_537)
    const worked = spyOnSmooth()
    picksOf(balancer, 1000)
    expect(worked).toHaveBeenCalledTimes(1000)
  })

  const leaves: { name: string; act: (balancer: Balancer, members: Server[]) => void }[] = [
    {
      name: 'a ban',
      act: (balancer, members) => {
        members[1]!.available = false
        balancer.changed?.(members[1]!)
      },
    },
    { name: 'a failure', act: (balancer, members) => balancer.report?.(members[0]!, report('failed', true)) },
    { name: 'an update', act: (balancer, members) => balancer.update([...members]) },
  ]
  it.each(leaves)('is left after $name, and found again', ({ act }) => {
    const { balancer, members } = started([5, 3, 2])
    picksOf(balancer, 100)
    act(balancer, members)
    const worked = spyOnSmooth()
    picksOf(balancer, 3)
    expect(worked).toHaveBeenCalledTimes(3)
    picksOf(balancer, 100)
    worked.mockClear()
    picksOf(balancer, 100)
    expect(worked).not.toHaveBeenCalled()
  })

  it('is not left by what changes nothing', () => {
    const { balancer, members } = started([5, 3, 2])
    picksOf(balancer, 100)
    const worked = spyOnSmooth()
    balancer.report?.(members[0]!, report('ok', true))
    balancer.report?.(members[0]!, report('neutral', true))
    balancer.report?.(members[0]!, report('failed', false))
    balancer.changed?.(members[0]!)
    picksOf(balancer, 100)
    expect(worked).not.toHaveBeenCalled()
  })

  it('gives every server its exact share in every cycle', () => {
    fc.assert(
      fc.property(
        fc.array(smallWeights, { minLength: 1, maxLength: 20 }),
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (weights, u) => {
          const { balancer, members } = started(weights, u)
          const cycle = period(weights)
          picksOf(balancer, 4 * cycle + weights.length)
          const counts = new Map<Server | undefined, number>()
          for (const server of picksOf(balancer, cycle)) counts.set(server, (counts.get(server) ?? 0) + 1)
          const divisor = weights.reduce(gcd, 0)
          expect(members.map((server) => counts.get(server))).toEqual(weights.map((weight) => weight / divisor))
        },
      ),
      { numRuns: 100 },
    )
  })
})

describe('nginx’s sequence from u = 0', () => {
  it.each([
    { weights: [5, 1, 1], wanted: 'aabacaa' },
    { weights: [4, 2, 1], wanted: 'abacaba' },
    { weights: [3, 2], wanted: 'ababa' },
    { weights: [2, 2, 1], wanted: 'abcab' },
    { weights: [1, 1, 1], wanted: 'abc' },
  ])('$weights: $wanted', ({ weights, wanted }) => {
    const { balancer, members } = started(weights)
    const letters = picksOf(balancer, 3 * wanted.length).map((server) => 'abc'[members.indexOf(server!)])
    expect(letters.join('')).toBe(wanted.repeat(3))
  })
})

describe('the start', () => {
  it('turns equal servers by exactly the share that u says', () => {
    for (const n of [1, 2, 3, 7, 10]) {
      for (let k = 0; k < n; k++) {
        const { balancer, members } = started(
          Array.from({ length: n }, () => 1),
          (k + 0.5) / n,
        )
        const order = picksOf(balancer, n).map((server) => members.indexOf(server!))
        expect(order).toEqual(Array.from({ length: n }, (_, i) => (k + i) % n))
      }
    }
  })

  it.each([
    { weights: [1, 1, 1, 1] },
    { weights: [7, 7, 7] },
    { weights: [5, 1, 1] },
    { weights: [4, 3, 2, 1] },
    { weights: [10, 1, 1, 1, 1, 1, 1, 1, 1, 1] },
    { weights: [100_000, 200_000, 300_000] },
  ])('spreads first picks in proportion to $weights', ({ weights }) => {
    const draws = 4200
    const first = weights.map(() => 0)
    for (let i = 0; i < draws; i++) {
      const { balancer, members } = started(weights, (i + 0.5) / draws)
      first[members.indexOf(balancer.pick(request, NaN) as Server)]!++
    }
    weights.forEach((weight, i) => {
      const share = weight / sum(weights)
      expect(first[i]! / draws).toBeGreaterThan(share * 0.7)
      expect(first[i]! / draws).toBeLessThan(share * 1.3)
    })
  })

  it('leaves out servers that are down', () => {
    const draws = 1200
    const first = [0, 0, 0, 0]
    for (let i = 0; i < draws; i++) {
      const members = servers([1, 1, 1, 1])
      for (const down of [1, 2]) members[down]!.available = members[down]!.healthy = false
      const balancer = start((i + 0.5) / draws)
      balancer.update(members)
      first[members.indexOf(balancer.pick(request, NaN) as Server)]!++
    }
    expect(first).toEqual([draws / 2, 0, 0, draws / 2])
  })

  it('is made at the first update that brings servers', () => {
    const members = servers([1, 1, 1])
    const balancer = start(0.5)
    balancer.update([])
    expect(balancer.pick(request, NaN)).toBeUndefined()
    balancer.update(members)
    expect(picksOf(balancer, 3)).toEqual([members[1], members[2], members[0]])
    const later = servers([1, 1, 1])
    balancer.update(later)
    expect(balancer.pick(request, NaN)).toBe(later[0])
  })

  it('spreads 50 instances that start together', () => {
    let state = 42
    const random = () => (state = (state * 48_271) % 2_147_483_647) / 2_147_483_647
    const counts = new Map<string, number>()
    for (let i = 0; i < 50; i++) {
      const checkups = new Checkups({
        random,
        upstreams: { api: { servers: Array.from({ length: 5 }, (_, port) => ({ host: '10.0.0.1', port: port + 1 })) } },
      })
      const { address } = checkups.selectPeer('api')!
      counts.set(address, (counts.get(address) ?? 0) + 1)
    }
    expect(counts.size).toBe(5)
    expect(Math.max(...counts.values())).toBeLessThanOrEqual(20)
  })
})

interface Place {
  readonly address: string
  weight: number
  down: boolean
  current: number
  effective: number
}

/** The scan again, by address, as the servers of a whole instance. */
function scanPlaces(places: readonly Place[], excluded: ReadonlySet<string> = new Set()): string | undefined {
  let best: Place | undefined
  let total = 0
  for (const place of places) {
    if (place.down || place.weight === 0 || excluded.has(place.address)) continue
    place.current += place.effective
    total += place.effective
    if (place.effective < place.weight) place.effective++
    if (best === undefined || place.current > best.current) best = place
  }
  if (best !== undefined) best.current -= total
  return best?.address
}

type Step =
  | {
      readonly type: 'select' | 'acquire' | 'exclude' | 'add' | 'remove' | 'move' | 'down' | 'told'
      readonly at: number
    }
  | { readonly type: 'weight'; readonly at: number; readonly weight: number }
  | { readonly type: 'done'; readonly at: number; readonly outcome: 'ok' | 'failed' | 'neutral' }

const steps = fc.array(
  fc.oneof(
    {
      weight: 3,
      arbitrary: fc.record({ type: fc.constantFrom('select', 'acquire', 'exclude', 'told'), at: fc.nat(60) }),
    },
    { weight: 2, arbitrary: fc.record({ type: fc.constantFrom('add', 'remove', 'move', 'down'), at: fc.nat(60) }) },
    fc.record({ type: fc.constant('weight' as const), at: fc.nat(60), weight: fc.nat(5) }),
    {
      weight: 3,
      arbitrary: fc.record({
        type: fc.constant('done' as const),
        at: fc.nat(60),
        outcome: fc.constantFrom('ok', 'failed', 'neutral'),
      }),
    },
  ),
  { maxLength: 60, size: 'max' },
) as fc.Arbitrary<Step[]>

describe('through a whole instance', () => {
  const instance = (weights: readonly number[]) => {
    const list = weights.map((weight, i) => ({ host: '10.0.0.1', port: i + 1, weight, maxFails: 0 }))
    return { checkups: new Checkups({ random: () => 0, upstreams: { api: { servers: list } } }), list }
  }
  const ports = (checkups: Checkups, count: number) =>
    Array.from({ length: count }, () => checkups.selectPeer('api')?.port)

  it('a request that fails after its server left weighs on no other', async () => {
    const { checkups, list } = instance([4, 4, 4])
    const pick = checkups.acquirePeer('api')!
    expect(pick.peer.port).toBe(1)
    await checkups.updateUpstream('api', [{ servers: list.slice(1) }])
    pick.done('failed')
    // The other two had 4 each from the pick before, and so go on by turns.
    expect(ports(checkups, 6)).toEqual([2, 3, 2, 3, 2, 3])
  })

  it('a request that fails after its server got weight 0 weighs on no other', async () => {
    const { checkups } = instance([4, 4, 4])
    const pick = checkups.acquirePeer('api')!
    await checkups.setServer('api', pick.peer, { weight: 0 })
    pick.done('failed')
    expect(ports(checkups, 6)).toEqual([2, 3, 2, 3, 2, 3])
  })

  it('a server begins anew when its weight was 0 for a while', async () => {
    const { checkups } = instance([5, 1, 1])
    // Its current weight is now −2, the others' is 1.
    expect(ports(checkups, 1)).toEqual([1])
    await checkups.setServer('api', '10.0.0.1:1', { weight: 0 })
    await checkups.setServer('api', '10.0.0.1:1', { weight: 5 })
    // From 0: 5 beside 2 and 2, then 3 beside 3 and 3.
    expect(ports(checkups, 3)).toEqual([1, 1, 2])
  })

  it('every pick is the one of a plain scan, whatever happens to the list and to the requests in flight', async () => {
    const write = (places: readonly Place[]) =>
      places.map(({ address, weight, down }) => ({ address, weight, down, maxFails: 0 }))
    const history = async (weights: readonly number[], made: readonly Step[]) => {
      let names = 0
      const arrive = (weight: number): Place => {
        const address = `10.0.0.1:${++names}`
        return { address, weight, down: false, current: 0, effective: weight }
      }
      let places = weights.map(arrive)
      const checkups = new Checkups({
        clock: new VirtualClock(),
        random: () => 0,
        upstreams: { api: { servers: write(places) } },
      })
      const open: { pick: NonNullable<ReturnType<Checkups['acquirePeer']>>; place: Place }[] = []
      const update = () => checkups.updateUpstream('api', [{ servers: write(places) }])
      const find = (address: string) => places.find((place) => place.address === address)!

      for (const step of made) {
        const place = places[step.at % places.length]!
        switch (step.type) {
          case 'select':
            for (let i = 0; i < step.at; i++) expect(checkups.selectPeer('api')?.address).toBe(scanPlaces(places))
            break
          case 'acquire': {
            const pick = checkups.acquirePeer('api')
            expect(pick?.peer.address).toBe(scanPlaces(places))
            if (pick !== undefined) open.push({ pick, place: find(pick.peer.address) })
            break
          }
          case 'done': {
            const [request] = open.splice(step.at % (open.length || 1), 1)
            request?.pick.done(step.outcome)
            // One that was removed since takes its effective weight with it.
            if (step.outcome === 'failed' && request !== undefined) {
              request.place.effective = Math.max(1, Math.ceil(request.place.effective / 2))
            }
            break
          }
          case 'told':
            checkups.feedbackStatus('api', { host: '10.0.0.1', port: place.address.split(':')[1]! }, 'failed')
            break
          case 'exclude': {
            const [host, port] = place.address.split(':') as [string, string]
            const peer = checkups.selectPeer('api', { exclude: [{ host, port }] })
            expect(peer?.address).toBe(scanPlaces(places, new Set([place.address])))
            break
          }
          case 'weight':
            if (place.weight !== step.weight) {
              Object.assign(place, { weight: step.weight, current: 0, effective: step.weight })
              await checkups.setServer('api', place.address, { weight: step.weight })
            }
            break
          case 'down':
            place.down = !place.down
            await checkups.setServer('api', place.address, { down: place.down })
            break
          case 'add':
            places.splice(step.at % (places.length + 1), 0, arrive(1 + (step.at % 5)))
            await update()
            break
          case 'remove':
            if (places.length === 1) break
            places = places.filter((other) => other !== place)
            await update()
            if (step.at % 2 === 0) break
            // A return begins anew, and what is still in flight from before is its own.
            places.push({ ...place, current: 0, effective: place.weight, down: false })
            for (const request of open) if (request.place === place) request.place = places.at(-1)!
            await update()
            break
          case 'move':
            places = [...places.filter((other) => other !== place), place]
            await update()
        }
      }
      for (let i = 0; i < 30; i++) expect(checkups.selectPeer('api')?.address).toBe(scanPlaces(places))
    }
    await fc.assert(
      fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 8 }), steps, history),
      {
        numRuns: 300,
      },
    )
  })
})
