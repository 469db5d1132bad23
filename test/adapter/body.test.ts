import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { describe, expect, it } from 'vitest'
import { eventually } from '../support/eventually.js'
import { answers, bytes, inFlight, marks, open, proxies, refusing } from '../support/http.js'
import { replyTo, send, settled, sha256, startGateway, startRaw, startServer } from '../support/http.js'
import type { Answer, SendOptions } from '../support/http.js'

const MB = bytes(1_000_000)
const SHA = sha256(MB)
const chunksOf = (body: Buffer, size: number) =>
  Array.from({ length: Math.ceil(body.length / size) }, (_, i) => body.subarray(i * size, (i + 1) * size))

const resetAfter = (limit: number) => (socket: Socket) => {
  let length = 0
  socket.on('data', (chunk) => {
    length += chunk.length
    if (length > limit) socket.resetAndDestroy()
  })
}

/** By then the gateway has had the last byte, too, however the body comes. */
const resetWhenRead: Answer = (req) => req.resume().once('end', () => req.socket.resetAndDestroy())

const forms: [form: string, body: Buffer | Buffer[]][] = [
  ['with its length', MB],
  ['chunked', chunksOf(MB, 40_000)],
]

describe.each(Object.entries(proxies))('a body of 1 MB, with %s', (_, makeProxy) => {
  it.each(forms)('%s arrives whole where the first peers refuse', async (_, body) => {
    const b = await startServer('b')
    const gateway = await startGateway([refusing(0), refusing(1), b], { proxy: makeProxy() })
    expect(await send(gateway, { method: 'POST', body })).toMatchObject({ status: 200, text: 'b' })
    expect(b.seen).toMatchObject([{ method: 'POST', length: MB.length, sha: SHA }])
    await settled(gateway)
  })

  it.each(forms)('%s of a PUT arrives whole after the first peer has read some and reset', async (_, body) => {
    const [a, b] = [await startRaw(resetAfter(100_000)), await startServer('b')]
    const gateway = await startGateway([a, b], { proxy: makeProxy() })
    expect(await send(gateway, { method: 'PUT', body })).toMatchObject({ status: 200, text: 'b' })
    expect(b.seen).toMatchObject([{ length: MB.length, sha: SHA }])
    expect([a.connections, marks(gateway, a)]).toEqual([1, 1])
    await settled(gateway)
  })

  it.each(forms)('%s of a POST that a peer has seen goes to no other one', async (_, body) => {
    const [a, b] = [await startRaw(resetAfter(0)), await startServer('b')]
    const gateway = await startGateway([a, b], { proxy: makeProxy() })
    expect(await send(gateway, { method: 'POST', body })).toMatchObject({ status: 502, text: '502 Bad Gateway\n' })
    expect([b.connections, marks(gateway, a)]).toEqual([0, 1])
    await settled(gateway)
  })

  it.each(forms)('%s beyond the limit is given up, not truncated', async (_, body) => {
    const [a, b] = [await startRaw(resetAfter(600_000)), await startServer('b')]
    const gateway = await startGateway([a, b], { proxy: makeProxy(), bodyLimit: 500_000 })
    expect((await send(gateway, { method: 'PUT', body })).status).toBe(502)
    expect([b.connections, marks(gateway, a)]).toEqual([0, 1])
    await settled(gateway)
  })
})

describe('the limit of what is kept', () => {
  const rows: [says: string, limit: number | undefined, length: number, status: number][] = [
    ['a body of exactly the limit is repeated', 300_000, 300_000, 200],
    ['one byte more is not', 299_999, 300_000, 502],
    ['a limit of 0 keeps nothing', 0, 300_000, 502],
    ['1 MiB is repeated by default', undefined, 2 ** 20, 200],
    ['more than 1 MiB is not', undefined, 2 ** 20 + 1, 502],
  ]
  it.each(rows)('%s', async (_, bodyLimit, length, status) => {
    const body = bytes(length)
    const [a, b] = [await startServer('a', resetWhenRead), await startServer('b')]
    const gateway = await startGateway([a, b], { bodyLimit })
    expect((await send(gateway, { method: 'PUT', body })).status).toBe(status)
    expect(b.seen.map(({ sha }) => sha)).toEqual(status === 200 ? [sha256(body)] : [])
  })
})

