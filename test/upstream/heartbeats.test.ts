import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { CheckupsOptions, HeartbeatSchedule, Peer, UpstreamOptions } from '../../src/index.js'
import { seededRandom } from '../../src/testing/index.js'
import { harness, letterOf, level, target } from './harness.js'

const INTERVAL = 1000
const FAIL_TIMEOUT = 10_000
const steady: HeartbeatSchedule = { interval: INTERVAL, fastInterval: INTERVAL, timeout: 300, jitter: 0, fall: 1 }
const passive: UpstreamOptions = { maxFails: 1, failTimeout: FAIL_TIMEOUT }
type Found = 'ok' | 'unstable' | 'err'
const sorted = (picks: string) => [...new Set(picks)].sort().join('')

/** Servers by letter under heartbeats; what these find may be changed at any time. */
function checked(upstream: UpstreamOptions, schedule: HeartbeatSchedule = {}, options: Partial<CheckupsOptions> = {}) {
  const finds = new Map<string, Found>()
  const begun: string[] = []
  const check = (peer: Peer) => {
    begun.push(letterOf(peer))
    const status = finds.get(letterOf(peer)) ?? 'ok'
    return status === 'ok' || { status, message: status === 'err' ? 'ill' : 'lags' }
  }
  const heartbeat = { type: 'custom', check, ...steady, ...schedule } as const
  const made = harness({ ...passive, heartbeat, ...upstream }, options)
  return {
    ...made,
    heartbeat,
    finds,
    begun,
    start: async () => {
      void made.checkups.start()
      await made.clock.advance(INTERVAL)
    },
    /** Lets heartbeats find this of servers by letter. */
    find: async (found: Found, letters: string) => {
      for (const letter of Array.from(letters)) finds.set(letter, found)
      await made.clock.advance(INTERVAL)
    },
    /** Whom picks return, each once. */
    used: () => sorted(made.picks(12)),
    words: (letters: string) => Array.from(letters, (letter) => made.server(letter).health).join(' '),
    /** Events with all that they say, since the last look. */
    why: () =>
      made.events.splice(0).map(({ name, peer, source, reason, lasted, health }) => {
        return [name, letterOf(peer), source, reason, lasted, health]
      }),
  }
}

