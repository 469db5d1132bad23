import { fork } from 'node:child_process'
import { createHash } from 'node:crypto'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, createServer as createTlsServer } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createTcpProxy, type TcpClient, type TcpProxyOptions } from '../../../src/adapter/net.js'
import type { OutcomeMessage } from '../../../src/channels.js'
import { AttemptsError, ConfigError, UnknownUpstreamError } from '../../../src/index.js'
import { listen } from '../../health/probe/servers.js'
import { eventually } from '../../support/eventually.js'
import { certificate, freePort } from '../../support/servers.js'
import { stopSystemClock } from '../../support/system-clock.js'
import {
  addressOf,
  checkupsOf,
  clientOf,
  ENOUGH_KEYS,
  inFlight,
  marks,
  namesOf,
  openClient,
  refusing,
} from './harness.js'
import { newClient, serversOf, settled, socketPath, startNamed, startProxy, startStuck, startTcp } from './harness.js'
import type { Client, Listening, Running } from './harness.js'

const [cert, key] = [readFileSync(certificate.cert), readFileSync(certificate.key)]
const bytes = (length: number) => Buffer.from(Uint8Array.from({ length }, (_, i) => i % 251))
const sha = (...parts: Buffer[]) => parts.reduce((hash, part) => hash.update(part), createHash('sha256')).digest('hex')
/** The proxy's own end of the next connection. */
const nextSocket = ({ proxy }: Running) => once(proxy, 'connection').then(([socket]) => socket as Socket)
const unconnectable = async () => `127.0.0.1:${(await startStuck()).port!}`

describe('a connection', () => {
  it('goes to one peer after another, and says what is said', async () => {
    const checkups = checkupsOf([await startNamed('a'), await startNamed('b')])
    const { port } = await startProxy(checkups)
    const clients = [await openClient(port), await openClient(port), await openClient(port)]
    await eventually(() => expect(clients.map(({ text }) => text())).toEqual(['a:', 'b:', 'a:']))
    for (const { socket } of clients) socket.end('hello')
    expect(await Promise.all(clients.map(({ ended }) => ended))).toEqual(['a:hello', 'b:hello', 'a:hello'])
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })

  it.each<[string, () => Promise<Listening>]>([
    ['of IPv6', () => startNamed('a', { host: '::1' })],
    ['at a unix socket', () => startNamed('a', { path: socketPath() })],
  ])('goes to a peer %s', async (_, start) => {
    const { port } = await startProxy(checkupsOf([await start()]))
    expect(await namesOf(port, 2)).toBe('aa')
  })

  it.each([
    ['over IPv6', async (running: Running) => openClient({ host: '::1', port: running.port }), { host: '::1' }],
    ['at a unix socket', async (_: Running, path: string) => openClient({ path }), { path: socketPath }],
  ] as const)('may come %s', async (_, open, place) => {
    const path = 'path' in place ? place.path() : ''
    const running = await startProxy(checkupsOf([await startNamed('a')]), {}, 'path' in place ? { path } : place)
    const { socket, ended } = await open(running, path)
    socket.end('x')
    expect(await ended).toBe('a:x')
  })

  it('carries a megabyte each way as it is', async () => {
    const { port } = await startProxy(checkupsOf([await startTcp((socket) => socket.pipe(socket))]))
    const { socket, ended } = await openClient(port)
    socket.end(bytes(1_000_003))
    expect(sha(Buffer.from(await ended, 'latin1'))).toBe(sha(bytes(1_000_003)))
  })
})

