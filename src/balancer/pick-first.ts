/**
 * Pick first: stays with one server until it fails or is out, then goes on to the next one in the list and stays there
 * (dialogue's "pin until error"). For backends that profit from one client at a time; levels express a fixed preference.
 */
import { onlyKeys } from '../check.js'
import type { Balancer, BalancerEnv, BalancerFactory, Member, Result } from './balancer.js'

/** Options of `pick-first`. */
export interface PickFirstOptions {
  /** The policy. */
  readonly type: 'pick-first'
}

class PickFirst implements Balancer {
  readonly #start: number
  #members: readonly Member[] = []
  /** Where it stays; undefined before the first list. */
  #pinned: Member | undefined

  constructor(env: BalancerEnv) {
    this.#start = env.random()
  }

  update(members: readonly Member[]): void {
    const at = this.#pinned === undefined ? -1 : this.#members.indexOf(this.#pinned)
    this.#members = members
    if (this.#pinned !== undefined && members.includes(this.#pinned)) return
    // What stood behind one that left has moved up to its place; without any, instances begin at different servers.
    this.#pinned =
      at < 0 ? members[Math.floor(this.#start * members.length)] : members[at % Math.max(1, members.length)]
  }

  pick(): Member | undefined {
    const pinned = this.#pinned
    if (pinned === undefined || pinned.available) return pinned
    const next = this.#next()
    // One that is out loses its place; one that this request may not go to (tried, full) does not.
    if (next !== undefined && !pinned.healthy) this.#pinned = next
    return next
  }

  report(member: Member, { outcome }: Result): void {
    if (outcome === 'failed' && member === this.#pinned) this.#pinned = this.#next() ?? member
  }

  /** The next available one in the list, around its end. */
  #next(): Member | undefined {
    const at = this.#members.indexOf(this.#pinned!)
    return [...this.#members.slice(at + 1), ...this.#members.slice(0, Math.max(0, at))].find(
      ({ available }) => available,
    )
  }
}

export function parsePickFirst(path: string, options: Record<string, unknown>): BalancerFactory {
  onlyKeys(path, options, new Set(['type']))
  return (env) => new PickFirst(env)
}
