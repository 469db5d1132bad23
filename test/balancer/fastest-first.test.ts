import { describe, expect, it } from 'vitest'
import type { FastestFirstOptions, Outcome, Pick, UpstreamOptions } from '../../src/index.js'
import { harness, letterOf, level, target } from '../upstream/harness.js'
import { counts, seeded } from './policies.js'

/** How a server answers a request that came at this time. */
type Answer = (
  now: number,
) => { readonly ms: number; readonly outcome?: Outcome; readonly headersAt?: number } | 'never'

/** A server per letter under a steady stream of requests; who got each, by time. */
function traffic(
  answers: Record<string, Answer>,
  {
    seed = 1,
    upstream = {},
    options = {},
  }: { seed?: number; upstream?: Partial<UpstreamOptions>; options?: Omit<FastestFirstOptions, 'type'> } = {},
) {
  const h = harness(
    {
      ...level(Object.keys(answers).join('')),
      balancer: { type: 'fastest-first', ...options },
      maxFails: 0,
      ...upstream,
    },
    { random: seeded(seed) },
  )
  const got: { at: number; letter: string }[] = []
  const start = (pick: Pick) => {
    const letter = letterOf(pick.peer)
    const now = h.clock.now()
    got.push({ at: now, letter })
    const answer = answers[letter]!(now)
    if (answer === 'never') return
    const { ms, outcome = 'ok', headersAt } = answer
    if (headersAt !== undefined) h.clock.setTimeout(() => pick.answered(200), headersAt)
    h.clock.setTimeout(() => pick.done(outcome), ms)
  }
  return {
    ...h,
    /** A request each `every` ms for so long. */
    run: async (duration: number, every = 10) => {
      for (let passed = 0; passed < duration; passed += every) {
        start(h.checkups.acquirePeer('api')!)
        await h.clock.advance(every)
      }
    },
    /** The share of a letter among the requests that came from then on. */
    share: (letter: string, from = 0, to = Infinity) => {
      const those = got.filter(({ at }) => at >= from && at < to)
      return those.filter((one) => one.letter === letter).length / those.length
    },
    answers,
  }
}

const constant =
  (ms: number, outcome: Outcome = 'ok'): Answer =>
  () => ({ ms, outcome })
const healthy = (letters: string, ms = 20) =>
  Object.fromEntries(Array.from(letters, (letter) => [letter, constant(ms)] as const))
const seeds = [1, 2, 3]

