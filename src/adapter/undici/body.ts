/** Bodies of requests made by undici: which of them can be sent again as they are, and what makes the others so. */
import { Readable } from 'node:stream'

/** A body that can be read once, as undici takes it. */
export type Source = AsyncIterable<unknown> | Iterable<unknown>

/** What can be read once, or undefined for a body that can be sent as often as anybody likes. */
export function readOnce(body: unknown): Source | undefined {
  if (typeof body !== 'object' || body === null || ArrayBuffer.isView(body) || body instanceof ArrayBuffer)
    return undefined
  // FormData and Blobs give their bytes anew every time.
  const tag: unknown = (body as { [Symbol.toStringTag]?: unknown })[Symbol.toStringTag]
  if (tag === 'FormData' || tag === 'Blob' || tag === 'File') return undefined
  if (Symbol.asyncIterator in body) return body as AsyncIterable<unknown>
  // A generator always gives itself, an array a new iterator every time.
  if (Symbol.iterator in body) return isItself(body as Iterable<unknown>) ? (body as Iterable<unknown>) : undefined
  return isStream(body) ? new Readable().wrap(body) : undefined
}

function isItself(iterable: Iterable<unknown>): boolean {
  return (iterable[Symbol.iterator]() as unknown) === iterable
}

function isStream(body: object): body is NodeJS.ReadableStream {
  return 'pipe' in body && 'on' in body
}

/**
 * A body that can be read once, for one attempt after another. Nothing is read before an attempt's connection stands. What
 * has been read is kept until {@link release}, or until it exceeds the limit: then the attempt under way goes on with the
 * rest, and there can be no other one.
 *
 * Invariant: `#chunks` from `#next` on is what the current attempt has not been given; before it, what a further attempt
 * would need.
 */
export class OnceBody {
  readonly #source: Source
  readonly #limit: number
  /** Hears of a source that fails. */
  readonly #onError: (error: Error) => void
  #iterator: AsyncIterator<unknown> | Iterator<unknown> | undefined = undefined
  readonly #chunks: unknown[] = []
  #next = 0
  #size = 0
  #kept = true
  #ended = false
  /** The read under way: of whoever has begun it, for whoever needs it. */
  #reading: Promise<void> | undefined = undefined
  /** Attempts that have begun to read. */
  #turn = 0

  constructor(source: Source, limit: number, onError: (error: Error) => void) {
    this.#source = source
    this.#limit = limit
    this.#onError = onError
    if (isStream(source)) source.on('error', onError)
  }

  /** Whether another attempt would get all of it. */
  get replayable(): boolean {
    return this.#kept
  }

  /** The whole body, for a new attempt; the one before gets no more. */
  async *[Symbol.asyncIterator](): AsyncGenerator {
    const turn = ++this.#turn
    this.#next = 0
    while (turn === this.#turn) {
      if (this.#next < this.#chunks.length) yield this.#kept ? this.#chunks[this.#next++] : this.#chunks.shift()
      else if (this.#ended) return
      else await (this.#reading ??= this.#read())
    }
  }

  /** There will be no further attempt: nothing is kept any more. */
  release(): void {
    this.#kept = false
    this.#chunks.splice(0, this.#next)
    this.#next = 0
  }

  /** The request is over: what was begun to be read and has not ended is let go. */
  end(): void {
    this.release()
    this.#turn++
    if (this.#iterator === undefined || this.#ended) return
    this.#ended = true
    Promise.resolve(this.#iterator.return?.()).catch(() => undefined)
  }

  async #read(): Promise<void> {
    try {
      this.#iterator ??= iteratorOf(this.#source)
      const { done, value } = (await this.#iterator.next()) as IteratorResult<unknown, unknown>
      if (done === true) {
        this.#ended = true
        return
      }
      this.#chunks.push(value)
      this.#size += typeof value === 'string' ? Buffer.byteLength(value) : (value as Uint8Array).byteLength
      if (this.#kept && this.#size > this.#limit) this.release()
    } catch (error) {
      this.#ended = true
      this.#onError(error as Error)
      throw error
    } finally {
      this.#reading = undefined
    }
  }
}

function iteratorOf(source: Source): AsyncIterator<unknown> | Iterator<unknown> {
  return Symbol.asyncIterator in source ? source[Symbol.asyncIterator]() : source[Symbol.iterator]()
}