describe('the upstream', () => {
  it('is that of the port where nobody says anything, as in Slardar', async () => {
    const [a, b, port, other] = [await startNamed('a'), await startNamed('b'), await freePort(), await freePort()]
    const servers = (...list: Listening[]) => ({ servers: list.map(addressOf) })
    const checkups = checkupsOf([refusing()], {}, { [port]: servers(a), [other]: servers(b) })
    for (const one of [port, other]) {
      const proxy = createTcpProxy(checkups).listen(one, '127.0.0.1')
      await once(proxy, 'listening')
      onTestFinished(() => void proxy.close())
    }
    expect((await namesOf(port, 2)) + (await namesOf(other, 2))).toBe('aabb')
  })

  it('is what a function says of the client', async () => {
    const [a, b] = [await startNamed('a'), await startNamed('b')]
    const seen: TcpClient[] = []
    const checkups = checkupsOf([a], {}, { other: { servers: [addressOf(b)] } })
    const { port } = await startProxy(checkups, {
      key(client) {
        seen.push(client)
        return 'address' in client.source && client.source.address === '127.0.0.2' ? 'other' : 'test'
      },
    })
    expect(await namesOf(port, 1)).toBe('a')
    const two = clientOf(connectTcp({ port, host: '127.0.0.1', localAddress: '127.0.0.2' }))
    await eventually(() => expect(two.text()).toBe('b:'))
    expect(seen[1]).toMatchObject({
      source: { address: '127.0.0.2', port: two.socket.localPort },
      destination: { address: '127.0.0.1', port },
      localPort: port,
      hello: undefined,
    })
  })

  it.each<[string, TcpProxyOptions, (error: unknown) => void]>([
    ['is not named', { key: () => undefined }, (error) => expect(String(error)).toContain('names no upstream')],
    ['does not exist', { upstream: 'none' }, (error) => expect(error).toBeInstanceOf(UnknownUpstreamError)],
    ['has no peer that can be reached', {}, (error) => expect(error).toBeInstanceOf(AttemptsError)],
    [
      'cannot be said, as the function throws',
      {
        key: () => {
          throw new Error('mine')
        },
      },
      (error) => expect(error).toMatchObject({ message: 'mine' }),
    ],
  ])('%s: the connection is cut off, and somebody is told', async (_, options, check) => {
    const checkups = checkupsOf([refusing()])
    const { port, failures } = await startProxy(checkups, options)
    expect(await newClient(port).closed).toBe('ECONNRESET')
    await eventually(() => expect(failures).toHaveLength(1))
    check(failures[0]!.error)
    expect(failures[0]!.socket.destroyed).toBe(true)
    await settled(checkups)
  })

  it('has no room left: the connection is cut off', async () => {
    const checkups = checkupsOf([await startNamed('a')], { maxConns: 1 })
    const { port, failures } = await startProxy(checkups)
    const one = await openClient(port)
    await eventually(() => expect(one.text()).toBe('a:'))
    expect(await newClient(port).closed).toBe('ECONNRESET')
    await eventually(() => expect(failures[0]?.error).toMatchObject({ code: 'ERR_CHECKUPS_NO_PEER', reason: 'full' }))
    one.socket.end()
    await settled(checkups)
    expect(await namesOf(port, 1)).toBe('a')
  })

  it('gets the address of the client as its hash key', async () => {
    const peers = [await startNamed('a'), await startNamed('b'), await startNamed('c')]
    const { port } = await startProxy(checkupsOf(peers, { balancer: 'consistent-hash' }))
    const from = async (n: number) => {
      const { socket, ended } = clientOf(connectTcp({ port, host: '127.0.0.1', localAddress: `127.0.0.${n}` }))
      socket.end()
      return ended
    }
    const addresses = Array.from({ length: ENOUGH_KEYS }, (_, i) => 2 + i)
    const first = await Promise.all(addresses.map(from))
    expect(new Set(first)).toEqual(new Set(['a:', 'b:', 'c:']))
    expect(await Promise.all(addresses.map(from))).toEqual(first)
    const byFunction = await startProxy(checkupsOf(peers, { balancer: 'consistent-hash' }), { hashKey: () => 'same' })
    expect(await namesOf(byFunction.port, 6)).toMatch(/^(a+|b+|c+)$/)
  })
})

