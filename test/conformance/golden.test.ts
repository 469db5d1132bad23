/** What lua-resty-checkups and nginx 1.22.1 did, recorded; the failures of nginx are in nginx.test.ts. */
import { describe, expect, it } from 'vitest'
import { toCheckupsStatus } from '../../src/index.js'
import type { Cluster, ReadyOkOptions, UpstreamOptions } from '../../src/index.js'
import { asAncestor, codeOf, golden, recordedServer, TRIES_EXCEEDED, UNKNOWN, weighted, World } from './support.js'
import type { Answer } from './support.js'

describe('nginx: weighted round robin', () => {
  const { cases } = golden('nginx-wrr') as { cases: { weights: number[]; picks: number[] }[] }

  it('has seven cases', () => {
    expect(cases.length).toBe(7)
  })

  it.each(cases)('weights $weights: three cycles from a fresh start, and the next nine', ({ weights, picks }) => {
    const once = picks.join('')
    expect(new World({ up: weighted(weights) }).select('up', 4 * picks.length)).toBe(once.repeat(4))
  })
})

describe('lua-resty-checkups: ready_ok under failures', () => {
  interface Request {
    tried: number[]
    ok?: boolean
    res?: number
    err?: string
  }
  interface Case {
    requests: Request[]
    weights: number[]
    server0_fails_calls?: [number, number]
  }
  const { cases } = golden('checkups-failures') as { cases: Record<string, unknown>[] }
  const having = (name: string) => cases.filter((one) => name in one) as unknown as Case[]
  const only = (name: string) => having(name)[0]!

  /** A few cases have ports in place of positions. */
  const recorded = ({ tried, ok, res }: Request) => ({
    tried: tried.map((one) => (one >= 23_001 ? one - 23_001 : one)).join(''),
    ok: ok === true || res === 1,
  })

  async function run(upstream: UpstreamOptions, count: number, answer: Answer, options?: ReadyOkOptions) {
    const world = new World({ up: upstream })
    const calls = []
    for (let i = 0; i < count; i++) {
      const { tried, code, errors } = await world.call('up', answer, options)
      calls.push({
        tried,
        ok: code === undefined,
        ...(code === undefined ? {} : { code, errors: [...new Set(errors)] }),
      })
    }
    return calls
  }

  const failing =
    (...bad: string[]): Answer =>
    (name) => {
      if (bad.includes(name)) throw new Error('cb failed')
      return true
    }
  // At the try limit the ancestor returns the callback's error; here there is a code, and the error is among the attempts'.
  const failed = { ok: false, code: TRIES_EXCEEDED, errors: ['cb failed'] }

  it('has five cases of weights, of which one fails always, and five others', () => {
    expect([having('server0_fails_calls').length, cases.length]).toEqual([4, 10])
  })

  it.each(having('server0_fails_calls'))(
    'weights $weights, server 0 fails its calls $server0_fails_calls',
    async ({ weights, server0_fails_calls, requests }) => {
      const [from, to] = server0_fails_calls!
      let calls = 0
      const answer: Answer = (name) => name !== '0' || ++calls < from || calls > to
      expect(await run(weighted(weights), requests.length, answer)).toEqual(requests.map(recorded))
    },
  )

  it('weights 5, 1, 1, and all fail', async () => {
    const { weights, requests } = only('all_fail')
    const expected = requests.map((request) => ({ ...failed, tried: recorded(request).tried }))
    expect(await run(weighted(weights), 8, failing('0', '1', '2'))).toEqual(expected)
  })

  it('a single server that fails', async () => {
    const { weights, requests } = only('single_server_fails')
    const expected = requests.map((request) => ({ ...failed, tried: recorded(request).tried }))
    expect(await run(weighted(weights), 3, failing('0'))).toEqual(expected)
  })

  it('two tries of three servers, and all fail', async () => {
    const { weights, requests } = only('opts_try')
    const expected = requests.map((request) => ({ ...failed, tried: recorded(request).tried }))
    expect(await run(weighted(weights), 4, failing('0', '1', '2'), { tries: 2 })).toEqual(expected)
  })

  it('two levels, of which the first fails', async () => {
    // A `try` inside a level, which the recording has too, is nothing to the ancestor and an unknown option here.
    const cluster = [{ servers: [recordedServer(0), recordedServer(1)] }, { servers: [recordedServer(2)] }]
    const { requests } = only('levels')
    expect(await run({ ...asAncestor, cluster }, 3, failing('0', '1'))).toEqual(requests.map(recorded))
  })

  const keyed: Cluster = { dc1: { servers: [recordedServer(0)] }, dc2: { servers: [recordedServer(1)] } }

  it('named clusters in the order of clusterKey', async () => {
    const { requests } = only('cluster_key')
    const options = { clusterKey: ['dc2', 'dc1'] }
    expect(await run({ ...asAncestor, cluster: keyed }, 2, failing('1'), options)).toEqual(requests.map(recorded))
  })

  it('named clusters without clusterKey: in the order they are written', async () => {
    // The ancestor takes them in the order of a Lua table, which was dc2 first.
    expect(
      only('keyed_cluster_without_cluster_key')
        .requests.map(recorded)
        .map(({ tried }) => tried),
    ).toEqual(['1', '1'])
    const calls = await run({ ...asAncestor, cluster: keyed }, 2, failing())
    expect(calls).toEqual([
      { tried: '0', ok: true },
      { tried: '0', ok: true },
    ])
  })
})

