/** The admin interface on a server of its own. */
import { createServer, type Server } from 'node:http'
import { createServer as createTlsServer, type ServerOptions as TlsOptions } from 'node:https'
import type { AddressInfo } from 'node:net'
import { integer, milliseconds, record, string } from '../check.js'
import type { Checkups } from '../checkups.js'
import { ConfigError } from '../errors.js'
import { isLoopback } from './access.js'
import { Handler, type AdminOptions } from './handler.js'

/** Options of {@link createAdminServer}. */
export interface AdminServerOptions extends AdminOptions {
  /** Default `127.0.0.1`. Any other than this machine's own needs `tokens` or `authorize`. */
  readonly host?: string | undefined
  /** Default 1995, Slardar's; 0: any that is free. */
  readonly port?: number | undefined
  /** A key and a certificate, as `node:https` takes them. Default: none, and no TLS. */
  readonly tls?: TlsOptions | undefined
  /** Milliseconds until the headers of a request must be there. Default 10,000. */
  readonly headersTimeout?: number | undefined
  /** Milliseconds until a whole request must be there. Default 30,000. */
  readonly requestTimeout?: number | undefined
}

/** A server that listens. */
export interface AdminServer {
  /** Where, as `http://127.0.0.1:1995/`. */
  readonly url: string
  /** The server itself. */
  readonly server: Server
  /** Ends every connection and stream. */
  close(): Promise<void>
}

/** Bytes. A token, a cookie and what browsers send are far below. */
const LONGEST_HEADERS = 16_384

/**
 * Serves the admin interface; resolves when it listens. Keeps the process alive until it is closed.
 *
 * @throws `ConfigError` (the promise rejects), also where anybody could reach it and nobody is asked who they are
 */
export async function createAdminServer(checkups: Checkups, options: AdminServerOptions = {}): Promise<AdminServer> {
  const path = 'createAdminServer'
  const {
    host = '127.0.0.1',
    port = 1995,
    tls,
    headersTimeout,
    requestTimeout,
    ...rest
  } = record(path, '', options) as AdminServerOptions
  string(path, 'host', host)
  integer(path, 'port', port, 0, 65_535)
  const headers = milliseconds(path, 'headersTimeout', headersTimeout ?? 10_000, 1)
  const request = milliseconds(path, 'requestTimeout', requestTimeout ?? 30_000, 1)
  const handler = new Handler(checkups, rest)
  if (!isLoopback(host) && !handler.isGuarded) {
    handler.close()
    throw new ConfigError(`${path}.host`, `${host} can be reached by others: expected tokens or authorize`)
  }
  const limits = {
    maxHeaderSize: LONGEST_HEADERS,
    headersTimeout: Math.min(headers, request),
    requestTimeout: request,
    connectionsCheckingInterval: Math.max(100, Math.min(headers, request, 5_000) / 2),
  }
  const onRequest = handler.handle.bind(handler)
  const server = tls === undefined ? createServer(limits, onRequest) : createTlsServer({ ...limits, ...tls }, onRequest)
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject).listen({ host, port }, () => resolve(void server.off('error', reject)))
  }).catch((error: unknown) => {
    handler.close()
    throw error
  })
  const { address, family, port: bound } = server.address() as AddressInfo
  const name = family === 'IPv6' ? `[${address}]` : address
  return {
    url: `${tls === undefined ? 'http' : 'https'}://${name}:${bound}/`,
    server,
    close: () => {
      handler.close()
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      server.closeAllConnections()
      return closed
    },
  }
}
