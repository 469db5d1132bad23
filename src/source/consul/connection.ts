/** How Consul is reached: the addresses and who asks them, one after another. */
import { EventEmitter } from 'node:events'
import { Agent as HttpAgent, type ClientRequest, type IncomingMessage, type RequestOptions } from 'node:http'
import { Agent as HttpsAgent } from 'node:https'
import Consul from 'consul'
import { array, expected, milliseconds, string } from '../../check.js'
import { ConfigError } from '../../errors.js'
import { parseTlsChoice, tlsConnectOptions, type Pem, type TlsSettings } from '../../health/probe/lib/tls-options.js'
import { ConsulError } from './error.js'

/** TLS to Consul, in the names of `tls.connect`. */
export interface ConsulTlsOptions {
  /** The authorities to trust. Default: Node's. */
  readonly ca?: Pem | readonly Pem[] | undefined
  /** The certificate to show, for agents that verify who asks. */
  readonly cert?: Pem | undefined
  /** The private key of {@link ConsulTlsOptions.cert}. */
  readonly key?: Pem | undefined
  /** The name to find in the agent's certificate. Default: the host, if it is a name. */
  readonly servername?: string | undefined
  /** Whether an agent whose certificate cannot be verified is refused. Default true. */
  readonly rejectUnauthorized?: boolean | undefined
  /** The oldest version to accept. Default: Node's, which is TLS 1.2. */
  readonly minVersion?: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3' | undefined
}

/** Where Consul is, and as whom to ask it. */
export interface ConsulConnectionOptions {
  /**
   * The agent: `'host:port'`, `'http://host:port'` or `'https://host:port'`. Default: the environment's `CONSUL_HTTP_ADDR`,
   * else `127.0.0.1:8500`, where Consul runs an agent on every machine.
   */
  readonly address?: string | undefined
  /** Several of them, in place of `address`: the next one is asked when one fails. */
  readonly addresses?: readonly string[] | undefined
  /** The ACL token. Default: the environment's `CONSUL_HTTP_TOKEN`, else none. */
  readonly token?: string | undefined
  /** How TLS is spoken; with it, addresses without a scheme are `https`. Default: as the scheme says, with Node's authorities. */
  readonly tls?: boolean | ConsulTlsOptions | undefined
  /** The datacenter to ask. Default: the agent's own. */
  readonly dc?: string | undefined
  /** Of Consul Enterprise: the namespace. Passed on as it is. */
  readonly ns?: string | undefined
  /** Of Consul Enterprise: the admin partition. Passed on as it is. */
  readonly partition?: string | undefined
  /**
   * Milliseconds in which an answer must be complete, beyond those that Consul was asked to wait. Default 10,000: without a
   * leader Consul itself takes 7 s to say so.
   */
  readonly requestTimeout?: number | undefined
}

export const CONNECTION_OPTIONS = 'address addresses token tls dc ns partition requestTimeout'.split(' ')

/** What the client passes on of every call; its types leave some of it out. */
export interface CallOptions {
  readonly ctx: EventEmitter
  readonly timeout: number
  readonly dc?: string
  readonly partition?: string
  readonly token?: string
}

/** An answer: its head, and what the client makes of its body. */
export type Answered<T> = readonly [head: IncomingMessage, body: T]

/** The part of the client that is used, with what its own types leave out. */
export interface Client {
  readonly kv: {
    get(options: object): Promise<Answered<unknown>>
  }
  readonly transaction: { create(operations: readonly object[], options: object): Promise<unknown> }
  readonly health: { service(options: object): Promise<Answered<unknown>> }
  /** Any other path. */
  _get(request: object): Promise<IncomingMessage>
  _ext(event: string, extension: (request: PapiRequest, next: (error?: Error) => void) => void): void
}

/** A request of papi, which the client is made of, as its documented extensions see it. */
interface PapiRequest {
  readonly opts: { readonly name?: string; readonly query: Record<string, unknown> }
  readonly res?: PapiResponse
  readonly err?: Error
  transport: { request(options: RequestOptions): ClientRequest }
}

type PapiResponse = IncomingMessage & { readonly body?: unknown }

