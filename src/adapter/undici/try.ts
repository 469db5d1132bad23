/** One attempt: what undici calls as it goes on, and what that comes to. */
import type { Duplex } from 'node:stream'
import { systemClock } from '../../clock.js'
import { parseRetryAfter, retryAfterOf, verdictOf, type RetryVerdict } from '../../health/outcome.js'
import type { Attempt } from '../../upstream/attempt.js'
import type { Peer } from '../../upstream/peer.js'
import type { PickHandle } from '../../upstream/pick.js'
import { finalVerdict } from '../http.js'
import type { Connection } from './connections.js'
import type { Abort, RawHandler } from './raw-handler.js'

/** Bytes of an answer that nobody wants that are cheaper to read, for the connection's sake, than to close it. */
const WORTH_READING = 65_536

/** What undici says of a request that nobody could send, and of an answer beyond the caller's own limit. */
const CALLERS_FAULT = new Set<unknown>([
  'UND_ERR_INVALID_ARG',
  'UND_ERR_NOT_SUPPORTED',
  'UND_ERR_REQ_CONTENT_LENGTH_MISMATCH',
  'UND_ERR_RES_EXCEEDED_MAX_SIZE',
])

/** How a connection ends that the peer closes. */
const CLOSED = new Set<unknown>(['UND_ERR_SOCKET', 'ECONNRESET', 'EPIPE'])

