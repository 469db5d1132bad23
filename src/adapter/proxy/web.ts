/** One proxied request. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex, Readable } from 'node:stream'
import type { Dispatcher } from 'undici'
import type { ClientConnection } from '../clients.js'
import { answerFailure, ReplayBody } from '../http.js'
import type { ProxyFailure } from '../options.js'
import { ProxiedExchange, type ProxySetup } from './exchange.js'
import { mayBeTrailer } from './fields.js'
import type { RequestHead } from './request-head.js'

export class WebRequest extends ProxiedExchange {
  protected override readonly response: ServerResponse
  /** Whether the client waits to be told so before it sends the body. */
  #awaitsContinue: boolean
  #body: ReplayBody | undefined = undefined

  constructor(
    setup: ProxySetup,
    req: IncomingMessage,
    res: ServerResponse,
    head: RequestHead,
    client: ClientConnection,
    awaitsContinue: boolean,
  ) {
    super(setup, req, head, client)
    this.response = res
    this.#awaitsContinue = awaitsContinue
  }

  override get replayable(): boolean {
    // What something else has answered meanwhile, as a time limit of the application's, is asked of nobody any more.
    return !this.response.headersSent && this.#body?.replayable !== false
  }

  protected override bodyFor(): Dispatcher.DispatchOptions['body'] {
    if (!this.head.hasBody) return null
    // What may not be repeated once a peer has seen some of it need not be kept.
    this.#body ??= new ReplayBody(this.req, this.idempotent ? this.setup.bodyLimit : 0)
    const stream = this.#body.stream().on('error', () => undefined)
    return this.head.trailers === undefined ? stream : ofUnknownLength(stream)
  }

  override onConnected(): void {
    if (!this.head.hasBody) return
    if (this.#awaitsContinue) this.response.writeContinue()
    this.#awaitsContinue = false
    if (this.head.trailers !== undefined) this.attempt?.connection?.sendTrailers(() => this.#trailers())
  }

  override onHead(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown {
    this.#body?.release()
    return super.onHead(status, headers, resume, statusText)
  }

  /** Never: undici takes an answer that nobody has asked for to be a failure. */
  protected override onSwitch(_status: number, _headers: readonly Buffer[], socket: Duplex): void {
    socket.destroy()
  }

  protected override answerFailure(failure: ProxyFailure): void {
    const { response } = this
    if (!response.headersSent) void answerFailure(failure, response, this.setup.options.onFailure)
  }

  protected override onFinished(): void {
    this.#body?.end()
    super.onFinished()
  }

  /** Those that were announced. */
  #trailers(): string {
    const { rawTrailers } = this.req
    let lines = ''
    for (let i = 0; i < rawTrailers.length; i += 2) {
      const name = rawTrailers[i]!
      const announced = this.head.trailers?.has(name.toLowerCase()) === true
      if (announced && mayBeTrailer(name)) lines += `${name}: ${rawTrailers[i + 1]!}\r\n`
    }
    return lines
  }
}

/** A body that has ended before it is sent would be sent with its length, and then has no trailers. */
function ofUnknownLength(stream: Readable): Dispatcher.DispatchOptions['body'] {
  return { [Symbol.asyncIterator]: () => stream[Symbol.asyncIterator]() } as Readable
}
