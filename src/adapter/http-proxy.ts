/**
 * Target selection for `http-proxy` and the forks that keep its `web(req, res, options, callback)` and
 * `ws(req, socket, head, options, callback)`: picks a peer, proxies over kept-alive connections, tells how it went, and
 * goes to the next peer where that is safe.
 *
 * @module checkups/http-proxy
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Checkups } from '../checkups.js'
import { integer, oneOf, onlyKeys, record } from '../check.js'
import { AgentPool } from './agent.js'
import { answerFailure, failedUpgrade, hostKey } from './http.js'
import type { BalancedProxyOptions, ExchangeSetup, ProxyServer } from './exchange.js'
import { UpgradeExchange } from './upgrade-exchange.js'
import { WebExchange } from './web-exchange.js'

export type { GatewayStatus, HashHeader, HashKeyOption } from './http.js'
export type { BalancedProxyOptions, ProxiedRequest, ProxyFailure, ProxyServer } from './exchange.js'

/** Handlers for a node:http server. They need no `this`. */
export interface BalancedProxy {
  /** For `request` events. */
  readonly web: (req: IncomingMessage, res: ServerResponse) => void
  /** For `upgrade` events. */
  readonly ws: (req: IncomingMessage, socket: Duplex, head: Buffer) => void
  /** Closes idle connections to peers and stops listening to the proxy's events. Requests under way go on. */
  readonly close: () => void
}

const OPTION_KEYS = new Set(
  'key hashKey clusterKey protocol agent proxyOptions retryStatuses bodyLimit tries timeout tryTimeout backoff onEnd onFailure'.split(
    ' ',
  ),
)

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
  onlyKeys('options', record('options', '', options), OPTION_KEYS)
  const protocol = oneOf('options', 'protocol', options.protocol ?? 'http', ['http', 'https'])
  // Not a WeakMap, whose entries outlive the short life of a request.
  const exchangeOf = Symbol('exchange')
  const agents = new AgentPool(checkups, protocol, options.agent)
  const setup: ExchangeSetup = {
    checkups,
    proxy,
    agents,
    options,
    bodyLimit: integer('options', 'bodyLimit', options.bodyLimit ?? 2 ** 20, 0, Number.MAX_SAFE_INTEGER),
    retryStatuses: new Set(options.retryStatuses ?? [502, 503, 504]),
    keyOf: options.key ?? hostKey,
  }
  const onResponse = (proxyRes: IncomingMessage, req: IncomingMessage & { [exchangeOf]?: WebExchange }) =>
    req[exchangeOf]?.onResponse(proxyRes)
  proxy.on('proxyRes', onResponse)
  let running = 0
  let closed = false
  const ended = () => {
    if (--running > 0 || !closed) return
    proxy.off('proxyRes', onResponse)
    agents.close()
  }

  return {
    web(req, res) {
      const exchange = new WebExchange(setup, req, res)
      Object.assign(req, { [exchangeOf]: exchange })
      running++
      void exchange
        .run()
        .then((failure) => failure && answerFailure(failure, res, options.onFailure))
        .finally(ended)
    },
    ws(req, socket, head) {
      running++
      void new UpgradeExchange(setup, req, socket, head)
        .run()
        .then((failure) => failure && socket.end(failedUpgrade(failure.status)))
        .finally(ended)
    },
    close() {
      if (closed) return
      closed = true
      agents.retire()
      running++
      ended()
    },
  }
}
