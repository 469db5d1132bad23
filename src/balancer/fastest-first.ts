/**
 * Fastest first: of two servers drawn at random, the one whose expected time is less.
 *
 * Peak EWMA (Finagle): a slower answer than expected counts at once, a faster one by and by, and what is not asked is
 * forgotten, so that a server that was slow once is tried again. Three repairs, each for a way it fails alone: a request
 * that hangs counts by its age; failures, which may be fast, multiply the cost; and a server that fails costs at least
 * twice the mean. A new server begins at the mean, so that it is neither flooded nor starved.
 */
import { milliseconds, onlyKeys } from '../check.js'
import type { Balancer, BalancerEnv, BalancerFactory, Member, Result } from './balancer.js'
import { Draw } from './lib/draw.js'

/** Options of `fastest-first`. */
export interface FastestFirstOptions {
  /** The policy. */
  readonly type: 'fastest-first'
  /**
   * Milliseconds: the time constant of forgetting latencies. Default 10,000, which Finagle, Linkerd, Envoy, ingress-nginx
   * and APISIX share.
   */
  readonly decay?: number | undefined
  /** Milliseconds: the time constant of forgetting failures. Default 30,000, from dialogue. */
  readonly failureDecay?: number | undefined
}

/** What a failure and a 4xx weigh beside a request in flight; from dialogue's balanced strategy. */
const FAILURE = 10
const CLIENT_ERROR = 0.1
/** With failures, a cost of at least so many times the mean: an error in a millisecond is no fast answer. */
const FLOOR = 2
/** A request that has not been answered counts by its age up to this, so that one lost report is not for ever. */
const OLDEST = 60_000

interface Estimate {
  /** Milliseconds expected at `at`, once measured; less since then. */
  cost: number
  at: number
  measured: boolean
  /** Failures that count, at `failedAt`; fewer since then. */
  failures: number
  failedAt: number
}

class FastestFirst implements Balancer<Estimate> {
  readonly timed = true
  readonly #env: BalancerEnv
  readonly #decay: number
  readonly #failureDecay: number
  #members: readonly Member<Estimate>[] = []
  #draw: Draw<Estimate>
  /** Over the measured members: the mean is one of the costs as last measured, which needs no look at all of them. */
  #sum = 0
  #measured = 0

  constructor(env: BalancerEnv, decay: number, failureDecay: number) {
    this.#env = env
    this.#decay = decay
    this.#failureDecay = failureDecay
    this.#draw = new Draw<Estimate>([], env.random, false)
  }

  update(members: readonly Member<Estimate>[]): void {
    const now = this.#env.now()
    this.#members = members
    const known = members.flatMap(({ data }) => (data?.measured === true ? [data.cost] : []))
    this.#measured = known.length
    this.#sum = known.reduce((sum, cost) => sum + cost, 0)
    for (const member of members) {
      member.data ??= { cost: 0, at: now, measured: false, failures: 0, failedAt: now }
    }
    this.#draw = new Draw(members, this.#env.random, false)
  }

  pick(_request: unknown, now: number): Member<Estimate> | undefined {
    const one = this.#draw.one()
    const other = one === undefined ? undefined : this.#draw.one(one)
    if (one === undefined || other === undefined) return one
    return this.#load(other, now) < this.#load(one, now) ? other : one
  }

  report({ data }: Member<Estimate>, { outcome, status, ms, now }: Result): void {
    if (data === undefined) return
    if (outcome === 'failed') return this.#fail(data, FAILURE, now)
    if (outcome === 'ok' && status >= 400 && status < 500) this.#fail(data, CLIENT_ERROR, now)
    if (Number.isNaN(ms)) return
    const kept = this.#kept(data, now)
    const expected = (data.measured ? data.cost : this.#mean) * kept
    // Who gave up has waited at least so long; that the peer would have been faster nobody knows.
    if (outcome === 'neutral' && (ms <= expected || !data.measured)) return
    this.#measure(data, !data.measured || ms > expected ? ms : expected + ms * (1 - kept), now)
  }

  get #mean(): number {
    return this.#measured === 0 ? 0 : this.#sum / this.#measured
  }

  #measure(data: Estimate, cost: number, now: number): void {
    // There was nothing to expect before, and so nothing to forget.
    if (this.#measured === 0) for (const member of this.#members) if (member.data !== undefined) member.data.at = now
    if (data.measured) this.#sum -= data.cost
    else this.#measured++
    this.#sum += cost
    data.cost = cost
    data.at = now
    data.measured = true
  }

  #fail(data: Estimate, weight: number, now: number): void {
    data.failures = this.#failures(data, now) + weight
    data.failedAt = now
  }

  #failures({ failures, failedAt }: Estimate, now: number): number {
    return failures === 0 ? 0 : failures * remaining((now - failedAt) / this.#failureDecay)
  }

  /** How much of an estimate is not forgotten yet. */
  #kept({ at }: Estimate, now: number): number {
    return remaining((now - at) / this.#decay)
  }

  #load({ data, oldest, inFlight, weight }: Member<Estimate>, now: number): number {
    if (data === undefined) return Infinity
    // An integer: a single 4xx among many answers steers nothing.
    const failures = Math.round(this.#failures(data, now))
    const age = oldest === Infinity ? 0 : Math.min(now - oldest, OLDEST)
    const floor = failures > 0 ? FLOOR * this.#mean : 0
    // One that has not been measured is expected to be like the mean, and is forgotten like the others, so that it is
    // tried. Before the first measurement of anybody every cost is the same: what is in flight and what failed decides.
    const expected = (data.measured ? data.cost : this.#mean) * this.#kept(data, now)
    const cost = this.#measured === 0 ? 1 : Math.max(expected, age, floor)
    return (cost * (inFlight + 1 + failures)) / weight
  }
}

/**
 * e to the power of −x. Mostly little time has passed: below a thousandth three terms of its series are right to 2·10⁻¹⁰, in
 * a fraction of the time.
 */
function remaining(x: number): number {
  return x < 0.001 ? 1 - x + (x * x) / 2 : Math.exp(-x)
}

export function parseFastestFirst(path: string, options: Record<string, unknown>): BalancerFactory {
  onlyKeys(path, options, new Set(['type', 'decay', 'failureDecay']))
  const decay = milliseconds(path, 'decay', options['decay'] ?? 10_000, 1)
  const failureDecay = milliseconds(path, 'failureDecay', options['failureDecay'] ?? 30_000, 1)
  return (env) => new FastestFirst(env, decay, failureDecay)
}
