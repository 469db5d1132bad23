import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { formatAttempts, type Attempt, type AttemptsError, type ReadyOkOptions } from '../../src/index.js'
import { address, harness, letterOf, level, target } from './harness.js'

const refused = () => {
  throw new Error('refused')
}

describe('a full outage', () => {
  /** Requests at an even pace, all of which fail: attempts made, and why calls ended. */
  async function outage(requestsPerSecond: number, seconds: number, options: Parameters<typeof harness>[1] = {}) {
    const made = harness({ ...level('abcdefghij'), maxFails: 0 }, options)
    let attempts = 0
    const codes = new Map<string, number>()
    for (let i = 0; i < requestsPerSecond * seconds; i++) {
      const call = made.checkups.readyOk('api', () => {
        attempts++
        return refused()
      })
      const error = await call.catch((error: unknown) => error as AttemptsError)
      const { code } = error
      codes.set(code, (codes.get(code) ?? 0) + 1)
      await made.clock.advance(1_000 / requestsPerSecond)
    }
    return { attempts, requests: requestsPerSecond * seconds, codes }
  }

  it.each([
    [1, 120],
    [20, 60],
    [100, 60],
    [500, 20],
  ])('at %i requests a second for %i s causes 1.2 × the requests at most, and 10 a second', async (rate, seconds) => {
    const { attempts, requests, codes } = await outage(rate, seconds)
    // The seconds of the window before the first request count too.
    expect(attempts).toBeLessThanOrEqual(1.2 * requests + 10 * (seconds + 10))
    expect(attempts).toBeGreaterThan(requests)
    if (rate >= 20) expect(codes.get('ERR_CHECKUPS_RETRY_BUDGET')).toBeGreaterThan(0)
  })

  it('is worse by as many tries as there are peers without a budget', async () => {
    const { attempts, requests } = await outage(20, 10, { retryBudget: false })
    expect(attempts).toBe(10 * requests)
  })

  it('can be given other numbers', async () => {
    const options = { retryBudget: { ratio: 0, perSecond: 1, window: 1_000 } }
    const { attempts, requests } = await outage(20, 10, options)
    expect(attempts - requests).toBeGreaterThanOrEqual(9)
    expect(attempts - requests).toBeLessThanOrEqual(11)
  })
})

describe('a budget by its numbers', () => {
  it('within any window there are no more retries than it says', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.tuple(fc.nat(40), fc.integer({ min: 0, max: 900 })), { maxLength: 60 }),
        async (bursts) => {
          const ratio = 0.5
          const perSecond = 2
          const made = harness({ ...level('abc'), maxFails: 0 }, { retryBudget: { ratio, perSecond, window: 2_000 } })
          const requests: number[] = []
          const retries: number[] = []
          for (const [calls, wait] of bursts) {
            for (let i = 0; i < calls; i++) {
              requests.push(made.clock.now())
              await made.checkups
                .readyOk('api', (_, { number }) => {
                  if (number > 1) retries.push(made.clock.now())
                  return refused()
                })
                .catch(() => undefined)
            }
            await made.clock.advance(wait)
          }
          for (const end of retries) {
            const within = (times: number[]) => times.filter((time) => time > end - 1_800 && time <= end).length
            const before = (times: number[]) => times.filter((time) => time > end - 2_000 && time <= end).length
            expect(within(retries)).toBeLessThanOrEqual(ratio * before(requests) + perSecond * 2 + 1)
          }
        },
      ),
      { numRuns: 60 },
    )
  })

  it.each([
    [{ ratio: -1 }, 'options.retryBudget.ratio: expected a number from 0 to 1000, got -1'],
    [{ perSecond: 1.5 }, 'options.retryBudget.perSecond'],
    [{ window: 0 }, 'options.retryBudget.window'],
    [{ rate: 1 }, 'options.retryBudget.rate: unknown option'],
    [true, 'options.retryBudget: expected an object, got true'],
  ])('is checked: %j', (retryBudget, message) => {
    expect(() => harness(level('a'), { retryBudget: retryBudget as never })).toThrow(message)
  })
})

describe('waits between attempts', () => {
  const begin = (backoff: ReadyOkOptions['backoff'], more: ReadyOkOptions<string> = {}, random = 0.5) => {
    const made = harness({ ...level('abcde'), maxFails: 0 }, { random: () => random })
    const times: number[] = []
    const call = made.checkups.readyOk(
      'api',
      () => {
        times.push(made.clock.now())
        return refused()
      },
      { backoff, ...more } as ReadyOkOptions,
    )
    const settled = call.catch((error: unknown) => (error as AttemptsError).code)
    return { ...made, times, settled }
  }

  it('grow, are a matter of chance, and end at their most', async () => {
    const { clock, times, settled } = begin({ initial: 100, max: 300 })
    await clock.advance(10_000)
    expect(await settled).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
    const waits = times.slice(1).map((time, i) => time - times[i]!)
    expect(waits).toHaveLength(4)
    for (const [i, most] of [100, 200, 300, 300].entries()) {
      expect(waits[i]).toBeGreaterThanOrEqual(0)
      expect(waits[i]).toBeLessThanOrEqual(most)
    }
    expect(new Set(waits).size).toBeGreaterThan(1)
  })

  it('end with the total time, after which there is no attempt', async () => {
    const { clock, times, settled } = begin({ initial: 10_000 }, { timeout: 50 }, 0.999)
    await clock.advance(50)
    expect(await settled).toBe('ERR_CHECKUPS_TIMEOUT')
    expect(times).toHaveLength(1)
  })

  it('end when the caller gives up', async () => {
    const controller = new AbortController()
    const { clock, times, settled } = begin({ initial: 10_000 }, { signal: controller.signal }, 0.999)
    await clock.advance(1)
    controller.abort()
    expect(await settled).toBe('ERR_CHECKUPS_ABORTED')
    expect(times).toHaveLength(1)
    expect(clock.pending).toBe(0)
  })

  it.each([[{ initial: -1 }], [{ initial: 1, max: NaN }], [{}], [{ initial: 1, factor: 2 }]])(
    'are checked: %j',
    async (backoff) => {
      await expect(begin(backoff as never).settled).resolves.toBe('ERR_CHECKUPS_CONFIG')
    },
  )
})

