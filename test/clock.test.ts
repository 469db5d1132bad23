import { describe, expect, it } from 'vitest'
import { levelRandom, systemClock, systemRandom, Timer } from '../src/clock.js'
import { VirtualClock } from './support/virtual-clock.js'

describe('a timer', () => {
  const made = (clock = new VirtualClock()) => {
    const fired: number[] = []
    return { clock, fired, timer: new Timer(clock, () => void fired.push(clock.now())) }
  }

  it('fires once, at its deadline', async () => {
    const { clock, fired, timer } = made()
    timer.at(100)
    await clock.advance(99)
    expect(fired).toEqual([])
    await clock.advance(1000)
    expect(fired).toEqual([100])
    expect(clock.pending).toBe(0)
  })

  it('fires at once for a deadline that is past', async () => {
    const { clock, fired, timer } = made()
    await clock.advance(50)
    timer.at(20)
    expect(fired).toEqual([])
    await clock.advance(0)
    expect(fired).toEqual([50])
  })

  it('takes the last deadline, earlier or later', async () => {
    const { clock, fired, timer } = made()
    timer.at(100)
    timer.at(300)
    expect(clock.pending).toBe(1)
    await clock.advance(200)
    expect(fired).toEqual([])
    timer.at(250)
    await clock.advance(1000)
    expect(fired).toEqual([250])
  })

  it('does not fire when stopped; may be stopped at any time, and set again', async () => {
    const { clock, fired, timer } = made()
    timer.stop()
    timer.at(100)
    timer.stop()
    timer.stop()
    expect(clock.pending).toBe(0)
    await clock.advance(200)
    expect(fired).toEqual([])
    timer.at(300)
    await clock.advance(100)
    timer.stop()
    expect(fired).toEqual([300])
  })

  it('may be set again by its own function', async () => {
    const clock = new VirtualClock()
    const fired: number[] = []
    const timer: Timer = new Timer(clock, () => {
      fired.push(clock.now())
      if (fired.length < 3) timer.at(clock.now() + 10)
    })
    timer.at(10)
    await clock.advance(100)
    expect(fired).toEqual([10, 20, 30])
  })

  it.each([{ early: 0.4 }, { early: 1 }, { early: 60 }])(
    'keeps its deadline with a clock that fires $early ms early',
    async ({ early }) => {
      class HastyClock extends VirtualClock {
        override setTimeout(fn: () => void, ms: number) {
          return super.setTimeout(fn, Math.max(0.5, ms - early))
        }
      }
      const { clock, fired, timer } = made(new HastyClock())
      timer.at(100)
      await clock.advance(99.9)
      expect(fired).toEqual([])
      await clock.advance(2)
      expect(fired).toHaveLength(1)
      expect(fired[0]).toBeGreaterThanOrEqual(100)
    },
  )

  it('splits what is longer than a clock can take', async () => {
    const delays: number[] = []
    class NodeLikeClock extends VirtualClock {
      override setTimeout(fn: () => void, ms: number) {
        delays.push(ms)
        // As Node does.
        return super.setTimeout(fn, ms > 2 ** 31 - 1 ? 1 : ms)
      }
    }
    const { clock, fired, timer } = made(new NodeLikeClock())
    const deadline = 5e9
    timer.at(deadline)
    await clock.advance(deadline - 1)
    expect(fired).toEqual([])
    await clock.advance(1)
    expect(fired).toEqual([deadline])
    expect(delays).toEqual([2 ** 31 - 1, 2 ** 31 - 1, deadline - 2 * (2 ** 31 - 1)])
  })

  it('asks a clock for whole milliseconds', async () => {
    const delays: number[] = []
    class Recording extends VirtualClock {
      override setTimeout(fn: () => void, ms: number) {
        delays.push(ms)
        return super.setTimeout(fn, ms)
      }
    }
    const { clock, fired, timer } = made(new Recording())
    timer.at(10.25)
    await clock.advance(20)
    expect(delays).toEqual([11])
    expect(fired).toEqual([11])
  })
})

describe('the machine’s clock', () => {
  it('does not keep a process alive', () => {
    const handle = systemClock.setTimeout(() => undefined, 1000) as NodeJS.Timeout
    expect(handle.hasRef()).toBe(false)
    systemClock.clearTimeout(handle)
  })

  it('goes forward, and its wall time is the epoch’s', () => {
    const [before, after] = [systemClock.now(), systemClock.now()]
    expect(after).toBeGreaterThanOrEqual(before)
    expect(Math.abs(systemClock.wallTime() - Date.now())).toBeLessThan(5000)
  })

  it('has chance in [0, 1)', () => {
    for (let i = 0; i < 100; i++) {
      const u = systemRandom()
      expect(u).toBeGreaterThanOrEqual(0)
      expect(u).toBeLessThan(1)
    }
  })
})

describe('a level’s own chance', () => {
  const draws = (first: number, count: number) => {
    const random = levelRandom(first)
    return Array.from({ length: count }, random)
  }

  it.each([0, 0.25, 0.5, 1 - 2 ** -53])('begins with its draw, %d, and stays in [0, 1)', (first) => {
    const [begin, ...rest] = draws(first, 10_000)
    expect(begin).toBe(first)
    expect(Math.min(...rest)).toBeGreaterThanOrEqual(0)
    expect(Math.max(...rest)).toBeLessThan(1)
    // Spread evenly over tenths: 1,000 each, give or take five standard deviations.
    const tenths = Array.from({ length: 10 }, () => 0)
    for (const u of rest) tenths[Math.floor(u * 10)]!++
    for (const count of tenths) expect(Math.abs(count - 1000)).toBeLessThan(150)
  })

  it('is the same from the same draw, and another from another', () => {
    expect(draws(0.3, 50)).toEqual(draws(0.3, 50))
    expect(draws(0.3, 50).slice(1)).not.toEqual(draws(0.3000001, 50).slice(1))
  })

  it('is mulberry32', () => {
    // Its first numbers from the seeds 0 and 2³¹, of the published code.
    const published = (seed: number) => {
      let a = seed
      return () => {
        let t = (a += 0x6d2b79f5)
        t = Math.imul(t ^ (t >>> 15), t | 1)
        t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
        return ((t ^ (t >>> 14)) >>> 0) / 4_294_967_296
      }
    }
    for (const first of [0, 0.5]) {
      expect(draws(first, 20).slice(1)).toEqual(Array.from({ length: 19 }, published(first * 2 ** 32)))
    }
  })
})