describe('a peer that cannot be connected to', () => {
  it.each([
    ['refuses', () => refusing()],
    ['does not answer', unconnectable],
    ['has no socket', () => 'unix:/nonexistent/app.sock'],
  ])('%s: the next one is, and what the client has said by then is kept for it', async (says, bad) => {
    const clock = stopSystemClock()
    const checkups = checkupsOf([await bad(), await startNamed('b')], { timeouts: { connect: 200 } })
    const { port, failures } = await startProxy(checkups)
    const { socket, ended } = await openClient(port)
    socket.end('said early')
    if (says === 'does not answer') {
      await eventually(() => expect(inFlight(checkups)).toEqual([1, 0]))
      await clock.advance(200)
    }
    expect(await ended).toBe('b:said early')
    expect([marks(checkups), failures]).toEqual([[1, 0], []])
    await settled(checkups)
  })

  it('what is kept is bounded: the client waits, and loses nothing', async () => {
    const clock = stopSystemClock()
    const all = bytes(5_000_000)
    const heard = createHash('sha256')
    const sink = await startTcp((socket) => {
      socket.on('data', (chunk: Buffer) => heard.update(chunk))
      socket.once('end', () => socket.end('done'))
    })
    const checkups = checkupsOf([await unconnectable(), sink], { timeouts: { connect: 500 } })
    const running = await startProxy(checkups)
    const accepted = nextSocket(running)
    const { socket, ended } = await openClient(running.port)
    socket.end(all)
    const own = await accepted
    await eventually(() => expect(own.bytesRead).toBeGreaterThan(0))
    // Time for more to come, if it were read.
    await new Promise((resolve) => setTimeout(resolve, 300))
    expect(inFlight(checkups)).toEqual([1, 0])
    expect(own.bytesRead).toBeLessThan(200_000)
    await clock.advance(500)
    expect(await ended).toBe('done')
    expect(heard.digest('hex')).toBe(sha(all))
  })

  it('is not tried further when the client goes away', async () => {
    const peer = await unconnectable()
    const checkups = checkupsOf([peer, await startNamed('b')])
    const { port, failures } = await startProxy(checkups)
    const { socket } = await openClient(port)
    await eventually(() => expect(inFlight(checkups)).toEqual([1, 0]))
    socket.resetAndDestroy()
    await settled(checkups)
    expect([marks(checkups), failures]).toEqual([[0, 0], []])
  })
})

describe('each direction ends by itself', () => {
  it('the client ends first: the answer still comes', async () => {
    const afterEnd = await startTcp((socket) => {
      let heard = ''
      socket.allowHalfOpen = true
      socket.on('data', (chunk: Buffer) => (heard += chunk.toString()))
      socket.once('end', () => socket.end(`heard ${heard}`))
    })
    const checkups = checkupsOf([afterEnd])
    const { port } = await startProxy(checkups)
    const { socket, ended } = await openClient(port)
    socket.write('one, ')
    socket.end('two')
    expect(await ended).toBe('heard one, two')
    await settled(checkups)
  })

  it('the peer ends first: it still hears what the client says', async () => {
    let heard = ''
    const speaksFirst = await startTcp((socket) => {
      socket.allowHalfOpen = true
      socket.end('goodbye')
      socket.on('data', (chunk: Buffer) => (heard += chunk.toString()))
    })
    const checkups = checkupsOf([speaksFirst])
    const { port } = await startProxy(checkups)
    const { socket, ended } = await openClient(port)
    expect(await ended).toBe('goodbye')
    socket.write('one, ')
    expect(inFlight(checkups)).toEqual([1])
    await eventually(() => expect(heard).toBe('one, '))
    socket.end('two')
    await eventually(() => expect(heard).toBe('one, two'))
    await settled(checkups)
  })

  it('the client ends before there is a peer', async () => {
    const clock = stopSystemClock()
    const checkups = checkupsOf([await unconnectable(), await startNamed('b')], { timeouts: { connect: 200 } })
    const { port } = await startProxy(checkups)
    const { socket, ended } = await openClient(port)
    socket.end()
    await eventually(() => expect(inFlight(checkups)).toEqual([1, 0]))
    await clock.advance(200)
    expect(await ended).toBe('b:')
    await settled(checkups)
  })
})

describe('what breaks on one side is broken on the other', () => {
  it('a peer that resets: the client does not take half for the whole', async () => {
    const checkups = checkupsOf([
      await startTcp((socket) => {
        socket.write('half of')
        socket.once('data', () => socket.resetAndDestroy())
      }),
    ])
    const { port } = await startProxy(checkups)
    const { socket, text, closed } = await openClient(port)
    await eventually(() => expect(text()).toBe('half of'))
    socket.write('x')
    expect(await closed).toBe('ECONNRESET')
    await settled(checkups)
  })

  it('a client that resets', async () => {
    const codes: unknown[] = []
    const peer = await startTcp((socket) => {
      socket.on('error', ({ code }: NodeJS.ErrnoException) => codes.push(code))
      socket.write('hello')
    })
    const checkups = checkupsOf([peer, await startNamed('b')])
    const { port } = await startProxy(checkups)
    const { socket, text } = await openClient(port)
    await eventually(() => expect(text()).toBe('hello'))
    socket.resetAndDestroy()
    await eventually(() => expect(codes).toEqual(['ECONNRESET']))
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })
})

