import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { Worker } from 'node:worker_threads'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { ProxyFailure } from '../../src/adapter/http-proxy.js'
import { isCheckupsError } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { answers, bytes, eventsOf, inFlight, marks, open, proxies, refusing } from '../support/http.js'
import { replyTo, send, settled, SILENCE, startGateway, startRaw, startServer } from '../support/http.js'
import type { GatewayOptions, Listening, SendOptions } from '../support/http.js'

const POST = { method: 'POST', body: bytes(1_000) }
const timeouts = { connect: 2_000, send: 2_000, read: 2_000 }
const silent = () => startRaw((socket) => socket.resume())
const says = (text: string, then: (socket: Socket) => unknown = () => undefined) =>
  startRaw((socket) => void socket.once('data', () => socket.write(text, 'latin1', () => then(socket))))

/** Listens, and never accepts: what the kernel takes on its behalf is used up. */
async function unconnectable(): Promise<string> {
  const code = `
    const { parentPort } = require('node:worker_threads')
    const server = require('node:net').createServer()
    server.listen({ host: '127.0.0.1', port: 0, backlog: 1 }, () => {
      parentPort.postMessage(server.address().port)
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
    })`
  const worker = new Worker(code, { eval: true })
  const [port] = (await once(worker, 'message')) as [number]
  const fillers = [connect(port, '127.0.0.1'), connect(port, '127.0.0.1')]
  await Promise.all(fillers.map((filler) => once(filler, 'connect')))
  onTestFinished(async () => {
    for (const filler of fillers) filler.destroy()
    await worker.terminate()
  })
  return `127.0.0.1:${port}`
}

