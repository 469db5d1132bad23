import { getEventListeners } from 'node:events'
import { describe, expect, it } from 'vitest'
import { AttemptsError, Checkups, CheckupsError, UnknownUpstreamError } from '../../src/index.js'
import type { Attempt, AttemptContext, Peer, ReadyOkOptions, RetryBudget, RetryVerdict } from '../../src/index.js'
import type { UpstreamOptions } from '../../src/index.js'
import { harness, letterOf, level, target } from './harness.js'

type Callback<T> = (letter: string, attempt: AttemptContext, peer: Peer) => T | PromiseLike<T>
interface Ended {
  readonly result?: unknown
  readonly error?: AttemptsError
}

/** No marks, unless a test is about them: then nothing but a call's own timers can be left. */
const abc: UpstreamOptions = { ...level('abc'), maxFails: 0 }
const thenable = { then: (resolve: (value: string) => void) => resolve('later') } as PromiseLike<string>
const never = () => new Promise<never>(() => undefined)
const refused = () => {
  throw new Error('refused')
}

/** A call of readyOk that can be looked at while it runs. */
function call<T>(made: ReturnType<typeof harness>, callback: Callback<T>, options: ReadyOkOptions<T> = {}) {
  const tried: string[] = []
  const attempts: Attempt[] = []
  const promise = made.checkups.readyOk(
    'api',
    (peer, attempt) => {
      tried.push(letterOf(peer))
      return callback(letterOf(peer), attempt, peer)
    },
    { attempts, ...options },
  )
  let ended: Ended | undefined
  const settled = promise.then(
    (result): Ended => (ended = { result }),
    (error: unknown): Ended => (ended = { error: error as AttemptsError }),
  )
  return { tried, attempts, settled, ended: () => ended }
}

/** What no call may leave behind. */
function expectNothingLeft({ clock, checkups }: ReturnType<typeof harness>): void {
  expect(clock.pending).toBe(0)
  for (const { levels } of checkups.getStatus().upstreams) {
    for (const { servers } of levels) expect(servers.map(({ inFlight }) => inFlight)).toEqual(servers.map(() => 0))
  }
}

async function run<T>(upstream: UpstreamOptions, callback: Callback<T>, options: ReadyOkOptions<T> = {}) {
  const made = harness(upstream)
  const { settled, ...rest } = call(made, callback, options)
  const ended = await settled
  expectNothingLeft(made)
  return { ...made, ...rest, ...ended, code: ended.error?.code }
}

describe('an attempt that succeeds', () => {
  it('ends the call with its result, and is told too', async () => {
    const { result, tried, attempts } = await run(abc, async () => 'hello')
    expect(result).toBe('hello')
    expect(tried).toEqual(['a'])
    expect(attempts).toEqual([expect.objectContaining({ ms: 0, verdict: 'ok', status: 0, error: undefined })])
  })

  it('clears the peer’s failures', async () => {
    const made = harness({ ...abc, maxFails: 3 })
    made.feedback('a')
    await call(made, () => 'ok').settled
    expect(made.server('a').passive.failures).toBe(0)
  })

  it.each<{ name: string; callback: Callback<unknown>; result: unknown }>([
    { name: 'a plain value', callback: () => 7, result: 7 },
    { name: 'undefined', callback: () => undefined, result: undefined },
    { name: 'null', callback: () => null, result: null },
    { name: 'zero', callback: () => 0, result: 0 },
    { name: 'a thenable', callback: () => thenable, result: 'later' },
    { name: 'a status of 404', callback: () => ({ status: 404 }), result: { status: 404 } },
  ])('by $name', async ({ callback, result }) => {
    const ended = await run(abc, callback)
    expect(ended.result).toEqual(result)
    expect(ended.tried).toEqual(['a'])
  })

  it('is told its number and its peer', async () => {
    const seen: unknown[] = []
    await run(abc, (letter, attempt, peer) => {
      seen.push([attempt.number, peer.address])
      if (letter !== 'b') throw new Error('no')
    })
    expect(seen).toEqual([
      [1, '10.0.0.1:1'],
      [2, '10.0.0.1:2'],
    ])
  })
})