describe('fastest-first', () => {
  it.each(seeds)('a server ten times slower gets little, but is asked (seed %i)', async (seed) => {
    const t = traffic({ ...healthy('abcd'), e: constant(200) }, { seed })
    await t.run(20_000)
    expect(t.share('e', 2_000)).toBeLessThan(0.06)
    expect(t.share('e', 2_000)).toBeGreaterThan(0)
    for (const letter of 'abcd') expect(t.share(letter, 2_000)).toBeGreaterThan(0.15)
  })

  it('equal servers get equal shares', async () => {
    const t = traffic(healthy('abcde'))
    await t.run(20_000)
    for (const letter of 'abcde') expect(Math.abs(t.share(letter) - 0.2)).toBeLessThan(0.06)
  })

  it.each(seeds)('a server that was slow for a while comes back by decay (seed %i)', async (seed) => {
    const t = traffic({ ...healthy('abcd'), e: (now) => ({ ms: now >= 5_000 && now < 8_000 ? 1_000 : 20 }) }, { seed })
    await t.run(100_000, 20)
    expect(t.share('e', 5_500, 8_000)).toBeLessThan(0.06)
    expect(t.share('e', 8_000, 15_000)).toBeLessThan(0.1)
    expect(t.share('e', 70_000)).toBeGreaterThan(0.13)
  })

  it.each(seeds)('a server whose first answer was bad luck is tried again (seed %i)', async (seed) => {
    let first = true
    const unlucky: Answer = () => {
      const ms = first ? 3_000 : 20
      first = false
      return { ms }
    }
    const t = traffic({ ...healthy('abcd'), e: unlucky }, { seed })
    await t.run(100_000, 20)
    expect(t.share('e', 75_000)).toBeGreaterThan(0.13)
  })

  it.each(seeds)('a server that fails fast gets less than 5 %% (seed %i)', async (seed) => {
    const t = traffic({ ...healthy('abcd', 100), e: constant(1, { status: 503 }) }, { seed })
    await t.run(30_000)
    expect(t.share('e')).toBeLessThan(0.05)
  })

  it.each(seeds)('a server that begins to fail fast, of two, gets less than 5 %% (seed %i)', async (seed) => {
    const e: Answer = (now) => (now < 5_000 ? { ms: 100 } : { ms: 0, outcome: 'failed' })
    const t = traffic({ a: constant(100), e }, { seed })
    await t.run(60_000)
    expect(t.share('e', 0, 5_000)).toBeGreaterThan(0.3)
    expect(t.share('e', 5_000)).toBeLessThan(0.05)
  })

  it('a server that failed for a while comes back as failures are forgotten', async () => {
    const e: Answer = (now) => (now < 2_000 ? { ms: 1, outcome: 'failed' } : { ms: 20 })
    const t = traffic({ ...healthy('abcd'), e })
    await t.run(200_000, 40)
    expect(t.share('e', 150_000)).toBeGreaterThan(0.13)
  })

  it.each([401, 404, 429])('a server that answers %i to everything, fast, is not preferred', async (status) => {
    const t = traffic({ ...healthy('abcd', 50), e: constant(1, { status }) })
    await t.run(30_000)
    expect(t.share('e', 2_000)).toBeLessThan(0.2)
  })

  it('a single 4xx steers nothing', async () => {
    const run = async (outcome: Outcome) => {
      const t = traffic(healthy('abc'))
      await t.run(1_000)
      const pick = t.checkups.acquirePeer('api', { exclude: [target('a'), target('b')] })!
      await t.clock.advance(20)
      pick.done(outcome)
      const from = t.clock.now()
      await t.run(2_000)
      return ['a', 'b', 'c'].map((letter) => t.share(letter, from))
    }
    expect(await run({ status: 404 })).toEqual(await run({ status: 200 }))
    expect(await run({ status: 503 })).not.toEqual(await run({ status: 200 }))
  })

  it.each(seeds)('a server that hangs is avoided by the age of what it holds (seed %i)', async (seed) => {
    const t = traffic({ ...healthy('abcd'), e: (now) => (now < 2_000 ? { ms: 20 } : 'never') }, { seed })
    await t.run(30_000)
    expect(t.share('e', 0, 2_000)).toBeGreaterThan(0.1)
    expect(t.share('e', 2_000)).toBeLessThan(0.01)
  })

  it.each(seeds)('a server that hung from its first request is avoided too (seed %i)', async (seed) => {
    const t = traffic({ ...healthy('abcd'), e: () => 'never' }, { seed })
    await t.run(30_000)
    expect(t.share('e')).toBeLessThan(0.02)
  })

  it('age counts up to 60 s: a lost request does not outweigh what is slower than that', async () => {
    const t = traffic({ a: constant(20), b: constant(20) }, { options: { decay: 1_000_000_000 } })
    const quick = t.checkups.acquirePeer('api', { exclude: [target('b')] })!
    await t.clock.advance(20)
    quick.done('ok')
    t.checkups.acquirePeer('api', { exclude: [target('b')] })
    const slow = t.checkups.acquirePeer('api', { exclude: [target('a')] })!
    await t.clock.advance(130_000)
    slow.done('ok')
    await t.clock.advance(1_000_000)
    // a: 60 s and one in flight make 120 s; b: 130 s and none.
    expect(letterOf(t.checkups.selectPeer('api'))).toBe('a')
    const more = t.checkups.acquirePeer('api', { exclude: [target('b')] })!
    // Now a has 180 s.
    expect(letterOf(t.checkups.selectPeer('api'))).toBe('b')
    more.done('neutral')
    expect(letterOf(t.checkups.selectPeer('api'))).toBe('a')
  })

  /** The share of a server that holds one stream, from 5 s to 60 s. */
  async function besideAStream(answered: boolean, every: number): Promise<number> {
    const t = traffic(healthy('abcde'))
    const stream = t.checkups.acquirePeer('api', { exclude: Array.from('abcd', target) })!
    await t.clock.advance(20)
    if (answered) stream.answered(101)
    await t.run(60_000, every)
    expect(t.server('e').inFlight).toBeGreaterThan(0)
    return t.share('e', 5_000)
  }

  it('what was answered ages no more: a server with a stream goes on to be asked', async () => {
    expect(await besideAStream(true, 4)).toBeGreaterThan(0.1)
    expect(await besideAStream(false, 4)).toBeLessThan(0.001)
  })

  it.each(seeds)('a new server is not flooded in its first second (seed %i)', async (seed) => {
    for (const ms of [5, 20, 200, 3_000]) {
      const t = traffic({ ...healthy('abcd', 50), f: constant(ms) }, { seed, upstream: level('abcd') })
      await t.run(3_000, 5)
      await t.checkups.addServer('api', target('f'))
      await t.run(1_000, 5)
      expect(t.share('f', 3_000, 4_000), `${ms} ms`).toBeLessThanOrEqual(2 / 5)
      expect(t.share('f', 3_000, 4_000), `${ms} ms`).toBeGreaterThan(0)
    }
  })

  it.each(seeds)('a new server is not starved because another one was slow long ago (seed %i)', async (seed) => {
    const b: Answer = (now) => ({ ms: now < 20 ? 10_000 : 20 })
    const t = traffic({ ...healthy('acd'), b, f: constant(20) }, { seed, upstream: level('abcd') })
    await t.run(15_000)
    await t.checkups.addServer('api', target('f'))
    await t.run(20_000)
    expect(t.share('f', 15_000, 35_000)).toBeGreaterThan(0.1)
  })

  it.each(seeds)('a new server is asked also where requests come one at a time (seed %i)', async (seed) => {
    const t = traffic({ ...healthy('abcd'), f: constant(20) }, { seed, upstream: level('abcd') })
    await t.run(3_000, 40)
    await t.checkups.addServer('api', target('f'))
    await t.run(30_000, 40)
    expect(t.share('f', 3_000)).toBeGreaterThan(0.1)
  })

  it.each(seeds)('of two, the new one is not flooded before its first answer (seed %i)', async (seed) => {
    const t = traffic({ a: constant(50), f: constant(900) }, { seed, upstream: level('a') })
    await t.run(3_000, 5)
    await t.checkups.addServer('api', target('f'))
    await t.run(1_000, 5)
    expect(t.share('f', 3_000, 4_000)).toBeLessThanOrEqual(0.6)
  })

  it.each(seeds)(
    'at the start of all, a server that is slow to its first answer is not flooded (seed %i)',
    async (seed) => {
      const t = traffic({ a: constant(10), f: constant(900) }, { seed })
      await t.run(1_000, 5)
      expect(t.share('f')).toBeLessThanOrEqual(0.5)
    },
  )

  it('a burst after the first answer of anybody is not thrown at those not measured yet', async () => {
    const t = traffic(healthy('ab'), {})
    const pick = t.checkups.acquirePeer('api')!
    await t.clock.advance(20)
    pick.done('ok')
    const burst = Array.from({ length: 100 }, () => letterOf(t.checkups.acquirePeer('api')!.peer))
    for (const count of counts(burst).values()) expect(count).toBeLessThanOrEqual(75)
    expect(counts(burst).size).toBe(2)
  })

  it('a burst right after a server is added is shared with it', async () => {
    const t = traffic({ a: constant(20) })
    await t.run(1_000, 40)
    await t.checkups.addServer('api', target('b'))
    const burst = counts(Array.from({ length: 100 }, () => letterOf(t.checkups.acquirePeer('api')!.peer)))
    expect(burst.get('b')).toBeGreaterThan(30)
    expect(burst.get('b')).toBeLessThan(70)
  })

  it('follows weights among equal servers', async () => {
    const h = harness(
      { ...level('ab', { c: { weight: 4 } }), balancer: 'fastest-first', maxFails: 0 },
      { random: seeded(5) },
    )
    const held = Array.from({ length: 600 }, () => letterOf(h.checkups.acquirePeer('api')!.peer))
    expect(Math.abs(counts(held).get('c')! / 400 - 1)).toBeLessThan(0.1)
  })

  describe('told by feedbackStatus alone', () => {
    const plain = (seed: number) =>
      harness({ ...level('abcde'), balancer: 'fastest-first', maxFails: 0 }, { random: seeded(seed) })

    it.each(seeds)('spreads evenly (seed %i)', (seed) => {
      const h = plain(seed)
      const got = counts(h.picks(5_000))
      for (const letter of 'abcde') expect(Math.abs(got.get(letter)! / 1_000 - 1)).toBeLessThan(0.15)
    })

    it.each(seeds)('avoids one that fails, and takes it back in time (seed %i)', async (seed) => {
      const h = plain(seed)
      const run = async (count: number, bad: boolean) => {
        const picks: string[] = []
        for (let i = 0; i < count; i++) {
          const letter = h.picks(1)
          picks.push(letter)
          h.feedback(letter, bad && letter === 'c' ? 'failed' : 'ok')
          await h.clock.advance(10)
        }
        return (counts(picks).get('c') ?? 0) / count
      }
      expect(await run(1_000, true)).toBeLessThan(0.05)
      await h.clock.advance(150_000)
      expect(await run(1_000, false)).toBeGreaterThan(0.13)
    })
  })

  describe('what does not answer', () => {
    /** Two servers measured at 100 and 200 ms, and requests that end otherwise. */
    async function measured(options: Omit<FastestFirstOptions, 'type'>) {
      const t = traffic(healthy('ab'), { options })
      const once = async (letter: string, ms: number, outcome: Outcome) => {
        const pick = t.checkups.acquirePeer('api', { exclude: [target(letter === 'a' ? 'b' : 'a')] })!
        await t.clock.advance(ms)
        pick.done(outcome)
      }
      await once('a', 100, 'ok')
      await once('b', 200, 'ok')
      const preferred = () => letterOf(t.checkups.selectPeer('api'))
      expect(preferred()).toBe('a')
      return { preferred, once, clock: t.clock }
    }

    it('raises an estimate by its time, if neutral', async () => {
      const { preferred, once } = await measured({ decay: 1e9 })
      await once('a', 300, 'neutral')
      expect(preferred()).toBe('b')
    })

    it('never lowers one', async () => {
      const { preferred, once, clock } = await measured({ decay: 2_000 })
      for (let i = 0; i < 4; i++) {
        await clock.advance(1_000)
        await once('b', 1, 'neutral')
      }
      expect(preferred()).toBe('a')
    })

    it.each([0, 1_000])('does not feed it if it failed, after %i ms', async (ms) => {
      const { preferred, once, clock } = await measured({ decay: 2_000, failureDecay: 1 })
      const letter = ms === 0 ? 'b' : 'a'
      for (let i = 0; i < 4; i++) {
        await clock.advance(1_000)
        await once(letter, ms, 'failed')
      }
      // Long enough for the failures to be forgotten.
      await clock.advance(100)
      expect(preferred()).toBe('a')
    })
  })

  it('forgets an estimate once, by the time constant, when a faster answer comes', async () => {
    const t = traffic(healthy('ab'), { options: { decay: 10_000 } })
    const once = async (letter: string, ms: number) => {
      const pick = t.checkups.acquirePeer('api', { exclude: [target(letter === 'a' ? 'b' : 'a')] })!
      await t.clock.advance(ms)
      pick.done('ok')
    }
    await once('a', 1_000)
    await t.clock.advance(4_990)
    // An average with weight w = e^-0.5 for what was known: 1,000 w + 10 (1 - w) = 610.
    await once('a', 10)
    await once('b', 450)
    expect(letterOf(t.checkups.selectPeer('api'))).toBe('b')
  })

  it('a server that always takes as long is expected to, within the decay since its last answer', async () => {
    const t = traffic(healthy('ab'), { options: { decay: 10_000 } })
    const once = async (letter: string, ms: number) => {
      const pick = t.checkups.acquirePeer('api', { exclude: [target(letter === 'a' ? 'b' : 'a')] })!
      await t.clock.advance(ms)
      pick.done('ok')
    }
    for (let i = 0; i < 30; i++) await once('a', 400)
    await once('b', 300)
    expect(letterOf(t.checkups.selectPeer('api'))).toBe('b')
  })
})