interface Endpoint {
  readonly address: string
  readonly client: Client
  readonly agent: HttpAgent
}

/** The options, checked; the connections are made when they are needed. */
export class Connection {
  readonly endpoints: readonly Endpoint[]
  readonly requestTimeout: number
  /** What goes into every call. */
  readonly common: { readonly dc?: string; readonly partition?: string; readonly token?: string }

  constructor(path: string, options: Record<string, unknown>) {
    const { ns } = options
    const tls = parseTlsChoice(path, 'tls', options['tls'])
    const namespace = ns === undefined ? undefined : string(path, 'ns', ns)
    this.requestTimeout = atMostTenMinutes(path, 'requestTimeout', options['requestTimeout'] ?? 10_000)
    const token = options['token'] ?? (process.env['CONSUL_HTTP_TOKEN'] || undefined)
    this.common = Object.fromEntries(
      Object.entries({ dc: options['dc'], partition: options['partition'], token })
        .filter(([, value]) => value !== undefined)
        .map(([key, value]) => [key, string(path, key, value)]),
    )
    this.endpoints = addressesOf(path, options).map(({ at, address }) => newEndpoint(at, address, tls, namespace))
  }

  caller(): Caller {
    return new Caller(this)
  }

  /** Closes what is idle. Calls under way are ended by their signals; a later call connects anew. */
  release(): void {
    for (const { agent } of this.endpoints) {
      for (const sockets of Object.values(agent.freeSockets)) for (const socket of sockets ?? []) socket.destroy()
    }
  }
}

/** Who asks one thing after another, of the address that answered last. */
export class Caller {
  readonly #connection: Connection
  #at = 0

  constructor(connection: Connection) {
    this.#connection = connection
  }

