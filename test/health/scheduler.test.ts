import fc from 'fast-check'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Checkups, isCheckupsError } from '../../src/index.js'
import type { CheckupsOptions, Clock, CustomProbeOptions, HeartbeatSchedule, UpstreamOptions } from '../../src/index.js'
import { seededRandom } from '../../src/testing/index.js'
import { VirtualClock } from '../support/virtual-clock.js'
import { harness, letterOf, level, target } from '../upstream/harness.js'

type Context = Parameters<CustomProbeOptions['check']>[1]
/** How the check of a server, by letter, is answered. */
type Answer = (letter: string, context: Context, clock: VirtualClock) => unknown

const INTERVAL = 1000
const TIMEOUT = 300
const steady: HeartbeatSchedule = { interval: INTERVAL, fastInterval: INTERVAL, timeout: TIMEOUT, jitter: 0, fall: 1 }
const never: Answer = () => new Promise<never>(() => {})
const failing = (...letters: string[]): Answer => {
  return (letter) => (letters.includes(letter) ? { status: 'err', message: 'ill' } : true)
}

/** Servers by letter under heartbeats, and every check that has begun. */
function checked(
  upstream: UpstreamOptions,
  answer: Answer = () => true,
  schedule: HeartbeatSchedule = {},
  options: Partial<CheckupsOptions> = {},
) {
  const begun: { letter: string; at: number }[] = []
  const check = (peer: { port: number }, context: Context) => {
    const letter = letterOf(peer as Parameters<typeof letterOf>[0])
    begun.push({ letter, at: made.clock.now() })
    return answer(letter, context, made.clock) as boolean
  }
  const heartbeat = { type: 'custom', check, ...steady, ...schedule } as const
  const made = harness({ heartbeat, ...upstream }, options)
  return {
    ...made,
    heartbeat,
    begun,
    /** When the checks of one began. */
    times: (letter: string) => begun.filter((one) => one.letter === letter).map(({ at }) => at),
    found: (letter: string) => made.server(letter).heartbeat?.found,
    scheduler: () => made.checkups.getStatus().heartbeats,
    /** Starts, without waiting for the first checks, and lets time pass. */
    start: async (ms = 0) => {
      void made.checkups.start()
      await made.clock.advance(ms)
    },
  }
}

const sorted = (picks: string) => Array.from(picks).sort().join('')
const gaps = (times: readonly number[]) => times.slice(1).map((at, i) => at - times[i]!)
/** `count` servers a, b, …, and on beyond z. */
const many = (count: number): UpstreamOptions => ({
  servers: Array.from({ length: count }, (_, i) => target(String.fromCharCode(97 + i))),
})
const letter = (index: number) => String.fromCharCode(97 + index)

const warned = () => {
  const spy = vi.spyOn(process, 'emitWarning').mockImplementation(() => {})
  onTestFinished(() => spy.mockRestore())
  return spy
}

describe('many at once', () => {
  it.each([TIMEOUT, INTERVAL, 5 * INTERVAL])(
    '100 silent servers do not delay another one, timeout %d',
    async (timeout) => {
      const last = letter(100)
      const answer: Answer = (one, ...rest) => one === last || never(one, ...rest)
      const { start, times, scheduler } = checked(many(101), answer, { timeout })
      await start(20 * INTERVAL)
      expect(times(last).length).toBe(20)
      expect(gaps(times(last))).toEqual(Array.from({ length: 19 }, () => INTERVAL))
      expect(scheduler()).toMatchObject({ peers: 101, waiting: 0 })
      // A timer's milliseconds are whole. Whoever is silent for longer than an interval is late by that.
      if (timeout <= INTERVAL) expect(scheduler().lag).toBeLessThan(1)
    },
  )

  it('beyond `concurrency` they wait in line, in order', async () => {
    const { start, begun, scheduler, clock } = checked(many(3), never, { defaultDown: true }, { concurrency: 1 })
    await start()
    expect(scheduler()).toMatchObject({ started: true, peers: 3, inProgress: 1, waiting: 2, checks: 1, lag: 0 })
    expect(scheduler().lastRun).toBe(clock.epoch)
    await clock.advance(TIMEOUT)
    expect(scheduler()).toMatchObject({ inProgress: 1, waiting: 1, checks: 2, lag: TIMEOUT })
    await clock.advance(TIMEOUT)
    expect(scheduler()).toMatchObject({ inProgress: 1, waiting: 0, checks: 3, lag: 2 * TIMEOUT })
    expect(begun.map(({ letter: one, at }) => `${one}@${at}`)).toEqual(['a@0', 'b@300', 'c@600'])
    await clock.advance(TIMEOUT)
    expect(scheduler()).toMatchObject({ inProgress: 0, waiting: 0, checks: 3 })
  })

  it('a check that ends lets the next one begin, also one that ends because its server left', async () => {
    const { start, begun, checkups, clock, scheduler } = checked(
      many(3),
      never,
      { defaultDown: true },
      { concurrency: 1 },
    )
    await start(10)
    await checkups.removeServer('api', target('a'))
    await clock.advance(0)
    expect(begun.map(({ letter: one, at }) => `${one}@${at}`)).toEqual(['a@0', 'b@10'])
    await checkups.removeServer('api', target('c'))
    await clock.advance(0)
    expect(scheduler()).toMatchObject({ peers: 1, inProgress: 1, waiting: 0 })
  })

  it('no more than `concurrency` are under way, over all upstreams, and everybody has a turn', async () => {
    let underWay = 0
    let most = 0
    const answer: Answer = async (_one, _context, clock) => {
      most = Math.max(most, ++underWay)
      await clock.sleep(50)
      underWay--
      return true
    }
    const { start, clock, checkups, heartbeat, begun } = checked(many(20), answer, {}, { concurrency: 4 })
    await checkups.updateUpstream('other', { ...many(20), heartbeat })
    await start()
    // 40 checks of 50 ms by four at a time take 500 ms.
    await clock.advance(10 * INTERVAL + 500)
    expect(most).toBe(4)
    for (let i = 0; i < 20; i++) {
      const count = begun.filter((one) => one.letter === letter(i)).length
      expect([letter(i), count >= 20 && count <= 22]).toEqual([letter(i), true])
    }
  })
})

