import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import { connect, type AddressInfo, type Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocket, WebSocketServer } from 'ws'
import { eventually } from '../../support/eventually.js'
import { inFlight, marks, refusing, settled, startRaw, startServer, statusOf } from '../../support/http.js'
import type { Backend } from '../../support/http.js'
import { stopSystemClock } from '../../support/system-clock.js'
import { asked, raw, says, silent, startProxy, startRecorder, type Proxying } from './support.js'

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
async function open({ port }: Proxying): Promise<{ client: WebSocket; name: string }> {
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

describe('a WebSocket', () => {
  it('is balanced, and carries data both ways', async () => {
    const gateway = await startProxy([await startEcho('a'), await startEcho('b')])
    const clients = [await open(gateway), await open(gateway), await open(gateway), await open(gateway)]
    expect(clients.map(({ name }) => name).join('')).toBe('abab')
    const { client } = clients[0]!
    for (const data of [Buffer.from('text'), Buffer.alloc(3_000_000, 7)]) {
      client.send(data)
      const [back] = (await once(client, 'message')) as [Buffer]
      expect(back.equals(data)).toBe(true)
    }
  })

  it('has its handshake passed on, with what peers are told of the client', async () => {
    const recorder = await startRecorder(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: \xfc\r\n\r\n',
    )
    const gateway = await startProxy([recorder])
    const { read } = raw(gateway, HANDSHAKE.replace('\r\n\r\n', '\r\nKeep-Alive: 5\r\n\r\n'))
    await eventually(() => expect(read()).not.toBe(''))
    expect(read()).toBe(
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX-A: \xfc\r\n\r\n',
    )
    expect(recorder.recorded().split('\r\n')).toEqual([
      'GET /x HTTP/1.1',
      'host: test',
      'connection: upgrade',
      'upgrade: websocket',
      'Sec-WebSocket-Version: 13',
      'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
      'x-forwarded-for: 127.0.0.1',
      'x-forwarded-proto: http',
      'x-forwarded-host: test',
      '',
      '',
    ])
  })

  it('counts as in flight for as long as it lives, and its peer may be full of it', async () => {
    const [a, b] = [await startEcho('a'), await startEcho('b')]
    const gateway = await startProxy([
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
    const gateway = await startProxy([refusing(0), refusing(1), await startEcho('c')])
    const { read } = raw(gateway, Buffer.concat([Buffer.from(HANDSHAKE), FRAME]))
    await eventually(() => expect(read()).toMatch(/^HTTP\/1\.1 101 [^]*\r\n\r\n\x81\x01c\x81\x02hi$/))
    expect(marks(gateway, { address: refusing(0) })).toBe(1)
  })

  it('goes to the next peer where one hangs', async () => {
    const clock = stopSystemClock()
    const a = await silent()
    const gateway = await startProxy([a, await startEcho('b')], { tryTimeout: 50 })
    const opened = open(gateway)
    await asked(a)
    await clock.advance(50)
    expect((await opened).name).toBe('b')
    expect(marks(gateway, a)).toBe(1)
  })

  it('has no time limit once it stands', async () => {
    const clock = stopSystemClock()
    const gateway = await startProxy([await startEcho('a')], {
      tryTimeout: 100,
      timeout: 100,
      upstream: { timeouts: { connect: 1_000, send: 1_000, read: 100 } },
    })
    const { client } = await open(gateway)
    await clock.advance(60_000)
    // Longer than undici's limits too; its timers are half a second coarse.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    client.send('still there')
    expect(String(((await once(client, 'message')) as [Buffer])[0])).toBe('still there')
  })
})

describe('an upgrade that is not', () => {
  const answers: [says: string, answer: string, body: string][] = [
    ['401', '401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 4', 'none'],
    ['503, which asks nobody else', '503 Service Unavailable\r\nWWW-Authenticate: Basic\r\nContent-Length: 4', 'none'],
    ['chunked', '404 Not Found\r\nwww-authenticate: Basic\r\nTransfer-Encoding: chunked', '4\r\nnone\r\n0\r\n\r\n'],
  ]
  it.each(answers)('is answered by the peer: %s', async (_, answer, body) => {
    const b = await startEcho('b')
    const gateway = await startProxy([await says(`HTTP/1.1 ${answer}\r\n\r\n${body}`), b])
    // What was meant for the other protocol is not taken for a request.
    const { socket, read } = raw(gateway, Buffer.concat([Buffer.from(HANDSHAKE), FRAME]))
    await once(socket, 'close')
    const head = answer.split('\r\n')[0]!
    expect(read().startsWith(`HTTP/1.1 ${head}\r\n`)).toBe(true)
    expect(read()).toMatch(/www-authenticate: basic/i)
    expect(read()).toMatch(/connection: close/i)
    expect(read().endsWith(`\r\n\r\n${body}`)).toBe(true)
    await settled(gateway)
    expect(b.connections).toBe(0)
  })

  it('is answered by the peer with a long body, which a slow client gets whole', async () => {
    const body = 'x'.repeat(10_000_000)
    const a = await startServer('a')
    a.server.on('upgrade', (_req, socket: Socket) => {
      socket.write(`HTTP/1.1 403 Forbidden\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    })
    const gateway = await startProxy([a])
    const socket = connect({ port: gateway.port, host: '127.0.0.1', readableHighWaterMark: 1_000 } as never)
    socket.write(HANDSHAKE)
    let length = 0
    for await (const chunk of socket) length += (chunk as Buffer).length
    expect(length).toBeGreaterThan(body.length)
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)
  })

  const failures: [says: string, servers: string[], status: string][] = [
    ['all refuse', [refusing(0), refusing(1)], '502 Bad Gateway'],
    ['there is nobody', [], '503 Service Unavailable'],
  ]
  it.each(failures)('is answered by the proxy: %s', async (_, servers, status) => {
    const gateway = await startProxy(servers, { upstream: { allowEmpty: true } })
    const { socket, read } = raw(gateway, HANDSHAKE)
    await once(socket, 'close')
    expect(read()).toMatch(new RegExp(`^HTTP/1\\.1 ${status}\r\n[^]*\r\n\r\n${status}\n$`))
  })

  it('in time', async () => {
    const gateway = await startProxy([await silent()], { timeout: 50 })
    const { socket, read } = raw(gateway, HANDSHAKE)
    await once(socket, 'close')
    expect(read()).toMatch(/^HTTP\/1\.1 504 /)
  })

  const refused: [says: string, request: string, status: number][] = [
    ['a body', HANDSHAKE.replace('\r\n\r\n', '\r\nContent-Length: 2\r\n\r\nhi'), 400],
    ['another method', HANDSHAKE.replace('GET', 'POST'), 400],
    ['two hosts', HANDSHAKE.replace('\r\n\r\n', '\r\nHost: other\r\n\r\n'), 400],
  ]
  it.each(refused)('%s: is refused', async (_, request, status) => {
    const a = await startEcho('a')
    const gateway = await startProxy([a])
    const { socket, read } = raw(gateway, request)
    await once(socket, 'close')
    expect(read()).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    expect(a.connections).toBe(0)
  })

  it('to HTTP/2, in which anything could be asked of the peer, is an ordinary request', async () => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder], { forwarded: false })
    const h2c = 'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n'
    const { socket, read } = raw(gateway, `GET / HTTP/1.1\r\nHost: test\r\n${h2c}\r\n`)
    await once(socket, 'close')
    expect(read()).toMatch(/^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nr$/)
    expect(recorder.recorded()).toBe('GET / HTTP/1.1\r\nhost: test\r\nconnection: keep-alive\r\n\r\n')
  })
})

describe('whoever goes away', () => {
  it('a client before the answer: counts against nobody, and nobody else is asked', async () => {
    const [a, b] = [await silent(), await startEcho('b')]
    for (const leave of ['destroy', 'resetAndDestroy', 'end'] as const) {
      const gateway = await startProxy([a, b])
      const { socket } = raw(gateway, HANDSHAKE)
      await once(a.server, 'connection')
      socket[leave]()
      await settled(gateway)
      expect([marks(gateway, a), b.connections]).toEqual([0, 0])
      await eventually(() => expect(a.sockets.size).toBe(0))
    }
  })

  it('either side, later: what it has said before reaches the other one', async () => {
    const head = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'
    const last = 'x'.repeat(1_000_000)
    const a = await says(head + last, (socket) => socket.end())
    const gateway = await startProxy([a])
    const { socket, read } = raw(gateway, HANDSHAKE)
    await once(socket, 'close')
    expect(read().length).toBe(head.length + last.length)
    await settled(gateway)
    expect(marks(gateway, a)).toBe(0)

    let got = 0
    const b = await startRaw((peer) => {
      peer.once('data', () => {
        peer.write(head)
        peer.on('data', (chunk) => (got += chunk.length))
      })
    })
    const other = await startProxy([b])
    const client = raw(other, HANDSHAKE)
    await eventually(() => expect(client.read()).toContain('101'))
    client.socket.end(last)
    await eventually(() => expect(got).toBe(last.length))
    await settled(other)
    await eventually(() => expect(b.sockets.size).toBe(0))
    expect(marks(other, b)).toBe(0)
  })

  it('a peer that resets takes the client with it', async () => {
    const a = await startEcho('a')
    const gateway = await startProxy([a])
    const { client } = await open(gateway)
    const closed = once(client, 'close')
    for (const socket of a.sockets) socket.resetAndDestroy()
    await closed
    await settled(gateway)
  })
})

it('upgrades on a server without a listener for them are ordinary requests', async () => {
  const recorder = await startRecorder()
  const gateway = await startProxy([recorder], { forwarded: false })
  const server = createServer(gateway.handler as RequestListener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => server.close().closeAllConnections())
  const { read } = raw(server.address() as AddressInfo, HANDSHAKE)
  await eventually(() => expect(read()).toMatch(/\r\n\r\nr$/))
  expect(recorder.recorded()).not.toMatch(/upgrade/i)
  expect(inFlight(gateway)).toBe(0)
})