describe('a client that sends slowly', () => {
  it('has its body arrive whole where the first peer refuses', async () => {
    const b = await startServer('b')
    const gateway = await startGateway([refusing(), b])
    const request = open(gateway, { method: 'POST' })
    const reply = replyTo(request)
    const chunks = chunksOf(bytes(100_000), 10_000)
    for (const [i, chunk] of chunks.entries()) {
      request.write(chunk)
      await eventually(() => expect(b.seen[0]?.length).toBe((i + 1) * 10_000))
    }
    request.end()
    expect(await reply).toMatchObject({ status: 200, text: 'b' })
    expect(b.seen).toMatchObject([{ length: 100_000, sha: sha256(bytes(100_000)) }])
  })

  it('is in the middle of it when the first peer resets', async () => {
    const [a, b] = [
      await startRaw((socket) => void socket.once('data', () => socket.resetAndDestroy())),
      await startServer('b'),
    ]
    const gateway = await startGateway([a, b])
    const request = open(gateway, { method: 'PUT' })
    const reply = replyTo(request)
    request.write(MB.subarray(0, 10_000))
    await eventually(() => expect(b.seen[0]?.length).toBe(10_000))
    request.end(MB.subarray(10_000))
    expect((await reply).text).toBe('b')
    expect(b.seen).toMatchObject([{ length: MB.length, sha: SHA }])
  })
})

describe('a peer that answers before it has the body', () => {
  const early: Answer = (_req, res) => {
    res.writeHead(413, { 'content-length': '4' })
    res.end('much')
  }
  const earlyAndClose: Answer = (req, res) => {
    res.writeHead(413, { connection: 'close', 'content-length': '4' })
    res.end('much', () => req.socket.destroy())
  }
  const rows: [says: string, answer: Answer, others: boolean][] = [
    ['and reads on', early, false],
    ['and reads on, with others to try', early, true],
    ['and closes', earlyAndClose, false],
    ['and closes, with others to try', earlyAndClose, true],
  ]
  it.each(rows)('%s: the client gets the answer and can go on with its connection', async (_, answer, others) => {
    const a = await startServer('a', answer)
    const gateway = await startGateway(others ? [a, await startServer('b')] : [a], {
      upstream: { statuses: { 413: 'ok' } },
    })
    const socket = connect(gateway.port, '127.0.0.1').setEncoding('latin1')
    let text = ''
    socket.on('data', (data: string) => (text += data)).on('error', () => undefined)
    socket.write('POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3000000\r\n\r\n')
    socket.write(bytes(100_000))
    await eventually(() => expect(text).toMatch(/^HTTP\/1\.1 413 [^]*much$/))
    // A peer's "connection: close" is passed on by the proxy, which ends the client's connection as well.
    if (/connection: close/i.test(text)) return await eventually(() => expect(socket.readableEnded).toBe(true))
    socket.write(bytes(2_900_000))
    a.answer = (_req, res) => res.end('again')
    socket.write('GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n')
    await once(socket, 'end')
    expect(text).toMatch(others ? /\r\n\r\nb$/ : /again$/)
    await settled(gateway)
  })

  it('is not kept waiting for the rest: its connection is closed or gets all of it', async () => {
    const a = await startServer('a', early)
    const gateway = await startGateway([a, await startServer('b')])
    const request = open(gateway, { method: 'POST', headers: { 'content-length': '3000000' } })
    const reply = replyTo(request)
    request.write(MB)
    expect(await reply).toMatchObject({ status: 413, text: 'much' })
    request.end(bytes(2_000_000))
    await once(request, 'finish')
    const [seen] = a.seen
    await eventually(() => expect(seen!.req.complete || a.sockets.size === 0).toBe(true))
  })
})

describe('after a 502 the connection of the client can be used again', () => {
  const rows: [says: string, others: boolean, options: SendOptions][] = [
    ['with nobody else to try', false, { method: 'PUT' }],
    ['after a POST', true, { method: 'POST' }],
  ]
  it.each(rows)('%s', async (_, others, options) => {
    const a = await startRaw(resetAfter(10_000))
    const gateway = await startGateway(others ? [a, await startServer('b')] : [a])
    gateway.agent.maxSockets = 1
    for (let i = 0; i < 2; i++) {
      expect((await send(gateway, { ...options, body: bytes(3_000_000) })).status).toBe(i === 0 || !others ? 502 : 200)
    }
    expect([gateway.connections, inFlight(gateway)]).toEqual([1, 0])
  })
})

it('a request without a body goes to the next peer without one', async () => {
  const b = await startServer('b')
  const gateway = await startGateway([refusing(), b])
  expect(await answers(gateway, 1, { method: 'DELETE' })).toBe('b')
  expect(b.seen).toMatchObject([{ method: 'DELETE', length: 0 }])
})
