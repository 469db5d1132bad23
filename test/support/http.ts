/** Real servers, a gateway in front of them, and clients. Whatever a test starts is closed when it ends. */
import { createHash } from 'node:crypto'
import { once, type EventEmitter } from 'node:events'
import { Agent, createServer, request as httpRequest } from 'node:http'
import type { ClientRequest, IncomingHttpHeaders, IncomingMessage, RequestListener, ServerResponse } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { createServer as createNetServer, type AddressInfo, type Server, type Socket } from 'node:net'
import httpProxy from 'http-proxy'
import { createProxyServer as createProxyServer3 } from 'http-proxy-3'
import { createProxyServer as createProxyServerXy } from 'httpxy'
import { expect, onTestFinished } from 'vitest'
import { Checkups, type CheckupsOptions, type ServerOptions, type UpstreamOptions } from '../../src/index.js'
import { balanceProxy } from '../../src/adapter/http-proxy.js'
import type { BalancedProxy, BalancedProxyOptions, ProxyServer } from '../../src/adapter/http-proxy.js'
import { eventually } from './eventually.js'

/** The proxies that the adapter is for. The last one only for `web`: its `ws` takes other arguments, hence the cast. */
export const proxies = {
  'http-proxy': () => httpProxy.createProxyServer(),
  'http-proxy-3': () => createProxyServer3(),
  httpxy: (): ProxyServer => createProxyServerXy() as unknown as ProxyServer,
} satisfies Record<string, () => ProxyServer>

/** The proxy's own events, of which the adapter needs one. */
export const eventsOf = (proxy: ProxyServer): EventEmitter => proxy as unknown as EventEmitter

/** Milliseconds that servers keep idle connections: longer than any test waits, so that whatever a client does not close stays. */
const KEPT = 600_000

/** An address where nobody listens: ports below 1024 are never given to anybody by chance. */
export const refusing = (n = 0): string => `127.0.0.${1 + n}:1`

/**
 * Milliseconds for a limit that only who is silent may reach: a busy machine keeps those waiting, too, who answer at once.
 */
export const SILENCE = 1_000

/**
 * Of so many none of three peers is left without any, wherever their ports put them on the ring: a third of it is more than a
 * quarter of it, and 0.75 to this power 3 in 10^8.
 */
export const ENOUGH_KEYS = 60

/** What a backend has seen of one request. */
export interface Seen {
  readonly req: IncomingMessage
  readonly method: string
  readonly url: string
  readonly headers: IncomingHttpHeaders
  /** Bytes so far. */
  length: number
  /** Of the whole body; undefined until it was there. */
  sha: string | undefined
}

/** How a backend answers; it is called with the head of a request. */
export type Answer = (req: IncomingMessage, res: ServerResponse, backend: Backend) => unknown

export interface Listening {
  readonly address: string
  readonly server: Server
  readonly sockets: ReadonlySet<Socket>
  /** Connections so far. */
  connections: number
}

export interface Backend extends Listening {
  readonly name: string
  readonly seen: Seen[]
  answer: Answer
}

export interface Place {
  readonly host?: string
  readonly path?: string
  readonly tls?: { readonly key: string; readonly cert: string }
}

async function listen<T extends object>(server: Server, { host = '127.0.0.1', path }: Place, more: T) {
  const sockets = new Set<Socket>()
  const listening = Object.assign(more, { server, sockets, connections: 0, address: '' })
  server.on('connection', (socket: Socket) => {
    listening.connections++
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  if (path === undefined) server.listen(0, host)
  else server.listen(path)
  await once(server, 'listening')
  const { port } = (path === undefined ? server.address() : {}) as AddressInfo
  listening.address = path === undefined ? `${host.includes(':') ? `[${host}]` : host}:${port}` : `unix:${path}`
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    if (server.listening) await new Promise((resolve) => server.close(resolve))
  })
  return listening
}

/** Answers 200 with its name once it has the whole body. */
export const whenRead: Answer = (req, res, { name }) => req.once('end', () => res.end(name))

/** An HTTP server. It reads every body; `answer` is called with the head of a request. */
export async function startServer(name: string, answer: Answer = whenRead, place: Place = {}): Promise<Backend> {
  const onRequest: RequestListener = (req, res) => {
    const { method = '', url = '', headers } = req
    const seen: Seen = { req, method, url, headers, length: 0, sha: undefined }
    backend.seen.push(seen)
    const hash = createHash('sha256')
    if (backend.answer === whenRead) {
      req.on('data', (chunk: Buffer) => {
        seen.length += chunk.length
        hash.update(chunk)
      })
      req.once('end', () => (seen.sha = hash.digest('hex')))
    }
    backend.answer(req, res, backend)
  }
  const server = place.tls === undefined ? createServer(onRequest) : createTlsServer(place.tls, onRequest)
  server.keepAliveTimeout = KEPT
  const backend: Backend = await listen(server, place, { name, seen: [] as Seen[], answer })
  return backend
}

/** A TCP server that does with connections what it is told to. */
export function startRaw(onConnection: (socket: Socket, peer: Listening) => unknown): Promise<Listening> {
  const server = createNetServer({ allowHalfOpen: false }, (socket) => {
    socket.on('error', () => undefined)
    onConnection(socket, raw)
  })
  const raw: Listening = { server, address: '', sockets: new Set(), connections: 0 }
  return listen(server, {}, raw)
}

export type Servers = readonly (Backend | Listening | ServerOptions | string)[]

