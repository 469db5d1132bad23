import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls, createServer, type ConnectionOptions } from 'node:tls'
import { describe, expect, it } from 'vitest'
import type { Checkups } from '../../../src/index.js'
import type { TcpProxyOptions } from '../../../src/adapter/net.js'
import { listen } from '../../health/probe/servers.js'
import { eventually } from '../../support/eventually.js'
import { certificate } from '../../support/servers.js'
import { stopSystemClock } from '../../support/system-clock.js'
import { addressOf, checkupsOf, clientOf, newClient, refusing, settled, startProxy } from './harness.js'
import { message, realHello, records, serverName } from './hello.js'

const [cert, key] = [readFileSync(certificate.cert), readFileSync(certificate.key)]

/** Says its name, over TLS, and which name and protocol it was asked for. */
const startTls = (name: string) =>
  listen(
    createServer({ cert, key, ALPNProtocols: ['h2', 'acme-tls/1', 'http/1.1'] }, (socket) => {
      socket.on('error', () => undefined)
      socket.end(`${name} as ${String(socket.servername)} ${String(socket.alpnProtocol)}`)
    }),
  )

/** Two upstreams by the name of a server, with TLS behind each. */
async function startBoth(options: TcpProxyOptions = { key: 'sni' }) {
  const [a, b] = [await startTls('a'), await startTls('b')]
  const upstreams = { 'a.test': { servers: [refusing(), addressOf(a)] }, 'b.test': { servers: [addressOf(b)] } }
  const checkups: Checkups = checkupsOf([refusing()], {}, upstreams)
  return { ...(await startProxy(checkups, options)), checkups }
}

const ask = (port: number, options: ConnectionOptions) =>
  clientOf(connectTls({ port, host: '127.0.0.1', ca: cert, checkServerIdentity: () => undefined, ...options }))

describe('an upstream by the name that a client asks for', () => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('with %s: the peer itself does the handshake', async (maxVersion) => {
    const { port, checkups } = await startBoth()
    const names = ['a.test', 'b.test', 'A.Test', 'b.test']
    const answers = await Promise.all(names.map((servername) => ask(port, { servername, maxVersion }).ended))
    expect(answers).toEqual(['a as a.test false', 'b as b.test false', 'a as A.Test false', 'b as b.test false'])
    await settled(checkups)
  })

  it('also if its hello comes byte by byte', async () => {
    const { port } = await startBoth()
    const hello = await realHello({ servername: 'b.test' })
    const { socket, text } = newClient(port)
    socket.setNoDelay(true)
    for (const byte of hello) {
      socket.write(Buffer.from([byte]))
      await new Promise((resolve) => setImmediate(resolve))
    }
    // A ServerHello.
    await eventually(() => expect(text().slice(0, 3)).toBe('\x16\x03\x03'))
  })

  it('by a function, which knows the protocols too', async () => {
    const { port } = await startBoth({
      sni: true,
      key: ({ hello }) => (hello?.alpn.includes('acme-tls/1') === true ? 'b.test' : 'a.test'),
    })
    const servername = 'any.test'
    expect(await ask(port, { servername, ALPNProtocols: ['acme-tls/1'] }).ended).toBe('b as any.test acme-tls/1')
    expect(await ask(port, { servername, ALPNProtocols: ['h2'] }).ended).toBe('a as any.test h2')
    expect(await ask(port, {}).ended).toBe('a as false false')
  })

  it('may be named for a name that is none, by a function', async () => {
    const fallback: Checkups[] = []
    const { port, checkups } = await startBoth({
      sni: true,
      key: ({ hello: { servername } = { servername: undefined, alpn: [] } }) =>
        servername !== undefined && fallback[0]?.getUpstream(servername) !== undefined ? servername : 'a.test',
    })
    fallback.push(checkups)
    const names = ['b.test', 'c.test', '__proto__', 'constructor']
    const answers = await Promise.all(names.map((servername) => ask(port, { servername }).ended))
    expect(answers.map((answer) => answer[0])).toEqual(['b', 'a', 'a', 'a'])
  })
})

describe('a connection is cut off', () => {
  it.each<[string, () => Promise<Buffer> | Buffer, string]>([
    ['that speaks no TLS', () => Buffer.from('GET / HTTP/1.1\r\n\r\n'), 'the client has sent no TLS handshake'],
    [
      'whose hello is malformed',
      () => records(message([serverName('a b')])),
      'the client has sent a malformed ClientHello',
    ],
    ['that names no server', () => realHello({}), 'the connection names no upstream'],
    ['that names one without upstream', () => realHello({ servername: 'c.test' }), 'unknown upstream "c.test"'],
    [
      'that names no property of objects',
      () => records(message([serverName('__proto__')])),
      'unknown upstream "__proto__"',
    ],
    ['whose hello is too long', () => records(message([[5, Buffer.alloc(20_000)]])), 'more than 16384 bytes'],
  ])('%s', async (_, bytes, message) => {
    const { port, failures, checkups } = await startBoth()
    const { socket, closed } = newClient(port)
    socket.write(await bytes())
    expect(await closed).toBe('ECONNRESET')
    await eventually(() => expect(String(failures[0]?.error)).toContain(message))
    await settled(checkups)
  })

  it('that ends within its hello', async () => {
    const { port, failures } = await startBoth()
    const { socket, closed } = newClient(port)
    socket.end((await realHello({ servername: 'a.test' })).subarray(0, -1))
    expect(await closed).toBe('ECONNRESET')
    expect(failures).toMatchObject([{ error: { message: 'the client has ended within the head' } }])
  })

  it('that takes longer than headTimeout for it, however often it sends something', async () => {
    const clock = stopSystemClock()
    const hello = await realHello({ servername: 'a.test' })
    const { port, proxy, failures } = await startBoth({ key: 'sni', headTimeout: 150 })
    const accepted = once(proxy, 'connection') as Promise<[Socket]>
    const { socket, closed } = newClient(port)
    const [own] = await accepted
    for (let sent = 1; sent <= 5; sent++) {
      expect([own.destroyed, failures]).toEqual([false, []])
      socket.write(hello.subarray(sent - 1, sent))
      await eventually(() => expect(own.bytesRead).toBe(sent))
      await clock.advance(30)
    }
    expect(await closed).toBe('ECONNRESET')
    expect(failures).toMatchObject([{ error: { message: 'no whole head within 150 ms' } }])
  })

  it('nobody is told of a client that leaves by itself', async () => {
    const { port, failures, proxy } = await startBoth()
    const accepted = once(proxy, 'connection') as Promise<[Socket]>
    const { socket } = newClient(port)
    socket.write(records(message()).subarray(0, 20))
    const [own] = await accepted
    await eventually(() => expect(own.bytesRead).toBe(20))
    socket.resetAndDestroy()
    await eventually(() => expect(own.closed).toBe(true))
    expect(failures).toEqual([])
  })

  it('bytes that follow the hello at once are not lost', async () => {
    const { port } = await startBoth()
    const one = connectTcp(port, '127.0.0.1')
    const { text, closed } = clientOf(one)
    // An alert behind the hello: the peer answers both, and ends.
    one.write(Buffer.concat([await realHello({ servername: 'b.test' }), Buffer.from([21, 3, 3, 0, 2, 2, 40])]))
    await closed
    expect(text().slice(0, 3)).toBe('\x16\x03\x03')
  })
})