describe('the first checks', () => {
  it('are spread over the interval', async () => {
    const { start, begun } = checked(many(200), undefined, {}, { random: seededRandom(7) })
    await start(INTERVAL)
    const tenths = Array.from({ length: 10 }, (_, i) => {
      return begun.slice(0, 200).filter(({ at }) => at >= i * 100 && at < (i + 1) * 100).length
    })
    // 20 are expected of each; the least and the most of 200 uniform draws stay within these but for once in a million.
    expect(Math.min(...tenths)).toBeGreaterThan(3)
    expect(Math.max(...tenths)).toBeLessThan(45)
    expect(new Set(begun.slice(0, 200).map(({ letter: one }) => one)).size).toBe(200)
  })

  it('are elsewhere in another instance, and in the same places with the same random', async () => {
    const first = async (seed: number) => {
      const { start, begun } = checked(many(5), undefined, {}, { random: seededRandom(seed) })
      await start(INTERVAL - 1)
      return begun.map(({ letter: one, at }) => `${one}@${at}`)
    }
    expect(await first(1)).toEqual(await first(1))
    expect(await first(1)).not.toEqual(await first(2))
  })

  it('of servers that came by an update are at once, and the next ones spread over the interval', async () => {
    const { start, begun, checkups, clock, heartbeat } = checked(level('a'), undefined, {}, { random: seededRandom(7) })
    await start(5 * INTERVAL)
    await checkups.updateUpstream('api', { ...many(200), heartbeat })
    begun.length = 0
    await clock.advance(0)
    expect(begun.length).toBe(199)
    begun.length = 0
    await clock.advance(INTERVAL)
    const late = begun.filter(({ at }) => at > 5.5 * INTERVAL).length
    expect([late > 60, late < 140]).toEqual([true, true])
  })
})

describe('the deadline', () => {
  it('aborts the signal, and the check has failed', async () => {
    const reasons: unknown[] = []
    const answer: Answer = (_one, { signal }, clock) => {
      signal.addEventListener('abort', () => reasons.push([(signal.reason as Error).message, clock.now()]))
      return new Promise<never>(() => {})
    }
    const { start, server } = checked(level('ab'), answer, { timeout: 1000, interval: 5000 })
    await start(999)
    expect(reasons).toEqual([])
    expect(server('a').heartbeat).toMatchObject({
      found: 'unchecked',
      checking: true,
      age: NaN,
      duration: NaN,
      checks: 0,
    })
    await start(1)
    expect(reasons).toEqual([['timeout after 1000 ms', 1000]])
    expect(server('a').heartbeat).toMatchObject({ found: 'err', message: 'timeout after 1000 ms', fall: 1 })
    expect(server('a').heartbeat).toMatchObject({ checking: false, age: 0, duration: 1000, checks: 1 })
  })

  it('counts what came a moment before it', async () => {
    const { start, found } = checked(level('a'), (_one, _context, clock) => clock.sleep(TIMEOUT - 1).then(() => true))
    await start(TIMEOUT)
    expect(found('a')).toBe('ok')
  })

  it.each<[string, () => unknown]>([
    ['result', () => true],
    ['rejection', () => Promise.reject(new Error('late'))],
  ])('leaves a later %s without an effect', async (_says, settle) => {
    const unhandled = vi.fn()
    process.on('unhandledRejection', unhandled)
    onTestFinished(() => void process.off('unhandledRejection', unhandled))
    const late: Answer = (_one, _context, clock) => clock.sleep(TIMEOUT + 100).then(settle)
    const { start, server, told } = checked(level('ab'), (one, ...rest) => one === 'b' || late(one, ...rest))
    await start(TIMEOUT)
    const before = server('a').heartbeat
    expect(before).toMatchObject({ found: 'err', fall: 1, checks: 1, message: `timeout after ${TIMEOUT} ms` })
    expect(told()).toEqual(['peer:down a'])
    await start(200)
    expect(server('a').heartbeat).toEqual({ ...before, age: 200 })
    expect(told()).toEqual([])
    expect(unhandled).not.toHaveBeenCalled()
  })

  it('does not end a check that came back to signal.aborted', async () => {
    const answer: Answer = (_one, { signal }) => new Promise((_, reject) => signal.addEventListener('abort', reject))
    const { start, times } = checked(level('a'), answer)
    await start(3 * INTERVAL - 1)
    expect(times('a')).toEqual([0, 1000, 2000])
  })
})