export interface GatewayOptions extends BalancedProxyOptions {
  /** Of the upstream `test`. */
  readonly upstream?: Omit<UpstreamOptions, 'servers' | 'cluster'>
  /** Further upstreams. */
  readonly upstreams?: Record<string, UpstreamOptions>
  readonly proxy?: ProxyServer
  readonly retryBudget?: CheckupsOptions['retryBudget']
  /** What the application's server does with a request. Default: hands it to the balanced proxy. */
  readonly onRequest?: (req: IncomingMessage, res: ServerResponse, balanced: BalancedProxy) => void
}

export interface Gateway extends Listening {
  readonly port: number
  readonly checkups: Checkups
  readonly proxy: ProxyServer
  readonly balanced: BalancedProxy
  /** Of the clients. */
  readonly agent: Agent
}

export const at = (server: Servers[number]): ServerOptions | string =>
  typeof server === 'object' && 'server' in server ? server.address : server

/** A gateway to the upstream `test`; picks begin with its first server. */
export async function startGateway(servers: Servers, options: GatewayOptions = {}): Promise<Gateway> {
  const { upstream, upstreams, proxy = proxies['http-proxy'](), retryBudget, onRequest, ...rest } = options
  const test = { servers: servers.map(at), ...upstream }
  const checkups = new Checkups({ upstreams: { test, ...upstreams }, random: () => 0, retryBudget })
  const balanced = balanceProxy(checkups, proxy, rest)
  const handler: RequestListener = onRequest
    ? (req, res) => onRequest(req, res, balanced)
    : (req, res) => balanced.web(req, res)
  const server = createServer({ keepAliveTimeout: KEPT }, handler).on('upgrade', balanced.ws)
  const agent = new Agent({ keepAlive: true })
  const gateway = await listen(server, {}, { checkups, proxy, balanced, agent })
  onTestFinished(() => {
    agent.destroy()
    balanced.close()
    return checkups.close()
  })
  return Object.assign(gateway, { port: (server.address() as AddressInfo).port })
}

export interface SendOptions {
  readonly method?: string
  readonly path?: string
  readonly headers?: Record<string, string>
  /** Chunked if it is several buffers. */
  readonly body?: Buffer | readonly Buffer[]
}

export interface Reply {
  readonly status: number
  readonly statusMessage: string
  readonly headers: IncomingHttpHeaders
  readonly text: string
}

/** A request whose body has still to be sent; it goes to the upstream `test`. */
export function open(gateway: Gateway, { method = 'GET', path = '/', headers = {} }: SendOptions = {}): ClientRequest {
  const { port, agent } = gateway
  const request = httpRequest({ host: '127.0.0.1', port, method, path, headers: { host: 'test', ...headers }, agent })
  request.on('error', () => undefined)
  return request
}

/** Resolves when the whole answer is there; rejects if it breaks off or never comes. */
export async function replyTo(request: ClientRequest): Promise<Reply> {
  const [res] = (await Promise.race([once(request, 'response'), failed(request)])) as [IncomingMessage]
  return read(res)
}

function failed(request: ClientRequest): Promise<never> {
  return new Promise((_, reject) => request.once('error', reject))
}

async function read(res: IncomingMessage): Promise<Reply> {
  const chunks: Buffer[] = []
  for await (const chunk of res) chunks.push(chunk as Buffer)
  const { statusCode: status = 0, statusMessage = '', headers } = res
  return { status, statusMessage, headers, text: Buffer.concat(chunks).toString('latin1') }
}

/** A request and its answer. */
export function send(gateway: Gateway, options: SendOptions = {}): Promise<Reply> {
  const { body = Buffer.alloc(0) } = options
  const length = body instanceof Buffer && body.length > 0 ? { 'content-length': String(body.length) } : {}
  const request = open(gateway, { ...options, headers: { ...length, ...options.headers } })
  const reply = replyTo(request)
  for (const chunk of body instanceof Buffer ? [] : body) request.write(chunk)
  request.end(body instanceof Buffer ? body : undefined)
  return reply
}

/** The texts of so many answers, one request after another. */
export async function answers(gateway: Gateway, count: number, options?: SendOptions): Promise<string> {
  const texts: string[] = []
  for (let i = 0; i < count; i++) texts.push((await send(gateway, options)).text)
  return texts.join('')
}

/** The state of the servers of all upstreams, by address. */
export function statusOf({ checkups }: Gateway) {
  const servers = checkups.getStatus().upstreams.flatMap(({ levels }) => levels.flatMap((level) => level.servers))
  return new Map(servers.map((server) => [server.address, server]))
}

/** Requests in flight, of all peers. */
export function inFlight(gateway: Gateway): number {
  return [...statusOf(gateway).values()].reduce((sum, server) => sum + server.inFlight, 0)
}

/** Failures and bans of a peer: whether anything was held against it. */
export function marks(gateway: Gateway, { address }: { address: string }): number {
  const { passive } = statusOf(gateway).get(address)!
  return passive.failures + passive.bans
}

/** Nothing says when a request has ended for the balancer: its end is looked for. */
export function settled(gateway: Gateway, expected = 0): Promise<void> {
  return eventually(() => expect(inFlight(gateway)).toBe(expected))
}

export function sha256(body: Buffer): string {
  return createHash('sha256').update(body).digest('hex')
}

const REPEATED = Uint8Array.from({ length: 251 }, (_, i) => i)

/** Bytes that repeat only every 251, so that a piece in the wrong place shows. */
export function bytes(length: number): Buffer {
  return Buffer.alloc(length, REPEATED)
}
