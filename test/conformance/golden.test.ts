/** What lua-resty-checkups and nginx 1.22.1 did, recorded; the failures of nginx are in nginx.test.ts. */
import { describe, expect, it } from 'vitest'
import { toCheckupsStatus } from '../../src/index.js'
import type { Cluster, ReadyOkOptions, UpstreamOptions } from '../../src/index.js'
import { asAncestor, beats, codeOf, golden, NO_PEER, recordedServer, refuse, TRIES_EXCEEDED } from './support.js'
import { UNKNOWN, weighted, World, type Answer, type Beat } from './support.js'

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

describe('lua-resty-checkups: heartbeats', () => {
  interface Quantiles {
    max: number
  }
  interface Health {
    get_status_initial_all_up_hb_prot_and_unprot_dead: Record<string, { lastmodified: string }[][]>
    protected_all_dead: { status: string[]; picks: number[] }
    unprotected_all_dead: { status: string[]; picks: string[] }
    hb_all_dead_protected_status_verbatim: object[][]
    hb_all_dead_picks: number[]
    heartbeat_detection_interval1s_refused: Record<'down_ms' | 'up_ms', Quantiles>
    heartbeat_detection_sensibility3: Record<'down_ms' | 'up_ms', Quantiles>
    http_heartbeat_hung_server_timeout1s_detected_ms: number
    rounds_while_one_hangs_ms: number[]
  }
  const recorded = golden('checkups-health') as Health
  const second = { interval: 1000, fastInterval: 1000, timeout: 1000 }
  const three = (ports: number[]) => ports.map((port) => ({ ...recordedServer(port - 23_001) }))
  const alive = [23_001, 23_002, 23_003]
  const dead = [23_021, 23_022, 23_023]
  const upstreams: Readonly<Record<string, UpstreamOptions>> = {
    hb: { ...asAncestor, maxFails: 2, failTimeout: 2000, servers: three(alive), heartbeat: beats(() => true, second) },
    hb_http: { ...asAncestor, servers: three(alive), heartbeat: beats(() => true, second) },
    hb_prot: { ...asAncestor, servers: three(dead), heartbeat: beats(refuse, second) },
    hb_unprot: { ...asAncestor, servers: three(dead), protected: false, heartbeat: beats(refuse, second) },
  }
  const passive = { state: 'up', failures: 0, bans: 0, remaining: 0 }
  const filled = (levels: object[][]) =>
    levels.map((level) => level.map((one) => ({ max_fails: 0, fail_timeout: 10, passive, ...one })))
  /** After two beats, as recorded. */
  const afterTwo = async (options: Readonly<Record<string, UpstreamOptions>>) => {
    const world = new World(options)
    await world.beaten(1)
    return world
  }
  /** When it was that something turned is another day's. */
  const timeless = (levels: object[][]) =>
    levels.map((level) =>
      level.map((one) => ({ ...one, lastmodified: expect.stringMatching(/^[\d-]{10} [\d:]{8}$/) as string })),
    )

  it.each(Object.keys(upstreams))('cls:%s', async (key) => {
    const { [`cls:${key}`]: expected } = recorded.get_status_initial_all_up_hb_prot_and_unprot_dead
    const world = await afterTwo(upstreams)
    expect(world.shown(key)).toEqual(filled(timeless(expected!)))
    expect(expected!.flat().every(({ lastmodified }) => / [\d:]{8}$/.test(lastmodified))).toBe(true)
  })

  it('all dead, protected: the first is unstable and takes all', async () => {
    const { status, picks } = recorded.protected_all_dead
    const world = await afterTwo(upstreams)
    expect(world.shown('hb_prot')[0]!.map((one) => one.status)).toEqual(status)
    expect(world.select('hb_prot', picks.length)).toBe(picks.map((port) => String(port - 23_001)).join(','))
  })

  it('all dead, not protected: nobody is left', async () => {
    const { status, picks } = recorded.unprotected_all_dead
    const world = await afterTwo(upstreams)
    expect(world.shown('hb_unprot')[0]!.map((one) => one.status)).toEqual(status)
    for (const pick of picks) {
      expect(pick).toBe('no servers available')
      expect((await world.call('hb_unprot', () => true)).code).toBe(NO_PEER)
    }
  })

  it('all die later, protected: the same', async () => {
    let dying = false
    const check: Beat = () => !dying || refuse()
    const world = await afterTwo({ hb: { ...upstreams['hb'], heartbeat: beats(check, second) } })
    dying = true
    await world.beaten(1)
    expect(world.shown('hb')).toEqual(filled(timeless(recorded.hb_all_dead_protected_status_verbatim)))
    const picks = recorded.hb_all_dead_picks
    expect(world.select('hb', picks.length)).toBe(picks.map((port) => port - 23_001).join(''))
  })

  /** The longest that it took to see one server of three die, and come back, at twenty moments of an interval. */
  async function longest(options: object, answerDead: (world: World) => ReturnType<Beat>) {
    const worst = { down: 0, up: 0 }
    for (let moment = 0; moment < 1000; moment += 50) {
      let isDead = false
      const check: Beat = (name) => name !== '1' || !isDead || answerDead(world)
      const world: World = new World({ hb: { ...upstreams['hb'], heartbeat: beats(check, { ...second, ...options }) } })
      await world.checkups.start()
      await world.clock.advance(10_000 + moment)
      for (const turn of ['down', 'up'] as const) {
        isDead = turn === 'down'
        const from = world.clock.now()
        while ((world.shown('hb')[0]![1]!.status === 'ok') === isDead) await world.clock.advance(10)
        worst[turn] = Math.max(worst[turn], world.clock.now() - from)
      }
    }
    return worst
  }

  // What is recorded came within the same time, give or take what a process needs: 20 ms.
  it.each([
    { says: 'refused', options: {}, fall: 1, times: recorded.heartbeat_detection_interval1s_refused },
    {
      says: 'refused, sensibility 3',
      options: { fall: undefined, sensibility: 3 },
      fall: 3,
      times: recorded.heartbeat_detection_sensibility3,
    },
  ])('a death is seen within `sensibility` intervals, a return within one: $says', async ({ options, fall, times }) => {
    const { down, up } = await longest(options, refuse)
    expect(down).toBeLessThanOrEqual(fall * 1000)
    expect(down).toBeGreaterThan(fall * 1000 - 100)
    expect(up).toBeLessThanOrEqual(1000)
    expect([times.down_ms.max < fall * 1000 + 20, times.up_ms.max < 1020]).toEqual([true, true])
  })

  it('a server that hangs is seen to within an interval and a timeout', async () => {
    const { down } = await longest({}, ({ clock }) => clock.sleep(60_000).then(() => true))
    expect(down).toBeLessThanOrEqual(2000)
    expect(down).toBeGreaterThan(1900)
    expect(recorded.http_heartbeat_hung_server_timeout1s_detected_ms).toBeLessThan(2020)
  })

  it('while one hangs the others are checked every second; in the ancestor every two', async () => {
    expect(recorded.rounds_while_one_hangs_ms.every((ms) => ms > 1990)).toBe(true)
    const at: number[] = []
    const check: Beat = (name) => {
      if (name === '1') return world.clock.sleep(60_000).then(() => true)
      if (name === '2') at.push(world.clock.now())
      return true
    }
    const world: World = new World({ hb: { ...upstreams['hb'], heartbeat: beats(check, second) } })
    await world.beaten(5)
    expect(at.length).toBe(10)
    expect(at.slice(1).map((time, i) => time - at[i]!)).toEqual(Array.from({ length: 9 }, () => 1000))
  })
})
