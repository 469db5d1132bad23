/** One request and its attempts over undici: what each of them comes to, and what the caller hears of it. */
import type { Duplex } from 'node:stream'
import type { Checkups } from '../../checkups.js'
import { systemClock } from '../../clock.js'
import { parseRetryAfter, type HasStatus, type RetryVerdict } from '../../health/outcome.js'
import type { Attempt, AttemptContext } from '../../upstream/attempt.js'
import type { Peer } from '../../upstream/peer.js'
import type { Backoff } from '../../upstream/backoff.js'
import type { SelectOptions } from '../../upstream/selection.js'
import { finalVerdict } from '../http.js'
import type { Connection, Connections } from './connections.js'
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

/** What all exchanges of one dispatcher or proxy share. */
export interface ExchangeSetup {
  readonly checkups: Checkups
  readonly connections: Connections
  readonly retryStatuses: ReadonlySet<number>
  readonly bodyLimit: number
  readonly tries: number | undefined
  readonly timeout: number | undefined
  readonly tryTimeout: number | undefined
  readonly backoff: Backoff | undefined
  /** Whether it limits the time of all its requests. */
  readonly limited: boolean
}

/** One attempt; what undici calls as it goes on. */
export class Try implements RawHandler {
  readonly context: AttemptContext
  readonly peer: Peer
  /** What it goes over, if that is ours. */
  connection: Connection | undefined = undefined
  /** Whether its connection stands: from then on the peer may have seen the request. */
  connected = false
  over = false
  readonly #exchange: Exchange
  readonly #resolve: (ended: HasStatus) => void
  readonly #reject: (error: Error) => void
  #abort: Abort | undefined = undefined
  /** Whether its connection had carried another request before. */
  #kept = false
  /** Whether its answer goes to the caller. */
  #wanted = false
  #status = 0
  #retryAfter: number | undefined = undefined
  /** Bytes of an answer that nobody wants. */
  #unwanted = 0

  constructor(
    exchange: Exchange,
    peer: Peer,
    context: AttemptContext,
    resolve: (ended: HasStatus) => void,
    reject: (error: Error) => void,
  ) {
    this.#exchange = exchange
    this.peer = peer
    this.context = context
    this.#resolve = resolve
    this.#reject = reject
  }

  /** It is over for the balancer; first call counts. */
  settle(verdict: RetryVerdict, error?: Error): void {
    if (this.over) return
    this.over = true
    this.#exchange.verdict = verdict
    if (error === undefined) this.#resolve({ status: this.#status, retryAfter: this.#retryAfter })
    else this.#reject(error)
  }

