import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { eventually } from '../support/eventually.js'
import { inFlight, marks, proxies, refusing, settled, startGateway, startRaw } from '../support/http.js'
import { SILENCE, startServer, statusOf } from '../support/http.js'
import type { Backend, Gateway, GatewayOptions } from '../support/http.js'

const { httpxy: _webOnly, ...upgrading } = proxies

/** Sends its name, and then everything back. */
async function startEcho(name: string): Promise<Backend> {
  const backend = await startServer(name)
  const sockets = new WebSocketServer({ server: backend.server as never })
  sockets.on('connection', (socket) => {
    socket.on('error', () => undefined)
    socket.send(name)
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }))
  })
  return backend
}

/** A client, and the name that the backend has sent it. */
async function open({ port }: Gateway): Promise<{ client: WebSocket; name: string }> {
  const client = new WebSocket(`ws://127.0.0.1:${port}/`, { headers: { host: 'test' } })
  onTestFinished(() => client.terminate())
  const [name] = (await once(client, 'message')) as [Buffer]
  return { client, name: String(name) }
}

const HANDSHAKE =
  'GET /x HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n' +
  'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'
/** "hi" as a client frame with an empty mask. */
const FRAME = Buffer.from([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69])

/** A handshake by hand; `text` grows. */
function raw({ port }: Gateway, ...data: (string | Buffer)[]): { socket: Socket; read: () => string } {
  const socket = connect({ port, host: '127.0.0.1' }).setEncoding('latin1')
  onTestFinished(() => void socket.destroy())
  let text = ''
  socket.on('data', (chunk: string) => (text += chunk)).on('error', () => undefined)
  socket.write(Buffer.concat(data.map((piece) => (typeof piece === 'string' ? Buffer.from(piece, 'latin1') : piece))))
  return { socket, read: () => text }
}
const says = (text: string, then: (socket: Socket) => unknown = () => undefined) =>
  startRaw((socket) => void socket.once('data', () => socket.write(text, 'latin1', () => then(socket))))

