import { execFile } from 'node:child_process'
import { connect as connectTcp, type Socket } from 'node:net'
import { promisify } from 'node:util'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { TcpClient, TcpProxyOptions } from '../../../src/adapter/net.js'
import { parseProxyHeader, printProxyHeader, type TcpEnds } from '../../../src/adapter/net/proxy-protocol.js'
import { eventually } from '../../support/eventually.js'
import { startMariadb, startNginx, whereInstalled } from '../../support/servers.js'
import { checkupsOf, clientOf, ENOUGH_KEYS, marks, newClient, openClient, refusing } from './harness.js'
import { settled, socketPath, startNamed, startProxy, startTcp, type Listening, type Running } from './harness.js'

type Sent = Parameters<typeof printProxyHeader>
const versions = [1, 2] as const
const v4: TcpEnds = { source: { address: '192.0.2.1', port: 5 }, destination: { address: '192.0.2.2', port: 443 } }
const v6: TcpEnds = { source: { address: '2001:db8::1', port: 5 }, destination: { address: '::1', port: 443 } }
const unix: TcpEnds = { source: { path: '/run/a.sock' }, destination: { path: '/run/b.sock' } }

/** Answers with the header that it has heard, as it reads it, and with what follows. */
const startReader = (): Promise<Listening> =>
  startTcp((socket) => {
    socket.allowHalfOpen = true
    const chunks: Buffer[] = []
    socket.on('error', () => undefined).on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.once('end', () => {
      const all = Buffer.concat(chunks)
      const reading = parseProxyHeader(all)
      const header =
        reading.state === 'done'
          ? { header: reading.value ?? null, rest: all.subarray(reading.length).toString() }
          : reading
      socket.end(JSON.stringify(header))
    })
  })

/** A proxy that accepts headers, and whom it took its clients for. */
async function startAccepting(options: TcpProxyOptions = {}): Promise<Running & { seen: TcpClient[] }> {
  const seen: TcpClient[] = []
  const key = (client: TcpClient) => {
    seen.push(client)
    return 'test'
  }
  const running = await startProxy(checkupsOf([await startNamed('a')]), {
    key,
    proxyProtocol: { accept: true },
    ...options,
  })
  return { ...running, seen }
}

