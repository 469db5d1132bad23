/** One proxied upgrade, as of a WebSocket. */
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import { Exchange, type ExchangeSetup } from './exchange.js'
import { finalVerdict } from './http.js'

export class UpgradeExchange extends Exchange {
  protected override readonly replayable = true
  readonly #socket: Duplex
  readonly #head: Buffer
  /** Until the peer has answered nobody reads the socket, and only who reads learns that the client has gone. */
  readonly #onReadable = () => {
    if (this.#socket.readableLength === 0) this.#socket.read()
  }
  readonly #onEnd = () => this.#socket.destroy()

  constructor(setup: ExchangeSetup, req: IncomingMessage, socket: Duplex, head: Buffer) {
    super(setup, req, socket)
    this.#socket = socket
    this.#head = head
    // The http server has taken its own listener away; what happens to the client is told by 'close'.
    socket.on('error', () => undefined)
    socket.on('readable', this.#onReadable)
    socket.once('end', this.#onEnd)
  }

  protected override clientGone(): void {
    if (this.committed) this.attempt?.settle('ok', { status: 101 })
    else super.clientGone()
  }

  protected override commit(status: number): void {
    this.#socket.off('readable', this.#onReadable)
    this.#socket.off('end', this.#onEnd)
    super.commit(status)
  }

  /** Both sides may be silent for as long as they like; before that, the client has nothing to say. */
  protected override clientIsSlow(): boolean {
    return this.committed
  }

  protected override send(options: object, onError: (error: Error) => void, first: boolean): unknown {
    const { proxy } = this.setup
    const socket = this.#socket
    // What came with the request's head goes back into the socket once, at the first attempt.
    const head = first ? this.#head : Buffer.alloc(0)
    const failed = (error: Error) => {
      if (this.committed) {
        onError(error)
        return
      }
      // The proxy ends the client's socket after this call; another attempt, or our answer, needs it.
      socket.end = () => socket
      const noted = this.noteListeners()
      process.nextTick(() => {
        noted()
        Reflect.deleteProperty(socket, 'end')
        onError(error)
      })
    }
    const noted = this.noteListeners()
    const sent = proxy.ws(this.req, socket, head, options, failed)
    noted()
    return sent
  }

  protected override onRequest(request: ClientRequest): void {
    const { attempt } = this
    request.once('upgrade', () => this.commit(101))
    request.once('response', (answer: IncomingMessage) => {
      const { statusCode: status = 0 } = answer
      const verdict = attempt?.context.judge(status) ?? 'failed'
      this.commit(status)
      answer.once('close', () => {
        if (answer.complete) return attempt?.settle(finalVerdict(verdict), { status })
        attempt?.abort('stop', new Error('the answer broke off'))
        this.#socket.destroy()
      })
    })
  }
}
