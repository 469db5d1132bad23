/** What a dispatcher and an interceptor may be told. */
import type { Dispatcher } from 'undici'
import { boolean, functions, oneOf, onlyKeys, record } from '../../check.js'
import type { SelectOptions } from '../../upstream/selection.js'
import { REPEAT_KEYS, type RepeatOptions } from '../options.js'
import type { ClientOptions, ConnectOptions, Protocol } from './connections.js'

type Options = Dispatcher.DispatchOptions

/** What `createDispatcher` and `balance` have in common. */
export interface BalanceOptions extends RepeatOptions {
  /** The upstream of a request. Default: the host of its origin, lower case, without the port. */
  readonly key?: ((request: Options) => string | undefined) | undefined
  /** What hashing policies hash. Default: nothing. */
  readonly hashKey?: ((request: Options) => SelectOptions['hashKey']) | undefined
  /** Which named clusters to use, in which order. Default: all. */
  readonly clusterKey?: ((request: Options) => SelectOptions['clusterKey']) | undefined
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

const COMMON = [...REPEAT_KEYS, 'key', 'hashKey', 'clusterKey', 'protocol', 'host']
const DISPATCHER_KEYS = new Set([...COMMON, 'connect', 'client'])
const INTERCEPTOR_KEYS = new Set([...COMMON, 'passUnknown'])

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

function checkCommon(options: BalanceOptions): void {
  const { protocol = 'http', host = 'origin' } = options
  functions('options', options, ['key', 'hashKey', 'clusterKey'])
  oneOf('options', 'protocol', protocol, ['http', 'https'])
  oneOf('options', 'host', host, ['origin', 'peer'])
}
