/** One attempt over the proxy: its request, and the answer to it. */
import type { ClientRequest, IncomingMessage } from 'node:http'
import { CheckupsError } from '../../errors.js'
import type { PickHandle } from '../../upstream/pick.js'
import { hasStood, type PeerAgent, type RequestUser } from '../agent.js'
import { finalVerdict, retryAfter } from '../http.js'
import { Try, type TryOwner } from '../try.js'

/** What an attempt needs of the exchange it belongs to, beside what every attempt does. */
export interface ProxiedTryOwner extends TryOwner {
  /** Whether it has failed through what the caller gave or did: nobody is to blame. */
  readonly callersFault: boolean
  launch(attempt: ProxiedTry, again: boolean): void
  /** The request has been made; its connection may not stand yet. */
  onRequest(attempt: ProxiedTry, request: ClientRequest): void
  /** Whether a silence of so many milliseconds is the client's: it has sent or taken nothing for some of it. */
  clientIsSlow(request: ClientRequest, ms: number): boolean
  complete(): void
  /** It is over; with an error the caller is told, who may know already. */
  finish(error?: Error): void
}

export class ProxiedTry extends Try implements RequestUser {
  request: ClientRequest | undefined = undefined
  /** Whose connections it goes over. */
  agent: PeerAgent | undefined = undefined
  protected override readonly exchange: ProxiedTryOwner
  #answer: IncomingMessage | undefined = undefined
  #launches = 0

  constructor(exchange: ProxiedTryOwner, pick: PickHandle, number: number) {
    super(pick, number)
    this.exchange = exchange
  }

  override get connected(): boolean {
    return this.request !== undefined && hasStood(this.request)
  }

  /** What the proxy is to call if the request fails that it is about to make. */
  errorListener(): (error: unknown) => void {
    this.request = undefined
    const launch = ++this.#launches
    return (error) => {
      if (launch === this.#launches) this.onError(error instanceof Error ? error : new Error(String(error)))
    }
  }

  onRequest(request: ClientRequest): void {
    this.request = request
    this.exchange.onRequest(this, request)
  }

  onSilence(request: ClientRequest, ms: number): boolean {
    if (this.exchange.clientIsSlow(request, ms)) return true
    this.fail(new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', 'the peer was silent for too long'))
    return false
  }

  override onError(error: Error): void {
    if (this.over) return
    const { exchange } = this
    if (exchange.callersFault) {
      this.cut('neutral', error)
      return exchange.finish(error)
    }
    // The peer closed a kept connection just when it was used again: no failure of the peer, so it is asked once more, over
    // a new connection.
    const wasKept = this.request?.reusedSocket === true
    if (!wasKept || exchange.verdictOf(this) !== 'failed') return this.fail(error)
    try {
      exchange.launch(this, true)
    } catch (thrown) {
      this.fail(thrown as Error)
    }
  }

  /** The peer has answered. Whether the client gets it. */
  takes(answer: IncomingMessage): boolean {
    const { statusCode: status = 0 } = answer
    this.#answer = answer
    return this.accepts(status, status === 429 || status === 503 ? retryAfter(answer) : 0)
  }

  /** The connection is the client's. */
  switched(): void {
    this.accepts(101, 0)
  }

  override refuse(): void {
    super.refuse()
  }

  /** All of the answer was there, or all that will ever be said has been. */
  complete(): void {
    if (this.over) return
    this.end(finalVerdict(this.exchange.judge(this.status)))
    this.exchange.complete()
  }

  /** The peer has not said all of it. */
  brokenOff(): void {
    if (this.over) return
    const error = new Error('the answer broke off')
    this.cut('stop', error)
    this.exchange.finish(error)
  }

  override stopReading(): void {
    if (this.#answer?.complete === false) this.#answer.destroy()
  }

  protected override tearDown(): void {
    this.request?.destroy()
  }
}
