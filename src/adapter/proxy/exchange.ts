/** What a proxied request and a proxied upgrade have in common: where they go, and how their answers reach the client. */
import { AsyncResource } from 'node:async_hooks'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Dispatcher } from 'undici'
import type { ClientConnection, Waiting } from '../clients.js'
import { gatewayStatus, hashKeyOf, isIdempotent } from '../http.js'
import { tellEnd, type ProxyFailure } from '../options.js'
import type { Protocol } from '../undici/connections.js'
import { UndiciExchange, type UndiciSetup } from '../undici/exchange.js'
import type { UndiciTry } from '../undici/try.js'
import { answerHead, answerTrailers, hints } from './answer-head.js'
import type { ProxyOptions } from './options.js'
import type { RequestHead, RequestHeadSettings } from './request-head.js'

/** What all exchanges of one proxy share. */
export interface ProxySetup extends UndiciSetup {
  readonly options: ProxyOptions
  readonly head: RequestHeadSettings
  readonly protocolOf: Protocol | ((upstream: string) => Protocol)
  readonly onFinished: () => void
}

export abstract class ProxiedExchange extends UndiciExchange implements Waiting {
  declare readonly setup: ProxySetup
  protected readonly req: IncomingMessage
  protected readonly head: RequestHead
  protected readonly client: ClientConnection
  #key: string | undefined = undefined
  /** Bytes that the answer has still to bring; below 0 if nobody knows. */
  #left = -1
  /** For calls of the application's: whatever connection the news come over, `AsyncLocalStorage` has what the request has. */
  #context: AsyncResource | undefined = undefined
  /** Goes on with an answer that was paused. */
  #resume: () => void = nothing

  constructor(setup: ProxySetup, req: IncomingMessage, head: RequestHead, client: ClientConnection) {
    super(setup, isIdempotent(req.method))
    this.req = req
    this.head = head
    this.client = client
  }

  /** Where the answer goes. */
  protected abstract readonly response: ServerResponse
  /** Nobody has answered. */
  protected abstract answerFailure(failure: ProxyFailure): void

  /** What the next attempt is to send. */
  protected bodyFor(): Dispatcher.DispatchOptions['body'] {
    return null
  }

  /** The protocols to change to. */
  protected get upgrade(): string | null {
    return null
  }

  begin(): void {
    const { options } = this.setup
    const { req } = this
    this.client.begin(this)
    this.notes = options.onEnd !== undefined
    if (options.onEnd !== undefined || options.onFailure !== undefined) this.#context = new AsyncResource('CHECKUPS')
    try {
      this.#key = options.key === undefined ? this.client.keyOf(this.head.host) : options.key(req)
      if (this.#key === undefined || this.#key === '') throw new Error('the request names no upstream')
      this.run(this.#key, hashKeyOf(options.hashKey, req), options.clusterKey?.(req))
    } catch (error) {
      this.finish(error as Error)
    }
  }

  clientGone(): void {
    this.abort(new Error('the client went away'))
  }

  override launch(attempt: UndiciTry, again: boolean): void {
    const { connections, protocolOf } = this.setup
    const { peer } = attempt
    const protocol = typeof protocolOf === 'function' ? protocolOf(peer.upstream) : protocolOf
    const place = attempt.connection?.home ?? connections.of(peer, protocol)
    const { timeouts, keepalive } = place.upstream
    const connection = (attempt.connection = again ? place.takeNew() : place.take())
    const options = {
      path: this.head.path,
      method: this.req.method as Dispatcher.HttpMethod,
      headers: this.head.fields,
      body: this.bodyFor(),
      upgrade: this.upgrade,
      headersTimeout: timeouts.read,
      bodyTimeout: timeouts.read,
      // One connection has one name for as long as it lives: what Host says does not matter.
      servername: peer.host || 'localhost',
      reset: keepalive === 0 ? true : undefined,
    }
    connection.send(attempt, options as Dispatcher.DispatchOptions)
  }

  override onInformation(status: number, headers: readonly Buffer[]): unknown {
    const { response, req } = this
    if (response.headersSent || req.httpVersion === '1.0') return true
    if (status === 102) response.writeProcessing()
    if (status === 103) {
      try {
        response.writeEarlyHints(hints(headers))
      } catch {
        // Hints that cannot be passed on are none.
      }
    }
    return true
  }

  override onHead(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown {
    const { response } = this
    if (response.headersSent) {
      // Something else has answered meanwhile, as a time limit of the application's.
      this.abort(new Error('answered by somebody else'))
      return true
    }
    const { fields, length, trailer } = answerHead(status, headers)
    const hasBody = this.req.method !== 'HEAD' && status !== 204 && status !== 304
    this.#left = length
    // To who speaks HTTP/1.0 nothing is sent in chunks, and only after chunks there are trailers.
    if (trailer !== undefined && hasBody && this.req.httpVersion !== '1.0') fields.push('trailer', trailer)
    try {
      write(response, status, statusText, fields)
    } catch (error) {
      // A field that Node would not let out: the client gets an answer of ours.
      response.statusMessage = ''
      this.committed = false
      this.attempt?.fail(error as Error, 'stop')
      return true
    }
    this.#resume = resume
    return true
  }

  override onBody(chunk: Buffer): unknown {
    const { response } = this
    this.#left -= chunk.length
    // Head, body and end leave in one piece, if they have come in one.
    if (this.#left === 0) {
      response.end(chunk)
      return true
    }
    if (response.write(chunk)) return true
    response.once('drain', this.#resume)
    return false
  }

  protected override onEnd(trailers: readonly Buffer[]): void {
    const { response } = this
    if (response.writableEnded) return
    if (trailers.length > 0) {
      try {
        response.addTrailers(answerTrailers(trailers))
      } catch {
        // Trailers that cannot be passed on are none.
      }
    }
    response.end()
  }

  protected override onFailed(error: Error): void {
    if (this.gone) return
    // Without this the client would wait for the rest for ever.
    if (this.committed) this.response.destroy()
    else this.#tell(() => this.answerFailure({ status: gatewayStatus(error), error, req: this.req }))
  }

  protected override onFinished(): void {
    this.client.end(this)
    this.setup.onFinished()
    const { onEnd } = this.setup.options
    if (onEnd === undefined) return
    this.#tell(() => tellEnd(onEnd, { req: this.req, upstream: this.#key, attempts: this.attempts }))
  }

  #tell(call: () => void): void {
    if (this.#context === undefined) call()
    else this.#context.runInAsyncScope(call)
  }
}

const nothing = () => undefined

function write(response: ServerResponse, status: number, statusText: string, fields: string[]): void {
  // With fields that the application has set, Node keeps of several of one name the last one only.
  const rest = response.getHeaderNames().length === 0 ? fields : set(response, fields)
  try {
    response.writeHead(status, statusText, rest)
  } catch {
    // Node's parser takes a reason phrase that its writer refuses.
    response.statusMessage = ''
    response.writeHead(status, rest)
  }
}

/** Puts fields in the place of those of the same name; returns what is left to be written: nothing. */
function set(response: ServerResponse, fields: readonly string[]): string[] {
  const names = new Set<string>()
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!.toLowerCase()
    if (names.has(name)) response.appendHeader(name, fields[i + 1]!)
    else response.setHeader(name, fields[i + 1]!)
    names.add(name)
  }
  return []
}