describe('a ban', () => {
  it('has the server checked at once', async () => {
    const { start, begun, feedback, clock, server, finds } = checked(level('abc'))
    await start()
    begun.length = 0
    finds.set('b', 'err')
    feedback('b')
    expect(server('b').heartbeat).toMatchObject({ found: 'ok' })
    await clock.advance(0)
    expect([begun, server('b').heartbeat?.found]).toEqual([['b'], 'err'])
  })

  it('does so when it begins, and not when it ends', async () => {
    const { start, begun, feedback, clock, server } = checked(level('ab'), { interval: 100 * INTERVAL })
    await start()
    begun.length = 0
    feedback('a')
    await clock.advance(FAIL_TIMEOUT)
    expect([server('a').passive.state, begun.filter((letter) => letter === 'a')]).toEqual(['trial', ['a']])
  })

  it('does not with checkOnBan: false', async () => {
    const { start, begun, feedback, clock } = checked(level('abc'), { checkOnBan: false })
    await start()
    await clock.advance(1)
    begun.length = 0
    feedback('b')
    await clock.advance(0)
    expect(begun).toEqual([])
  })

  it('does not have a server checked that is being checked', async () => {
    let checks = 0
    const made = checked(level('ab'))
    const check = ({ port }: Peer) => (port === 1 && checks++ === 0 ? made.clock.sleep(200).then(() => true) : true)
    await made.checkups.updateUpstream('api', { ...passive, ...level('ab'), heartbeat: { ...made.heartbeat, check } })
    void made.checkups.start()
    await made.clock.advance(100)
    made.feedback('a')
    await made.clock.advance(99)
    expect([checks, made.server('a').heartbeat?.checking]).toEqual([1, true])
    await made.clock.advance(1)
    expect(made.server('a').heartbeat).toMatchObject({ found: 'ok', duration: 200 })
  })

  it('has nobody checked before start', async () => {
    const { feedback, clock, begun } = checked(level('ab'))
    feedback('a')
    await clock.advance(INTERVAL)
    expect(begun).toEqual([])
  })

  it('is not ended by a check that passes', async () => {
    const { start, feedback, clock, server, used } = checked(level('ab'))
    await start()
    feedback('a')
    await clock.advance(5 * INTERVAL)
    expect([server('a').heartbeat?.found, server('a').health, used()]).toEqual(['ok', 'err', 'b'])
  })

  it('is with liftsBan, by the next check; the server is back unproven, with a full count', async () => {
    const { start, feedback, clock, server, why } = checked(level('ab'), { liftsBan: true, checkOnBan: false })
    await start()
    await clock.advance(INTERVAL / 2)
    feedback('a')
    await clock.advance(INTERVAL)
    expect(server('a')).toMatchObject({ health: 'unstable', passive: { state: 'up', bans: 1, failures: 0 } })
    expect(why().slice(0, 2)).toEqual([
      ['peer:down', 'a', 'passive', 'failed once', 1500, 'err'],
      ['peer:up', 'a', 'heartbeat', 'the heartbeat passes', 500, 'unstable'],
    ])
    expect(clock.pending).toBe(2)
  })

  it('is not by one that fails', async () => {
    const { start, feedback, clock, server, find } = checked(level('ab'), { liftsBan: true })
    await start()
    await find('err', 'a')
    feedback('a')
    await clock.advance(2 * INTERVAL)
    expect(server('a').passive.state).toBe('banned')
    await find('unstable', 'a')
    expect(server('a').passive.state).toBe('banned')
    await find('ok', 'a')
    expect(server('a').passive.state).toBe('up')
  })

  it('ends by its time while checks fail, and the server stays out', async () => {
    const { start, feedback, clock, server, told, find } = checked(level('ab'))
    await start()
    feedback('a')
    await find('err', 'a')
    await clock.advance(FAIL_TIMEOUT)
    expect(server('a')).toMatchObject({ health: 'err', available: false, passive: { state: 'trial' } })
    expect(told()).toEqual(['peer:down a'])
    await find('ok', 'a')
    expect(server('a')).toMatchObject({ health: 'unstable', available: true, passive: { state: 'trial' } })
    expect(told()).toEqual(['peer:up a'])
  })
})

