import { channel } from 'node:diagnostics_channel'
import { AggregatorRegistry, Counter, register as globalRegister, Registry } from 'prom-client'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { collectMetrics, type MetricsOptions } from '../../src/admin/metrics.js'
import { Checkups, ConfigError, type Source, type SourceLists, type UpstreamOptions } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { VirtualClock } from '../support/virtual-clock.js'
import { address, harness, level, target } from '../upstream/harness.js'

/** An instance with one upstream, `api`, its metrics in a register of their own, and scrapes of it. */
async function world(upstream: UpstreamOptions, options: MetricsOptions = {}) {
  const made = harness(upstream)
  const register = new Registry()
  const metrics = await collectMetrics(made.checkups, { register, ...options })
  onTestFinished(() => metrics.close())
  return { ...made, ...scraped(register), register, metrics }
}

function scraped(register: Pick<Registry, 'metrics'>) {
  /** Value by series, as `picks_total{upstream="api",peer="10.0.0.1:1",result="picked"}`. */
  const scrape = async () => {
    const lines = (await register.metrics()).split('\n').filter((line) => line !== '' && !line.startsWith('#'))
    return new Map(
      lines.map((line) => {
        const [, series, value] = /^checkups_(.*) (\S+)$/s.exec(line)!
        return [series!, Number(value)] as const
      }),
    )
  }
  /** Those of one metric, without its name; of the upstream `api`, without its label. */
  const values = async (metric: string) => {
    const found = new Map<string, number>()
    for (const [series, value] of await scrape()) {
      const [, name, labels = ''] = /^(\w+)(?:\{(.*)\})?$/s.exec(series)!
      if (name === metric)
        found.set(
          labels
            .replace(/upstream="api"/, '')
            .replaceAll('10.0.0.1:', '')
            .replace(',,', ',')
            .replace(/^,|,$/g, ''),
          value,
        )
    }
    return Object.fromEntries(found)
  }
  return { scrape, values }
}

describe('picks', () => {
  it('are counted by peer and result, retries by upstream', async () => {
    const { checkups, picks, values } = await world({ ...level('ab'), maxFails: 0 })
    picks(3)
    checkups.acquirePeer('api')!.done('ok')
    expect(await values('picks_total')).toEqual({
      'peer="1",result="picked"': 2,
      'peer="2",result="picked"': 2,
      'result="nobody"': 0,
    })
    await expect(checkups.readyOk('api', () => false, { tries: 5 })).rejects.toThrow('nobody is available')
    expect(await values('picks_total')).toEqual({
      'peer="1",result="picked"': 3,
      'peer="2",result="picked"': 3,
      'result="nobody"': 1,
    })
    expect(await values('retries_total')).toEqual({ '': 2 })
  })

  it('from before are not counted', async () => {
    const { checkups, picks } = harness(level('a'))
    picks(5)
    const register = new Registry()
    using _ = await collectMetrics(checkups, { register })
    picks(1)
    expect(await scraped(register).values('picks_total')).toEqual({
      'peer="1",result="picked"': 1,
      'result="nobody"': 0,
    })
  })
})

describe('outcomes', () => {
  it('are counted by peer and outcome, also those that were only told', async () => {
    const { checkups, feedback, values } = await world({ ...level('ab'), maxFails: 0 })
    for (const outcome of ['ok', { status: 503 }, 'neutral', 'ok'] as const) checkups.acquirePeer('api')!.done(outcome)
    feedback('b')
    expect(await values('outcomes_total')).toEqual({
      'peer="1",outcome="ok"': 1,
      'peer="1",outcome="failed"': 0,
      'peer="1",outcome="neutral"': 1,
      'peer="2",outcome="ok"': 1,
      'peer="2",outcome="failed"': 2,
      'peer="2",outcome="neutral"': 0,
    })
  })

  it('of requests that began before, too, without their time', async () => {
    const { checkups, clock } = harness(level('a'))
    const pick = checkups.acquirePeer('api')!
    const register = new Registry()
    using _ = await collectMetrics(checkups, { register })
    clock.advanceSync(100)
    pick.done('ok')
    const { values } = scraped(register)
    expect(await values('outcomes_total')).toMatchObject({ 'peer="1",outcome="ok"': 1 })
    expect(await values('request_duration_seconds_count')).toEqual({})
  })

  it('have a histogram of their times in seconds, by outcome', async () => {
    const { checkups, clock, feedback, values } = await world(
      { ...level('a'), maxFails: 0 },
      { buckets: [0.01, 0.1, 1] },
    )
    // A bound belongs to its bucket; what is longer than all of them is in none.
    for (const ms of [10, 10.5, 100, 2_000]) {
      const pick = checkups.acquirePeer('api')!
      clock.advanceSync(ms)
      pick.answered()
      clock.advanceSync(60_000)
      pick.done('ok')
    }
    const failed = checkups.acquirePeer('api')!
    clock.advanceSync(1)
    failed.done('failed')
    feedback('a', 'ok')
    const ok = 'peer="1",outcome="ok"'
    const bad = 'peer="1",outcome="failed"'
    expect(await values('request_duration_seconds_bucket')).toEqual({
      [`le="0.01",${ok}`]: 1,
      [`le="0.1",${ok}`]: 3,
      [`le="1",${ok}`]: 3,
      [`le="+Inf",${ok}`]: 4,
      [`le="0.01",${bad}`]: 1,
      [`le="0.1",${bad}`]: 1,
      [`le="1",${bad}`]: 1,
      [`le="+Inf",${bad}`]: 1,
    })
    expect(await values('request_duration_seconds_sum')).toEqual({ [ok]: 2.1205, [bad]: 0.001 })
    expect(await values('request_duration_seconds_count')).toEqual({ [ok]: 4, [bad]: 1 })
  })
})

