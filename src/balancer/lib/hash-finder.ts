/** What finds the member of a key, whatever the structure behind it. */
import type { Member } from '../balancer.js'

export interface HashFinder {
  /** Takes over a list of members. */
  update(members: readonly Member[]): void
  /** The first member for the key, in an order that depends on the key alone, that `accept` takes; undefined if none. */
  find(key: string | Uint8Array, accept: (member: Member) => boolean): Member | undefined
}
