/** What every HTTP adapter goes by: what may be repeated, and a request body that can be sent again. */
import { STATUS_CODES, type IncomingMessage, type ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { expected, record, string } from '../check.js'
import { systemClock } from '../clock.js'
import { isCheckupsError } from '../errors.js'
import { parseRetryAfter, type RetryVerdict } from '../health/outcome.js'
import { AttemptsError } from '../upstream/retry.js'

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

/** Milliseconds for which a peer asks to be left alone; 0 if it does not. */
export function retryAfter({ headers }: IncomingMessage): number {
  const header = headers['retry-after']
  return header === undefined ? 0 : parseRetryAfter(header, systemClock.wallTime())
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

/** @throws ConfigError */
export function checkHashKey(option: unknown, words: readonly string[]): void {
  if (option === undefined || typeof option === 'function' || words.includes(option as string)) return
  const known = words.map((word) => JSON.stringify(word)).join(' or ')
  if (typeof option !== 'object') throw expected('options', 'hashKey', `${known}, { header } or a function`, option)
  string('options.hashKey', 'header', record('options', 'hashKey', option)['header'])
}

export function hashKeyOf(
  option: HashKeyOption | undefined,
  request: IncomingMessage,
): string | Uint8Array | undefined {
  if (option === undefined) return undefined
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

/** What an answer comes to that is with the client already: whatever it was, nobody else is asked. */
export function finalVerdict(verdict: RetryVerdict): RetryVerdict {
  if (verdict === 'failed') return 'stop'
  return verdict === 'next' ? 'neutral' : verdict
}

/** What to answer: 502 (no such upstream, or every attempt failed), 503 (nobody available), 504 (out of time). */
export type GatewayStatus = 502 | 503 | 504

/** How undici says that a peer was silent for too long. */
const UNDICI_TIMEOUT = /^UND_ERR_(CONNECT|HEADERS|BODY)_TIMEOUT$/

/** Which of the three gateway errors a failure is. */
export function gatewayStatus(error: unknown): GatewayStatus {
  if (!(error instanceof AttemptsError)) return 502
  if (error.code === 'ERR_CHECKUPS_TIMEOUT') return 504
  const last = error.attempts.at(-1)
  if (last === undefined) return error.code === 'ERR_CHECKUPS_NO_PEER' ? 503 : 502
  const { code } = (last.error ?? {}) as NodeJS.ErrnoException
  return isCheckupsError(last.error, 'ERR_CHECKUPS_ATTEMPT_TIMEOUT') || UNDICI_TIMEOUT.test(code ?? '') ? 504 : 502
}

/** Answers a request that could not be proxied: as `onFailure` does, or by a line of text. */
export async function answerFailure<F extends { readonly status: GatewayStatus }>(
  failure: F,
  res: ServerResponse,
  onFailure: ((failure: F, res: ServerResponse) => void | Promise<void>) | undefined,
): Promise<void> {
  if (onFailure !== undefined) {
    try {
      await onFailure(failure, res)
      return
    } catch (error) {
      process.emitWarning(`onFailure threw: ${String(error)}`, { type: 'CheckupsWarning' })
      if (res.headersSent) return void res.destroy()
    }
  }
  res.writeHead(failure.status, { 'content-type': 'text/plain' })
  res.end(`${statusLine(failure.status)}\n`)
}

/** The same for an upgrade, of which nothing but the connection is left. */
export function failedUpgrade(status: number): string {
  const body = `${statusLine(status)}\n`
  return [
    `HTTP/1.1 ${statusLine(status)}`,
    'Content-Type: text/plain',
    `Content-Length: ${body.length}`,
    'Connection: close',
    '',
    body,
  ].join('\r\n')
}

/** `502 Bad Gateway`. */
export function statusLine(status: number): string {
  return `${status} ${STATUS_CODES[status] ?? ''}`
}
