/** What holds for every parser of a connection's first bytes. */
import type { Socket } from 'node:net'
import { PassThrough } from 'node:stream'
import fc from 'fast-check'
import { expect } from 'vitest'
import { Preread } from '../../../src/adapter/net/preread.js'
import type { Parse } from '../../../src/adapter/net/reading.js'

/** Some of these bytes changed, cut off, or others behind them. */
function damaged(bytes: fc.Arbitrary<Buffer>): fc.Arbitrary<Buffer> {
  const change = fc.tuple(fc.nat(), fc.integer({ min: 0, max: 255 }))
  const changes = fc.array(change, { maxLength: 3 })
  const behind = fc.uint8Array({ maxLength: 20 })
  return fc.tuple(bytes, changes, behind).map(([good, some, more]) => {
    const bad = Buffer.concat([good, more])
    for (const [at, value] of some) if (bad.length > 0) bad[at % Math.min(bad.length, 60)] = value
    return bad
  })
}

/** A parser never throws, and what it has said of a beginning it says whatever follows. */
export function isFinal(parse: Parse<unknown>, bytes: fc.Arbitrary<Buffer>): void {
  const seen = new Set<string>()
  fc.assert(
    fc.property(damaged(bytes), (all) => {
      let decided: ReturnType<typeof parse> | undefined
      for (let length = 0; length <= all.length; length++) {
        const reading = parse(all.subarray(0, length))
        if (decided !== undefined) expect(reading).toEqual(decided)
        else if (reading.state !== 'more') decided = reading
        if (reading.state === 'done') expect(reading.length).toBeLessThanOrEqual(length)
        seen.add(reading.state)
      }
    }),
    { numRuns: 500 },
  )
  expect(seen.has('more') && seen.has('invalid')).toBe(true)
}

const LIMIT = 600

/** What becomes of bytes that a client sends in these pieces, before it ends. */
async function preread(parse: Parse<unknown>, pieces: readonly Buffer[]): Promise<unknown> {
  const stream = new PassThrough()
  const socket = stream as unknown as Socket
  const head = new Preread(socket, { limit: LIMIT, timeout: 60_000 })
  const read = head.read(parse).then(
    (value) => ({ value }),
    (error: unknown) => ({ error: (error as Error).message }),
  )
  for (const piece of pieces) {
    stream.write(piece)
    // Each one by itself: a turn of the loop in between.
    await new Promise((resolve) => setImmediate(resolve))
  }
  stream.end()
  const result = await read
  // Whatever was not taken off is still there, and the rest comes behind it.
  const rest: Buffer[] = [head.rest]
  if ('value' in result) for await (const chunk of stream) rest.push(chunk as Buffer)
  return 'value' in result ? { ...result, rest: Buffer.concat(rest) } : result
}

/** Through a socket, too, it does not matter how the bytes are cut. */
export async function sameInAnyPieces(parse: Parse<unknown>, bytes: fc.Arbitrary<Buffer>): Promise<void> {
  const cuts = fc.array(fc.nat(), { maxLength: 5 })
  const seen = new Set<string>()
  await fc.assert(
    fc.asyncProperty(damaged(bytes), cuts, async (all, places) => {
      const at = [0, ...places.map((place) => place % (all.length + 1)), all.length].sort((a, b) => a - b)
      const pieces = at.slice(1).map((end, i) => all.subarray(at[i], end))
      const [whole, cut] = [await preread(parse, [all]), await preread(parse, pieces)]
      expect(cut).toEqual(whole)
      seen.add(Object.keys(whole as object)[0]!)
    }),
    { numRuns: 200 },
  )
  expect([...seen].sort()).toEqual(['error', 'value'])
}
