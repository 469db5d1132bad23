import { execFile } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createServer, type Http2Server, type IncomingHttpHeaders, type ServerHttp2Stream } from 'node:http2'
import { promisify } from 'node:util'
import type { ServingStatusMap } from 'grpc-health-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { parseGrpc } from '../../../src/health/probe/grpc.js'
import { eventually } from '../../support/eventually.js'
import { certificate, startGrpc } from '../../support/servers.js'
import { probeContract } from './contract.js'
import { checkOnce, deserted, listen, outcome, probeOf, startRelay, startTcp, targetOf, turn } from './servers.js'

const grpc = (options: object = {}) => probeOf(parseGrpc, { type: 'grpc', ...options })
const pem = { cert: readFileSync(certificate.cert), key: readFileSync(certificate.key) }
const ca = pem.cert

async function start(statuses?: ServingStatusMap, tls?: typeof pem) {
  const server = await startGrpc(statuses, tls)
  onTestFinished(server.stop)
  return server
}

interface Said {
  readonly headers?: Record<string, string | number>
  readonly body?: Buffer
  readonly trailers?: Record<string, string | number>
}

/** An HTTP/2 server that answers so. */
async function answering({ headers, body, trailers }: Said) {
  const heard: { headers: IncomingHttpHeaders; body: Buffer }[] = []
  const server: Http2Server = createServer()
  server.on('stream', (stream: ServerHttp2Stream, received) => {
    const chunks: Buffer[] = []
    stream.on('data', (chunk: Buffer) => chunks.push(chunk)).on('error', () => undefined)
    stream.once('end', () => {
      heard.push({ headers: received, body: Buffer.concat(chunks) })
      stream.respond({ 'content-type': 'application/grpc', ...headers }, { waitForTrailers: trailers !== undefined })
      stream.once('wantTrailers', () => stream.sendTrailers(trailers ?? {}))
      stream.end(body)
    })
  })
  return Object.assign(await listen(server as never), { heard })
}
const message = (...bytes: number[]) => Buffer.from([0, 0, 0, 0, bytes.length, ...bytes])
const OK = { 'grpc-status': 0 }

const healthy = () => startGrpc({ '': 'SERVING' }).then(({ port, stop }) => ({ port, close: stop }))
probeContract('grpc', { parse: parseGrpc, options: { type: 'grpc' }, healthy })
probeContract('grpc with TLS', {
  parse: parseGrpc,
  options: { type: 'grpc', tls: { ca, servername: 'localhost' } },
  healthy: () => startGrpc({ '': 'SERVING' }, pem).then(({ port, stop }) => ({ port, close: stop })),
})

