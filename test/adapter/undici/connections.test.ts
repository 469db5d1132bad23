import { once } from 'node:events'
import type { Server } from 'node:http'
import type { TLSSocket } from 'node:tls'
import { request } from 'undici'
import { describe, expect, it } from 'vitest'
import type { DispatcherOptions } from '../../../src/adapter/undici.js'
import { eventually } from '../../support/eventually.js'
import { bytes, inFlight, marks, refusing, settled, startRaw, startServer } from '../../support/http.js'
import { whenRead, type Answer, type Backend, type Gateway, type Place } from '../../support/http.js'
import { stopSystemClock } from '../../support/system-clock.js'
import { asked, dispatching, silent, socketPath, tls, type Dispatching } from './support.js'

const asGateway = (dispatching: Dispatching) => dispatching as unknown as Gateway
const never: Answer = (req) => req.resume()

async function get({ dispatcher }: Dispatching, options: object = {}): Promise<string> {
  return (await request('http://test/', { dispatcher, ...options })).body.text()
}

async function answers(test: Dispatching, count: number, options: object = {}): Promise<string> {
  const texts: string[] = []
  for (let i = 0; i < count; i++) texts.push(await get(test, options))
  return texts.join('')
}

/** A request that waits for its answer, and what ends it. */
async function hold(test: Dispatching, { server }: Backend): Promise<{ finish: () => Promise<string> }> {
  const text = get(test)
  const [, res] = (await once(server, 'request')) as Parameters<Answer>
  return { finish: () => (res.end('held'), text) }
}

