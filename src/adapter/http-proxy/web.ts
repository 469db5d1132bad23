/** One proxied request. */
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import { Readable, type Duplex } from 'node:stream'
import { systemClock } from '../../clock.js'
import type { ClientConnection } from '../clients.js'
import { answerFailure, hasBody, ReplayBody } from '../http.js'
import type { ProxyFailure } from '../options.js'
import { dropAnswer } from './drop-answer.js'
import { ProxiedExchange, type BalancedSetup } from './exchange.js'
import type { ProxiedTry } from './try.js'

export class WebExchange extends ProxiedExchange {
  protected override readonly response: ServerResponse
  readonly #hasBody: boolean
  #body: ReplayBody | undefined = undefined
  #answer: IncomingMessage | undefined = undefined

  constructor(setup: BalancedSetup, req: IncomingMessage, res: ServerResponse, client: ClientConnection) {
    super(setup, req, client)
    this.response = res
    this.#hasBody = hasBody(req)
  }

  override get replayable(): boolean {
    // What something else has answered meanwhile, as a time limit of the application's, is asked of nobody any more.
    return !this.response.headersSent && (!this.#hasBody || this.#body?.replayable === true)
  }

  override clientIsSlow(request: ClientRequest, ms: number): boolean {
    if (this.#answer !== undefined) {
      // One that has just taken the last of it was slow until now: the peer has had no chance yet to send more.
      const waits = this.#answer.readableLength > 0 || this.response.writableNeedDrain
      return waits || systemClock.now() - this.client.tookAt < ms
    }
    return !request.writableEnded && request.writableLength === 0 && request.socket?.writableLength === 0
  }

  protected override send(options: object, onError: (error: unknown) => void, first: boolean): unknown {
    const { proxy, bodyLimit } = this.setup
    // Kept only if there may be another attempt; a body that nobody kept cannot get one.
    if (first && this.#hasBody && !this.isLast(this.attempt!)) this.#body = new ReplayBody(this.req, bodyLimit)
    const buffer = this.#body?.stream() ?? (first ? undefined : Readable.from([]))
    const all = buffer === undefined ? options : { ...options, buffer }
    // What is listened to for a first attempt does no harm to a second, and noting it would double what most requests cost.
    if (first) return proxy.web(this.req, this.response, all, onError)
    const noted = this.noteListeners()
    const sent = proxy.web(this.req, this.response, all, onError)
    noted()
    return sent
  }

  override onRequest(attempt: ProxiedTry, request: ClientRequest): void {
    // Before the proxy, which will listen to it too.
    request.on('response', (answer: IncomingMessage) => this.#onResponse(attempt, answer))
    request.on('upgrade', (_answer: IncomingMessage, socket: Duplex) => {
      socket.destroy()
      attempt.fail(new Error('the peer switched protocols unasked'))
    })
  }

  /** The peer has answered: the client gets it, or the next peer is asked. */
  #onResponse(attempt: ProxiedTry, answer: IncomingMessage): void {
    if (attempt.over) return
    // Node's parser takes a reason phrase that its writer refuses, by a throw that nobody would catch.
    if (INVALID.test(answer.statusMessage ?? '')) answer.statusMessage = ''
    if (!attempt.takes(answer)) return dropAnswer(answer, this.response, () => attempt.refuse())
    this.#answer = answer
    this.#body?.release()
    answer.on('close', () => {
      if (!answer.complete) return attempt.brokenOff()
      // A peer that has answered before it had the whole body is not kept waiting for the rest.
      if (attempt.request?.writableFinished === false) attempt.request.destroy()
      attempt.complete()
    })
  }

  protected override answerFailure(failure: ProxyFailure): void {
    const { response } = this
    if (!response.headersSent) void answerFailure(failure, response, this.setup.options.onFailure)
  }

  protected override onFinished(): void {
    super.onFinished()
    this.#body?.end()
    // What nobody has read of the body would block the client's connection.
    if (this.#hasBody && this.#body === undefined) this.req.unpipe().resume()
  }
}

/** What may not stand in a head: all but tab, visible ASCII and the upper half of Latin-1 (RFC 9110, 5.5). */
const INVALID = /[^\t\x20-\x7e\x80-\xff]/
