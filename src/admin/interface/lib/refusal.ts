/** Why something was not done, for each interface to say in its own words. */
import { isCheckupsError } from '../../../errors.js'
import { HttpError, type AdminReply, type Route } from '../../lib/route.js'
import type { RefusalReason } from '../../refused.js'

/**
 * `config`: a value is wrong; `upstream`, `peer`: there is none; `http`: the request itself; `closed`: the instance was;
 * otherwise the reason of a `RefusedError`.
 */
export type RefusalKind = 'config' | 'upstream' | 'peer' | 'http' | 'closed' | RefusalReason

export interface Refusal {
  readonly kind: RefusalKind
  /** What it is in HTTP, where the interface has nothing else to say. */
  readonly status: number
  readonly message: string
  /** Headers that the answer must have. */
  readonly headers: Readonly<Record<string, string>>
}

const STATUS_OF: Readonly<Record<RefusalReason, number>> = {
  conflict: 409,
  exists: 409,
  last: 409,
  name: 400,
  store: 503,
}

/** Anything else is a fault of ours, and thrown on. */
function refusalOf(error: unknown): Refusal {
  if (error instanceof HttpError) {
    const { status, message, headers } = error
    return { kind: 'http', status, message, headers }
  }
  if (!isCheckupsError(error)) throw error
  const { message } = error
  const of = (kind: RefusalKind, status: number): Refusal => ({ kind, status, message, headers: {} })
  switch (error.code) {
    case 'ERR_CHECKUPS_CONFIG':
      return of('config', 400)
    case 'ERR_CHECKUPS_UNKNOWN_UPSTREAM':
      return of('upstream', 404)
    case 'ERR_CHECKUPS_UNKNOWN_PEER':
      return of('peer', 404)
    case 'ERR_CHECKUPS_CLOSED':
      return of('closed', 503)
    case 'ERR_CHECKUPS_REFUSED': {
      const { reason } = error as unknown as { readonly reason: RefusalReason }
      return of(reason, STATUS_OF[reason])
    }
    default:
      throw error
  }
}

/** A route that says in the words of its interface why it has not done what it was asked to. */
export function route(writes: boolean, run: Route['run'], refuse: (refusal: Refusal) => AdminReply): Route {
  return {
    writes,
    run: async (request) => {
      try {
        return await run(request)
      } catch (error) {
        return refuse(refusalOf(error))
      }
    },
  }
}

/** A route that answers, and does nothing. */
export function always(reply: AdminReply): Route {
  return { writes: false, run: () => reply }
}
