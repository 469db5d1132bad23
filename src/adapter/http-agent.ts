/**
 * An agent for clients that take one and nothing else: `http.request`, axios, got, and proxies built on it. Every request
 * goes to the next peer.
 *
 * @module checkups/http-agent
 */
import { checkHashKey, finalVerdict } from './http.js'
import { errorMonitor, type EventEmitter } from 'node:events'
import { Agent as HttpAgent, type AgentOptions, type ClientRequest, type IncomingMessage } from 'node:http'
import { Agent as HttpsAgent, type AgentOptions as HttpsAgentOptions, type RequestOptions } from 'node:https'
import { isIP, type Socket } from 'node:net'
import { functions, oneOf, onlyKeys, record, string } from '../check.js'
import type { Checkups } from '../checkups.js'
import type { HasStatus, RetryVerdict } from '../health/outcome.js'
import type { AttemptContext } from '../upstream/attempt.js'
import type { Peer } from '../upstream/peer.js'
import type { ReadyOkOptions } from '../upstream/retry.js'
import { AgentPool, type PeerAgent } from './agent.js'
import type { HashHeader } from './http.js'

export type { HashHeader } from './http.js'

/** Options of `createAgent`. */
export interface BalancedAgentOptions extends Pick<ReadyOkOptions, 'tries' | 'timeout' | 'tryTimeout'> {
  /** How peers are spoken to; requests must say the same. Default `'http'`. */
  readonly protocol?: 'http' | 'https' | undefined
  /** What hashing policies hash: `'url'` (path and query), `{ header }`, or what a function says. Default: nothing. */
  readonly hashKey?: 'url' | HashHeader | ((request: ClientRequest) => string | Uint8Array | undefined) | undefined
  /** Which named clusters to use, in which order. Default: all. */
  readonly clusterKey?: ((request: ClientRequest) => string | readonly string[] | undefined) | undefined
  /** TLS options and the like, for all connections. How many are kept idle says the upstream's `keepalive`. */
  readonly agent?:
    Omit<HttpsAgentOptions, 'keepAlive' | 'maxSockets' | 'maxTotalSockets' | 'maxFreeSockets'> | undefined
}

/** The upstream of a request by where its URL says that it goes; undefined: it goes there. */
export type AgentKey = (to: RequestOptions) => string | undefined

/** What becomes of a connection that is asked for. */
type OnSocket = (error: Error | null, socket?: Socket) => void

/** The parts of node:http that its types leave out; overriding them is how agents are made (as agent-base does). */
interface Internals {
  addRequest(request: ClientRequest, options: RequestOptions): void
  createSocket(request: ClientRequest, options: RequestOptions, callback: OnSocket): void
}
interface RequestInternals {
  onSocket(socket: Socket | undefined, error?: Error): void
}

const OPTION_KEYS = new Set('protocol hashKey clusterKey agent tries timeout tryTimeout'.split(' '))
/** What would have requests wait for each other; `maxConns` of a server sends them elsewhere instead. */
const OWN_LIMITS = { keepAlive: true, maxSockets: Infinity, maxTotalSockets: Infinity } as const

/**
 * Makes an agent whose requests go to the peers of an upstream, whatever host their URLs name: that is for the Host header
 * alone. A connection that cannot be made is followed by the next peer, for every method, as nothing has been sent; all
 * other failures are the client's to see. `destroy()` closes idle connections, and those in use as soon as they are not.
 *
 * @param key - the upstream; or a function, for clients that speak to other hosts too
 *
 * @example
 * ```ts
 * const agent = createAgent(checkups, 'api')
 * http.get('http://api/', { agent })
 * ```
 *
 * @throws `ConfigError`
 */
export function createAgent(
  checkups: Checkups,
  key: string | AgentKey,
  options: BalancedAgentOptions & { readonly protocol: 'https' },
): HttpsAgent
export function createAgent(checkups: Checkups, key: string | AgentKey, options?: BalancedAgentOptions): HttpAgent
export function createAgent(checkups: Checkups, key: string | AgentKey, options: BalancedAgentOptions = {}): HttpAgent {
  onlyKeys('options', record('options', '', options), OPTION_KEYS)
  const protocol = oneOf('options', 'protocol', options.protocol ?? 'http', ['http', 'https'])
  functions('options', options, ['clusterKey'])
  checkHashKey(options.hashKey, ['url'])
  if (typeof key !== 'function') string('key', '', key)
  const pool = new AgentPool(checkups, protocol, { ...options.agent, ...OWN_LIMITS })
  const base = protocol === 'https' ? HttpsAgent : (HttpAgent as unknown as typeof HttpsAgent)
  const Base = base as unknown as new (agentOptions: AgentOptions) => HttpAgent & Internals

  class BalancedAgent extends Base {
    override addRequest(request: ClientRequest, to: RequestOptions): void {
      const upstream = typeof key === 'function' ? key(to) : key
      if (upstream === undefined) super.addRequest(request, to)
      // By a signal that was aborted before.
      else if (request.destroyed) refuse(request)
      else void new AgentExchange(pool, options, request, to).run(checkups, upstream)
    }

    override destroy(): void {
      pool.close()
      super.destroy()
    }
  }
  return new BalancedAgent({ ...options.agent, ...OWN_LIMITS })
}