describe('a header that is accepted', () => {
  const rows: [string, TcpEnds][] = [
    ['IPv4', v4],
    ['IPv6', v6],
  ]
  it.each(versions.flatMap((version) => rows.map(([name, ends]) => [version, name, ends] as const)))(
    'of version %i says where a client of %s is from',
    async (version, _, ends) => {
      const { port, seen } = await startAccepting()
      const { socket, ended } = await openClient(port)
      socket.end(Buffer.concat([printProxyHeader(version, ends), Buffer.from('and more')]))
      expect(await ended).toBe('a:and more')
      expect(seen).toMatchObject([{ ...ends, localPort: port }])
    },
  )

  it('says the paths of a unix socket, in version 2', async () => {
    const { port, seen } = await startAccepting()
    const { socket, ended } = await openClient(port)
    socket.end(printProxyHeader(2, unix))
    expect(await ended).toBe('a:')
    expect(seen).toMatchObject([unix])
  })

  it.each<Sent>([
    [1, undefined],
    [1, unix],
    [2, undefined],
  ])('of version %i that says nobody leaves it at the connection itself', async (version, ends) => {
    const { port, seen } = await startAccepting()
    const { socket, ended, localPort } = await openClient(port)
    socket.end(printProxyHeader(version, ends))
    expect(await ended).toBe('a:')
    const source = { address: '127.0.0.1', port: localPort }
    expect(seen).toMatchObject([{ source, destination: { address: '127.0.0.1', port } }])
  })

  it('is what the client is hashed by', async () => {
    const peers = [await startNamed('a'), await startNamed('b'), await startNamed('c')]
    const checkups = checkupsOf(peers, { balancer: 'consistent-hash' })
    const { port } = await startProxy(checkups, { proxyProtocol: { accept: true } })
    const from = async (address: string) => {
      const { socket, ended } = await openClient(port)
      socket.end(printProxyHeader(2, { source: { address, port: 1 }, destination: v4.destination }))
      return ended
    }
    const addresses = Array.from({ length: ENOUGH_KEYS }, (_, i) => `192.0.2.${i}`)
    const first = await Promise.all(addresses.map(from))
    expect(new Set(first)).toEqual(new Set(['a:', 'b:', 'c:']))
    expect(await Promise.all(addresses.map(from))).toEqual(first)
  })

  it('may be one that only some send', async () => {
    const { port, seen } = await startAccepting({
      proxyProtocol: { accept: ({ remoteAddress }: Socket) => remoteAddress === '127.0.0.2' },
    })
    const trusted = clientOf(connectTcp({ port, host: '127.0.0.1', localAddress: '127.0.0.2' }))
    trusted.socket.write(printProxyHeader(1, v4))
    await eventually(() => expect(trusted.text()).toBe('a:'))
    const other = await openClient(port)
    // Taken for what it is: bytes of the client's.
    const bytes = printProxyHeader(1, v6)
    other.socket.end(bytes)
    expect(await other.ended).toBe(`a:${bytes.toString()}`)
    expect(seen).toMatchObject([v4, { source: { address: '127.0.0.1' } }])
  })

  it.each([
    ['has none', 'GET / HTTP/1.1\r\n\r\n', 'the client has sent no PROXY header'],
    ['has a wrong one', 'PROXY TCP4 1.2.3.4\r\n', 'the client has sent a malformed PROXY line'],
    ['has one that is too long', `PROXY UNKNOWN ${'x'.repeat(100)}`, 'the client has sent a PROXY line without an end'],
    [
      'has one longer than headLimit',
      Buffer.from('\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff'.padEnd(20_000), 'latin1'),
      'more than 16384 bytes and no end of the head',
    ],
  ])('is needed: a connection that %s is cut off', async (_, bytes, message) => {
    const { port, failures } = await startAccepting()
    const { socket, closed } = newClient(port)
    socket.write(bytes)
    expect(await closed).toBe('ECONNRESET')
    expect(failures).toMatchObject([{ error: { message } }])
  })
})

