/** Drawing members at random: by weight or evenly, in O(1) by the alias method (Vose 1991), passing over the unavailable. */
import type { Member } from '../balancer.js'

/** So often an unavailable member is drawn again (nginx's `random` has 20 too), before those left are looked at one by one. */
const TRIES = 20

export class Draw<D = unknown> {
  readonly #members: readonly Member<D>[]
  readonly #random: () => number
  /** Of column i a draw is i with this probability, else `#alias[i]`; undefined where all weights are equal. */
  readonly #keep: Float64Array | undefined
  readonly #alias: Int32Array

  constructor(members: readonly Member<D>[], random: () => number, byWeight: boolean) {
    this.#members = members
    this.#random = random
    const n = members.length
    this.#alias = new Int32Array(n)
    if (!byWeight || members.every(({ weight }) => weight === members[0]!.weight)) return
    const sum = members.reduce((total, { weight }) => total + weight, 0)
    const share = Float64Array.from(members, ({ weight }) => (weight * n) / sum)
    const small: number[] = []
    const large: number[] = []
    share.forEach((value, i) => (value < 1 ? small : large).push(i))
    this.#keep = new Float64Array(n).fill(1)
    while (small.length > 0 && large.length > 0) {
      const less = small.pop()!
      const more = large.at(-1)!
      this.#keep[less] = share[less]!
      this.#alias[less] = more
      share[more]! -= 1 - share[less]!
      if (share[more]! < 1) small.push(large.pop()!)
    }
  }

  /** An available member, and another one than `not`; undefined if there is none. */
  one(not?: Member<D>): Member<D> | undefined {
    for (let tries = 0; tries < TRIES && this.#members.length > 0; tries++) {
      const member = this.#any()
      if (member.available && member !== not) return member
    }
    const left = this.#members.filter((member) => member.available && member !== not)
    if (left.length === 0) return undefined
    const weight = (member: Member<D>) => (this.#keep === undefined ? 1 : member.weight)
    let rest = this.#random() * left.reduce((sum, member) => sum + weight(member), 0)
    return left.find((member) => (rest -= weight(member)) < 0) ?? left.at(-1)
  }

  #any(): Member<D> {
    const x = this.#random() * this.#members.length
    const column = Math.floor(x)
    // The fraction of the same draw decides between the column and its alias.
    const i = this.#keep === undefined || x - column < this.#keep[column]! ? column : this.#alias[column]!
    return this.#members[i]!
  }
}
