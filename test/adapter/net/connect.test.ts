import { readFileSync } from 'node:fs'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { createServer, TLSSocket } from 'node:tls'
import { describe, expect, it, onTestFinished } from 'vitest'
import { connect, type NetConnectOptions } from '../../../src/adapter/net.js'
import { AttemptsError, Checkups, ConfigError, UnknownUpstreamError } from '../../../src/index.js'
import { listen, openSockets } from '../../health/probe/servers.js'
import { eventually } from '../../support/eventually.js'
import { certificate } from '../../support/servers.js'
import { stopSystemClock } from '../../support/system-clock.js'
import {
  addressOf,
  checkupsOf,
  clientOf,
  ENOUGH_KEYS,
  inFlight,
  marks,
  refusing,
  serversOf,
  settled,
} from './harness.js'
import { socketPath, startNamed, startStuck, startTcp, type Client, type Listening } from './harness.js'

const [cert, key] = [readFileSync(certificate.cert), readFileSync(certificate.key)]
const open = async (checkups: Checkups, options?: NetConnectOptions): Promise<Client & { address: string }> => {
  const { socket, peer } = await connect(checkups, 'test', options)
  return { ...clientOf(socket), address: peer.address }
}
const failure = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  )

describe('connect', () => {
  it('gives a connection to one peer after another, by its weight', async () => {
    const [a, b] = [await startNamed('a'), await startNamed('b')]
    const checkups = checkupsOf([a, b])
    const clients = [await open(checkups), await open(checkups), await open(checkups)]
    await eventually(() => expect(clients.map(({ text }) => text())).toEqual(['a:', 'b:', 'a:']))
    expect(clients.map(({ address }) => address)).toEqual([a, b, a].map(({ port }) => `127.0.0.1:${port}`))
    expect(inFlight(checkups)).toEqual([2, 1])
    for (const { socket } of clients) socket.end()
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })

  it.each<[string, (name: string) => Promise<Listening>]>([
    ['IPv6', (name) => startNamed(name, { host: '::1' })],
    ['a unix socket', (name) => startNamed(name, { path: socketPath() })],
  ])('connects to %s', async (_, start) => {
    const { text, socket } = await open(checkupsOf([await start('a')]))
    await eventually(() => expect(text()).toBe('a:'))
    socket.end()
  })

  it('connects to a host name', async () => {
    const a = await startNamed('a')
    const { text, address } = await open(checkupsOf([`localhost:${a.port}`]))
    await eventually(() => expect(text()).toBe('a:'))
    expect(address).toBe(`localhost:${a.port}`)
  })

  it.each([
    ['refuses', () => refusing()],
    ['has a socket that does not exist', () => 'unix:/nonexistent/app.sock'],
    ['has a name that nobody knows', () => 'unknown.invalid:80'],
    ['does not answer', async () => `127.0.0.1:${(await startStuck()).port!}`],
  ])('goes on when a peer %s', async (says, bad) => {
    const clock = stopSystemClock()
    const checkups = checkupsOf([await bad(), await startNamed('b')], { timeouts: { connect: 300 } })
    const opened = open(checkups)
    if (says === 'does not answer') await clock.advance(300)
    const { text, socket } = await opened
    await eventually(() => expect(text()).toBe('b:'))
    expect(marks(checkups)).toEqual([1, 0])
    socket.end()
    await settled(checkups)
  })

  it('goes on when a peer takes longer than tryTimeout', async () => {
    const clock = stopSystemClock()
    const stuck = `127.0.0.1:${(await startStuck()).port!}`
    const checkups = checkupsOf([stuck, await startNamed('b')])
    const opened = open(checkups, { tryTimeout: 100 })
    await clock.advance(100)
    const { text } = await opened
    await eventually(() => expect(text()).toBe('b:'))
    expect([marks(checkups), inFlight(checkups)]).toEqual([
      [1, 0],
      [0, 1],
    ])
  })

  it('says of every peer why it could not be had', async () => {
    const checkups = checkupsOf([refusing(0), refusing(1)], { maxFails: 0 })
    const error = (await failure(connect(checkups, 'test'))) as AttemptsError
    expect(error).toBeInstanceOf(AttemptsError)
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_TRIES_EXCEEDED' })
    expect(error.errors).toMatchObject([{ code: 'ECONNREFUSED' }, { code: 'ECONNREFUSED' }])
    expect(await failure(connect(checkups, 'test', { tries: 1 }))).toMatchObject({ errors: [{ code: 'ECONNREFUSED' }] })
    expect(await failure(connect(checkups, 'none'))).toBeInstanceOf(UnknownUpstreamError)
    expect(inFlight(checkups)).toEqual([0, 0])
  })

  it('gives up after timeout, and at the signal', async () => {
    const stuck = await startStuck()
    const before = openSockets()
    const checkups = checkupsOf([`127.0.0.1:${stuck.port!}`], { maxFails: 0 })
    const late = await failure(connect(checkups, 'test', { timeout: 50 }))
    expect(late).toMatchObject({ code: 'ERR_CHECKUPS_TIMEOUT' })
    const controller = new AbortController()
    const pending = failure(connect(checkups, 'test', { signal: controller.signal }))
    await eventually(() => expect(inFlight(checkups)).toEqual([1]))
    const reason = new Error('not needed any more')
    controller.abort(reason)
    expect(await pending).toMatchObject({ code: 'ERR_CHECKUPS_ABORTED', cause: reason })
    const aborted = failure(connect(checkups, 'test', { signal: controller.signal }))
    expect(await aborted).toMatchObject({ code: 'ERR_CHECKUPS_ABORTED', cause: reason })
    await settled(checkups)
    await eventually(() => expect(openSockets()).toBeLessThanOrEqual(before))
  })

  it('leaves a connection that stands alone: neither timeout nor signal ends it', async () => {
    const clock = stopSystemClock()
    const checkups = checkupsOf([await startNamed('a')])
    const controller = new AbortController()
    const { socket, text } = await open(checkups, { signal: controller.signal, timeout: 40, tryTimeout: 20 })
    controller.abort()
    await clock.advance(1_000)
    socket.write('still there')
    await eventually(() => expect(text()).toBe('a:still there'))
    expect(inFlight(checkups)).toEqual([1])
  })

  it('chooses by hashKey and clusterKey', async () => {
    const [a, b] = [await startNamed('a'), await startNamed('b')]
    const named = new Checkups({
      upstreams: {
        test: { cluster: { one: { servers: [addressOf(a)] }, two: { servers: [addressOf(b)] } } },
      },
    })
    onTestFinished(() => named.close())
    expect((await open(named, { clusterKey: 'two' })).address).toBe(addressOf(b))
    const hashed = checkupsOf([a, b], { balancer: 'consistent-hash' })
    const placeOf = async (hashKey: string) => (await open(hashed, { hashKey })).address
    const keys = Array.from({ length: ENOUGH_KEYS }, (_, i) => `key ${i}`)
    const places = await Promise.all(keys.map(placeOf))
    expect(await Promise.all(keys.map(placeOf))).toEqual(places)
    expect(new Set(places).size).toBe(2)
  })

  it('passes on options of net.connect, but not where to', async () => {
    const checkups = checkupsOf([await startTcp((socket) => socket.end(String(socket.remoteAddress)))])
    const connectOptions = { localAddress: '127.0.0.2', port: 1, host: '127.0.0.9' }
    const { ended } = await open(checkups, { connectOptions })
    expect(await ended).toBe('127.0.0.2')
  })

  it('refuses options that there are not', async () => {
    const checkups = checkupsOf([refusing()])
    const retries = { retries: 3 } as NetConnectOptions
    expect(await failure(connect(checkups, 'test', retries))).toBeInstanceOf(ConfigError)
    expect(await failure(connect(checkups, 'test', { tls: { cert: 'none' } }))).toBeInstanceOf(ConfigError)
    expect(marks(checkups)).toEqual([0])
  })
})

