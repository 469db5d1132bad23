/** A request that was given to a dispatcher: its attempts, and its handler. */
import type { Duplex } from 'node:stream'
import { isIP } from 'node:net'
import { errors, type Dispatcher } from 'undici'
import { isIdempotent } from '../http.js'
import { OnceBody, readOnce, type Source } from './body.js'
import type { UpstreamNow } from '../upstreams.js'
import { UndiciExchange, type UndiciSetup } from './exchange.js'
import type { BalanceOptions } from './options.js'
import type { RawHandler } from './raw-handler.js'
import type { Target } from './target.js'
import type { UndiciTry } from './try.js'

/** What all requests of one dispatcher share. */
export interface DispatchSetup extends UndiciSetup {
  /** What an interceptor stands before. */
  readonly below: Dispatcher.Dispatch | undefined
  /** Told of every request that is over, or has become a connection of the caller's; perhaps twice. */
  readonly onFinished: ((request: DispatchedRequest) => void) | undefined
}

/** What undici's types do not tell of. */
interface Undeclared {
  readonly servername?: string
  readonly maxRedirections?: number
}

export class DispatchedRequest extends UndiciExchange {
  /** What the dispatcher says to who has dispatched: false asks to wait for `drain`. */
  accepted = true
  /** Where its dispatcher has it; the dispatcher's own. */
  place = -1
  declare readonly setup: DispatchSetup
  readonly #target: Target
  readonly #options: Dispatcher.DispatchOptions
  readonly #handler: RawHandler
  readonly #headers: Dispatcher.DispatchOptions['headers']
  readonly #once: OnceBody | undefined

  constructor(setup: DispatchSetup, target: Target, options: Dispatcher.DispatchOptions, handler: RawHandler) {
    // What becomes a connection has no end that could be repeated.
    const connects = Boolean(options.upgrade) || options.method === 'CONNECT'
    super(setup, !connects && (options.idempotent ?? isIdempotent(options.method)))
    this.#target = target
    this.#options = options
    this.#handler = handler
    this.#headers = target.host === undefined ? options.headers : withHost(options.headers, target.host)
    const source = readOnce(options.body)
    this.#once = source === undefined ? undefined : this.#keep(source)
  }

  override get replayable(): boolean {
    return this.#once?.replayable !== false
  }

  /**
   * Begins; returns what `dispatch` is to return. The handler is given its `abort` at once, not when there is a connection:
   * there may never be one.
   */
  begin({ hashKey, clusterKey }: BalanceOptions): boolean {
    const { key } = this.#target
    try {
      this.#handler.onConnect?.((reason) => this.abort(reason ?? new errors.RequestAbortedError()))
      if (key === undefined) throw new errors.InvalidArgumentError('the request names no upstream')
      if (!this.gone) this.run(key, hashKey?.(this.#options), clusterKey?.(this.#options))
      return this.accepted
    } catch (error) {
      this.finish(error as Error)
      return false
    }
  }

  override launch(attempt: UndiciTry, again: boolean): void {
    const { connections, below } = this.setup
    const { protocol } = this.#target
    const { peer } = attempt
    // The agent below reaches no unix sockets.
    if (below !== undefined && peer.port !== 0) {
      const named = protocol === 'https' && isIP(peer.host) === 0 ? peer.host : undefined
      const options = this.#optionsFor(connections.upstreams.of(peer.upstream), named)
      // What other interceptors and the agent are told beside goes on to them.
      this.accepted = below({ ...this.#options, ...options, origin: peer.origin(protocol) }, attempt as object)
      return
    }
    const place = attempt.connection?.home ?? connections.of(peer, protocol)
    const connection = (attempt.connection = again ? place.takeNew() : place.take())
    // One connection has one name for as long as it lives, and knows it itself: what Host says does not matter.
    connection.send(attempt, this.#optionsFor(place.upstream, peer.host || 'localhost'))
  }

  /** All that undici takes, in one shape: copying what was given, whatever it is, would cost as much as an attempt. */
  #optionsFor({ timeouts, keepalive }: UpstreamNow, servername: string | undefined): Dispatcher.DispatchOptions {
    const given = this.#options as Dispatcher.DispatchOptions & Undeclared
    return {
      path: given.path,
      method: given.method,
      headers: this.#headers,
      body: this.#once ?? given.body,
      query: given.query,
      idempotent: given.idempotent,
      blocking: given.blocking,
      upgrade: given.upgrade,
      headersTimeout: given.headersTimeout ?? timeouts.read,
      bodyTimeout: given.bodyTimeout ?? timeouts.read,
      reset: given.reset ?? (keepalive === 0 ? true : undefined),
      expectContinue: given.expectContinue,
      servername: given.servername ?? servername,
      throwOnError: given.throwOnError,
      maxRedirections: given.maxRedirections,
      typeOfService: given.typeOfService,
    } as Dispatcher.DispatchOptions
  }

  override onAnswering(): void {
    this.#handler.onResponseStarted?.()
  }

  override onInformation(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown {
    return this.#handler.onHeaders?.(status, headers, resume, statusText)
  }

  override onHead(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown {
    this.#once?.release()
    return this.#handler.onHeaders?.(status, headers, resume, statusText)
  }

  override onBody(chunk: Buffer): unknown {
    return this.#handler.onData?.(chunk)
  }

  protected override onEnd(trailers: readonly Buffer[]): void {
    this.#handler.onComplete?.(trailers)
  }

  protected override onSwitch(status: number, headers: readonly Buffer[], socket: Duplex): void {
    this.setup.onFinished?.(this)
    this.#handler.onUpgrade?.(status, headers, socket)
  }

  override onSent(chunk: unknown): void {
    this.#handler.onBodySent?.(chunk)
  }

  override onAllSent(): void {
    this.#handler.onRequestSent?.()
  }

  protected override onFailed(error: Error): void {
    this.#handler.onError?.(error)
  }

  protected override onFinished(): void {
    this.#once?.end()
    this.setup.onFinished?.(this)
  }

  #keep(source: Source): OnceBody {
    return new OnceBody(source, this.idempotent ? this.setup.bodyLimit : 0, (error) => {
      this.callersFault = true
      this.attempt?.cut('neutral', error)
      this.finish(error)
    })
  }
}

function withHost(headers: Dispatcher.DispatchOptions['headers'], host: string): Dispatcher.DispatchOptions['headers'] {
  if (headers === null || headers === undefined) return ['host', host]
  if (Array.isArray(headers)) {
    for (let i = 0; i < headers.length; i += 2) if (isHost(headers[i])) return headers
    return ['host', host, ...headers]
  }
  if (Symbol.iterator in headers) {
    const pairs = [...(headers as Iterable<[string, string]>)]
    return withHost(pairs.flat(), host)
  }
  for (const name in headers) if (isHost(name)) return headers
  return { ...headers, host }
}

function isHost(name: string | undefined): boolean {
  return name?.length === 4 && name.toLowerCase() === 'host'
}