describe('the last-available guard', () => {
  it('counts those whose checks fail as out: who is left is not banned (defect E)', async () => {
    const { start, find, feedback, used, words } = checked(level('abc'))
    await start()
    await find('err', 'ab')
    for (let i = 0; i < 5; i++) feedback('c')
    expect([used(), words('abc')]).toEqual(['c', 'err err unstable'])
  })

  it('counts those that are back from a ban as there: another one may be banned (defect D)', async () => {
    const { checkups, start, feedback, used, clock } = checked(level('ab'))
    await start()
    feedback('a')
    await clock.advance(FAIL_TIMEOUT)
    // Back on trial it is not proven, and no reason to ban another; a success proves it.
    for (let i = 0; i < 2; i++) checkups.acquirePeer('api')!.done('ok')
    feedback('b')
    expect(used()).toBe('a')
  })

  it('does not count one that heartbeats call unstable', async () => {
    const { start, find, feedback, used } = checked(level('ab'))
    await start()
    await find('unstable', 'b')
    feedback('a')
    expect(used()).toBe('a')
  })

  it('lifts the ban that ends first when a check takes the last one', async () => {
    const { start, find, feedback, clock, used, why, words } = checked(level('abc'))
    await start()
    feedback('a')
    await clock.advance(100)
    feedback('b')
    why()
    await find('err', 'c')
    expect([used(), words('abc')]).toEqual(['a', 'unstable err err'])
    const [up, down, ...others] = why()
    expect(up?.slice(0, 4)).toEqual(['peer:up', 'a', 'guard', 'nobody else is left'])
    expect(down?.slice(0, 4)).toEqual(['peer:down', 'c', 'heartbeat', 'ill'])
    expect(others).toEqual([])
  })

  it('lifts rather the ban of one whose checks pass than one that ends sooner', async () => {
    const { start, find, feedback, used } = checked(level('abc'))
    await start()
    feedback('a')
    await find('err', 'a')
    feedback('b')
    await find('err', 'c')
    expect(used()).toBe('b')
  })

  it('lifts no ban of one whose checks fail, while another one can be kept', async () => {
    const { start, find, feedback, used, words } = checked(level('ab'))
    await start()
    feedback('a')
    await find('err', 'ab')
    expect([used(), words('ab')]).toEqual(['b', 'err unstable'])
  })

  it('lifts the ban of one whose checks fail where all are banned or put aside', async () => {
    const { start, find, feedback, used, checkups } = checked(level('ab'))
    await start()
    feedback('a')
    await find('err', 'ab')
    await checkups.setServer('api', target('b'), { down: true })
    expect(used()).toBe('a')
  })

  it('lifts no ban without protection', async () => {
    const { start, find, feedback, used } = checked({ ...level('ab'), protected: false })
    await start()
    feedback('a')
    await find('err', 'b')
    expect(used()).toBe('-')
  })

  it.each(['down', 'drain'] as const)('never brings back who is %s by hand', async (admin) => {
    const { start, find, used, checkups } = checked(level('ab'))
    await start()
    await checkups.setServer('api', target('a'), { [admin]: true })
    expect(used()).toBe('b')
    await find('err', 'ab')
    expect(used()).toBe('b')
    await checkups.setServer('api', target('b'), { [admin]: true })
    expect([used(), checkups.unavailableReason('api')]).toEqual(['-', 'down'])
    await find('ok', 'ab')
    expect(used()).toBe('-')
    await checkups.setServer('api', target('a'), { [admin]: false })
    expect(used()).toBe('a')
  })

  it('keeps a lone server, though checks and requests fail', async () => {
    const { start, find, feedback, used, words } = checked(level('a'))
    await start()
    feedback('a')
    await find('err', 'a')
    feedback('a')
    expect([used(), words('a')]).toEqual(['a', 'unstable'])
  })
})