describe('state', () => {
  it('is one of five words for each peer, and so many peers of each for an upstream', async () => {
    const { checkups, clock, feedback, values } = await world({
      ...level('abcd', { e: { down: true }, f: { drain: true } }),
      failTimeout: 1_000,
    })
    feedback('a')
    feedback('b')
    const states = async () =>
      Object.entries(await values('peer_state'))
        .filter(([, value]) => value === 1)
        .map(([labels]) => labels.replace(/peer="(\d)",state="(\w+)"/, '$1 $2'))
    expect(await states()).toEqual(['1 err', '2 err', '3 ok', '4 ok', '5 down', '6 drain'])
    expect(Object.keys(await values('peer_state'))).toHaveLength(6 * 5)
    expect(await values('peers')).toEqual({
      'state="ok"': 2,
      'state="unstable"': 0,
      'state="err"': 2,
      'state="down"': 1,
      'state="drain"': 1,
    })
    clock.advanceSync(1_000)
    expect(await states()).toEqual(['1 unstable', '2 unstable', '3 ok', '4 ok', '5 down', '6 drain'])
    expect(await values('bans_total')).toEqual({
      'peer="1"': 1,
      'peer="2"': 1,
      'peer="3"': 0,
      'peer="4"': 0,
      'peer="5"': 0,
      'peer="6"': 0,
    })
    expect(await values('upstream_generation')).toEqual({ '': checkups.upstream('api').generation })
  })

  it('a ban is one by outcomes; heartbeats and operators are none', async () => {
    let isOk = true
    const heartbeat = { type: 'custom', interval: 1_000, jitter: 0, fall: 1, check: () => isOk } as const
    const { checkups, clock, feedback, values } = await world({
      ...level('ab'),
      heartbeat,
      failTimeout: 100,
      protected: false,
    })
    void checkups.start()
    await clock.advance(1_000)
    for (const letter of 'aab') {
      feedback(letter)
      await clock.advance(100)
    }
    await checkups.setServer('api', address('b'), { down: true })
    isOk = false
    await clock.advance(2_000)
    await checkups.close()
    expect(await values('bans_total')).toEqual({ 'peer="1"': 2, 'peer="2"': 1 })
  })

  it('has requests in flight, of all levels that name a peer', async () => {
    const cluster = { x: level('ab'), y: level('ac') }
    const { checkups, values } = await world({ cluster })
    const picks = ['x', 'x', 'x', 'y'].map((clusterKey) => checkups.acquirePeer('api', { clusterKey })!)
    expect(await values('requests_in_flight')).toEqual({ 'peer="1"': 3, 'peer="2"': 1, 'peer="3"': 0 })
    expect(await values('peers')).toMatchObject({ 'state="ok"': 3 })
    for (const pick of picks) pick.done('ok')
    expect(await values('requests_in_flight')).toEqual({ 'peer="1"': 0, 'peer="2"': 0, 'peer="3"': 0 })
  })

  it('is asked for once a scrape, whatever the format', async () => {
    const { checkups, register, metrics } = await world(level('abc'))
    const asked = vi.spyOn(checkups, 'getStatus')
    await register.metrics()
    expect(asked).toHaveBeenCalledTimes(1)
    await register.getMetricsAsJSON()
    expect(asked).toHaveBeenCalledTimes(2)
    await Promise.all([register.metrics(), metrics.register.metrics()])
    expect(asked).toHaveBeenCalledTimes(3)
  })
})

