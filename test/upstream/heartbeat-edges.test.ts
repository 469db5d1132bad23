/** Heartbeats at the edges of an instance's life: before the first check, at its end, where several things change at once. */
import { describe, expect, it, vi } from 'vitest'
import { Checkups, toCheckupsStatus } from '../../src/index.js'
import type {
  CheckupsOptions,
  CheckupsServerStatus,
  HeartbeatSchedule,
  Peer,
  UpstreamOptions,
} from '../../src/index.js'
import { firstHeartbeat, nextHeartbeat, paceOf } from '../../src/health/heartbeat.js'
import { seededRandom } from '../../src/testing/index.js'
import { VirtualClock } from '../support/virtual-clock.js'
import { harness, letterOf, level } from './harness.js'

const beat = (check: (peer: Peer) => unknown, options: HeartbeatSchedule = {}) =>
  ({
    type: 'custom',
    interval: 1000,
    fastInterval: 1000,
    timeout: 300,
    jitter: 0,
    fall: 1,
    ...options,
    check: check as () => boolean,
  }) as const
const never = () => new Promise(() => {})

it('defaultDown keeps everybody out until checked, also with protected (the default)', () => {
  const { picks } = harness({ ...level('abc'), heartbeat: beat(never, { defaultDown: true }) })
  expect(picks(3)).toBe('---')
})

it('close begins no check of those that wait in line', async () => {
  let begun = 0
  const { checkups, clock } = harness(
    { ...level('abc'), heartbeat: beat(() => (begun++, never()), { timeout: 5000 }) },
    { concurrency: 1 },
  )
  await checkups.start()
  await clock.advance(1000)
  expect(begun).toBe(1)
  await checkups.close()
  expect(begun).toBe(1)
})

it('a deletion begins none either', async () => {
  const begun: string[] = []
  const heartbeat = beat((peer) => (begun.push(letterOf(peer)), never()), { timeout: 5000 })
  const { checkups, clock } = harness({ ...level('abcdefgh'), heartbeat }, { concurrency: 1 })
  await checkups.start()
  await clock.advance(1000)
  expect(begun.length).toBe(1)
  await checkups.deleteUpstream('api')
  expect(begun.length).toBe(1)
})

it('a second start() waits for the first checks, too', async () => {
  const { checkups, clock } = harness({
    ...level('a'),
    protected: false,
    heartbeat: beat(never, { defaultDown: true }),
  })
  let ready = ''
  void checkups.start().then(() => (ready += '1'))
  void checkups.start().then(() => (ready += '2'))
  await clock.advance(100)
  expect(ready).toBe('')
})

it('unstable that has begun to turn is looked at sooner', () => {
  const rules = { rise: 2, fall: 1, defaultDown: false }
  const unstable = nextHeartbeat(firstHeartbeat(rules), { status: 'unstable' }, rules)
  const turning = nextHeartbeat(unstable, { status: 'ok' }, rules)
  expect([turning.found, turning.successes, paceOf(turning)]).toEqual(['unstable', 1, 'changing'])
})

it('after first checks made at once (defaultDown), the next ones are spread over the interval', async () => {
  const at: number[] = []
  const clock = new VirtualClock()
  const servers = Array.from({ length: 50 }, (_, i) => ({ host: '10.0.0.1', port: i + 1 }))
  const heartbeat = beat(() => at.push(clock.now()) > 0, { defaultDown: true, interval: 10_000, jitter: 1000 })
  const checkups = new Checkups({ clock, random: seededRandom(1), upstreams: { api: { servers, heartbeat } } })
  void checkups.start()
  await clock.advance(60_000)
  expect(at.filter((time) => time > 1 && time < 9000).length).toBeGreaterThan(20)
})

it('lag is not the part of a timeout that is beyond the interval', async () => {
  const { checkups, clock } = harness({ ...level('a'), heartbeat: beat(never, { timeout: 5000 }) })
  await checkups.start()
  await clock.advance(20_000)
  expect(checkups.getStatus().heartbeats.lag).toBe(0)
})

