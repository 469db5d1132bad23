/** What `balanceProxy` needs of a proxy, and may be told. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { AgentOptions } from 'node:https'
import type { Duplex } from 'node:stream'
import { oneOf, onlyKeys, record } from '../../check.js'
import { checkGateway, GATEWAY_KEYS, type GatewayOptions } from '../options.js'

/** The part of `http-proxy`'s server that is used. */
export interface ProxyServer {
  /** Proxies a request. */
  web(req: IncomingMessage, res: ServerResponse, options: object, callback: (error: Error) => void): unknown
  /** Proxies an upgrade. */
  ws(req: IncomingMessage, socket: Duplex, head: Buffer, options: object, callback: (error: Error) => void): unknown
}

/** Options of `balanceProxy`. */
export interface BalancedProxyOptions extends GatewayOptions {
  /** How peers are spoken to. Default `'http'`. */
  readonly protocol?: 'http' | 'https' | undefined
  /**
   * For the agent that keeps the connections, as TLS options. How many it keeps idle says the upstream's `keepalive`; for how
   * long, in milliseconds, says `timeout`. Default 60,000, as nginx has it.
   */
  readonly agent?: AgentOptions | undefined
  /** Further options for every `web` and `ws` call, as `{ xfwd: true }`. */
  readonly proxyOptions?: object | undefined
}

const KEYS = new Set([...GATEWAY_KEYS, 'protocol', 'agent', 'proxyOptions'])

/** @throws ConfigError */
export function checkBalancedProxyOptions(options: BalancedProxyOptions): void {
  onlyKeys('options', record('options', '', options), KEYS)
  checkGateway(options)
  oneOf('options', 'protocol', options.protocol ?? 'http', ['http', 'https'])
}