describe('an attempt that fails', () => {
  it.each<{ name: string; callback: Callback<unknown>; message: string; status?: number }>([
    { name: 'a throw', callback: refused, message: 'refused' },
    { name: 'a rejection', callback: () => Promise.reject(new Error('reset')), message: 'reset' },
    { name: 'false', callback: () => false, message: 'reported as failed' },
    { name: 'a status of 503', callback: () => ({ status: 503 }), message: 'status 503', status: 503 },
  ])('goes on with the next peer, after $name', async ({ callback, message, status = 0 }) => {
    const { result, tried, attempts } = await run(abc, (letter, attempt, peer) =>
      letter === 'c' ? 'c' : callback(letter, attempt, peer),
    )
    expect(result).toBe('c')
    expect(tried).toEqual(['a', 'b', 'c'])
    expect(
      attempts.map(({ peer, verdict, status, error }) => [letterOf(peer), verdict, status, error?.message]),
    ).toEqual([
      ['a', 'failed', status, message],
      ['b', 'failed', status, message],
      ['c', 'ok', 0, undefined],
    ])
  })

  it('counts against its peer', async () => {
    const made = harness({ ...abc, maxFails: 2 })
    await call(made, (letter) => letter !== 'a').settled
    expect(made.server('a').passive.failures).toBe(1)
    expect(made.server('b').passive.failures).toBe(0)
  })

  it('keeps what was thrown, also what is no error', async () => {
    const thrown = new TypeError('mine')
    const { error } = await run(abc, (letter) => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- what is tested
      throw letter === 'a' ? thrown : letter
    })
    expect(error?.errors[0]).toBe(thrown)
    expect(error?.errors[1]).toMatchObject({ message: 'b', cause: 'b' })
  })

  it('never goes to the same server of a level twice, though to the same address in another', async () => {
    const made = harness({ cluster: { x: level('ab'), y: level('ac') }, maxFails: 0, tries: 10 })
    const { settled, attempts, tried } = call(made, refused)
    const { error } = await settled
    expect(tried).toEqual(['a', 'b', 'a', 'c'])
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason: 'excluded' })
    expect(attempts).toHaveLength(4)
  })

  it('goes through a level’s primaries, its backups, then the next level', async () => {
    const cluster = [level('ab', { c: { backup: true } }), level('d')]
    const { tried, code } = await run({ cluster, maxFails: 0 }, refused)
    expect(tried).toEqual(['a', 'b', 'c', 'd'])
    expect(code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
  })

  it('goes through the clusters that clusterKey names', async () => {
    const cluster = { x: level('a'), y: level('b'), z: level('c') }
    const { tried } = await run({ cluster, maxFails: 0 }, refused, { clusterKey: ['z', 'x'] })
    expect(tried).toEqual(['c', 'a'])
  })
})

describe('the error of a call', () => {
  it('names every attempt’s peer, time and error', async () => {
    const made = harness(abc)
    const { settled } = call(made, async (letter) => {
      await made.clock.sleep(20)
      throw new Error(`${letter} refused`)
    })
    await made.clock.advance(100)
    const { error } = await settled
    expect(error).toBeInstanceOf(AttemptsError)
    expect(error).toBeInstanceOf(AggregateError)
    expect(error).toMatchObject({
      name: 'AttemptsError',
      code: 'ERR_CHECKUPS_TRIES_EXCEEDED',
      reason: undefined,
      message:
        'upstream "api": no answer in 3 tries: ' +
        '10.0.0.1:1 a refused (20 ms), 10.0.0.1:2 b refused (20 ms), 10.0.0.1:3 c refused (20 ms)',
    })
    expect(error?.errors.map(({ message }: Error) => message)).toEqual(['a refused', 'b refused', 'c refused'])
    expect(error?.attempts.map(({ peer, ms }) => [letterOf(peer), ms])).toEqual([
      ['a', 20],
      ['b', 20],
      ['c', 20],
    ])
  })

  it('is an UnknownUpstreamError for an unknown key', async () => {
    const { checkups } = harness(abc)
    await expect(checkups.readyOk('none', refused)).rejects.toThrow(UnknownUpstreamError)
  })
})

describe('tries', () => {
  it.each<{ name: string; upstream?: Partial<UpstreamOptions>; tries?: number; wanted: string }>([
    { name: 'as many as servers by default', wanted: 'abc' },
    { name: 'the upstream’s', upstream: { tries: 2 }, wanted: 'ab' },
    { name: 'the call’s', upstream: { tries: 2 }, tries: 1, wanted: 'a' },
    { name: 'the call’s 0: as many as servers', upstream: { tries: 2 }, tries: 0, wanted: 'abc' },
  ])('are $name', async ({ upstream, tries, wanted }) => {
    const { tried, code } = await run({ ...abc, ...upstream }, refused, { tries })
    expect(tried.join('')).toBe(wanted)
    expect(code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
  })

  it('are counted at the start: servers that come later may be tried, but no oftener', async () => {
    const made = harness(abc)
    const { settled, tried } = call(made, async (letter) => {
      if (letter === 'a') await made.checkups.updateUpstream('api', [level('vwxyz')])
      throw new Error('no')
    })
    expect((await settled).error?.code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
    expect(tried).toEqual(['a', 'v', 'w'])
  })
})

describe('nobody available', () => {
  const held = async (made: ReturnType<typeof harness>) => {
    for (const letter of 'abc') await made.checkups.setServer('api', target(letter), { maxConns: 1 })
    return Array.from({ length: 3 }, () => made.checkups.acquirePeer('api') ?? expect.fail('nobody could be held'))
  }

  it.each<{
    reason: string
    upstream?: UpstreamOptions
    prepare?: (made: ReturnType<typeof harness>) => Promise<void>
  }>([
    { reason: 'empty', upstream: { servers: [] } },
    { reason: 'empty', upstream: level('', { a: { weight: 0 } }) },
    { reason: 'down', upstream: level('', { a: { down: true }, b: { drain: true } }) },
  ])('from the start: $reason', async ({ reason, upstream = abc }) => {
    const { error, tried, attempts } = await run(upstream, refused)
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason, errors: [] })
    expect(error?.message).toBe(`upstream "api": nobody is available (${reason})`)
    expect(tried).toEqual([])
    expect(attempts).toEqual([])
  })

  it('from the start: full', async () => {
    const made = harness(abc)
    const picks = await held(made)
    const { error } = await call(made, refused).settled
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason: 'full' })
    for (const pick of picks) pick.done('ok')
    expectNothingLeft(made)
  })

  it('after some attempts: those left are full', async () => {
    const made = harness(abc)
    const [, , pick] = await held(made)
    for (const letter of 'ab') await made.checkups.setServer('api', target(letter), { maxConns: 0 })
    const { error } = await call(made, refused).settled
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason: 'full' })
    expect(error?.attempts).toHaveLength(2)
    pick?.done('ok')
  })

  it('after some attempts: those left are excluded', async () => {
    const { error, tried } = await run({ ...level('ab', { c: { down: true } }), maxFails: 0 }, refused)
    expect(tried).toEqual(['a', 'b'])
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason: 'excluded' })
  })

  it('in the clusters asked for', async () => {
    const { error } = await run({ cluster: { x: level('a') } }, refused, { clusterKey: 'y' })
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason: 'empty' })
  })
})

