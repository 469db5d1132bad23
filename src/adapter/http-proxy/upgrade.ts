/** One proxied upgrade, as of a WebSocket. */
import type { ClientRequest, IncomingMessage } from 'node:http'
import type { Duplex } from 'node:stream'
import type { ClientConnection } from '../clients.js'
import { failedUpgrade } from '../http.js'
import type { ProxyFailure } from '../options.js'
import { ProxiedExchange, type BalancedSetup } from './exchange.js'
import type { ProxiedTry } from './try.js'

export class UpgradeExchange extends ProxiedExchange {
  override readonly replayable = true
  protected override readonly response: Duplex
  readonly #head: Buffer
  #switched = false
  /** Until the peer has answered nobody reads the socket, and only who reads learns that the client has gone. */
  readonly #onReadable = () => {
    if (this.response.readableLength === 0) this.response.read()
  }
  readonly #onEnd = () => this.response.destroy()

  constructor(setup: BalancedSetup, req: IncomingMessage, socket: Duplex, head: Buffer, client: ClientConnection) {
    super(setup, req, client)
    this.response = socket
    this.#head = head
    // The http server has taken its own listener away; what happens to the client is told by 'close'.
    socket.on('error', () => undefined)
    socket.on('readable', this.#onReadable)
    socket.once('end', this.#onEnd)
  }

  /** Who refuses an upgrade has mostly something to say to the client. */
  override get mayRefuse(): boolean {
    return false
  }

  override clientGone(): void {
    if (this.#switched) this.attempt!.complete()
    else super.clientGone()
  }

  override commit(): void {
    this.response.off('readable', this.#onReadable)
    this.response.off('end', this.#onEnd)
    super.commit()
  }

  /** Both sides may be silent for as long as they like; before that, the client has nothing to say. */
  override clientIsSlow(): boolean {
    return this.committed
  }

  protected override send(options: object, onError: (error: unknown) => void, first: boolean): unknown {
    const { proxy } = this.setup
    const socket = this.response
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

  override onRequest(attempt: ProxiedTry, request: ClientRequest): void {
    request.once('upgrade', () => {
      this.#switched = true
      attempt.switched()
    })
    request.once('response', (answer: IncomingMessage) => {
      if (attempt.over) return
      attempt.takes(answer)
      answer.once('close', () => (answer.complete ? attempt.complete() : attempt.brokenOff()))
    })
  }

  protected override answerFailure({ status }: ProxyFailure): void {
    this.response.end(failedUpgrade(status))
  }
}