describe('heartbeats', () => {
  it('are counted by what they found, with a histogram of how long they took', async () => {
    const clock = new VirtualClock()
    const check = async ({ port }: { port: number }) => {
      await clock.sleep(port * 20)
      return port === 1 || { status: 'unstable' as const }
    }
    const heartbeat = { type: 'custom', interval: 1_000, jitter: 0, timeout: 50, check } as const
    const upstreams = { api: { ...level('abc'), heartbeat }, plain: level('d') }
    const checkups = new Checkups({ clock, random: () => 0, upstreams })
    const register = new Registry()
    using _ = await collectMetrics(checkups, { register, buckets: [0.02, 0.04] })
    const { values } = scraped(register)
    const zeros = await values('heartbeats_total')
    expect(Object.values(zeros)).toEqual(Array.from({ length: 9 }, () => 0))
    void checkups.start()
    await clock.advance(1_900)
    await checkups.close()
    const { checks } = checkups.getStatus().heartbeats
    const found = await values('heartbeats_total')
    expect(Object.keys(found)).toEqual(Object.keys(zeros))
    expect(Object.values(found).reduce((sum, count) => sum + count)).toBe(checks)
    const [a, b, c] = [found['peer="1",found="ok"'], found['peer="2",found="unstable"'], found['peer="3",found="err"']]
    expect(a! + b! + c!).toBe(checks)
    expect(Math.min(a!, b!, c!)).toBeGreaterThan(0)
    expect(await values('heartbeat_duration_seconds_bucket')).toEqual({
      'le="0.02"': a,
      'le="0.04"': a! + b!,
      'le="+Inf"': checks,
    })
    expect(await values('heartbeats_waiting')).toEqual({ '': 0 })
    expect(await values('heartbeat_lag_seconds')).toEqual({ '': 0 })
  })
})

describe('sources', () => {
  /** Gives these lists, one at each ask; then it cannot be reached. */
  const source = (name: string, lists: SourceLists[]): Source => ({
    name,
    options: { prune: true },
    watch: async (apply) => {
      const next = lists.shift()
      if (next === undefined) throw new Error('connection refused')
      apply(next)
    },
  })

  it('are up or not, since when, with what they have changed and could not', async () => {
    const clock = new VirtualClock()
    const list = (...servers: string[]) => [{ servers }]
    const sources = [
      source('hand', [
        { upstreams: { api: list('10.0.0.1:80'), web: list('10.0.0.1:80') } },
        { upstreams: { api: list('10.0.0.1:80', '10.0.0.2:80', 'nonsense:x') } },
      ]),
      source('never', []),
    ]
    const checkups = new Checkups({ clock, sources })
    const register = new Registry()
    using _ = await collectMetrics(checkups, { register })
    const { values } = scraped(register)
    expect(await values('source_up')).toEqual({ 'source="hand"': 0, 'source="never"': 0 })
    expect(await values('source_last_contact_timestamp_seconds')).toEqual({})
    void checkups.start()
    await clock.advance(0)
    await clock.advance(10_000)
    await checkups.close()
    const [hand] = checkups.getStatus().sources
    expect(hand).toMatchObject({ state: 'stale', refused: [{}] })
    expect(await values('source_up')).toEqual({ 'source="hand"': 0, 'source="never"': 0 })
    expect(await values('source_last_contact_timestamp_seconds')).toEqual({ 'source="hand"': hand!.lastContact / 1000 })
    expect(await values('source_last_change_timestamp_seconds')).toEqual({ 'source="hand"': hand!.lastChange / 1000 })
    expect(hand!.lastChange).toBeGreaterThanOrEqual(clock.epoch)
    // Two created, one changed, one pruned.
    expect(await values('source_changes_total')).toEqual({ 'source="hand"': 4, 'source="never"': 0 })
    // What was refused, and then that it is gone.
    expect(await values('source_errors_total')).toEqual({ 'source="hand"': 2, 'source="never"': 1 })
    expect(await values('source_refused_entries')).toEqual({ 'source="hand"': 1, 'source="never"': 0 })
  })

  it('is up while what it gave last is in use', async () => {
    const clock = new VirtualClock()
    const sources = [source('hand', [{ upstreams: { api: [{ servers: ['10.0.0.1:80'] }] } }])]
    const checkups = new Checkups({ clock, sources })
    const register = new Registry()
    using _ = await collectMetrics(checkups, { register })
    const up = vi.fn()
    checkups.on('source:up', () => void scraped(register).values('source_up').then(up))
    void checkups.start()
    await eventually(async () => {
      await clock.advance(0)
      expect(up).toHaveBeenCalledWith({ 'source="hand"': 1 })
    })
    await checkups.close()
  })
})

