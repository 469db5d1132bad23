import { channel, subscribe, unsubscribe } from 'node:diagnostics_channel'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Checkups } from '../src/index.js'
import type {
  Balancer,
  BalancerEnv,
  BalancerFactory,
  HeartbeatMessage,
  Member,
  Outcome,
  OutcomeMessage,
  PickMessage,
  Result,
  StateMessage,
} from '../src/index.js'
import { balancerFactory } from '../src/balancer/registry.js'
import { seededRandom } from '../src/testing/index.js'
import { VirtualClock } from './support/virtual-clock.js'
import { address, harness, letterOf, level, target } from './upstream/harness.js'

interface Messages {
  readonly 'checkups:pick': PickMessage
  readonly 'checkups:outcome': OutcomeMessage
  readonly 'checkups:heartbeat': HeartbeatMessage
  readonly 'checkups:state': StateMessage
}

/** Listens until `stop` is called or the test is over. */
function listen<N extends keyof Messages>(name: N, listener: (message: Messages[N]) => void): () => void {
  const onMessage = (message: unknown) => listener(message as Messages[N])
  const stop = () => void unsubscribe(name, onMessage)
  subscribe(name, onMessage)
  onTestFinished(stop)
  return stop
}

/** All that a channel says from now on. */
function messages<N extends keyof Messages>(name: N): Messages[N][] {
  const said: Messages[N][] = []
  listen(name, (message) => void said.push(message))
  return said
}

const abort = Object.assign(new Error('gone'), { name: 'AbortError' })

describe('checkups:pick', () => {
  /** As `a`, `A` if acquired, with a `+` if it is a retry; `-` for nobody. */
  const short = ({ peer, acquired, retry }: PickMessage) =>
    `${acquired ? letterOf(peer).toUpperCase() : letterOf(peer)}${retry ? '+' : ''}`

  it('tells every pick, whether it is acquired, and of whom', () => {
    const { checkups } = harness(level('abc'))
    const said = messages('checkups:pick')
    const peer = checkups.selectPeer('api')
    const handle = checkups.upstream('api')
    const pick = handle.acquirePeer()!
    handle.selectPeer({ hashKey: 'x' })
    checkups.selectPeer('api', { exclude: [target('a')] })
    expect(said.map(short)).toEqual(['a', 'B', 'c', 'b'])
    expect(said[0]).toEqual({ checkups, upstream: 'api', peer, acquired: false, retry: false })
    expect(said[0]!.peer).toBe(peer)
    expect(said[1]!.peer).toBe(pick.peer)
  })

  it('tells that nobody was available, once each time', () => {
    const { checkups } = harness(level('a', { b: { down: true } }))
    const said = messages('checkups:pick')
    const exclude = [target('a')]
    expect([checkups.selectPeer('api', { exclude }), checkups.acquirePeer('api', { exclude })]).toEqual([
      undefined,
      undefined,
    ])
    expect(said).toEqual([
      { checkups, upstream: 'api', peer: undefined, acquired: false, retry: false },
      { checkups, upstream: 'api', peer: undefined, acquired: true, retry: false },
    ])
  })

  it('tells once of a pick that leaves the steady path', async () => {
    // On trial, of the second level, by a policy of one's own that declines.
    const declines: BalancerFactory = () => ({ update: () => undefined, pick: () => undefined })
    const { checkups, clock, feedback, picks } = harness({
      cluster: [level('ab'), level('c')],
      failTimeout: 1_000,
    })
    feedback('a')
    await clock.advance(1_000)
    const said = messages('checkups:pick')
    expect(picks(3)).toBe('abb')
    await checkups.setServer('api', address('a'), { down: true })
    await checkups.setServer('api', address('b'), { down: true })
    expect(picks(1)).toBe('c')
    await checkups.updateUpstream('api', { ...level('ab'), balancer: declines })
    expect(picks(1)).toBe('-')
    expect(said.map(short).join('')).toBe('abbc-')
  })

  it('tells of every attempt of readyOk; a further one is a retry, also where nobody is left', async () => {
    const { checkups } = harness({ ...level('ab'), maxFails: 0 })
    const said = messages('checkups:pick')
    await checkups.readyOk('api', (peer) => letterOf(peer) === 'b')
    await expect(checkups.readyOk('api', () => false, { tries: 3 })).rejects.toMatchObject({
      code: 'ERR_CHECKUPS_NO_PEER',
    })
    expect(said.map(short)).toEqual(['A', 'B+', 'B', 'A+', '-+'])
  })

  it('says nothing of what only looks', () => {
    const { checkups, feedback } = harness(level('ab'))
    const said = messages('checkups:pick')
    checkups.getStatus()
    checkups.unavailableReason('api')
    feedback('a')
    expect(said).toEqual([])
  })

  it('who picks when told of one finds that one counted', async () => {
    const first: BalancerFactory = () => {
      let members: readonly Member[] = []
      return { update: (list) => void (members = list), pick: () => members.find(({ available }) => available) }
    }
    const { checkups, clock, feedback } = harness({
      ...level('a', { b: { maxConns: 1 }, c: {} }),
      balancer: first,
      failTimeout: 1_000,
    })
    feedback('a')
    await clock.advance(1_000)
    // The slot of a's trial is taken by selectPeer, and b's only connection by acquirePeer.
    const nested: string[] = []
    let within = false
    listen('checkups:pick', () => {
      if (within) return
      within = true
      nested.push(letterOf(checkups.selectPeer('api')))
      within = false
    })
    const picked = [checkups.selectPeer('api'), checkups.acquirePeer('api')?.peer].map(letterOf)
    expect([picked.join(''), nested.join('')]).toEqual(['ab', 'bc'])
  })

  it('is silent for who has stopped listening', () => {
    const { picks } = harness(level('ab'))
    const said: PickMessage[] = []
    const stop = listen('checkups:pick', (message) => void said.push(message))
    picks(1)
    stop()
    picks(5)
    expect(said).toHaveLength(1)
    expect(channel('checkups:pick').hasSubscribers).toBe(false)
  })
})