describe('connect with TLS', () => {
  const startTls = (name: string) =>
    listen(createServer({ cert, key }, (socket) => socket.on('error', () => undefined).end(name)))

  it('gives a socket whose handshake is done', async () => {
    const a = await startTls('a')
    const byName = await open(checkupsOf([`localhost:${a.port}`]), { tls: { ca: cert } })
    expect(byName.socket).toBeInstanceOf(TLSSocket)
    expect([(byName.socket as TLSSocket).authorized, (byName.socket as TLSSocket).getProtocol()]).toEqual([
      true,
      'TLSv1.3',
    ])
    expect(await byName.ended).toBe('a')
    const byAddress = await open(checkupsOf([a]), { tls: { ca: cert } })
    expect(await byAddress.ended).toBe('a')
  })

  it('goes on when a certificate is not trusted, or for another name', async () => {
    const [a, b] = [await startTls('a'), await startTls('b')]
    const checkups = checkupsOf([`127.0.0.2:${a.port}`, b])
    const error = await failure(connect(checkupsOf([a]), 'test', { tls: true }))
    expect(error).toMatchObject({ errors: [{ code: 'DEPTH_ZERO_SELF_SIGNED_CERT' }] })
    const servername = await failure(connect(checkupsOf([a]), 'test', { tls: { ca: cert, servername: 'b.test' } }))
    expect(servername).toMatchObject({ errors: [{ code: 'ERR_TLS_CERT_ALTNAME_INVALID' }] })
    expect(await (await open(checkups, { tls: { ca: cert } })).ended).toBe('b')
  })

  it('goes on when a peer accepts and does not speak TLS, within timeouts.connect', async () => {
    const clock = stopSystemClock()
    const mute = await startTcp((socket) => socket.resume())
    const checkups = checkupsOf([mute, await startTls('b')], { timeouts: { connect: 100 } })
    const opened = open(checkups, { tls: { ca: cert } })
    const [socket] = (await once(mute.server, 'connection')) as [Socket]
    await once(socket, 'data')
    await clock.advance(100)
    const { ended } = await opened
    expect(await ended).toBe('b')
    expect(marks(checkups)).toEqual([1, 0])
    await eventually(() => expect(mute.sockets.size).toBe(0))
  })
})

