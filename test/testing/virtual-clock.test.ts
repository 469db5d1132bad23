import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { VirtualClock } from '../../src/testing/index.js'

describe('a virtual clock', () => {
  it('stands still, and wall time goes with it', async () => {
    const clock = new VirtualClock()
    expect([clock.now(), clock.wallTime()]).toEqual([0, Date.UTC(2026, 0, 1)])
    await clock.advance(1500)
    expect([clock.now(), clock.wallTime()]).toEqual([1500, Date.UTC(2026, 0, 1, 0, 0, 1, 500)])
  })

  it('runs timers by time, those of one instant in creation order, before the caller goes on', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.integer({ min: 0, max: 20 }), fc.boolean()), { maxLength: 80 }), (timers) => {
        const clock = new VirtualClock()
        const ran: number[][] = []
        const handles = timers.map(([ms], index) => clock.setTimeout(() => ran.push([clock.now(), index]), ms))
        timers.forEach(([, cleared], index) => {
          if (cleared) clock.clearTimeout(handles[index])
        })
        const left = timers.flatMap(([ms, cleared], index) => (cleared ? [] : [[ms, index]]))
        expect(clock.pending).toBe(left.length)
        clock.advanceSync(20)
        expect(ran).toEqual(left.sort(([a, i], [b, j]) => a! - b! || i! - j!))
        expect([clock.pending, clock.now()]).toEqual([0, 20])
      }),
    )
  })

  it('runs what timers set within the time, and no more', () => {
    const clock = new VirtualClock()
    const ran: number[] = []
    const again = () => {
      ran.push(clock.now())
      clock.setTimeout(again, 10)
    }
    clock.setTimeout(again, 10)
    clock.advanceSync(35)
    expect([ran, clock.now(), clock.pending]).toEqual([[10, 20, 30], 35, 1])
    clock.advanceSync(5)
    expect(ran).toEqual([10, 20, 30, 40])
  })

  it('lets promises settle between timers', async () => {
    const clock = new VirtualClock()
    const seen: string[] = []
    for (const name of ['first', 'second']) {
      clock.setTimeout(() => {
        seen.push(name)
        void Promise.resolve()
          .then(() => Promise.resolve())
          .then(() => seen.push(`after ${name}`))
      }, 5)
    }
    await clock.advance(5)
    expect(seen).toEqual(['first', 'after first', 'second', 'after second'])
  })

  it('sleeps', async () => {
    const clock = new VirtualClock()
    const wakes: number[] = []
    void clock
      .sleep(10)
      .then(() => clock.sleep(10))
      .then(() => wakes.push(clock.now()))
    await clock.advance(19)
    expect(wakes).toEqual([])
    await clock.advance(1)
    expect(wakes).toEqual([20])
  })

  it('runs until idle, or says that it is not', async () => {
    const clock = new VirtualClock()
    let steps = 3
    const again = () => {
      if (--steps > 0) clock.setTimeout(again, 1000)
    }
    again()
    expect(await clock.runUntilIdle()).toBe(true)
    expect([clock.now(), steps]).toEqual([2000, 0])
    const forever = () => void clock.setTimeout(forever, 1)
    forever()
    expect(await clock.runUntilIdle(50)).toBe(false)
    expect([clock.now(), clock.pending]).toEqual([2050, 1])
  })

  it('takes past and strange delays for none, clears twice, and clears what has run', () => {
    const clock = new VirtualClock()
    const ran: string[] = []
    clock.advanceSync(100)
    clock.setTimeout(() => ran.push('negative'), -5)
    const nan = clock.setTimeout(() => ran.push('not a number'), NaN)
    clock.at(50, () => ran.push('past'))
    const cleared = clock.setTimeout(() => ran.push('cleared'), 0)
    clock.clearTimeout(cleared)
    clock.clearTimeout(cleared)
    clock.clearTimeout(undefined)
    clock.advanceSync(0)
    clock.clearTimeout(nan)
    expect(ran).toEqual(['negative', 'not a number', 'past'])
  })

  it('steps to the next timer, but not beyond a time', () => {
    const clock = new VirtualClock()
    clock.setTimeout(() => undefined, 30)
    expect([clock.step(29), clock.now()]).toEqual([false, 0])
    expect([clock.step(30), clock.now()]).toEqual([true, 30])
    expect([clock.step(), clock.now()]).toEqual([false, 30])
  })
})
