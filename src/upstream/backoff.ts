/** Waits before further attempts. */
import { milliseconds, onlyKeys, record } from '../check.js'
import { Timer, type Clock, type Random } from '../clock.js'

/** How long a call waits before a further attempt: longer each time, and each time by chance. */
export interface Backoff {
  /** Milliseconds: before the second attempt the wait is anything from 0 to this. */
  readonly initial: number
  /** Milliseconds: what that grows to at most, by the factor of 2 each time. Default: 10 times `initial`. */
  readonly max?: number | undefined
}

const KEYS = new Set(['initial', 'max'])

export function checkBackoff(path: string, value: Backoff): void {
  onlyKeys(`${path}.backoff`, record(path, 'backoff', value), KEYS)
  milliseconds(`${path}.backoff`, 'initial', value.initial)
  if (value.max !== undefined) milliseconds(`${path}.backoff`, 'max', value.max)
}

/**
 * "Full jitter": anything below a limit that doubles. Of many who failed at once few come again at once (Marc Brooker,
 * "Exponential Backoff And Jitter", AWS Architecture Blog, 2015).
 */
export function waitBefore(attempt: number, { initial, max = 10 * initial }: Backoff, random: Random): number {
  return random() * Math.min(max, initial * 2 ** (attempt - 2))
}

/** Resolves after that time, or at once when the signal is aborted. */
export function pause(ms: number, clock: Clock, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) return resolve()
    const end = () => {
      timer.stop()
      signal?.removeEventListener('abort', end)
      resolve()
    }
    const timer = new Timer(clock, end)
    signal?.addEventListener('abort', end)
    timer.at(clock.now() + ms)
  })
}
