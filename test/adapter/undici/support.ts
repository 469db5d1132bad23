/** A dispatcher, or a proxy of undici's, before the servers of test/support/http.ts. */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { Agent, createServer, type RequestListener } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import type { Dispatcher } from 'undici'
import { createDispatcher, createProxyHandler } from '../../../src/adapter/undici.js'
import type { DispatcherOptions, ProxyHandler, ProxyOptions } from '../../../src/adapter/undici.js'
import { Checkups, type CheckupsOptions, type UpstreamOptions } from '../../../src/index.js'
import { at, startRaw, type Gateway, type Listening, type Servers } from '../../support/http.js'

export interface CheckupsSettings {
  /** Of the upstream `test`. */
  readonly upstream?: Omit<UpstreamOptions, 'servers' | 'cluster'>
  /** Further upstreams. */
  readonly upstreams?: Record<string, UpstreamOptions>
  readonly retryBudget?: CheckupsOptions['retryBudget']
}

/** The upstream `test`; picks begin with its first server. */
export function checkupsFor(servers: Servers, { upstream, upstreams, retryBudget }: CheckupsSettings = {}): Checkups {
  const test = { servers: servers.map(at), ...upstream }
  const checkups = new Checkups({ upstreams: { test, ...upstreams }, random: () => 0, retryBudget })
  onTestFinished(() => checkups.close())
  return checkups
}

export interface Dispatching {
  readonly checkups: Checkups
  readonly dispatcher: Dispatcher
}

export function dispatching(servers: Servers, options: CheckupsSettings & DispatcherOptions = {}): Dispatching {
  const { upstream, upstreams, retryBudget, ...rest } = options
  const checkups = checkupsFor(servers, { upstream, upstreams, retryBudget } as CheckupsSettings)
  const dispatcher = createDispatcher(checkups, rest)
  onTestFinished(() => dispatcher.destroy())
  return { checkups, dispatcher }
}

/** A gateway with createProxyHandler, for the clients of test/support/http.ts. */
export interface Proxying extends Gateway {
  readonly handler: ProxyHandler
}

export interface ProxySettings extends CheckupsSettings, ProxyOptions {
  /** What the application's server does with a request. Default: hands it to the proxy. */
  readonly onRequest?: (...args: [...Parameters<RequestListener>, ProxyHandler]) => void
  /** Whether the server leaves it to the proxy to answer `Expect: 100-continue`. */
  readonly checkContinue?: boolean
}

export async function startProxy(servers: Servers, options: ProxySettings = {}): Promise<Proxying> {
  const { upstream, upstreams, retryBudget, onRequest, checkContinue, ...rest } = options
  const checkups = checkupsFor(servers, { upstream, upstreams, retryBudget } as CheckupsSettings)
  const handler = createProxyHandler(checkups, rest)
  const server = createServer(onRequest ? (req, res) => onRequest(req, res, handler) : handler)
  server.on('upgrade', handler.upgrade)
  if (checkContinue === true) server.on('checkContinue', handler.checkContinue)
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => void sockets.add(socket.once('close', () => sockets.delete(socket))))
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const agent = new Agent({ keepAlive: true })
  onTestFinished(async () => {
    agent.destroy()
    handler.close()
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  })
  const { port } = server.address() as AddressInfo
  // Of a gateway the clients need the port, the agent and the instance.
  return { checkups, handler, server, sockets, agent, port, address: `127.0.0.1:${port}` } as unknown as Proxying
}

/** A connection to a gateway; `read` gives what has come so far. */
export function raw({ port }: { port: number }, ...data: (string | Buffer)[]): { socket: Socket; read: () => string } {
  const socket = connect({ port, host: '127.0.0.1' }).setEncoding('latin1')
  onTestFinished(() => void socket.destroy())
  let text = ''
  socket.on('data', (chunk: string) => (text += chunk)).on('error', () => undefined)
  for (const piece of data) socket.write(piece, 'latin1')
  return { socket, read: () => text }
}

/** A server that says this to whatever it is asked first, on every connection. */
export function says(text: string | Buffer, then: (socket: Socket) => unknown = () => undefined): Promise<Listening> {
  return startRaw((socket) => void socket.once('data', () => socket.write(text, 'latin1', () => then(socket))))
}

/** A server that accepts and says nothing. */
export const silent = (): Promise<Listening> => startRaw((socket) => socket.resume())

/** Resolves when the first bytes of the next connection have come: by then its other side knows that it stands. */
export async function asked({ server }: Listening): Promise<void> {
  const [socket] = (await once(server, 'connection')) as [Socket]
  await once(socket, 'data')
}

/** A server that writes down what it gets, as text, and answers every piece of it. */
export async function startRecorder(answer = 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nr') {
  const recorder = { text: '' }
  const server = await startRaw((socket) =>
    socket.setEncoding('latin1').on('data', (data: string) => {
      recorder.text += data
      socket.write(answer, 'latin1')
    }),
  )
  return Object.assign(server, { recorded: () => recorder.text })
}

const pem = (name: string) => readFileSync(new URL(`../../support/tls/${name}.pem`, import.meta.url), 'utf8')
/** For localhost, 127.0.0.1 and ::1. */
export const tls = { key: pem('key'), cert: pem('cert') }

/** A path for a unix socket. */
export function socketPath(): string {
  const folder = mkdtempSync(join(tmpdir(), 'checkups-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  return join(folder, 'app.sock')
}
