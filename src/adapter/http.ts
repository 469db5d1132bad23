/** What every HTTP adapter goes by: what may be repeated, and a request body that can be sent again. */
import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'

/** The idempotent methods of RFC 9110, 9.2.2: repeating one has the effect of doing it once. */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])

/** Whether a request that may have reached a peer may be sent to another one. */
export function isIdempotent(method: string | undefined): boolean {
  return IDEMPOTENT.has(method ?? 'GET')
}

/** Whether a request has, or may have, a body. */
export function hasBody({ headers }: IncomingMessage): boolean {
  return headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
}

/** The key of an upstream in a Host header: lower case, without port. */
export function hostKey({ headers }: IncomingMessage): string | undefined {
  return headers.host?.toLowerCase().replace(/:\d+$/, '')
}

/** A request is hashed by one of its headers. */
export interface HashHeader {
  /** The header's name; case does not matter. */
  readonly header: string
}

/** What a request is hashed by: the client's address, the URL, a header, or what a function says. */
export type HashKeyOption = 'ip' | 'url' | HashHeader | ((request: IncomingMessage) => string | Uint8Array | undefined)

export function hashKeyOf(option: HashKeyOption, request: IncomingMessage): string | Uint8Array | undefined {
  if (typeof option === 'function') return option(request)
  if (option === 'ip') return request.socket.remoteAddress
  if (option === 'url') return request.url
  return request.headers[option.header.toLowerCase()]?.toString()
}

/**
 * The body of a request, for one attempt after another. What has been read is kept until {@link release}, or until it
 * exceeds the limit: then the body goes on streaming to the attempt that is under way and can be sent no more.
 *
 * Invariant: `#chunks` from `#next` on is what the current attempt has not been given; before it, what a further attempt
 * would need.
 */
export class ReplayBody {
  readonly #source: IncomingMessage
  readonly #limit: number
  #chunks: Buffer[] = []
  #next = 0
  #size = 0
  #kept = true
  #ended = false
  #attempt: Readable | undefined
  readonly #onData = (chunk: Buffer) => this.#receive(chunk)
  readonly #onEnd = () => {
    this.#ended = true
    this.#pump()
  }

  constructor(source: IncomingMessage, limit: number) {
    this.#source = source
    this.#limit = limit
    source.on('data', this.#onData)
    source.on('end', this.#onEnd)
    source.pause()
  }

  /** Whether another attempt would get all of it. */
  get replayable(): boolean {
    return this.#kept
  }

  /** The whole body, for a new attempt; the one before gets no more. */
  stream(): Readable {
    this.#attempt?.destroy()
    this.#next = 0
    this.#attempt = new Readable({ read: () => this.#pump() })
    return this.#attempt
  }

  /** There will be no further attempt: nothing is kept any more. */
  release(): void {
    this.#kept = false
    this.#chunks.splice(0, this.#next)
    this.#next = 0
  }

  /** The request is over: what nobody has read of it is let go, so that its connection can be used again. */
  end(): void {
    this.release()
    this.#chunks = []
    this.#attempt?.destroy()
    this.#source.off('data', this.#onData)
    this.#source.off('end', this.#onEnd)
    this.#source.resume()
  }

  #receive(chunk: Buffer): void {
    this.#chunks.push(chunk)
    this.#size += chunk.length
    if (this.#kept && this.#size > this.#limit) this.release()
    this.#pump()
  }

  #pump(): void {
    const attempt = this.#attempt
    if (attempt === undefined || attempt.destroyed) return void this.#source.pause()
    let wants = true
    while (wants && this.#next < this.#chunks.length) {
      const chunk = this.#kept ? this.#chunks[this.#next++] : this.#chunks.shift()
      wants = attempt.push(chunk)
    }
    if (!wants) this.#source.pause()
    else if (this.#ended) attempt.push(null)
    else this.#source.resume()
  }
}