describe('what a check may do', () => {
  const answers: readonly (readonly [says: string, answer: Answer, message: string])[] = [
    [
      'throw',
      () => {
        throw new Error('thrown')
      },
      'thrown',
    ],
    ['reject', () => Promise.reject(new Error('rejected')), 'rejected'],
    // eslint-disable-next-line @typescript-eslint/prefer-promise-reject-errors
    ['reject with no error', () => Promise.reject(undefined), 'undefined'],
    ['return nothing', () => undefined, 'the check returned undefined'],
    ['return null', () => null, 'the check returned null'],
    ['return a number', () => 7, 'the check returned 7'],
    ['return a word', () => 'ok', 'the check returned ok'],
    ['return a function', () => () => true, 'the check returned a function'],
    [
      'return an empty object',
      () => ({}),
      'the check returned an object without a status of "ok", "unstable" or "err"',
    ],
    ['return a list', () => [true], 'the check returned an object without a status of "ok", "unstable" or "err"'],
    [
      'return a trap',
      () => ({
        get status() {
          throw new Error('trap')
        },
      }),
      'trap',
    ],
    [
      'return a thenable that throws',
      () => ({
        then() {
          throw new Error('no promise')
        },
      }),
      'no promise',
    ],
  ]
  it.each(answers)('%s: that has failed, and the next check comes', async (_says, answer, message) => {
    const { start, server, times } = checked(level('ab'), (one, ...rest) => one === 'b' || answer(one, ...rest))
    await start(3 * INTERVAL - 1)
    expect(server('a').heartbeat).toMatchObject({ found: 'err', message, checks: 3 })
    expect(times('a')).toEqual([0, 1000, 2000])
    expect(times('b').length).toBe(3)
  })

  it('listeners that throw end nothing', async () => {
    let ill = true
    const { start, checkups, times, events, clock } = checked(level('ab'), (one) => one === 'b' || !ill)
    for (const name of ['peer:down', 'peer:up'] as const) {
      checkups.on(name, () => {
        throw new Error(`thrown at ${name}`)
      })
    }
    await start(INTERVAL - 1)
    ill = false
    await clock.advance(2 * INTERVAL)
    expect(times('a')).toEqual([0, 1000, 2000])
    const errors = events.filter(({ name }) => name === 'error').map(({ error }) => (error as Error).message)
    expect(errors).toEqual(['thrown at peer:down', 'thrown at peer:up'])
  })

  it('EMFILE and its like say nothing of the peer', async () => {
    const fault = (code: string) => Object.assign(new Error(code), { code })
    const codes = ['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EADDRNOTAVAIL']
    const script: unknown[] = ['err', 'ok', ...codes, 'err']
    const { start, server, clock, told } = checked(
      level('ab'),
      (one) => {
        if (one === 'b') return true
        const next = script.shift()
        if (codes.includes(next as string)) throw fault(next as string)
        return { status: next, message: 'said' }
      },
      { fall: 1, rise: 2 },
    )
    await start(2 * INTERVAL - 1)
    expect(told()).toEqual(['peer:down a'])
    const before = server('a').heartbeat!
    expect(before).toMatchObject({ found: 'err', rise: 1, fall: 0, checks: 2, message: 'said' })
    for (let i = 1; i <= codes.length; i++) {
      await clock.advance(INTERVAL)
      expect(server('a').heartbeat).toEqual({ ...before, checks: 2 + i })
    }
    await clock.advance(INTERVAL)
    expect(server('a').heartbeat).toMatchObject({ found: 'err', rise: 0, fall: 1 })
  })
})