describe('when all are out', () => {
  it('all stay in use', async () => {
    const { start, find, used, words, told } = checked(level('abc', { d: { down: true }, e: { weight: 0 } }))
    await start()
    await find('err', 'abcde')
    expect([used(), words('abcde')]).toEqual(['abc', 'unstable unstable unstable down err'])
    // All but the last were taken out before it was known that all are.
    const [first, second, ...others] = told().filter((one) => !one.endsWith('e'))
    const names = [first, second].map((one) => one!.replace('peer:down ', '')).sort()
    expect(others).toEqual(names.map((name) => `peer:up ${name}`))
  })

  it('the first one that has a weight and is not put aside, with panic first', async () => {
    const upstream = {
      servers: [...level('', { a: { down: true }, b: { weight: 0 } }).servers, ...level('cd').servers],
    }
    const { start, find, used, words, checkups } = checked(upstream, { panic: 'first' })
    await start()
    await find('err', 'abcd')
    expect([used(), words('abcd')]).toEqual(['c', 'down err unstable err'])
    await checkups.setServer('api', target('c'), { drain: true })
    expect(used()).toBe('d')
    await checkups.setServer('api', target('a'), { down: false })
    expect(used()).toBe('a')
  })

  it('one alone with panic first, also when the ban of an earlier one ends', async () => {
    const { start, find, feedback, used, clock, told } = checked(level('abc'), { panic: 'first' })
    await start()
    feedback('a')
    await find('err', 'abc')
    expect(used()).toBe('b')
    told()
    await clock.advance(FAIL_TIMEOUT)
    expect([used(), told()]).toEqual(['a', ['peer:up a', 'peer:down b']])
  })

  it('nobody, without protection', async () => {
    const { start, find, used, words, checkups } = checked({ ...level('ab'), protected: false })
    await start()
    await find('err', 'ab')
    expect([used(), words('ab'), checkups.unavailableReason('api')]).toEqual(['-', 'err err', 'down'])
  })

  it.each([{ protected: false }, { heartbeat: { panic: 'first' } }])(
    'an update may change that: %o',
    async (change) => {
      const { start, find, used, checkups, heartbeat } = checked(level('ab'))
      await start()
      await find('err', 'ab')
      expect(used()).toBe('ab')
      const other = 'heartbeat' in change ? { heartbeat: { ...heartbeat, panic: 'first' as const } } : change
      await checkups.updateUpstream('api', { ...passive, ...level('ab'), heartbeat, ...other })
      expect(used()).toBe('heartbeat' in change ? 'a' : '-')
      await checkups.updateUpstream('api', { ...passive, ...level('ab'), heartbeat })
      expect(used()).toBe('ab')
    },
  )

  it('the recovery of one ends it', async () => {
    const { start, find, used, words, why } = checked(level('abc'))
    await start()
    await find('err', 'abc')
    why()
    await find('ok', 'b')
    expect([used(), words('abc')]).toEqual(['b', 'err ok err'])
    expect(why().map((one) => one.slice(0, 4))).toEqual([
      ['peer:down', 'a', 'guard', 'others are there again'],
      ['peer:down', 'c', 'guard', 'others are there again'],
    ])
  })

  it('a server that comes by an update ends it, too', async () => {
    const { start, find, used, checkups, told } = checked(level('ab'))
    await start()
    await find('err', 'ab')
    told()
    await checkups.addServer('api', target('c'))
    expect([used(), told()]).toEqual(['c', ['upstream:update', 'peer:down a', 'peer:down b']])
  })

  it('unstable ones go before those that are out, and none of these stays', async () => {
    const { start, find, used, words } = checked(level('abc'))
    await start()
    await find('unstable', 'b')
    expect([used(), words('abc')]).toEqual(['ac', 'ok err ok'])
    await find('err', 'ac')
    expect([used(), words('abc')]).toEqual(['b', 'err unstable err'])
    await find('err', 'b')
    expect([used(), words('abc')]).toEqual(['abc', 'unstable unstable unstable'])
    await find('ok', 'a')
    expect([used(), words('abc')]).toEqual(['a', 'ok err err'])
  })

  it('a ban of the last good one is none, and an unstable one is not used in its place', async () => {
    const { start, find, feedback, used, words } = checked(level('ab'))
    await start()
    await find('unstable', 'b')
    feedback('a')
    expect([used(), words('ab')]).toEqual(['a', 'unstable err'])
  })
})

describe('events', () => {
  it('say who, why, by whom and for how long, once each and in order', async () => {
    const { start, find, why, clock } = checked(level('ab'), { fall: 2, rise: 2 })
    await start()
    expect(why()).toEqual([])
    await find('err', 'a')
    expect(why()).toEqual([])
    await clock.advance(3 * INTERVAL)
    await find('ok', 'a')
    await clock.advance(3 * INTERVAL)
    expect(why()).toEqual([
      ['peer:down', 'a', 'heartbeat', 'ill', 3000, 'err'],
      ['peer:up', 'a', 'heartbeat', 'the heartbeat passes', 4000, 'ok'],
    ])
  })

  it('are told once of a server that is out by two', async () => {
    const { start, find, told, feedback, clock } = checked(level('abc'))
    await start()
    feedback('a')
    await find('err', 'a')
    await clock.advance(2 * FAIL_TIMEOUT)
    expect(told()).toEqual(['peer:down a'])
    await find('ok', 'a')
    expect(told()).toEqual(['peer:up a'])
  })

  it('have generations that grow, and status in their listeners that is of their time', async () => {
    const { start, find, checkups, events } = checked(level('abc'))
    const seen: string[] = []
    for (const name of ['peer:down', 'peer:up'] as const) {
      checkups.on(name, ({ peer, health }) => {
        const { servers } = checkups.getStatus().upstreams[0]!.levels[0]!
        seen.push(`${name} ${servers.find((server) => server.address === peer.address)!.health === health}`)
      })
    }
    await start()
    await find('err', 'ab')
    await find('ok', 'b')
    const generations = events.map(({ generation }) => generation!)
    expect(generations.every((one, i) => i === 0 || one > generations[i - 1]!)).toBe(true)
    expect(seen).toEqual(['peer:down true', 'peer:down true', 'peer:up true'])
  })
})

