import type { IncomingMessage } from 'node:http'
import { Readable } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { hasBody, hostKey, isIdempotent, ReplayBody } from '../../src/adapter/http.js'

/** A body whose pieces come when `read` is called, as from a client. */
const sourceOf = (pieces: readonly Buffer[]) => Readable.from(pieces, { objectMode: false, highWaterMark: 1 })
const asRequest = (source: Readable) => source as IncomingMessage
const tick = () => new Promise((resolve) => setImmediate(resolve))

const pieces = fc
  .array(fc.integer({ min: 1, max: 40 }), { maxLength: 12 })
  .map((sizes) => sizes.map((size, i) => Buffer.alloc(size, 65 + i)))

/** One attempt: how many times it reads before it is given up. */
const attempts = fc.array(fc.integer({ min: 0, max: 8 }), { maxLength: 4 })

describe('ReplayBody', () => {
  it('gives every attempt all of it from the start, or says that it cannot', async () => {
    const property = fc.asyncProperty(pieces, fc.nat(300), attempts, async (body, limit, givenUp) => {
      const whole = Buffer.concat(body)
      const replay = new ReplayBody(asRequest(sourceOf(body)), limit)
      for (const reads of givenUp) {
        const stream = replay.stream()
        const got: Buffer[] = []
        for (let i = 0; i < reads && !stream.readableEnded; i++) {
          const chunk = stream.read() as Buffer | null
          if (chunk !== null) got.push(chunk)
          await tick()
        }
        const read = Buffer.concat(got)
        expect(read.equals(whole.subarray(0, read.length))).toBe(true)
        // Whatever has been read of it so far is kept up to the limit, and only up to it.
        if (whole.length <= limit) expect(replay.replayable).toBe(true)
        if (read.length > limit) expect(replay.replayable).toBe(false)
        if (!replay.replayable) {
          const rest = await stream.toArray()
          expect(Buffer.concat([read, ...(rest as Buffer[])]).equals(whole)).toBe(true)
          return
        }
      }
      const last = (await replay.stream().toArray()) as Buffer[]
      expect(Buffer.concat(last).equals(whole)).toBe(true)
    })
    await fc.assert(property, { numRuns: 300 })
  })

  it('takes no more from the client than its reader wants', async () => {
    let given = 0
    const source = new Readable({
      highWaterMark: 1_000,
      read() {
        given += 1_000
        this.push(Buffer.alloc(1_000))
      },
    })
    const stream = new ReplayBody(asRequest(source), 5_000).stream()
    stream.read()
    for (let i = 0; i < 100; i++) await tick()
    expect(given).toBeLessThan(stream.readableHighWaterMark + 10_000)
  })

  it('takes nothing before there is an attempt', async () => {
    const source = sourceOf([Buffer.from('body')])
    const replay = new ReplayBody(asRequest(source), 100)
    for (let i = 0; i < 5; i++) await tick()
    expect(source.readableFlowing).toBe(false)
    expect(Buffer.concat((await replay.stream().toArray()) as Buffer[]).toString()).toBe('body')
  })

  it('lets go of what nobody has read when the request is over', async () => {
    const source = sourceOf([Buffer.alloc(100), Buffer.alloc(100)])
    const replay = new ReplayBody(asRequest(source), 1_000)
    replay.stream().read()
    replay.end()
    await new Promise((resolve) => source.once('end', resolve))
    expect(replay.replayable).toBe(false)
    expect([source.listenerCount('data'), source.readableFlowing]).toEqual([0, true])
  })

  it('gives an attempt that was given up nothing more', async () => {
    const replay = new ReplayBody(asRequest(sourceOf([Buffer.from('one'), Buffer.from('two')])), 1_000)
    const first = replay.stream()
    const second = replay.stream()
    expect(first.destroyed).toBe(true)
    expect(Buffer.concat((await second.toArray()) as Buffer[]).toString()).toBe('onetwo')
  })
})

describe('what a request says', () => {
  const request = (headers: IncomingMessage['headers']) => ({ headers }) as IncomingMessage
  it.each([
    [{}, false],
    [{ 'content-length': '0' }, false],
    [{ 'content-length': '1' }, true],
    [{ 'transfer-encoding': 'chunked' }, true],
  ])('%j has a body: %s', (headers, expected) => expect(hasBody(request(headers))).toBe(expected))

  it.each([
    [undefined, undefined],
    ['A.test:80', 'a.test'],
    ['a.test', 'a.test'],
    ['[::1]:80', '[::1]'],
    ['[::1]', '[::1]'],
    ['', ''],
  ])('the key of Host %j is %j', (host, expected) => {
    expect(hostKey(request(host === undefined ? {} : { host }))).toBe(expected)
  })

  it('repeating it is harmless, or not', () => {
    const methods = 'GET HEAD OPTIONS TRACE PUT DELETE POST PATCH CONNECT LOCK'.split(' ')
    const harmless = methods.filter((method) => isIdempotent(method))
    expect(harmless.join(' ')).toBe('GET HEAD OPTIONS TRACE PUT DELETE')
  })
})