describe('grpc', () => {
  it.each([
    [{ service: 1 }, 'heartbeat.service: expected a string, got 1'],
    [{ authority: '' }, 'heartbeat.authority: expected a non-empty string, got ""'],
    [{ metadata: { 'grpc-timeout': '1S' } }, /^heartbeat\.metadata\.grpc-timeout: expected a name/],
    [{ metadata: { ':path': '/' } }, /^heartbeat\.metadata\.:path: expected a name/],
    [{ metadata: { Token: 'a' } }, /^heartbeat\.metadata\.Token: expected a name/],
    [{ metadata: { token: 'a\r\nb' } }, /^heartbeat\.metadata\.token: expected a string of printable ASCII/],
    [{ tls: { ca: 1 } }, /^heartbeat\.tls\.ca: expected PEM/],
  ])('refuses %j', (options, message) => {
    expect(() => grpc(options)).toThrow(ConfigError)
    expect(() => grpc(options)).toThrow(message)
  })

  it('follows what the official health service says of a service', async () => {
    const service = 'shop.v1.Cart'
    const server = await start({ '': 'NOT_SERVING', [service]: 'SERVING' })
    const cart = grpc({ service })
    expect(await checkOnce(cart, server)).toEqual({ status: 'ok' })
    expect(await checkOnce(grpc(), server)).toEqual({ status: 'err', message: 'not serving' })
    server.setStatus(service, 'NOT_SERVING')
    expect(await checkOnce(cart, server)).toEqual({ status: 'err', message: 'not serving' })
    server.setStatus(service, 'UNKNOWN')
    expect(await checkOnce(cart, server)).toEqual({ status: 'err', message: 'serving status unknown' })
    server.setStatus(service, 'SERVING')
    expect(await checkOnce(cart, server)).toEqual({ status: 'ok' })
    expect(await checkOnce(grpc({ service: 'other' }), server)).toEqual({ status: 'err', message: 'unknown service' })
  })

  it('tells of a server without the health service', async () => {
    expect(await checkOnce(grpc(), await start())).toEqual({ status: 'err', message: 'no health service' })
  })

  it('asks for a service whose name needs a length of two bytes', async () => {
    const service = 'long'.repeat(50)
    const server = await start({ [service]: 'SERVING' })
    expect(await checkOnce(grpc({ service }), server)).toEqual({ status: 'ok' })
  })

  it('verifies certificates', async () => {
    const server = await start({ '': 'SERVING' }, pem)
    expect(await checkOnce(grpc({ tls: { ca } }), server)).toEqual({ status: 'ok' })
    expect(await checkOnce(grpc({ tls: { rejectUnauthorized: false } }), server)).toEqual({ status: 'ok' })
    const untrusted = { status: 'err', message: 'self-signed certificate' }
    expect(await checkOnce(grpc({ tls: true }), server)).toEqual(untrusted)
    const misnamed = { status: 'err', message: 'certificate is for another name' }
    expect(await checkOnce(grpc({ tls: { ca, servername: 'other.example' } }), server)).toEqual(misnamed)
    expect(await checkOnce(grpc(), server)).toMatchObject({ status: 'err' })
  })

  it('says what the protocol demands, and metadata', async () => {
    const server = await answering({ body: message(8, 1), trailers: OK })
    const probe = grpc({ service: 'a', authority: 'shop.example', metadata: { authorization: 'Bearer x' } })
    expect(await checkOnce(probe, server)).toEqual({ status: 'ok' })
    expect(await checkOnce(grpc(), server)).toEqual({ status: 'ok' })
    expect(server.heard).toMatchObject([
      {
        headers: {
          ':method': 'POST',
          ':scheme': 'http',
          ':path': '/grpc.health.v1.Health/Check',
          ':authority': 'shop.example',
          'content-type': 'application/grpc',
          te: 'trailers',
          'user-agent': 'checkups',
          authorization: 'Bearer x',
        },
        body: Buffer.of(0, 0, 0, 0, 3, 10, 1, 0x61),
      },
      { headers: { ':authority': `127.0.0.1:${server.port}` }, body: Buffer.of(0, 0, 0, 0, 0) },
    ])
  })

  it.each<[string, Said, string | undefined]>([
    [
      'with fields of later versions',
      { body: message(16, 5, 0x1a, 1, 9, 8, 1, 0x25, 1, 2, 3, 4, 0x21, 1, 2, 3, 4, 5, 6, 7, 8), trailers: OK },
      undefined,
    ],
    ['without a status', { body: message(), trailers: OK }, 'serving status unknown'],
    ['of a service that it does not know', { body: message(8, 3), trailers: OK }, 'unknown service'],
    ['of a status to come', { body: message(8, 9), trailers: OK }, 'serving status 9'],
    ['that breaks off', { body: message(8, 0x81), trailers: OK }, 'malformed gRPC answer'],
    ['of a wrong length', { body: Buffer.of(0, 0, 0, 0, 9, 8, 1), trailers: OK }, 'malformed gRPC answer'],
    ['of a field that is too long', { body: message(0x1a, 9), trailers: OK }, 'malformed gRPC answer'],
    ['that is empty', { trailers: OK }, 'malformed gRPC answer'],
    ['that is endless', { body: Buffer.alloc(100_000), trailers: OK }, 'an answer of more than 65536 bytes'],
    ['that is no gRPC', { body: Buffer.from('hello') }, 'no gRPC answer'],
    ['of a proxy', { headers: { ':status': 502 } }, 'status 502'],
    ['all in headers', { headers: { 'grpc-status': 14, 'grpc-message': 'no disk%21' } }, 'UNAVAILABLE: no disk!'],
    ['with a reason', { trailers: { 'grpc-status': 16, 'grpc-message': '100%' } }, 'UNAUTHENTICATED: 100%'],
    ['of a code to come', { trailers: { 'grpc-status': 99 } }, 'code 99'],
    ['of an unknown service', { trailers: { 'grpc-status': 5, 'grpc-message': 'what?' } }, 'unknown service'],
  ])('reads an answer %s', async (_, said, expected) => {
    const report = await checkOnce(grpc(), await answering(said))
    expect(report).toEqual(expected === undefined ? { status: 'ok' } : { status: 'err', message: expected })
  })

  it('tells that it is no HTTP/2', async () => {
    const server = await startTcp((socket) => socket.once('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')))
    expect(await checkOnce(grpc(), server)).toEqual({ status: 'err', message: 'no HTTP/2 answer' })
  })

  describe('keeps one connection per peer', () => {
    it('for check after check, also at once', async () => {
      const relay = await startRelay(await start({ '': 'SERVING' }))
      const probe = grpc()
      const target = targetOf(relay)
      await Promise.all([checkOnce(probe, target), checkOnce(probe, target)])
      await checkOnce(probe, target)
      expect(relay.connections).toBe(1)
      expect(relay.sockets.size).toBe(1)
      probe.forget?.(target)
      await deserted(relay)
    })

    it('and opens another when the server has ended it', async () => {
      const relay = await startRelay(await start({ '': 'SERVING' }))
      const probe = grpc()
      const target = targetOf(relay)
      for (let connections = 1; connections <= 3; connections++) {
        expect(await checkOnce(probe, target)).toEqual({ status: 'ok' })
        expect(relay.connections).toBe(connections)
        for (const socket of relay.sockets) socket.destroy()
        if (connections === 1) await deserted(relay)
      }
    })

    it('and opens another after a GOAWAY', async () => {
      const server = await answering({ body: message(8, 1), trailers: OK })
      const probe = grpc()
      const sessions: { goaway(): void }[] = []
      ;(server.server as unknown as Http2Server).on('session', (session) => sessions.push(session))
      expect(await checkOnce(probe, server)).toEqual({ status: 'ok' })
      sessions[0]!.goaway()
      expect(await checkOnce(probe, server)).toEqual({ status: 'ok' })
      await eventually(() => expect(sessions.length).toBe(2))
    })

    it('but fails when nobody listens any more, and not for longer than that', async () => {
      const server = await startGrpc({ '': 'SERVING' })
      const { port } = server
      const probe = grpc()
      const target = targetOf({ port })
      expect(await checkOnce(probe, target)).toEqual({ status: 'ok' })
      server.stop()
      expect(await checkOnce(probe, target)).toEqual({ status: 'err', message: 'connection refused' })
    })

    it('which does not keep the process alive, nor is HTTP/2 loaded before it is used', async () => {
      const { port } = await start({ '': 'SERVING' })
      const source = `
        import { parseGrpc } from './src/health/probe/grpc.ts'
        const loaded = () => process.moduleLoadList.includes('NativeModule http2')
        const before = loaded()
        const connect = { host: '127.0.0.1', port: ${port} }
        const target = { ...connect, connect, peer: { address: '127.0.0.1:${port}' } }
        const probe = parseGrpc('heartbeat', { type: 'grpc' })({ wallTime: () => 0 })
        const { status } = await probe.check(target, new AbortController().signal)
        console.log(before, status, loaded())`
      const args = ['--import', 'tsx', '--input-type=module', '--eval', source]
      const { stdout } = await promisify(execFile)(process.execPath, args, { timeout: 30_000 })
      expect(stdout).toBe('false ok true\n')
    })

    it.each(['forget', 'close'] as const)('and opens no other for a check that a %s ended', async (end) => {
      let silent = false
      const relay = await startRelay(await start({ '': 'SERVING' }), (chunk, client) => {
        if (!silent) client.write(chunk)
      })
      const probe = grpc()
      const target = targetOf(relay)
      expect(await checkOnce(probe, target)).toEqual({ status: 'ok' })
      silent = true
      const check = checkOnce(probe, target)
      await turn()
      probe[end]?.(target)
      expect(await check).toEqual({ status: 'err', message: 'closed without an answer' })
      await deserted(relay)
      expect(relay.connections).toBe(1)
    })

    it('but not one that gave no answer in time', async () => {
      let silent = true
      const relay = await startRelay(await start({ '': 'SERVING' }), (chunk, client) => {
        if (!silent) client.write(chunk)
      })
      const probe = grpc()
      const target = targetOf(relay)
      const controller = new AbortController()
      const check = outcome(probe.check(target, controller.signal))
      await eventually(() => expect(relay.sockets.size).toBe(1))
      controller.abort(new Error('no answer in time'))
      expect(await check).toEqual({ status: 'err', message: 'no answer in time' })
      await deserted(relay)
      silent = false
      expect(await checkOnce(probe, target)).toEqual({ status: 'ok' })
      expect(relay.connections).toBe(2)
    })
  })
})