describe('lua-resty-checkups: feedback_status', () => {
  interface Feedback {
    max_fails2_timeout2: Record<'before' | 'after_1_fail' | 'after_2_fails_first_picks', number[]>
    all_three_failed_by_feedback_in_order_012: number[]
    all_three_failed_in_order_201_after_a_success_each: number[]
    feedback_failed_once_then_picks_5_1_1: number[]
  }
  const recorded = golden('checkups-feedback') as Feedback
  const three = (weights = [1, 1, 1]) => new World({ up: { ...weighted(weights), maxFails: 2, failTimeout: 2000 } })
  const tell = ({ checkups }: World, index: number, failed: boolean) =>
    checkups.feedbackStatus('up', { host: '127.0.0.1', port: 23_001 + index }, failed)

  it('two failures take a server out', () => {
    const world = three()
    const { before, after_1_fail, after_2_fails_first_picks } = recorded.max_fails2_timeout2
    expect(world.select('up', 3)).toBe(before.join(''))
    tell(world, 0, true)
    expect(world.select('up', 3)).toBe(after_1_fail.join(''))
    tell(world, 0, true)
    expect(world.select('up', 9)).toBe(after_2_fails_first_picks.join(''))
  })

  it('it is back failTimeout after the failure that took it out', async () => {
    const world = three()
    tell(world, 0, true)
    await world.clock.advance(500)
    tell(world, 0, true)
    // In the ancestor the time runs from the first failure: back at 2000.
    await world.clock.advance(1999)
    expect([world.clock.now(), world.select('up', 6)]).toEqual([2499, '121212'])
    await world.clock.advance(1)
    expect([world.clock.now(), world.select('up', 6)]).toEqual([2500, '012012'])
  })

  it('a success before the failures does not shorten the time', async () => {
    const world = three()
    tell(world, 0, false)
    await world.clock.advance(1600)
    tell(world, 0, true)
    tell(world, 0, true)
    // In the ancestor the success opens the window: recorded were 396 ms.
    await world.clock.advance(1999)
    expect([world.clock.now(), world.select('up', 6)]).toEqual([3599, '121212'])
    await world.clock.advance(1)
    expect([world.clock.now(), world.select('up', 6)]).toEqual([3600, '012012'])
  })

  it.each([
    ['0, 1, 2', [0, 1, 2], recorded.all_three_failed_by_feedback_in_order_012],
    ['2, 0, 1, after a success each', [2, 0, 1], recorded.all_three_failed_in_order_201_after_a_success_each],
  ])('all three fail in the order %s: the last one stays', (_says, order, picks) => {
    const world = three()
    for (const index of order) tell(world, index, false)
    for (const index of order) {
      tell(world, index, true)
      tell(world, index, true)
    }
    expect(world.select('up', 9)).toBe(picks.join(''))
  })

  it('a failure told so leaves the weights alone', () => {
    const world = three([5, 1, 1])
    tell(world, 0, true)
    expect(world.select('up', 14)).toBe(recorded.feedback_failed_once_then_picks_5_1_1.join(''))
  })

  it('three failures told so leave them alone, too', () => {
    const world = new World({ up: weighted([5, 1, 1]) })
    for (let i = 0; i < 3; i++) tell(world, 0, true)
    // An effective weight halved once gives the recorded sequence as well, one halved three times begins with 01.
    expect(world.select('up', 14)).toBe('0010200' + '0010200')
  })

  it('an unknown upstream and an unknown server are errors', async () => {
    const world = three()
    const peer = { host: '127.0.0.1', port: 1 }
    expect(await codeOf((async () => world.checkups.feedbackStatus('zz', peer, true))())).toBe(UNKNOWN)
    const unknownPeer = 'ERR_CHECKUPS_UNKNOWN_PEER'
    expect(await codeOf((async () => world.checkups.feedbackStatus('up', peer, true))())).toBe(unknownPeer)
  })
})

