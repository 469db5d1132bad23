/** One attempt: what undici calls as it goes on, and what that comes to. */
import type { Duplex } from 'node:stream'
import { systemClock } from '../../clock.js'
import { parseRetryAfter } from '../../health/outcome.js'
import type { PickHandle } from '../../upstream/pick.js'
import { finalVerdict } from '../http.js'
import { Try, type TryOwner } from '../try.js'
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

/** What an attempt needs of the exchange it belongs to, beside what every attempt does. */
export interface UndiciTryOwner extends TryOwner {
  /** Whether a peer that may have seen the request may be followed by another one. */
  readonly repeatable: boolean
  /** Whether it has failed through what the caller gave or did: nobody is to blame. */
  callersFault: boolean
  launch(attempt: UndiciTry, again: boolean): void
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

export class UndiciTry extends Try implements RawHandler {
  /** What it goes over, if that is ours. */
  connection: Connection | undefined = undefined
  connected = false
  protected override readonly exchange: UndiciTryOwner
  #abort: Abort | undefined = undefined
  /** Whether its connection had carried another request before. */
  #kept = false
  /** Whether its answer goes to the caller. */
  #wanted = false
  /** Bytes of an answer that nobody wants. */
  #unwanted = 0

  constructor(exchange: UndiciTryOwner, pick: PickHandle, number: number) {
    super(pick, number)
    this.exchange = exchange
  }

  protected override tearDown(error: Error): void {
    if (this.#abort !== undefined) this.#abort(error)
    else this.connection?.discard()
  }

  override stopReading(): void {
    this.#abort?.()
  }

  onConnect(abort: Abort): void {
    this.#abort = abort
    // It was cut while the connection was being made, by somebody else's agent.
    if (this.over) return abort()
    this.connected = true
    this.#kept = this.connection?.fresh === false
    this.exchange.onConnected()
  }

  onResponseStarted(): void {
    if (!this.over) this.exchange.onAnswering()
  }

  onHeaders(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown {
    if (this.over) return true
    const exchange = this.exchange
    if (status < 200) return exchange.onInformation(status, headers, resume, statusText)
    this.#wanted = this.accepts(status, status === 429 || status === 503 ? retryAfterIn(headers) : 0)
    if (!this.#wanted) {
      this.refuse()
      return true
    }
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
      return this.exchange.onBody(chunk)
    } catch (error) {
      this.exchange.callersFault = true
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
    this.status = status
    this.#wanted = true
    this.exchange.commit()
    this.pick.answered(status)
    socket.once('close', () => {
      if (this.over) return
      this.end(finalVerdict(this.exchange.judge(status)))
      this.exchange.finish()
    })
    this.exchange.switchTo(status, headers, socket)
  }

  onError(error: Error): void {
    const exchange = this.exchange
    exchange.callersFault ||= CALLERS_FAULT.has(codeOf(error))
    if (exchange.callersFault && !this.connected) this.connection?.giveBack()
    else this.connection?.discard()
    if (this.over) return
    // undici waits for the body that the length of a 304 speaks of, and that would come with a 200.
    if (this.#wanted && this.status === 304 && codeOf(error) === 'UND_ERR_RES_CONTENT_LENGTH_MISMATCH') {
      return this.#complete([])
    }
    if (exchange.callersFault || this.#wanted) {
      this.end(exchange.callersFault ? 'neutral' : 'stop', error)
      return exchange.finish(error)
    }
    // The peer closed a kept connection just when it was used again: no failure of the peer, so it is asked once more, over
    // a new connection.
    if (!this.#kept || !exchange.repeatable || !CLOSED.has(codeOf(error))) return this.fail(error)
    this.#abort = undefined
    this.connected = this.#kept = false
    this.connection?.home.closeIdle()
    try {
      exchange.launch(this, true)
    } catch (thrown) {
      this.fail(thrown as Error)
    }
  }

  onBodySent(chunk: unknown): void {
    this.exchange.onSent(chunk)
  }

  onRequestSent(): void {
    this.exchange.onAllSent()
  }

  #complete(trailers: readonly Buffer[]): void {
    this.end(finalVerdict(this.exchange.judge(this.status)))
    this.exchange.complete(trailers)
    this.exchange.finish()
  }
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
