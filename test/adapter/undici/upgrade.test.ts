import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import type { Duplex } from 'node:stream'
import { WebSocket } from 'undici'
import { describe, expect, it, onTestFinished } from 'vitest'
import { WebSocketServer } from 'ws'
import { inFlight, marks, refusing, settled, startServer, statusOf } from '../../support/http.js'
import type { Backend, Gateway } from '../../support/http.js'
import { dispatching, says, type Dispatching } from './support.js'

const asGateway = (dispatching: Dispatching) => dispatching as unknown as Gateway

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

/** Turns what comes to upper case, after an upgrade or a CONNECT. */
async function startShouting(name: string): Promise<Backend> {
  const backend = await startServer(name)
  const shout = (head: string) => (_req: unknown, socket: Duplex) => {
    socket.on('error', () => undefined)
    socket.write(head)
    socket.on('data', (chunk: Buffer) => socket.write(`${name}: ${chunk.toString().toUpperCase()}`))
  }
  backend.server.on('upgrade', shout('HTTP/1.1 101 Y\r\nConnection: upgrade\r\nUpgrade: shouting\r\n\r\n'))
  backend.server.on('connect', shout('HTTP/1.1 200 OK\r\n\r\n'))
  return backend
}

describe('upgrades and CONNECT by dispatch', () => {
  const ways: [says: string, open: (test: Dispatching) => Promise<Duplex>][] = [
    [
      'upgrade',
      async ({ dispatcher }) => {
        const options = { origin: 'http://test', path: '/', protocol: 'shouting' }
        return (await dispatcher.upgrade(options)).socket
      },
    ],
    [
      'CONNECT',
      async ({ dispatcher }) => (await dispatcher.connect({ origin: 'http://test', path: 'far.example:80' })).socket,
    ],
  ]
  it.each(ways)('%s: is balanced, goes on where a peer refuses, and is in flight while it lives', async (_, open) => {
    const [a, b] = [await startShouting('a'), await startShouting('b')]
    const test = dispatching([refusing(), a, b])
    const sockets = [await open(test), await open(test)]
    const said: string[] = []
    for (const socket of sockets) {
      socket.write('hello')
      said.push(String((await once(socket, 'data'))[0]))
    }
    expect(said).toEqual(['a: HELLO', 'b: HELLO'])
    expect(statusOf(asGateway(test)).get(a.address)?.inFlight).toBe(1)
    // A connection that is the caller's is not waited for.
    await test.dispatcher.close()
    for (const socket of sockets) socket.destroy()
    await settled(asGateway(test))
    expect([marks(asGateway(test), a), marks(asGateway(test), { address: refusing() })]).toEqual([0, 1])
  })

  it.each(ways)('%s: is not asked of another peer once one has been connected to', async (_, open) => {
    const [a, b] = [await says('', (socket) => socket.destroy()), await startShouting('b')]
    const test = dispatching([a, b])
    await expect(open(test)).rejects.toMatchObject({ code: 'ERR_CHECKUPS_STOPPED' })
    expect([marks(asGateway(test), a), b.connections, inFlight(asGateway(test))]).toEqual([1, 0, 0])
  })

  it('a refusal is no failure of the peer', async () => {
    const server = createHttpServer((_req, res) => res.writeHead(403).end()).listen(0, '127.0.0.1')
    await once(server, 'listening')
    onTestFinished(() => server.close().closeAllConnections())
    const address = `127.0.0.1:${(server.address() as { port: number }).port}`
    const test = dispatching([address])
    const options = { origin: 'http://test', path: '/', protocol: 'shouting' }
    await expect(test.dispatcher.upgrade(options)).rejects.toThrow()
    await settled(asGateway(test))
    expect(marks(asGateway(test), { address })).toBe(0)
  })
})

it("a WebSocket of undici's is balanced", async () => {
  const test = dispatching([await startEcho('a'), refusing(), await startEcho('b')])
  const open = async () => {
    const socket = new WebSocket('ws://test/', { dispatcher: test.dispatcher })
    const [message] = (await once(socket as never, 'message')) as [{ data: unknown }]
    return { socket, name: message.data }
  }
  const opened = [await open(), await open(), await open()]
  expect(opened.map(({ name }) => name).join('')).toMatch(/^(aba|abb)$/)
  const { socket } = opened[0]!
  socket.send('there and back')
  const [message] = (await once(socket as never, 'message')) as [{ data: unknown }]
  expect(message.data).toBe('there and back')
  for (const { socket } of opened) socket.close()
  await settled(asGateway(test))
})
