import { describe, expect, it } from 'vitest'
import * as view from '../../../src/admin/page/assets/view.js'
import type { PeerModel, PeerWord, UpstreamModel } from '../../../src/admin/page/model.js'

let ids = 0
const peer = (word: PeerWord, more: Partial<PeerModel> = {}): PeerModel => ({
  id: ++ids,
  address: `10.0.0.${ids}:80`,
  word,
  usable: ['up', 'unstable', 'trial'].includes(word),
  since: 0,
  weight: 1,
  inFlight: 0,
  ...more,
})
const upstream = (key: string, ...levels: PeerModel[][]): UpstreamModel => ({
  id: ++ids,
  key,
  balancer: 'wrr',
  keyed: false,
  levels: levels.map((peers, l) => ({ name: String(l), peers })),
})
const beats = { started: true, peers: 0, waiting: 0, lag: 0 }
const context = { now: 0, second: 100, from: 0, samples: () => [] }
const said = (markup: string) =>
  markup
    .replace(/<[^>]*>/g, ' ')
    .replace(/\s+/g, ' ')
    .trim()

describe('markup', () => {
  it('escapes what is put into it, in text and in attributes', () => {
    const evil = `<img src=x onerror="alert(1)" title='&'>`
    expect(view.html`<p title="${evil}">${evil}</p>`.markup).toBe(
      '<p title="&lt;img src=x onerror=&quot;alert(1)&quot; title=&#39;&amp;&#39;&gt;">' +
        '&lt;img src=x onerror=&quot;alert(1)&quot; title=&#39;&amp;&#39;&gt;</p>',
    )
  })

  it('takes markup, lists of it, and nothing for what is not there', () => {
    expect(view.html`<ul>${[1, 2].map((n) => view.html`<li>${n}</li>`)}${undefined}${false}${null}</ul>`.markup).toBe(
      '<ul><li>1</li><li>2</li></ul>',
    )
  })

  it('an object that looks like markup is none', () => {
    expect(view.html`${{ markup: '<b>', toString: () => '<i>' }}`.markup).toBe('&lt;i&gt;')
  })
})

describe('words and numbers', () => {
  it.each([
    [-5, '0 s'],
    [999, '0 s'],
    [59_999, '59 s'],
    [60_000, '1 min'],
    [3_599_999, '59 min'],
    [3_600_000, '1 h'],
    [7_500_000, '2 h 5 min'],
    [86_400_000, '1 d'],
    [100_000_000, '1 d 3 h'],
  ])('%i ms are %s', (ms, text) => expect(view.span(ms)).toBe(text))

  it('what is left is rounded up: 0 s would be over', () => {
    expect(view.aged(10_000, 9_500, '% left')).toBe('1 s left')
    expect(view.aged(10_000, 12_500, '% ago')).toBe('2 s ago')
  })

  it('rates are those of ten seconds, or of fewer while it has not been measured for longer', () => {
    const samples = [80, 95, 100].map((second) => [second, 20, 10, 1, 5, 9, 10] as const)
    const { requests, failed, ms, slowest, unserved } = view.rates(samples, { second: 100, from: 0 })!
    expect([requests, failed, ms, slowest, unserved]).toEqual([4, 0.05, 5, 9, 2])
    expect(view.rates(samples, { second: 100, from: 97 })).toMatchObject({ requests: 5 })
    expect(view.rates(samples, { second: 100, from: 101 })).toBeUndefined()
    expect(view.rates([], { second: 100, from: NaN })).toBeUndefined()
    expect(view.rates([], { second: 100, from: 0 })).toMatchObject({ requests: 0, failed: NaN, ms: 0 })
  })
})

