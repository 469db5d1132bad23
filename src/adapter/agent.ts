/** Keep-alive connections to the peers of one upstream, for clients that take a node:http Agent. */
import { Agent as HttpAgent, type AgentOptions, type ClientRequest } from 'node:http'
import { Agent as HttpsAgent, type AgentOptions as HttpsAgentOptions } from 'node:https'
import type { Duplex } from 'node:stream'
import type { Socket } from 'node:net'
import type { Checkups } from '../checkups.js'
import type { Timeouts } from '../config.js'
import { CheckupsError } from '../errors.js'
import type { ConnectOptions } from '../upstream/peer.js'
import type { UpstreamUpdateEvent, UpstreamDeleteEvent } from '../upstream/change.js'

/** What connections to an upstream go by; may change while its agent lives. */
export interface AgentSettings {
  /** Idle connections kept per peer. */
  keepalive: number
  /** Milliseconds: until a connection stands, between two writes, between two reads; 0 = no limit. */
  timeouts: Timeouts
}

/** The parts of node:http's Agent that its types leave out; overriding them is how agents are made (as agent-base does). */
interface AgentInternals {
  createConnection(options: object, callback?: (error: Error | null, socket: Duplex) => void): Socket
  addRequest(request: ClientRequest, options: object): void
  keepSocketAlive(socket: Socket): boolean
}

/** An agent that bounds the time of connecting, closes the connections of peers that left, and tells of every request. */
export interface PeerAgent extends HttpAgent {
  /** Called, at once, with every request that goes through the agent. */
  onRequest: ((request: ClientRequest) => void) | undefined
  /** Closes the idle connections to a peer. */
  closeIdle(connect: ConnectOptions): void
  /** The same, and the others when their requests end. */
  retire(connect: ConnectOptions): void
  /** The same for all peers. */
  retireAll(): void
}

/** Makes the agent of one upstream. */
export function createPeerAgent(
  protocol: 'http' | 'https',
  settings: AgentSettings,
  options: HttpsAgentOptions = {},
): PeerAgent {
  const base = protocol === 'https' ? HttpsAgent : (HttpAgent as unknown as typeof HttpsAgent)
  const Base = base as unknown as new (options: AgentOptions) => HttpAgent & AgentInternals
  const connected = protocol === 'https' ? 'secureConnect' : 'connect'

  class Agent extends Base implements PeerAgent {
    onRequest: ((request: ClientRequest) => void) | undefined = undefined
    readonly #sockets = new Map<string, Set<Socket>>()
    readonly #retired = new WeakSet<Socket>()

    override addRequest(request: ClientRequest, requestOptions: object): void {
      this.onRequest?.(request)
      super.addRequest(request, requestOptions)
    }

    override createConnection(connection: object, callback?: (error: Error | null, socket: Duplex) => void): Socket {
      const socket = super.createConnection(connection, callback)
      const late = () =>
        socket.destroy(
          new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', `no connection within ${settings.timeouts.connect} ms`),
        )
      if (settings.timeouts.connect > 0) socket.setTimeout(settings.timeouts.connect, late)
      socket.once(connected, () => {
        socket.off('timeout', late)
        socket.setTimeout(0)
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
      return settings.keepalive > 0 && !this.#retired.has(socket) && super.keepSocketAlive(socket)
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
  return new Agent({ ...options, keepAlive: true, maxFreeSockets: settings.keepalive })
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
  readonly #checkups: Checkups
  readonly #options: HttpsAgentOptions
  readonly #agents = new Map<string, { agent: PeerAgent; settings: AgentSettings }>()
  readonly #onUpdate = ({ upstream, removed }: UpstreamUpdateEvent) => {
    const known = this.#agents.get(upstream)
    if (known === undefined) return
    Object.assign(known.settings, this.#settingsOf(upstream))
    known.agent.maxFreeSockets = known.settings.keepalive
    for (const { connect } of removed) known.agent.retire(connect)
  }
  readonly #onDelete = ({ upstream }: UpstreamDeleteEvent) => {
    const known = this.#agents.get(upstream)
    this.#agents.delete(upstream)
    known?.agent.retireAll()
  }

  constructor(checkups: Checkups, protocol: 'http' | 'https', options: HttpsAgentOptions = {}) {
    this.#checkups = checkups
    this.protocol = protocol
    this.#options = options
    checkups.on('upstream:update', this.#onUpdate)
    checkups.on('upstream:delete', this.#onDelete)
  }

  /** @throws UnknownUpstreamError */
  of(upstream: string): { agent: PeerAgent; settings: AgentSettings } {
    let known = this.#agents.get(upstream)
    if (known === undefined) {
      const settings = this.#settingsOf(upstream)
      known = { agent: createPeerAgent(this.protocol, settings, this.#options), settings }
      this.#agents.set(upstream, known)
    }
    return known
  }

  /** Closes idle connections; those in use close when their requests end. */
  retire(): void {
    for (const { agent } of this.#agents.values()) agent.retireAll()
  }

  /** The same, for good. */
  close(): void {
    this.#checkups.off('upstream:update', this.#onUpdate)
    this.#checkups.off('upstream:delete', this.#onDelete)
    this.retire()
    this.#agents.clear()
  }

  #settingsOf(upstream: string): AgentSettings {
    const timeouts = this.#checkups.getUpstreamTimeouts(upstream)
    return { timeouts, keepalive: this.#checkups.getUpstream(upstream)?.keepalive ?? 0 }
  }
}
