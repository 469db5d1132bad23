import { PassThrough, Readable } from 'node:stream'
import { FormData, fetch as undiciFetch, request } from 'undici'
import { describe, expect, it } from 'vitest'
import { eventually } from '../../support/eventually.js'
import { bytes, inFlight, marks, refusing, settled, sha256, startRaw, startServer } from '../../support/http.js'
import type { Gateway } from '../../support/http.js'
import { dispatching, type Dispatching } from './support.js'

const asGateway = (dispatching: Dispatching) => dispatching as unknown as Gateway
const nodeFetch = fetch as unknown as typeof undiciFetch

const MB = bytes(1_000_000)
const pieces = () => Array.from({ length: 25 }, (_, i) => MB.subarray(i * 40_000, (i + 1) * 40_000))

async function* generated(): AsyncGenerator<Buffer> {
  for (const piece of pieces()) yield Promise.resolve(piece)
}

/** Reads so many bytes of a request, and then resets. */
const resetAfter = (limit: number) =>
  startRaw((socket) => {
    let length = 0
    socket.on('data', (chunk) => {
      length += chunk.length
      if (length > limit) socket.resetAndDestroy()
    })
  })

const text = 'x'.repeat(1_000_000)
type Form = [says: string, body: () => unknown, sha: string]
const forms: Form[] = [
  ['a string', () => text, sha256(Buffer.from(text))],
  ['a Buffer', () => MB, sha256(MB)],
  ['a Uint8Array', () => new Uint8Array(MB), sha256(MB)],
  ['an ArrayBuffer', () => new Uint8Array(MB).buffer, sha256(MB)],
  ['a Blob', () => new Blob([MB]), sha256(MB)],
  ['an array', () => pieces(), sha256(MB)],
  ['a stream', () => Readable.from(pieces()), sha256(MB)],
  ['a stream of bytes', () => Readable.from(pieces()).pipe(new PassThrough()), sha256(MB)],
  ['an async generator', () => generated(), sha256(MB)],
  ['a web stream', () => ReadableStream.from(pieces()), sha256(MB)],
]

async function send({ dispatcher }: Dispatching, method: string, body: unknown): Promise<string> {
  const answer = await request('http://test/', { dispatcher, method, body: body as string })
  return `${answer.statusCode} ${await answer.body.text()}`
}

const failure = (work: Promise<unknown>): Promise<{ code?: string }> =>
  work.then(
    () => expect.unreachable('it should fail'),
    (error: unknown) => error as { code?: string },
  )

describe.each(forms)('a body of 1 MB, as %s', (_, body, sha) => {
  it.each(['PUT', 'POST'])('of a %s arrives whole where the first peers refuse', async (method) => {
    const c = await startServer('c')
    const test = dispatching([refusing(0), refusing(1), c])
    expect(await send(test, method, body())).toBe('200 c')
    expect(c.seen).toMatchObject([{ method, length: 1_000_000, sha }])
    await settled(asGateway(test))
  })

  it('of a PUT arrives whole after the first peer has read some and reset', async () => {
    const [a, b] = [await resetAfter(100_000), await startServer('b')]
    const test = dispatching([a, b])
    expect(await send(test, 'PUT', body())).toBe('200 b')
    expect(b.seen).toMatchObject([{ length: 1_000_000, sha }])
    expect(marks(asGateway(test), a)).toBe(1)
  })

  it('of a POST that a peer has seen goes to no other one', async () => {
    const [a, b] = [await resetAfter(0), await startServer('b')]
    const test = dispatching([a, b])
    expect(await failure(send(test, 'POST', body()))).toMatchObject({ code: 'ERR_CHECKUPS_STOPPED' })
    expect([b.connections, marks(asGateway(test), a), inFlight(asGateway(test))]).toEqual([0, 1, 0])
  })
})

describe.each([['undici', undiciFetch] as const, ['Node', nodeFetch] as const])('fetch of %s', (_, fetch) => {
  const rows: [says: string, body: () => unknown, more: object][] = [
    ['a string', () => text, {}],
    ['URLSearchParams', () => new URLSearchParams({ a: text }), {}],
    ['bytes', () => MB, {}],
    ['a stream', () => ReadableStream.from(pieces()), { duplex: 'half' }],
  ]
  it.each(rows)('%s of a PUT arrives whole after the first peers refused, or reset', async (_, body, more) => {
    for (const start of [() => refusing(), () => resetAfter(50_000)]) {
      const [a, b] = [await start(), await startServer('b')]
      const { dispatcher } = dispatching([a, b], { bodyLimit: 2_000_000 })
      const answer = await fetch('http://test/', { dispatcher, method: 'PUT', body: body() as string, ...more })
      expect(await answer.text()).toBe('b')
      expect(b.seen[0]!.length).toBeGreaterThanOrEqual(1_000_000)
    }
  })
})

