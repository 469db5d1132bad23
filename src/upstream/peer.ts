/** A peer as users see it. */
import type { Endpoint } from '../address.js'

/** A TCP endpoint, as `http.request` and `net.connect` take it. */
export interface TcpConnectOptions {
  /** IP address or host name. */
  readonly host: string
  /** TCP port. */
  readonly port: number
}

/** A unix socket, as `net.connect` takes it (`http.request` calls it `socketPath`). */
export interface UnixConnectOptions {
  /** Absolute path of the socket. */
  readonly path: string
}

/** Where a peer listens. */
export type ConnectOptions = TcpConnectOptions | UnixConnectOptions

/**
 * One backend of one upstream. There is one `Peer` object per address per upstream, however many levels name it, and it
 * stays the same object while the upstream changes around it; identity may be compared with `===`.
 */
export interface Peer {
  /** The key of the upstream it belongs to. */
  readonly upstream: string
  /** Canonical `host:port`, `[ipv6]:port` or `unix:/path`. */
  readonly address: string
  /** IP address without brackets, or lower-case host name; empty for a unix socket. */
  readonly host: string
  /** TCP port; 0 for a unix socket. */
  readonly port: number
  /** What the configuration's `labels` say, as `zone`. */
  readonly labels: Readonly<Record<string, string>>
  /** Whatever the configuration's `meta` holds; the library never looks at it. */
  readonly meta: unknown
  /** Spreads into a call: `net.connect({ ...peer.connect })`, and for TCP `http.request({ ...peer.connect, path: '/' })`. */
  readonly connect: ConnectOptions
  /** `http://10.0.0.1:80`, with brackets around IPv6. A unix socket has `http://localhost`. */
  origin(protocol?: 'http' | 'https' | 'ws' | 'wss'): string
  /** The address. */
  toString(): string
}

export class PeerObject implements Peer {
  readonly upstream: string
  readonly address: string
  readonly host: string
  readonly port: number
  readonly connect: ConnectOptions
  labels: Readonly<Record<string, string>>
  meta: unknown

  constructor(upstream: string, { address, host, port, path }: Endpoint, labels: Peer['labels'], meta: unknown) {
    this.upstream = upstream
    this.address = address
    this.host = host
    this.port = port
    this.connect = Object.freeze(path === undefined ? { host, port } : { path })
    this.labels = labels
    this.meta = meta
  }

  origin(protocol = 'http'): string {
    return `${protocol}://${this.port === 0 ? 'localhost' : this.address}`
  }

  toString(): string {
    return this.address
  }
}