describe('a side that reads slowly', () => {
  setFlagsFromString('--expose-gc')
  const collectGarbage = runInNewContext('gc') as () => void

  const PIECE = bytes(65_536)
  /** Writes for ever, at the pace of the other side; says how much. */
  const flood = (socket: Socket, sent: { bytes: number; hash: ReturnType<typeof createHash> }) => {
    const more = () => {
      do {
        sent.bytes += PIECE.length
        sent.hash.update(PIECE)
      } while (socket.write(PIECE))
    }
    socket.on('drain', more)
    more()
  }
  /** Until as much has been sent as there is room for. */
  const untilFull = (sent: { bytes: number }) => {
    let [before, same] = [0, 0]
    return eventually(() => {
      same = sent.bytes === before ? same + 1 : 0
      before = sent.bytes
      expect(same).toBeGreaterThan(20)
    })
  }
  const counter = () => ({ bytes: 0, hash: createHash('sha256') })

  it.each(['client', 'peer'])('a %s: nothing piles up in the proxy, and nothing is lost', async (slow) => {
    const sent = counter()
    const heard = counter()
    const hear = (chunk: Buffer) => {
      heard.bytes += chunk.length
      heard.hash.update(chunk)
    }
    let server: Socket | undefined
    const checkups = checkupsOf([
      await startTcp((socket) => {
        server = socket.pause()
        if (slow === 'client') flood(socket, sent)
      }),
    ])
    const running = await startProxy(checkups)
    const accepted = nextSocket(running)
    const client = connectTcp(running.port, '127.0.0.1').pause()
    onTestFinished(() => void client.destroy())
    const own = await accepted
    if (slow === 'peer') flood(client, sent)
    collectGarbage()
    const before = process.memoryUsage().arrayBuffers
    await untilFull(sent)
    // What the kernel holds for both connections is not the proxy's, nor what is only not collected yet.
    await eventually(() => {
      collectGarbage()
      expect(process.memoryUsage().arrayBuffers - before).toBeLessThan(4 * 2 ** 20)
    }, 50)
    expect([own.writableLength, own.readableLength].every((length) => length <= 2 * 65_536)).toBe(true)

    const reader = slow === 'client' ? client : server!
    const writer = slow === 'client' ? server! : client
    reader.on('data', hear).resume()
    writer.removeAllListeners('drain')
    writer.end()
    await once(reader, 'end')
    expect([heard.bytes, heard.hash.digest('hex')]).toEqual([sent.bytes, sent.hash.digest('hex')])
    reader.end()
    await settled(checkups)
  })
})

describe('a peer that is killed in the middle of traffic', () => {
  const startProcess = async (name: string) => {
    const child = fork(fileURLToPath(new URL('peer-process.js', import.meta.url)), [name], { execArgv: [] })
    onTestFinished(() => void child.kill('SIGKILL'))
    const [port] = (await once(child, 'message')) as [number]
    return { child, address: `127.0.0.1:${port}` }
  }

  it.each([1, 2])('with maxFails %i: so many connections see it, and the client of none notices', async (maxFails) => {
    const peers = [await startProcess('a'), await startProcess('b'), await startProcess('c')]
    const checkups = checkupsOf(
      peers.map(({ address }) => address),
      { maxFails },
    )
    const { port, failures } = await startProxy(checkups)
    // Connections that last: each says something every turn and hears it.
    const talking = await Promise.all(Array.from({ length: 12 }, () => openClient(port)))
    await eventually(() => expect(talking.every(({ text }) => text().length === 2)).toBe(true))
    const talk = (clients: Client[]) => {
      for (const { socket } of clients) socket.write('.')
    }
    talk(talking)
    await eventually(() => expect(talking.every(({ text }) => text().length === 3)).toBe(true))
    expect(inFlight(checkups)).toEqual([4, 4, 4])

    let seen = 0
    const onOutcome = (message: unknown) => {
      const { peer, outcome } = message as OutcomeMessage
      if (peer.address === peers[1]!.address && outcome === 'failed') seen++
    }
    subscribe('checkups:outcome', onOutcome)
    onTestFinished(() => void unsubscribe('checkups:outcome', onOutcome))
    const exited = once(peers[1]!.child, 'exit')
    peers[1]!.child.kill('SIGKILL')
    await exited
    const names = await namesOf(port, 30)
    expect(names).toMatch(/^[ac]{30}$/)
    expect(failures).toEqual([])
    expect(serversOf(checkups)[1]).toMatchObject({ health: 'err', passive: { bans: 1 } })
    expect(seen).toBe(maxFails)

    // Its clients hear its end, and end too; the others have noticed nothing.
    for (const { socket, text } of talking) if (text().startsWith('b')) socket.end()
    await eventually(() => expect(inFlight(checkups)).toEqual([4, 0, 4]))
    const rest = talking.filter(({ text }) => !text().startsWith('b'))
    talk(rest)
    await eventually(() => expect(rest.map(({ text }) => text().slice(1)).join()).toBe(Array(8).fill(':..').join()))
  })
})

