/** One proxied request. */
import type { ClientRequest, IncomingMessage, ServerResponse } from 'node:http'
import type { Duplex } from 'node:stream'
import { Readable } from 'node:stream'
import { Exchange, type ExchangeSetup } from './exchange.js'
import { finalVerdict, hasBody, isIdempotent, ReplayBody, retryAfter } from './http.js'

/** Bytes that are cheaper to read to their end, for the connection's sake, than to close the connection for. */
const WORTH_READING = 65_536

export class WebExchange extends Exchange {
  readonly #res: ServerResponse
  readonly #hasBody: boolean
  #body: ReplayBody | undefined
  #answer: IncomingMessage | undefined
  readonly #dropped: IncomingMessage[] = []

  constructor(setup: ExchangeSetup, req: IncomingMessage, res: ServerResponse) {
    super(setup, req, res)
    this.#res = res
    this.#hasBody = hasBody(req)
  }

  protected override get replayable(): boolean {
    return !this.#hasBody || this.#body?.replayable === true
  }

  protected override get answeredElsewhere(): boolean {
    return this.#res.headersSent
  }

  protected override clientIsSlow(request: ClientRequest): boolean {
    if (this.#answer !== undefined) return this.#answer.readableLength > 0 || this.#res.writableNeedDrain
    return !request.writableEnded && request.writableLength === 0 && request.socket?.writableLength === 0
  }

  protected override send(options: object, onError: (error: Error) => void, first: boolean): unknown {
    const { proxy, bodyLimit } = this.setup
    // Kept only if there may be another attempt; a body that nobody kept cannot get one.
    if (first && this.#hasBody && this.attempt?.context.last === false) this.#body = new ReplayBody(this.req, bodyLimit)
    const buffer = this.#body?.stream() ?? (first ? undefined : Readable.from([]))
    const all = buffer === undefined ? options : { ...options, buffer }
    const noted = this.noteListeners()
    const sent = proxy.web(this.req, this.#res, all, onError)
    noted()
    return sent
  }

  protected override onRequest(request: ClientRequest): void {
    const { attempt } = this
    request.once('upgrade', (_answer: IncomingMessage, socket: Duplex) => {
      socket.destroy()
      attempt?.fail(new Error('the peer switched protocols unasked'))
    })
  }

  /** The peer has answered: the client gets it, or the next peer is asked. */
  onResponse(proxyRes: IncomingMessage): void {
    const { attempt } = this
    if (attempt === undefined || attempt.over) return
    // Node's parser takes a reason phrase that its writer refuses, by a throw that nobody would catch.
    if (INVALID.test(proxyRes.statusMessage ?? '')) proxyRes.statusMessage = ''
    const status = proxyRes.statusCode ?? 0
    const verdict = attempt.context.judge(status)
    const answer = { status, retryAfter: retryAfter(proxyRes) }
    const isBusy = status === 429 && answer.retryAfter > 0
    const next = verdict === 'next' || isBusy || this.setup.retryStatuses.has(status)
    if (next && this.replayable && isIdempotent(this.req.method) && attempt.context.canRetry()) {
      this.#dropped.push(proxyRes)
      return dropAnswer(proxyRes, this.#res, () => {
        attempt.settle(verdict === 'next' || isBusy ? 'next' : 'failed', answer)
      })
    }
    this.#answer = proxyRes
    this.#body?.release()
    this.commit(status)
    proxyRes.once('close', () => {
      if (proxyRes.complete) {
        // A peer that has answered before it had the whole body is not kept waiting for the rest.
        if (attempt.request?.writableFinished === false) attempt.request.destroy()
        return attempt.settle(finalVerdict(verdict), answer)
      }
      attempt.abort(this.gone ? 'neutral' : 'stop', new Error('the answer broke off'))
      // Without this the client would wait for the rest for ever.
      this.#res.destroy()
    })
  }

  protected override end(): void {
    super.end()
    this.#body?.end()
    for (const answer of this.#dropped) if (!answer.complete) answer.destroy()
    // What nobody has read of the body would block the client's connection.
    if (this.#hasBody && this.#body === undefined) this.req.unpipe().resume()
  }
}

/** What may not stand in a head: all but tab, visible ASCII and the upper half of Latin-1 (RFC 9110, 5.5). */
const INVALID = /[^\t\x20-\x7e\x80-\xff]/

const WRITING = ['setHeader', 'appendHeader', 'removeHeader', 'writeHead', 'flushHeaders', 'write', 'end'] as const

/**
 * Keeps an answer from the client. The proxy, which has just told of it, goes on to write its head to `res` and to pipe its
 * body there, both within this tick: `res` is deaf that long.
 */
function dropAnswer(proxyRes: IncomingMessage, res: ServerResponse, then: () => void): void {
  const { statusCode, statusMessage } = res
  const own = WRITING.map((method) => Object.getOwnPropertyDescriptor(res, method))
  const heard = DROPPED.map((event) => proxyRes.listenerCount(event))
  for (const method of WRITING) Object.assign(res, { [method]: () => (method === 'write' ? true : res) })
  process.nextTick(() => {
    WRITING.forEach((method, i) => {
      Reflect.deleteProperty(res, method)
      if (own[i] !== undefined) Object.defineProperty(res, method, own[i])
    })
    Object.assign(res, { statusCode, statusMessage })
    proxyRes.unpipe(res)
    DROPPED.forEach((event, i) => {
      for (const listener of proxyRes.listeners(event).slice(heard[i])) proxyRes.off(event, listener as () => void)
    })
    readOut(proxyRes)
    then()
  })
}

/** What the proxy and the application listen to of an answer, where it does not concern them any more. */
const DROPPED = ['close', 'error', 'aborted', 'end'] as const

/** Reads an answer to its end if that is near, so that its connection can be used again. */
function readOut(answer: IncomingMessage): void {
  let length = 0
  answer.on('error', () => undefined)
  answer.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length > WORTH_READING) answer.destroy()
  })
  answer.resume()
}
