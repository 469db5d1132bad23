/** What a proxied request and a proxied upgrade have in common: the attempts, and what each of them comes to. */
import type { EventEmitter } from 'node:events'
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import type { AgentOptions } from 'node:https'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Checkups } from '../checkups.js'
import { CheckupsError, isCheckupsError } from '../errors.js'
import type { HasStatus, RetryVerdict } from '../health/outcome.js'
import type { Peer } from '../upstream/peer.js'
import { AttemptsError, type AttemptContext } from '../upstream/retry.js'
import type { AgentPool, AgentSettings, PeerAgent } from './agent.js'
import { hashKeyOf, isIdempotent, type HashKeyOption } from './http.js'

/** The part of `http-proxy`'s server that is used. */
export interface ProxyServer {
  /** Proxies a request. */
  web(req: IncomingMessage, res: ServerResponse, options: object, callback: (error: Error) => void): unknown
  /** Proxies an upgrade. */
  ws(req: IncomingMessage, socket: Duplex, head: Buffer, options: object, callback: (error: Error) => void): unknown
  /** Listens to its answers. */
  on(event: 'proxyRes', listener: (proxyRes: IncomingMessage, req: IncomingMessage) => void): unknown
  /** Stops listening. */
  off(event: 'proxyRes', listener: (proxyRes: IncomingMessage, req: IncomingMessage) => void): unknown
}

/** A request that could not be proxied. */
export interface ProxyFailure {
  /** What to answer: 502 (no such upstream, or every attempt failed), 503 (nobody available), 504 (out of time). */
  readonly status: 502 | 503 | 504
  /** Why: mostly an `AttemptsError`. */
  readonly error: unknown
  /** The client's request. */
  readonly req: IncomingMessage
}

/** Options of `balanceProxy`. */
export interface BalancedProxyOptions {
  /** The upstream of a request; undefined is answered with 502. Default: the Host header, lower case, without its port. */
  readonly key?: ((req: IncomingMessage) => string | undefined) | undefined
  /** What hashing policies hash: the client's address (`'ip'`, of the connection), `'url'`, `{ header }`, or a function. */
  readonly hashKey?: HashKeyOption | undefined
  /** Which named clusters to use, in which order. Default: all. */
  readonly clusterKey?: ((req: IncomingMessage) => string | readonly string[] | undefined) | undefined
  /** How peers are spoken to. Default `'http'`. */
  readonly protocol?: 'http' | 'https' | undefined
  /** For the agent that keeps the connections, as TLS options. How many it keeps idle says the upstream's `keepalive`. */
  readonly agent?: AgentOptions | undefined
  /** Further options for every `web` and `ws` call, as `{ xfwd: true }`. */
  readonly proxyOptions?: object | undefined
  /**
   * Answers that send an idempotent request to the next peer, if there is one; the last peer's is passed on. Default
   * 502, 503, 504: they speak of another hop or of lacking capacity, where a 500 is the application's own answer.
   */
  readonly retryStatuses?: readonly number[] | undefined
  /**
   * Bytes of a request body that are kept for a further attempt; a longer one is tried once it has begun to flow. Default
   * 1,048,576 (1 MiB): what most APIs accept.
   */
  readonly bodyLimit?: number | undefined
  /** Attempts at most. Default: the upstream's. */
  readonly tries?: number | undefined
  /** Milliseconds in all until the answer begins. Default: the upstream's. */
  readonly timeout?: number | undefined
  /** Milliseconds for each attempt until its answer begins. Default: the upstream's. */
  readonly tryTimeout?: number | undefined
  /** Answers a request that could not be proxied; must end `res`. Default: a line of text. Upgrades always get that. */
  readonly onFailure?: ((failure: ProxyFailure, res: ServerResponse) => void) | undefined
}

/** What all exchanges of one balanced proxy share. */
export interface ExchangeSetup {
  readonly checkups: Checkups
  readonly proxy: ProxyServer
  readonly agents: AgentPool
  readonly options: BalancedProxyOptions
  readonly bodyLimit: number
  readonly retryStatuses: ReadonlySet<number>
  readonly keyOf: (req: IncomingMessage) => string | undefined
}

/** `http-proxy` adds to these at every attempt: to the headers with `xfwd`, and listeners of its own. */
const FORWARDED = ['x-forwarded-for', 'x-forwarded-port', 'x-forwarded-proto', 'x-forwarded-host'] as const
const LISTENED = ['aborted', 'error', 'close'] as const

type OnEnd = (attempt: Attempt, verdict: RetryVerdict, status: number, error: Error | undefined) => void

/** One attempt under way. */
class Attempt {
  readonly context: AttemptContext
  readonly #onEnd: OnEnd
  request: ClientRequest | undefined
  /** Whether its connection stands: from then on the peer may have seen the request. */
  connected = false
  over = false

  constructor(context: AttemptContext, onEnd: OnEnd) {
    this.context = context
    this.#onEnd = onEnd
  }

  /** First call counts. */
  settle(verdict: RetryVerdict, status: number, error?: Error): void {
    if (this.over) return
    this.over = true
    this.#onEnd(this, verdict, status, error)
  }

  /** {@link settle}, and what is left of the request is torn down. */
  abort(verdict: RetryVerdict, error: Error): void {
    this.settle(verdict, 0, error)
    this.request?.destroy()
  }
}

export abstract class Exchange {
  protected readonly setup: ExchangeSetup
  protected readonly req: IncomingMessage
  protected attempt: Attempt | undefined
  /** Whether the client is being answered: from then on there is no other attempt. */
  protected committed = false
  /** Whether the client has gone away. */
  protected gone = false
  #verdict: RetryVerdict = 'failed'
  readonly #emitters: readonly EventEmitter[]
  #undo: (() => void) | undefined