describe('close', () => {
  const closedCode = async (promise: Promise<unknown>) =>
    promise.then(
      () => 'no error',
      (error: unknown) => isCheckupsError(error) && error.code,
    )

  it('at any time ends every timer and check', async () => {
    const parameters = fc.record({
      at: fc.integer({ min: 0, max: 5000 }),
      seed: fc.integer(),
      takes: fc.constantFrom(0, 1, 250, 299, 300, 1000, Infinity),
      defaultDown: fc.boolean(),
      servers: fc.integer({ min: 0, max: 6 }),
      ill: fc.boolean(),
    })
    await fc.assert(
      fc.asyncProperty(parameters, async ({ at, seed, takes, defaultDown, servers, ill }) => {
        const signals: AbortSignal[] = []
        let settled = 0
        const answer: Answer = async (one, { signal }, clock) => {
          signals.push(signal)
          await (takes === Infinity ? new Promise(() => {}) : takes === 0 ? undefined : clock.sleep(takes))
          settled++
          return one !== 'a' || !ill
        }
        const upstream = { ...many(servers), allowEmpty: true }
        const made = checked(upstream, answer, { defaultDown, jitter: 100 }, { random: seededRandom(seed) })
        let isReady = false
        void made.checkups.start().then(() => (isReady = true))
        await made.clock.advance(at)
        const underWay = made.scheduler().inProgress
        await made.checkups.close()
        await made.clock.advance(0)
        expect(made.scheduler()).toMatchObject({ peers: 0, inProgress: 0, waiting: 0 })
        const begun = made.begun.length
        expect(signals.filter(({ aborted }) => aborted).length).toBeGreaterThanOrEqual(underWay)
        expect(isReady).toBe(true)
        // What is left are the sleeps of the checks themselves.
        expect(made.clock.pending).toBe(takes === Infinity || takes === 0 ? 0 : begun - settled)
        const told = made.told()
        await made.clock.advance(10 * INTERVAL)
        expect([made.begun.length, made.told(), made.clock.pending]).toEqual([begun, [], 0])
        expect(told.every((one) => one.startsWith('peer:'))).toBe(true)
      }),
      { numRuns: 200 },
    )
  })

  it('amid a check aborts it', async () => {
    const reasons: string[] = []
    const answer: Answer = (_one, { signal }) => {
      signal.addEventListener('abort', () => reasons.push((signal.reason as Error).message))
      return new Promise<never>(() => {})
    }
    const { start, checkups, clock, told } = checked(level('a'), answer)
    await start(100)
    await checkups.close()
    expect(reasons).toEqual(['stopped'])
    expect(clock.pending).toBe(0)
    await clock.advance(INTERVAL)
    expect(told()).toEqual([])
  })

  it.each(['peer:down', 'peer:up'] as const)('inside a listener of %s', async (name) => {
    let ill = true
    const { start, checkups, clock, begun, scheduler } = checked(many(5), (one) => one !== 'a' || !ill)
    const closed = new Promise<void>((resolve) => checkups.on(name, () => resolve(checkups.close())))
    await start(INTERVAL)
    ill = false
    await clock.advance(INTERVAL)
    await closed
    const count = begun.length
    expect(clock.pending).toBe(0)
    await clock.advance(10 * INTERVAL)
    expect(begun.length).toBe(count)
    expect(scheduler()).toMatchObject({ peers: 0, inProgress: 0 })
  })

  it('inside a check, and a deletion inside another', async () => {
    const answer: Answer = () => {
      if (begun.length === 3) void checkups.deleteUpstream('other')
      if (begun.length === 6) void checkups.close()
      return true
    }
    const { start, checkups, clock, begun, scheduler, heartbeat } = checked(many(2), answer)
    await checkups.updateUpstream('other', { ...level('c'), heartbeat })
    await start(20 * INTERVAL)
    expect(begun.length).toBe(6)
    expect([clock.pending, scheduler().peers, scheduler().inProgress]).toEqual([0, 0, 0])
  })

  it('may be called twice, and before a start; then there is no start', async () => {
    const { checkups, clock, begun } = checked(level('a'))
    await checkups.close()
    await checkups.close()
    expect(await closedCode(checkups.start())).toBe('ERR_CHECKUPS_CLOSED')
    await clock.advance(10 * INTERVAL)
    expect([begun.length, clock.pending]).toEqual([0, 0])
  })

  it('lets a start that waits for the first checks go on', async () => {
    const { checkups, clock } = checked(level('a'), never, { defaultDown: true, timeout: 60_000 })
    const ready = checkups.start()
    await clock.advance(1)
    await checkups.close()
    await ready
    expect(clock.pending).toBe(0)
  })
})

