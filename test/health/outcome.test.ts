import { describe, expect, it } from 'vitest'
import { Statuses, statusOf, verdictOf, type Outcome, type StatusMap } from '../../src/health/outcome.js'

describe('what a status means', () => {
  it.each<{ map: StatusMap; meanings: Record<number, string> }>([
    {
      map: {},
      meanings: {
        100: 'ok',
        200: 'ok',
        301: 'ok',
        404: 'ok',
        499: 'ok',
        500: 'failed',
        599: 'failed',
        600: 'ok',
        999: 'ok',
      },
    },
    { map: { 404: 'next', 429: 'failed' }, meanings: { 404: 'next', 403: 'ok', 429: 'failed', 500: 'failed' } },
    { map: { '5xx': true }, meanings: { 499: 'ok', 500: 'ok', 599: 'ok', 600: 'ok' } },
    { map: { '4xx': false }, meanings: { 399: 'ok', 400: 'failed', 499: 'failed', 500: 'failed' } },
    // A code wins over its class, wherever it stands.
    { map: { 503: 'stop', '5xx': 'neutral' }, meanings: { 503: 'stop', 500: 'neutral', 502: 'neutral' } },
    { map: { '5xx': 'neutral', 500: false }, meanings: { 500: 'failed', 503: 'neutral' } },
    { map: { '9xx': 'failed' }, meanings: { 899: 'ok', 900: 'failed', 999: 'failed' } },
  ])('by $map', ({ map, meanings }) => {
    const statuses = new Statuses(map)
    expect(Object.fromEntries(Object.keys(meanings).map((status) => [status, statuses.of(Number(status))]))).toEqual(
      meanings,
    )
  })

  it.each([0, -1, 99.5, 1000, NaN, Infinity])('of %d, which is none, is ok', (status) => {
    expect(new Statuses({ '1xx': 'failed' }).of(status)).toBe('ok')
  })
})

describe('what an outcome means', () => {
  class ClientGone extends Error {
    override name = 'AbortError'
  }
  it.each<{ outcome: Outcome; verdict: string }>([
    { outcome: 'ok', verdict: 'ok' },
    { outcome: 'failed', verdict: 'failed' },
    { outcome: 'neutral', verdict: 'neutral' },
    { outcome: true, verdict: 'failed' },
    { outcome: false, verdict: 'ok' },
    { outcome: { status: 200 }, verdict: 'ok' },
    { outcome: { status: 404 }, verdict: 'next' },
    { outcome: { status: 500 }, verdict: 'failed' },
    { outcome: new Response('text'), verdict: 'ok' },
    { outcome: new Response(null, { status: 502 }), verdict: 'failed' },
    { outcome: new Error('refused'), verdict: 'failed' },
    { outcome: new TypeError('fetch failed'), verdict: 'failed' },
    { outcome: Object.assign(new Error('x'), { status: 200 }), verdict: 'failed' },
    { outcome: new DOMException('gone', 'AbortError'), verdict: 'neutral' },
    { outcome: AbortSignal.abort().reason as Error, verdict: 'neutral' },
    { outcome: new DOMException('late', 'TimeoutError'), verdict: 'failed' },
    { outcome: new ClientGone('gone'), verdict: 'neutral' },
  ])('$outcome is $verdict', ({ outcome, verdict }) => {
    expect(new Statuses({ 404: 'next' }).outcome(outcome)).toBe(verdict)
  })

  it('is for health one of three', () => {
    const all = ['ok', 'failed', 'neutral', 'next', 'stop'] as const
    expect(all.map(verdictOf)).toEqual(['ok', 'failed', 'neutral', 'neutral', 'failed'])
  })
})

describe('the status in a value', () => {
  it.each<[unknown, number]>([
    [{ status: 404 }, 404],
    [new Response(null, { status: 204 }), 204],
    [{ status: '404' }, 0],
    [{ status: undefined }, 0],
    [{}, 0],
    [null, 0],
    [undefined, 0],
    ['404', 0],
    [404, 0],
    [new Error('x'), 0],
  ])('%o: %d', (value, status) => {
    expect(statusOf(value)).toBe(status)
  })
})
