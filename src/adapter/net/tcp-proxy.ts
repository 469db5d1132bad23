/** A TCP server that passes connections on to peers. */
import { Server, type Socket } from 'node:net'
import { boolean, functions, integer, milliseconds, onlyKeys, oneOf, record, string } from '../../check.js'
import type { Checkups } from '../../checkups.js'
import { systemClock, Timer } from '../../clock.js'
import { ConfigError } from '../../errors.js'
import { parseClientHello, type ClientHello } from './client-hello.js'
import { dial, secureContextOf, type DialChoice, type PeerConnectionOptions } from './connection.js'
import { Preread, type PrereadLimits } from './preread.js'
import { parseProxyHeader, plainAddress, printProxyHeader, type ProxyHeader, type TcpEnd } from './proxy-protocol.js'
import { cutOff, relay } from './relay.js'

/** A client, as far as it is known before a peer is chosen for it. */
export interface TcpClient {
  /** Its connection. Read nothing from it. */
  readonly socket: Socket
  /** Where it comes from: as an accepted PROXY header says, else the connection. */
  readonly source: TcpEnd
  /** Where it has connected to: likewise. */
  readonly destination: TcpEnd
  /** The port of this proxy that it has come in at; 0 for a unix socket. */
  readonly localPort: number
  /** What it asks for by TLS; undefined if nobody has looked (`sni`). */
  readonly hello: ClientHello | undefined
}

/** The PROXY protocol, on either side. */
export interface ProxyProtocolOptions {
  /**
   * Whether connections begin with a header, of either version; one without is then cut off. A function says it of a single
   * connection, as by its `remoteAddress`: a header is as true as whoever may send it. Default false.
   */
  readonly accept?: boolean | ((socket: Socket) => boolean) | undefined
  /** The version of the header that peers get; they must expect it. Default: none. */
  readonly send?: 1 | 2 | undefined
}

/** A connection that was not passed on. */
export interface TcpFailure {
  /** The client's connection; it has been cut off. */
  readonly socket: Socket
  /** Why: an `AttemptsError` if no peer could be reached. */
  readonly error: unknown
}

/** Options of `createTcpProxy`. */
export interface TcpProxyOptions extends Pick<DialChoice, 'tries' | 'timeout' | 'tryTimeout'>, PeerConnectionOptions {
  /** The upstream of all connections. Default: by `key`. */
  readonly upstream?: string | undefined
  /**
   * The upstream of a connection: `'port'`, the port it came in at, as `'3306'`; `'sni'`, the server's name that the client
   * asks for by TLS; or what a function says. A connection without an upstream is cut off. Default `'port'`, as in Slardar.
   */
  readonly key?: 'port' | 'sni' | ((client: TcpClient) => string | undefined) | undefined
  /** Whether to read the ClientHello of TLS, which then must come; it goes on to the peer. Default: with `key: 'sni'`. */
  readonly sni?: boolean | undefined
  /** What hashing policies hash. Default `'ip'`, the client's address: nothing else is known of every stream. */
  readonly hashKey?: 'ip' | ((client: TcpClient) => string | Uint8Array | undefined) | undefined
  /** Which named clusters to use, in which order. Default: all. */
  readonly clusterKey?: ((client: TcpClient) => string | readonly string[] | undefined) | undefined
  /** The PROXY protocol. Default: neither accepted nor sent. */
  readonly proxyProtocol?: ProxyProtocolOptions | undefined
  /** Bytes in which PROXY header and ClientHello must be complete. Default 16,384, as in nginx: a hello takes 500 to 2,000. */
  readonly headLimit?: number | undefined
  /** Milliseconds in which they must. Default 10,000: they come at once, if they come. */
  readonly headTimeout?: number | undefined
  /** Milliseconds without a byte in either direction, after which a connection is cut off; 0 = no limit. Default 600,000, nginx's. */
  readonly idleTimeout?: number | undefined
  /** Milliseconds that `close` leaves to connections. Default 10,000: less than the 30,000 that Kubernetes leaves to a process. */
  readonly drainTimeout?: number | undefined
  /** Connections at once, beyond which they are dropped as they come; see `net.Server.maxConnections`. Default: no limit. */
  readonly maxConnections?: number | undefined
  /** Told of every connection that was not passed on, for logs. Default: nobody is. */
  readonly onFailure?: ((failure: TcpFailure) => void) | undefined
}