describe('a peer that asks to be left alone', () => {
  const ab = level('ab')

  it('is out for as long as it says, and back without a trial', async () => {
    const { checkups, clock, picks, told, server } = harness(ab)
    const pick = checkups.acquirePeer('api')!
    pick.done({ status: 429, retryAfter: 2_000 })
    expect(letterOf(pick.peer)).toBe('a')
    expect(told()).toEqual(['peer:down a'])
    expect(server('a')).toMatchObject({ health: 'err', passive: { state: 'banned', remaining: 2_000 } })
    expect(server('a').reason).toBe('asked to be left alone for 2000 ms (Retry-After)')
    expect(picks(3)).toBe('bbb')
    await clock.advance(2_000)
    expect(told()).toEqual(['peer:up a'])
    expect(server('a').health).toBe('ok')
  })

  it.each([
    ['seconds', () => '3'],
    ['a date', (wall: number) => new Date(Math.floor(wall / 1_000) * 1_000 + 3_000).toUTCString()],
  ])('says it by the header of a Response, in %s', async (_, header) => {
    const { checkups, clock, server } = harness(ab)
    const headers = { 'retry-after': header(clock.wallTime()) }
    const response = await checkups.readyOk('api', async () => new Response('busy', { status: 429, headers }))
    expect(response.status).toBe(429)
    expect(server('a').passive.state).toBe('banned')
    expect(server('a').passive.remaining).toBeGreaterThan(1_900)
    expect(server('a').passive.remaining).toBeLessThanOrEqual(3_000)
  })

  it('and has failed as well is on trial after the longer of both times', async () => {
    const { checkups, clock, server } = harness({ ...ab, failTimeout: 1_000 })
    checkups.feedbackStatus('api', target('a'), { status: 503, retryAfter: 5_000 })
    expect(server('a').passive).toMatchObject({ state: 'banned', remaining: 5_000 })
    checkups.feedbackStatus('api', target('a'), { status: 503, retryAfter: 10 })
    expect(server('a').passive.remaining).toBe(5_000)
    await clock.advance(5_000)
    expect(server('a').passive.state).toBe('trial')
  })

  it('is asked all the same if it is the last one', () => {
    const { checkups, server } = harness(ab)
    checkups.feedbackStatus('api', target('a'), { status: 429, retryAfter: 5_000 })
    checkups.feedbackStatus('api', target('b'), { status: 429, retryAfter: 5_000 })
    expect([server('a').health, server('b').health]).toEqual(['err', 'ok'])
  })

  it.each([
    [{ status: 200, retryAfter: 5_000 }, 0],
    [{ status: 301, retryAfter: 5_000 }, 0],
    [{ status: 429 }, 0],
    [{ status: 429, retryAfter: -1 }, 0],
    [{ status: 429, retryAfter: NaN }, 0],
    [{ status: 429, retryAfter: 1e12 }, 300_000],
    [new Response('', { status: 429, headers: { 'retry-after': 'soon' } }), 0],
    [new Response('', { status: 429, headers: { 'retry-after': '-5' } }), 0],
    [new Response('', { status: 429, headers: { 'retry-after': 'Mon, 01 Jan 2001 00:00:00 GMT' } }), 0],
  ])('%j: %i ms', (outcome, remaining) => {
    const { checkups, server } = harness(ab)
    checkups.feedbackStatus('api', target('a'), outcome)
    expect(server('a').passive.remaining).toBe(remaining)
  })
})

describe('attempts as nginx logs them', () => {
  it('also of a call that succeeded', async () => {
    const { checkups, clock } = harness(level('ab'))
    const attempts: Attempt[] = []
    const call = checkups.readyOk(
      'api',
      async (_, { number }) => {
        await clock.sleep(number * 10)
        return { status: number === 1 ? 502 : 200 }
      },
      { attempts },
    )
    await clock.advance(100)
    await call
    expect(formatAttempts(attempts)).toBe(`${address('a')}, ${address('b')} 502, 200 0.010, 0.020`)
  })

  it('without an answer there is no status, and without an attempt nothing', async () => {
    const { checkups } = harness(level('ab'))
    const error = await checkups.readyOk('api', refused).catch((error: unknown) => error as AttemptsError)
    expect(formatAttempts(error.attempts)).toBe(`${address('a')}, ${address('b')} -, - 0.000, 0.000`)
    expect(formatAttempts([])).toBe('- - -')
  })
})