describe('connections to peers', () => {
  it.each(['GET', 'PUT', 'POST'])('are kept: 100 %s requests need one', async (method) => {
    const a = await startServer('a')
    const test = dispatching([a])
    const body = method === 'GET' ? {} : { body: bytes(50_000) }
    expect(await answers(test, 100, { method, ...body })).toBe('a'.repeat(100))
    expect(a.connections).toBe(1)
  })

  it('are as many as requests at once, without a queue', async () => {
    const a = await startServer('a')
    const test = dispatching([a])
    expect((await Promise.all(Array.from({ length: 20 }, () => get(test)))).join('')).toBe('a'.repeat(20))
    expect(a.connections).toBe(20)
    expect((await Promise.all(Array.from({ length: 20 }, () => get(test)))).join('')).toBe('a'.repeat(20))
    expect(a.connections).toBe(20)
  })

  it('are not kept with keepalive: 0, and say so', async () => {
    const a = await startServer('a')
    const test = dispatching([a], { upstream: { keepalive: 0 } })
    expect(await answers(test, 5)).toBe('aaaaa')
    expect([a.connections, a.seen[0]?.headers.connection]).toEqual([5, 'close'])
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  it('are kept up to keepalive', async () => {
    const a = await startServer('a', never)
    const test = dispatching([a], { upstream: { keepalive: 2 } })
    const held: { finish: () => Promise<string> }[] = []
    for (let i = 0; i < 5; i++) held.push(await hold(test, a))
    await Promise.all(held.map(({ finish }) => finish()))
    await eventually(() => expect(a.sockets.size).toBe(2))
    a.answer = whenRead
    expect(await answers(test, 5)).toBe('aaaaa')
    expect(a.connections).toBe(5)
  })

  it('are made again after their peer has closed them', async () => {
    const a = await startServer('a')
    const test = dispatching([a])
    for (let i = 0; i < 3; i++) {
      expect(await get(test)).toBe('a')
      for (const socket of a.sockets) socket.destroy()
      await eventually(() => expect(a.sockets.size).toBe(0))
    }
    expect([a.connections, marks(asGateway(test), a)]).toEqual([3, 0])
  })
})

describe('a connection that was kept and breaks when it is used again', () => {
  /** Answers the first request of a connection, and resets it when the second one comes. */
  const stale = (name: string) =>
    startRaw((socket) => {
      socket.once('data', () => {
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n${name}`)
        socket.once('data', () => socket.resetAndDestroy())
      })
    })

  it('is held against nobody: the peer is asked over a new one', async () => {
    const [a, b] = [await stale('a'), await stale('b')]
    const test = dispatching([a, b])
    expect(await answers(test, 6)).toBe('ababab')
    expect(await answers(test, 2, { method: 'PUT', body: 'x' })).toBe('ab')
    expect([marks(asGateway(test), a), marks(asGateway(test), b)]).toEqual([0, 0])
  })

  it('ends a POST, which the peer may have done', async () => {
    const [a, b] = [await stale('a'), await startServer('b')]
    const test = dispatching([a, b])
    expect(await answers(test, 2)).toBe('ab')
    await expect(get(test, { method: 'POST', body: 'x' })).rejects.toMatchObject({ code: 'ERR_CHECKUPS_STOPPED' })
    expect(b.seen.length).toBe(1)
  })

  it('and the new one breaks as well: that is a failure', async () => {
    let connections = 0
    const a = await startRaw((socket) => {
      const first = ++connections === 1
      socket.on('data', () => {
        if (first && socket.bytesWritten === 0) socket.write('HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na')
        else socket.resetAndDestroy()
      })
    })
    const test = dispatching([a, await startServer('b')])
    expect(await answers(test, 3)).toBe('abb')
    expect([marks(asGateway(test), a), connections]).toEqual([1, 2])
  })
})

describe('idle connections are closed', () => {
  type Change = (test: Dispatching, a: Backend, b: Backend) => unknown
  const rows: [says: string, change: Change, left: number[]][] = [
    [
      'when updateUpstream removes their peer',
      ({ checkups }, _, b) => checkups.updateUpstream('test', [{ servers: [b.address] }]),
      [0, 1],
    ],
    ['when removeServer does', ({ checkups }, a) => checkups.removeServer('test', a.address), [0, 1]],
    [
      'not when an update keeps their peer',
      ({ checkups }, a, b) =>
        checkups.updateUpstream('test', { servers: [b.address, { address: a.address, weight: 2 }] }),
      [1, 1],
    ],
    [
      'when keepalive is less',
      ({ checkups }, a, b) => checkups.updateUpstream('test', { servers: [a.address, b.address], keepalive: 0 }),
      [0, 0],
    ],
    ['when deleteUpstream removes their upstream', ({ checkups }) => checkups.deleteUpstream('test'), [0, 0]],
    ['by close', ({ dispatcher }) => dispatcher.close(), [0, 0]],
  ]
  it.each(rows)('%s', async (_, change, left) => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const test = dispatching([a, b])
    expect(await answers(test, 4)).toBe('abab')
    expect([a.sockets.size, b.sockets.size]).toEqual([1, 1])
    await change(test, a, b)
    await eventually(() => expect([a.sockets.size, b.sockets.size]).toEqual(left))
  })

  it.each(rows)('%s, and those in use when their requests have ended', async (_, change, left) => {
    const [a, b] = [await startServer('a', never), await startServer('b', never)]
    const test = dispatching([a, b])
    const held = [await hold(test, a), await hold(test, b)]
    const changed = change(test, a, b)
    expect([a.sockets.size, b.sockets.size]).toEqual([1, 1])
    expect(await Promise.all(held.map(({ finish }) => finish()))).toEqual(['held', 'held'])
    await changed
    await eventually(() => expect([a.sockets.size, b.sockets.size]).toEqual(left))
  })

  it('of an upstream that is made again: its connections are new', async () => {
    const a = await startServer('a')
    const test = dispatching([a])
    await get(test)
    await test.checkups.deleteUpstream('test')
    await test.checkups.updateUpstream('test', { servers: [a.address] })
    expect(await answers(test, 3)).toBe('aaa')
    expect(a.connections).toBe(2)
  })
})

describe('settings that change count from the next request on', () => {
  it('timeouts', async () => {
    const a = await silent()
    const test = dispatching([a], { upstream: { timeouts: { connect: 0, send: 0, read: 0 } } })
    const controller = new AbortController()
    const first = get(test, { signal: controller.signal })
    await once(a.server, 'connection')
    await test.checkups.updateUpstream('test', { servers: [a.address], timeouts: { read: 50 } })
    await expect(get(test)).rejects.toMatchObject({ errors: [{ code: 'UND_ERR_HEADERS_TIMEOUT' }] })
    controller.abort()
    await expect(first).rejects.toMatchObject({ name: 'AbortError' })
  })

  it('time limits', async () => {
    const clock = stopSystemClock()
    const [a, b] = [await silent(), await startServer('b')]
    const test = dispatching([a, b])
    await test.checkups.updateUpstream('test', { servers: [a.address, b.address], tryTimeout: 50 })
    const text = get(test)
    await asked(a)
    await clock.advance(50)
    expect(await text).toBe('b')
  })
})

describe('a peer', () => {
  const places: [says: string, place: () => Place, url: string, options: DispatcherOptions][] = [
    ['at an IPv6 address', () => ({ host: '::1' }), 'http://test/', {}],
    ['at a host name', () => ({ host: 'localhost' }), 'http://test/', {}],
    ['at a unix socket', () => ({ path: socketPath() }), 'http://test/', {}],
    ['behind TLS', () => ({ tls }), 'https://test/', { connect: { ca: tls.cert } }],
    [
      'behind TLS, which protocol says',
      () => ({ tls }),
      'http://test/',
      { protocol: 'https', connect: { ca: tls.cert } },
    ],
    [
      'behind TLS at an IPv6 address',
      () => ({ host: '::1', tls }),
      'https://test/',
      { connect: { ca: tls.cert, servername: 'localhost' } },
    ],
    ['behind TLS at a host name', () => ({ host: 'localhost', tls }), 'https://test/', { connect: { ca: tls.cert } }],
    [
      'behind TLS at a unix socket',
      () => ({ path: socketPath(), tls }),
      'https://test/',
      { connect: { ca: tls.cert } },
    ],
  ]
  it.each(places)('%s gets requests over one connection', async (_, place, url, options) => {
    const a = await startServer('a', whenRead, place())
    const test = dispatching([a], options)
    for (let i = 0; i < 5; i++) {
      const { body } = await request(url, { dispatcher: test.dispatcher, method: 'POST', body: bytes(10_000) })
      expect(await body.text()).toBe('a')
    }
    // Whatever Host says: it is no reason for another connection.
    const { body } = await request(url, { dispatcher: test.dispatcher, headers: { host: 'other.example' } })
    expect(await body.text()).toBe('a')
    expect([a.connections, inFlight(asGateway(test))]).toEqual([1, 0])
    expect(a.seen.map(({ headers }) => headers.host)).toEqual([...Array<string>(5).fill('test'), 'other.example'])
  })

  const names: [says: string, place: Place, options: DispatcherOptions, name: string | false][] = [
    ['its host', { host: 'localhost', tls }, {}, 'localhost'],
    ['none, for an IP address', { tls }, {}, false],
    ['the one that connect says', { tls }, { connect: { ca: tls.cert, servername: 'localhost' } }, 'localhost'],
    [
      'the one that connect says of its upstream',
      { tls },
      { connect: (upstream) => ({ ca: tls.cert, servername: upstream === 'test' ? 'localhost' : 'other' }) },
      'localhost',
    ],
  ]
  it.each(names)('behind TLS is told the name that it is called by: %s', async (_, place, options, name) => {
    const a = await startServer('a', whenRead, place)
    const asked = once(a.server, 'secureConnection') as Promise<[TLSSocket]>
    const test = dispatching([a], { connect: { ca: tls.cert }, ...options })
    await (await request('https://test/', { dispatcher: test.dispatcher })).body.text()
    const [socket] = await asked
    expect(socket.servername).toBe(name)
  })

  it('behind TLS resumes its session', async () => {
    const a = await startServer('a', whenRead, { tls })
    const test = dispatching([a], { connect: { ca: tls.cert }, upstream: { keepalive: 0 } })
    const reused: boolean[] = []
    ;(a.server as Server).on('secureConnection', (socket: TLSSocket) => reused.push(socket.isSessionReused()))
    for (let i = 0; i < 3; i++) await (await request('https://test/', { dispatcher: test.dispatcher })).body.text()
    expect(reused[2]).toBe(true)
  })

  it('with a certificate that nobody vouches for, or of another name, is refused; a POST goes on', async () => {
    const b = await startServer('b', whenRead, { tls })
    const rows: [connect: DispatcherOptions['connect'], code: RegExp][] = [
      [{}, /SELF_SIGNED|UNABLE_TO_VERIFY/],
      [{ ca: tls.cert, servername: 'other.example' }, /ALTNAME/],
    ]
    for (const [connect, code] of rows) {
      const test = dispatching([b], { connect })
      const work = request('https://test/', { dispatcher: test.dispatcher, method: 'POST', body: 'x' })
      await expect(work).rejects.toMatchObject({ errors: [{ code: expect.stringMatching(code) as string }] })
      expect([marks(asGateway(test), b), b.seen.length]).toEqual([1, 0])
    }
  })
})

describe('a connection that cannot be made in time', () => {
  it('is given up after timeouts.connect: a POST goes on', async () => {
    // It accepts, and does not finish the TLS handshake.
    const a = await silent()
    const b = await startServer('b', whenRead, { tls })
    // Of a busy machine the handshake of the other one may take a while.
    const timeouts = { connect: 1_000, send: 60_000, read: 60_000 }
    const test = dispatching([a, b], { upstream: { timeouts }, connect: { ca: tls.cert } })
    const { body } = await request('https://test/', { dispatcher: test.dispatcher, method: 'POST', body: 'x' })
    expect(await body.text()).toBe('b')
    expect(marks(asGateway(test), a)).toBe(1)
    await eventually(() => expect(a.sockets.size).toBe(0))
  })

  const rows: [says: string, address: string][] = [
    ['is refused', refusing()],
    ['has a socket that does not exist', 'unix:/nonexistent/app.sock'],
    ['has a name that nobody knows', 'unknown.invalid:80'],
  ]
  it.each(rows)('%s: a POST goes on', async (_, address) => {
    const test = dispatching([address, await startServer('b')])
    expect(await get(test, { method: 'POST', body: 'x' })).toBe('b')
    expect(marks(asGateway(test), { address })).toBe(1)
  })
})

it('a peer at its maxConns is passed over, and counts while its answer is read', async () => {
  const a = await startServer('a', never)
  const b = await startServer('b')
  const test = dispatching([
    { address: a.address, maxConns: 1 },
    { address: b.address, backup: true },
  ])
  const held = await hold(test, a)
  expect(await answers(test, 2)).toBe('bb')
  expect(await held.finish()).toBe('held')
  await settled(asGateway(test))
})
