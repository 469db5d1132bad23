/** Servers that are not what they should be: the source waits, says what is wrong, or goes on; it never spins by itself. */
import type { RequestListener } from 'node:http'
import type { Socket } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Checkups } from '../../../src/index.js'
import { consulKv, ConsulError } from '../../../src/source/consul.js'
import { eventually } from '../../support/eventually.js'
import { answer, asked, pretend, watch } from './harness.js'

const keys = { 'up/a/127.0.0.1:1': '' }
const options = { prefix: 'up', layout: 'upsync', requestTimeout: 30_000 } as const

async function watching(listener: RequestListener, more: object = {}) {
  return watch(consulKv({ ...options, address: await pretend(listener), ...more }))
}

describe('consulKv and a server that', () => {
  it('answers at once for ever is asked no oftener than the loop lets it be', async () => {
    const begun = performance.now()
    let asks = 0
    const address = await pretend((_, res) => {
      answer(res, keys, ++asks)
    })
    const checkups = new Checkups({ sources: [consulKv({ ...options, address })] })
    onTestFinished(() => checkups.close())
    await checkups.start()
    await eventually(() => expect(asks).toBeGreaterThan(20 + 3))
    expect(asks).toBeLessThanOrEqual(20 + 5 * ((performance.now() - begun) / 1_000) + 1) // The burst, and five a second.
  })

  it('never answers is given up when its time is over', async () => {
    const watched = await watching(() => undefined, { requestTimeout: 300 })
    await eventually(() => expect(watched.errors).toHaveLength(1))
    expect(watched.errors[0]).toMatchObject({
      reason: 'unreachable',
      message: expect.stringMatching(/did not answer in time$/) as string,
    })
  })

  it('never answers a blocking query is given up a sixteenth of the wait later, and then asked for an answer at once', async () => {
    const seen: (string | null)[] = []
    const watched = await watching(
      (req, res) => {
        seen.push(asked(req).get('index'))
        if (asked(req).get('index') === null) answer(res, keys)
      },
      { wait: 160, requestTimeout: 300 },
    )
    const begun = performance.now()
    await eventually(() => expect(watched.errors).toHaveLength(1))
    expect(performance.now() - begun).toBeGreaterThan(400) // 160 + 10 + 300
    await eventually(() => expect(seen.slice(0, 3)).toEqual([null, '7', null]))
  })

  it('breaks off amid a body is given up at once', async () => {
    const watched = await watching(
      (_, res) => {
        res.writeHead(200, { 'content-type': 'application/json', 'content-length': 1_000, 'x-consul-index': 7 })
        res.write('[{"Key":', () => res.destroy())
      },
      { requestTimeout: 60_000 },
    )
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(2))
    expect(watched.errors[0]).toMatchObject({ reason: 'unreachable' })
  })

  it('resets every connection for a while is followed again when it has stopped', async () => {
    let broken = false
    let current: Record<string, string> = keys
    const blocked = new Set<Socket>()
    const watched = await watching(
      (req, res) => {
        if (broken) req.socket.resetAndDestroy()
        else if (asked(req).get('index') === null) answer(res, current)
        else blocked.add(req.socket)
      },
      { requestTimeout: 60_000 },
    )
    await eventually(() => expect(blocked.size).toBe(1))
    broken = true
    for (const socket of blocked) socket.resetAndDestroy()
    current = { ...keys, 'up/a/127.0.0.1:2': '' }
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(3))
    broken = false
    await eventually(() => expect(Object.keys(watched.servers('a')!)).toHaveLength(2))
  })

  it.each<[string, RequestListener, RegExp]>([
    [
      'says 200 with HTML',
      (_, res) => res.setHeader('content-type', 'text/html').end('<html>login</html>'),
      /not one of Consul/,
    ],
    ['says 200 with nothing', (_, res) => res.end(), /not one of Consul/],
    ['says 200 with broken JSON', (_, res) => res.setHeader('content-type', 'application/json').end('[{'), /not JSON/],
    [
      'lists what are no keys',
      (_, res) => res.setHeader('content-type', 'application/json').end('[null]'),
      /not one of/,
    ],
    [
      'lists keys that the client would stumble over',
      (_, res) => res.setHeader('content-type', 'application/json').end('[{"hasOwnProperty":1}]'),
      /not one of Consul/,
    ],
    ['says 404 that is none of Consul', (_, res) => res.writeHead(404).end('no such page'), /not one of Consul/],
    ['lists no keys', (_, res) => res.setHeader('content-type', 'application/json').end('[{}]'), /not one of Consul/],
    ['says 429', (_, res) => res.writeHead(429).end('slow down'), /answered 429: slow down/],
    ['says 400', (_, res) => res.writeHead(400).end('bad'), /answered 400: bad/],
    ['sends elsewhere', (_, res) => res.writeHead(301, { location: '/' }).end(), /answered 301/],
  ])('%s is not believed', async (_, listener, message) => {
    const watched = await watching(listener)
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(1))
    expect(watched.errors[0]).toBeInstanceOf(ConsulError)
    expect(watched.errors[0]!.message).toMatch(message)
    expect(watched.lists).toEqual([])
  })

  it('fails is not asked with the index of its failure', async () => {
    const indexes: (string | null)[] = []
    const watched = await watching((req, res) => {
      indexes.push(asked(req).get('index'))
      const count = indexes.length
      if (count === 1) answer(res, keys, 50)
      else if (count === 2)
        res.writeHead(500, { 'x-consul-index': 1, 'content-type': 'text/plain' }).end('No cluster leader')
      else if (count === 3) answer(res, keys, 60)
    })
    await eventually(() => expect(indexes).toEqual([null, '50', null, '60']))
    expect(watched.errors.map(({ message }) => message)).toEqual([
      expect.stringMatching(/answered 500: No cluster leader$/),
    ])
  })

  it.each<[string, (string | undefined)[], (string | null)[]]>([
    ['goes backwards', ['50', '20', '21'], [null, '50', null, '21']],
    ['stays, before the wait is over', ['50', '50', '50'], [null, '50', null, '50']],
    ['is missing', [undefined, '9'], [null, null, '9']],
    ['is 0 or no number', ['0', 'x', '-1', '9'], [null, null, null, null, '9']],
    [
      'is larger than a double',
      ['18446744073709551614', '18446744073709551615'],
      [null, '18446744073709551614', '18446744073709551615'],
    ],
  ])('has an index that %s is asked rightly', async (_, given, expected) => {
    const indexes: (string | null)[] = []
    const watched = await watching((req, res) => {
      indexes.push(asked(req).get('index'))
      const index = given[indexes.length - 1]
      if (indexes.length > given.length) return
      res.writeHead(200, {
        'content-type': 'application/json',
        ...(index !== undefined && { 'x-consul-index': index }),
      })
      res.end(JSON.stringify([{ Key: 'up/a/127.0.0.1:1', Value: null }]))
    })
    await eventually(() => expect(indexes).toEqual(expected))
    expect(watched.errors).toEqual([])
  })

  it('has nothing any more is asked once more at once', async () => {
    const indexes: (string | null)[] = []
    const watched = await watching((req, res) => {
      const query = asked(req)
      if (!query.has('recurse')) return res.writeHead(404, { 'x-consul-index': 50 }).end() // The probe of a single key.
      indexes.push(query.get('index'))
      const count = indexes.length
      if (count === 1) answer(res, keys, 50)
      else if (count <= 3) res.writeHead(404, { 'x-consul-index': 50 + count }).end()
      return undefined
    })
    await eventually(() => expect(indexes).toEqual([null, '50', null, '53']))
    expect(watched.errors).toEqual([])
    expect(watched.lists.map(({ upstreams }) => (upstreams as Map<string, unknown>).size)).toEqual([1, 0, 0])
  })

  it('is not remembered for an answer that could not be applied', async () => {
    const indexes: (string | null)[] = []
    const address = await pretend((req, res) => {
      indexes.push(asked(req).get('index'))
      answer(res, keys)
    })
    const source = consulKv({ ...options, address })
    const context = {
      signal: new AbortController().signal,
      clock: { now: () => 0 } as never,
      sleep: () => Promise.resolve(),
    }
    const broken = () => {
      throw new Error('not applied')
    }
    await expect(source.watch(broken, context)).rejects.toThrow('not applied')
    await source.watch(() => undefined, context)
    await source.watch(() => undefined, context)
    expect(indexes).toEqual([null, null, '7'])
  })

  it('is the last of several that fail: all are tried once, and the error is that of the last', async () => {
    const order: string[] = []
    const failing = (name: string) => pretend((_, res) => (order.push(name), res.writeHead(500).end(name)))
    const addresses = [await failing('a'), await failing('b'), await failing('c')]
    const source = consulKv({ prefix: 'up', layout: 'upsync', addresses })
    const context = {
      signal: new AbortController().signal,
      clock: { now: () => 0 } as never,
      sleep: () => Promise.resolve(),
    }
    await expect(source.watch(() => undefined, context)).rejects.toThrow(/500: c$/)
    expect(order).toEqual(['a', 'b', 'c'])
  })

  it('wants a namespace, a partition, a datacenter or a stale answer gets them', async () => {
    const queries: Record<string, string>[] = []
    await watching((req) => void queries.push(Object.fromEntries(asked(req))), {
      ...{ ns: 'n', partition: 'p', dc: 'd', stale: true, requestTimeout: 5_000 },
    })
    await eventually(() => expect(queries).toEqual([{ recurse: 'true', ns: 'n', partition: 'p', dc: 'd', stale: '1' }]))
  })
})