  constructor(setup: ExchangeSetup, req: IncomingMessage, client: EventEmitter) {
    this.setup = setup
    this.req = req
    this.#emitters = [req, client]
  }

  /** Whether the request could be sent once more, as far as its body goes. */
  protected abstract readonly replayable: boolean
  /** Hands the request to the proxy, with the options that say where it goes. */
  protected abstract send(options: object, onError: (error: Error) => void, first: boolean): unknown
  /** The request has been made; its connection may not stand yet. */
  protected onRequest(_request: ClientRequest): void {}
  /** The exchange is over. */
  protected end(): void {}

  /** Resolves when the exchange is over; to what the client has still to be told, if anything. */
  async run(): Promise<ProxyFailure | undefined> {
    const { checkups, options, keyOf } = this.setup
    const { req } = this
    try {
      const key = keyOf(req)
      if (key === undefined) return { status: 502, error: new Error('the request names no upstream'), req }
      const { hashKey, clusterKey, tries, timeout, tryTimeout } = options
      await checkups.readyOk(key, (peer, context) => this.#try(key, peer, context), {
        hashKey: hashKey === undefined ? undefined : hashKeyOf(hashKey, req),
        clusterKey: clusterKey?.(req),
        tries,
        timeout,
        tryTimeout,
        isFailure: () => this.#verdict,
      })
      return undefined
    } catch (error) {
      return this.gone || this.committed ? undefined : { status: statusFor(error), error, req }
    } finally {
      this.end()
    }
  }

  protected clientGone(): void {
    this.gone = true
    this.attempt?.abort('neutral', new Error('the client went away'))
  }

  /** The answer goes to the client. */
  protected commit(status: number): void {
    this.committed = true
    this.attempt?.context.answered(status)
  }

  async #try(key: string, peer: Peer, context: AttemptContext): Promise<HasStatus> {
    this.#verdict = 'neutral'
    if (this.gone) throw new Error('the client went away')
    this.#verdict = 'failed'
    const { agent, settings } = this.setup.agents.of(key)
    this.#undo?.()
    this.#undo = remember(this.req, this.#emitters)
    return new Promise((resolve, reject) => {
      const attempt = new Attempt(context, (ended, verdict, status, error) => {
        if (this.attempt === ended) this.#verdict = verdict
        if (error === undefined) resolve({ status })
        else reject(error)
      })
      this.attempt = attempt
      const onError = (error: unknown) =>
        attempt.abort(this.#verdictOfFailure(attempt), error instanceof Error ? error : new Error(String(error)))
      context.signal.addEventListener('abort', () => onError(context.signal.reason))
      agent.onRequest = (request) => this.#watch(attempt, request, settings)
      try {
        const sent = this.send(this.#options(peer, agent), onError, context.number === 1)
        // Forks give a promise instead of calling back.
        if (sent instanceof Promise) sent.catch(onError)
      } catch (error) {
        onError(error)
      } finally {
        agent.onRequest = undefined
      }
    })
  }

  #options(peer: Peer, agent: PeerAgent): object {
    const { protocol } = this.setup.agents
    const { connect } = peer
    const place =
      'path' in connect
        ? { socketPath: connect.path, host: 'localhost', hostname: 'localhost' }
        : { host: connect.host, hostname: connect.host, port: connect.port }
    return { ...this.setup.options.proxyOptions, target: { protocol: `${protocol}:`, ...place }, agent }
  }

  #watch(attempt: Attempt, request: ClientRequest, { timeouts }: AgentSettings): void {
    attempt.request = request
    const { protocol } = this.setup.agents
    request.once('socket', (socket: Socket) => {
      if (!socket.connecting) attempt.connected = true
      else socket.once(protocol === 'https' ? 'secureConnect' : 'connect', () => (attempt.connected = true))
    })
    // Node keeps one time of silence per connection: while the request is sent it is about writing, then about reading.
    request.setTimeout(timeouts.send)
    request.once('finish', () => request.setTimeout(timeouts.read))
    request.once('timeout', () => {
      const error = new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', 'the peer was silent for too long')
      attempt.abort(this.#verdictOfFailure(attempt), error)
    })
    this.onRequest(request)
  }

  #verdictOfFailure(attempt: Attempt): RetryVerdict {
    if (this.gone) return 'neutral'
    if (this.committed || !this.replayable) return 'stop'
    return !attempt.connected || isIdempotent(this.req.method) ? 'failed' : 'stop'
  }
}

/** Takes back, before another attempt, what the last one has added to the request and the client's side. */
function remember({ headers }: IncomingMessage, emitters: readonly EventEmitter[]): () => void {
  const before = FORWARDED.map((name) => headers[name])
  const counts = emitters.map((emitter) => LISTENED.map((event) => emitter.listenerCount(event)))
  return () => {
    FORWARDED.forEach((name, i) => {
      if (before[i] === undefined) Reflect.deleteProperty(headers, name)
      else headers[name] = before[i]
    })
    emitters.forEach((emitter, i) =>
      LISTENED.forEach((event, j) => {
        for (const listener of emitter.listeners(event).slice(counts[i]![j])) emitter.off(event, listener as () => void)
      }),
    )
  }
}

/** Which of the three gateway errors a failure is. */
function statusFor(error: unknown): ProxyFailure['status'] {
  if (!(error instanceof AttemptsError)) return 502
  if (error.code === 'ERR_CHECKUPS_TIMEOUT') return 504
  const last = error.attempts.at(-1)
  if (last === undefined) return error.code === 'ERR_CHECKUPS_NO_PEER' ? 503 : 502
  return isCheckupsError(last.error, 'ERR_CHECKUPS_ATTEMPT_TIMEOUT') ? 504 : 502
}
