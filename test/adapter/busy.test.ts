import { describe, expect, it, vi } from 'vitest'
import type { ProxiedRequest } from '../../src/adapter/http-proxy.js'
import { formatAttempts } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { proxies, refusing, send, settled, startGateway, startServer, type Answer } from '../support/http.js'

const busy =
  (status: number, after: string): Answer =>
  (req, res) => {
    req.resume()
    res.writeHead(status, { 'retry-after': after }).end('busy')
  }

describe.each(Object.entries(proxies))('a peer that says Retry-After, with %s', (_, makeProxy) => {
  it.each([429, 503])('by a %i: the next one is asked, and it is left alone for so long', async (status) => {
    const [a, b] = [await startServer('a', busy(status, '60')), await startServer('b')]
    const gateway = await startGateway([a, b], { proxy: makeProxy() })
    expect(await send(gateway)).toMatchObject({ status: 200, text: 'b' })
    await settled(gateway)
    const [first] = gateway.checkups.getStatus().upstreams[0]!.levels[0]!.servers
    expect(first).toMatchObject({ health: 'err', passive: { state: 'banned' } })
    expect(first!.passive.remaining).toBeGreaterThan(50_000)
  })

  it('its answer is passed on where the request must not be repeated, and where nobody else is', async () => {
    const a = await startServer('a', busy(429, '60'))
    const gateway = await startGateway([a, await startServer('b')], { proxy: makeProxy() })
    expect(await send(gateway, { method: 'POST' })).toMatchObject({ status: 429, text: 'busy' })
    const alone = await startGateway([a], { proxy: makeProxy() })
    expect(await send(alone)).toMatchObject({ status: 429, text: 'busy' })
    await settled(alone)
    expect(await send(alone)).toMatchObject({ status: 429, text: 'busy' })
  })

  it('a 429 without it is an answer like any other', async () => {
    const a = await startServer('a', (_req, res) => res.writeHead(429).end('no'))
    const gateway = await startGateway([a, await startServer('b')], { proxy: makeProxy() })
    expect(await send(gateway)).toMatchObject({ status: 429 })
  })
})

describe('the log of a proxied request', () => {
  it('has every attempt, also of one that succeeded', async () => {
    const ended: ProxiedRequest[] = []
    const [a, b] = [await startServer('a', busy(503, '1')), await startServer('b')]
    const gateway = await startGateway([refusing(), a, b], { onEnd: (request) => ended.push(request) })
    expect(await send(gateway, { path: '/x' })).toMatchObject({ status: 200, text: 'b' })
    await eventually(() => expect(ended).toHaveLength(1))
    const [{ req, upstream, attempts }] = ended as [ProxiedRequest]
    expect([req.url, upstream]).toEqual(['/x', 'test'])
    expect(attempts.map(({ verdict, status }) => [verdict, status])).toEqual([
      ['failed', 0],
      ['failed', 503],
      ['ok', 200],
    ])
    expect(formatAttempts(attempts)).toMatch(/^[\d.:]+, [\d.:]+, [\d.:]+ -, 503, 200 [\d.]+, [\d.]+, [\d.]+$/)
  })

  it('also of one that named no upstream, and what it throws ends nothing', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const onEnd = vi.fn(() => {
      throw new Error('mine')
    })
    const gateway = await startGateway([await startServer('a')], {
      onEnd,
      key: ({ url }) => (url === '/' ? 'test' : undefined),
    })
    expect(await send(gateway)).toMatchObject({ status: 200 })
    expect(await send(gateway, { path: '/none' })).toMatchObject({ status: 502 })
    await eventually(() => expect(onEnd).toHaveBeenCalledTimes(2))
    expect(onEnd.mock.lastCall).toMatchObject([{ upstream: undefined, attempts: [] }])
    expect(String(warned.mock.calls[0]![0])).toContain('onEnd threw')
    warned.mockRestore()
  })
})