describe('at a glance', () => {
  const verdict = (upstreams: UpstreamModel[], stale = 0) => {
    const source = {
      name: 's',
      state: 'stale',
      since: 0,
      fromSnapshot: false,
      error: 'gone',
      refused: 0,
      upstreams: [],
    }
    const glance = { upstreams, sources: Array.from({ length: stale }, () => source as never), beats }
    const { tone, text } = view.verdict(glance, view.counts(upstreams))
    return `${tone}: ${text.replaceAll('\u00a0', ' ')}`
  }

  it('says what is wrong, the worst first', () => {
    expect(verdict([])).toBe('up: No upstreams yet')
    expect(verdict([upstream('a', [peer('up')])])).toBe('up: The only peer is up')
    expect(verdict([upstream('a', [peer('up'), peer('up')])])).toBe('up: All 2 peers are up')
    expect(verdict([upstream('a', [peer('up'), peer('drain'), peer('trial')])])).toBe(
      'unstable: 1 on trial, 1 draining of 3 peers',
    )
    expect(verdict([upstream('a', [peer('up'), peer('banned'), peer('down')])], 2)).toBe(
      'down: 1 down, 1 banned, 2 sources stale of 3 peers',
    )
    expect(verdict([upstream('a', [peer('down')]), upstream('b', [peer('up')])])).toBe(
      'down: Nobody is usable in a; 1 down',
    )
    expect(verdict([upstream('a', [peer('up')])], 1)).toBe('unstable: 1 source stale')
  })

  it('names the problems, the worst first, and counts those that it does not name', () => {
    const upstreams = [
      upstream('lost', [peer('hand')]),
      upstream('api', [peer('up'), peer('drain'), peer('banned', { until: 5_000, why: 'failed once' }), peer('down')]),
      upstream('spare', [peer('down')], [peer('up')]),
    ]
    const { parts, more } = view.problems({ upstreams, sources: [], beats: { ...beats, started: false } }, context)
    const texts = parts.map(({ markup }) => said(markup))
    expect(texts[0]).toBe('lost nobody is usable')
    expect(texts[1]).toBe('spare level 1 has nobody left')
    expect(texts.slice(2, 4).every((text) => text.includes(' down for 0 s'))).toBe(true)
    expect(texts[4]).toMatch(/api banned 5 s left failed once$/)
    expect(more).toBe(0)
    const many = upstream(
      'many',
      Array.from({ length: 40 }, () => peer('down')),
      [peer('up')],
    )
    expect(view.problems({ upstreams: [many], sources: [], beats }, context)).toMatchObject({ more: 33 })
  })

  it('heartbeats that do not run, or run late, are a problem', () => {
    const probed = { ...upstream('a', [peer('up')]), probe: 'tcp' }
    const problem = (upstreams: UpstreamModel[], changed: Partial<typeof beats>) =>
      view
        .problems({ upstreams, sources: [], beats: { ...beats, ...changed } }, context)
        .parts.map(({ markup }) => said(markup))
    expect(problem([probed], { started: false })).toEqual(['heartbeats do not run: nobody has called start()'])
    expect(problem([upstream('a', [peer('up')])], { started: false })).toEqual([])
    expect(problem([probed], { lag: 2_500 })).toEqual(['heartbeats begin 2.5 s late: this process cannot keep up'])
  })

  it('finds peers by key, address, label, word and reason', () => {
    const one = peer('banned', { address: '10.0.0.7:80', labels: 'zone b', why: 'Failed twice' })
    const is = (text: string, word: Parameters<typeof view.matches>[2]['word'] = '') =>
      view.matches('Checkout', one, { text, word })
    for (const text of ['', 'checkout', '0.7:80', 'ZONE B', 'ban', 'failed']) expect(is(text)).toBe(true)
    expect(is('zone c')).toBe(false)
    expect([is('', 'banned'), is('', 'trouble'), is('', 'up')]).toEqual([true, true, false])
  })
})

describe('changes', () => {
  it('are those that make sense now', () => {
    const names = (more: Partial<PeerModel>) => view.choices(peer('up', more)).map(({ name }) => name)
    expect(names({})).toEqual(['drain', 'down', 'weight', 'reset'])
    expect(names({ drain: true, down: true })).toEqual(['undrain', 'up', 'weight', 'reset'])
  })

  it('are warned of if nobody else is left', () => {
    const [one, other] = [peer('up'), peer('down')]
    const alone = upstream('api', [one, other])
    expect(view.warning(alone, one, 'drain')).toBe('Nobody else of api is usable: requests will find nobody.')
    expect(view.warning(alone, one, 'weight')).toBe('')
    expect(view.warning(alone, other, 'down')).toBe('')
    const spare = upstream('api', [one, other], [peer('up')])
    expect(view.warning(spare, one, 'down')).toMatch(/last one of its level/)
  })
})