/** Ends a request that has no connection. */
function refuse(request: ClientRequest, error?: unknown): void {
  const internals = request as unknown as RequestInternals
  internals.onSocket(undefined, error === undefined ? undefined : asError(error))
}

/** Who waits for the connection that is made for a request. */
const waiting = new WeakMap<ClientRequest, (socket: Socket, stands: () => void) => void>()
const prepared = new WeakSet<PeerAgent>()

/** Has an agent give a request a connection that stands: until then another one can be made in its place. */
function connectFirst(agent: PeerAgent): PeerAgent & Internals {
  const inner = agent as PeerAgent & Internals
  if (prepared.has(agent)) return inner
  prepared.add(agent)
  const createSocket = inner.createSocket.bind(inner)
  inner.createSocket = (request, options, callback) => {
    createSocket(request, options, (error, socket) => {
      const wait = waiting.get(request)
      if (socket === undefined || wait === undefined) callback(error, socket)
      else wait(socket, () => callback(null, socket))
    })
  }
  return inner
}

/** The options of a request, bent to a peer. */
function placeOf(to: RequestOptions, { connect, host }: Peer, protocol: 'http' | 'https'): RequestOptions {
  if ('path' in connect)
    return { ...to, host: 'localhost', hostname: 'localhost', port: null, socketPath: connect.path }
  // A certificate is checked for the peer's name; without one, for the Host header.
  const named = protocol === 'https' && isIP(host) === 0
  return { ...to, host, hostname: host, port: connect.port, ...(named && { servername: host }) }
}

type Settle = (verdict: RetryVerdict, error?: unknown, status?: number) => void

/** One request, and the attempts to get it a connection. */
class AgentExchange {
  readonly #pool: AgentPool
  readonly #options: BalancedAgentOptions
  readonly #request: ClientRequest
  readonly #to: RequestOptions
  /** Of the attempt that is under way, or was the last. */
  #verdict: RetryVerdict = 'failed'
  #context: AttemptContext | undefined
  /** Ends that attempt; first call counts. */
  #settle: Settle = () => undefined
  /** Whether the request has a connection: from then on nobody else can have it. */
  #handed = false
  /** Whether the client has given up. */
  #left = false
  /** Whether a time-out has been reached, of the client or of its connection. */
  #late = false
  #answer: IncomingMessage | undefined

  constructor(pool: AgentPool, options: BalancedAgentOptions, request: ClientRequest, to: RequestOptions) {
    this.#pool = pool
    this.#options = options
    this.#request = request
    this.#to = to
  }

