/** Weighted random; with two choices, the one of two draws that has less to do (nginx's `random two least_conn`). */
import { expected, onlyKeys } from '../check.js'
import type { Balancer, BalancerEnv, BalancerFactory, Member } from './balancer.js'
import { Draw } from './lib/draw.js'

/** Options of `random`. */
export interface RandomOptions {
  /** The policy. */
  readonly type: 'random'
  /** 1: a draw by weight. 2: of two such draws, the one with fewer requests in flight per weight. Default 1. */
  readonly choices?: 1 | 2 | undefined
}

class Random implements Balancer {
  readonly #env: BalancerEnv
  readonly #choices: number
  #draw: Draw

  constructor(env: BalancerEnv, choices: number) {
    this.#env = env
    this.#choices = choices
    this.#draw = new Draw([], env.random, true)
  }

  update(members: readonly Member[]): void {
    this.#draw = new Draw(members, this.#env.random, true)
  }

  pick(): Member | undefined {
    const one = this.#draw.one()
    const other = this.#choices === 2 && one !== undefined ? this.#draw.one(one) : undefined
    // As in nginx, the second draw stays when both are equal.
    return other === undefined || other.inFlight * one!.weight > one!.inFlight * other.weight ? one : other
  }
}

export function parseRandom(path: string, options: Record<string, unknown>): BalancerFactory {
  onlyKeys(path, options, new Set(['type', 'choices']))
  const choices = options['choices'] ?? 1
  if (choices !== 1 && choices !== 2) throw expected(path, 'choices', '1 or 2', choices)
  return (env) => new Random(env, choices)
}