  /**
   * Resolves to the answer of the first address that gives one: 2xx, or the 404 of the key-value store. `send` is told
   * whether it is the first address of this call, the one that answered before.
   *
   * `once` is for what must not be done twice: then the next address is tried only if nothing can have been done.
   */
  async call<T>(
    send: (client: Client, options: CallOptions, isFirst: boolean) => Promise<T>,
    { signal, wait = 0, once = false }: { signal?: AbortSignal | undefined; wait?: number; once?: boolean } = {},
  ): Promise<T> {
    const { endpoints, requestTimeout, common } = this.#connection
    for (let tried = 1; ; tried++) {
      signal?.throwIfAborted()
      const { client, address } = endpoints[this.#at]!
      // includeResponse makes the client resolve to [head, body].
      const ctx = Object.assign(new EventEmitter(), { includeResponse: true })
      const cancel = () => void ctx.emit('cancel')
      signal?.addEventListener('abort', cancel, { once: true })
      try {
        const isFirst = tried === 1
        // Consul waits for up to a sixteenth longer than it was asked to.
        const timeout = Math.ceil((isFirst ? wait * (17 / 16) : 0) + requestTimeout)
        return await send(client, { ...common, ctx, timeout }, isFirst)
      } catch (cause) {
        if (signal?.aborted) throw signal.reason as Error
        const error = ConsulError.of(cause, address)
        if (error.reason === 'denied' || (error.status !== undefined && error.status < 429)) throw error
        if (once && !isRefused(cause)) throw error
        this.#at = (this.#at + 1) % endpoints.length
        if (tried === endpoints.length) throw error
      } finally {
        signal?.removeEventListener('abort', cancel)
      }
    }
  }
}

function isRefused(error: unknown): boolean {
  const { code } = error as NodeJS.ErrnoException
  return code === 'ECONNREFUSED' || code === 'ENOTFOUND' || code === 'EAI_AGAIN'
}

function addressesOf(path: string, { address, addresses }: Record<string, unknown>): { at: string; address: string }[] {
  if (address !== undefined && addresses !== undefined) throw new ConfigError(path, 'expected address or addresses')
  if (addresses === undefined) {
    const fromEnvironment = address === undefined ? process.env['CONSUL_HTTP_ADDR'] : undefined
    return fromEnvironment
      ? [{ at: 'CONSUL_HTTP_ADDR', address: fromEnvironment }]
      : [{ at: `${path}.address`, address: string(path, 'address', address ?? '127.0.0.1:8500') }]
  }
  const several = array(path, 'addresses', addresses)
  if (several.length === 0) throw new ConfigError(`${path}.addresses`, 'expected at least one')
  return several.map((one, i) => ({
    at: `${path}.addresses[${i}]`,
    address: string(`${path}.addresses[${i}]`, '', one),
  }))
}

function newEndpoint(at: string, address: string, tls: TlsSettings | undefined, ns: string | undefined): Endpoint {
  const scheme = /^[a-z][a-z0-9+.-]*:\/\//i.test(address) ? '' : tls === undefined ? 'http://' : 'https://'
  const url = URL.canParse(scheme + address) ? new URL(scheme + address) : undefined
  const isPlain = url?.pathname === '/' && `${url.search}${url.hash}${url.username}${url.password}` === ''
  if (url === undefined || !isPlain || !/^https?:$/.test(url.protocol) || url.hostname === '') {
    throw expected(at, '', '"host:port", "http://host:port" or "https://host:port"', address)
  }
  const secure = url.protocol === 'https:'
  if (!secure && tls !== undefined) throw new ConfigError(at, 'is http, and tls is given')
  // A URL without a port means that of its scheme, a host without one Consul's; and the URL parser drops 80 and 443.
  const byDefault = scheme === '' || /:\d+$/.test(address) ? [80, 443] : [8500, 8501]
  const port = url.port === '' ? byDefault[secure ? 1 : 0]! : Number(url.port)
  const host = url.hostname.replace(/^\[|\]$/g, '')
  const settings = secure ? tlsConnectOptions(tls ?? parseTlsChoice(at, '', true)!, host) : {}
  const agent = secure ? new HttpsAgent({ keepAlive: true, ...settings }) : new HttpAgent({ keepAlive: true })
  const client = new Consul({ host: url.hostname, port, secure, agent }) as unknown as Client
  client._ext('onCreate', ({ opts }, next) => {
    if (ns !== undefined) opts.query['ns'] = ns
    next()
  })
  client._ext('onRequest', noticeCut)
  client._ext('onResponse', ({ opts, res, err }, next) => {
    next(
      res === undefined || isOfConsul(opts.name, res, err) ? undefined : new Error('the answer is not one of Consul'),
    )
  })
  return { address: `${url.hostname}:${port}`, client, agent }
}

/** The client would wait for the rest of an answer whose connection broke until its time is over. */
function noticeCut(request: PapiRequest, next: () => void): void {
  const { transport } = request
  request.transport = {
    request: (options) => {
      const sent = transport.request(options)
      return sent.on('response', (res) =>
        res.once('close', () => {
          if (!res.complete) sent.emit('error', new Error('the answer was cut off'))
        }),
      )
    },
  }
  next()
}

/**
 * What the client would take for an answer of Consul, and is not: the page of a proxy with 200, or its 404, which would mean
 * that there are no keys. In a list the client asks every entry for its own properties, and would throw where nobody catches.
 */
function isOfConsul(name: string | undefined, { statusCode, headers, body }: PapiResponse, err?: Error): boolean {
  if (name === 'kv.get' && statusCode === 404) return headers['x-consul-index'] !== undefined
  if (err !== undefined || (name !== 'kv.get' && name !== 'health.service')) return true
  return (
    Array.isArray(body) && body.every(isEntry) && (name === 'health.service' || (body.length > 0 && body.every(isKey)))
  )
}

function isEntry(entry: unknown): entry is object {
  return typeof entry === 'object' && typeof entry?.hasOwnProperty === 'function'
}

function isKey(entry: { readonly Key?: unknown; readonly Value?: unknown }): boolean {
  return typeof entry.Key === 'string' && (entry.Value === null || typeof entry.Value === 'string')
}

/** Milliseconds, up to the longest time that Consul waits; a timer could take no more than 2³¹. */
export function atMostTenMinutes(path: string, key: string, value: unknown): number {
  const ms = milliseconds(path, key, value, 1)
  if (ms > 600_000) throw expected(path, key, 'milliseconds, at most 600,000', value)
  return Math.ceil(ms)
}
