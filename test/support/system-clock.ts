/** The machine's clock, which adapters go by, in the hand of a test. */
import { onTestFinished, vi } from 'vitest'
import { systemClock } from '../../src/clock.js'
import { VirtualClock } from './virtual-clock.js'

/**
 * It stands still for the rest of the test, but for what the test lets pass: a time limit is over when the test says so, and
 * nobody is late because the machine is busy. Timers of Node's sockets and of undici go on.
 */
export function stopSystemClock(): VirtualClock {
  const clock = new VirtualClock()
  const spies = [
    vi.spyOn(systemClock, 'now').mockImplementation(() => clock.now()),
    vi.spyOn(systemClock, 'setTimeout').mockImplementation((fn, ms) => clock.setTimeout(fn, ms)),
    vi.spyOn(systemClock, 'clearTimeout').mockImplementation((handle) => clock.clearTimeout(handle)),
  ]
  onTestFinished(() => {
    for (const spy of spies) spy.mockRestore()
  })
  return clock
}
