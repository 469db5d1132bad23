/** What a proxied request and a proxied upgrade have in common: how they are handed to the proxy, and what the client is told. */
import type { EventEmitter } from 'node:events'
import type { ClientRequest, IncomingMessage } from 'node:http'
import { isIP } from 'node:net'
import type { Peer } from '../../upstream/peer.js'
import type { PickHandle } from '../../upstream/pick.js'
import type { AgentPool, PeerAgent } from '../agent.js'
import type { ClientConnection, Waiting } from '../clients.js'
import { Exchange, type ExchangeSetup } from '../exchange.js'
import { gatewayStatus, hashKeyOf, isIdempotent } from '../http.js'
import { tellEnd, type ProxyFailure } from '../options.js'
import type { BalancedProxyOptions, ProxyServer } from './options.js'
import { ProxiedTry, type ProxiedTryOwner } from './try.js'

/** What all exchanges of one balanced proxy share. */
export interface BalancedSetup extends ExchangeSetup {
  readonly proxy: ProxyServer
  readonly agents: AgentPool
  readonly options: BalancedProxyOptions
  readonly onFinished: () => void
}

/** `http-proxy` adds to these headers at every attempt, with `xfwd`. */
const FORWARDED = ['x-forwarded-for', 'x-forwarded-port', 'x-forwarded-proto', 'x-forwarded-host'] as const

export abstract class ProxiedExchange extends Exchange<ProxiedTry> implements ProxiedTryOwner, Waiting {
  declare readonly setup: BalancedSetup
  protected readonly req: IncomingMessage
  protected readonly client: ClientConnection
  #key: string | undefined = undefined
  /** What the client has said of itself. */
  #forwarded: IncomingMessage['headers'][string][] | undefined = undefined
  /** Takes back what the proxy listens to since it was last called. */
  #unlisten: (() => void) | undefined = undefined

  constructor(setup: BalancedSetup, req: IncomingMessage, client: ClientConnection) {
    super(setup, isIdempotent(req.method))
    this.req = req
    this.client = client
  }

  /** Hands the request to the proxy, with the options that say where it goes; `first`, if it has never been done before. */
  protected abstract send(options: object, onError: (error: unknown) => void, first: boolean): unknown
  /** What the proxy answers the client by. */
  protected abstract readonly response: EventEmitter & { destroy(): unknown }
  /** Nobody has answered. */
  protected abstract answerFailure(failure: ProxyFailure): void
  abstract onRequest(attempt: ProxiedTry, request: ClientRequest): void
  abstract clientIsSlow(request: ClientRequest, ms: number): boolean

  begin(): void {
    const { options } = this.setup
    const { req } = this
    this.client.begin(this)
    this.notes = options.onEnd !== undefined
    try {
      const { host } = req.headers
      if (options.key !== undefined) this.#key = options.key(req)
      else if (host !== undefined) this.#key = this.client.keyOf(host)
      if (this.#key === undefined) throw new Error('the request names no upstream')
      this.run(this.#key, hashKeyOf(options.hashKey, req), options.clusterKey?.(req))
    } catch (error) {
      this.finish(error as Error)
    }
  }

  clientGone(): void {
    this.abort(new Error('the client went away'))
  }

  protected override attemptAt(pick: PickHandle, number: number): ProxiedTry {
    return new ProxiedTry(this, pick, number)
  }

  override launch(attempt: ProxiedTry, again: boolean): void {
    const { peer } = attempt
    // Its upstream may be deleted by the time that it is sent again.
    const agent = (attempt.agent ??= this.setup.agents.of(peer.upstream))
    if (again) agent.closeIdle(peer.connect)
    const first = this.#forwarded === undefined
    const { headers } = this.req
    if (first) this.#forwarded = FORWARDED.map((name) => headers[name])
    else this.#takeBack()
    const onError = attempt.errorListener()
    agent.user = attempt
    try {
      const sent = this.send(this.#optionsFor(peer, agent), onError, first)
      // A fork (httpxy) gives a promise instead of calling back, and resolves it when it has told its own listeners.
      if (sent instanceof Promise) sent.then(() => this.committed || onError(new Error('the proxy gave up')), onError)
    } finally {
      agent.user = undefined
    }
  }

  complete(): void {
    this.told = true
    this.finish()
  }

  protected override onFailed(error: Error): void {
    if (this.gone) return
    // Without this the client would wait for the rest for ever.
    if (this.committed) this.response.destroy()
    else this.answerFailure({ status: gatewayStatus(error), error, req: this.req })
  }

  protected override onFinished(): void {
    this.client.end(this)
    this.setup.onFinished()
    const { onEnd } = this.setup.options
    if (onEnd !== undefined) tellEnd(onEnd, { req: this.req, upstream: this.#key, attempts: this.attempts })
  }

  /** What the proxy listens to on the client's side, from now until the function that this returns is called, goes again. */
  protected noteListeners(): () => void {
    const emitters = [this.req, this.response]
    const before = emitters.map(
      (emitter) => new Map(emitter.eventNames().map((name) => [name, emitter.listenerCount(name)])),
    )
    const undo = this.#unlisten
    return () => {
      const added = emitters.flatMap((emitter, i) =>
        emitter.eventNames().map((name) => {
          const listeners = emitter.listeners(name).slice(before[i]!.get(name) ?? 0) as (() => void)[]
          return () => listeners.forEach((listener) => emitter.off(name, listener))
        }),
      )
      this.#unlisten = () => {
        undo?.()
        for (const remove of added) remove()
      }
    }
  }

  /** What the proxy has done to the request, for an attempt that came to nothing. */
  #takeBack(): void {
    const { headers } = this.req
    this.#unlisten?.()
    this.#unlisten = undefined
    FORWARDED.forEach((name, i) => {
      const said = this.#forwarded![i]
      if (said === undefined) Reflect.deleteProperty(headers, name)
      else headers[name] = said
    })
  }

  #optionsFor({ connect, host, port }: Peer, agent: PeerAgent): object {
    const { agents, options } = this.setup
    const { protocol } = agents
    const place =
      'path' in connect
        ? { protocol: `${protocol}:`, socketPath: connect.path, host: 'localhost', hostname: 'localhost' }
        : { protocol: `${protocol}:`, host: connect.host, hostname: connect.host, port: connect.port }
    const all = { ...options.proxyOptions, target: place, agent }
    // A certificate is checked for the peer's name; without this, for the client's Host header.
    const named = protocol === 'https' && isIP(host) === 0 && port !== 0
    return named ? { ...all, ssl: { servername: host } } : all
  }
}
