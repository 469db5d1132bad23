/**
 * The handler that an undici Client calls by itself: fields as it has parsed them, no objects made of them. Whoever hands us
 * a newer handler, with a controller, gets it by {@link rawOf}.
 */
import type { IncomingHttpHeaders } from 'node:http'
import type { Duplex } from 'node:stream'
import { errors, util, type Dispatcher } from 'undici'

/** Ends a request; without a reason by undici's RequestAbortedError. */
export type Abort = (reason?: Error) => void

/** What a dispatcher calls as a request goes on. Of what a function returns, only false counts: it pauses the answer. */
export interface RawHandler {
  /** The request is about to be written; `abort` may be called from now on. */
  onConnect?(abort: Abort): void
  /** The first byte of the answer is there. */
  onResponseStarted?(): void
  /** The head of the answer, or one of status 1xx. `resume` ends a pause. */
  onHeaders?(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown
  /** A piece of the body. */
  onData?(chunk: Buffer): unknown
  /** The end, with the trailers. */
  onComplete?(trailers: readonly Buffer[]): void
  /** The connection is the caller's now. */
  onUpgrade?(status: number, headers: readonly Buffer[], socket: Duplex): void
  /** It has failed; nothing else is called any more. */
  onError?(error: Error): void
  /** A piece of the request's body was written. */
  onBodySent?(chunk: unknown): void
  /** All of the request was written. */
  onRequestSent?(): void
}

/** The raw form of any handler. What undici hands to interceptors has both. */
export function rawOf(handler: Dispatcher.DispatchHandler): RawHandler {
  const raw = handler as object as RawHandler
  return handler.onRequestStart === undefined || raw.onHeaders !== undefined ? raw : new RawOfModern(handler)
}

class Controller implements Dispatcher.DispatchController {
  readonly #abort: Abort
  resumeWith: (() => void) | undefined = undefined
  paused = false
  aborted = false
  reason: Error | null = null
  rawHeaders: Buffer[] | null = null
  rawTrailers: Buffer[] | null = null

  constructor(abort: Abort) {
    this.#abort = abort
  }

  pause(): void {
    this.paused = true
  }

  resume(): void {
    if (!this.paused) return
    this.paused = false
    this.resumeWith?.()
  }

  abort(reason: Error): void {
    if (this.aborted) return
    this.aborted = true
    this.reason = reason
    this.#abort(reason)
  }
}

class RawOfModern implements RawHandler {
  readonly #handler: Dispatcher.DispatchHandler
  /** A request that has failed before it began has none to speak of. */
  #controller = new Controller(() => undefined)

  constructor(handler: Dispatcher.DispatchHandler) {
    this.#handler = handler
  }

  onConnect(abort: Abort): void {
    this.#controller = new Controller(abort)
    this.#handler.onRequestStart?.(this.#controller, {})
  }

  onResponseStarted(): void {
    ;(this.#handler as object as RawHandler).onResponseStarted?.()
  }

  onHeaders(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): boolean {
    this.#controller.resumeWith = resume
    this.#controller.rawHeaders = headers as Buffer[]
    this.#handler.onResponseStart?.(this.#controller, status, parsed(headers), statusText)
    return !this.#controller.paused
  }

  onData(chunk: Buffer): boolean {
    this.#handler.onResponseData?.(this.#controller, chunk)
    return !this.#controller.paused
  }

  onComplete(trailers: readonly Buffer[]): void {
    this.#controller.rawTrailers = trailers as Buffer[]
    this.#handler.onResponseEnd?.(this.#controller, parsed(trailers))
  }

  onUpgrade(status: number, headers: readonly Buffer[], socket: Duplex): void {
    this.#controller.rawHeaders = headers as Buffer[]
    this.#handler.onRequestUpgrade?.(this.#controller, status, parsed(headers), socket)
  }

  onError(error: Error): void {
    if (this.#handler.onResponseError === undefined) throw new errors.InvalidArgumentError('invalid onError method')
    this.#handler.onResponseError(this.#controller, error)
  }
}

function parsed(headers: readonly Buffer[]): IncomingHttpHeaders {
  return util.parseHeaders(headers as Buffer[])
}
