/** What all adapters that repeat HTTP requests may be told. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { array, functions, integer, milliseconds } from '../check.js'
import type { Checkups } from '../checkups.js'
import type { Attempt } from '../upstream/attempt.js'
import { checkBackoff, type Backoff } from '../upstream/backoff.js'
import type { RetryBudget } from '../upstream/budget.js'
import { checkHashKey, type GatewayStatus, type HashKeyOption } from './http.js'

/** How requests are repeated. */
export interface RepeatOptions {
  /**
   * Statuses that send an idempotent request to the next peer, if there is one; the last peer's answer is handed on. Default
   * 502, 503, 504: they speak of another hop or of lacking capacity, where a 500 is the application's own answer.
   */
  readonly retryStatuses?: readonly number[] | undefined
  /**
   * Bytes kept of a body that can be read only once, for a further attempt; a longer one is tried once it has begun to flow.
   * Default 1,048,576 (1 MiB): what most APIs accept.
   */
  readonly bodyLimit?: number | undefined
  /** Attempts at most. Default: the upstream's. */
  readonly tries?: number | undefined
  /** Milliseconds in all until the answer begins. Default: the upstream's. */
  readonly timeout?: number | undefined
  /** Milliseconds for each attempt until its answer begins. Default: the upstream's. */
  readonly tryTimeout?: number | undefined
  /** How long to wait before a further attempt. Default: not at all, for it goes to somebody else. */
  readonly backoff?: Backoff | undefined
  /** Asked before every retry. Default: the instance's. */
  readonly budget?: RetryBudget | undefined
}

/** A request that could not be proxied. */
export interface ProxyFailure {
  /** What to answer: 502 (no such upstream, or every attempt failed), 503 (nobody available), 504 (out of time). */
  readonly status: GatewayStatus
  /** Why: mostly an `AttemptsError`. */
  readonly error: unknown
  /** The client's request. */
  readonly req: IncomingMessage
}

/** A request that is over. */
export interface ProxiedRequest {
  /** The client's request. */
  readonly req: IncomingMessage
  /** The upstream's key; undefined if the request named none. */
  readonly upstream: string | undefined
  /** Everybody who was asked, in order, as `formatAttempts` prints them. */
  readonly attempts: readonly Attempt[]
}

/** Options of proxies. */
export interface GatewayOptions extends RepeatOptions {
  /** The upstream of a request; undefined is answered with 502. Default: the Host header, lower case, without its port. */
  readonly key?: ((req: IncomingMessage) => string | undefined) | undefined
  /** What hashing policies hash: the client's address (`'ip'`, of the connection), `'url'`, `{ header }`, or a function. */
  readonly hashKey?: HashKeyOption | undefined
  /** Which named clusters to use, in which order. Default: all. */
  readonly clusterKey?: ((req: IncomingMessage) => string | readonly string[] | undefined) | undefined
  /** Called with every request when it is over, for a log: what it throws ends nothing. */
  readonly onEnd?: ((ended: ProxiedRequest) => void) | undefined
  /** Answers a request that could not be proxied; must end `res`. Default: a line of text. Upgrades always get that. */
  readonly onFailure?: ((failure: ProxyFailure, res: ServerResponse) => void | Promise<void>) | undefined
}

/** The names of {@link RepeatOptions}. */
export const REPEAT_KEYS = ['retryStatuses', 'bodyLimit', 'tries', 'timeout', 'tryTimeout', 'backoff', 'budget']

/** The names of {@link GatewayOptions}. */
export const GATEWAY_KEYS = [...REPEAT_KEYS, 'key', 'hashKey', 'clusterKey', 'onEnd', 'onFailure']

const MOST_TRIES = 2 ** 31 - 1

/** @throws ConfigError */
export function checkGateway(options: GatewayOptions): void {
  functions('options', options, ['key', 'clusterKey', 'onEnd', 'onFailure'])
  checkHashKey(options.hashKey, ['ip', 'url'])
}

/** @throws ConfigError */
export function compileRepeat(checkups: Checkups, options: RepeatOptions) {
  const { retryStatuses = [502, 503, 504], bodyLimit = 2 ** 20, tries, timeout, tryTimeout, backoff } = options
  for (const [i, status] of array('options', 'retryStatuses', retryStatuses).entries())
    integer('options', `retryStatuses[${i}]`, status, 100, 599)
  if (tries !== undefined) integer('options', 'tries', tries, 0, MOST_TRIES)
  if (timeout !== undefined) milliseconds('options', 'timeout', timeout)
  if (tryTimeout !== undefined) milliseconds('options', 'tryTimeout', tryTimeout)
  if (backoff !== undefined) checkBackoff('options', backoff)
  return {
    checkups,
    retryStatuses: new Set(retryStatuses),
    bodyLimit: integer('options', 'bodyLimit', bodyLimit, 0, Number.MAX_SAFE_INTEGER),
    tries,
    timeout,
    tryTimeout,
    backoff,
    budget: options.budget ?? checkups.retryBudget,
  }
}

/** A log that throws ends nothing. */
export function tellEnd(onEnd: NonNullable<GatewayOptions['onEnd']>, ended: ProxiedRequest): void {
  try {
    onEnd(ended)
  } catch (error) {
    process.emitWarning(`onEnd threw: ${String(error)}`, { type: 'CheckupsWarning' })
  }
}
