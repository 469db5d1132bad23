/** Policies of a user's own, each of another class: what makes the calls of a process see many kinds. */
import type { Balancer, BalancerEnv, BalancerFactory, Member } from 'checkups'

class RoundRobin implements Balancer {
  #members: readonly Member[] = []
  #next = 0

  update(members: readonly Member[]): void {
    this.#members = members
  }

  pick(): Member | undefined {
    if (this.#next >= this.#members.length) this.#next = 0
    return this.#members[this.#next++]
  }
}

class Random implements Balancer {
  #members: readonly Member[] = []
  readonly #env: BalancerEnv

  constructor(env: BalancerEnv) {
    this.#env = env
  }

  update(members: readonly Member[]): void {
    this.#members = members
  }

  pick(): Member | undefined {
    return this.#members[Math.floor(this.#env.random() * this.#members.length)]
  }
}

class LeastInFlight implements Balancer {
  readonly name = 'least in flight'
  #members: readonly Member[] = []

  update(members: readonly Member[]): void {
    this.#members = members
  }

  pick(): Member | undefined {
    return this.#members.reduce((best, member) => (member.inFlight < best.inFlight ? member : best), this.#members[0]!)
  }
}

class First implements Balancer {
  #first: Member | undefined

  update(members: readonly Member[]): void {
    this.#first = members.find(({ available }) => available)
  }

  pick(): Member | undefined {
    return this.#first
  }
}

class Hash implements Balancer {
  #members: readonly Member[] = []
  #key = 0

  update(members: readonly Member[]): void {
    this.#members = members
  }

  pick(): Member | undefined {
    this.#key = Math.imul(this.#key + 1, 0x9e3779b1) >>> 0
    return this.#members[this.#key % this.#members.length]
  }
}

export const policies: Readonly<Record<string, BalancerFactory>> = {
  roundRobin: () => new RoundRobin(),
  random: (env) => new Random(env),
  leastInFlight: () => new LeastInFlight(),
  first: () => new First(),
  hash: () => new Hash(),
}