/** What an attempt needs of the exchange it belongs to. */
export interface TryOwner {
  readonly setup: { readonly retryStatuses: ReadonlySet<number> }
  /** Whether a peer that may have seen the request may be followed by another one. */
  readonly repeatable: boolean
  /** Whether an answer of the peer's may be thrown away for another peer's. */
  readonly mayRefuse: boolean
  /** Whether every attempt is to be noted, not only those that came to nothing. */
  readonly notes: boolean
  /** Whether it has failed through what the caller gave or did: nobody is to blame. */
  callersFault: boolean
  launch(attempt: Try, again: boolean): void
  /** What the failure of an attempt whose answer nobody has seen means. */
  verdictOf(attempt: Try): RetryVerdict
  /** What the upstream's `statuses` make of an HTTP status. */
  judge(status: number): RetryVerdict
  /** Whether a failure of this attempt would be followed by another one. Yes takes the leave of the retry budget. */
  canRetry(attempt: Try): boolean
  /** An answer has begun that the caller gets. */
  commit(): void
  note(attempt: Attempt): void
  /** Its answer is thrown away. */
  refuse(attempt: Try): void
  /** What comes after an attempt that has come to nothing. */
  goOn(attempt: Try, verdict: RetryVerdict, error: Error): void
  complete(trailers: readonly Buffer[]): void
  switchTo(status: number, headers: readonly Buffer[], socket: Duplex): void
  /** It is over; with an error the caller is told, who may know already. */
  finish(error?: Error): void
  onConnected(): void
  onAnswering(): void
  onInformation(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown
  onHead(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown
  onBody(chunk: Buffer): unknown
  onSent(chunk: unknown): void
  onAllSent(): void
}

export class Try implements RawHandler {
  readonly pick: PickHandle
  readonly number: number
  /** What it goes over, if that is ours. */
  connection: Connection | undefined = undefined
  /** Whether its connection stands: from then on the peer may have seen the request. */
  connected = false
  over = false
  readonly #exchange: TryOwner
  readonly #begun = systemClock.now()
  #abort: Abort | undefined = undefined
  /** Whether its connection had carried another request before. */
  #kept = false
  /** Whether its answer goes to the caller. */
  #wanted = false
  #status = 0
  #retryAfter = 0
  /** Bytes of an answer that nobody wants. */
  #unwanted = 0

  constructor(exchange: TryOwner, pick: PickHandle, number: number) {
    this.#exchange = exchange
    this.pick = pick
    this.number = number
  }

  get peer(): Peer {
    return this.pick.peer
  }

  /** It is over, and what is left of the request is torn down. First call counts. */
  cut(verdict: RetryVerdict, error: Error): void {
    if (this.over) return
    this.#end(verdict, error)
    if (this.#abort !== undefined) this.#abort(error)
    else this.connection?.discard()
  }

  /** It has failed; what that means depends, mostly, on how far it had come. */
  fail(error: Error, verdict = this.#exchange.verdictOf(this)): void {
    if (this.over) return
    this.cut(verdict, error)
    this.#exchange.goOn(this, verdict, error)
  }

  /** What is left of its answer is not waited for. */
  stopReading(): void {
    this.#abort?.()
  }

  onConnect(abort: Abort): void {
    this.#abort = abort
    // It was cut while the connection was being made, by somebody else's agent.
    if (this.over) return abort()
    this.connected = true
    this.#kept = this.connection?.fresh === false
    this.#exchange.onConnected()
  }

  onResponseStarted(): void {
    if (!this.over) this.#exchange.onAnswering()
  }

  onHeaders(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown {
    if (this.over) return true
    const exchange = this.#exchange
    if (status < 200) return exchange.onInformation(status, headers, resume, statusText)
    this.#status = status
    if (status === 429 || status === 503) this.#retryAfter = retryAfterIn(headers)
    const verdict = exchange.judge(status)
    const asksOthers = verdict === 'next' || exchange.setup.retryStatuses.has(status)
    if (asksOthers && exchange.mayRefuse && exchange.canRetry(this)) {
      const means = verdict === 'next' ? 'next' : 'failed'
      const error = new Error(`status ${status}`)
      this.#end(means, error)
      exchange.refuse(this)
      exchange.goOn(this, means, error)
      return true
    }
    this.#want(status)
    try {
      return exchange.onHead(status, headers, resume, statusText)
    } catch (error) {
      exchange.callersFault = true
      throw error
    }
  }

  onData(chunk: Buffer): unknown {
    if (!this.#wanted || this.over) {
      this.#unwanted += chunk.length
      if (this.#unwanted > WORTH_READING) this.#abort?.()
      return true
    }
    try {
      return this.#exchange.onBody(chunk)
    } catch (error) {
      this.#exchange.callersFault = true
      throw error
    }
  }

  onComplete(trailers: readonly Buffer[]): void {
    this.#abort = undefined
    this.connection?.release()
    if (this.#wanted) this.#complete(trailers)
  }

  onUpgrade(status: number, headers: readonly Buffer[], socket: Duplex): void {
    this.connection?.handOver()
    if (this.over) return void socket.destroy()
    this.#status = status
    this.#want(status)
    socket.once('close', () => {
      if (this.over) return
      this.#end(finalVerdict(this.#exchange.judge(status)))
      this.#exchange.finish()
    })
    this.#exchange.switchTo(status, headers, socket)
  }

  onError(error: Error): void {
    const exchange = this.#exchange
    exchange.callersFault ||= CALLERS_FAULT.has(codeOf(error))
    if (exchange.callersFault && !this.connected) this.connection?.giveBack()
    else this.connection?.discard()
    if (this.over) return
    // undici waits for the body that the length of a 304 speaks of, and that would come with a 200.
    if (this.#wanted && this.#status === 304 && codeOf(error) === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH') {
      return this.#complete([])
    }
    if (exchange.callersFault || this.#wanted) {
      this.#end(exchange.callersFault ? 'neutral' : 'stop', error)
      return exchange.finish(error)
    }
    // The peer closed a kept connection just when it was used again: no failure of the peer, so it is asked once more, over
    // a new connection.
    if (!this.#kept || !exchange.repeatable || !CLOSED.has(codeOf(error))) return this.fail(error)
    this.#abort = undefined
    this.connected = this.#kept = false
    this.connection?.home.closeIdle()
    exchange.launch(this, true)
  }

  onBodySent(chunk: unknown): void {
    this.#exchange.onSent(chunk)
  }

  onRequestSent(): void {
    this.#exchange.onAllSent()
  }

  #want(status: number): void {
    this.#wanted = true
    this.#exchange.commit()
    this.pick.answered(status)
  }

  #complete(trailers: readonly Buffer[]): void {
    this.#end(finalVerdict(this.#exchange.judge(this.#status)))
    this.#exchange.complete(trailers)
    this.#exchange.finish()
  }

  /** It is over for the balancer. */
  #end(verdict: RetryVerdict, error?: Error): void {
    this.over = true
    const status = this.#status
    const answer = { status, retryAfter: this.#retryAfter }
    this.pick.end(verdictOf(verdict), status, this.#retryAfter > 0 ? retryAfterOf(answer, systemClock) : 0)
    if (verdict === 'ok' && !this.#exchange.notes) return
    const ms = systemClock.now() - this.#begun
    const attempt: Attempt = { peer: this.peer, ms, verdict, status, error: error ?? errorOf(verdict, status) }
    this.#exchange.note(attempt)
  }
}

function errorOf(verdict: RetryVerdict, status: number): Error | undefined {
  return verdict === 'ok' ? undefined : new Error(`status ${status}`)
}

function codeOf(error: Error): unknown {
  return (error as { code?: unknown }).code
}

/** Milliseconds; 0 if the fields say nothing of it. */
function retryAfterIn(headers: readonly Buffer[]): number {
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i]!.toString('latin1').toLowerCase() !== 'retry-after') continue
    return parseRetryAfter(headers[i + 1]!.toString('latin1'), systemClock.wallTime())
  }
  return 0
}
