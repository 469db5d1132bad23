/**
 * TCP: a connection to the next peer, and a proxy that passes connections on.
 *
 * @module checkups/net
 */
import { onlyKeys, record } from '../check.js'
import type { Checkups } from '../checkups.js'
import { dial, type Connected, type DialChoice, type PeerConnectionOptions } from './net/connection.js'
import { BalancedServer, type TcpProxy, type TcpProxyOptions } from './net/tcp-proxy.js'

export type { ClientHello } from './net/client-hello.js'
export type { Connected, DialChoice, PeerConnectionOptions } from './net/connection.js'
export type { TcpEnd } from './net/proxy-protocol.js'
export type { ProxyProtocolOptions, TcpClient, TcpFailure, TcpProxy, TcpProxyOptions } from './net/tcp-proxy.js'

/** Options of `connect`; those of `readyOk` are as there. */
export interface NetConnectOptions extends DialChoice, PeerConnectionOptions {
  /** Ends the attempts. A connection that stands is yours. */
  readonly signal?: AbortSignal | undefined
}

const CONNECT_KEYS = new Set('hashKey clusterKey tries timeout tryTimeout budget signal tls connectOptions'.split(' '))

/**
 * Connects to the next peer, or, where that is refused or takes longer than the upstream's `timeouts.connect`, to the one
 * after. The peer has a request in flight until the socket has closed.
 *
 * @example
 * ```ts
 * const { socket, peer } = await connect(checkups, 'redis')
 * socket.end('PING\r\n')
 * ```
 *
 * @throws `ConfigError`, `UnknownUpstreamError`, `AttemptsError` with the error of every peer (the promise rejects)
 */
export async function connect(checkups: Checkups, key: string, options: NetConnectOptions = {}): Promise<Connected> {
  onlyKeys('options', record('options', '', options), CONNECT_KEYS)
  return dial(checkups, key, options)
}

/**
 * A `net.Server` that passes connections on, each to the next peer of its upstream. A peer that cannot be connected to is
 * followed by the next one, without the client's notice; once a connection stands, it is that peer's.
 *
 * @example
 * ```ts
 * createTcpProxy(checkups, { upstream: 'redis' }).listen(6379)
 * ```
 *
 * @throws `ConfigError`
 */
export function createTcpProxy(checkups: Checkups, options: TcpProxyOptions = {}): TcpProxy {
  return new BalancedServer(checkups, options)
}