/** A `net.Server` whose connections go to peers. */
export interface TcpProxy extends Server {
  /** Passes on a connection of another server, as of a `tls.Server`, whose clients then get TLS from this process. */
  handle(socket: Socket): void
  /**
   * Stops listening; connections have `drainTimeout` to end. The callback, and `'close'`, come when all of those that this
   * server has accepted have.
   */
  close(callback?: (error?: Error) => void): this
}

const OPTION_KEYS = new Set(
  (
    'upstream key sni hashKey clusterKey tries timeout tryTimeout tls connectOptions proxyProtocol headLimit headTimeout ' +
    'idleTimeout drainTimeout maxConnections onFailure'
  ).split(' '),
)
const PROXY_PROTOCOL_KEYS = new Set(['accept', 'send'])

interface Settings {
  readonly keyOf: (client: TcpClient) => string | undefined
  readonly sni: boolean
  readonly hashKeyOf: (client: TcpClient) => string | Uint8Array | undefined
  readonly accepts: (socket: Socket) => boolean
  readonly send: 1 | 2 | undefined
  readonly head: PrereadLimits
  readonly idleTimeout: number
  readonly drainTimeout: number
}

export class BalancedServer extends Server implements TcpProxy {
  readonly #checkups: Checkups
  readonly #options: TcpProxyOptions
  readonly #settings: Settings
  readonly #clients = new Set<Socket>()
  readonly #drained = new Timer(systemClock, () => this.#cutOffAll())
  #closing = false

  constructor(checkups: Checkups, options: TcpProxyOptions) {
    super({ allowHalfOpen: true, noDelay: true }, (socket) => this.handle(socket))
    this.#checkups = checkups
    this.#options = options
    this.#settings = settingsOf(options)
    const { maxConnections } = options
    if (maxConnections !== undefined)
      this.maxConnections = integer('options', 'maxConnections', maxConnections, 1, MOST)
    this.on('listening', () => {
      this.#closing = false
      this.#drained.stop()
    })
  }

  handle(socket: Socket): void {
    // Its errors are told by 'close', too.
    socket.on('error', () => undefined)
    if (this.#closing) return void socket.destroy()
    socket.allowHalfOpen = true
    this.#clients.add(socket)
    const gone = new AbortController()
    const closed = new Promise<void>((resolve) => {
      socket.once('close', () => {
        this.#clients.delete(socket)
        gone.abort(new Error('the client went away'))
        resolve()
        if (this.#clients.size === 0) this.#drained.stop()
      })
    })
    this.#passOn(socket, gone.signal, closed).catch((error: unknown) => {
      const isGone = gone.signal.aborted
      cutOff(socket)
      if (!isGone) this.#failed({ socket, error })
    })
  }

  override close(callback?: (error?: Error) => void): this {
    this.#closing = true
    const { drainTimeout } = this.#settings
    if (drainTimeout === 0) this.#cutOffAll()
    else if (this.#clients.size > 0) this.#drained.at(systemClock.now() + drainTimeout)
    return super.close(callback)
  }

  async #passOn(socket: Socket, signal: AbortSignal, closed: Promise<void>): Promise<void> {
    const { keyOf, hashKeyOf, send, idleTimeout } = this.#settings
    const { clusterKey, tries, timeout, tryTimeout, tls, connectOptions } = this.#options
    const head = new Preread(socket, this.#settings.head)
    const client = await this.#meet(socket, head)
    const key = keyOf(client)
    if (key === undefined) throw new Error('the connection names no upstream')
    const { socket: peer } = await dial(this.#checkups, key, {
      ...{ tries, timeout, tryTimeout, tls, signal },
      hashKey: hashKeyOf(client),
      clusterKey: clusterKey?.(client),
      connectOptions: { ...connectOptions, allowHalfOpen: true },
      preamble: send === undefined ? undefined : printProxyHeader(send, client),
      until: closed,
    })
    if (socket.destroyed) {
      cutOff(peer)
      return
    }
    if (head.rest.length > 0) peer.write(head.rest)
    relay(socket, peer, idleTimeout)
  }

