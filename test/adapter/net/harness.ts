/** A TCP proxy before real servers, and its clients. Whatever a test starts is closed when it ends. */
import { once } from 'node:events'
import { connect as connectTcp, type AddressInfo, type Socket } from 'node:net'
import { expect, onTestFinished } from 'vitest'
import { Checkups, type ServerOptions, type UpstreamOptions } from '../../../src/index.js'
import { createTcpProxy, type TcpFailure, type TcpProxy, type TcpProxyOptions } from '../../../src/adapter/net.js'
import { startTcp, type Listening, type Place } from '../../health/probe/servers.js'
import { eventually } from '../../support/eventually.js'

export { socketPath, startStuck, startTcp } from '../../health/probe/servers.js'
export type { Listening } from '../../health/probe/servers.js'
export { ENOUGH_KEYS, refusing } from '../../support/http.js'

export const addressOf = ({ host = '127.0.0.1', port, path }: Place): string => {
  if (path !== undefined) return `unix:${path}`
  return `${host.includes(':') ? `[${host}]` : host}:${port ?? 0}`
}

/** An instance with the upstream `test`; picks begin with its first server. */
export function checkupsOf(
  servers: readonly (Listening | ServerOptions | string)[],
  upstream: Omit<UpstreamOptions, 'servers'> = {},
  upstreams: Readonly<Record<string, UpstreamOptions>> = {},
): Checkups {
  const all = servers.map((server) => (typeof server === 'object' && 'server' in server ? addressOf(server) : server))
  const checkups = new Checkups({ upstreams: { test: { servers: all, ...upstream }, ...upstreams }, random: () => 0 })
  onTestFinished(() => checkups.close())
  return checkups
}

export interface Running {
  readonly checkups: Checkups
  readonly proxy: TcpProxy
  readonly port: number
  /** What was told of connections that were not passed on. */
  readonly failures: TcpFailure[]
}

/** A proxy at a free port; connections go to the upstream `test`. */
export async function startProxy(
  checkups: Checkups,
  options: TcpProxyOptions = {},
  place: Place = {},
): Promise<Running> {
  const failures: TcpFailure[] = []
  const key = options.key === undefined ? { upstream: 'test' } : {}
  const proxy = createTcpProxy(checkups, { ...key, onFailure: (failure) => failures.push(failure), ...options })
  const sockets = new Set<Socket>()
  proxy.on('connection', (socket: Socket) => {
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
  })
  const { host = '127.0.0.1', path } = place
  if (path === undefined) proxy.listen(0, host)
  else proxy.listen(path)
  await once(proxy, 'listening')
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    if (proxy.listening) await new Promise((resolve) => proxy.close(resolve))
  })
  const port = path === undefined ? (proxy.address() as AddressInfo).port : 0
  return { checkups, proxy, port, failures }
}

export interface Client {
  readonly socket: Socket
  /** Where it comes from, once it is connected; a socket forgets that when it is closed. */
  localPort: number | undefined
  /** What has come so far. */
  readonly text: () => string
  /** Resolves when the other side has ended, to all that came; rejects if the connection breaks. */
  readonly ended: Promise<string>
  /** Resolves when nothing is left of the connection, to the code of its error. */
  readonly closed: Promise<string | undefined>
}

/** A client that reads all that comes, and ends only when it is told to. */
export function clientOf(socket: Socket): Client {
  let text = ''
  let code: string | undefined
  socket.on('data', (chunk: Buffer) => (text += chunk.toString('latin1')))
  const ended = new Promise<string>((resolve, reject) => {
    socket.once('end', () => resolve(text))
    socket.on('error', (error: NodeJS.ErrnoException) => {
      code = error.code
      reject(error)
    })
    socket.once('close', () => reject(new Error('closed without an end')))
  })
  ended.catch(() => undefined)
  const closed = new Promise<string | undefined>((resolve) => socket.once('close', () => resolve(code)))
  onTestFinished(() => void socket.destroy())
  const client: Client = { socket, localPort: undefined, text: () => text, ended, closed }
  socket.once('connect', () => (client.localPort = socket.localPort))
  return client
}

/** A client of a port of 127.0.0.1, or of another place. */
export function newClient(place: number | Place): Client {
  const { host = '127.0.0.1', port = 0, path } = typeof place === 'number' ? { port: place } : place
  return clientOf(connectTcp({ ...(path === undefined ? { host, port } : { path }), allowHalfOpen: true }))
}

/** The same; its connection stands. */
export async function openClient(place: number | Place): Promise<Client> {
  const client = newClient(place)
  await once(client.socket, 'connect')
  return client
}

/** Says its name to everybody, and then says back what it hears, until it has heard the end. */
export const startNamed = (name: string, place: Place = {}): Promise<Listening> =>
  startTcp((socket) => {
    socket.allowHalfOpen = true
    socket.on('error', () => undefined)
    socket.write(`${name}:`)
    socket.pipe(socket)
  }, place)

/** What one connection after another was answered with by servers that say their names. */
export async function namesOf(port: number, count: number): Promise<string> {
  let names = ''
  for (let i = 0; i < count; i++) {
    const { socket, ended } = await openClient(port)
    socket.end()
    names += (await ended.catch(() => '-:')).slice(0, -1)
  }
  return names
}

export function serversOf(checkups: Checkups) {
  return checkups.getStatus().upstreams.flatMap(({ levels }) => levels.flatMap(({ servers }) => servers))
}

/** Connections in flight, by server. */
export const inFlight = (checkups: Checkups): number[] => serversOf(checkups).map((server) => server.inFlight)

/** Failures and bans by server. */
export const marks = (checkups: Checkups): number[] =>
  serversOf(checkups).map(({ passive }) => passive.failures + passive.bans)

/** Nothing says when a connection has ended for the balancer: its end is looked for. */
export const settled = (checkups: Checkups, expected = 0): Promise<void> =>
  eventually(() => expect(inFlight(checkups).reduce((sum, count) => sum + count, 0)).toBe(expected))