it('a form arrives whole after the first peer has reset', async () => {
  const [a, b] = [await resetAfter(100_000), await startServer('b')]
  const test = dispatching([a, b])
  const form = new FormData()
  form.set('file', new Blob([MB]), 'name')
  expect(await send(test, 'PUT', form)).toBe('200 b')
  expect(b.seen[0]!.length).toBeGreaterThan(1_000_000)
  expect(b.seen[0]!.headers['content-type']).toMatch(/^multipart\/form-data; boundary=/)
})

describe('the limit of what is kept of a body that can be read once', () => {
  const rows: [says: string, bodyLimit: number | undefined, length: number, goesOn: boolean][] = [
    ['exactly the limit is repeated', 300_000, 300_000, true],
    ['one byte more is not', 299_999, 300_000, false],
    ['a limit of 0 keeps nothing', 0, 300_000, false],
    ['1 MiB is repeated by default', undefined, 2 ** 20, true],
    ['more than 1 MiB is not', undefined, 2 ** 20 + 1, false],
  ]
  it.each(rows)('%s', async (_, bodyLimit, length, goesOn) => {
    const body = bytes(length)
    // It resets when everything is there: the head of the request, and the heads of chunks, are what goes beyond.
    const [a, b] = [await resetAfter(length), await startServer('b')]
    const test = dispatching([a, b], { bodyLimit })
    const chunks = [body.subarray(0, 100_000), body.subarray(100_000)]
    const work = send(test, 'PUT', Readable.from(chunks))
    if (goesOn) expect(await work).toBe('200 b')
    else expect(await failure(work)).toMatchObject({ code: 'ERR_CHECKUPS_STOPPED' })
    expect(b.seen.map(({ sha }) => sha)).toEqual(goesOn ? [sha256(body)] : [])
  })
})

describe('a body that fails while it is sent', () => {
  const broken = new Error('the disk is gone')
  async function* breaking(): AsyncGenerator<Buffer> {
    yield Promise.resolve(Buffer.alloc(10))
    throw broken
  }
  const rows: [says: string, body: () => unknown][] = [
    ['a generator', breaking],
    ['a stream', () => Readable.from(breaking())],
  ]
  it.each(rows)('%s: counts against nobody, and is asked of nobody else', async (_, body) => {
    for (const method of ['PUT', 'POST']) {
      const [a, b] = [await startRaw((socket) => socket.resume()), await startServer('b')]
      const test = dispatching([a, b])
      expect(await failure(send(test, method, body()))).toBe(broken)
      expect([marks(asGateway(test), a), b.connections, inFlight(asGateway(test))]).toEqual([0, 0, 0])
      await eventually(() => expect(a.sockets.size).toBe(0))
    }
  })

  it('also before anybody has read of it', async () => {
    const a = await startRaw((socket) => socket.resume())
    const test = dispatching([a])
    const body = new Readable({ read: () => undefined })
    const work = failure(send(test, 'PUT', body))
    body.destroy(broken)
    expect(await work).toBe(broken)
    expect([marks(asGateway(test), a), inFlight(asGateway(test))]).toEqual([0, 0])
  })
})

it('a source is let go when the answer comes before it has ended', async () => {
  const a = await startServer('a', (_req, res) => void res.writeHead(413).end('much'))
  const test = dispatching([a])
  let ended = false
  async function* endless(): AsyncGenerator<Buffer> {
    try {
      for (;;) {
        yield await new Promise<Buffer>((resolve) => setImmediate(resolve, Buffer.alloc(1_000)))
      }
    } finally {
      ended = true
    }
  }
  expect(await send(test, 'POST', endless())).toBe('413 much')
  await eventually(() => expect(ended).toBe(true))
  await settled(asGateway(test))
})

it('a body is read no faster than its peer takes it', async () => {
  let read = 0
  async function* endless(): AsyncGenerator<Buffer> {
    for (;;) {
      read += 100_000
      yield await Promise.resolve(Buffer.alloc(100_000))
    }
  }
  const a = await startRaw((socket) => socket.pause())
  const test = dispatching([a], { bodyLimit: 0 })
  const controller = new AbortController()
  const work = request('http://test/', {
    dispatcher: test.dispatcher,
    method: 'PUT',
    body: Readable.from(endless()),
    signal: controller.signal,
  })
  let before = -1
  await eventually(() => {
    const now = read
    const still = now === before && now > 0
    before = now
    expect(still).toBe(true)
  }, 100)
  expect(read).toBeLessThan(20_000_000)
  controller.abort()
  await failure(work)
})
