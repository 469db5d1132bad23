/** What a proxy handler may be told. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { boolean, oneOf, onlyKeys, record } from '../../check.js'
import type { Attempt } from '../../upstream/attempt.js'
import type { Backoff } from '../../upstream/backoff.js'
import type { RetryBudget } from '../../upstream/budget.js'
import type { GatewayStatus, HashKeyOption } from '../http.js'
import type { ClientOptions, ConnectOptions, Protocol } from '../undici/connections.js'

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
  /** Everybody who was asked, in order. */
  readonly attempts: readonly Attempt[]
}

/** Which fields tell a peer of the client: `X-Forwarded-For`, `-Proto` and `-Host`, `Forwarded` (RFC 7239), or both. */
export type ForwardedFields = 'x-forwarded' | 'forwarded' | 'both'

/** Options of `createProxyHandler`. */
export interface ProxyOptions {
  /** The upstream of a request; undefined is answered with 502. Default: the Host header, lower case, without its port. */
  readonly key?: ((req: IncomingMessage) => string | undefined) | undefined
  /** What hashing policies hash: the client's address (`'ip'`, of the connection), `'url'`, `{ header }`, or a function. */
  readonly hashKey?: HashKeyOption | undefined
  /** Which named clusters to use, in which order. Default: all. */
  readonly clusterKey?: ((req: IncomingMessage) => string | readonly string[] | undefined) | undefined
  /** How peers are spoken to; a function is asked with the upstream's key. Default `'http'`. */
  readonly protocol?: Protocol | ((upstream: string) => Protocol) | undefined
  /** For connections to peers, as TLS options; a function is asked once for each peer. Default: Node's. */
  readonly connect?: ConnectOptions | ((upstream: string) => ConnectOptions) | undefined
  /** For the undici Clients that hold the connections. Default: undici's. */
  readonly client?: ClientOptions | undefined
  /** The Host that peers see: the `'client'`'s, or the `'peer'`'s address. Default `'client'`: applications make URLs of it. */
  readonly host?: 'client' | 'peer' | undefined
  /**
   * How peers are told of the client, or false: then such fields pass as they come. Default `'x-forwarded'`, which most
   * applications read.
   */
  readonly forwarded?: ForwardedFields | false | undefined
  /**
   * Whether what a request says of the client in such fields is kept, and added to; else it is replaced. Default false: anybody
   * could say anything.
   */
  readonly trust?: boolean | ((req: IncomingMessage) => boolean) | undefined
  /**
   * Answers that send an idempotent request to the next peer, if there is one; the last peer's is passed on. Default
   * 502, 503, 504: they speak of another hop or of lacking capacity, where a 500 is the application's own answer.
   */
  readonly retryStatuses?: readonly number[] | undefined
  /**
   * Bytes of the body of an idempotent request that are kept for a further attempt; a longer one is tried once it has begun to
   * flow. Default 1,048,576 (1 MiB): what most APIs accept.
   */
  readonly bodyLimit?: number | undefined
  /** Attempts at most. Default: the upstream's. */
  readonly tries?: number | undefined
  /** Milliseconds in all until the answer begins. Default: the upstream's. */
  readonly timeout?: number | undefined
  /** Milliseconds for each attempt until its answer begins. Default: the upstream's. */
  readonly tryTimeout?: number | undefined
  /** How long to wait before a further attempt. Default: not at all. */
  readonly backoff?: Backoff | undefined
  /** Asked before every retry. Default: the instance's. */
  readonly budget?: RetryBudget | undefined
  /** Called with every request when it is over, for a log: what it throws ends nothing. */
  readonly onEnd?: ((ended: ProxiedRequest) => void) | undefined
  /** Answers a request that could not be proxied; must end `res`. Default: a line of text. Upgrades always get that. */
  readonly onFailure?: ((failure: ProxyFailure, res: ServerResponse) => void | Promise<void>) | undefined
}

const KEYS = new Set(
  'key hashKey clusterKey protocol connect client host forwarded trust retryStatuses bodyLimit tries timeout tryTimeout backoff budget onEnd onFailure'.split(
    ' ',
  ),
)

/** @throws ConfigError */
export function checkProxyOptions(options: ProxyOptions): void {
  onlyKeys('options', record('options', '', options), KEYS)
  const { protocol, host, forwarded, trust } = options
  if (typeof protocol !== 'function') oneOf('options', 'protocol', protocol ?? 'http', ['http', 'https'])
  oneOf('options', 'host', host ?? 'client', ['client', 'peer'])
  if (forwarded !== false)
    oneOf('options', 'forwarded', forwarded ?? 'x-forwarded', ['x-forwarded', 'forwarded', 'both'])
  if (typeof trust !== 'function') boolean('options', 'trust', trust ?? false)
}
