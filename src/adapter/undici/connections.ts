/**
 * Kept connections to peers: of each peer a set of undici Clients, each of which has one connection and one request at a
 * time. There is no queue: who needs a connection gets an idle one, the one used last, or a new one.
 */
import { connect as connectTcp, isIP, type Socket, type TcpNetConnectOpts } from 'node:net'
import { connect as connectTls, type ConnectionOptions } from 'node:tls'
import { Client, type buildConnector, type Dispatcher } from 'undici'
import type { Checkups } from '../../checkups.js'
import { CheckupsError } from '../../errors.js'
import type { Peer } from '../../upstream/peer.js'
import { Upstreams, type UpstreamNow } from '../upstreams.js'
import type { RawHandler } from './raw-handler.js'

/** How peers are spoken to. */
export type Protocol = 'http' | 'https'

/**
 * For connections to peers, as TLS options (`ca`, `cert`, `key`, `servername`, `rejectUnauthorized`) and `localAddress`.
 * Without `servername` a certificate is checked for the peer's host, which is also the name sent, unless it is an IP address.
 */
export type ConnectOptions = Omit<ConnectionOptions, 'host' | 'port' | 'path' | 'socket' | 'session' | 'timeout'> & {
  /** Address of this machine to connect from. */
  readonly localAddress?: string | undefined
}

/** Further options for the undici Clients that hold the connections. */
export type ClientOptions = Pick<
  Client.Options,
  | 'keepAliveTimeout'
  | 'keepAliveMaxTimeout'
  | 'keepAliveTimeoutThreshold'
  | 'maxHeaderSize'
  | 'maxResponseSize'
  | 'strictContentLength'
  | 'maxRequestsPerClient'
>

/** What all connections of one dispatcher or proxy are made with. */
export interface ConnectionSetup {
  readonly connect: ConnectOptions | ((upstream: string) => ConnectOptions) | undefined
  readonly client: ClientOptions | undefined
  /** Told of a connection that was made, or has ended; `error` says why. */
  readonly onEvent?:
    ((event: 'connect' | 'disconnect' | 'connectionError', args: readonly unknown[]) => void) | undefined
}

/** One connection, or the chance of one: it is made when a request needs it, and again when it was lost. */
export class Connection {
  /** The request it carries. */
  user: RawHandler | undefined = undefined
  /** Whether nothing has come over it yet: one that breaks when it is used again says nothing about the peer. */
  fresh = true
  readonly home: PeerConnections
  readonly #client: Client
  #socket: Socket | undefined
  /** Whether what writes to the socket has been replaced, for the length of this request. */
  #sendsTrailers = false

  constructor(home: PeerConnections, setup: ConnectionSetup, origin: string, make: () => Socket) {
    this.home = home
    const connect: buildConnector.connector = (_, callback) => {
      this.#socket = establish(make(), origin, home.upstream.timeouts.connect, callback)
    }
    this.#client = new Client(origin, { ...setup.client, connect })
    const { onEvent } = setup
    this.#client.on('connect', (...args) => {
      this.fresh = true
      onEvent?.('connect', args)
    })
    this.#client.on('disconnect', (...args) => {
      this.fresh = true
      if (this.user === undefined) home.forget(this)
      onEvent?.('disconnect', args)
    })
    if (onEvent !== undefined) this.#client.on('connectionError', (...args) => onEvent('connectionError', args))
  }

  send(user: RawHandler, options: Dispatcher.DispatchOptions): void {
    this.user = user
    this.#client.dispatch(options, user as object)
  }

  /**
   * Adds trailers, one line each, to the body that is about to be sent in chunks. undici sends none with requests: the last
   * chunk, which it writes as this one string, is replaced by one with trailers.
   */
  sendTrailers(lines: () => string): void {
    const socket = this.#socket!
    const write = socket.write.bind(socket) as (chunk: unknown, ...rest: unknown[]) => boolean
    const replacing = (chunk: unknown, ...rest: unknown[]) =>
      chunk === LAST_CHUNK ? write(`\r\n0\r\n${lines()}\r\n`, 'latin1') : write(chunk, ...rest)
    Object.assign(socket, { write: replacing })
    this.#sendsTrailers = true
  }

  /** The request is over, and the connection as good as before. */
  release(): void {
    this.user = undefined
    this.fresh = false
    if (this.#sendsTrailers && this.#socket !== undefined) Reflect.deleteProperty(this.#socket, 'write')
    this.#sendsTrailers = false
    this.home.keep(this)
  }

  /** The request was none that could be sent. */
  giveBack(): void {
    this.user = undefined
    this.home.keep(this)
  }

  /** The request is over, and so is the connection, if there still is one. */
  discard(): void {
    this.user = undefined
    this.home.forget(this)
    this.#client.destroy(nothing)
    // While it is being made, the client knows nothing of it.
    this.#socket?.destroy()
  }

  /** {@link discard}, but the connection is somebody else's now. */
  handOver(): void {
    this.user = undefined
    this.home.forget(this)
    this.#client.destroy(nothing)
  }

  /** Ends an idle connection, or one whose request is about to end. */
  close(): void {
    this.home.forget(this)
    this.#client.close(nothing)
  }
}