it('after close status says what picks go by', async () => {
  const { checkups, clock, picks } = harness({ ...level('ab'), heartbeat: beat((peer) => letterOf(peer) === 'b') })
  await checkups.start()
  await clock.advance(1000)
  await checkups.close()
  expect(picks(2)).toBe('bb')
  const [[a]] = toCheckupsStatus(checkups.getStatus())['cls:api'] as [[CheckupsServerStatus]]
  expect(a.status).toBe('err')
})

it('since is NaN for a server that is unchecked again', async () => {
  const upstream: UpstreamOptions = { ...level('ab'), heartbeat: beat(() => true) }
  const { checkups, clock, server } = harness(upstream)
  await checkups.start()
  await clock.advance(1000)
  await checkups.updateUpstream('api', { ...upstream, heartbeat: false })
  await checkups.updateUpstream('api', upstream)
  expect(server('a').heartbeat).toMatchObject({ found: 'unchecked', since: NaN })
})

it('the end of heartbeats is no guard’s doing', async () => {
  const { checkups, clock, events } = harness({ ...level('ab'), heartbeat: beat((peer) => letterOf(peer) === 'b') })
  await checkups.start()
  await clock.advance(1000)
  events.length = 0
  await checkups.updateUpstream('api', level('ab'))
  const [up] = events.filter(({ name }) => name === 'peer:up')
  expect([up?.source, up?.reason]).not.toEqual(['guard', 'nobody else is left'])
})

it('the end of heartbeats is no operator’s doing, where the server has changed, too', async () => {
  const { checkups, clock, events } = harness({ ...level('ab'), heartbeat: beat((peer) => letterOf(peer) === 'b') })
  await checkups.start()
  await clock.advance(1000)
  events.length = 0
  await checkups.updateUpstream('api', level('b', { a: { weight: 2 } }))
  const [up] = events.filter(({ name }) => name === 'peer:up')
  expect([up?.source, up?.reason]).not.toEqual(['admin', 'up'])
})

it('heartbeats leave the sequences of upstreams alone that are made after start()', async () => {
  const sequence = async (heartbeat: UpstreamOptions['heartbeat']) => {
    const options: Partial<CheckupsOptions> = { random: seededRandom(5) }
    const { checkups } = harness({ ...level('a'), heartbeat }, options)
    if (heartbeat !== false) await checkups.start()
    await checkups.updateUpstream('new', { ...level('abcdefg'), balancer: 'random' })
    return Array.from({ length: 20 }, () => letterOf(checkups.selectPeer('new'))).join('')
  }
  expect(await sequence(beat(() => true))).toBe(await sequence(false)) // start() draws one number of the instance's random
})

describe('start', () => {
  it('the warning is not given after start() was called', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
    const { checkups } = harness({ ...level('a'), heartbeat: beat(() => true) })
    const ready = checkups.start()
    checkups.selectPeer('api') // in the same turn
    await ready
    const calls = [...warned.mock.calls]
    warned.mockRestore()
    expect(calls).toEqual([])
  })

  it('a source that is slow does not keep configured upstreams from being checked', async () => {
    let checks = 0
    const silent = { name: 'silent', watch: () => new Promise<void>(() => {}) }
    const { checkups, clock } = harness({ ...level('a'), heartbeat: beat(() => ++checks > 0) }, { sources: [silent] })
    void checkups.start()
    await clock.advance(4000)
    expect(checks).toBeGreaterThan(0)
    await checkups.close()
  })
})

describe('a peer that is out until it is checked', () => {
  it('is kept when the first checks of all have failed', async () => {
    const { checkups, clock, picks } = harness({ ...level('ab'), heartbeat: beat(() => false, { defaultDown: true }) })
    void checkups.start()
    await clock.advance(10_000)
    expect(picks(2)).toBe('ab')
  })

  it('a ban is lifted where only one is left that was not checked yet', async () => {
    const bad = new Set<string>()
    const heartbeat = beat((peer) => (letterOf(peer) === 'c' ? never() : !bad.has(letterOf(peer))), {
      defaultDown: true,
    })
    const { checkups, clock, picks, feedback } = harness({
      ...level('ab'),
      maxFails: 1,
      failTimeout: 60_000,
      heartbeat,
    })
    void checkups.start()
    await clock.advance(1000)
    feedback('a')
    bad.add('a')
    await clock.advance(1000)
    await checkups.updateUpstream('api', [level('ac')])
    expect(picks(2)).toBe('aa')
  })
})
