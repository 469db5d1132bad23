/**
 * Blocking queries: an ask that Consul answers when what it asks for has changed, or after a while. The rules of its index
 * are here (Consul's documentation of blocking queries, and what real agents do).
 */
import type { Clock } from '../../clock.js'
import type { Answered, CallOptions, Caller, Client, Connection } from './connection.js'

/** An answer, and how to go on from it. */
export interface BlockingAnswer<T> {
  /** 200, or 404 for a part of the key-value store where nothing is. */
  readonly status: number
  readonly body: T
  /** Has the next ask wait for a change to this answer: once that has been applied. */
  applied(): void
}

type Send<T> = (client: Client, options: CallOptions & { index?: string; wait?: string }) => Promise<Answered<T>>

export class BlockingQuery<T> {
  readonly #connection: Connection
  readonly #caller: Caller
  readonly #wait: number
  readonly #send: Send<T>
  /** That of the answer that was applied last; undefined asks for an answer at once. */
  #index: string | undefined
  /** Whether the last answer had content. */
  #found = false
  readonly #known = new WeakSet<AbortSignal>()

  constructor(connection: Connection, wait: number, send: Send<T>) {
    this.#connection = connection
    this.#caller = connection.caller()
    this.#wait = wait
    this.#send = send
  }

  async ask(signal: AbortSignal, clock: Clock): Promise<BlockingAnswer<T>> {
    this.#endWith(signal)
    const asked = this.#index
    // Whatever goes wrong from here on, the next ask is answered at once: an index of before may be above that of a server
    // that has lost its data, which would then say nothing until `wait` is over, whatever is written.
    this.#index = undefined
    const begun = clock.now()
    const [head, body] = await this.#caller.call(
      (client, options, isFirst) =>
        this.#send(client, {
          ...options,
          ...(isFirst && asked !== undefined && { index: asked, wait: `${this.#wait}ms` }),
        }),
      { signal, wait: asked === undefined ? 0 : this.#wait },
    )
    const isEarly = clock.now() - begun < this.#wait
    const status = head.statusCode!
    const index = usableIndex(head.headers['x-consul-index'])
    const isGone = status === 404 && this.#found
    this.#found = status !== 404
    return {
      status,
      body,
      applied: () => {
        // An index that goes backwards, or data that is gone, is that of another state. A server that shuts down answers
        // early and with the index that was asked with.
        const isSame = index === asked && isEarly
        const isBack = index !== undefined && asked !== undefined && BigInt(index) < BigInt(asked)
        this.#index = isGone || isSame || isBack ? undefined : index
      },
    }
  }

  /** A single call in between, to the same server. */
  async call<U>(signal: AbortSignal, send: (client: Client, options: CallOptions) => Promise<U>): Promise<U> {
    return this.#caller.call(send, { signal })
  }

  /** Whoever watches after the end of this one has to be told everything, and at once. */
  #endWith(signal: AbortSignal): void {
    if (this.#known.has(signal)) return
    this.#known.add(signal)
    const end = () => {
      this.#index = undefined
      this.#connection.release()
    }
    signal.addEventListener('abort', end, { once: true })
  }
}

/** An unsigned 64-bit integer above 0; Consul answers an ask with 0 at once. */
function usableIndex(header: unknown): string | undefined {
  return typeof header === 'string' && /^[1-9]\d{0,19}$/.test(header) ? header : undefined
}
