/** The dispatcher that has connections of its own, and the interceptor that uses those of others. */
import { Dispatcher, errors } from 'undici'
import type { Checkups } from '../../checkups.js'
import { compileRepeat } from '../options.js'
import { Connections } from './connections.js'
import { DispatchedRequest, type DispatchSetup } from './dispatched.js'
import { checkDispatcherOptions, checkInterceptorOptions } from './options.js'
import type { DispatcherOptions, InterceptorOptions } from './options.js'
import { rawOf, type RawHandler } from './raw-handler.js'
import { Targets } from './target.js'

type DispatchOptions = Dispatcher.DispatchOptions

/**
 * A dispatcher for undici's `request`, `stream`, `pipeline`, `upgrade`, `connect` and `fetch`, and for Node's own `fetch`: the
 * host of a URL is the key of an upstream.
 *
 * A connection that could not be made is followed by the next peer whatever the method; a connection that broke before the
 * first byte of the answer, a time-out and a status of `retryStatuses` only for idempotent methods; and both only while the
 * body can be sent again. What is aborted counts against nobody. A request that was answered by nobody fails with an
 * `AttemptsError` (of `fetch` it is the `cause`).
 *
 * @example
 * ```ts
 * const dispatcher = createDispatcher(checkups)
 * const { body } = await request('http://imgprocess/thumbnail', { dispatcher })
 * ```
 *
 * @throws `ConfigError`
 */
export function createDispatcher(checkups: Checkups, options: DispatcherOptions = {}): Dispatcher {
  checkDispatcherOptions(options)
  return new BalancedDispatcher(checkups, options)
}

/**
 * The same as an interceptor: `new Agent().compose(balance(checkups))`. Connections are the agent's, with all it says of
 * them; peers on unix sockets, which no agent reaches, are connected to without it.
 *
 * @throws `ConfigError`
 */
export function balance(checkups: Checkups, options: InterceptorOptions = {}): Dispatcher.DispatcherComposeInterceptor {
  checkInterceptorOptions(options)
  const connections = new Connections(checkups, { connect: undefined, client: undefined })
  const targets = new Targets(options)
  const repeat = compileRepeat(checkups, options)
  return (below) => {
    const setup = { ...repeat, connections, upstreams: connections.upstreams, below, onFinished: undefined }
    const passes = (key: string | undefined) =>
      options.passUnknown === true && (key === undefined || !connections.upstreams.has(key))
    return (request, handler) => {
      const raw = checked(handler)
      try {
        const target = targets.of(request)
        if (passes(target.key)) return below(request, handler)
        return new DispatchedRequest(setup, target, request, raw).begin(options)
      } catch (error) {
        return refuse(raw, error)
      }
    }
  }
}

class BalancedDispatcher extends Dispatcher {
  readonly #setup: DispatchSetup
  readonly #options: DispatcherOptions
  readonly #targets: Targets
  /**
   * What runs, in no order. Not a Set: one that is added to and deleted from all the time leaves tables behind that keep
   * requests alive until the next full collection.
   */
  readonly #running: DispatchedRequest[] = []
  #closed: Promise<void> | undefined
  #destroyed: Error | undefined
  #onIdle: (() => void) | undefined

  constructor(checkups: Checkups, options: DispatcherOptions) {
    super()
    this.#options = options
    this.#targets = new Targets(options)
    const { connect, client } = options
    const connections = new Connections(checkups, {
      connect,
      client,
      onEvent: (event, [origin, targets, ...error]) =>
        this.emit(event as 'connect', origin as URL, [this, ...(targets as Dispatcher[])], ...(error as [])),
    })
    this.#setup = {
      ...compileRepeat(checkups, options),
      connections,
      upstreams: connections.upstreams,
      below: undefined,
      onFinished: (request) => this.#finished(request),
    }
  }

  get closed(): boolean {
    return this.#closed !== undefined
  }

  get destroyed(): boolean {
    return this.#destroyed !== undefined
  }

  override dispatch(options: DispatchOptions, handler: Dispatcher.DispatchHandler): boolean {
    const raw = checked(handler)
    try {
      if (this.#destroyed !== undefined) throw this.#destroyed
      if (this.#closed !== undefined) throw new errors.ClientClosedError()
      const target = this.#targets.of(options)
      const request = new DispatchedRequest(this.#setup, target, options, raw)
      request.place = this.#running.push(request) - 1
      return request.begin(this.#options)
    } catch (error) {
      return refuse(raw, error)
    }
  }

  override close(): Promise<void>
  override close(callback: () => void): void
  override close(callback?: () => void): Promise<void> | undefined {
    this.#closed ??= this.#close()
    if (callback === undefined) return this.#closed
    void this.#closed.then(callback)
    return undefined
  }

  override destroy(error?: Error | null): Promise<void>
  override destroy(callback: () => void): void
  override destroy(error: Error | null, callback: () => void): void
  override destroy(error?: Error | null | (() => void), callback?: () => void): Promise<void> | undefined {
    const then = typeof error === 'function' ? error : callback
    this.#destroyed ??= (typeof error === 'function' ? undefined : error) ?? new errors.ClientDestroyedError()
    for (const request of [...this.#running]) request.abort(this.#destroyed)
    this.#closed ??= this.#close()
    if (then === undefined) return this.#closed
    void this.#closed.then(then)
    return undefined
  }

  async #close(): Promise<void> {
    this.#setup.connections.retire()
    if (this.#running.length > 0) await new Promise<void>((resolve) => (this.#onIdle = resolve))
    this.#setup.connections.close()
  }

  #finished(request: DispatchedRequest): void {
    const { place } = request
    if (place < 0) return
    request.place = -1
    const last = this.#running.pop()!
    if (last !== request) {
      this.#running[place] = last
      last.place = place
    }
    if (this.#running.length === 0) this.#onIdle?.()
  }
}

function checked(handler: Dispatcher.DispatchHandler): RawHandler {
  if (typeof handler !== 'object' || (handler as unknown) === null) {
    throw new errors.InvalidArgumentError('handler must be an object')
  }
  return rawOf(handler)
}

function refuse(handler: RawHandler, error: unknown): boolean {
  if (handler.onError === undefined) throw error
  handler.onError(error as Error)
  return false
}
