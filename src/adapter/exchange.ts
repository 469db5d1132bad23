/** What a proxied request and a proxied upgrade have in common: the attempts, and what each of them comes to. */
import type { EventEmitter } from 'node:events'
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import type { AgentOptions } from 'node:https'
import { isIP, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Checkups } from '../checkups.js'
import { CheckupsError } from '../errors.js'
import type { HasStatus, RetryVerdict } from '../health/outcome.js'
import type { Peer } from '../upstream/peer.js'
import type { Attempt, AttemptContext } from '../upstream/attempt.js'
import type { Backoff } from '../upstream/backoff.js'
import type { AgentPool, AgentSettings, PeerAgent } from './agent.js'
import { gatewayStatus, hashKeyOf, isIdempotent, type GatewayStatus, type HashKeyOption } from './http.js'

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
  readonly status: GatewayStatus
  /** Why: mostly an `AttemptsError`. */
  readonly error: unknown
  /** The client's request. */
  readonly req: IncomingMessage
}

/** A request that is over. */
export interface ProxiedRequest {
  /** The client's request. */
  readonly req: IncomingMessage
  /** The upstream's key; undefined if the request named none. */
  readonly upstream: string | undefined
  /** Everybody who was asked, in order, as `formatAttempts` prints them. */
  readonly attempts: readonly Attempt[]
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
  /** How long to wait before a further attempt. Default: not at all. */
  readonly backoff?: Backoff | undefined
  /** Called with every request when it is over, for a log: what it throws ends nothing. */
  readonly onEnd?: ((ended: ProxiedRequest) => void) | undefined
  /** Answers a request that could not be proxied; must end `res`. Default: a line of text. Upgrades always get that. */
  readonly onFailure?: ((failure: ProxyFailure, res: ServerResponse) => void | Promise<void>) | undefined
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

/** `http-proxy` adds to these headers at every attempt, with `xfwd`. */
const FORWARDED = ['x-forwarded-for', 'x-forwarded-port', 'x-forwarded-proto', 'x-forwarded-host'] as const

type OnEnd = (verdict: RetryVerdict, answer: HasStatus, error: Error | undefined) => void

const NO_ANSWER: HasStatus = { status: 0 }

/** One attempt under way. */
class Try {
  readonly context: AttemptContext
  readonly #verdictOfFailure: () => RetryVerdict
  readonly #onEnd: OnEnd
  request: ClientRequest | undefined
  /** Whether its connection stands: from then on the peer may have seen the request. */
  connected = false
  over = false

  constructor(context: AttemptContext, verdictOfFailure: () => RetryVerdict, onEnd: OnEnd) {
    this.context = context
    this.#verdictOfFailure = verdictOfFailure
    this.#onEnd = onEnd
  }

  /** First call counts. */
  settle(verdict: RetryVerdict, answer: HasStatus, error?: Error): void {
    if (this.over) return
    this.over = true
    this.#onEnd(verdict, answer, error)
  }

  /** It has failed; what that means depends on how far it had come. */
  fail(error: unknown): void {
    this.abort(this.#verdictOfFailure(), error instanceof Error ? error : new Error(String(error)))
  }

  /** {@link settle}, and what is left of the request is torn down. */
  abort(verdict: RetryVerdict, error: Error): void {
    this.settle(verdict, NO_ANSWER, error)
    this.request?.destroy()
  }
}

export abstract class Exchange {
  protected readonly setup: ExchangeSetup
  protected readonly req: IncomingMessage
  protected attempt: Try | undefined
  /** Whether the client is being answered: from then on there is no other attempt. */
  protected committed = false
  /** Whether the client has gone away. */
  protected gone = false
  #verdict: RetryVerdict = 'failed'
  readonly #client: EventEmitter
  #undo: (() => void)[] = []
  readonly #onClose = () => this.clientGone()