  /** Reads what comes before the connection's own bytes. */
  async #meet(socket: Socket, head: Preread): Promise<TcpClient> {
    const { localPort = 0 } = socket
    let header: ProxyHeader
    if (this.#settings.accepts(socket)) header = await head.read(parseProxyHeader)
    const { source, destination } = header ?? {
      source: endOf(socket.remoteAddress, socket.remotePort),
      destination: endOf(socket.localAddress, localPort),
    }
    const hello = this.#settings.sni ? await head.read(parseClientHello) : undefined
    return { socket, source, destination, localPort, hello }
  }

  #failed(failure: TcpFailure): void {
    try {
      this.#options.onFailure?.(failure)
    } catch (error) {
      process.emitWarning(`onFailure threw: ${String(error)}`, { type: 'CheckupsWarning' })
    }
  }

  #cutOffAll(): void {
    for (const socket of this.#clients) cutOff(socket)
  }
}

const MOST = Number.MAX_SAFE_INTEGER

function endOf(address: string | undefined, port: number | undefined): TcpEnd {
  return address === undefined || port === undefined ? { path: '' } : { address: plainAddress(address), port }
}

function settingsOf(options: TcpProxyOptions): Settings {
  onlyKeys('options', record('options', '', options), OPTION_KEYS)
  const { upstream, key = 'port', hashKey = 'ip', proxyProtocol = {} } = options
  if (upstream !== undefined && options.key !== undefined)
    throw new ConfigError('options.key', 'upstream says it already')
  const constant = upstream === undefined ? undefined : string('options', 'upstream', upstream)
  if (typeof key !== 'function') oneOf('options', 'key', key, ['port', 'sni'])
  if (typeof hashKey !== 'function') oneOf('options', 'hashKey', hashKey, ['ip'])
  functions('options', options, ['clusterKey', 'onFailure'])
  const sni = options.sni === undefined ? key === 'sni' : boolean('options', 'sni', options.sni)
  if (key === 'sni' && !sni) throw new ConfigError('options.sni', 'key needs it')
  onlyKeys('options.proxyProtocol', record('options', 'proxyProtocol', proxyProtocol), PROXY_PROTOCOL_KEYS)
  const { accept = false, send } = proxyProtocol
  if (typeof accept !== 'function') boolean('options.proxyProtocol', 'accept', accept)
  secureContextOf(options)

  return {
    keyOf(client) {
      if (constant !== undefined) return constant
      if (typeof key === 'function') return key(client)
      return key === 'sni' ? client.hello?.servername : String(client.localPort)
    },
    sni,
    hashKeyOf(client) {
      if (typeof hashKey === 'function') return hashKey(client)
      return 'path' in client.source ? undefined : client.source.address
    },
    accepts: typeof accept === 'function' ? accept : () => accept,
    send: send === undefined ? undefined : (integer('options.proxyProtocol', 'send', send, 1, 2) as 1 | 2),
    head: {
      limit: integer('options', 'headLimit', options.headLimit ?? 16_384, 1, MOST),
      timeout: milliseconds('options', 'headTimeout', options.headTimeout ?? 10_000, 1),
    },
    idleTimeout: milliseconds('options', 'idleTimeout', options.idleTimeout ?? 600_000),
    drainTimeout: milliseconds('options', 'drainTimeout', options.drainTimeout ?? 10_000),
  }
}