// Under a policy that takes no times, the time is read only for those who listen.
describe.each(['wrr', 'fastest-first'] as const)('checkups:outcome, under %s', (balancer) => {
  const world = () => harness({ ...level('a'), balancer, maxFails: 0 })

  it('tells the time to the answer, however long the request goes on', () => {
    const { checkups, clock } = world()
    const said = messages('checkups:outcome')
    const pick = checkups.acquirePeer('api')!
    clock.advanceSync(30)
    pick.answered(200)
    clock.advanceSync(20)
    // The first call counts.
    pick.answered(500)
    clock.advanceSync(5_000)
    expect(said).toEqual([])
    pick.done({ status: 200 })
    expect(said).toEqual([
      { checkups, upstream: 'api', peer: pick.peer, outcome: 'ok', status: 200, ms: 30, acquired: true },
    ])
    expect(said[0]!.peer).toBe(pick.peer)
  })

  it('tells the time to the end of one that was not answered', () => {
    const { checkups, clock } = world()
    const said = messages('checkups:outcome')
    const pick = checkups.acquirePeer('api')!
    clock.advanceSync(70)
    pick.done('failed')
    expect(said).toEqual([
      { checkups, upstream: 'api', peer: pick.peer, outcome: 'failed', status: 0, ms: 70, acquired: true },
    ])
  })

  it('tells the time to an answer that was bad, or broke off', () => {
    const { checkups, clock } = world()
    const said = messages('checkups:outcome')
    for (const status of [503, 200]) {
      const pick = checkups.acquirePeer('api')!
      clock.advanceSync(10)
      pick.answered(status)
      clock.advanceSync(90)
      pick.done(status === 503 ? { status } : new Error('socket hang up'))
    }
    expect(said.map(({ outcome, status, ms }) => [outcome, status, ms])).toEqual([
      ['failed', 503, 10],
      ['failed', 0, 10],
    ])
  })

  it('comes before what follows from it, with the time until then', () => {
    const { checkups, clock } = harness({ ...level('ab'), balancer })
    const order: unknown[] = []
    listen('checkups:state', ({ event }) => void order.push(event.type))
    listen('checkups:outcome', ({ ms }) => void order.push(ms))
    checkups.on('peer:down', () => clock.advanceSync(1_000))
    const pick = checkups.acquirePeer('api')!
    clock.advanceSync(10)
    pick.done('failed')
    expect(order).toEqual([10, 'peer:down'])
  })

  it('tells each request once', () => {
    const { checkups } = world()
    const said = messages('checkups:outcome')
    const pick = checkups.acquirePeer('api')!
    pick.done('ok')
    pick.done('failed')
    pick.answered()
    pick[Symbol.dispose]()
    expect(said.map(({ outcome }) => outcome)).toEqual(['ok'])
  })

  it.each<[Outcome, string, number]>([
    ['ok', 'ok', 0],
    ['neutral', 'neutral', 0],
    [true, 'failed', 0],
    [false, 'ok', 0],
    [{ status: 204 }, 'ok', 204],
    [{ status: 404 }, 'ok', 404],
    [{ status: 502 }, 'failed', 502],
    [new Response(null, { status: 503 }), 'failed', 503],
    [new Error('refused'), 'failed', 0],
    [abort, 'neutral', 0],
  ])('%o is %s with status %i, by handle and by feedbackStatus', (outcome, verdict, status) => {
    const { checkups } = world()
    const said = messages('checkups:outcome')
    const pick = checkups.acquirePeer('api')!
    pick.done(outcome)
    checkups.feedbackStatus('api', target('a'), outcome)
    expect(said).toEqual([
      { checkups, upstream: 'api', peer: pick.peer, outcome: verdict, status, ms: 0, acquired: true },
      { checkups, upstream: 'api', peer: pick.peer, outcome: verdict, status, ms: NaN, acquired: false },
    ])
  })

  it('a handle that leaves its scope without an outcome was neutral', () => {
    const { checkups } = world()
    const said = messages('checkups:outcome')
    {
      using pick = checkups.acquirePeer('api')!
      expect(letterOf(pick.peer)).toBe('a')
    }
    expect(said.map(({ outcome }) => outcome)).toEqual(['neutral'])
  })

  it('of a request that was under way before anybody listened the time is not known, unless the policy took it', () => {
    const { checkups, clock } = world()
    const [answered, silent] = [checkups.acquirePeer('api')!, checkups.acquirePeer('api')!]
    clock.advanceSync(10)
    const said = messages('checkups:outcome')
    answered.answered()
    clock.advanceSync(10)
    answered.done('ok')
    silent.done('ok')
    expect(said.map(({ ms }) => ms)).toEqual(balancer === 'wrr' ? [NaN, NaN] : [10, 20])
  })

  it('whoever stops listening meanwhile harms nobody', () => {
    const { checkups, server } = world()
    const stop = listen('checkups:outcome', () => expect.unreachable())
    const picks = [checkups.acquirePeer('api')!, checkups.acquirePeer('api')!]
    stop()
    picks[0]!.answered()
    for (const pick of picks) pick.done('ok')
    expect(server('a').inFlight).toBe(0)
  })

  it('tells of requests that end after their peer has left, or their upstream', async () => {
    const { checkups } = world()
    const said = messages('checkups:outcome')
    const [first, second] = [checkups.acquirePeer('api')!, checkups.acquirePeer('api')!]
    await checkups.updateUpstream('api', [level('b')])
    first.done('failed')
    // Who is told only the address can do nothing with it any more.
    expect(checkups.feedbackStatus('api', target('a'), 'failed')).toBe(false)
    await checkups.deleteUpstream('api')
    second.done('ok')
    expect(said.map(({ peer, outcome }) => [letterOf(peer), outcome])).toEqual([
      ['a', 'failed'],
      ['a', 'ok'],
    ])
  })

  it('tells every attempt of readyOk', async () => {
    const { checkups, clock } = harness({ ...level('abc'), balancer, maxFails: 0, statuses: { 404: 'next' } })
    const said = messages('checkups:outcome')
    let attempts = 0
    const work = checkups.readyOk('api', async (_peer, attempt) => {
      const status = [500, 404, 200][attempts++]!
      await clock.sleep(attempts * 10)
      attempt.answered(status)
      await clock.sleep(1)
      return { status }
    })
    await clock.advance(1_000)
    await work
    expect(said.map(({ outcome, status, ms, acquired }) => [outcome, status, ms, acquired])).toEqual([
      ['failed', 500, 10, true],
      ['neutral', 404, 20, true],
      ['ok', 200, 30, true],
    ])
    expect(new Set(said.map(({ peer }) => peer)).size).toBe(3)
  })
})

