/** Servers that are probed, good and bad ones, on loopback. Whatever a test starts is closed when it ends. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished } from 'vitest'
import { parseEndpoint, type Endpoint } from '../../../src/address.js'
import { failureText } from '../../../src/health/probe/lib/failure.js'
import type { ParseProbe, Probe, ProbeReport, ProbeTarget } from '../../../src/health/probe/probe.js'
import { PeerObject } from '../../../src/upstream/peer.js'
import { eventually } from '../../support/eventually.js'

/** Where a server listens: at a port, of 127.0.0.1 if no host is named, or at a unix socket. */
export interface Place {
  readonly port?: number
  readonly host?: string
  readonly path?: string
}

/** A server that was started, and the connections to it. */
export interface Listening extends Place {
  readonly port: number
  readonly server: Server
  /** Those that are open. */
  readonly sockets: ReadonlySet<Socket>
  /** How many there were so far. */
  connections: number
}

/** Where nobody listens: ports below 1024 are never given to anybody by chance. */
export const refusing: Place = { port: 1 }

/** What a probe is given for a place. */
export function targetOf(place: Place): ProbeTarget {
  const { host = '127.0.0.1', port = 0, path } = place
  const address = path !== undefined ? `unix:${path}` : `${host.includes(':') ? `[${host}]` : host}:${port}`
  const endpoint: Endpoint = parseEndpoint('target', '', address)
  const peer = new PeerObject('test', endpoint, {}, undefined)
  return { peer, host: peer.host, port: peer.port, connect: peer.connect }
}

/** A probe of these options, closed at the end of the test. */
export function probeOf(parse: ParseProbe, options: Record<string, unknown>, now = Date.now()): Probe {
  const probe = parse('heartbeat', options)({ wallTime: () => now })
  onTestFinished(() => probe.close?.())
  return probe
}

/** What a check came to, as the scheduler reads it: a rejection is an `err` with the failure in words. */
export async function outcome(check: Promise<ProbeReport>): Promise<ProbeReport> {
  return check.catch((error: unknown) => ({ status: 'err' as const, message: failureText(error) }))
}

/** One check with a signal that nobody aborts. */
export function checkOnce(probe: Probe, place: Place | ProbeTarget): Promise<ProbeReport> {
  return outcome(probe.check('peer' in place ? place : targetOf(place), new AbortController().signal))
}

/** Starts a server, of whatever kind, at a free port or at a unix socket. */
export async function listen(server: Server, place: Place = {}): Promise<Listening> {
  const sockets = new Set<Socket>()
  server.on('connection', (socket: Socket) => {
    listening.connections++
    sockets.add(socket)
    socket.on('error', () => undefined).once('close', () => sockets.delete(socket))
  })
  const { host = '127.0.0.1', path } = place
  if (path === undefined) server.listen(0, host)
  else server.listen(path)
  await once(server, 'listening')
  const port = path === undefined ? (server.address() as AddressInfo).port : 0
  const listening: Listening = { ...place, port, server, sockets, connections: 0 }
  onTestFinished(async () => {
    for (const socket of sockets) socket.destroy()
    if (server.listening) await new Promise((resolve) => server.close(resolve))
  })
  return listening
}

/** A TCP server that does with a connection what it is told to. */
export function startTcp(onConnection: (socket: Socket) => unknown, place: Place = {}): Promise<Listening> {
  return listen(
    createServer((socket) => void onConnection(socket)),
    place,
  )
}

/** A server to which no connection opens: its process is busy for ever, and its backlog is full. */
export async function startStuck(): Promise<Place> {
  const script = `const server = require('net').createServer().listen({ port: 0, host: '127.0.0.1', backlog: 1 }, () => {
    require('fs').writeSync(1, String(server.address().port))
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  })`
  const child = spawn(process.execPath, ['-e', script], { stdio: ['ignore', 'pipe', 'inherit'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const [port] = (await once(child.stdout, 'data')) as [Buffer]
  const place = { port: Number(port) }
  // Linux keeps one more than the backlog says, and drops who comes then.
  for (let i = 0; i < 2; i++) {
    const socket = connect({ ...targetOf(place).connect })
    onTestFinished(() => void socket.destroy())
    await once(socket, 'connect')
  }
  return place
}

/** Connections of this process that are open or opening. */
export function openSockets(): number {
  return process.getActiveResourcesInfo().filter((name) => name.startsWith('TCPSocket')).length
}

/** Passes connections on to another server; `answer` says what becomes of each piece that comes back, one after another. */
export function startRelay(
  to: Place,
  answer: (chunk: Buffer, client: Socket) => unknown = (chunk, client) => client.write(chunk),
  place: Place = {},
): Promise<Listening> {
  return startTcp((client) => {
    const server = connect({ ...targetOf(to).connect })
    let said: Promise<unknown> = Promise.resolve()
    client.setNoDelay(true).pipe(server)
    const say = (what: () => unknown) => void (said = said.then(what))
    server.on('data', (chunk: Buffer) => say(() => answer(chunk, client)))
    server.once('error', () => client.destroy()).once('end', () => say(() => client.end()))
    client.once('close', () => server.destroy())
  }, place)
}

/** A path for a unix socket; its directory is gone when the test ends. */
export function socketPath(): string {
  const directory = mkdtempSync(join(tmpdir(), 'probe-'))
  onTestFinished(() => rmSync(directory, { recursive: true, force: true }))
  return join(directory, 'test.sock')
}

/** One turn of the event loop: all that was due has run. */
export const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

/** Until nobody is connected any more. */
export function deserted({ sockets }: Listening): Promise<void> {
  return eventually(() => expect(sockets.size).toBe(0))
}
