/** nginx's ip_hash: the weights as stretches of a line, and the hash of an address modulo its length. */
import type { Member } from '../balancer.js'
import type { HashFinder } from './hash-finder.js'
import { IP_HASH_START, ipHashBytes, nextIpHash } from './nginx-hash.js'

export class HashIp implements HashFinder {
  readonly #tries: number
  #members: readonly Member[] = []
  #total = 0

  /** `tries` is how many rounds are made before it gives up. */
  constructor(tries: number) {
    this.#tries = tries
  }

  update(members: readonly Member[]): void {
    this.#members = members
    this.#total = members.reduce((sum, { fullWeight }) => sum + fullWeight, 0)
  }

  find(key: string | Uint8Array, accept: (member: Member) => boolean): Member | undefined {
    const bytes = ipHashBytes(key)
    let hash = IP_HASH_START
    // One that is out keeps its stretch: the others' addresses stay where they are.
    for (let tries = 0; tries < this.#tries && this.#total > 0; tries++) {
      hash = nextIpHash(hash, bytes)
      let at = hash % this.#total
      const member = this.#members.find(({ fullWeight }) => (at -= fullWeight) < 0)
      if (member !== undefined && accept(member)) return member
    }
    return undefined
  }
}
