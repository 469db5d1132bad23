/** Keep-alive connections to the peers of one upstream, for clients that take a node:http Agent. */
import { Agent as HttpAgent, type AgentOptions, type ClientRequest, type RequestOptions } from 'node:http'
import { Agent as HttpsAgent, type AgentOptions as HttpsAgentOptions } from 'node:https'
import type { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import type { Checkups } from '../checkups.js'
import { CheckupsError } from '../errors.js'
import type { ConnectOptions } from '../upstream/peer.js'
import { Upstreams, type UpstreamNow } from './upstreams.js'

interface RequestInternals {
  onSocket(socket: Socket): void
}

/** Who has made a request, and is told of it. */
export interface RequestUser {
  /** It has been made; its connection may not stand yet. */
  onRequest(request: ClientRequest): void
  /** Its connection, which stands, has been silent for as many milliseconds as the upstream allows. Whether that is no fault. */
  onSilence(request: ClientRequest, ms: number): boolean
}

/** The parts of node:http's Agent that its types leave out; overriding them is how agents are made (as agent-base does). */
interface AgentInternals {
  createConnection(options: object, callback?: (error: Error | null, socket: Duplex) => void): Socket
  addRequest(request: ClientRequest, options: object): void
  keepSocketAlive(socket: Socket): boolean
  reuseSocket(socket: Socket, request: ClientRequest): void
}

/** An agent that keeps the upstream's time limits, closes the connections of peers that left, and tells of every request. */
export interface PeerAgent extends HttpAgent {
  /** Whose are the requests that are made now. */
  user: RequestUser | undefined
  /** Closes the idle connections to a peer. */
  closeIdle(connect: ConnectOptions): void
  /** The same, and the others when their requests end. */
  retire(connect: ConnectOptions): void
  /** The same for all peers. */
  retireAll(): void
}

const standing = new WeakSet<Socket>()

/** Whether a request of such an agent has got a connection that was established. */
export function hasStood({ socket }: ClientRequest): boolean {
  // Node has null for none, whatever its types say.
  return standing.has(socket!)
}

/** What a connection carries. */
interface Line {
  user: RequestUser | undefined
  request: ClientRequest | undefined
}

/** Makes the agent of one upstream. Its option `timeout` is for idle connections. */
export function createPeerAgent(
  protocol: 'http' | 'https',
  upstream: UpstreamNow,
  options: HttpsAgentOptions = {},
): PeerAgent {
  const base = protocol === 'https' ? HttpsAgent : (HttpAgent as unknown as typeof HttpsAgent)
  const Base = base as unknown as new (options: AgentOptions) => HttpAgent & AgentInternals
  const established = protocol === 'https' ? 'secureConnect' : 'connect'

  class Agent extends Base implements PeerAgent {
    user: RequestUser | undefined = undefined
    readonly #sockets = new Map<string, Set<Socket>>()
    readonly #lines = new WeakMap<Socket, Line>()
    readonly #retired = new WeakSet<Socket>()
    /** The connection of the request that was added last, if it has got one at once. */
    #given: Socket | undefined = undefined

    override addRequest(request: ClientRequest, requestOptions: RequestOptions): void {
      const { user } = this
      if (user === undefined) return super.addRequest(request, requestOptions)
      user.onRequest(request)
      this.#given = undefined
      if (!this.#reuse(request, requestOptions)) super.addRequest(request, requestOptions)
      const given = this.#takeGiven()
      if (given !== undefined) this.#carry(given, request, user)
      else request.once('socket', (socket) => this.#carry(socket, request, user))
    }

    override reuseSocket(socket: Socket, request: ClientRequest): void {
      this.#given = socket
      super.reuseSocket(socket, request)
    }

    override createConnection(connection: object, callback?: (error: Error | null, socket: Duplex) => void): Socket {
      const socket = super.createConnection(connection, callback)
      this.#given = socket
      const line: Line = { user: undefined, request: undefined }
      this.#lines.set(socket, line)
      socket.setTimeout(upstream.timeouts.connect)
      socket.on('timeout', () => {
        const { timeout = 0 } = socket
        if (!standing.has(socket)) {
          const late = `no connection within ${timeout} ms`
          socket.destroy(new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', late))
        } else if (line.user?.onSilence(line.request!, timeout) === true) socket.setTimeout(timeout)
      })
      socket.once(established, () => {
        standing.add(socket)
        if (line.request === undefined) socket.setTimeout(options.timeout ?? 0)
        else this.#limit(socket, line.request, line)
      })
      const place = placeOf(connection)
      const sockets = this.#sockets.get(place) ?? new Set()
      this.#sockets.set(place, sockets.add(socket))
      socket.once('close', () => {
        sockets.delete(socket)
        if (sockets.size === 0) this.#sockets.delete(place)
      })
      return socket
    }

    override keepSocketAlive(socket: Socket): boolean {
      // What is idle, and perhaps for long, holds no request.
      const line = this.#lines.get(socket)
      if (line !== undefined) line.user = line.request = undefined
      return upstream.keepalive > 0 && !this.#retired.has(socket) && super.keepSocketAlive(socket)
    }

    closeIdle(connect: ConnectOptions): void {
      const idle = this.#idle()
      for (const socket of [...(this.#sockets.get(placeOf(connect)) ?? [])]) if (idle.has(socket)) socket.destroy()
    }

    retire(connect: ConnectOptions): void {
      this.#retire(this.#sockets.get(placeOf(connect)) ?? [])
    }

    retireAll(): void {
      for (const sockets of this.#sockets.values()) this.#retire(sockets)
    }

    /**
     * What Node's `addRequest` does where there is an idle connection, without the copies that it makes of all options for one that
     * it would have to make: they cost more than the whole choice of a peer.
     */
    #reuse(request: ClientRequest, requestOptions: RequestOptions): boolean {
      const name = this.getName(requestOptions)
      const idle = this.freeSockets[name]
      const socket = idle?.at(-1)
      if (socket === undefined || socket.destroyed || options.scheduling === 'fifo' || !renew(socket)) return false
      idle!.pop()
      if (idle!.length === 0) Reflect.deleteProperty(this.freeSockets, name)
      const busy = this.sockets as Record<string, Socket[]>
      ;(busy[name] ??= []).push(socket)
      this.reuseSocket(socket, request)
      ;(request as unknown as RequestInternals).onSocket(socket)
      return true
    }

    #takeGiven(): Socket | undefined {
      const given = this.#given
      this.#given = undefined
      return given
    }

    #carry(socket: Socket, request: ClientRequest, user: RequestUser): void {
      const line = this.#lines.get(socket)!
      line.user = user
      line.request = request
      if (standing.has(socket)) this.#limit(socket, request, line)
    }

    /**
     * Node keeps one time of silence per connection: while the request is sent it is about writing, then about reading. The
     * timer of a kept connection goes on from one request to the next where the limits are the same: that costs nothing.
     */
    #limit(socket: Socket, request: ClientRequest, line: Line): void {
      const { send, read } = upstream.timeouts
      const isSent = send === read || request.writableFinished
      const limit = isSent ? read : send
      if (socket.timeout !== limit) socket.setTimeout(limit)
      if (isSent) return
      request.once('finish', () => {
        if (line.request === request) this.#limit(socket, request, line)
      })
    }

    #idle(): Set<Socket | undefined> {
      return new Set(Object.values(this.freeSockets).flat())
    }

    #retire(sockets: Iterable<Socket>): void {
      const idle = this.#idle()
      for (const socket of [...sockets]) {
        if (idle.has(socket)) socket.destroy()
        else this.#retired.add(socket)
      }
    }
  }
  return new Agent({ ...options, keepAlive: true, maxFreeSockets: upstream.keepalive })
}

/** What happens on a kept connection from now on belongs to another request, also for `AsyncLocalStorage`. */
function renew(socket: Socket): boolean {
  const { _handle: handle } = socket as Socket & { _handle?: { asyncReset?(resource: object): void } }
  if (typeof handle?.asyncReset !== 'function') return false
  handle.asyncReset({ handle })
  return true
}

/** The same for the options of a request and for a peer's. */
function placeOf(connection: { host?: string; port?: number; path?: string; socketPath?: string }): string {
  // A request's `path` is its URL; a peer's is its socket.
  const { host, port, socketPath } = connection
  if (socketPath !== undefined) return socketPath
  return host === undefined || port === undefined ? (connection.path ?? '') : `${host}:${port}`
}

/** One agent per upstream, made when it is first needed and kept in step with it. */
export class AgentPool {
  readonly protocol: 'http' | 'https'
  readonly upstreams: Upstreams
  readonly #options: HttpsAgentOptions
  readonly #agents = new Map<string, PeerAgent>()

  constructor(checkups: Checkups, protocol: 'http' | 'https', options: HttpsAgentOptions = {}) {
    this.protocol = protocol
    this.#options = options
    this.upstreams = new Upstreams(checkups, {
      onUpdate: ({ keepalive }, { upstream, removed }) => {
        const agent = this.#agents.get(upstream)
        if (agent === undefined) return
        agent.maxFreeSockets = keepalive
        for (const { connect } of removed) agent.retire(connect)
      },
      onDelete: (upstream) => {
        const agent = this.#agents.get(upstream)
        this.#agents.delete(upstream)
        agent?.retireAll()
      },
    })
  }

  /** @throws UnknownUpstreamError */
  of(upstream: string): PeerAgent {
    let agent = this.#agents.get(upstream)
    if (agent === undefined) {
      agent = createPeerAgent(this.protocol, this.upstreams.of(upstream), this.#options)
      this.#agents.set(upstream, agent)
    }
    return agent
  }

  /** Closes idle connections; those in use close when their requests end. */
  retire(): void {
    for (const agent of this.#agents.values()) agent.retireAll()
  }

  /** The same, for good. */
  close(): void {
    this.upstreams.close()
    this.retire()
    this.#agents.clear()
  }
}