describe('a header that is sent', () => {
  it.each(versions)('in version %i, says the ends of a connection', async (version) => {
    const checkups = checkupsOf([refusing(), await startReader()])
    const { port } = await startProxy(checkups, { proxyProtocol: { send: version } })
    const { socket, ended, localPort } = await openClient(port)
    socket.end('hello')
    expect(JSON.parse(await ended)).toEqual({
      header: {
        source: { address: '127.0.0.1', port: localPort },
        destination: { address: '127.0.0.1', port },
      },
      rest: 'hello',
    })
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it.each(versions)('in version %i, over IPv6', async (version) => {
    const running = await startProxy(
      checkupsOf([await startReader()]),
      { proxyProtocol: { send: version } },
      { host: '::1' },
    )
    const { socket, ended, localPort } = await openClient({ host: '::1', port: running.port })
    socket.end()
    const source = { address: '::1', port: localPort }
    expect(JSON.parse(await ended)).toEqual({
      header: { source, destination: { address: '::1', port: running.port } },
      rest: '',
    })
  })

  it.each(versions)('in version %i, to a server of both families, says IPv4 where it is', async (version) => {
    const checkups = checkupsOf([await startReader()])
    const running = await startProxy(checkups, { proxyProtocol: { send: version } }, { host: '::' })
    const { socket, ended, localPort } = await openClient(running.port)
    socket.end()
    const source = { address: '127.0.0.1', port: localPort }
    expect(JSON.parse(await ended)).toMatchObject({ header: { source } })
  })

  it.each<Sent>([
    [1, undefined],
    [2, { source: { path: '' }, destination: { path: '' } }],
  ])('in version %i, of a client at a unix socket', async (version, header) => {
    const path = socketPath()
    await startProxy(checkupsOf([await startReader()]), { proxyProtocol: { send: version } }, { path })
    const { socket, ended } = await openClient({ path })
    socket.end()
    expect(JSON.parse(await ended)).toEqual({ header: header ?? null, rest: '' })
  })

  it.each(versions.flatMap((accepted) => versions.map((sent) => [accepted, sent] as const)))(
    'passes on one of version %i in version %i, from proxy to proxy',
    async (accepted, sent) => {
      const inner = await startAccepting()
      const outer = await startProxy(checkupsOf([`127.0.0.1:${inner.port}`]), {
        proxyProtocol: { accept: true, send: sent },
      })
      const { socket, ended } = await openClient(outer.port)
      socket.end(Buffer.concat([printProxyHeader(accepted, v6), Buffer.from('x')]))
      expect(await ended).toBe('a:x')
      expect(inner.seen).toMatchObject([v6])
    },
  )

  it('is no word of the client: a peer that ends without one, when nobody has spoken, has not failed', async () => {
    const checkups = checkupsOf([
      await startTcp((socket) => socket.once('data', () => socket.end())),
      await startNamed('b'),
    ])
    const { port } = await startProxy(checkups, { proxyProtocol: { send: 1 } })
    const { socket, ended } = await openClient(port)
    expect(await ended).toBe('')
    socket.end()
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
  })
})

whereInstalled('the PROXY protocol with nginx', 'nginx', () => {
  it.each(versions)('version %i is understood', async (version) => {
    const nginx = await startNginx(
      (port) => `events {}
        http {
          access_log off;
          server {
            listen 127.0.0.1:${port} proxy_protocol;
            return 200 "$proxy_protocol_addr:$proxy_protocol_port to $proxy_protocol_server_port";
          }
        }`,
    )
    onTestFinished(() => nginx.stop())
    const checkups = checkupsOf([`127.0.0.1:${nginx.port}`])
    const { port } = await startProxy(checkups, { proxyProtocol: { send: version } })
    const { socket, ended, localPort } = await openClient(port)
    socket.write('GET / HTTP/1.0\r\n\r\n')
    expect(await ended).toMatch(new RegExp(`\r\n\r\n127.0.0.1:${localPort!} to ${port}$`))
  })
})

whereInstalled('the PROXY protocol with MariaDB', 'mariadbd', () => {
  it.each(versions)('version %i: it knows where a client is from', async (version) => {
    const server = await startMariadb(['--proxy-protocol-networks=127.0.0.1', '--skip-name-resolve'])
    onTestFinished(() => server.stop())
    const { port } = await startProxy(checkupsOf([`127.0.0.1:${server.port}`]), {
      proxyProtocol: { accept: true, send: version },
    })
    const { createConnection } = await import('mysql2/promise')
    const stream = connectTcp(port, '127.0.0.1')
    stream.write(printProxyHeader(version === 1 ? 2 : 1, v6))
    const client = await createConnection({ stream, user: 'checker', password: 'secret' })
    onTestFinished(() => client.destroy())
    expect((await client.query('SELECT USER() AS user'))[0]).toEqual([{ user: 'checker@2001:db8::1' }])
  })
})

whereInstalled('the PROXY protocol with curl', 'curl', () => {
  it('is accepted', async () => {
    const web = await startTcp((socket) =>
      socket.once('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello')),
    )
    const seen: TcpClient[] = []
    const { port } = await startProxy(checkupsOf([web]), {
      proxyProtocol: { accept: true },
      key: (client) => (seen.push(client), 'test'),
    })
    const { stdout } = await promisify(execFile)('curl', ['-sS', '--haproxy-protocol', `http://127.0.0.1:${port}/`])
    expect(stdout).toBe('hello')
    expect(seen).toMatchObject([{ source: { address: '127.0.0.1' }, destination: { address: '127.0.0.1', port } }])
  })
})