  constructor(setup: ExchangeSetup, req: IncomingMessage, client: EventEmitter) {
    this.setup = setup
    this.req = req
    this.#client = client
    // The answer to a pipelined request hears nothing of its connection until its turn.
    req.socket.on('close', this.#onClose)
  }

  /** Whether the request could be sent once more, as far as its body goes. */
  protected abstract readonly replayable: boolean
  /** Hands the request to the proxy, with the options that say where it goes. */
  protected abstract send(options: object, onError: (error: Error) => void, first: boolean): unknown
  /** The request has been made; its connection may not stand yet. */
  protected onRequest(_request: ClientRequest): void {}
  /** Whether a silence of the connection to the peer is the client's: it sends or takes nothing. */
  protected abstract clientIsSlow(request: ClientRequest): boolean
  /** Whether something else has begun to answer the client. */
  protected get answeredElsewhere(): boolean {
    return false
  }
  /** The exchange is over. */
  protected end(): void {
    this.req.socket.off('close', this.#onClose)
  }

  /** Resolves when the exchange is over; to what the client has still to be told, if anything. */
  async run(): Promise<ProxyFailure | undefined> {
    const { checkups, options, keyOf } = this.setup
    const { req } = this
    const attempts: Attempt[] = []
    let key: string | undefined
    try {
      key = keyOf(req)
      if (key === undefined) return { status: 502, error: new Error('the request names no upstream'), req }
      const { hashKey, clusterKey, tries, timeout, tryTimeout, backoff } = options
      await checkups.readyOk(key, (peer, context) => this.#try(peer, context), {
        hashKey: hashKey === undefined ? undefined : hashKeyOf(hashKey, req),
        clusterKey: clusterKey?.(req),
        tries,
        timeout,
        tryTimeout,
        backoff,
        attempts,
        isFailure: () => this.#verdict,
      })
      return undefined
    } catch (error) {
      return this.gone || this.committed || this.answeredElsewhere
        ? undefined
        : { status: gatewayStatus(error), error, req }
    } finally {
      this.end()
      this.#tell({ req, upstream: key, attempts })
    }
  }

  #tell(ended: ProxiedRequest): void {
    try {
      this.setup.options.onEnd?.(ended)
    } catch (error) {
      process.emitWarning(`onEnd threw: ${String(error)}`, { type: 'CheckupsWarning' })
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

  async #try(peer: Peer, context: AttemptContext): Promise<HasStatus> {
    this.#verdict = 'neutral'
    if (this.gone) throw new Error('the client went away')
    this.#verdict = 'failed'
    return new Promise((resolve, reject) => {
      const attempt: Try = new Try(
        context,
        () => this.#verdictOfFailure(attempt),
        (verdict, answer, error) => {
          if (this.attempt === attempt) this.#verdict = verdict
          if (error === undefined) resolve(answer)
          else reject(error)
        },
      )
      this.attempt = attempt
      context.onAbort((reason) => attempt.fail(reason))
      this.#launch(attempt, peer, context.number === 1)
    })
  }

  #launch(attempt: Try, peer: Peer, first: boolean): void {
    const { agent, settings } = this.setup.agents.of(peer.upstream)
    for (const undo of this.#undo.splice(0)) undo()
    this.#undo.push(rememberHeaders(this.req))
    let stale = false
    const onError = (error: unknown) => {
      if (stale) return
      // The peer closed a kept connection just when it was used again: no failure of the peer, so it is asked once more, over
      // a new connection.
      const wasKept = attempt.request?.reusedSocket === true
      if (!wasKept || attempt.over || this.#verdictOfFailure(attempt) !== 'failed') {
        attempt.fail(error)
        return
      }
      stale = true
      attempt.connected = false
      agent.closeIdle(peer.connect)
      this.#launch(attempt, peer, false)
    }
    agent.onRequest = (request) => this.#watch(attempt, request, settings)
    try {
      const sent = this.send(this.#options(peer, agent), onError, first)
      // A fork (httpxy) gives a promise instead of calling back, and resolves it when it has told its own listeners.
      if (sent instanceof Promise) sent.then(() => this.#gaveUp(attempt), onError)
    } catch (error) {
      onError(error)
    } finally {
      agent.onRequest = undefined
    }
  }

  /**
   * What the proxy listens to on the client's side, from now until the function that this returns is called, goes again
   * before another attempt.
   */
  protected noteListeners(): () => void {
    const emitters = [this.req, this.#client]
    const before = emitters.map(
      (emitter) => new Map(emitter.eventNames().map((name) => [name, emitter.listenerCount(name)])),
    )
    return () =>
      emitters.forEach((emitter, i) => {
        for (const name of emitter.eventNames()) {
          const added = emitter.listeners(name).slice(before[i]!.get(name) ?? 0) as (() => void)[]
          this.#undo.push(() => added.forEach((listener) => emitter.off(name, listener)))
        }
      })
  }

  #gaveUp(attempt: Try): void {
    if (!this.committed) attempt.fail(new Error('the proxy gave up'))
  }

  #options(peer: Peer, agent: PeerAgent): object {
    const { protocol } = this.setup.agents
    const { connect } = peer
    const place =
      'path' in connect
        ? { socketPath: connect.path, host: 'localhost', hostname: 'localhost' }
        : { host: connect.host, hostname: connect.host, port: connect.port }
    const all = { ...this.setup.options.proxyOptions, target: { protocol: `${protocol}:`, ...place }, agent }
    // A certificate is checked for the peer's name; without this, for the client's Host header.
    const named = protocol === 'https' && isIP(peer.host) === 0 && peer.port !== 0
    return named ? { ...all, ssl: { servername: peer.host } } : all
  }

  #watch(attempt: Try, request: ClientRequest, { timeouts }: AgentSettings): void {
    attempt.request = request
    const { protocol } = this.setup.agents
    // Node keeps one time of silence per connection: while the request is sent it is about writing, then about reading.
    const limit = () => request.setTimeout(request.writableFinished ? timeouts.read : timeouts.send)
    const connected = () => {
      attempt.connected = true
      limit()
    }
    request.once('socket', (socket: Socket) => {
      if (socket.connecting) socket.once(protocol === 'https' ? 'secureConnect' : 'connect', connected)
      else if (!socket.destroyed) connected()
    })
    request.once('finish', () => {
      if (attempt.connected) limit()
    })
    request.on('timeout', () => {
      if (this.clientIsSlow(request)) return void limit()
      attempt.fail(new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', 'the peer was silent for too long'))
    })
    this.onRequest(request)
  }

  #verdictOfFailure(attempt: Try): RetryVerdict {
    if (this.gone) return 'neutral'
    if (this.committed || this.answeredElsewhere || !this.replayable) return 'stop'
    return !attempt.connected || isIdempotent(this.req.method) ? 'failed' : 'stop'
  }
}

/** What takes back, before another attempt, what the proxy adds to the request's headers. */
function rememberHeaders({ headers }: IncomingMessage): () => void {
  const before = FORWARDED.map((name) => headers[name])
  return () =>
    FORWARDED.forEach((name, i) => {
      if (before[i] === undefined) Reflect.deleteProperty(headers, name)
      else headers[name] = before[i]
    })
}
