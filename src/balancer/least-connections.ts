/**
 * Least connections: the fewest requests in flight per weight. Among equals smooth weighted round robin decides, as in
 * nginx's `least_conn`, so that the first server of the list is not the one that always gets the next request.
 */
import { expected, onlyKeys } from '../check.js'
import type { Balancer, BalancerEnv, BalancerFactory, Member } from './balancer.js'
import { Draw } from './lib/draw.js'

/** Options of `least-connections`. */
export interface LeastConnectionsOptions {
  /** The policy. */
  readonly type: 'least-connections'
  /**
   * `'all'` compares every server, O(n); 2 compares two drawn at random, O(1), which is nearly as good and does not send
   * every process of a fleet to the same idle server. Default `'all'`.
   */
  readonly choices?: 2 | 'all' | undefined
}

class LeastOfAll implements Balancer<number> {
  #members: readonly Member<number>[] = []
  #start: number | undefined

  constructor(env: BalancerEnv) {
    this.#start = env.random()
  }

  /** `data` is the current weight of smooth round robin. */
  update(members: readonly Member<number>[]): void {
    this.#members = members
    for (const member of members) member.data ??= 0
    if (this.#start === undefined || members.length === 0) return
    // Processes that start together begin at different servers: one is ahead by what a pick costs the others.
    const first = Math.floor(this.#start * members.length)
    this.#start = undefined
    for (const member of members.slice(0, first)) member.data = -members.length
  }

  pick(): Member<number> | undefined {
    let least: Member<number> | undefined
    let tied = false
    for (const member of this.#members) {
      if (!member.available) continue
      const difference = least === undefined ? -1 : member.inFlight * least.weight - least.inFlight * member.weight
      if (difference < 0) least = member
      tied = difference === 0 || (tied && difference > 0)
    }
    return tied && least !== undefined ? this.#rotate(least) : least
  }

  #rotate(least: Member<number>): Member<number> {
    let best: Member<number> | undefined
    let total = 0
    for (const member of this.#members) {
      if (!member.available || member.inFlight * least.weight !== least.inFlight * member.weight) continue
      member.data! += member.weight
      total += member.weight
      if (best === undefined || member.data! > best.data!) best = member
    }
    best!.data! -= total
    return best!
  }
}

class LeastOfTwo implements Balancer {
  readonly #env: BalancerEnv
  #draw: Draw

  constructor(env: BalancerEnv) {
    this.#env = env
    this.#draw = new Draw([], env.random, false)
  }

  update(members: readonly Member[]): void {
    this.#draw = new Draw(members, this.#env.random, false)
  }

  pick(): Member | undefined {
    const one = this.#draw.one()
    const other = one === undefined ? undefined : this.#draw.one(one)
    if (one === undefined || other === undefined) return one
    // With the request to come counted, idle servers differ by weight too.
    return (other.inFlight + 1) * one.weight < (one.inFlight + 1) * other.weight ? other : one
  }
}

export function parseLeastConnections(path: string, options: Record<string, unknown>): BalancerFactory {
  onlyKeys(path, options, new Set(['type', 'choices']))
  const choices = options['choices'] ?? 'all'
  if (choices === 'all') return (env) => new LeastOfAll(env)
  if (choices === 2) return (env) => new LeastOfTwo(env)
  throw expected(path, 'choices', '2 or "all"', choices)
}