it('1,000 connections whose sides break, leave and end at random: nothing is left of them', async () => {
  const warnings: string[] = []
  const onWarning = ({ message }: Error) => void warnings.push(message)
  process.on('warning', onWarning)
  onTestFinished(() => void process.off('warning', onWarning))
  let state = 1
  // The same sequence every time.
  const random = () => (state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0) / 2 ** 32
  /** What either side may do with what it hears. */
  const behave = (socket: Socket) => {
    const mood = random()
    socket.on('error', () => undefined)
    if (mood < 0.2) socket.resetAndDestroy()
    else if (mood < 0.4) socket.once('data', () => socket.resetAndDestroy())
    else if (mood < 0.6) socket.once('data', () => socket.destroy())
    else if (mood < 0.8) socket.end(bytes(1 + Math.floor(300_000 * random()))).resume()
    else socket.resume().once('data', () => socket.end('bye'))
    if (mood >= 0.4) socket.write('hello')
  }
  const peers = await Promise.all(
    ['a', 'b'].map(() =>
      startTcp((socket) => {
        socket.allowHalfOpen = random() < 0.5
        behave(socket)
      }),
    ),
  )
  const checkups = checkupsOf([...peers, refusing()], { maxFails: 2, failTimeout: 5 })
  const running = await startProxy(checkups, { idleTimeout: 100 })
  let left = 1_000
  const client = async () => {
    while (left-- > 0) {
      const socket = connectTcp({ port: running.port, host: '127.0.0.1', allowHalfOpen: random() < 0.5 })
      const closed = new Promise((resolve) => socket.once('close', resolve))
      socket.once('connect', () => behave(socket))
      socket.on('error', () => undefined)
      await closed
    }
  }
  await Promise.all(Array.from({ length: 20 }, client))
  // In flight is what has a connection to a peer, or of a client, that is not closed.
  await settled(checkups)
  const open = await new Promise((resolve) => running.proxy.getConnections((_, count) => resolve(count)))
  expect([open, warnings]).toEqual([0, []])
})

describe('a connection on which nothing is said', () => {
  it('is cut off after idleTimeout, on both sides', async () => {
    const peer = await startNamed('a')
    const checkups = checkupsOf([peer])
    const { port } = await startProxy(checkups, { idleTimeout: 100 })
    const { closed } = await openClient(port)
    expect(await closed).toBe('ECONNRESET')
    await eventually(() => expect(peer.sockets.size).toBe(0))
    await settled(checkups)
    expect(marks(checkups)).toEqual([0])
  })

  it.each(['client', 'peer'])('is not idle while only the %s speaks', async (who) => {
    const clock = stopSystemClock()
    let heard = 0
    const peer = await startTcp((socket) => socket.on('data', (chunk: Buffer) => (heard += chunk.length)))
    const checkups = checkupsOf([peer])
    const { port } = await startProxy(checkups, { idleTimeout: 100 })
    const { socket, text, closed } = await openClient(port)
    await eventually(() => expect(peer.sockets.size).toBe(1))
    const [other] = peer.sockets
    for (let i = 1; i <= 10; i++) {
      ;(who === 'client' ? socket : other!).write('.')
      await eventually(() => expect(who === 'client' ? heard : text().length).toBe(i))
      await clock.advance(99)
    }
    expect([socket.destroyed, inFlight(checkups)]).toEqual([false, [1]])
    await clock.advance(1)
    expect(await closed).toBe('ECONNRESET')
  })
})