  /** {@link settle}, and what is left of the request is torn down. */
  cut(verdict: RetryVerdict, error: Error): void {
    if (this.over) return
    this.settle(verdict, error)
    if (this.#abort !== undefined) this.#abort(error)
    else this.connection?.discard()
  }

  /** What is left of its answer is not waited for. */
  stopReading(): void {
    this.#abort?.()
  }

  /** It has failed; what that means depends on how far it had come. */
  fail(error: Error): void {
    this.cut(this.#exchange.verdictOf(this), error)
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
    const verdict = this.context.judge(status)
    const goesOn = verdict === 'next' || exchange.setup.retryStatuses.has(status)
    if (goesOn && exchange.mayRefuse && this.context.canRetry()) {
      this.settle(verdict === 'next' ? 'next' : 'failed')
      exchange.refuse(this)
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
    if (!this.#wanted) return
    this.settle(finalVerdict(this.context.judge(this.#status)))
    this.#exchange.complete(trailers)
  }

  onUpgrade(status: number, headers: readonly Buffer[], socket: Duplex): void {
    this.connection?.handOver()
    if (this.over) return void socket.destroy()
    this.#status = status
    this.#want(status)
    socket.once('close', () => this.settle(finalVerdict(this.context.judge(status))))
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
      this.settle(finalVerdict(this.context.judge(304)))
      return exchange.complete([])
    }
    if (exchange.callersFault) {
      this.settle('neutral', error)
      return exchange.tell(error)
    }
    if (this.#wanted) {
      this.settle('stop', error)
      return exchange.tell(error)
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
    this.#wanted = this.#exchange.committed = true
    this.context.answered(status)
  }
}

export abstract class Exchange {
  readonly setup: ExchangeSetup
  readonly idempotent: boolean
  attempt: Try | undefined = undefined
  /** Of the last attempt that is over. */
  verdict: RetryVerdict = 'failed'
  /** Whether the caller is being answered: from then on there is no other attempt. */
  committed = false
  /** Whether the caller has gone away. */
  gone = false
  /** Whether it has failed through what the caller gave or did: nobody is to blame. */
  callersFault = false
  /** Where its attempts are to be written down. */
  protected attempts: Attempt[] | undefined = undefined
  /** Attempts whose answers were thrown away for others'. */
  #refused: Try[] | undefined = undefined
  /** Whether the caller has been told how it ended. */
  #told = false

  constructor(setup: ExchangeSetup, idempotent: boolean) {
    this.setup = setup
    this.idempotent = idempotent
  }

  /** Whether the request could be sent once more, as far as its body goes. */
  abstract readonly replayable: boolean
  /** Sends it to the attempt's peer, `again` over a new connection. */
  abstract launch(attempt: Try, again: boolean): void
  /** The answer that the caller gets has begun. */
  abstract onHead(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown
  /** A piece of it; false pauses it. */
  abstract onBody(chunk: Buffer): unknown
  /** It is complete. */
  protected abstract onEnd(trailers: readonly Buffer[]): void
  /** The connection is the caller's. */
  protected abstract onSwitch(status: number, headers: readonly Buffer[], socket: Duplex): void
  /** It has failed, before the head or after it. */
  protected abstract onFailed(error: Error): void

  /** The request is about to be written to a peer. */
  onConnected(): void {}
  /** The first byte of an answer is there. */
  onAnswering(): void {}
  /** An answer of status 1xx. */
  onInformation(_status: number, _headers: readonly Buffer[], _resume: () => void, _statusText: string): unknown {
    return true
  }
  /** A piece of the request's body was written. */
  onSent(_chunk: unknown): void {}
  /** All of the request was written. */
  onAllSent(): void {}
  /** There will be no further attempt, and the last one is over. */
  protected onFinished(): void {}

  /** Whether a peer that may have seen it may be followed by another one. */
  get repeatable(): boolean {
    return this.idempotent && this.replayable
  }

  /** Whether an answer of the peer's may be thrown away for another peer's. */
  get mayRefuse(): boolean {
    return this.repeatable
  }

  /** Begins. The caller is told everything by the methods above, never before this has returned. */
  run(key: string, hashKey: SelectOptions['hashKey'], clusterKey: SelectOptions['clusterKey']): void {
    const { checkups, tries, timeout, tryTimeout, backoff } = this.setup
    const { attempts } = this
    const isFailure = () => this.verdict
    const options = { hashKey, clusterKey, tries, timeout, tryTimeout, backoff, attempts, isFailure }
    checkups
      .readyOk<HasStatus>(key, (peer, context) => this.#try(peer, context), options)
      .then(
        () => this.#finish(),
        (error: unknown) => {
          this.tell(error as Error)
          this.#finish()
        },
      )
  }

  refuse(attempt: Try): void {
    ;(this.#refused ??= []).push(attempt)
  }

  /** The caller wants it no more. Harmless when it is over. */
  abort(reason: Error): void {
    if (this.gone || this.#told) return
    this.gone = true
    this.attempt?.cut('neutral', reason)
    this.tell(reason)
  }

  /** What the failure of an attempt whose answer nobody has seen means. */
  verdictOf(attempt: Try): RetryVerdict {
    if (this.gone) return 'neutral'
    if (this.committed || !this.replayable) return 'stop'
    return !attempt.connected || this.idempotent ? 'failed' : 'stop'
  }

  /** It has failed, unless it has ended before. */
  tell(error: Error): void {
    if (this.#told) return
    this.#told = true
    this.onFailed(error)
  }

  complete(trailers: readonly Buffer[]): void {
    if (this.#told) return
    this.#told = true
    this.onEnd(trailers)
  }

  switchTo(status: number, headers: readonly Buffer[], socket: Duplex): void {
    this.#told = true
    this.onSwitch(status, headers, socket)
  }

  #finish(): void {
    if (this.#refused !== undefined) for (const attempt of this.#refused) attempt.stopReading()
    this.onFinished()
  }

  #try(peer: Peer, context: AttemptContext): Promise<HasStatus> {
    if (this.gone) {
      this.verdict = 'neutral'
      return Promise.reject(new Error('the caller went away'))
    }
    return new Promise((resolve, reject) => {
      const attempt = new Try(this, peer, context, resolve, reject)
      this.attempt = attempt
      const { limited, connections } = this.setup
      if (limited || connections.upstream(peer.upstream).limited) {
        context.signal.addEventListener('abort', () => attempt.fail(context.signal.reason as Error))
      }
      try {
        this.launch(attempt, false)
      } catch (error) {
        // Code of the caller's: where connections go, what stands before an agent.
        this.callersFault = true
        attempt.onError(error as Error)
      }
    })
  }
}

function codeOf(error: Error): unknown {
  return (error as { code?: unknown }).code
}

/** Milliseconds, or undefined if the fields say nothing of it. */
function retryAfterIn(headers: readonly Buffer[]): number | undefined {
  for (let i = 0; i < headers.length; i += 2) {
    if (headers[i]!.toString('latin1').toLowerCase() !== 'retry-after') continue
    return parseRetryAfter(headers[i + 1]!.toString('latin1'), systemClock.wallTime())
  }
  return undefined
}