describe('who left', () => {
  it('is unchecked when it comes back, though it was out when it left', async () => {
    const { start, find, checkups, server, picks, heartbeat } = checked(level('abc'))
    await start()
    const pick = checkups.acquirePeer('api')!
    expect(letterOf(pick.peer)).toBe('a')
    await find('err', 'a')
    await checkups.removeServer('api', target('a'))
    await checkups.updateUpstream('api', { ...passive, ...level('abc'), heartbeat })
    expect([server('a').heartbeat?.found, server('a').health]).toEqual(['unchecked', 'ok'])
    expect(sorted(picks(6))).toBe('abc')
    pick.done('ok')
  })

  it('is as good as new where there are no heartbeats any more', async () => {
    const { start, find, checkups, server } = checked(level('abc'))
    await start()
    const pick = checkups.acquirePeer('api')!
    await find('err', 'a')
    await checkups.removeServer('api', pick.peer)
    await checkups.updateUpstream('api', { ...passive, ...level('bc') })
    await checkups.updateUpstream('api', { ...passive, ...level('abc') })
    expect(server('a')).toMatchObject({ health: 'ok', available: true })
    pick.done('ok')
  })
})

describe('the pick sequence', () => {
  it.each(['wrr', 'random', 'least-connections', 'fastest-first', 'consistent-hash'] as const)(
    'of %s is the same with heartbeats and without',
    async (balancer) => {
      await fc.assert(
        fc.asyncProperty(fc.integer(), fc.boolean(), async (seed, ill) => {
          const sequence = async (heartbeats: boolean) => {
            const upstream = { ...level('abcd', { e: { weight: 3 } }), balancer }
            const off = heartbeats ? {} : { heartbeat: false as const }
            const random = seededRandom(seed)
            const made = checked({ ...upstream, ...off }, { jitter: 100, fall: 1000 }, { random })
            void made.checkups.start()
            // Never often enough to be taken out.
            if (ill) made.finds.set('a', 'err')
            let picks = ''
            for (let i = 0; i < 40; i++) {
              await made.clock.advance(i === 20 ? 0 : 97)
              const pick = made.checkups.acquirePeer('api', { hashKey: `k${i}` })!
              picks += letterOf(pick.peer)
              pick.done('ok')
              if (i === 20) await made.checkups.addServer('api', target('f'))
            }
            await made.checkups.close()
            return { picks, checks: made.begun.length, next: random() }
          }
          const withThem = await sequence(true)
          const without = await sequence(false)
          expect(withThem.picks).toBe(without.picks)
          // Not even what the instance draws of its random differs.
          expect(withThem.next).toBe(without.next)
          expect([withThem.checks > 10, without.checks]).toEqual([true, 0])
        }),
        { numRuns: 20 },
      )
    },
  )
})

