import { describe, expect, it } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { parseTcp } from '../../../src/health/probe/tcp.js'
import { probeContract } from './contract.js'
import { checkOnce, probeOf, socketPath, startTcp, turn } from './servers.js'

const tcp = (options: object = {}) => probeOf(parseTcp, { type: 'tcp', ...options })

const greeter = () => startTcp((socket) => socket.end('220 mail ready\r\n'))

const connects = { expected: 'ok', reason: 'a connection is all it wants' } as const

probeContract('tcp', {
  parse: parseTcp,
  options: { type: 'tcp' },
  healthy: greeter,
  exceptions: {
    silent: connects,
    resets: { expected: 'skipped', reason: 'the reset may come before or after the connection is seen to be open' },
    garbage: connects,
    endless: connects,
    half: connects,
  },
})

probeContract('tcp with expect', {
  parse: parseTcp,
  options: { type: 'tcp', expect: /^220 .*\r\n$/ },
  healthy: greeter,
})

probeContract('tcp with send and expect', {
  parse: parseTcp,
  options: { type: 'tcp', send: 'ping\n', expect: 'pong' },
  healthy: () => startTcp((socket) => socket.once('data', () => socket.write('pong'))),
})

describe('tcp', () => {
  it('says what it is told to say, bytes too', async () => {
    let said = ''
    const server = await startTcp((socket) =>
      socket.on('data', (chunk: Buffer) => {
        said += chunk.toString('latin1')
        socket.write('\x00ok')
      }),
    )
    const probe = tcp({ send: Buffer.of(0, 255), expect: 'ok' })
    expect(await checkOnce(probe, server)).toEqual({ status: 'ok' })
    expect(said).toBe('\x00\xff')
  })

  it('says it, and waits for nothing without expect', async () => {
    const said: Promise<string>[] = []
    const server = await startTcp((socket) => {
      said.push(new Promise((resolve) => socket.once('data', (chunk: Buffer) => resolve(chunk.toString()))))
    })
    expect(await checkOnce(tcp({ send: 'bye' }), server)).toEqual({ status: 'ok' })
    expect(await said[0]).toBe('bye')
  })

  it('waits until the answer is as expected', async () => {
    const server = await startTcp(async (socket) => {
      for (const piece of ['not ', 'ye', 't rea', 'dy']) {
        socket.write(piece)
        await turn()
      }
    })
    expect(await checkOnce(tcp({ expect: 'ready' }), server)).toEqual({ status: 'ok' })
  })

  it('reads a RegExp with g or y as one without', async () => {
    const server = await greeter()
    const probe = tcp({ expect: /220/gy })
    for (let i = 0; i < 3; i++) expect(await checkOnce(probe, server)).toEqual({ status: 'ok' })
  })

  it.each<[string, string | undefined, string]>([
    ['another answer', '500 go\r\naway', 'unexpected answer "500 go away"'],
    ['no answer', undefined, 'closed without an answer'],
    ['too long an answer', 'x'.repeat(70_000), 'an answer of more than 65536 bytes'],
  ])('fails with %s', async (_, answer, message) => {
    const server = await startTcp((socket) => socket.end(answer ?? ''))
    expect(await checkOnce(tcp({ expect: 'ready' }), server)).toEqual({ status: 'err', message })
  })

  it('fails with a reset', async () => {
    const server = await startTcp((socket) => socket.resetAndDestroy())
    expect(await checkOnce(tcp({ expect: 'ready' }), server)).toMatchObject({ message: 'connection reset' })
  })

  it('fails with a socket that is not there', async () => {
    const report = await checkOnce(tcp(), { path: socketPath() })
    expect(report).toEqual({ status: 'err', message: 'no such socket' })
  })

  it.each<[object, string]>([
    [{ send: 5 }, 'heartbeat.send: expected a string or bytes, got 5'],
    [{ expect: '' }, 'heartbeat.expect: expected a non-empty string or a RegExp, got ""'],
    [{ expect: ['ok'] }, 'heartbeat.expect: expected a non-empty string or a RegExp, got an array of 1'],
  ])('refuses %j', (options, message) => {
    expect(() => tcp(options)).toThrow(ConfigError)
    expect(() => tcp(options)).toThrow(message)
  })
})