describe('start', () => {
  it('is needed, and may be called again', async () => {
    const { checkups, clock, times } = checked(level('a'))
    await clock.advance(10 * INTERVAL)
    expect([times('a'), clock.pending]).toEqual([[], 0])
    await Promise.all([checkups.start(), checkups.start()])
    await clock.advance(INTERVAL / 2)
    await checkups.start()
    await clock.advance(3 * INTERVAL)
    expect(times('a')).toEqual([10_000, 11_000, 12_000, 13_000])
  })

  it('checks upstreams that were made, changed and deleted before it', async () => {
    const { checkups, begun, start, heartbeat, scheduler } = checked(level('a'))
    await checkups.updateUpstream('made', { ...level('b'), heartbeat })
    await checkups.updateUpstream('changed', level('c'))
    await checkups.updateUpstream('changed', { ...level('cd'), heartbeat })
    await checkups.updateUpstream('off', { ...level('e'), heartbeat })
    await checkups.updateUpstream('off', { ...level('e'), heartbeat: false })
    await checkups.updateUpstream('deleted', { ...level('f'), heartbeat })
    await checkups.deleteUpstream('deleted')
    await start(INTERVAL)
    expect([...new Set(begun.map(({ letter: one }) => one))].sort().join('')).toBe('abcd')
    expect(scheduler().peers).toBe(4)
  })

  it('and those made, changed and deleted after it', async () => {
    const { checkups, begun, start, heartbeat, scheduler, clock } = checked(level('a'))
    await start(INTERVAL)
    const letters = () => begun.splice(0).map(({ letter: one }) => one)
    letters()
    await checkups.updateUpstream('made', { ...level('b'), heartbeat })
    await clock.advance(0)
    expect(letters()).toEqual(['b'])
    await checkups.updateUpstream('made', { ...level('bc'), heartbeat })
    await clock.advance(0)
    expect(letters()).toEqual(['c'])
    await checkups.deleteUpstream('made')
    await clock.advance(2 * INTERVAL)
    expect(letters().join('')).toBe('aa')
    await checkups.updateUpstream('made', { ...level('d'), heartbeat })
    await clock.advance(0)
    expect([letters(), scheduler().peers]).toEqual([['d'], 2])
    await checkups.deleteUpstream('made')
    await checkups.deleteUpstream('api')
    expect([clock.pending, scheduler().peers]).toEqual([0, 0])
  })
})

describe('an update', () => {
  it('aborts the checks of who leaves', async () => {
    const aborted: string[] = []
    const answer: Answer = (one, { signal }, clock) => {
      signal.addEventListener('abort', () => aborted.push(`${one}@${clock.now()}: ${(signal.reason as Error).message}`))
      return clock.sleep(200).then(() => true)
    }
    const { start, checkups, clock, heartbeat } = checked(level('ab'), answer, { defaultDown: true })
    await start(100)
    await checkups.updateUpstream('api', { ...level('b'), heartbeat })
    expect(aborted).toEqual(['a@100: stopped'])
    await clock.advance(10 * INTERVAL)
    expect(aborted.length).toBe(1)
  })

  it('leaves state and time of the others alone', async () => {
    const { start, checkups, server, times, clock, heartbeat } = checked(level('abc'), failing('b'))
    await start(3 * INTERVAL + 700)
    const before = server('b').heartbeat!
    expect(before).toMatchObject({ found: 'err', message: 'ill' })
    await checkups.updateUpstream('api', { ...level('bcd'), heartbeat })
    expect(server('b').heartbeat).toEqual(before)
    await checkups.setServer('api', target('b'), { weight: 5 })
    await checkups.addServer('api', target('e'))
    expect(server('b').heartbeat).toEqual(before)
    await clock.advance(5 * INTERVAL)
    expect(gaps(times('b'))).toEqual(gaps(times('b')).map(() => INTERVAL))
    expect([times('b').length, gaps(times('c')).every((gap) => gap === INTERVAL)]).toEqual([
      8 + Number(times('b')[0]! <= 700),
      true,
    ])
  })

  it('with other heartbeats keeps what was found, and checks anew at once', async () => {
    const { start, checkups, server, times, clock, heartbeat } = checked(level('ab'), failing('b'))
    await start(INTERVAL + 500)
    const count = times('b').length
    await checkups.updateUpstream('api', { ...level('ab'), heartbeat: { ...heartbeat, interval: 400 } })
    expect(server('b').heartbeat).toMatchObject({ found: 'err' })
    await clock.advance(0)
    expect(times('b').slice(count)).toEqual([1500])
    await clock.advance(4000)
    expect(gaps(times('b').slice(count)).slice(1)).toEqual(Array.from({ length: 9 }, () => 400))
  })

  it.each(['heartbeat: false', 'enable: false', 'no heartbeat'])(
    'with %s ends the checks and forgets what they found',
    async (says) => {
      const { start, checkups, server, picks, clock, begun, heartbeat } = checked(level('ab'), failing('b'))
      await start(INTERVAL)
      expect([server('b').heartbeat?.found, server('b').health, picks(4)]).toEqual(['err', 'err', 'aaaa'])
      const off =
        says === 'heartbeat: false' ? false : says === 'enable: false' ? { ...heartbeat, enable: false } : undefined
      await checkups.updateUpstream('api', { ...level('ab'), heartbeat: off })
      expect([server('b').heartbeat, server('b').health, sorted(picks(4))]).toEqual([undefined, 'ok', 'aabb'])
      const count = begun.length
      await clock.advance(5 * INTERVAL)
      expect([begun.length, clock.pending]).toEqual([count, 0])
      await checkups.updateUpstream('api', { ...level('ab'), heartbeat })
      expect([server('b').heartbeat?.found, picks(4).includes('b')]).toEqual(['unchecked', true])
      await clock.advance(0)
      expect([server('b').heartbeat?.found, picks(4)]).toEqual(['err', 'aaaa'])
    },
  )

  it('inside a listener, of the very server that it is about', async () => {
    const { start, checkups, times, scheduler, clock } = checked(level('abc'), failing('b'))
    checkups.on('peer:down', ({ peer }) => void checkups.removeServer('api', peer))
    await start(10 * INTERVAL)
    expect([times('b').length, scheduler().peers, scheduler().inProgress]).toEqual([1, 2, 0])
    expect(times('a').length).toBe(11)
    expect(clock.pending).toBe(2)
  })
})

