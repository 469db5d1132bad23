/** One proxied request. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { Exchange, type ExchangeSetup } from './exchange.js'
import { hasBody, isIdempotent, ReplayBody } from './http.js'

/** What is cheaper to read to its end, for the connection's sake, than to close the connection for. */
const WORTH_READING = 65_536

export class WebExchange extends Exchange {
  readonly #res: ServerResponse
  readonly #hasBody: boolean
  #body: ReplayBody | undefined

  constructor(setup: ExchangeSetup, req: IncomingMessage, res: ServerResponse) {
    super(setup, req, res)
    this.#res = res
    this.#hasBody = hasBody(req)
    res.once('close', () => {
      if (!res.writableFinished) this.clientGone()
    })
  }

  protected override get replayable(): boolean {
    return !this.#hasBody || this.#body?.replayable === true
  }

  protected override send(options: object, onError: (error: Error) => void, first: boolean): unknown {
    const { proxy, bodyLimit } = this.setup
    // Kept only if there may be another attempt; a body that nobody kept cannot get one.
    if (first && this.#hasBody && this.attempt?.context.canRetry() === true)
      this.#body = new ReplayBody(this.req, bodyLimit)
    const buffer = this.#body?.stream() ?? (first ? undefined : Readable.from([]))
    return proxy.web(this.req, this.#res, buffer === undefined ? options : { ...options, buffer }, onError)
  }

  /** The peer has answered: the client gets it, or the next peer is asked. */
  onResponse(proxyRes: IncomingMessage): void {
    const { attempt } = this
    if (attempt === undefined || attempt.over) return
    const status = proxyRes.statusCode ?? 0
    const verdict = attempt.context.judge(status)
    const next = verdict === 'next' || this.setup.retryStatuses.has(status)
    if (next && this.replayable && isIdempotent(this.req.method) && attempt.context.canRetry()) {
      return dropAnswer(proxyRes, this.#res, () => {
        attempt.settle(verdict === 'next' ? 'next' : 'failed', status, new Error(`status ${status}`))
      })
    }
    this.#body?.release()
    this.commit(status)
    proxyRes.once('close', () => {
      if (proxyRes.complete) return attempt.settle(verdict === 'failed' ? 'stop' : verdict, status)
      attempt.abort(this.gone ? 'neutral' : 'stop', new Error('the answer broke off'))
      // Without this the client would wait for the rest for ever.
      this.#res.destroy()
    })
  }

  protected override end(): void {
    this.#body?.end()
  }
}

/**
 * Keeps an answer from the client. The proxy, which has just told of it, goes on to write its head to `res` and to pipe its
 * body there, both within this tick: `res` is deaf that long.
 */
function dropAnswer(proxyRes: IncomingMessage, res: ServerResponse, then: () => void): void {
  const { statusCode, statusMessage } = res
  const nothing = () => res
  const deaf = { setHeader: nothing, appendHeader: nothing, removeHeader: nothing, writeHead: nothing }
  Object.assign(res, deaf, { flushHeaders: nothing, write: () => true, end: nothing })
  process.nextTick(() => {
    for (const method of [...Object.keys(deaf), 'flushHeaders', 'write', 'end']) Reflect.deleteProperty(res, method)
    Object.assign(res, { statusCode, statusMessage })
    proxyRes.unpipe(res)
    proxyRes.removeAllListeners()
    proxyRes.on('error', () => undefined)
    if (Number(proxyRes.headers['content-length']) <= WORTH_READING) proxyRes.resume()
    else proxyRes.destroy()
    then()
  })
}