describe('checkups:heartbeat', () => {
  it('tells every check with what it found and how long it took', async () => {
    const takes = new Map([
      ['a', { ms: 10, status: 'ok' }],
      ['b', { ms: 40, status: 'unstable' }],
      ['c', { ms: 500, status: 'ok' }],
    ] as const)
    const { checkups, clock } = harness({
      ...level('abc'),
      heartbeat: {
        ...{ type: 'custom', interval: 1_000, fastInterval: 1_000, timeout: 100, jitter: 0, fall: 2 },
        check: async (peer) => {
          const { ms, status } = takes.get(letterOf(peer) as 'a')!
          await clock.sleep(ms)
          return { status }
        },
      },
    })
    const said = messages('checkups:heartbeat')
    void checkups.start()
    await clock.advance(2_000)
    await checkups.close()
    const of = (letter: string) => said.filter(({ peer }) => letterOf(peer) === letter)
    const [message] = of('a')
    expect(message).toEqual({ checkups, upstream: 'api', peer: checkups.selectPeer('api'), status: 'ok', ms: 10 })
    expect(of('a').map(({ status, ms }) => [status, ms])).toEqual([
      ['ok', 10],
      ['ok', 10],
    ])
    expect(of('b').map(({ status, ms }) => [status, ms])).toEqual([
      ['unstable', 40],
      ['unstable', 40],
    ])
    // What a check finds is told, not what `fall` makes of it.
    expect(of('c').map(({ status, ms }) => [status, ms])).toEqual([
      ['err', 100],
      ['err', 100],
    ])
  })

  it('says nothing of a check whose peer has left', async () => {
    const { checkups, clock } = harness({
      ...level('ab'),
      heartbeat: { type: 'custom', defaultDown: true, timeout: 100, check: () => clock.sleep(50).then(() => true) },
    })
    const said = messages('checkups:heartbeat')
    void checkups.start()
    await clock.advance(0)
    await checkups.updateUpstream('api', [level('b')])
    await clock.advance(100)
    const count = said.length
    expect(new Set(said.map(({ peer }) => letterOf(peer)))).toEqual(new Set(['b']))
    await checkups.deleteUpstream('api')
    await clock.advance(60_000)
    expect(said).toHaveLength(count)
  })
})