/** As undici has it: no waiting for more to send, a probe of silent connections after a minute, reads of 64 KiB. */
const SOCKET = { noDelay: true, keepAlive: true, keepAliveInitialDelay: 60_000, highWaterMark: 65_536 }

const LAST_CHUNK = '\r\n0\r\n\r\n'

const nothing = () => undefined

function establish(socket: Socket, origin: string, limit: number, callback: buildConnector.Callback): Socket {
  const established = origin.startsWith('https:') ? 'secureConnect' : 'connect'
  const late = () =>
    socket.destroy(new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', `no connection within ${limit} ms`))
  const onError = (error: Error) => callback(error, null)
  if (limit > 0) socket.setTimeout(limit, late)
  socket.once('error', onError)
  socket.once(established, () => {
    socket.off('timeout', late)
    socket.off('error', onError)
    socket.setTimeout(0)
    callback(null, socket)
  })
  return socket
}

/** The connections to one peer. */
export class PeerConnections {
  readonly upstream: UpstreamNow
  readonly #setup: ConnectionSetup
  readonly #origin: string
  readonly #make: () => Socket
  readonly #idle: Connection[] = []
  #retired = false
  #session: Buffer | undefined

  constructor(peer: Peer, protocol: Protocol, upstream: UpstreamNow, setup: ConnectionSetup) {
    this.upstream = upstream
    this.#setup = setup
    this.#origin = peer.origin(protocol)
    const { connect = {} } = setup
    const options = typeof connect === 'function' ? connect(peer.upstream) : connect
    const common = { ...SOCKET, ...options, ...peer.connect }
    this.#make =
      protocol === 'https' ? () => this.#makeTls(common, peer) : () => connectTcp(common as TcpNetConnectOpts)
  }

  /** An idle connection, or a new one. */
  take(): Connection {
    return this.#idle.pop() ?? this.takeNew()
  }

  takeNew(): Connection {
    return new Connection(this, this.#setup, this.#origin, this.#make)
  }

  keep(connection: Connection): void {
    if (this.#retired || this.#idle.length >= this.upstream.keepalive) connection.close()
    else this.#idle.push(connection)
  }

  forget(connection: Connection): void {
    const at = this.#idle.lastIndexOf(connection)
    if (at >= 0) this.#idle.splice(at, 1)
  }

  /** Ends idle connections: one of them has turned out to be broken, or there may be too many of them now. */
  closeIdle(left = 0): void {
    for (const connection of this.#idle.slice(left)) connection.close()
  }

  /** The same, and the others when their requests end. */
  retire(): void {
    this.#retired = true
    this.closeIdle()
  }

  #makeTls(common: ConnectOptions, { host }: Peer): Socket {
    const servername = common.servername ?? (isIP(host) === 0 && host !== '' ? host : undefined)
    const named = servername === undefined ? {} : { servername }
    const session = this.#session === undefined ? {} : { session: this.#session }
    const socket = connectTls({ ALPNProtocols: ['http/1.1'], ...common, ...named, ...session })
    return socket.on('session', (next: Buffer) => (this.#session = next))
  }
}

/** The connections of one dispatcher or proxy, kept in step with the upstreams. */
export class Connections {
  readonly upstreams: Upstreams
  readonly #setup: ConnectionSetup
  readonly #peers = { http: new Map<Peer, PeerConnections>(), https: new Map<Peer, PeerConnections>() }

  constructor(checkups: Checkups, setup: ConnectionSetup) {
    this.#setup = setup
    this.upstreams = new Upstreams(checkups, {
      onUpdate: ({ keepalive }, { upstream, removed }) => {
        const gone = new Set(removed)
        this.#retire((peer) => gone.has(peer))
        this.#each((connections, peer) => peer.upstream === upstream && connections.closeIdle(keepalive))
      },
      onDelete: (upstream) => this.#retire((peer) => peer.upstream === upstream),
    })
  }

  of(peer: Peer, protocol: Protocol): PeerConnections {
    const peers = this.#peers[protocol]
    let connections = peers.get(peer)
    if (connections === undefined) {
      connections = new PeerConnections(peer, protocol, this.upstreams.of(peer.upstream), this.#setup)
      peers.set(peer, connections)
    }
    return connections
  }

  /** Closes idle connections, and those in use when their requests end. */
  retire(): void {
    this.#retire(() => true)
  }

  /** Follows the upstreams no more. */
  close(): void {
    this.upstreams.close()
    this.retire()
  }

  #retire(which: (peer: Peer) => boolean): void {
    for (const peers of Object.values(this.#peers)) {
      for (const [peer, connections] of peers) {
        if (!which(peer)) continue
        peers.delete(peer)
        connections.retire()
      }
    }
  }

  #each(call: (connections: PeerConnections, peer: Peer) => unknown): void {
    for (const peers of Object.values(this.#peers)) peers.forEach(call)
  }
}
