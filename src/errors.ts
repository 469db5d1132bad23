/**
 * Every error the library throws, by its code. The codes are stable: programs compare them, messages may change.
 * `docs/errors.md` holds the same table.
 */
const codes = {
  ERR_CHECKUPS_CONFIG: 'A value given to the library is not what it must be; nothing was changed.',
  ERR_CHECKUPS_UNKNOWN_UPSTREAM: 'There is no upstream with this key.',
  ERR_CHECKUPS_UNKNOWN_PEER: 'The upstream has no peer with this address and never had one.',
  ERR_CHECKUPS_NO_PEER: 'Nobody was available for a first or a further attempt.',
  ERR_CHECKUPS_TRIES_EXCEEDED: 'Every allowed attempt failed.',
  ERR_CHECKUPS_STOPPED: 'An attempt failed in a way that must not be repeated on another peer.',
  ERR_CHECKUPS_TIMEOUT: 'The total time ran out.',
  ERR_CHECKUPS_ABORTED: 'The caller gave up: its signal was aborted, or an attempt ended neutrally.',
  ERR_CHECKUPS_RETRY_BUDGET: 'The retry budget allowed no further attempt.',
  ERR_CHECKUPS_UPSTREAM_DELETED: 'The upstream was deleted while the call was running.',
  ERR_CHECKUPS_ATTEMPT_TIMEOUT: 'One attempt did not answer within its time.',
  ERR_CHECKUPS_SOURCE: 'A source that is required has given nothing in time.',
  ERR_CHECKUPS_CONSUL: 'Consul did not do what it was asked to; the reason says why.',
  ERR_CHECKUPS_COMMAND: 'A command, as that which has nginx read its configuration again, has failed.',
  ERR_CHECKUPS_CONFLICT: 'The upstream has not the generation that a change was to be made of.',
  ERR_CHECKUPS_REFUSED: 'An operator has asked for a change that is not made; the reason says why.',
  ERR_CHECKUPS_SYNC: 'The process in charge cannot be reached; what was asked of it may not have been done.',
  ERR_CHECKUPS_CLOSED: 'The instance was closed.',
} as const

/** The code of an error of this library; {@link errorCodes} says what each means. */
export type ErrorCode = keyof typeof codes

/** What each code means. */
export const errorCodes: Readonly<Record<ErrorCode, string>> = codes

/** The brand is a registered symbol, so that it is the same one in every copy of the package in a process. */
const brand = Symbol.for('checkups.error')

/** An error of this library: its `code` says which. */
export class CheckupsError extends Error {
  /** Which error this is. */
  readonly code: ErrorCode

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options)
    this.code = code
    Object.defineProperty(this, brand, { value: true })
  }

  static {
    this.prototype.name = 'CheckupsError'
  }
}

/** Bad input: `path` names the value, `upstreams.api.cluster[0].servers[1].port`. Nothing was changed. */
export class ConfigError extends CheckupsError {
  /** Where the value stands. */
  readonly path: string
  /** What is wrong with it. */
  readonly problem: string

  constructor(path: string, problem: string) {
    super('ERR_CHECKUPS_CONFIG', `${path}: ${problem}`)
    this.path = path
    this.problem = problem
  }

  static {
    this.prototype.name = 'ConfigError'
  }
}

/** No upstream has this key. */
export class UnknownUpstreamError extends CheckupsError {
  /** The key that was asked for. */
  readonly key: string

  constructor(key: string) {
    super('ERR_CHECKUPS_UNKNOWN_UPSTREAM', `unknown upstream ${JSON.stringify(key)}`)
    this.key = key
  }

  static {
    this.prototype.name = 'UnknownUpstreamError'
  }
}

/** The upstream never had a peer with this address. */
export class UnknownPeerError extends CheckupsError {
  /** The upstream's key. */
  readonly key: string
  /** The address that was asked for. */
  readonly address: string

  constructor(key: string, address: string) {
    super('ERR_CHECKUPS_UNKNOWN_PEER', `upstream ${JSON.stringify(key)} has no peer ${address}`)
    this.key = key
    this.address = address
  }

  static {
    this.prototype.name = 'UnknownPeerError'
  }
}

/** What all errors of this library have. */
export interface Coded {
  /** Which error it is. */
  readonly code: ErrorCode
}

/** Whether `error` is one of this library's, of whatever copy of the package, and has `code` if one is given. */
export function isCheckupsError(error: unknown, code?: ErrorCode): error is Error & Coded {
  if (typeof error !== 'object' || error === null || !(brand in error)) return false
  return code === undefined || (error as { code?: unknown }).code === code
}

/** Marks an error class that cannot extend {@link CheckupsError} as one of this library's. @internal */
export function brandError(error: Error): void {
  Object.defineProperty(error, brand, { value: true })
}
