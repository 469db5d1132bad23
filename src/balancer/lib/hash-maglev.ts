/** Members in a Maglev table. An entry's member that is out is passed over to the next entry's. */
import type { BalancerEnv, Member } from '../balancer.js'
import type { HashFinder } from './hash-finder.js'
import { hashKey, hashText } from './hash.js'
import { maglevTable } from './maglev.js'
import { Jobs, type Steps } from './slices.js'

/** The paper's default: a prime over 100 times the servers keeps shares within a percent. */
export const MAGLEV_SIZE = 65_537

/** Filling takes 2 to 7 ms. With more servers than this the update around it takes as long, so it is left for later. */
const AT_ONCE = 1_000

export class HashMaglev implements HashFinder {
  readonly #jobs: Jobs
  #table: Int32Array = new Int32Array(0)
  /** Those the table was made for, by number; one that has left is undefined. */
  #members: (Member | undefined)[] = []
  #ordered: readonly Member[] = []
  /** The list as last told, which the table may be behind. */
  #present: ReadonlySet<Member> = new Set()

  constructor(env: BalancerEnv) {
    this.#jobs = new Jobs(env)
  }

  update(members: readonly Member[]): void {
    this.#present = new Set(members)
    this.#hideAbsent()
    const build = () => this.#build(members)
    // Without a table nothing serves meanwhile.
    const atOnce = this.#table.length === 0 || members.length <= AT_ONCE
    if (atOnce && !this.#jobs.busy) this.#jobs.now(build)
    else this.#jobs.later(build)
  }

  find(key: string | Uint8Array, accept: (member: Member) => boolean): Member | undefined {
    const size = this.#table.length
    if (size === 0) return undefined
    let entry = hashKey(key) % size
    for (let left = size; left > 0; left--) {
      const member = this.#members[this.#table[entry]!]
      if (member !== undefined && accept(member)) return member
      entry = entry + 1 === size ? 0 : entry + 1
    }
    return undefined
  }

  *#build(members: readonly Member[]): Steps {
    // In the order of addresses: processes whose lists are ordered otherwise must agree.
    const ordered = [...members].sort((a, b) => (a.peer.address < b.peer.address ? -1 : 1))
    const table = yield* maglevTable(
      ordered.map(({ peer, fullWeight }) => ({
        offset: hashText(peer.address, 0) % MAGLEV_SIZE,
        skip: (hashText(peer.address, 1) % (MAGLEV_SIZE - 1)) + 1,
        weight: fullWeight,
      })),
      MAGLEV_SIZE,
    )
    this.#table = members.length === 0 ? new Int32Array(0) : table
    this.#ordered = ordered
    this.#hideAbsent()
  }

  #hideAbsent(): void {
    this.#members = this.#ordered.map((member) => (this.#present.has(member) ? member : undefined))
  }
}