describe('lua-resty-checkups: get_status', () => {
  const recorded = golden('checkups-get-status') as Record<string, unknown>
  const hosts = (...addresses: string[]) => ({ ...asAncestor, servers: addresses })
  const upstreams: Readonly<Record<string, UpstreamOptions>> = {
    wrr_1: weighted([1]),
    wrr_7_5_3_2_1: weighted([7, 5, 3, 2, 1]),
    levels: {
      ...asAncestor,
      cluster: [{ servers: [recordedServer(0), recordedServer(1)] }, { servers: [recordedServer(2)] }],
    },
    keyed: { ...asAncestor, cluster: { dc1: { servers: [recordedServer(0)] }, dc2: { servers: [recordedServer(1)] } } },
    fb_4_2_1: { ...weighted([4, 2, 1]), maxFails: 2, failTimeout: 2000 },
    hash_spread5: hosts(
      'web-ash-17.example:8080',
      'cache3:11211',
      '192.168.77.201:31417',
      'node-b.internal:443',
      'z9:5',
    ),
  }
  const shown = toCheckupsStatus(new World(upstreams).checkups.getStatus())

  /** What the ancestor leaves out when it is not configured is written out here, and passive health is added. */
  const filled = (one: object) => ({
    weight: 1,
    max_fails: 0,
    fail_timeout: 10,
    passive: { state: 'up', failures: 0, bans: 0, remaining: 0 },
    ...one,
  })
  const filledLevels = (entry: unknown): unknown =>
    Array.isArray(entry)
      ? entry.map((level: object[]) => level.map(filled))
      : Object.fromEntries(
          Object.entries(entry as Record<string, object[]>).map(([name, level]) => [name, level.map(filled)]),
        )

  it.each(Object.keys(upstreams))('cls:%s', (key) => {
    expect(shown[`cls:${key}`]).toEqual(filledLevels(recorded[`cls:${key}`]))
  })

  it('has beside them what one process has to say', () => {
    const others = Object.keys(shown).filter((key) => !key.startsWith('cls:'))
    expect(others).toEqual(['start_time', 'conf_hash', 'shd_config_version'])
    expect(shown['conf_hash']).toBe(recorded['conf_hash'])
    const time = /^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/
    expect(shown['start_time']).toMatch(time)
    expect(recorded['start_time']).toMatch(time)
    // Every upstream made is a change here; there only updates are.
    expect([shown['shd_config_version'], recorded['shd_config_version']]).toEqual([6, 0])
  })
})