describe('what the end of a connection says of its peer', () => {
  /** The peer's state after one connection that `act` makes an end of. */
  async function after(
    serve: Parameters<typeof startTcp>[0],
    act: (client: Client) => unknown = () => undefined,
  ): Promise<{ failures: number; state: string }> {
    const checkups = checkupsOf([await startTcp(serve), await startNamed('b')], { maxFails: 5 })
    const client = await open(checkups)
    await act(client)
    await client.closed
    await settled(checkups)
    const [{ passive }] = serversOf(checkups) as [ReturnType<typeof serversOf>[number]]
    return { failures: passive.failures, state: passive.state }
  }
  const ok = { failures: 0, state: 'up' }
  const failed = { failures: 1, state: 'up' }

  it('nothing against it: it has said something, and the connection breaks', async () => {
    const reset = (socket: Socket) => {
      socket.write('hello')
      socket.once('data', () => socket.resetAndDestroy())
    }
    expect(await after(reset, ({ socket }) => once(socket, 'data').then(() => socket.write('x')))).toEqual(ok)
  })

  it('a failure: the connection breaks before it has said anything', async () => {
    expect(
      await after(
        (socket) => socket.once('data', () => socket.resetAndDestroy()),
        ({ socket }) => socket.write('x'),
      ),
    ).toEqual(failed)
    // Whether the connection stood nobody can say: this side goes on to the other peer, or is told.
    expect(
      await after(
        (socket) => socket.resetAndDestroy(),
        ({ socket }) => socket.end(),
      ),
    ).toEqual(failed)
  })

  it('a failure: it was spoken to and ends without a word', async () => {
    expect(
      await after(
        (socket) => socket.once('data', () => socket.end()),
        ({ socket }) => socket.write('x'),
      ),
    ).toEqual(failed)
  })

  it('nothing: it ends without a word when nobody has spoken, as after a time', async () => {
    expect(
      await after(
        (socket) => socket.end(),
        ({ socket }) => once(socket, 'end').then(() => socket.end()),
      ),
    ).toEqual(ok)
  })

  it('nothing: this side is done, or has had enough', async () => {
    expect(
      await after(
        (socket) => socket.resume(),
        ({ socket }) => socket.end('x'),
      ),
    ).toEqual(ok)
    expect(
      await after(
        (socket) => socket.resume(),
        ({ socket }) => socket.destroy(),
      ),
    ).toEqual(ok)
    expect(
      await after(
        (socket) => socket.resume(),
        ({ socket }) => socket.destroy(new Error('mine')),
      ),
    ).toEqual(ok)
  })
})

describe('a peer that is on trial', () => {
  it('is back when a connection stands, however long that lasts', async () => {
    const [a, b] = [await startNamed('a'), await startNamed('b')]
    const checkups = checkupsOf([a, b], { failTimeout: 50 })
    // Whoever uses an instance here has used it before a peer is banned.
    const first = await open(checkups)
    checkups.feedbackStatus('test', { host: '127.0.0.1', port: a.port }, 'failed')
    const back = new Promise((resolve) => checkups.on('peer:up', resolve))
    expect(await back).toMatchObject({ health: 'unstable' })
    const clients = [await open(checkups), await open(checkups), await open(checkups), await open(checkups)]
    expect(clients.filter(({ address }) => address === first.address)).toHaveLength(2)
    expect(serversOf(checkups)[0]).toMatchObject({ health: 'ok', passive: { state: 'up' } })
  })
})
