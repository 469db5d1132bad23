/** What goes wrong with Consul. */
import { CheckupsError } from '../../errors.js'

/** Of papi, which the client is made of. */
interface PapiError extends NodeJS.ErrnoException {
  readonly isTimeout?: true
  readonly isCodec?: true
  readonly response?: { readonly statusCode: number; readonly body?: unknown }
}

/**
 * Consul did not do what it was asked to: `unreachable` (no complete answer: whether a write was done is not known),
 * `denied` (the token lacks a right, or is none), `refused` (any other answer than the expected one), `conflict` (somebody
 * else wrote each time, and the retries are used up).
 */
export class ConsulError extends CheckupsError {
  /** Why. */
  readonly reason: 'unreachable' | 'denied' | 'refused' | 'conflict'
  /** The HTTP status, if there was an answer. */
  readonly status: number | undefined

  constructor(reason: ConsulError['reason'], message: string, options?: ErrorOptions & { status?: number }) {
    super('ERR_CHECKUPS_CONSUL', message, options)
    this.reason = reason
    this.status = options?.status
  }

  static {
    this.prototype.name = 'ConsulError'
  }

  /** Of whatever a call to the client ended with. @internal */
  static of(error: unknown, address: string): ConsulError {
    if (error instanceof ConsulError) return error
    const { response, isTimeout, isCodec, message, code } = error as PapiError
    const at = `Consul at ${address}`
    if (response !== undefined && response.statusCode !== 200) {
      const { statusCode: status, body } = response
      const text = (typeof body === 'string' || body instanceof Buffer ? String(body) : '').trim().slice(0, 200)
      if (status === 403) return new ConsulError('denied', `denied: ${text} (${at})`, { status, cause: error })
      return new ConsulError('refused', `${at} answered ${status}${text === '' ? '' : `: ${text}`}`, {
        status,
        cause: error,
      })
    }
    if (isTimeout) return new ConsulError('unreachable', `${at} did not answer in time`, { cause: error })
    const what = isCodec ? 'the answer is not JSON' : message.replace(/^consul: (?:[a-z.]+: )?/, '') || String(code)
    return new ConsulError('unreachable', `${at}: ${what}`, { cause: error })
  }
}
