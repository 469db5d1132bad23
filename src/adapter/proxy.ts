/** A balanced reverse proxy on undici's connections. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import type { Checkups } from '../checkups.js'
import { Clients, type ClientConnection } from './clients.js'
import { answerFailure, failedUpgrade, statusLine } from './http.js'
import { compileRepeat } from './options.js'
import type { ProxySetup } from './proxy/exchange.js'
import { checkProxyOptions, type ProxyOptions } from './proxy/options.js'
import { requestHead, type RequestHeadSettings } from './proxy/request-head.js'
import { UpgradeRequest } from './proxy/upgrade.js'
import { WebRequest } from './proxy/web.js'
import { Connections } from './undici/connections.js'

export type { ForwardedFields, ProxyOptions } from './proxy/options.js'

/** Handlers for a node:http or node:https server; it is the first of them itself. None needs `this`. */
export interface ProxyHandler {
  /** For `request` events. */
  (req: IncomingMessage, res: ServerResponse): void
  /** For `request` events: the name that it has in `balanceProxy`, which this can stand in for. */
  readonly web: (req: IncomingMessage, res: ServerResponse) => void
  /** For `upgrade` events. */
  readonly upgrade: (req: IncomingMessage, socket: Duplex, head: Buffer) => void
  /** For `upgrade` events: the name that it has in `balanceProxy`. */
  readonly ws: (req: IncomingMessage, socket: Duplex, head: Buffer) => void
  /**
   * For `checkContinue` events: a client that waits for leave to send its body (`Expect: 100-continue`) gets it when a peer
   * has been connected to. A server without such a listener gives it at once.
   */
  readonly checkContinue: (req: IncomingMessage, res: ServerResponse) => void
  /** Closes idle connections to peers. Requests under way go on. */
  readonly close: () => void
}

/**
 * A reverse proxy: for each request `checkups` picks a peer of the upstream that its Host header names.
 *
 * A connection that could not be made is followed by the next peer whatever the method; a connection that broke before the
 * first byte of the answer, a time-out and a status of `retryStatuses` only for idempotent methods. A client that goes
 * away counts against nobody. Every other failure ends in one 502, 503 or 504.
 *
 * @example
 * ```ts
 * const proxy = createProxyHandler(checkups)
 * http.createServer(proxy).on('upgrade', proxy.upgrade).listen(8080)
 * ```
 *
 * @throws `ConfigError`
 */
export function createProxyHandler(checkups: Checkups, options: ProxyOptions = {}): ProxyHandler {
  checkProxyOptions(options)
  const { connect, client, host, forwarded = 'x-forwarded', trust = false, protocol = 'http' } = options
  const connections = new Connections(checkups, { connect, client })
  const clients = new Clients()
  let running = 0
  let closed = false
  const onFinished = () => {
    if (--running === 0 && closed) connections.close()
  }
  const setup: ProxySetup = {
    ...compileRepeat(checkups, options),
    connections,
    upstreams: connections.upstreams,
    options,
    head: { keepHost: host !== 'peer', forwarded, trust },
    protocolOf: protocol,
    onFinished,
  }

  const serve = (req: IncomingMessage, res: ServerResponse, awaitsContinue: boolean) => {
    const connection = clients.of(req)
    const head = headOf(req, connection, setup.head)
    if (head instanceof Error) {
      void answerFailure({ status: 502, error: head, req }, res, options.onFailure)
    } else if (typeof head === 'number') {
      res.writeHead(head, { 'content-type': 'text/plain', connection: 'close' }).end(`${statusLine(head)}\n`)
    } else {
      running++
      new WebRequest(setup, req, res, head, connection, awaitsContinue).begin()
    }
  }
  const web = (req: IncomingMessage, res: ServerResponse) => serve(req, res, false)
  const upgrade = (req: IncomingMessage, socket: Duplex, first: Buffer) => {
    const connection = clients.of(req)
    const head = headOf(req, connection, setup.head)
    if (head instanceof Error) return void socket.end(failedUpgrade(502))
    if (typeof head === 'number') return void socket.end(failedUpgrade(head))
    // Node takes a body for what comes after the upgrade.
    if (head.hasBody || req.method !== 'GET') return void socket.end(failedUpgrade(400))
    running++
    new UpgradeRequest(setup, req, socket, first, head, connection).begin()
  }
  const close = () => {
    if (closed) return
    closed = true
    connections.retire()
    running++
    onFinished()
  }
  const checkContinue = (req: IncomingMessage, res: ServerResponse) => serve(req, res, true)
  return Object.assign((req: IncomingMessage, res: ServerResponse) => web(req, res), {
    web,
    upgrade,
    ws: upgrade,
    checkContinue,
    close,
  })
}

/** What `trust` throws is no reason to fall. */
function headOf(req: IncomingMessage, client: ClientConnection, settings: RequestHeadSettings) {
  try {
    return requestHead(req, client, settings)
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}
