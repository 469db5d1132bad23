/** nginx's failures: recorded timelines of nginx 1.22.1, and its vectors N1 to N10 as its source gives them. */
import { describe, expect, it } from 'vitest'
import type { UpstreamOptions } from '../../src/index.js'
import { fail, golden, nameOf, recordedServer as server, servers, weighted, World, write } from './support.js'
import type { Answer } from './support.js'

describe('nginx: failures', () => {
  interface Event {
    t: number
    up?: string
    act?: string
    st?: number
  }
  interface Timeline {
    events: Event[]
  }
  const recorded = golden('nginx-failures') as Record<string, Timeline>

  /**
   * Sends requests at the recorded times to servers of which `refusing` do, from one recorded act to the next: what they
   * tried, as `1>2`, by time.
   */
  async function replay(upstream: UpstreamOptions, events: readonly Event[], refusing: readonly string[][]) {
    const world = new World({ up: upstream })
    const lines: { t: number; up: string; st: number }[] = []
    let act = 0
    for (const { t, up } of events) {
      await world.clock.advance(t - world.clock.now())
      if (up === undefined) act++
      else {
        const { tried, code } = await world.call('up', (name) => !refusing[act]!.includes(name))
        lines.push({ t, up: tried.split('').join('>'), st: code === undefined ? 200 : 502 })
      }
    }
    return lines
  }
  const requests = (name: string) =>
    recorded[name]!.events.flatMap(({ t, up, st }) => (up === undefined ? [] : [{ t, up, st }]))
  const between = <T extends { t: number }>(lines: readonly T[], from: number, to: number) =>
    lines.filter(({ t }) => t >= from && t < to)
  const ups = (lines: readonly { up: string }[]) => lines.map(({ up }) => up).join(' ')
  const triesOf = (index: string, lines: readonly { t: number; up: string }[]) =>
    lines.filter(({ up }) => up.split('>').includes(index)).map(({ t }) => t)

  describe('three servers, maxFails 2, failTimeout 2 s; server 1 refuses until 3.6 s', () => {
    const name = 'max_fails2_server1_refusing_then_back_at_3500'
    const upstream = { servers: [server(0), server(1), server(2)], maxFails: 2, failTimeout: 2000 }
    const replayed = () => replay(upstream, recorded[name]!.events, [['1'], []])

    it('is the same until the ban of server 1 ends and its turn comes', async () => {
      expect(between(await replayed(), 0, 2602)).toEqual(between(requests(name), 0, 2602))
    })

    it('is tried again in its turn, from failTimeout after the failure on', async () => {
      // Out from 401 to 2401 and from 2602 to 4602. nginx counts whole seconds, more than two: 3202 and 6203.
      expect(triesOf('1', between(await replayed(), 0, 5000))).toEqual([111, 401, 2602, 4901])
      expect(triesOf('1', between(requests(name), 0, 6300))).toEqual([111, 401, 3202, 6203])
    })

    it('rotates again from then on', async () => {
      expect(ups(between(await replayed(), 4901, 9000))).toBe(`${'1 0 2 '.repeat(13)}1 0`)
      expect(ups(between(requests(name), 6203, 9000))).toBe(`${'1 2 0 '.repeat(9)}1`)
    })
  })

  describe('two servers and a backup, maxFails 2, failTimeout 2 s; both refuse from 1.1 s to 4.1 s', () => {
    const name = 'backup_primaries_die_at_1000_back_at_4000'
    const upstream = { servers: [server(0), server(1), { ...server(2), backup: true }], maxFails: 2, failTimeout: 2000 }
    const replayed = () => replay(upstream, recorded[name]!.events, [[], ['0', '1'], []])

    it('is the same until their bans end', async () => {
      expect(between(await replayed(), 0, 3202)).toEqual(between(requests(name), 0, 3202))
    })

    it('both are tried again by the first request failTimeout after their failure', async () => {
      // At 3301, and 5301 when they are back. nginx counts whole seconds, more than two: 3902 and 6902.
      expect(ups(between(await replayed(), 3202, 5400))).toBe(`1>0>2 ${'2 '.repeat(19)}0`)
      expect(ups(between(requests(name), 3202, 7000))).toBe(`${'2 '.repeat(6)}1>0>2 ${'2 '.repeat(29)}0`)
    })

    it('they rotate again from then on', async () => {
      expect(ups(between(await replayed(), 5301, 9000))).toBe(`${'0 1 '.repeat(18)}0`)
    })
  })

  it('a server that is down by hand gets nothing', async () => {
    const upstream = { servers: [server(0), { ...server(1), down: true }, server(2)] }
    expect(await replay(upstream, recorded['down_server']!.events, [[]])).toEqual(requests('down_server'))
  })

  it('a single server is never taken out', async () => {
    const name = 'single_server_refusing_max_fails1_5s_back_at_1000'
    const upstream = { servers: [server(0)], maxFails: 1, failTimeout: 5000 }
    expect(await replay(upstream, recorded[name]!.events, [['0'], []])).toEqual(requests(name))
  })

  it('weights 5, 1, 1, maxFails 2: server 0 fails its second request', async () => {
    const expected = golden('nginx-failures') as { effective_weight_5_1_1_max_fails2_server0_fails_its_2nd: string[] }
    const world = new World({ up: { ...weighted([5, 1, 1]), maxFails: 2 } })
    let calls = 0
    const tried = await world.calls('up', 40, (name) => name !== '0' || ++calls !== 2)
    // nginx takes weight / maxFails off, rounded down; lua-resty-checkups and this library halve, rounded up: 3 in both.
    expect(tried.map((names) => names.split('').join('>'))).toEqual(
      expected.effective_weight_5_1_1_max_fails2_server0_fails_its_2nd,
    )
  })
})

