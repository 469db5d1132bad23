/** A pick while peers fail and return: one is banned and one comes back per 1,000 picks. */
import type { Clock, Peer } from 'checkups'
import type { PickFunction } from './measure.js'
import { Checkups, servers } from './package.js'

const EVERY = 1_000
const FAIL_TIMEOUT = 10_000

/** Time that moves only by hand, and at once. */
class HandClock implements Clock {
  #now = 0
  readonly #timers = new Set<{ readonly at: number; readonly fn: () => void }>()

  now(): number {
    return this.#now
  }

  wallTime(): number {
    return this.#now
  }

  setTimeout(fn: () => void, ms: number): unknown {
    const timer = { at: this.#now + ms, fn }
    this.#timers.add(timer)
    return timer
  }

  clearTimeout(timer: unknown): void {
    this.#timers.delete(timer as { at: number; fn: () => void })
  }

  advance(ms: number): void {
    this.#now += ms
    for (const timer of this.#timers) {
      if (timer.at > this.#now) continue
      this.#timers.delete(timer)
      timer.fn()
    }
  }
}

function upstream(n: number) {
  const clock = new HandClock()
  const defaults = { maxFails: 1, failTimeout: FAIL_TIMEOUT }
  const checkups = new Checkups({ clock, upstreams: { api: { ...defaults, servers: servers(n) } } })
  return { clock, handle: checkups.upstream('api') }
}

/** The peer picked last fails and is out for 500 picks; a success reported at once ends its trial. */
export function churn(n: number): PickFunction {
  const { clock, handle } = upstream(n)
  let picks = 0
  let banned: Peer
  return () => {
    const peer = handle.selectPeer()!
    if (++picks === EVERY / 2) {
      banned = peer
      handle.feedbackStatus(banned, 'failed')
    } else if (picks === EVERY) {
      clock.advance(FAIL_TIMEOUT)
      handle.feedbackStatus(banned, 'ok')
      picks = 0
    }
    return peer
  }
}

/** The same, but its trial waits until a pick chooses it, and ends with the success of that pick. */
export function churnWithTrials(n: number): PickFunction {
  const { clock, handle } = upstream(n)
  const onTrial = new Set<Peer>()
  let picks = 0
  return () => {
    const peer = handle.selectPeer()!
    if (onTrial.size > 0 && onTrial.delete(peer)) handle.feedbackStatus(peer, 'ok')
    if (++picks === EVERY / 2) {
      handle.feedbackStatus(peer, 'failed')
      onTrial.add(peer)
    } else if (picks === EVERY) {
      clock.advance(FAIL_TIMEOUT)
      picks = 0
    }
    return peer
  }
}