describe('close', () => {
  it('stops listening; what is under way may end', async () => {
    const checkups = checkupsOf([await startNamed('a')])
    const { port, proxy } = await startProxy(checkups)
    const { socket, ended, text } = await openClient(port)
    await eventually(() => expect(text()).toBe('a:'))
    const closed = once(proxy, 'close')
    proxy.close()
    await expect(openClient(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    socket.end('still')
    expect(await ended).toBe('a:still')
    await closed
    await settled(checkups)
  })

  it.each([0, 50])('cuts off what is left after a drainTimeout of %i ms', async (drainTimeout) => {
    const checkups = checkupsOf([await startNamed('a'), await unconnectable()])
    const { port, proxy, failures } = await startProxy(checkups, { drainTimeout })
    const clients = [await openClient(port), await openClient(port)]
    await eventually(() => expect(inFlight(checkups)).toEqual([1, 1]))
    await new Promise((resolve) => proxy.close(resolve))
    expect(await Promise.all(clients.map(({ closed }) => closed))).toEqual(['ECONNRESET', 'ECONNRESET'])
    await settled(checkups)
    expect([failures, marks(checkups)]).toEqual([[], [0, 0]])
  })

  it('may be followed by listen', async () => {
    const clock = stopSystemClock()
    const { port, proxy } = await startProxy(checkupsOf([await startNamed('a')]), { drainTimeout: 50 })
    const old = await openClient(port)
    await eventually(() => expect(old.text()).toBe('a:'))
    proxy.close()
    proxy.listen(port, '127.0.0.1')
    await once(proxy, 'listening')
    await clock.advance(50)
    expect(await namesOf(port, 2)).toBe('aa')
    expect(old.socket.destroyed).toBe(false)
  })
})

it('no more connections at once than maxConnections', async () => {
  const checkups = checkupsOf([await startNamed('a')])
  const { port, proxy } = await startProxy(checkups, { maxConnections: 2 })
  const clients = [await openClient(port), await openClient(port)]
  await eventually(() => expect(clients.map(({ text }) => text())).toEqual(['a:', 'a:']))
  const dropped = once(proxy, 'drop')
  const third = await openClient(port)
  await dropped
  expect(await third.ended).toBe('')
  clients[0]!.socket.end()
  await clients[0]!.closed
  await eventually(() => expect(inFlight(checkups)).toEqual([1]))
  expect(await namesOf(port, 1)).toBe('a')
})

describe('TLS', () => {
  it('is ended here, by a server of its own', async () => {
    const checkups = checkupsOf([await startNamed('a')])
    const { proxy } = await startProxy(checkups)
    const server = createTlsServer({ cert, key, allowHalfOpen: true })
    server.on('secureConnection', (socket) => proxy.handle(socket))
    const { port } = await listen(server)
    const { socket, ended } = clientOf(connectTls({ port, host: '127.0.0.1', ca: cert }))
    socket.end('secret')
    expect(await ended).toBe('a:secret')
    await settled(checkups)
  })

  it('is begun here', async () => {
    const server = createTlsServer({ cert, key, allowHalfOpen: true }, (socket) => socket.pipe(socket))
    const checkups = checkupsOf([refusing(), await listen(server)])
    const { port } = await startProxy(checkups, { tls: { ca: cert } })
    const { socket, ended } = await openClient(port)
    socket.end('secret')
    expect(await ended).toBe('secret')
    await settled(checkups)
  })
})

describe('options are checked when the proxy is made', () => {
  it.each<[string, object, string]>([
    ['one that does not exist', { retries: 3 }, 'options.retries'],
    ['key', { key: 'host' }, 'options.key'],
    ['upstream and key', { upstream: 'test', key: 'port' }, 'options.key'],
    ['an empty upstream', { upstream: '' }, 'options.upstream'],
    ['sni', { key: 'sni', sni: false }, 'options.sni'],
    ['hashKey', { hashKey: 'url' }, 'options.hashKey'],
    ['clusterKey', { clusterKey: 'near' }, 'options.clusterKey'],
    ['headLimit', { headLimit: 0 }, 'options.headLimit'],
    ['headTimeout', { headTimeout: Infinity }, 'options.headTimeout'],
    ['idleTimeout', { idleTimeout: -1 }, 'options.idleTimeout'],
    ['drainTimeout', { drainTimeout: 'soon' }, 'options.drainTimeout'],
    ['maxConnections', { maxConnections: 0 }, 'options.maxConnections'],
    ['proxyProtocol', { proxyProtocol: true }, 'options.proxyProtocol'],
    ['its send', { proxyProtocol: { send: 3 } }, 'options.proxyProtocol.send'],
    ['its accept', { proxyProtocol: { accept: 1 } }, 'options.proxyProtocol.accept'],
    ['one of its that does not exist', { proxyProtocol: { receive: true } }, 'options.proxyProtocol.receive'],
    ['tls', { tls: { cert: 'none' } }, 'options.tls'],
  ])('%s', (_, options, path) => {
    const make = () => createTcpProxy(checkupsOf([refusing()]), options)
    expect(make).toThrow(ConfigError)
    expect(make).toThrow(path)
  })
})