describe('checkups:state', () => {
  it('tells the events that listeners have', async () => {
    const { checkups, events, feedback, clock } = harness({ ...level('ab'), failTimeout: 1_000 })
    // What was told before anybody listened is not told again.
    events.length = 0
    const said = messages('checkups:state')
    feedback('a')
    await clock.advance(1_000)
    await checkups.setServer('api', address('b'), { drain: true })
    await checkups.updateUpstream('api', [level('a')])
    await checkups.deleteUpstream('api')
    expect(said.map(({ event }) => event.type)).toEqual([
      'peer:down',
      'peer:up',
      'upstream:update',
      'peer:drained',
      'upstream:update',
      'upstream:delete',
    ])
    expect(said.map(({ event }) => ({ name: event.type, ...event }))).toEqual(events)
    expect(said.every((message) => message.checkups === checkups)).toBe(true)
  })

  it('tells what a listener sets off after what set it off', () => {
    const { checkups, feedback } = harness(level('ab'))
    const said = messages('checkups:state')
    checkups.on('peer:down', ({ peer }) => void checkups.removeServer('api', peer.address))
    feedback('a')
    expect(said.map(({ event }) => event.type)).toEqual(['peer:down', 'upstream:update'])
  })

  it('tells what becomes of sources', async () => {
    const clock = new VirtualClock()
    const said = messages('checkups:state')
    let asks = 0
    const source = {
      name: 'hand',
      watch: async (apply: (lists: { upstreams: Record<string, { servers: string[] }[]> }) => void) => {
        if (asks++ > 0) throw new Error('connection refused')
        apply({ upstreams: { api: [{ servers: ['10.0.0.1:80'] }] } })
      },
    }
    const checkups = new Checkups({ clock, sources: [source] })
    void checkups.start()
    await clock.advance(1_000)
    await checkups.close()
    expect(said.map(({ event }) => event.type)).toEqual(['upstream:update', 'source:up', 'source:error'])
    expect(said[2]!.event).toMatchObject({ source: 'hand', error: new Error('connection refused') })
  })
})

describe('two instances with the same upstream', () => {
  it('are told apart by `checkups`, on every channel', async () => {
    const heartbeat = { type: 'custom', interval: 1_000, check: () => true } as const
    const worlds = [0, 1].map(() => harness({ ...level('ab'), heartbeat }))
    const names = ['checkups:pick', 'checkups:outcome', 'checkups:heartbeat', 'checkups:state'] as const
    const said = names.map((name) => messages(name))
    for (const { checkups, clock, feedback } of worlds) {
      void checkups.start()
      await clock.advance(1_000)
      checkups.acquirePeer('api')!.done('ok')
      feedback('a')
      await checkups.close()
    }
    for (const list of said) {
      const counts = worlds.map(({ checkups }) => list.filter((message) => message.checkups === checkups).length)
      expect(counts[0]).toBeGreaterThan(0)
      expect(counts).toEqual([list.length / 2, list.length / 2])
    }
  })
})

