// For hosts that ask one hook where a request goes, and tell others how it went: the pick of each request under way.
import type { Checkups } from 'checkups'

type Pick = NonNullable<ReturnType<Checkups['acquirePeer']>>

export class Picks {
  readonly #checkups: Checkups
  readonly #picks = new WeakMap<object, Pick>()

  constructor(checkups: Checkups) {
    this.#checkups = checkups
  }

  /** Where a request goes: an origin. */
  target(request: object, key: string): string {
    const pick = this.#checkups.acquirePeer(key)
    if (pick === undefined) throw new Error(`${key}: nobody is available`)
    this.#picks.set(request, pick)
    return pick.peer.origin()
  }

  answered(request: object, status: number): void {
    this.#picks.get(request)?.answered(status)
  }

  /** First call counts. */
  done(request: object, outcome: Parameters<Pick['done']>[0]): void {
    this.#picks.get(request)?.done(outcome)
  }
}