  async run(checkups: Checkups, upstream: string): Promise<void> {
    const { clusterKey, tries, timeout, tryTimeout } = this.#options
    this.#watch()
    try {
      await checkups.readyOk(upstream, (peer, context) => this.#try(peer, context), {
        hashKey: this.#hashKey(),
        clusterKey: clusterKey?.(this.#request),
        ...{ tries, timeout, tryTimeout },
        isFailure: () => this.#verdict,
      })
    } catch (error) {
      // Of a request that had a connection, its client is told by node:http. One that has left is not told why.
      if (!this.#handed) refuse(this.#request, this.#left ? undefined : error)
    }
  }

  #hashKey(): string | Uint8Array | undefined {
    const { hashKey } = this.#options
    if (hashKey === undefined) return undefined
    if (typeof hashKey === 'function') return hashKey(this.#request)
    return hashKey === 'url' ? this.#request.path : this.#request.getHeader(hashKey.header)?.toString()
  }

  async #try(peer: Peer, context: AttemptContext): Promise<HasStatus> {
    this.#verdict = 'neutral'
    if (this.#left) throw new Error('the client has left')
    this.#verdict = 'failed'
    this.#context = context
    const request = this.#request
    const agent = this.#pool.of(peer.upstream)
    return new Promise((resolve, reject) => {
      let over = false
      let connecting: Socket | undefined
      this.#settle = (verdict, error, status = 0) => {
        if (over) return
        over = true
        this.#verdict = verdict
        waiting.delete(request)
        if (!this.#handed) connecting?.destroy()
        if (error === undefined) resolve({ status })
        else reject(asError(error))
      }
      const settle = this.#settle
      context.signal.addEventListener('abort', () => {
        if (over) return
        settle(this.#verdict, context.signal.reason)
        if (this.#handed) request.destroy(context.signal.reason as Error)
      })
      waiting.set(request, (socket, stands) => {
        connecting = socket
        const fail = (error: Error) => settle(this.#handed ? 'stop' : 'failed', error)
        const onClose = () => fail(new Error('the connection was closed'))
        socket.once('error', fail).once('close', onClose)
        // From then on the request listens itself.
        request.once('socket', () => socket.off('error', fail).off('close', onClose))
        socket.once(this.#pool.protocol === 'https' ? 'secureConnect' : 'connect', () => {
          if (over) return
          this.#handOver()
          stands()
        })
      })
      connectFirst(agent).addRequest(request, placeOf(this.#to, peer, this.#pool.protocol))
      if (connecting === undefined) this.#handOver()
    })
  }

  /** The request goes out, over a new connection or one that was idle. */
  #handOver(): void {
    this.#handed = true
    this.#verdict = 'stop'
  }

  /** What the client would see without us it must see with us, too: a mere listener can change that. */
  #watch(): void {
    const request = this.#request
    const destroy = request.destroy.bind(request)
    request.destroy = (error?: Error) => {
      if (!request.destroyed) {
        this.#left = true
        this.#late ||= isTimeout(error)
      }
      destroy(error)
      if (!this.#handed) this.#settle(this.#verdictOf(error), error ?? new Error('the client has left'))
      return request
    }
    const onTimeout = () => (this.#late = true)
    let socket: Socket | undefined
    request.once('socket', (given: Socket) => (socket = given.once('timeout', onTimeout)))
    // First of all listeners: where there is no other one, nobody else reads the answer.
    request.prependOnceListener('response', (answer: IncomingMessage) => {
      if (request.listenerCount('response') === 0) answer.resume()
      this.#onResponse(answer)
    })
    const emitter: EventEmitter = request
    emitter.once(errorMonitor, (error: unknown) => {
      if (this.#handed) this.#settle(this.#verdictOf(error), error)
    })
    request.once('close', () => {
      socket?.off('timeout', onTimeout)
      if (this.#handed) this.#onClose(socket)
    })
  }

  #onResponse(answer: IncomingMessage): void {
    const { statusCode: status = 0 } = answer
    this.#answer = answer
    this.#context?.answered(status)
    answer.once('close', () => this.#onEnd(answer, this.#context!.judge(status)))
  }

  #onEnd(answer: IncomingMessage, verdict: RetryVerdict): void {
    const { complete, statusCode: status = 0 } = answer
    if (complete) return this.#settle(finalVerdict(verdict), undefined, status)
    // Unless the client has had enough of it, the peer has broken it off.
    const isBroken = this.#late || (!this.#left && codeOf(answer.errored) === 'ECONNRESET')
    this.#settle(isBroken ? 'stop' : 'neutral', new Error('the answer broke off'))
  }

  #verdictOf(error: unknown): RetryVerdict {
    if (this.#late) return 'stop'
    if (this.#left) return 'neutral'
    // The peer has closed a kept connection just when it was used again: that says nothing about it.
    const isStale = this.#request.reusedSocket && this.#answer === undefined && codeOf(error) === 'ECONNRESET'
    return isStale ? 'neutral' : 'stop'
  }

  /** Nothing more comes of the request. */
  #onClose(socket: Socket | undefined): void {
    const answer = this.#answer
    if (answer !== undefined) {
      // Its connection is gone, and all of it has come, though perhaps nobody will ever read it.
      if (answer.complete) this.#onEnd(answer, this.#context!.judge(answer.statusCode ?? 0))
      return
    }
    if (socket === undefined || socket.destroyed) return this.#settle('neutral', new Error('the request was closed'))
    // The connection is another one's now, as a WebSocket's.
    this.#context?.answered(101)
    socket.once('close', () => this.#settle('ok', undefined, 101))
  }
}

function asError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

/** Whether somebody gives up because it took too long: got, axios, `AbortSignal.timeout`. */
function isTimeout(error: Error | undefined): boolean {
  if (error === undefined) return false
  const { name, cause } = error
  const code = codeOf(error)
  const isNamed = name === 'TimeoutError' || code === 'ETIMEDOUT' || code === 'ECONNABORTED'
  return isNamed || (cause instanceof Error && isTimeout(cause))
}