describe('defaultDown', () => {
  it('nobody is used before the first check; start waits for it', async () => {
    warned()
    const answer: Answer = (one, _context, clock) => clock.sleep(one === 'a' ? 100 : 200).then(() => one !== 'b')
    const { checkups, picks, clock, server } = checked(level('abc'), answer, {
      defaultDown: true,
    })
    expect([picks(2), checkups.unavailableReason('api'), server('a').heartbeat?.message]).toEqual([
      '--',
      'down',
      'not checked yet',
    ])
    let ready = NaN
    void checkups.start().then(() => (ready = clock.now()))
    await clock.advance(99)
    expect(picks(2)).toBe('--')
    await clock.advance(1)
    expect([picks(2), ready]).toEqual(['aa', NaN])
    await clock.advance(100)
    expect([sorted(picks(2)), ready]).toEqual(['ac', 200])
    expect(server('b').health).toBe('err')
  })

  it('start waits no longer than a timeout, and not for other upstreams', async () => {
    const { checkups, clock, heartbeat } = checked({ ...level('a'), protected: false }, never, { defaultDown: true })
    const check = () => new Promise<boolean>(() => {})
    await checkups.updateUpstream('slow', {
      ...level('b'),
      heartbeat: { ...heartbeat, defaultDown: false, check, timeout: 9000 },
    })
    let ready = NaN
    void checkups.start().then(() => (ready = clock.now()))
    await clock.advance(10 * INTERVAL)
    expect(ready).toBe(TIMEOUT)
  })

  it('start is at once without it', async () => {
    const { checkups } = checked(level('a'), never)
    await checkups.start()
  })

  it('a server that comes later is out until it has passed `rise` times, the others are in use', async () => {
    const { start, checkups, picks, clock, server } = checked(level('a'), undefined, {
      defaultDown: true,
      rise: 2,
      fastInterval: 100,
    })
    await start(INTERVAL)
    await checkups.addServer('api', target('b'))
    expect([picks(2), server('b').health]).toEqual(['aa', 'err'])
    await clock.advance(0)
    expect([picks(2), server('b').heartbeat?.rise]).toEqual(['aa', 1])
    await clock.advance(100)
    expect([sorted(picks(2)), server('b').health]).toEqual(['ab', 'ok'])
  })
})

