/** An upstream without the look-up of its key, for the hot path. */
import type { Outcome } from '../health/outcome.js'
import type { Peer } from './peer.js'
import type { Pick } from './pick.js'
import type { AttemptContext } from './attempt.js'
import type { ReadyOkOptions } from './retry.js'
import type { PeerAddress, SelectOptions, UnavailableReason } from './selection.js'
import type { Upstream } from './upstream.js'

/** What a handle needs of its instance. @internal */
export interface HandleOwner {
  /** Throws UnknownUpstreamError. */
  find(key: string): Upstream
  feedbackStatus(key: string, peer: Peer | PeerAddress, outcome: Outcome): boolean
  readyOk<T>(
    upstream: Upstream,
    callback: (peer: Peer, attempt: AttemptContext) => T | PromiseLike<T>,
    options: ReadyOkOptions<T> | undefined,
  ): Promise<T>
}

/**
 * One upstream of an instance. Keep it: it saves a look-up per call, and goes on working when the upstream is deleted and
 * created again. While there is no upstream with its key, its methods throw {@link UnknownUpstreamError}.
 */
export class UpstreamHandle {
  /** The upstream's key. */
  readonly key: string
  readonly #owner: HandleOwner
  #upstream: Upstream

  /** @internal */
  constructor(owner: HandleOwner, key: string) {
    this.key = key
    this.#owner = owner
    this.#upstream = owner.find(key)
  }

  /** Of the last change of its servers or options: another one means another configuration. */
  get generation(): number {
    return this.#current().generation
  }

  /** See {@link Checkups.selectPeer}. */
  selectPeer(options?: SelectOptions): Peer | undefined {
    return this.#current().selectPeer(options)
  }

  /** See {@link Checkups.acquirePeer}. */
  acquirePeer(options?: SelectOptions): Pick | undefined {
    return this.#current().acquirePeer(options)
  }

  /** See {@link Checkups.feedbackStatus}. */
  feedbackStatus(peer: Peer | PeerAddress, outcome: Outcome): boolean {
    return this.#upstream.deleted
      ? this.#owner.feedbackStatus(this.key, peer, outcome)
      : this.#upstream.feedbackStatus(peer, outcome)
  }

  /** See {@link Checkups.readyOk}. */
  async readyOk<T>(
    callback: (peer: Peer, attempt: AttemptContext) => T | PromiseLike<T>,
    options?: ReadyOkOptions<T>,
  ): Promise<T> {
    return this.#owner.readyOk(this.#current(), callback, options)
  }

  /** See {@link Checkups.unavailableReason}. */
  unavailableReason(options?: SelectOptions): UnavailableReason | undefined {
    return this.#current().unavailable(options)
  }

  #current(): Upstream {
    if (this.#upstream.deleted) this.#upstream = this.#owner.find(this.key)
    return this.#upstream
  }
}