describe.each(Object.entries(proxies))('a peer that fails before it answers, with %s', (_, makeProxy) => {
  type Row = [says: string, peer: () => Promise<Listening>, options: GatewayOptions, post: number]
  const rows: Row[] = [
    ['hangs beyond tryTimeout', silent, { tryTimeout: SILENCE }, 504],
    ['hangs beyond timeouts.read', silent, { upstream: { timeouts: { ...timeouts, read: SILENCE } } }, 504],
    ['closes', () => startRaw((socket) => void socket.once('data', () => socket.end())), {}, 502],
    ['resets', () => startRaw((socket) => void socket.once('data', () => socket.resetAndDestroy())), {}, 502],
    ['resets at once', () => startRaw((socket) => socket.resetAndDestroy()), {}, 502],
    ['sends garbage', () => says('garbage\r\n\r\n'), {}, 502],
    ['sends half a head', () => says('HTTP/1.1 200 OK\r\nA: b', (socket) => socket.end()), {}, 502],
    ['sends too large a head', () => says(`HTTP/1.1 200 OK\r\nA: ${'b'.repeat(20_000)}\r\n\r\n`), {}, 502],
    ['speaks TLS', () => says('\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03'), {}, 502],
    [
      'switches protocols unasked',
      () => says('HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n'),
      {},
      502,
    ],
  ]
  it.each(rows)('%s: a GET goes on', async (_, startPeer, options) => {
    const [a, b] = [await startPeer(), await startServer('b')]
    const gateway = await startGateway([a, b], { proxy: makeProxy(), ...options })
    expect(await send(gateway)).toMatchObject({ status: 200, text: 'b' })
    expect(marks(gateway, a)).toBe(1)
    await settled(gateway)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })
  // Whether a connection stood that is reset at once, nobody can say.
  const reached = rows.filter(([says]) => says !== 'resets at once')
  it.each(reached)('%s: a POST ends', async (_, startPeer, options, status) => {
    const [a, b] = [await startPeer(), await startServer('b')]
    const gateway = await startGateway([a, b], { proxy: makeProxy(), ...options })
    expect((await send(gateway, POST)).status).toBe(status)
    expect([marks(gateway, a), b.connections]).toEqual([1, 0])
    await settled(gateway)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('also if the application listens to the errors of the proxy', async () => {
    const proxy = makeProxy()
    eventsOf(proxy).on('error', () => undefined)
    const gateway = await startGateway([refusing(), await startServer('b')], { proxy })
    expect((await send(gateway)).text).toBe('b')
    await settled(gateway)
  })
})

describe('a connection that cannot be made', () => {
  const rows: [says: string, address: () => string | Promise<string>][] = [
    ['is refused', () => refusing()],
    ['has no route', () => '127.255.255.255:80'],
    ['has a socket that does not exist', () => 'unix:/nonexistent/app.sock'],
    ['has a name that nobody knows', () => 'unknown.invalid:80'],
    ['is not answered within timeouts.connect', unconnectable],
  ]
  it.each(rows)('%s: a POST goes on', { timeout: 30_000 }, async (_, addressOf) => {
    const b = await startServer('b')
    const address = await addressOf()
    const gateway = await startGateway([address, b], {
      upstream: { timeouts: { connect: SILENCE, send: 60_000, read: 60_000 } },
    })
    expect(await send(gateway, POST)).toMatchObject({ status: 200, text: 'b' })
    expect(marks(gateway, { address })).toBe(1)
    await settled(gateway)
  })

  it('is not waited for longer where the time for sending is without limit', { timeout: 30_000 }, async () => {
    const [address, b] = [await unconnectable(), await startServer('b')]
    const gateway = await startGateway([address, b], { upstream: { timeouts: { connect: SILENCE, send: 0, read: 0 } } })
    expect(await send(gateway, POST)).toMatchObject({ status: 200, text: 'b' })
  })
})

describe.each(Object.entries(proxies))('a peer that breaks off in its answer, with %s', (_, makeProxy) => {
  const half = 'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf'
  const chunked = 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n'
  const rows: [says: string, peer: () => Promise<Listening>, options: GatewayOptions][] = [
    ['resets', () => says(half, (socket) => socket.resetAndDestroy()), {}],
    ['closes', () => says(half, (socket) => socket.end()), {}],
    ['closes a chunked one', () => says(chunked, (socket) => socket.end()), {}],
    ['sends garbage in a chunked one', () => says(`${chunked}garbage\r\n`), {}],
    ['goes silent', () => says(half), { upstream: { timeouts: { ...timeouts, read: SILENCE } } }],
  ]
  it.each(rows)('%s', async (_, startPeer, options) => {
    const [a, b] = [await startPeer(), await startServer('b')]
    const gateway = await startGateway([a, b], { proxy: makeProxy(), ...options })
    await expect(send(gateway)).rejects.toMatchObject({ code: 'ECONNRESET' })
    await settled(gateway)
    expect([marks(gateway, a), b.connections]).toEqual([1, 0])
    await eventually(() => expect(a.sockets.size).toBe(0))
  })
})

describe('a connection that was kept and breaks when it is used again', () => {
  /** Answers the first request of a connection, and closes it when the second one comes. */
  const stale = (name: string) =>
    startRaw((socket) => {
      socket.once('data', () => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${name}`)
        socket.once('data', () => socket.resetAndDestroy())
      })
    })

  it('is not seen by the client of a GET, and held against nobody: the peer is asked over a new one', async () => {
    const [a, b] = [await stale('a'), await stale('b')]
    const gateway = await startGateway([a, b])
    expect(await answers(gateway, 6)).toBe('ababab')
    await settled(gateway)
    expect([marks(gateway, a), marks(gateway, b)]).toEqual([0, 0])
  })

  it('ends a POST, which the peer may have done', async () => {
    const [a, b] = [await stale('a'), await startServer('b')]
    const gateway = await startGateway([a, b])
    expect(await answers(gateway, 2)).toBe('ab')
    expect((await send(gateway, POST)).status).toBe(502)
    await settled(gateway)
    expect(b.seen.length).toBe(1)
  })

  it('cleans a reason phrase that could not be passed on', async () => {
    const gateway = await startGateway([await says('HTTP/1.1 200 O\u0001K\r\nContent-Length: 1\r\n\r\na')])
    expect(await send(gateway)).toMatchObject({ status: 200, text: 'a' })
  })
})

describe('what a client is told', () => {
  const rows: [says: string, servers: readonly string[], options: GatewayOptions, status: number, code: string][] = [
    ['all refuse', [refusing(0), refusing(1)], {}, 502, 'ERR_CHECKUPS_TRIES_EXCEEDED'],
    ['the only one refuses', [refusing()], {}, 502, 'ERR_CHECKUPS_TRIES_EXCEEDED'],
    ['tries are used up', [refusing(0), refusing(1), refusing(2)], { tries: 2 }, 502, 'ERR_CHECKUPS_TRIES_EXCEEDED'],
    ['there is nobody', [], { upstream: { allowEmpty: true } }, 503, 'ERR_CHECKUPS_NO_PEER'],
  ]
  it.each(rows)('%s', async (_, servers, options, status, code) => {
    const failures: ProxyFailure[] = []
    const onFailure: GatewayOptions['onFailure'] = (failure, res) => {
      failures.push(failure)
      res.writeHead(failure.status, { 'x-custom': 'yes' }).end('custom')
    }
    for (const more of [{}, { onFailure }]) {
      const gateway = await startGateway(servers, { ...options, ...more })
      const { text, headers, ...reply } = await send(gateway, { path: '/x' })
      expect(reply.status).toBe(status)
      expect([text, headers['x-custom']]).toEqual(
        more.onFailure ? ['custom', 'yes'] : [`${status} ${reply.statusMessage}\n`, undefined],
      )
      expect(inFlight(gateway)).toBe(0)
    }
    expect(failures).toMatchObject([{ status, req: { url: '/x' } }])
    expect(isCheckupsError(failures[0]?.error, code as 'ERR_CHECKUPS_NO_PEER')).toBe(true)
  })

  const hanging: [says: string, options: GatewayOptions, request: SendOptions][] = [
    ['the total time is over', { timeout: 50 }, {}],
    ['the total time of the upstream is over', { upstream: { timeout: 50 } }, {}],
    ['the time of the last attempt is over', { tryTimeout: 50 }, {}],
    ['a POST was given up', { tryTimeout: 50 }, POST],
  ]
  it.each(hanging)('504: %s', async (_, options, request) => {
    const peers = [await silent(), await silent()]
    const gateway = await startGateway(peers, options)
    expect(await send(gateway, request)).toMatchObject({ status: 504, text: '504 Gateway Timeout\n' })
    await settled(gateway)
    await eventually(() => expect(peers.map(({ sockets }) => sockets.size)).toEqual([0, 0]))
  })

  it('503: all are down, or full', async () => {
    const a = await silent()
    const gateway = await startGateway([
      { address: a.address, maxConns: 1 },
      { address: refusing(), down: true },
    ])
    const first = open(gateway)
    first.end()
    await once(a.server, 'connection')
    expect(await send(gateway)).toMatchObject({ status: 503, text: '503 Service Unavailable\n' })
    first.destroy()
    await settled(gateway)
  })

  it('once, by an answer that takes longer than tryTimeout and timeout to end', async () => {
    let finish = (): unknown => undefined
    const a = await startServer('a', (_req, res) => {
      res.write('long ')
      finish = () => res.end('answer')
    })
    const others = [await silent(), await silent()]
    const gateway = await startGateway([a], {
      tryTimeout: SILENCE,
      timeout: 2 * SILENCE,
      upstreams: { silent: { servers: others.map(({ address }) => address) } },
    })
    const request = open(gateway)
    const reply = replyTo(request)
    request.end()
    await once(request, 'response')
    // The second request is only there to tell that so much time has passed: that of two tries.
    expect((await send(gateway, { headers: { host: 'silent' } })).status).toBe(504)
    finish()
    expect((await reply).text).toBe('long answer')
  })
})