describe('nginx: vectors', () => {
  const world = (spec: string, options: Omit<UpstreamOptions, 'servers'> = {}) =>
    new World({ up: { ...options, servers: servers(spec) } })

  it('N1: weights 5, 1, 1', () => {
    expect(world('a5 b1 c1').select('up', 14)).toBe('aabacaa' + 'aabacaa')
  })

  it('N2: weights 1, 4, 3, 6', () => {
    expect(world('A1 B4 C3 E6').select('up', 28)).toBe('EBCEBEACEBECBE' + 'EBCEBEACEBECBE')
  })

  /** A request a second from 100 to `end`: what was tried at each second. */
  async function everySecond(w: World, end: number, answer: Answer, options = {}) {
    const lines: [second: number, tried: string][] = []
    await w.clock.advance(100_000 - w.clock.now())
    for (let second = 100; second <= end; second++) {
      lines.push([second, (await w.call('up', answer, options)).tried])
      await w.clock.advance(1000)
    }
    return lines
  }
  const seconds = (lines: readonly [number, string][], tried: string) =>
    lines.filter(([, names]) => names === tried).map(([second]) => second)
  const failing =
    (bad: string): Answer =>
    (name) =>
      !bad.includes(name)
  const once = { maxFails: 1, failTimeout: 10_000 }

  it('N3: a always fails: one attempt per failTimeout, in its turn', async () => {
    const lines = await everySecond(world('a1 b1', once), 130, failing('a'))
    // nginx counts whole seconds and lowers the effective weight to 0 for a turn: 100, 113, 126.
    expect(seconds(lines, 'ab')).toEqual([100, 111, 122])
    expect(seconds(lines, 'b').length).toBe(28)
  })

  it('N4: a answers from 112 on: alternating from its next trial on', async () => {
    const w = world('a1 b1', once)
    const lines = await everySecond(w, 130, (name) => name === 'b' || w.clock.now() >= 112_000)
    // nginx tries a at 113, this library has tried it at 111: the next trial is at 122.
    expect(seconds(lines, 'ab')).toEqual([100, 111])
    expect(seconds(lines, 'a')).toEqual([122, 124, 126, 128, 130])
  })

  it('N5: both always fail: b, the last one, is kept', async () => {
    const lines = await everySecond(world('a1 b1', once), 130, failing('ab'))
    // nginx bans both and answers 502 without an attempt: 100 ab, 111 ba, 122 again.
    expect(seconds(lines, 'ab')).toEqual([100, 120])
    expect(seconds(lines, 'ba')).toEqual([110, 130])
    expect(seconds(lines, 'b').length).toBe(27)
  })

  it('N6: maxFails 3, a always fails: out after three, then one attempt per failTimeout', async () => {
    const lines = await everySecond(world('a1 b1', { maxFails: 3, failTimeout: 10_000 }), 130, failing('a'))
    // nginx: 100, 102, 104, 116, 128.
    expect(seconds(lines, 'ab')).toEqual([100, 102, 104, 115, 126])
  })

  /** Picks at one instant, nobody of whom is answered yet. */
  const acquire = ({ checkups }: World, count: number) =>
    write(Array.from({ length: count }, () => nameOf(checkups.acquirePeer('up')!.peer)))
  const afterOneFailure = async (ms: number) => {
    const w = world('a1 b1', once)
    await w.call('up', failing('a'))
    await w.clock.advance(ms)
    return w
  }

  it('N7: within failTimeout of the failure all go to b', async () => {
    // nginx counts whole seconds: so it is until 11 s after the failure.
    expect(acquire(await afterOneFailure(9999), 10)).toBe('bbbbbbbbbb')
  })

  it('N8: after it, one of ten goes to a', async () => {
    // nginx: bbabbbbbbb, the effective weight of a having gone down to 0.
    expect(acquire(await afterOneFailure(10_000), 10)).toBe('babbbbbbbb')
    expect((await afterOneFailure(10_000)).select('up', 10)).toBe('babbbbbbbb')
  })

  it('N9: of weight 5 and maxFails 3, a fails once', async () => {
    const w = world('a5 b1', { maxFails: 3 })
    expect(await w.call('up', fail, { tries: 1 })).toMatchObject({ tried: 'a' })
    // nginx takes a third of the weight off, rounded down, which leaves 4: aabaaaaabaaaaa. Here it is halved to 3.
    expect(await w.ok('up', 14)).toBe('abaaaaabaaaaab')
  })

  it('N10: failures of which none follows another without a success between do not add up', async () => {
    const w = world('a1 b1', { maxFails: 3, failTimeout: 10_000 })
    const answer: Answer = (name) => name === 'b' || ![100_000, 108_000, 116_000].includes(w.clock.now())
    const lines = await everySecond(w, 129, answer, { tries: 1 })
    // In nginx a is out from 116 until it is tried at 128.
    expect(write(lines.map(([, tried]) => tried))).toBe('ab'.repeat(15))
  })
})
