/** What a proxy handler may be told. */
import type { IncomingMessage } from 'node:http'
import { boolean, oneOf, onlyKeys, record } from '../../check.js'
import { checkGateway, GATEWAY_KEYS, type GatewayOptions } from '../options.js'
import type { ClientOptions, ConnectOptions, Protocol } from '../undici/connections.js'

/** Which fields tell a peer of the client: `X-Forwarded-For`, `-Proto` and `-Host`, `Forwarded` (RFC 7239), or both. */
export type ForwardedFields = 'x-forwarded' | 'forwarded' | 'both'

/** Options of `createProxyHandler`. */
export interface ProxyOptions extends GatewayOptions {
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
}

const KEYS = new Set([...GATEWAY_KEYS, 'protocol', 'connect', 'client', 'host', 'forwarded', 'trust'])

/** @throws ConfigError */
export function checkProxyOptions(options: ProxyOptions): void {
  onlyKeys('options', record('options', '', options), KEYS)
  checkGateway(options)
  const { protocol, host, forwarded, trust } = options
  if (typeof protocol !== 'function') oneOf('options', 'protocol', protocol ?? 'http', ['http', 'https'])
  oneOf('options', 'host', host ?? 'client', ['client', 'peer'])
  if (forwarded !== false)
    oneOf('options', 'forwarded', forwarded ?? 'x-forwarded', ['x-forwarded', 'forwarded', 'both'])
  if (typeof trust !== 'function') boolean('options', 'trust', trust ?? false)
}
