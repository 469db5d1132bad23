/** One proxied upgrade, as of a WebSocket. */
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { Exchange, type ExchangeSetup } from './exchange.js'

export class UpgradeExchange extends Exchange {
  protected override readonly replayable = true
  readonly #socket: Duplex
  readonly #head: Buffer

  constructor(setup: ExchangeSetup, req: IncomingMessage, socket: Duplex, head: Buffer) {
    super(setup, req, socket)
    this.#socket = socket
    this.#head = head
    // The http server has taken its own listener away; what happens to the client is told by 'close'.
    socket.on('error', () => undefined)
    socket.once('close', () => {
      if (this.committed) this.attempt?.settle('ok', 101)
      else this.clientGone()
    })
  }

  protected override send(options: object, onError: (error: Error) => void, first: boolean): unknown {
    const { proxy } = this.setup
    // What came with the request's head goes back into the socket once, at the first attempt.
    const head = first ? this.#head : Buffer.alloc(0)
    return proxy.ws(this.req, this.#socket, head, options, (error) => {
      if (this.committed) return onError(error)
      // The proxy ends the client's socket after this call; another attempt, or our answer, needs it.
      const socket = this.#socket
      socket.end = () => socket
      process.nextTick(() => {
        Reflect.deleteProperty(socket, 'end')
        onError(error)
      })
    })
  }

  protected override onRequest(request: ClientRequest): void {
    const { attempt } = this
    request.once('upgrade', () => this.commit(101))
    request.once('response', ({ statusCode = 0 }) => {
      this.commit(statusCode)
      const verdict = attempt?.context.judge(statusCode)
      attempt?.settle(verdict === undefined || verdict === 'failed' ? 'stop' : verdict, statusCode)
    })
  }
}