describe('who leaves', () => {
  const of = (letter: string) => `peer="${target(letter).port}"`
  const mentions = async (scrape: () => Promise<Map<string, number>>, text: string) =>
    [...(await scrape()).keys()].filter((series) => series.includes(text)).map((series) => series.replace(/\{.*/, ''))

  it('a peer has no state from then on, its last counts once more, and then nothing', async () => {
    const { checkups, picks, values, scrape } = await world({ ...level('ab'), maxFails: 0 })
    picks(4)
    await scrape()
    picks(2)
    await checkups.removeServer('api', address('b'))
    const last = await scrape()
    expect(last.get('picks_total{upstream="api",peer="10.0.0.1:2",result="picked"}')).toBe(3)
    expect([...last.keys()].filter((series) => /peer_state|in_flight/.test(series)).join()).not.toContain(':2"')
    expect(await mentions(scrape, 'peer="10.0.0.1:2"')).toEqual([])
    expect(await values('picks_total')).toEqual({ [`${of('a')},result="picked"`]: 3, 'result="nobody"': 0 })
  })

  it('its counts do not come back with requests that end later: those are the others’', async () => {
    const { checkups, values, scrape } = await world({ ...level('ab'), maxFails: 0 })
    const picks = Array.from({ length: 4 }, () => checkups.acquirePeer('api')!)
    await checkups.removeServer('api', address('b'))
    picks[1]!.done('ok')
    expect((await values('outcomes_total'))[`${of('b')},outcome="ok"`]).toBe(1)
    await scrape()
    for (const pick of picks) pick.done('failed')
    expect(await values('outcomes_total')).toEqual({
      [`${of('a')},outcome="ok"`]: 0,
      [`${of('a')},outcome="failed"`]: 2,
      [`${of('a')},outcome="neutral"`]: 0,
      'peer="other",outcome="ok"': 0,
      'peer="other",outcome="failed"': 1,
      'peer="other",outcome="neutral"': 0,
    })
  })

  it('one that comes back meanwhile goes on; later it begins anew', async () => {
    const { checkups, picks, values, scrape } = await world(level('ab'))
    picks(4)
    await checkups.removeServer('api', address('b'))
    await scrape()
    await checkups.addServer('api', address('b'))
    picks(2)
    expect(await values('picks_total')).toMatchObject({ [`${of('b')},result="picked"`]: 3 })
    expect(await values('requests_in_flight')).toEqual({ [of('a')]: 0, [of('b')]: 0 })
    await checkups.removeServer('api', address('b'))
    expect(await values('picks_total')).toMatchObject({ [`${of('b')},result="picked"`]: 3 })
    await scrape()
    await checkups.addServer('api', address('b'))
    expect(await values('picks_total')).toMatchObject({ [`${of('b')},result="picked"`]: 0 })
    picks(2)
    expect(await values('picks_total')).toMatchObject({ [`${of('b')},result="picked"`]: 1 })
  })

  it('one that comes back as the same object, because a request was in flight, is not taken for the others', async () => {
    const { checkups, values, scrape } = await world(level('ab'))
    const [, pick] = [checkups.acquirePeer('api')!, checkups.acquirePeer('api')!]
    const late = [checkups.acquirePeer('api')!, checkups.acquirePeer('api')!][1]!
    await checkups.removeServer('api', address('b'))
    await scrape()
    await scrape()
    pick.done('ok')
    await checkups.addServer('api', address('b'))
    late.done('ok')
    const again = Array.from({ length: 2 }, () => checkups.acquirePeer('api')!).find(({ peer }) => peer === pick.peer)!
    again.done('ok')
    expect(await values('outcomes_total')).toMatchObject({
      'peer="other",outcome="ok"': 2,
      [`${of('b')},outcome="ok"`]: 1,
    })
  })

  it('an upstream takes all its series with it, and requests that end later bring none back', async () => {
    const { checkups, scrape } = await world(level('ab'))
    await checkups.updateUpstream('web', level('c'))
    const picks = Array.from({ length: 2 }, () => checkups.acquirePeer('web')!)
    await scrape()
    picks[0]!.done('ok')
    await checkups.deleteUpstream('web')
    expect(new Set(await mentions(scrape, 'upstream="web"'))).toEqual(
      new Set([
        'picks_total',
        'retries_total',
        'outcomes_total',
        'bans_total',
        ...['bucket', 'sum', 'count'].map((part) => `request_duration_seconds_${part}`),
      ]),
    )
    expect(await mentions(scrape, 'upstream="web"')).toEqual([])
    picks[1]!.done('ok')
    expect(await mentions(scrape, 'upstream="web"')).toEqual([])
    expect(await mentions(scrape, 'upstream="api"')).not.toEqual([])
  })

  it('an upstream has nothing in flight from then on, also where peers are not told apart', async () => {
    const { checkups, values } = await world(level('a'), { peers: false })
    await checkups.updateUpstream('web', level('b'))
    checkups.acquirePeer('web')
    expect(await values('requests_in_flight')).toEqual({ '': 0, 'upstream="web"': 1 })
    await checkups.deleteUpstream('web')
    expect(await values('requests_in_flight')).toEqual({ '': 0 })
  })

  it('upstreams that come and go while nobody scrapes are not kept', async () => {
    const { checkups, scrape } = await world(level('a'), { maxPeers: 5 })
    for (let i = 0; i < 100; i++) {
      await checkups.updateUpstream(`web-${i}`, level('abc'))
      checkups.selectPeer(`web-${i}`)
      await checkups.deleteUpstream(`web-${i}`)
    }
    await checkups.updateUpstream('last', level('abc'))
    checkups.selectPeer('last')
    const series = [...(await scrape()).keys()].join('\n')
    expect(series).not.toContain('web-')
    expect(series).toContain('picks_total{upstream="last",peer="10.0.0.1:1",result="picked"}')
  })
})

describe('the number of series', () => {
  // docs/metrics.md says these.
  it('of a peer is 11, 14 with heartbeats, and 16 for each outcome; of an upstream 8, and 24 with heartbeats', async () => {
    const clock = new VirtualClock()
    const checkups = new Checkups({ clock, upstreams: { api: { ...level('a'), maxFails: 0 } } })
    const [register, coarse] = [new Registry(), new Registry()]
    using _ = await collectMetrics(checkups, { register })
    using _coarse = await collectMetrics(checkups, { register: coarse, peers: false })
    const counts = async () => {
      const series = [...(await scraped(register).scrape()).keys()].filter((one) => one.includes('upstream="api"'))
      const ofPeer = series.filter((one) => one.includes('peer='))
      return [ofPeer.length, series.length - ofPeer.length]
    }
    expect(await counts()).toEqual([11, 8])
    const heartbeat = { type: 'custom', interval: 100, check: () => true } as const
    await checkups.updateUpstream('api', { ...level('a'), maxFails: 0, heartbeat })
    void checkups.start()
    await clock.advance(1_000)
    await checkups.close()
    expect(await counts()).toEqual([14, 24])
    for (const [i, outcome] of (['ok', 'failed', 'neutral'] as const).entries()) {
      checkups.acquirePeer('api')!.done(outcome)
      expect(await counts()).toEqual([14 + 16 * (i + 1), 24])
    }
    const all = [...(await scraped(coarse).scrape()).keys()].filter((one) => one.includes('upstream="api"'))
    expect(all).toHaveLength(81)
  })

  it('with peers: false does not depend on the number of peers', async () => {
    const { checkups, picks, feedback, values, scrape } = await world(
      { ...level('abcdef'), maxFails: 1 },
      { peers: false },
    )
    const before = (await scrape()).size
    picks(12)
    const pick = checkups.acquirePeer('api')!
    feedback('b')
    expect([...(await scrape()).keys()].join('\n')).not.toContain('peer=')
    expect(await values('picks_total')).toEqual({ 'result="picked"': 13, 'result="nobody"': 0 })
    expect(await values('outcomes_total')).toEqual({ 'outcome="ok"': 0, 'outcome="failed"': 1, 'outcome="neutral"': 0 })
    expect(await values('requests_in_flight')).toEqual({ '': 1 })
    expect(await values('requests_in_flight')).toEqual({ '': 1 })
    expect(await values('bans_total')).toEqual({ '': 1 })
    expect(await values('peers')).toMatchObject({ 'state="ok"': 5, 'state="err"': 1 })
    expect(await values('peer_state')).toEqual({})
    expect(await values('other_peers')).toEqual({})
    await checkups.removeServer('api', address('a'))
    expect((await scrape()).size).toBe(before)
    pick.done('neutral')
    expect(await values('outcomes_total')).toMatchObject({ 'outcome="neutral"': 1 })
  })

  it('beyond maxPeers peers are counted together', async () => {
    const { checkups, picks, feedback, values } = await world({ ...level('abcde'), maxFails: 1 }, { maxPeers: 2 })
    await checkups.updateUpstream('web', level('ab'))
    picks(10)
    checkups.selectPeer('web')
    const held = Array.from({ length: 5 }, () => checkups.acquirePeer('api')!)
    for (const letter of 'ade') feedback(letter)
    expect(await values('picks_total')).toEqual({
      'peer="1",result="picked"': 3,
      'peer="2",result="picked"': 3,
      'peer="other",result="picked"': 9,
      'result="nobody"': 0,
      'upstream="web",peer="other",result="picked"': 1,
      'upstream="web",result="nobody"': 0,
    })
    expect(await values('bans_total')).toMatchObject({ 'peer="1"': 1, 'peer="2"': 0, 'peer="other"': 2 })
    expect(await values('requests_in_flight')).toMatchObject({ 'peer="1"': 1, 'peer="other"': 3 })
    expect(Object.keys(await values('peer_state'))).toHaveLength(2 * 5)
    expect(await values('peers')).toMatchObject({ 'state="ok"': 2, 'state="err"': 3 })
    expect(await values('other_peers')).toEqual({ '': 5 })
    for (const pick of held) pick.done('neutral')
  })

  it('who has left makes room for another, which then has its own', async () => {
    const { checkups, picks, values, scrape } = await world(level('abc'), { maxPeers: 2 })
    picks(3)
    await checkups.removeServer('api', address('a'))
    await scrape()
    picks(2)
    expect(await values('picks_total')).toEqual({
      'peer="2",result="picked"': 2,
      'peer="3",result="picked"': 0,
      'peer="other",result="picked"': 2,
      'result="nobody"': 0,
    })
    expect(await values('other_peers')).toEqual({ '': 0 })
    picks(2)
    expect(await values('picks_total')).toMatchObject({
      'peer="2",result="picked"': 3,
      'peer="3",result="picked"': 1,
      'peer="other",result="picked"': 2,
    })
  })

  it('stays bounded while peers come and go', async () => {
    const { checkups, picks, register } = await world(level('ab'), { maxPeers: 10 })
    const sizes: number[] = []
    for (let i = 0; i < 60; i++) {
      await checkups.updateUpstream('api', { servers: Array.from({ length: 8 }, (_, j) => `10.0.${i}.${j}:80`) })
      picks(16)
      if (i % 3 === 0) sizes.push((await register.metrics()).split('\n').length)
    }
    expect(Math.max(...sizes)).toBeLessThan(2 * sizes[0]!)
    await register.metrics()
    const text = await register.metrics()
    expect(text).toContain('10.0.59.7:80')
    expect(text).not.toMatch(/10\.0\.[0-4]?\d\.|10\.0\.5[0-8]\./)
  })
})

describe('names from outside', () => {
  const odd = [
    'say "hi"',
    'two\nlines',
    'back\\slash',
    'ends in \\',
    '"} 1\ncheckups_injected_total{x="',
    '\\n is no newline',
    '__proto__',
    'constructor',
    'a,upstream:b',
    'tab\t, return\r, null\0',
    '日本 🚀',
    ' ',
    '{}=,',
  ]

  it('come out of the text as they went in', async () => {
    const servers = ['10.0.0.1:80', 'unix:/tmp/a "b",c\\d']
    const checkups = new Checkups({ random: () => 0, upstreams: new Map(odd.map((key) => [key, { servers }])) })
    const register = new Registry()
    using _ = await collectMetrics(checkups, { register, name: 'odd "one"\\' })
    for (const key of odd) for (let i = 0; i < 2; i++) checkups.acquirePeer(key)!.done('ok')
    const picked = parse(await register.metrics()).filter(
      ({ name, labels }) => name === 'checkups_picks_total' && labels.get('result') === 'picked',
    )
    expect(picked.map(({ labels, value }) => [labels.get('upstream'), labels.get('peer'), value])).toEqual(
      odd.flatMap((key) => servers.map((server) => [key, server, '1'])),
    )
    expect(new Set(picked.map(({ labels }) => labels.get('checkups')))).toEqual(new Set(['odd "one"\\']))
    const names = new Set(parse(await register.metrics()).map(({ name }) => name))
    expect([...names].filter((name) => name.includes('injected'))).toEqual([])
  })

  it('that together read like others are not mixed up', async () => {
    // prom-client's own key of both is `peer:unix:/a,upstream:b,upstream:c,`.
    const upstreams = { c: { servers: ['unix:/a,upstream:b'] }, 'b,upstream:c': { servers: ['unix:/a'] } }
    const checkups = new Checkups({ upstreams })
    const register = new Registry()
    using _ = await collectMetrics(checkups, { register })
    const theirs = new Counter({ name: 'theirs_total', help: 'X.', labelNames: ['upstream', 'peer'], registers: [] })
    for (const [upstream, { servers }] of Object.entries(upstreams)) theirs.inc({ upstream, peer: servers[0]! })
    expect((await theirs.get()).values).toHaveLength(1)
    checkups.acquirePeer('c')
    const { scrape } = scraped(register)
    const inFlight = async (labels: string) => (await scrape()).get(`requests_in_flight{${labels}}`)
    expect(await inFlight('upstream="c",peer="unix:/a,upstream:b"')).toBe(1)
    expect(await inFlight('upstream="b,upstream:c",peer="unix:/a"')).toBe(0)
  })

  /** Strictly by the text format's grammar: anything else throws. */
  function parse(text: string) {
    const series: { name: string; labels: Map<string, string>; value: string }[] = []
    for (const line of text.split('\n')) {
      if (line === '' || line.startsWith('# ')) continue
      const [whole, name, list, value] = /^(\w+)(?:\{(.*)\})? (\d\S*)$/s.exec(line) ?? []
      if (whole === undefined) throw new Error(`no series: ${line}`)
      const labels = new Map<string, string>()
      let rest = list ?? ''
      while (rest !== '') {
        const [pair, label, escaped] = /^(\w+)="((?:[^"\\]|\\["\\n])*)",?/.exec(rest) ?? []
        if (pair === undefined) throw new Error(`no labels: ${line}`)
        labels.set(
          label!,
          escaped!.replace(/\\(.)/g, (_, char: string) => (char === 'n' ? '\n' : char)),
        )
        rest = rest.slice(pair.length)
      }
      series.push({ name: name!, labels, value: value! })
    }
    return series
  }
})

describe('in a register', () => {
  it('two instances are told apart by their names', async () => {
    const register = new Registry()
    const worlds = [harness(level('a')), harness(level('a')), harness(level('a'))]
    const names = ['edge', 'inner', undefined]
    const metrics = await Promise.all(
      worlds.map(({ checkups }, i) => collectMetrics(checkups, { register, name: names[i] })),
    )
    onTestFinished(() => metrics.forEach((one) => one.close()))
    worlds.forEach(({ picks }, i) => picks(i + 1))
    const { values } = scraped(register)
    expect(await values('picks_total')).toMatchObject({
      'checkups="edge",peer="1",result="picked"': 1,
      'checkups="inner",peer="1",result="picked"': 2,
      'peer="1",result="picked"': 3,
    })
    metrics[0]!.close()
    expect(Object.keys(await values('retries_total'))).toEqual(['checkups="inner"', ''])
    metrics[1]!.close()
    metrics[2]!.close()
    expect(await register.metrics()).toBe('\n')
  })

  it('instances stand in the order in which they were begun', async () => {
    const register = new Registry()
    const names = Array.from({ length: 100 }, (_, i) => `${i}`)
    const metrics = await Promise.all(
      names.map((name) => collectMetrics(harness(level('a')).checkups, { register, name })),
    )
    onTestFinished(() => metrics.forEach((one) => one.close()))
    const { values } = scraped(register)
    expect(Object.keys(await values('retries_total'))).toEqual(names.map((name) => `checkups="${name}"`))
  })

  it('two of one name are refused, and the first goes on', async () => {
    const register = new Registry()
    const [one, other] = [harness(level('a')), harness(level('b'))]
    using _ = await collectMetrics(one.checkups, { register })
    await expect(collectMetrics(other.checkups, { register })).rejects.toThrow(
      new ConfigError('metrics.name', 'expected another one: the register shows an instance without a name already'),
    )
    one.picks(1)
    other.picks(1)
    expect(await scraped(register).values('picks_total')).toEqual({
      'peer="1",result="picked"': 1,
      'result="nobody"': 0,
    })
    using _apart = await collectMetrics(other.checkups, { register, prefix: 'inner_' })
    expect(await register.metrics()).toContain('inner_picks_total{upstream="api",peer="10.0.0.1:2",result="picked"} 0')
  })

  it('somebody else’s metric of one name is left alone, and nothing else is there', async () => {
    const register = new Registry()
    const theirs = new Counter({ name: 'checkups_bans_total', help: 'Theirs.', registers: [register] })
    const { checkups } = harness(level('a'))
    await expect(collectMetrics(checkups, { register })).rejects.toThrow(
      'metrics.prefix: expected another one: the register has its own checkups_bans_total',
    )
    expect(register.getMetricsAsArray()).toEqual([theirs])
    expect(channel('checkups:pick').hasSubscribers).toBe(false)
  })

  it('close ends the counting, takes them out, and may be called again', async () => {
    const { checkups, metrics, register } = await world(level('a'))
    const theirs = new Counter({ name: 'theirs_total', help: 'Theirs.', registers: [register] })
    metrics.close()
    metrics.close()
    for (const name of ['pick', 'outcome', 'heartbeat', 'state']) {
      expect(channel(`checkups:${name}`).hasSubscribers).toBe(false)
    }
    expect(register.getMetricsAsArray()).toEqual([theirs])
    using again = await collectMetrics(checkups, { register })
    // An old one does not close a new one.
    metrics.close()
    expect(await again.register.metrics()).toContain('checkups_picks_total')
  })

  it('it is prom-client’s own by default', async () => {
    const { checkups, picks } = harness(level('a'))
    using metrics = await collectMetrics(checkups)
    expect(metrics.register).toBe(globalRegister)
    picks(1)
    expect(await globalRegister.metrics()).toContain('peer="10.0.0.1:1",result="picked"} 1')
  })

  it('that is reset they begin anew', async () => {
    const { checkups, picks, register, values } = await world(level('a'))
    picks(3)
    const pick = checkups.acquirePeer('api')!
    register.resetMetrics()
    pick.done('ok')
    expect(await values('picks_total')).toEqual({ 'peer="1",result="picked"': 0, 'result="nobody"': 0 })
    expect(await values('outcomes_total')).toMatchObject({ 'peer="1",outcome="ok"': 1 })
    expect(await values('requests_in_flight')).toEqual({ 'peer="1"': 0 })
  })

  it('of OpenMetrics they are written so', async () => {
    const register = new Registry<typeof Registry.OPENMETRICS_CONTENT_TYPE>()
    register.setContentType(Registry.OPENMETRICS_CONTENT_TYPE)
    const { checkups, picks } = harness(level('a'))
    const metrics = await collectMetrics(checkups, { register })
    picks(2)
    for (let i = 0; i < 2; i++) {
      const text = await register.metrics()
      expect(text).toContain('# TYPE checkups_picks counter\n')
      expect(text).toContain('checkups_picks_total{upstream="api",peer="10.0.0.1:1",result="picked"} 2\n')
      expect(text).toContain('# TYPE checkups_request_duration_seconds histogram\n')
    }
    metrics.close()
    expect(await register.metrics()).toBe('\n# EOF\n')
  })

  it('of several processes they become one', async () => {
    const worlds = await Promise.all([world(level('ab')), world(level('ab'))])
    for (const { picks, feedback, checkups, clock } of worlds) {
      picks(2)
      const pick = checkups.acquirePeer('api')!
      clock.advanceSync(3)
      pick.done('ok')
      if (worlds[0].checkups === checkups) feedback('b')
    }
    const all = AggregatorRegistry.aggregate(
      await Promise.all(worlds.map(({ register }) => register.getMetricsAsJSON())),
    )
    const { values } = scraped(all)
    expect(await values('picks_total')).toMatchObject({ 'peer="1",result="picked"': 4 })
    expect(await values('request_duration_seconds_bucket')).toMatchObject({
      'le="0.0025",peer="1",outcome="ok"': 0,
      'le="0.005",peer="1",outcome="ok"': 2,
    })
    expect(await values('peer_state')).toMatchObject({ 'peer="2",state="ok"': 0.5, 'peer="2",state="err"': 0.5 })
    expect(await values('peers')).toMatchObject({ 'state="ok"': 1.5, 'state="err"': 0.5 })
    expect(await values('build_info')).toEqual({ [`version="${process.env['npm_package_version'] ?? '0.1.0'}"`]: 1 })
  })
})

describe('options', () => {
  it.each<[unknown, string]>([
    [{ registry: new Registry() }, 'metrics.registry: unknown option; known are register, prefix'],
    [{ register: {} }, 'metrics.register: expected a register of prom-client, got an object'],
    [{ register: null }, 'metrics.register: expected a register of prom-client, got null'],
    [{ prefix: 'job:' }, 'metrics.prefix: expected letters, digits and underscores, no digit first, got "job:"'],
    [{ prefix: '1st_' }, 'metrics.prefix: expected letters'],
    [{ prefix: 3 }, 'metrics.prefix: expected letters'],
    [{ name: '' }, 'metrics.name: expected a non-empty string, got ""'],
    [{ peers: 'yes' }, 'metrics.peers: expected true or false, got "yes"'],
    [{ maxPeers: 0 }, 'metrics.maxPeers: expected an integer from 1 to 1000000, got 0'],
    [{ buckets: 3 }, 'metrics.buckets: expected an array, got 3'],
    [{ buckets: [0.1, 0.1] }, 'metrics.buckets[1]: expected seconds, a finite number above 0.1, got 0.1'],
    [{ buckets: [0] }, 'metrics.buckets[0]: expected seconds, a finite number above 0, got 0'],
    [{ buckets: [1, Infinity] }, 'metrics.buckets[1]: expected seconds'],
    [[], 'metrics: expected an object, got an array of 0'],
  ])('%o is refused', async (options, message) => {
    const { checkups } = harness(level('a'))
    const collected = collectMetrics(checkups, options as MetricsOptions)
    await expect(collected).rejects.toThrow(ConfigError)
    await expect(collected).rejects.toThrow(message)
    expect(channel('checkups:pick').hasSubscribers).toBe(false)
  })
})