/** A run by chance, on a clock of its own: who is picked, and all that the policy is told. */
function seededRun(factory: BalancerFactory): unknown[] {
  const seen: unknown[] = []
  const clock = new VirtualClock()
  const random = seededRandom(7)
  const chance = seededRandom(8)
  const balancer = (env: BalancerEnv): Balancer => {
    const policy = factory(env)
    return {
      ...(policy.timed === true && { timed: true }),
      update: (members) => policy.update(members),
      changed: (member) => policy.changed?.(member),
      acquired: (member) => policy.acquired?.(member),
      released: (member) => policy.released?.(member),
      pick: (request, now) => {
        const member = policy.pick(request, now)
        seen.push(['pick', member?.peer.address, now])
        return member
      },
      report: (member, { outcome, status, ms, now, acquired }: Result) => {
        seen.push(['report', member.peer.address, outcome, status, ms, now, acquired])
        policy.report?.(member, { outcome, status, ms, now, acquired })
      },
    }
  }
  const upstream = { ...level('abcdef'), balancer, maxFails: 3, failTimeout: 300 }
  const checkups = new Checkups({ clock, random, upstreams: { api: upstream } })
  for (let i = 0; i < 2_000; i++) {
    const draw = chance()
    if (draw < 0.3) checkups.selectPeer('api')
    else if (draw < 0.4) checkups.feedbackStatus('api', target('abcdef'[i % 6]!), draw < 0.35 ? 'failed' : 'ok')
    else {
      const pick = checkups.acquirePeer('api')
      if (pick === undefined) seen.push('nobody')
      else {
        const answer = clock.now() + chance() * 50
        if (chance() < 0.7) clock.at(answer, () => pick.answered(chance() < 0.1 ? 503 : 200))
        clock.at(answer + chance() * 50, () => pick.done(chance() < 0.2 ? 'failed' : { status: 200 }))
      }
    }
    clock.advanceSync(chance() * 5)
  }
  clock.advanceSync(1_000)
  return seen
}

describe('whoever listens changes nothing', () => {
  it.each(['wrr', 'fastest-first'])('%s picks the same and is told the same', (name) => {
    const factory = balancerFactory('', 'balancer', name)
    const alone = seededRun(factory)
    const counts = { 'checkups:pick': 0, 'checkups:outcome': 0, 'checkups:state': 0, 'checkups:heartbeat': 0 }
    for (const about of Object.keys(counts) as (keyof typeof counts)[]) listen(about, () => counts[about]++)
    const heard = seededRun(factory)
    expect(heard).toEqual(alone)
    expect(alone.length).toBeGreaterThan(2_000)
    expect([counts['checkups:pick'] > 1_500, counts['checkups:outcome'] > 1_000]).toEqual([true, true])
    // Bans and returns are part of it.
    expect(counts['checkups:state']).toBeGreaterThan(10)
  })
})

describe('a listener that throws', () => {
  // The channel catches it and throws it again on the next tick: an uncaught exception, which ends a process that does not
  // expect one. So it is caught here by the process's own hook; what Vitest would make of it is a failed run.
  it('disturbs neither who picks nor other listeners; Node reports it on the next tick', async () => {
    const uncaught: unknown[] = []
    process.setUncaughtExceptionCaptureCallback((error) => void uncaught.push(error))
    onTestFinished(() => process.setUncaughtExceptionCaptureCallback(null))
    const { checkups, server } = harness(level('ab'))
    const thrown = ['pick', 'outcome', 'state'].map((name) => new Error(name))
    for (const [i, name] of (['checkups:pick', 'checkups:outcome', 'checkups:state'] as const).entries()) {
      listen(name, () => {
        throw thrown[i]!
      })
    }
    const said = messages('checkups:pick')
    const pick = checkups.acquirePeer('api')!
    expect(letterOf(pick.peer)).toBe('a')
    expect(server('a').inFlight).toBe(1)
    pick.done('failed')
    expect(server('a')).toMatchObject({ inFlight: 0, health: 'err' })
    expect([said.length, uncaught.length]).toEqual([1, 0])
    await new Promise((resolve) => setImmediate(resolve))
    expect(new Set(uncaught)).toEqual(new Set(thrown))
  })
})
