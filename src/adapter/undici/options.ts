/** What a dispatcher and an interceptor may be told. */
import type { Dispatcher } from 'undici'
import { boolean, integer, milliseconds, oneOf, onlyKeys, record } from '../../check.js'
import type { Checkups } from '../../checkups.js'
import { checkBackoff, type Backoff } from '../../upstream/backoff.js'
import type { RetryBudget } from '../../upstream/budget.js'
import type { SelectOptions } from '../../upstream/selection.js'
import type { ClientOptions, ConnectOptions, Protocol } from './connections.js'

type Options = Dispatcher.DispatchOptions

/** What `createDispatcher` and `balance` have in common. */
export interface BalanceOptions {
  /** The upstream of a request. Default: the host of its origin, lower case, without the port. */
  readonly key?: ((request: Options) => string | undefined) | undefined
  /** What hashing policies hash. Default: nothing. */
  readonly hashKey?: ((request: Options) => SelectOptions['hashKey']) | undefined
  /** Which named clusters to use, in which order. Default: all. */
  readonly clusterKey?: ((request: Options) => SelectOptions['clusterKey']) | undefined
  /**
   * Statuses that send an idempotent request to the next peer, if there is one; the last peer's answer is handed on. Default
   * 502, 503, 504: they speak of another hop or of lacking capacity, where a 500 is the application's own answer.
   */
  readonly retryStatuses?: readonly number[] | undefined
  /**
   * Bytes kept of the body of an idempotent request that can be read only once (a stream, whatever `fetch` sends); a longer
   * one is tried once it has begun to flow. Default 1,048,576 (1 MiB): what most APIs accept.
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
  /** How peers are spoken to. Default: as the request's origin says. */
  readonly protocol?: Protocol | undefined
  /** The Host that peers see: that of the request's `'origin'`, or the `'peer'`'s address. Default `'origin'`, as nginx has it. */
  readonly host?: 'origin' | 'peer' | undefined
}

/** Options of `createDispatcher`. */
export interface DispatcherOptions extends BalanceOptions {
  /** For connections to peers, as TLS options; a function is asked once for each peer. Default: Node's. */
  readonly connect?: ConnectOptions | ((upstream: string) => ConnectOptions) | undefined
  /** For the undici Clients that hold the connections. Default: undici's. */
  readonly client?: ClientOptions | undefined
}

/** Options of `balance`. */
export interface InterceptorOptions extends BalanceOptions {
  /** Whether requests whose origin is no upstream go where they would go without this. Default false: they fail. */
  readonly passUnknown?: boolean | undefined
}

const COMMON = 'key hashKey clusterKey retryStatuses bodyLimit tries timeout tryTimeout backoff budget protocol host'
const DISPATCHER_KEYS = new Set(`${COMMON} connect client`.split(' '))
const INTERCEPTOR_KEYS = new Set(`${COMMON} passUnknown`.split(' '))

/** What exchanges go by; of proxies too. */
export interface ExchangeOptions {
  readonly retryStatuses?: readonly number[] | undefined
  readonly bodyLimit?: number | undefined
  readonly tries?: number | undefined
  readonly timeout?: number | undefined
  readonly tryTimeout?: number | undefined
  readonly backoff?: Backoff | undefined
  readonly budget?: RetryBudget | undefined
}

const MOST_TRIES = 2 ** 31 - 1

/** @throws ConfigError */
export function compileExchange(checkups: Checkups, options: ExchangeOptions) {
  const { retryStatuses = [502, 503, 504], bodyLimit = 2 ** 20, tries, timeout, tryTimeout, backoff } = options
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

/** @throws ConfigError */
export function checkDispatcherOptions(options: DispatcherOptions): void {
  onlyKeys('options', record('options', '', options), DISPATCHER_KEYS)
  checkCommon(options)
}

/** @throws ConfigError */
export function checkInterceptorOptions(options: InterceptorOptions): void {
  onlyKeys('options', record('options', '', options), INTERCEPTOR_KEYS)
  checkCommon(options)
  boolean('options', 'passUnknown', options.passUnknown ?? false)
}

function checkCommon({ protocol = 'http', host = 'origin' }: BalanceOptions): void {
  oneOf('options', 'protocol', protocol, ['http', 'https'])
  oneOf('options', 'host', host, ['origin', 'peer'])
}