describe('the pace', () => {
  it('is fast while a state turns, and another one while it is out', async () => {
    const script = 'oeeeeoooo'
    let turn = 0
    const schedule = { fall: 3, rise: 2, interval: 1000, fastInterval: 100, downInterval: 400 }
    const { start, times } = checked(level('a'), () => script.charAt(turn++) !== 'e' || { status: 'err' }, schedule)
    await start(4200)
    // Steady to the first failure; fast to the third; down to the first pass; fast to the second; steady.
    expect(gaps(times('a'))).toEqual([1000, 100, 100, 400, 400, 100, 1000, 1000])
  })

  it('is from start to start, however long a check takes', async () => {
    const { start, times } = checked(level('a'), (_one, _context, clock) => clock.sleep(250).then(() => true))
    await start(5 * INTERVAL)
    expect(times('a')).toEqual([0, 1000, 2000, 3000, 4000, 5000])
  })

  it('is that of the checks where these take longer', async () => {
    const { start, times } = checked(level('a'), never, { interval: 100, fastInterval: 100, downInterval: 100 })
    await start(5 * TIMEOUT - 1)
    expect(times('a')).toEqual([0, 300, 600, 900, 1200])
  })

  it('varies by up to the jitter', async () => {
    const { start, times } = checked(level('a'), undefined, { jitter: 500 }, { random: seededRandom(3) })
    await start(200 * INTERVAL)
    const found = gaps(times('a'))
    expect(found.every((gap) => gap >= 1000 && gap <= 1501)).toBe(true)
    // Of 130 uniform draws all miss a tenth of the range once in a million.
    expect([Math.min(...found) < 1050, Math.max(...found) > 1450]).toEqual([true, true])
  })

  it('has a death seen within (interval + jitter) × fall + timeout', async () => {
    const parameters = fc.record({
      interval: fc.integer({ min: 50, max: 3000 }),
      fast: fc.double({ min: 0.02, max: 1, noNaN: true }),
      jitter: fc.integer({ min: 0, max: 500 }),
      timeout: fc.double({ min: 0.02, max: 1, noNaN: true }),
      fall: fc.integer({ min: 1, max: 5 }),
      rise: fc.integer({ min: 1, max: 3 }),
      dies: fc.integer({ min: 0, max: 20_000 }),
      takes: fc.double({ min: 0, max: 0.9, noNaN: true }),
      silent: fc.boolean(),
      seed: fc.integer(),
    })
    await fc.assert(
      fc.asyncProperty(
        parameters,
        async ({ interval, fast, jitter, fall, rise, dies, takes, silent, seed, ...rest }) => {
          const timeout = Math.ceil(rest.timeout * interval)
          const fastInterval = Math.ceil(fast * interval)
          const answer: Answer = async (_one, _context, clock) => {
            await clock.sleep(takes * timeout)
            if (clock.now() < dies) return true
            return silent ? new Promise(() => {}) : false
          }
          const schedule = { interval, fastInterval, jitter, timeout, fall, rise }
          const { start, checkups, clock } = checked({ ...level('a'), protected: false }, answer, schedule, {
            random: seededRandom(seed),
          })
          let seen = NaN
          checkups.on('peer:down', () => (seen = clock.now()))
          // A timer's milliseconds are whole: each check may come that much later.
          const bound = (interval + jitter) * fall + timeout + fall
          await start(dies + bound)
          expect(seen - dies).toBeGreaterThanOrEqual(0)
          expect(seen - dies).toBeLessThanOrEqual(bound)
        },
      ),
      { numRuns: 300 },
    )
  })
})

describe('a late event loop', () => {
  /** A clock that can jump: what was due meanwhile is late. */
  function jumping() {
    const clock = new VirtualClock()
    let jumped = 0
    const late: Clock = {
      now: () => clock.now() + jumped,
      wallTime: () => clock.wallTime() + jumped,
      setTimeout: (fn, ms) => clock.setTimeout(fn, ms),
      clearTimeout: (handle) => clock.clearTimeout(handle),
    }
    return { clock, late, jump: (ms: number) => (jumped += ms) }
  }
  const watched = (answer: () => Promise<boolean>, late: Clock) => {
    const check = () => answer()
    const upstream = { ...level('a'), heartbeat: { ...steady, type: 'custom', check } as const, protected: false }
    const checkups = new Checkups({ clock: late, random: () => 0, upstreams: { api: upstream } })
    return { checkups, heartbeat: () => checkups.getStatus().upstreams[0]!.levels[0]!.servers[0]!.heartbeat! }
  }

  it('a deadline seen late lets what has arrived meanwhile be read first', async () => {
    const { clock, late, jump } = jumping()
    // The process sleeps; the answer is there when it wakes, behind the timers.
    const { checkups, heartbeat } = watched(
      () => new Promise((resolve) => clock.setTimeout(() => resolve(true), TIMEOUT + 1)),
      late,
    )
    await checkups.start()
    for (const checks of [1, 2, 3]) {
      await clock.advance(1)
      jump(5000)
      await clock.advance(TIMEOUT)
      expect(heartbeat()).toMatchObject({ found: 'ok', checks })
    }
    await checkups.close()
  })

  it('a deadline seen late is none for ever', async () => {
    const { clock, late, jump } = jumping()
    const { checkups, heartbeat } = watched(() => new Promise(() => {}), late)
    await checkups.start()
    await clock.advance(1)
    jump(5000)
    await clock.advance(TIMEOUT - 1)
    expect(heartbeat()).toMatchObject({ found: 'unchecked', checking: true })
    await clock.advance(1)
    expect(heartbeat()).toMatchObject({ found: 'err', checks: 1, message: `timeout after ${TIMEOUT} ms` })
    await checkups.close()
  })

  it('a deadline seen in time gives no turn more', async () => {
    const { clock, late, jump } = jumping()
    const { checkups, heartbeat } = watched(
      () => new Promise((resolve) => clock.setTimeout(() => resolve(true), TIMEOUT + 1)),
      late,
    )
    await checkups.start()
    await clock.advance(1)
    jump(15)
    await clock.advance(TIMEOUT)
    expect(heartbeat()).toMatchObject({ found: 'err', checks: 1 })
    await checkups.close()
  })

  it('after a jump checks are late once, and none is made up for', async () => {
    const { clock, late, jump } = jumping()
    let checks = 0
    const { checkups } = watched(async () => ++checks > 0, late)
    await checkups.start()
    await clock.advance(1)
    jump(100 * INTERVAL)
    await clock.advance(INTERVAL)
    expect([checks, checkups.getStatus().heartbeats.lag]).toEqual([2, 100 * INTERVAL])
    await clock.advance(INTERVAL - 2)
    expect(checks).toBe(2)
    await clock.advance(2)
    expect([checks, checkups.getStatus().heartbeats.lag]).toEqual([3, 0])
    await checkups.close()
  })
})