describe.each(Object.entries(upgrading))('a WebSocket, with %s', (_, makeProxy) => {
  const start = (servers: Parameters<typeof startGateway>[0], options: GatewayOptions = {}) =>
    startGateway(servers, { proxy: makeProxy(), ...options })

  it('is balanced, and carries data both ways', async () => {
    const gateway = await start([await startEcho('a'), await startEcho('b')])
    const clients = [await open(gateway), await open(gateway), await open(gateway), await open(gateway)]
    expect(clients.map(({ name }) => name).join('')).toBe('abab')
    const { client } = clients[0]!
    for (const data of [Buffer.from('text'), Buffer.alloc(300_000, 7)]) {
      client.send(data)
      const [back] = (await once(client, 'message')) as [Buffer]
      expect(back.equals(data)).toBe(true)
    }
  })

  it('counts as in flight for as long as it lives, and its peer may be full of it', async () => {
    const [a, b] = [await startEcho('a'), await startEcho('b')]
    const gateway = await start([
      { address: a.address, maxConns: 1 },
      { address: b.address, backup: true },
    ])
    const first = await open(gateway)
    expect(statusOf(gateway).get(a.address)?.inFlight).toBe(1)
    expect((await open(gateway)).name).toBe('b')
    first.client.close()
    await settled(gateway, 1)
    expect((await open(gateway)).name).toBe('a')
    expect(marks(gateway, a)).toBe(0)
  })

  it('goes to the next peer where the first ones refuse, with what came along with its handshake', async () => {
    const gateway = await start([refusing(0), refusing(1), await startEcho('c')])
    const { read } = raw(gateway, HANDSHAKE, FRAME)
    await eventually(() => expect(read()).toMatch(/^HTTP\/1\.1 101 [^]*\r\n\r\n\x81\x01c\x81\x02hi$/))
    expect(marks(gateway, { address: refusing(0) })).toBe(1)
  })

  it('goes to the next peer where one hangs', async () => {
    const a = await startRaw((socket) => socket.resume())
    const gateway = await start([a, await startEcho('b')], { tryTimeout: SILENCE })
    expect((await open(gateway)).name).toBe('b')
    expect([marks(gateway, a), inFlight(gateway)]).toEqual([1, 1])
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('goes to the next peer where one resets', async () => {
    const a = await startRaw((socket) => void socket.once('data', () => socket.resetAndDestroy()))
    const gateway = await start([a, await startEcho('b')])
    expect((await open(gateway)).name).toBe('b')
    expect(marks(gateway, a)).toBe(1)
  })

  const failures: [says: string, servers: readonly string[], options: GatewayOptions, line: string][] = [
    ['nobody is there', [], { upstream: { allowEmpty: true } }, '503 Service Unavailable'],
    ['all refuse', [refusing(0), refusing(1)], {}, '502 Bad Gateway'],
    ['the key is undefined', [refusing()], { key: () => undefined }, '502 Bad Gateway'],
  ]
  it.each(failures)('is answered with an error if %s', async (_, servers, options, line) => {
    const gateway = await start(servers, options)
    const { socket, read } = raw(gateway, HANDSHAKE)
    await once(socket, 'close')
    expect(read()).toMatch(new RegExp(`^HTTP/1\\.1 ${line}\r\n[^]*\r\n\r\n${line}\n$`))
    expect(inFlight(gateway)).toBe(0)
  })

  const refusals: [says: string, status: string, marked: number, options: GatewayOptions][] = [
    ['401', '401 Unauthorized', 0, {}],
    ['503', '503 Service Unavailable', 1, {}],
    ['404 that means next', '404 Not Found', 0, { upstream: { statuses: { 404: 'next' } } }],
  ]
  it.each(refusals)(
    'is refused by its peer with a %s, and the client gets that',
    async (_, status, marked, options) => {
      const answer = `HTTP/1.1 ${status}\r\nContent-Length: 4\r\nWWW-Authenticate: Basic\r\n\r\nnone`
      const [a, b] = [await says(answer, (socket) => socket.end()), await startServer('b')]
      const gateway = await start([a, b], options)
      const { socket, read } = raw(gateway, HANDSHAKE)
      await once(socket, 'close')
      expect(read().toLowerCase()).toMatch(/^http\/1\.1 \d+ [^]*www-authenticate: basic[^]*\r\n\r\nnone$/)
      expect(read()).toContain(status)
      await settled(gateway)
      expect([marks(gateway, a), b.connections]).toEqual([marked, 0])
    },
  )

  it('is refused by its peer, which breaks off: the client does not wait for the rest', async () => {
    const a = await says('HTTP/1.1 401 No\r\nContent-Length: 40\r\n\r\nhalf', (socket) => socket.resetAndDestroy())
    const gateway = await start([a])
    const { socket } = raw(gateway, HANDSHAKE)
    await once(socket, 'close')
    await settled(gateway)
  })

  const ends: [says: string, end: (socket: Socket) => unknown][] = [
    ['is cut off', (socket) => socket.resetAndDestroy()],
    ['ends', (socket) => socket.end()],
  ]
  it.each(ends)('closes at the client when its backend %s', async (_, end) => {
    const a = await startEcho('a')
    const gateway = await start([a, await startEcho('b')])
    const { client } = await open(gateway)
    for (const socket of a.sockets) end(socket)
    const [code] = (await once(client, 'close')) as [number]
    expect(code).toBe(1006)
    await settled(gateway)
  })

  const leaving: [says: string, leave: (client: WebSocket) => unknown][] = [
    ['closes', (client) => client.close()],
    ['breaks off', (client) => client.terminate()],
  ]
  it.each(leaving)('ends at the backend when the client %s, and is held against nobody', async (_, leave) => {
    const a = await startEcho('a')
    const gateway = await start([a, await startEcho('b')])
    const { client } = await open(gateway)
    leave(client)
    await settled(gateway)
    await eventually(() => expect(a.sockets.size).toBe(0))
    expect(marks(gateway, a)).toBe(0)
  })

  it('whose client leaves before the peer has answered is held against nobody', async () => {
    const a = await startRaw((socket) => socket.resume())
    const gateway = await start([a, await startEcho('b')])
    const { socket } = raw(gateway, HANDSHAKE)
    await once(a.server, 'connection')
    expect(inFlight(gateway)).toBe(1)
    socket.destroy()
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  const odd: [says: string, request: string][] = [
    ['to another protocol', HANDSHAKE.replace('websocket', 'h2c')],
    ['by a POST', HANDSHAKE.replace('GET', 'POST')],
  ]
  it.each(odd)('an upgrade %s, which the proxy does not do, ends', async (_, request) => {
    const a = await startEcho('a')
    const gateway = await start([a, await startEcho('b')])
    const { socket } = raw(gateway, request)
    await once(socket, 'close')
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
  })

  it('leaves no listeners on the socket of its client for every peer that was tried', async () => {
    const gateway = await start([...Array.from({ length: 20 }, (_, n) => refusing(n)), await startEcho('z')])
    expect((await open(gateway)).name).toBe('z')
    const [socket] = gateway.sockets
    const counts = ['error', 'close', 'finish', 'end'].map((event) => socket!.listenerCount(event))
    expect(Math.max(...counts)).toBeLessThan(10)
  })
})
