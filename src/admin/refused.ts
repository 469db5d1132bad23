/** Changes that an operator has asked for and that are not made. */
import { CheckupsError } from '../errors.js'

/**
 * Why a change was refused: `conflict`: the upstream is not any more what `ifMatch` says; `exists`: it, or the server, is there
 * already; `last`: it is the last server, and nobody has said `force`; `name`: a name that is none; `store`: the store has not
 * taken it, and nothing has changed.
 */
export type RefusalReason = 'conflict' | 'exists' | 'last' | 'name' | 'store'

/** A change that was not made. */
export class RefusedError extends CheckupsError {
  /** Why. */
  readonly reason: RefusalReason

  constructor(reason: RefusalReason, message: string, options?: ErrorOptions) {
    super('ERR_CHECKUPS_REFUSED', message, options)
    this.reason = reason
  }

  static {
    this.prototype.name = 'RefusedError'
  }
}