describe('heartbeats that nobody started', () => {
  it.each<[string, (checkups: Checkups) => unknown]>([
    ['selectPeer', (checkups) => checkups.selectPeer('api')],
    ['acquirePeer', (checkups) => checkups.acquirePeer('api')],
    ['readyOk', (checkups) => checkups.readyOk('api', () => true)],
    ['a handle', (checkups) => checkups.upstream('api').selectPeer()],
  ])('are told of once, at the first %s', async (_says, pick) => {
    const spy = warned()
    const { checkups, heartbeat } = checked(level('ab'))
    await checkups.updateUpstream('other', { ...level('a'), heartbeat })
    expect(spy).not.toHaveBeenCalled()
    await pick(checkups)
    await pick(checkups)
    checkups.selectPeer('other')
    await checkups.updateUpstream('api', { ...level('abc'), heartbeat })
    await pick(checkups)
    expect(spy.mock.calls).toEqual([
      [
        'upstreams.api has heartbeats, and nobody has called start(): they do not run',
        { type: 'CheckupsWarning', code: 'CHECKUPS_NOT_STARTED' },
      ],
    ])
  })

  it('are not told of where there are none, where they run, and after a close', async () => {
    const spy = warned()
    harness(level('a')).checkups.selectPeer('api')
    checked({ ...level('a'), heartbeat: { enable: false } }).checkups.selectPeer('api')
    checked({ ...level('a'), heartbeat: false }).checkups.selectPeer('api')
    const started = checked(level('a'))
    await started.checkups.start()
    started.checkups.selectPeer('api')
    await started.checkups.updateUpstream('later', { ...level('a'), heartbeat: started.heartbeat })
    started.checkups.selectPeer('later')
    await started.checkups.close()
    const closed = checked(level('a'))
    await closed.checkups.close()
    closed.checkups.selectPeer('api')
    expect(spy).not.toHaveBeenCalled()
  })

  it('do not change the pick that told of them', () => {
    warned()
    expect(checked(level('abc')).picks(6)).toBe(harness(level('abc')).picks(6))
  })
})

describe('who is checked', () => {
  it('servers of weight 0, down and draining, too', async () => {
    const { start, found, server } = checked(
      level('a', { b: { weight: 0 }, c: { down: true }, d: { drain: true } }),
      failing('b', 'c', 'd'),
    )
    await start(INTERVAL)
    expect(['a', 'b', 'c', 'd'].map(found)).toEqual(['ok', 'err', 'err', 'err'])
    expect(['b', 'c', 'd'].map((one) => server(one).health)).toEqual(['err', 'down', 'drain'])
  })

  it('an address in several levels is checked once, and found for all', async () => {
    const { start, times, checkups } = checked({ cluster: [level('ab'), level('ac'), level('a')] }, failing('a'))
    await start(3 * INTERVAL - 1)
    expect(times('a')).toEqual([0, 1000, 2000])
    const words = checkups.getStatus().upstreams[0]!.levels.map(({ servers }) => servers.map(({ health }) => health))
    expect(words).toEqual([['err', 'ok'], ['err', 'ok'], ['err']])
  })

  it('another host and port in their place, if so configured', async () => {
    const asked: unknown[] = []
    const answer: Answer = (_one, { host, port }) => asked.push(`${host}:${port}`)
    const ask = async (schedule: HeartbeatSchedule, upstream = level('a')) => {
      await checked(upstream, answer, schedule).start(INTERVAL / 2)
      return asked.splice(0)
    }
    expect(await ask({})).toEqual(['10.0.0.1:1'])
    expect(await ask({ port: 9000 })).toEqual(['10.0.0.1:9000'])
    expect(await ask({ host: '127.0.0.1' })).toEqual(['127.0.0.1:1'])
    expect(await ask({ host: '127.0.0.1', port: 9000 })).toEqual(['127.0.0.1:9000'])
  })
})