describe('whatever happens', () => {
  type World = ReturnType<typeof checked>
  type Admin = 'up' | 'down' | 'drain'

  /** What an operator, requests, checks and time may do; letters beyond the list are passed over. */
  const letters = Array.from('abcde')
  const someone = fc.constantFrom(...letters)
  const deed = fc.oneof(
    { weight: 4, arbitrary: fc.record({ does: fc.constant('fails' as const), letter: someone }) },
    { weight: 1, arbitrary: fc.record({ does: fc.constant('answers' as const), letter: someone }) },
    {
      weight: 6,
      arbitrary: fc.record({
        does: fc.constant('is found' as const),
        letter: someone,
        found: fc.constantFrom<Found>('ok', 'ok', 'err', 'err', 'unstable'),
      }),
    },
    {
      weight: 6,
      arbitrary: fc.record({ does: fc.constant('waits' as const), ms: fc.constantFrom(0, 1, 300, 700, 1000, 2500) }),
    },
    {
      weight: 2,
      arbitrary: fc.record({
        does: fc.constant('is set' as const),
        letter: someone,
        admin: fc.constantFrom<Admin>('up', 'up', 'down', 'drain'),
        weight: fc.constantFrom(0, 1, 1, 3),
      }),
    },
    { weight: 1, arbitrary: fc.record({ does: fc.constant('comes or leaves' as const), letter: someone }) },
    { weight: 3, arbitrary: fc.record({ does: fc.constant('is picked' as const) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        does: fc.constant('is done' as const),
        outcome: fc.constantFrom('ok', 'failed', 'neutral'),
      }),
    },
    {
      weight: 1,
      arbitrary: fc.record({
        does: fc.constant('has other options' as const),
        isProtected: fc.boolean(),
        panic: fc.constantFrom('all', 'first'),
        heartbeats: fc.constantFrom(true, true, false),
      }),
    },
  )
  type Deed = typeof deed extends fc.Arbitrary<infer T> ? T : never

  const options = fc.record({
    maxFails: fc.integer({ min: 0, max: 2 }),
    readmit: fc.constantFrom('trial', 'fresh'),
    isProtected: fc.constantFrom(true, true, false),
    panic: fc.constantFrom('all', 'first'),
    rise: fc.integer({ min: 1, max: 2 }),
    fall: fc.integer({ min: 1, max: 2 }),
    defaultDown: fc.boolean(),
    liftsBan: fc.boolean(),
    maxConns: fc.constantFrom(0, 0, 1),
    levels: fc.integer({ min: 1, max: 2 }),
  })

  async function run(given: typeof options extends fc.Arbitrary<infer T> ? T : never, deeds: readonly Deed[]) {
    const { maxFails, readmit, rise, fall, defaultDown, liftsBan, maxConns } = given
    let { isProtected, panic } = given
    let heartbeats = true
    const members = new Map(letters.slice(0, 3).map((letter) => [letter, { admin: 'up', weight: 1 }]))
    const list = () => {
      const servers = Array.from(members, ([letter, { admin, weight }]) => {
        return { ...target(letter), weight, down: admin === 'down', drain: admin === 'drain', maxConns }
      })
      // Of two levels the second has the first server of the other one, too.
      return given.levels === 1
        ? [{ servers }]
        : [{ servers: servers.slice(0, 2) }, { servers: [...servers.slice(2), ...servers.slice(0, 1)] }]
    }
    const upstream = (world?: World): UpstreamOptions => ({
      cluster: list(),
      maxFails,
      failTimeout: 2000,
      readmit,
      protected: isProtected,
      allowEmpty: true,
      ...(world === undefined ? {} : { heartbeat: heartbeats && { ...world.heartbeat, panic } }),
    })
    const world = checked(upstream(), { panic, rise, fall, defaultDown, liftsBan, fastInterval: 300, jitter: 100 })
    const { checkups, clock, finds, events, status } = world
    const update = () => checkups.updateUpstream('api', upstream(world))
    const held: NonNullable<ReturnType<typeof checkups.acquirePeer>>[] = []
    /** Whether a server is in, as its events say. */
    const told = new Map<string, boolean>()
    const isIn = (health: string) => health === 'ok' || health === 'unstable'
    for (const server of status().values()) told.set(server.address, isIn(server.health))
    checkups.on('upstream:update', ({ added, removed }) => {
      for (const peer of removed) told.delete(peer.address)
      for (const peer of added) told.set(peer.address, isIn(status().get(peer.address)!.health))
    })

    const check = () => {
      for (const { name, peer, lasted } of events.splice(0)) {
        expect(name).not.toBe('error')
        if (name !== 'peer:down' && name !== 'peer:up') continue
        expect([name, letterOf(peer), told.get(peer!.address)]).toEqual([name, letterOf(peer), name === 'peer:down'])
        expect(lasted).toBeGreaterThanOrEqual(0)
        told.set(peer!.address, name === 'peer:up')
      }
      const entries = checkups.getStatus().upstreams[0]!.levels.flatMap(({ servers }) => servers)
      const hasWeight = (one: string) =>
        entries.some(({ address: other, server }) => other === one && server.weight! > 0)
      const servers = [...new Map(entries.map((server) => [server.address, server])).values()]
      // Who could be kept, in the order of the list: not who is out until it is checked.
      const candidates = servers.filter(({ address: one, server: { down, drain }, heartbeat }) => {
        const isUnseen = heartbeat?.found === 'err' && heartbeat.rise === 0 && heartbeat.fall === 0
        return !down && !drain && !isUnseen && hasWeight(one)
      })
      const eligible = candidates.filter(({ passive: { state } }) => state !== 'banned')
      const foundOf = ({ heartbeat }: (typeof servers)[number]) => {
        return heartbeat === undefined || heartbeat.found === 'unchecked' ? 'ok' : heartbeat.found
      }
      const best =
        (['ok', 'unstable', 'err'] as const).find((found) => eligible.some((one) => foundOf(one) === found)) ?? 'err'
      const keptFirst = eligible.find((one) => foundOf(one) === 'err')
      for (const server of servers) {
        const {
          address: one,
          server: { down, drain },
          health,
          passive: { state },
        } = server
        const byHand = down ? 'down' : drain ? 'drain' : undefined
        const found = foundOf(server)
        const isKept =
          best === 'err' && isProtected && (panic === 'all' ? eligible.includes(server) : server === keptFirst)
        const isUsable = state !== 'banned' && (found === 'ok' || (found === 'unstable' ? best !== 'ok' : isKept))
        expect([one, isIn(health) ? 'in' : health]).toEqual([one, byHand ?? (isUsable ? 'in' : 'err')])
        if (health === 'ok') expect(found).toBe('ok')
        if (drain) told.set(one, false)
        expect([one, told.get(one)]).toEqual([one, isIn(health)])
      }
      for (const { available, health, server } of entries) {
        if (available) expect([isIn(health), server.weight! > 0]).toEqual([true, true])
      }
      const reason = checkups.unavailableReason('api')
      const pick = checkups.acquirePeer('api')
      expect([reason, pick === undefined]).toEqual([
        pick === undefined ? (reason ?? 'a reason') : undefined,
        reason !== undefined,
      ])
      if (pick === undefined) {
        // With protection somebody is left, while there is anybody who could be kept.
        if (isProtected && candidates.length > 0) expect(reason).toBe('full')
      } else {
        const { server } = servers.find(({ address: one }) => one === pick.peer.address)!
        expect([server.down, server.drain, hasWeight(pick.peer.address)]).toEqual([false, false, true])
        pick.done('neutral')
      }
    }

    void checkups.start()
    await clock.advance(0)
    check()
    for (const deed of deeds) {
      const isMember = 'letter' in deed && members.has(deed.letter)
      if (deed.does === 'fails' && isMember) world.feedback(deed.letter)
      else if (deed.does === 'answers' && isMember) world.feedback(deed.letter, 'ok')
      else if (deed.does === 'is found') finds.set(deed.letter, deed.found)
      else if (deed.does === 'waits') await clock.advance(deed.ms)
      else if (deed.does === 'is set' && isMember) {
        members.set(deed.letter, { admin: deed.admin, weight: deed.weight })
        await update()
      } else if (deed.does === 'comes or leaves') {
        if (!members.delete(deed.letter)) members.set(deed.letter, { admin: 'up', weight: 1 })
        await update()
      } else if (deed.does === 'is picked') {
        const pick = checkups.acquirePeer('api')
        if (pick !== undefined) held.push(pick)
      } else if (deed.does === 'is done') held.shift()?.done(deed.outcome)
      else if (deed.does === 'has other options') {
        isProtected = deed.isProtected
        panic = deed.panic
        heartbeats = deed.heartbeats
        await update()
      }
      check()
    }

    // A ban always ends: with all well, all come back.
    for (const pick of held) pick.done('ok')
    finds.clear()
    for (let i = 0; i < 8; i++) {
      await clock.advance(INTERVAL)
      check()
    }
    const out = [...status().values()].filter(({ server, health }) => !isIn(health) && !server.down && !server.drain)
    expect(out.map(({ address: one }) => one)).toEqual([])
    await checkups.close()
    expect(clock.pending).toBe(0)
  }

  it('somebody is left, operators have the last word, status is what selection does, events are what status says', async () => {
    await fc.assert(fc.asyncProperty(options, fc.array(deed, { minLength: 1, maxLength: 40 }), run), { numRuns: 400 })
  })
})
