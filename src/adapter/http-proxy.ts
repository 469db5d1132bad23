/**
 * Target selection for `http-proxy` and the forks that keep its `web(req, res, options, callback)` and
 * `ws(req, socket, head, options, callback)`: picks a peer, proxies over kept-alive connections, tells how it went, and
 * goes to the next peer where that is safe.
 *
 * @module checkups/http-proxy
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { expected, record } from '../check.js'
import type { Checkups } from '../checkups.js'
import { AgentPool } from './agent.js'
import { Clients } from './clients.js'
import { compileRepeat } from './options.js'
import type { BalancedSetup } from './http-proxy/exchange.js'
import { checkBalancedProxyOptions, type BalancedProxyOptions, type ProxyServer } from './http-proxy/options.js'
import { UpgradeExchange } from './http-proxy/upgrade.js'
import { WebExchange } from './http-proxy/web.js'

export type { GatewayStatus, HashHeader, HashKeyOption } from './http.js'
export type { GatewayOptions, ProxiedRequest, ProxyFailure, RepeatOptions } from './options.js'
export type { BalancedProxyOptions, ProxyServer } from './http-proxy/options.js'

/** Handlers for a node:http server. They need no `this`. */
export interface BalancedProxy {
  /** For `request` events. */
  readonly web: (req: IncomingMessage, res: ServerResponse) => void
  /** For `upgrade` events. */
  readonly ws: (req: IncomingMessage, socket: Duplex, head: Buffer) => void
  /** Closes idle connections to peers. Requests under way go on. */
  readonly close: () => void
}

/** Milliseconds that an idle connection is kept: nginx's `keepalive_timeout` of upstreams. */
const IDLE = 60_000

/**
 * Lets `checkups` choose where `proxy` goes.
 *
 * A connection that could not be made is followed by the next peer whatever the method; a connection that broke before the
 * first byte of the answer, a time-out and a status of `retryStatuses` only for idempotent methods. A client that goes
 * away counts against nobody. Every other failure ends in one 502, 503 or 504.
 *
 * @example
 * ```ts
 * const balanced = balanceProxy(checkups, httpProxy.createProxyServer())
 * http.createServer(balanced.web).on('upgrade', balanced.ws).listen(8080)
 * ```
 *
 * @throws `ConfigError`
 */
export function balanceProxy(
  checkups: Checkups,
  proxy: ProxyServer,
  options: BalancedProxyOptions = {},
): BalancedProxy {
  const { web } = record('proxy', '', proxy)
  if (typeof web !== 'function') throw expected('proxy', 'web', 'a function', web)
  checkBalancedProxyOptions(options)
  const agents = new AgentPool(checkups, options.protocol ?? 'http', { timeout: IDLE, ...options.agent })
  const clients = new Clients()
  let running = 0
  let closed = false
  const onFinished = () => {
    if (--running === 0 && closed) agents.close()
  }
  const setup: BalancedSetup = {
    ...compileRepeat(checkups, options),
    upstreams: agents.upstreams,
    proxy,
    agents,
    options,
    onFinished,
  }

  return {
    web(req, res) {
      running++
      new WebExchange(setup, req, res, clients.of(req)).begin()
    },
    ws(req, socket, head) {
      running++
      new UpgradeExchange(setup, req, socket, head, clients.of(req)).begin()
    },
    close() {
      if (closed) return
      closed = true
      agents.retire()
      running++
      onFinished()
    },
  }
}