describe('timeout', () => {
  it('ends a call whose callback hangs, and aborts it', async () => {
    const made = harness({ ...abc, maxFails: 1 })
    let signal: AbortSignal | undefined
    const { settled, ended, attempts } = call(
      made,
      (_, attempt) => {
        signal = attempt.signal
        return never()
      },
      { timeout: 100 },
    )
    await made.clock.advance(99)
    expect(ended()).toBeUndefined()
    expect(signal?.aborted).toBe(false)
    await made.clock.advance(1)
    const { error } = await settled
    expect(error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
    expect(error?.errors[0]).toMatchObject({ code: 'ERR_CHECKUPS_ATTEMPT_TIMEOUT', message: 'no answer within 100 ms' })
    expect(signal?.aborted).toBe(true)
    expect(signal?.reason).toBe(error?.errors[0])
    expect(attempts).toEqual([expect.objectContaining({ ms: 100, verdict: 'failed' })])
    // It had all the time there was.
    expect(made.server('a').health).toBe('err')
  })

  it('does not blame a peer for what the ones before it used', async () => {
    const made = harness({ ...abc, maxFails: 1 })
    const { settled, attempts } = call(
      made,
      async (letter) => {
        await (letter === 'a' ? made.clock.sleep(90) : never())
        throw new Error('slow')
      },
      { timeout: 100 },
    )
    await made.clock.advance(100)
    expect((await settled).error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
    expect(attempts.map(({ ms, verdict }) => [ms, verdict])).toEqual([
      [90, 'failed'],
      [10, 'neutral'],
    ])
    expect(made.server('a').health).toBe('err')
    expect(made.server('b')).toMatchObject({ health: 'ok', inFlight: 0, passive: { failures: 0 } })
  })

  it('starts no attempt after it', async () => {
    const made = harness(abc)
    const { settled, tried } = call(
      made,
      async () => {
        await made.clock.sleep(60)
        throw new Error('slow')
      },
      { timeout: 120 },
    )
    await made.clock.advance(500)
    expect((await settled).error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
    expect(tried).toEqual(['a', 'b'])
    expectNothingLeft(made)
  })

  it.each([
    { name: 'the upstream’s', upstream: { timeout: 50 }, options: {}, at: 50 },
    { name: 'the call’s', upstream: { timeout: 50 }, options: { timeout: 30 }, at: 30 },
    { name: 'the call’s longer one', upstream: { timeout: 50 }, options: { timeout: 80 }, at: 80 },
  ])('is $name', async ({ upstream, options, at }) => {
    const made = harness({ ...abc, ...upstream })
    const { ended } = call(made, never, options)
    await made.clock.advance(at - 1)
    expect(ended()).toBeUndefined()
    await made.clock.advance(1)
    expect(ended()?.error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
    expectNothingLeft(made)
  })

  it('of 0 is none', async () => {
    const made = harness({ ...abc, timeout: 50, tryTimeout: 20 })
    const { ended } = call(made, () => made.clock.sleep(1_000_000), { timeout: 0, tryTimeout: 0 })
    await made.clock.advance(999_999)
    expect(ended()).toBeUndefined()
    await made.clock.advance(1)
    expect(ended()).toEqual({ result: undefined })
  })
})

describe('tryTimeout', () => {
  it('interrupts a callback that hangs and goes on with the next peer', async () => {
    const made = harness({ ...abc, maxFails: 2 })
    const signals: AbortSignal[] = []
    const { settled, tried, attempts } = call(
      made,
      (letter, { signal }) => {
        signals.push(signal)
        return letter === 'c' ? 'c' : never()
      },
      { tryTimeout: 30 },
    )
    await made.clock.advance(29)
    expect(tried).toEqual(['a'])
    await made.clock.advance(1)
    expect(tried).toEqual(['a', 'b'])
    await made.clock.advance(30)
    expect(await settled).toEqual({ result: 'c' })
    expect(attempts.map(({ ms, verdict }) => [ms, verdict])).toEqual([
      [30, 'failed'],
      [30, 'failed'],
      [0, 'ok'],
    ])
    expect(attempts[0]?.error).toMatchObject({
      code: 'ERR_CHECKUPS_ATTEMPT_TIMEOUT',
      message: 'no answer within 30 ms',
    })
    expect(attempts[0]?.error).toBeInstanceOf(CheckupsError)
    expect(signals.map(({ aborted }) => aborted)).toEqual([true, true, false])
    expect(made.server('a').passive.failures).toBe(1)
    expectNothingLeft(made)
  })

  it('ends in tries exceeded when all hang', async () => {
    const made = harness({ ...abc, tryTimeout: 30 })
    const { ended } = call(made, never)
    await made.clock.advance(90)
    expect(ended()?.error?.code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
    expectNothingLeft(made)
  })

  it('stays within timeout', async () => {
    const made = harness(abc)
    const { ended, attempts } = call(made, never, { tryTimeout: 30, timeout: 70 })
    await made.clock.advance(69)
    expect(ended()).toBeUndefined()
    await made.clock.advance(1)
    expect(ended()?.error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
    expect(attempts.map(({ ms, verdict }) => [ms, verdict])).toEqual([
      [30, 'failed'],
      [30, 'failed'],
      [10, 'neutral'],
    ])
  })

  it.each([
    { name: 'rejects', settle: () => Promise.reject(new Error('late')) },
    { name: 'resolves', settle: () => Promise.resolve('late') },
  ])('holds for the next attempt although the one before $name late', async ({ settle }) => {
    const made = harness(abc)
    const { ended, tried } = call(
      made,
      async (letter) => {
        // The first is interrupted at 30 and ends by itself at 40, while the second hangs.
        if (letter !== 'a') return never()
        await made.clock.sleep(40)
        return settle()
      },
      { tryTimeout: 30, timeout: 1000 },
    )
    await made.clock.advance(60)
    expect(tried).toEqual(['a', 'b', 'c'])
    await made.clock.advance(30)
    expect(ended()?.error?.code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
    expectNothingLeft(made)
  })

  it('leaves what comes late without effect', async () => {
    const made = harness({ ...abc, maxFails: 1 })
    const { settled, attempts } = call(
      made,
      async (letter, attempt) => {
        if (letter === 'a') {
          await made.clock.sleep(40)
          attempt.answered(500)
          throw new Error('late')
        }
        await made.clock.sleep(20)
        return letter
      },
      { tryTimeout: 30 },
    )
    await made.clock.advance(100)
    expect(await settled).toEqual({ result: 'b' })
    expect(attempts).toHaveLength(2)
    expect(made.server('a').passive).toMatchObject({ state: 'banned', bans: 1 })
  })
})

describe('the attempt’s signal', () => {
  it('is aborted when it is looked at only after the time is over', async () => {
    const made = harness(abc)
    let late: AbortSignal | undefined
    const { settled } = call(
      made,
      async (letter, attempt) => {
        if (letter !== 'a') return letter
        await made.clock.sleep(40)
        late = attempt.signal
        return never()
      },
      { tryTimeout: 30 },
    )
    await made.clock.advance(50)
    expect(await settled).toEqual({ result: 'b' })
    expect(late?.aborted).toBe(true)
  })

  it('is one object, its own for each attempt', async () => {
    const signals = new Set<AbortSignal>()
    await run(abc, (_, attempt) => {
      signals.add(attempt.signal)
      signals.add(attempt.signal)
      return false
    })
    expect(signals.size).toBe(3)
  })

  it('is not aborted by the attempt’s own end', async () => {
    const signals: AbortSignal[] = []
    await run(
      abc,
      (letter, attempt) => {
        signals.push(attempt.signal)
        return letter === 'b'
      },
      { timeout: 100, tryTimeout: 50 },
    )
    expect(signals.map(({ aborted }) => aborted)).toEqual([false, false])
  })
})

describe('the caller’s signal', () => {
  const listeners = (signal: AbortSignal) => getEventListeners(signal, 'abort').length

  it('aborted before: nobody is asked', async () => {
    const reason = new Error('not wanted')
    const { error, tried, picks } = await run(abc, () => 'ok', { signal: AbortSignal.abort(reason) })
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_ABORTED', cause: reason, attempts: [] })
    expect(tried).toEqual([])
    // Nor has the sequence moved.
    expect(picks(1)).toBe('a')
  })

  it('ends a running attempt at once, without a mark', async () => {
    const made = harness({ ...abc, maxFails: 1 })
    const caller = new AbortController()
    let seen: AbortSignal | undefined
    const { settled, attempts } = call(
      made,
      (_, attempt) => {
        seen = attempt.signal
        return never()
      },
      { signal: caller.signal, timeout: 100 },
    )
    await made.clock.advance(10)
    expect(listeners(caller.signal)).toBe(1)
    const reason = new Error('went away')
    caller.abort(reason)
    const { error } = await settled
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_ABORTED', cause: reason })
    expect(error?.errors).toEqual([reason])
    expect(attempts).toEqual([expect.objectContaining({ verdict: 'neutral', ms: 10 })])
    expect(seen?.reason).toBe(reason)
    expect(made.server('a')).toMatchObject({ health: 'ok', passive: { failures: 0 } })
    expect(listeners(caller.signal)).toBe(0)
    expectNothingLeft(made)
  })

  it('ends the call after an attempt that aborted it and failed', async () => {
    const caller = new AbortController()
    const { code, tried } = await run(
      abc,
      () => {
        caller.abort()
        throw new Error('no')
      },
      { signal: caller.signal },
    )
    expect(code).toBe('ERR_CHECKUPS_ABORTED')
    expect(tried).toEqual(['a'])
  })

  it.each<{ name: string; callback: Callback<unknown>; options?: ReadyOkOptions }>([
    { name: 'success', callback: () => 'ok' },
    { name: 'failures', callback: refused },
    { name: 'stop', callback: refused, options: { isFailure: () => 'stop' } },
    { name: 'a failure, then success', callback: (letter) => letter !== 'a' },
  ])('is left without listeners by $name', async ({ callback, options }) => {
    const { signal } = new AbortController()
    await run(abc, callback, { signal, ...options })
    expect(listeners(signal)).toBe(0)
  })

  it('is left without listeners by a time limit', async () => {
    const made = harness(abc)
    const { signal } = new AbortController()
    const { settled } = call(made, never, { signal, tryTimeout: 30, timeout: 50 })
    await made.clock.advance(35)
    expect(listeners(signal)).toBe(1)
    await made.clock.advance(50)
    await settled
    expect(listeners(signal)).toBe(0)
  })
})

describe('a verdict', () => {
  const statuses = { 404: 'next', 409: 'stop', 418: 'neutral', 429: false, '5xx': true, 503: 'failed' } as const
  it.each<{ status: number; code?: string; tried: string; failures: number }>([
    { status: 200, tried: 'a', failures: 0 },
    { status: 500, tried: 'a', failures: 0 },
    { status: 503, code: 'ERR_CHECKUPS_TRIES_EXCEEDED', tried: 'abc', failures: 1 },
    { status: 429, code: 'ERR_CHECKUPS_TRIES_EXCEEDED', tried: 'abc', failures: 1 },
    { status: 404, code: 'ERR_CHECKUPS_TRIES_EXCEEDED', tried: 'abc', failures: 0 },
    { status: 409, code: 'ERR_CHECKUPS_STOPPED', tried: 'a', failures: 1 },
    { status: 418, code: 'ERR_CHECKUPS_ABORTED', tried: 'a', failures: 0 },
  ])('of the upstream’s statuses: $status', async ({ status, code, tried, failures }) => {
    const made = await run({ ...level('abc'), maxFails: 9, statuses }, () => ({ status }))
    expect(made.code).toBe(code)
    expect(made.tried.join('')).toBe(tried)
    expect(made.server('a').passive.failures).toBe(failures)
    expect(made.attempts.map((attempt) => attempt.status)).toEqual(made.tried.map(() => status))
  })

  it.each<{ said: boolean | RetryVerdict; code?: string; tried: string; failures: number }>([
    { said: 'ok', tried: 'a', failures: 0 },
    { said: false, tried: 'a', failures: 0 },
    { said: 'failed', code: 'ERR_CHECKUPS_TRIES_EXCEEDED', tried: 'abc', failures: 1 },
    { said: true, code: 'ERR_CHECKUPS_TRIES_EXCEEDED', tried: 'abc', failures: 1 },
    { said: 'next', code: 'ERR_CHECKUPS_TRIES_EXCEEDED', tried: 'abc', failures: 0 },
    { said: 'stop', code: 'ERR_CHECKUPS_STOPPED', tried: 'a', failures: 1 },
    { said: 'neutral', code: 'ERR_CHECKUPS_ABORTED', tried: 'a', failures: 0 },
  ])('of isFailure: $said, of a result and of an error', async ({ said, code, tried, failures }) => {
    for (const callback of [() => 'result', refused] as Callback<unknown>[]) {
      const made = await run({ ...level('abc'), maxFails: 9 }, callback, { isFailure: () => said })
      expect(made.code).toBe(code)
      expect(made.tried.join('')).toBe(tried)
      expect(made.server('a').passive.failures).toBe(failures)
    }
  })

  it('of isFailure is asked for with the result or the error', async () => {
    const asked: unknown[] = []
    const error = new Error('no')
    await run(
      abc,
      (letter) => {
        if (letter === 'a') throw error
        return letter
      },
      {
        isFailure: (result, thrown) => {
          asked.push([result, thrown])
          return thrown !== undefined
        },
      },
    )
    expect(asked).toEqual([
      [undefined, error],
      ['b', undefined],
    ])
  })

  it('of isFailure is asked for where tryTimeout ended the attempt', async () => {
    const made = harness(abc)
    const asked: unknown[] = []
    const { ended, tried } = call(made, never, {
      tryTimeout: 30,
      isFailure: (result, error) => {
        asked.push([result, (error as CheckupsError).code])
        return 'stop'
      },
    })
    await made.clock.advance(30)
    expect(ended()?.error?.code).toBe('ERR_CHECKUPS_STOPPED')
    expect(tried).toEqual(['a'])
    expect(asked).toEqual([[undefined, 'ERR_CHECKUPS_ATTEMPT_TIMEOUT']])
  })

  it('of isFailure is not asked for where timeout or the caller’s signal ended the call', async () => {
    const asked: unknown[] = []
    const isFailure = (...args: unknown[]) => asked.push(args) > 0
    const made = harness(abc)
    const timed = call(made, never, { timeout: 30, isFailure })
    await made.clock.advance(30)
    expect(timed.ended()?.error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
    const caller = new AbortController()
    const aborted = call(made, never, { signal: caller.signal, isFailure })
    caller.abort()
    expect((await aborted.settled).error?.code).toBe('ERR_CHECKUPS_ABORTED')
    expect(asked).toEqual([])
  })

  it('is the default where isFailure throws, and the throw is told', async () => {
    const thrown = new Error('mine')
    const made = harness(abc)
    const { settled, tried } = call(made, (letter) => letter !== 'a', {
      isFailure: () => {
        throw thrown
      },
    })
    expect(await settled).toEqual({ result: true })
    expect(tried).toEqual(['a', 'b'])
    expect(made.events).toEqual([
      { name: 'error', error: thrown, during: 'isFailure' },
      { name: 'error', error: thrown, during: 'isFailure' },
    ])
  })

  it('of an AbortError that the callback throws by itself is neutral, and ends the call', async () => {
    const made = await run({ ...abc, maxFails: 1 }, () => {
      throw new DOMException('gone', 'AbortError')
    })
    expect(made.code).toBe('ERR_CHECKUPS_ABORTED')
    expect(made.tried).toEqual(['a'])
    expect(made.server('a').passive.failures).toBe(0)
  })
})

describe('a Response that is not handed on', () => {
  const response = (status: number, cancelled: string[], name: string) =>
    new Response(new ReadableStream({ cancel: () => void cancelled.push(name) }), { status })

  it('has its body cancelled, so that it holds no connection', async () => {
    const cancelled: string[] = []
    const { result } = await run(abc, (letter) => response(letter === 'c' ? 200 : 503, cancelled, letter))
    expect(cancelled).toEqual(['a', 'b'])
    expect((result as Response).bodyUsed).toBe(false)
    await (result as Response).body?.cancel()
    expect(cancelled).toEqual(['a', 'b', 'c'])
  })

  it('is left alone where somebody reads it', async () => {
    const cancelled: string[] = []
    await run(abc, (letter) => {
      const answer = response(503, cancelled, letter)
      answer.body?.getReader()
      return answer
    })
    expect(cancelled).toEqual([])
  })

  it('may have none', async () => {
    const { code } = await run(abc, () => new Response(null, { status: 500 }))
    expect(code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
  })

  it('also if it came too late', async () => {
    const cancelled: string[] = []
    const made = harness(abc)
    const { settled } = call(
      made,
      async (letter) => {
        if (letter === 'a') await made.clock.sleep(40)
        return response(200, cancelled, letter)
      },
      { tryTimeout: 30 },
    )
    await made.clock.advance(100)
    expect((await settled).error).toBeUndefined()
    expect(cancelled).toEqual(['a'])
  })
})

describe('a retry budget', () => {
  const counting = (allowed: number) => {
    const asked = { requests: 0, retries: 0 }
    const budget: RetryBudget = {
      request: () => {
        asked.requests++
      },
      tryRetry: () => ++asked.retries <= allowed,
    }
    return { asked, budget }
  }

  it('is told of the call and asked before every attempt but the first', async () => {
    const { asked, budget } = counting(Infinity)
    const { code } = await run(abc, refused, { budget })
    expect(code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
    expect(asked).toEqual({ requests: 1, retries: 2 })
  })

  it.each([
    { allowed: 0, tried: 'a' },
    { allowed: 1, tried: 'ab' },
  ])('that allows $allowed ends the call after $tried', async ({ allowed, tried }) => {
    const made = await run(abc, refused, { budget: counting(allowed).budget })
    expect(made.code).toBe('ERR_CHECKUPS_RETRY_BUDGET')
    expect(made.tried.join('')).toBe(tried)
  })

  it('of the instance counts for all calls without their own', async () => {
    const { asked, budget } = counting(1)
    const made = harness(abc, { retryBudget: budget })
    const codes = []
    for (let i = 0; i < 2; i++) codes.push((await call(made, refused).settled).error?.code)
    expect(codes).toEqual(['ERR_CHECKUPS_RETRY_BUDGET', 'ERR_CHECKUPS_RETRY_BUDGET'])
    expect(asked).toEqual({ requests: 2, retries: 3 })
    const own = await call(made, refused, { budget: counting(Infinity).budget }).settled
    expect(own.error?.code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
    expect(asked.requests).toBe(2)
  })
})

describe('a change meanwhile', () => {
  it('deleted: the running attempt may end well', async () => {
    const made = harness(abc)
    const { settled } = call(made, async () => {
      await made.checkups.deleteUpstream('api')
      return 'well'
    })
    expect(await settled).toEqual({ result: 'well' })
  })

  it('deleted: no other attempt is started, though the key is there again', async () => {
    const made = harness(abc)
    const { settled, tried } = call(made, async () => {
      await made.checkups.deleteUpstream('api')
      await made.checkups.updateUpstream('api', [level('xyz')])
      throw new Error('no')
    })
    const { error } = await settled
    expect(error?.code).toBe('ERR_CHECKUPS_UPSTREAM_DELETED')
    expect(tried).toEqual(['a'])
    expect(made.clock.pending).toBe(0)
  })

  it('updated: the next attempt picks from the new list', async () => {
    const made = harness(abc)
    const { settled, tried } = call(made, async (letter) => {
      if (letter === 'x') return 'well'
      await made.checkups.updateUpstream('api', [level('xyz')])
      throw new Error('no')
    })
    expect(await settled).toEqual({ result: 'well' })
    expect(tried).toEqual(['a', 'x'])
    expectNothingLeft(made)
  })

  it('updated: what was tried stays tried, by level and address', async () => {
    const made = harness({ cluster: { x: level('ab'), y: level('c') }, maxFails: 0, tries: 9 })
    const { settled, tried } = call(made, async (letter, { number }) => {
      // a leaves and comes again, in its old level and in another.
      if (number === 1) {
        await made.checkups.updateUpstream('api', { x: level('b'), y: level('c') })
        await made.checkups.updateUpstream('api', { x: level('ab'), y: level('ca') })
      }
      throw new Error(letter)
    })
    expect((await settled).error?.code).toBe('ERR_CHECKUPS_NO_PEER')
    expect(tried).toEqual(['a', 'b', 'c', 'a'])
  })

  it('updated: other limits do not reach the call', async () => {
    const made = harness({ ...abc, timeout: 1000 })
    const { ended } = call(made, never)
    await made.checkups.updateUpstream('api', { ...abc, timeout: 10 })
    await made.clock.advance(999)
    expect(ended()).toBeUndefined()
    await made.clock.advance(1)
    expect(ended()?.error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
  })
})

describe('answered', () => {
  it('ends the time limits of the attempt, which may then take as long as it likes', async () => {
    const made = harness(abc)
    const { settled, tried } = call(
      made,
      async (_, attempt) => {
        await made.clock.sleep(25)
        attempt.answered(200)
        await made.clock.sleep(10_000)
        return 'long'
      },
      { timeout: 100, tryTimeout: 30 },
    )
    await made.clock.advance(25)
    // The callback's own is left.
    expect(made.clock.pending).toBe(1)
    await made.clock.advance(10_000)
    expect(await settled).toEqual({ result: 'long' })
    expect(tried).toEqual(['a'])
    expectNothingLeft(made)
  })

  it('does not end those of the next attempt', async () => {
    const made = harness(abc)
    const { ended, tried } = call(
      made,
      (letter, attempt) => {
        if (letter !== 'a') return never()
        attempt.answered()
        throw new Error('broken')
      },
      { tryTimeout: 30 },
    )
    await made.clock.advance(30)
    expect(tried).toEqual(['a', 'b', 'c'])
    await made.clock.advance(30)
    expect(ended()?.error?.code).toBe('ERR_CHECKUPS_TRIES_EXCEEDED')
  })

  it('leaves the caller’s signal in force', async () => {
    const made = harness(abc)
    const caller = new AbortController()
    const { settled } = call(
      made,
      (_, attempt) => {
        attempt.answered()
        return never()
      },
      { signal: caller.signal, timeout: 100 },
    )
    await made.clock.advance(500)
    caller.abort()
    expect((await settled).error?.code).toBe('ERR_CHECKUPS_ABORTED')
    expectNothingLeft(made)
  })

  it('after the total time no other attempt follows', async () => {
    const made = harness(abc)
    const { settled, tried } = call(
      made,
      async (_, attempt) => {
        attempt.answered()
        await made.clock.sleep(150)
        throw new Error('broken')
      },
      { timeout: 100 },
    )
    await made.clock.advance(150)
    expect((await settled).error?.code).toBe('ERR_CHECKUPS_TIMEOUT')
    expect(tried).toEqual(['a'])
  })
})

it('an attempt can ask what the upstream makes of a status', async () => {
  const said: unknown[] = []
  await run({ ...level('a'), statuses: { 404: 'next' } }, (_, attempt) => {
    said.push(attempt.judge(404), attempt.judge(503), attempt.judge(200))
  })
  expect(said).toEqual(['next', 'failed', 'ok'])
})

describe('canRetry', () => {
  const asked = async (upstream: UpstreamOptions, options: ReadyOkOptions = {}) => {
    const said: boolean[] = []
    await run(
      upstream,
      (_, attempt) => {
        said.push(attempt.canRetry())
        throw new Error('no')
      },
      options,
    )
    return said
  }

  it('is true while tries and peers are left', async () => {
    expect(await asked(abc)).toEqual([true, true, false])
    expect(await asked(abc, { tries: 2 })).toEqual([true, false])
    expect(await asked(abc, { tries: 1 })).toEqual([false])
    expect(await asked({ ...level('a', { b: { down: true }, c: { weight: 0 } }), maxFails: 0 })).toEqual([false])
  })

  it('is false once the upstream is deleted or the caller has aborted', async () => {
    const made = harness(abc)
    const caller = new AbortController()
    const said: boolean[] = []
    await call(made, async (_, attempt) => {
      said.push(attempt.canRetry())
      await made.checkups.deleteUpstream('api')
      said.push(attempt.canRetry())
    }).settled
    await made.checkups.updateUpstream('api', abc)
    await call(
      made,
      (_, attempt) => {
        caller.abort()
        said.push(attempt.canRetry())
      },
      { signal: caller.signal },
    ).settled
    expect(said).toEqual([true, false, false])
  })

  it('is false once the total time is over', async () => {
    const made = harness(abc)
    const said: boolean[] = []
    await Promise.all([
      call(
        made,
        async (_, attempt) => {
          attempt.answered()
          await made.clock.sleep(150)
          said.push(attempt.canRetry())
          throw new Error('broken')
        },
        { timeout: 100 },
      ).settled,
      made.clock.advance(150),
    ])
    expect(said).toEqual([false])
  })

  it('is true where a peer on trial, its slot taken, is the last resort', async () => {
    const made = harness({ ...level('ab'), failTimeout: 1000 })
    made.feedback('a')
    await made.clock.advance(1000)
    const holder = made.checkups.acquirePeer('api', { exclude: [target('b')] })
    expect(letterOf(holder?.peer)).toBe('a')
    const said: boolean[] = []
    const { settled, tried } = call(made, (_, attempt) => {
      said.push(attempt.canRetry())
      throw new Error('no')
    })
    await settled
    expect(tried).toEqual(['b', 'a'])
    expect(said).toEqual([true, false])
  })

  it('is false where all others are full', async () => {
    const made = harness({ ...level('a', { b: { maxConns: 1 } }), maxFails: 0 })
    const held = made.checkups.acquirePeer('api', { exclude: [target('a')] })
    const said: boolean[] = []
    const ask: Callback<boolean> = (_, attempt) => said.push(attempt.canRetry()) < 0
    await call(made, ask).settled
    held?.done('ok')
    await call(made, ask).settled
    expect(said).toEqual([false, true, false])
  })

  it('changes nothing', async () => {
    const { tried } = await run(abc, (_, attempt) => {
      for (let i = 0; i < 5; i++) attempt.canRetry()
      return false
    })
    expect(tried).toEqual(['a', 'b', 'c'])
  })
})

it('a call whose policy throws leaves nothing behind', async () => {
  let picks = 0
  const made = harness({
    ...abc,
    balancer: () => {
      let members: readonly { readonly available: boolean }[] = []
      return {
        update: (all) => void (members = all),
        pick: () => {
          if (++picks === 2) throw new Error('policy')
          return members.find(({ available }) => available) as never
        },
      }
    },
  })
  const { signal } = new AbortController()
  const { settled } = call(made, refused, { timeout: 100, signal })
  expect((await settled).error?.message).toMatch(/policy/)
  expectNothingLeft(made)
  expect(getEventListeners(signal, 'abort')).toEqual([])
  // Nor does it keep what was tried from others.
  expect(made.picks(1)).toBe('a')
})

it('a handle’s calls are the same', async () => {
  const { checkups } = harness(abc)
  const attempts: Attempt[] = []
  const result = await checkups.upstream('api').readyOk((peer) => letterOf(peer) === 'b', { attempts })
  expect(result).toBe(true)
  expect(attempts.map(({ peer }) => letterOf(peer))).toEqual(['a', 'b'])
})

it('the message says why a fetch failed', async () => {
  const checkups = new Checkups({ upstreams: { api: { servers: ['127.0.0.1:1'] } } })
  const why = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' })
  const failed = checkups.readyOk('api', () => Promise.reject(new TypeError('fetch failed', { cause: why })))
  await expect(failed).rejects.toThrow(
    /^upstream "api": no answer in 1 try: 127\.0\.0\.1:1 fetch failed, ECONNREFUSED \(/,
  )
})
