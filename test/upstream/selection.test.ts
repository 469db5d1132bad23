import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { AttemptsError, toCheckupsStatus, UnknownUpstreamError } from '../../src/index.js'
import type {
  Balancer,
  BalancerEnv,
  BalancerFactory,
  Checkups,
  Member,
  Request,
  Result,
  SelectOptions,
  UpstreamOptions,
} from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'
import { address, harness, letterOf, level, target } from './harness.js'

const select = (checkups: Checkups, options?: SelectOptions) => letterOf(checkups.selectPeer('api', options))
const selections = (checkups: Checkups, count: number, options?: SelectOptions) =>
  Array.from({ length: count }, () => select(checkups, options)).join('')
const acquire = (checkups: Checkups, options?: SelectOptions) =>
  checkups.acquirePeer('api', options) ?? expect.fail('nobody was available')

describe('levels', () => {
  const cluster = [level('ab', { c: { backup: true } }), level('d', { e: { backup: true } }), level('f')]

  it('are used in order: primaries, their backups, the next level', async () => {
    const { checkups, picks } = harness({ cluster })
    expect(picks(4)).toBe('abab')
    const order = []
    for (const letter of 'abcdef') {
      order.push(picks(2))
      await checkups.setServer('api', target(letter), { down: true })
    }
    expect(order).toEqual(['ab', 'bb', 'cc', 'dd', 'ee', 'ff'])
    expect(picks(1)).toBe('-')
    for (const letter of 'fedcba') {
      await checkups.setServer('api', target(letter), { down: false })
      expect(picks(1)).toBe(letter)
    }
  })

  it('may be empty, or have backups only', () => {
    expect(harness({ cluster: [{ servers: [] }, level('b')] }).picks(2)).toBe('bb')
    expect(harness({ cluster: [level('', { a: { backup: true } }), level('b')] }).picks(2)).toBe('aa')
  })

  it('with an address in several of them use its own weight in each', async () => {
    const { checkups } = harness({
      cluster: { x: level('b', { a: { weight: 3 } }), y: level('b', { a: { weight: 0 } }) },
    })
    expect(selections(checkups, 4, { clusterKey: 'x' }).replaceAll('b', '')).toBe('aaa')
    expect(selections(checkups, 4, { clusterKey: 'y' })).toBe('bbbb')
  })

  it('of one address share its peer', () => {
    const { checkups } = harness({ cluster: { x: level('a'), y: level('a') } })
    const [x, y] = ['x', 'y'].map((clusterKey) => checkups.selectPeer('api', { clusterKey }))
    expect(x).toBe(y)
  })
})

describe('clusterKey', () => {
  const cluster = { dc1: level('ab'), dc2: level('cd'), dc3: level('e') }

  it.each<{ clusterKey: SelectOptions['clusterKey']; wanted: string }>([
    { clusterKey: undefined, wanted: 'aba' },
    { clusterKey: 'dc2', wanted: 'cdc' },
    { clusterKey: ['dc2'], wanted: 'cdc' },
    { clusterKey: ['dc3', 'dc1'], wanted: 'eee' },
    { clusterKey: ['none', 'dc3'], wanted: 'eee' },
    { clusterKey: ['none'], wanted: '---' },
    { clusterKey: 'none', wanted: '---' },
    { clusterKey: [], wanted: '---' },
    { clusterKey: '__proto__', wanted: '---' },
    { clusterKey: 'constructor', wanted: '---' },
  ])('$clusterKey gives $wanted', ({ clusterKey, wanted }) => {
    expect(selections(harness({ cluster }).checkups, 3, { clusterKey })).toBe(wanted)
  })

  it('says in which order, and no other', async () => {
    const { checkups } = harness({ cluster })
    await checkups.setServer('api', target('e'), { down: true })
    expect(select(checkups, { clusterKey: ['dc3', 'dc2'] })).toBe('c')
    expect(select(checkups, { clusterKey: 'dc3' })).toBe('-')
    expect(checkups.unavailableReason('api', { clusterKey: 'dc3' })).toBe('down')
    expect(checkups.unavailableReason('api', { clusterKey: 'none' })).toBe('empty')
  })

  it('takes levels by their place', () => {
    const { checkups } = harness({ cluster: [level('a'), level('b')] })
    expect(select(checkups, { clusterKey: '1' })).toBe('b')
    expect(select(checkups, { clusterKey: ['1', '0'] })).toBe('b')
  })

  it('takes a cluster’s backups after its primaries and before the next cluster', async () => {
    const { checkups } = harness({ cluster: { x: level('a'), y: level('b', { c: { backup: true } }) } })
    const options = { clusterKey: ['y', 'x'] }
    expect(select(checkups, options)).toBe('b')
    await checkups.setServer('api', target('b'), { down: true })
    expect(select(checkups, options)).toBe('c')
    await checkups.setServer('api', target('c'), { down: true })
    expect(select(checkups, options)).toBe('a')
  })
})

describe('weight 0, down and drain', () => {
  it.each([{ change: { weight: 0 } }, { change: { down: true } }, { change: { drain: true } }])(
    '$change: never picked, shown in status',
    async ({ change }) => {
      const { checkups, picks, server } = harness(level('ab'))
      await checkups.setServer('api', target('a'), change)
      expect(picks(3)).toBe('bbb')
      expect(server('a')).toMatchObject({ available: false, server: change })
      expect(select(checkups, { exclude: [target('b')] })).toBe('-')
    },
  )

  it('an upstream of them alone has nobody', () => {
    const none = (upstream: UpstreamOptions) => {
      const { checkups, picks } = harness(upstream)
      expect(picks(1)).toBe('-')
      expect(checkups.acquirePeer('api')).toBeUndefined()
      return checkups.unavailableReason('api')
    }
    expect(none(level('', { a: { weight: 0 }, b: { weight: 0 } }))).toBe('empty')
    expect(none(level('', { a: { weight: 0 }, b: { down: true } }))).toBe('down')
    expect(none(level('', { a: { drain: true }, b: { down: true } }))).toBe('down')
    expect(none({ servers: [] })).toBe('empty')
  })

  it('health says which', async () => {
    const { checkups, server } = harness(level('', { a: { weight: 0 }, b: { down: true }, c: { drain: true } }))
    expect(['a', 'b', 'c'].map((letter) => server(letter).health)).toEqual(['ok', 'down', 'drain'])
    await checkups.setServer('api', target('b'), { drain: true })
    expect(server('b').health).toBe('down')
  })

  it('down tells peer:down, and peer:up when it is over', async () => {
    const { checkups, clock, events } = harness(level('ab'))
    await clock.advance(70)
    await checkups.setServer('api', target('a'), { down: true })
    await clock.advance(30)
    await checkups.setServer('api', target('a'), { down: false })
    expect(events.filter(({ name }) => name.startsWith('peer'))).toEqual([
      expect.objectContaining({ name: 'peer:down', health: 'down', source: 'admin', lasted: 70 }),
      expect.objectContaining({ name: 'peer:up', health: 'ok', source: 'admin', lasted: 30 }),
    ])
  })

  it('drain lets requests finish and tells once when the last has', async () => {
    const { checkups, told } = harness(level('ab'))
    const picks = [acquire(checkups), acquire(checkups), acquire(checkups)]
    await checkups.setServer('api', target('a'), { drain: true })
    expect(told()).toEqual(['upstream:update'])
    picks[0]!.done('ok')
    picks[1]!.done('ok')
    expect(told()).toEqual([])
    picks[2]!.done('ok')
    expect(told()).toEqual(['peer:drained a'])
    await checkups.setServer('api', target('a'), { maxConns: 5 })
    await checkups.addServer('api', target('c'))
    expect(told()).toEqual(['upstream:update', 'upstream:update'])
  })

  it('drain tells at once if nothing is in flight, and anew the next time', async () => {
    const { checkups, events } = harness(level('ab'))
    for (let i = 0; i < 2; i++) {
      events.length = 0
      await checkups.setServer('api', target('a'), { drain: true })
      expect(events.map(({ name }) => name)).toEqual(['upstream:update', 'peer:drained'])
      expect(events[1]).toMatchObject({ upstream: 'api', generation: events[0]?.generation })
      await checkups.setServer('api', target('a'), { drain: false })
    }
  })

  it('drain counts the requests of every level', async () => {
    const { checkups, told } = harness({ cluster: { x: level('ab'), y: level('a') } })
    const picks = ['x', 'y'].map((clusterKey) => acquire(checkups, { clusterKey }))
    await checkups.setServer('api', target('a'), { drain: true })
    told()
    picks[0]!.done('ok')
    expect(told()).toEqual([])
    picks[1]!.done('failed')
    expect(told()).toEqual(['peer:drained a'])
  })
})

describe('maxConns', () => {
  it('passes over who is full: the next server, the next level, then nobody, for the reason full', () => {
    const { checkups, clock, server } = harness({ cluster: [level('ab'), level('c')], maxConns: 1 })
    const picks = [acquire(checkups), acquire(checkups), acquire(checkups)]
    expect(picks.map(({ peer }) => letterOf(peer)).join('')).toBe('abc')
    expect(server('a')).toMatchObject({ available: false, health: 'ok', inFlight: 1 })
    expect(checkups.acquirePeer('api')).toBeUndefined()
    expect(select(checkups)).toBe('-')
    expect(checkups.unavailableReason('api')).toBe('full')
    picks[1]!.done('ok')
    expect(checkups.unavailableReason('api')).toBeUndefined()
    expect(select(checkups)).toBe('b')
    expect(clock.pending).toBe(0)
  })

  it('is not counted by selectPeer', () => {
    const { picks, server } = harness({ ...level('a'), maxConns: 1 })
    expect(picks(5)).toBe('aaaaa')
    expect(server('a').inFlight).toBe(0)
  })

  it('is counted once per request, however often done is called', () => {
    const { checkups, server } = harness({ ...level('a'), maxConns: 2 })
    const [first, second] = [acquire(checkups), acquire(checkups)]
    first.done('ok')
    first.done('failed')
    first[Symbol.dispose]()
    expect(server('a')).toMatchObject({ inFlight: 1, passive: { failures: 0 } })
    second[Symbol.dispose]()
    expect(server('a').inFlight).toBe(0)
  })

  it('ends with the block that uses a pick', () => {
    const { checkups, server } = harness(level('a'))
    {
      using pick = acquire(checkups)
      expect(letterOf(pick.peer)).toBe('a')
      expect(server('a').inFlight).toBe(1)
    }
    expect(server('a')).toMatchObject({ inFlight: 0, passive: { failures: 0 } })
  })

  it('is shared by all levels that name the address', () => {
    const { checkups } = harness({ cluster: { x: level('a'), y: level('ab') }, maxConns: 2 })
    const picks = [acquire(checkups, { clusterKey: 'x' }), acquire(checkups, { clusterKey: 'y' })]
    expect(select(checkups, { clusterKey: 'x' })).toBe('-')
    expect(checkups.unavailableReason('api', { clusterKey: 'x' })).toBe('full')
    expect(selections(checkups, 3, { clusterKey: 'y' })).toBe('bbb')
    picks[0]!.done('neutral')
    expect(select(checkups, { clusterKey: 'x' })).toBe('a')
  })

  it('changes with an update, both ways', async () => {
    const { checkups } = harness(level('a'))
    const picks = [acquire(checkups), acquire(checkups)]
    await checkups.setServer('api', target('a'), { maxConns: 2 })
    expect(select(checkups)).toBe('-')
    await checkups.setServer('api', target('a'), { maxConns: 3 })
    expect(select(checkups)).toBe('a')
    await checkups.setServer('api', target('a'), { maxConns: 1 })
    picks[0]!.done('ok')
    expect(select(checkups)).toBe('-')
    picks[1]!.done('ok')
    expect(select(checkups)).toBe('a')
  })

  it.each<{ name: string; options: SelectOptions; reason: string }>([
    { name: 'full', options: {}, reason: 'full' },
    { name: 'full, of those not excluded', options: { exclude: [target('a')] }, reason: 'full' },
    { name: 'excluded', options: { exclude: [target('a'), target('b')] }, reason: 'excluded' },
  ])('reason with others: $name', ({ options, reason }) => {
    const { checkups } = harness({ ...level('ab', { c: { down: true }, d: { weight: 0 } }), maxConns: 1 })
    acquire(checkups)
    acquire(checkups)
    expect(checkups.unavailableReason('api', options)).toBe(reason)
    expect(checkups.selectPeer('api', options)).toBeUndefined()
  })
})

describe('exclude', () => {
  it('takes peers and addresses, in any iterable', () => {
    const { checkups } = harness(level('abc'))
    const peer = checkups.selectPeer('api')!
    expect(select(checkups, { exclude: [peer, { host: '10.0.0.1', port: '2' }] })).toBe('c')
    expect(select(checkups, { exclude: new Set([target('a'), target('c')]) })).toBe('b')
    function* both() {
      yield target('b')
      yield target('c')
    }
    expect(select(checkups, { exclude: both() })).toBe('a')
    expect(checkups.unavailableReason('api', { exclude: both() })).toBeUndefined()
  })

  it('passes over what the upstream does not have', () => {
    const { checkups } = harness(level('ab'))
    expect(select(checkups, { exclude: [target('z'), target('a')] })).toBe('b')
  })

  it('refuses what is no address', () => {
    const { checkups } = harness(level('ab'))
    expect(() => checkups.selectPeer('api', { exclude: [{ host: 'a b', port: 1 }] })).toThrow(
      expect.objectContaining({ code: 'ERR_CHECKUPS_CONFIG', path: 'peer.host' }),
    )
  })

  it('leaves out the address in every level', () => {
    const { checkups } = harness({ cluster: [level('a'), level('ab')] })
    expect(selections(checkups, 2, { exclude: [target('a')] })).toBe('bb')
    expect(select(checkups, { exclude: [target('a'), target('b')] })).toBe('-')
    expect(checkups.unavailableReason('api', { exclude: [target('a'), target('b')] })).toBe('excluded')
  })

  it('is for one pick: in a loop by hand no peer comes twice, and the next call has all again', () => {
    const { checkups } = harness({ ...level('abc'), maxFails: 0 })
    for (let call = 0; call < 3; call++) {
      const tried = []
      for (let peer = checkups.selectPeer('api'); peer; peer = checkups.selectPeer('api', { exclude: tried })) {
        tried.push(peer)
      }
      expect(new Set(tried).size).toBe(3)
    }
  })

  it('holds for acquirePeer too', () => {
    const { checkups } = harness(level('ab'))
    expect(letterOf(acquire(checkups, { exclude: [target('a')] }).peer)).toBe('b')
  })
})

describe('a peer', () => {
  it.each([
    {
      server: { host: '10.0.0.1', port: 80 },
      address: '10.0.0.1:80',
      host: '10.0.0.1',
      port: 80,
      connect: { host: '10.0.0.1', port: 80 },
      origin: 'http://10.0.0.1:80',
    },
    {
      server: { host: '2001:DB8::0:1', port: 443 },
      address: '[2001:db8::1]:443',
      host: '2001:db8::1',
      port: 443,
      connect: { host: '2001:db8::1', port: 443 },
      origin: 'http://[2001:db8::1]:443',
    },
    {
      server: '[::1]:8080',
      address: '[::1]:8080',
      host: '::1',
      port: 8080,
      connect: { host: '::1', port: 8080 },
      origin: 'http://[::1]:8080',
    },
    {
      server: 'Backend_1.Example.test:8080',
      address: 'backend_1.example.test:8080',
      host: 'backend_1.example.test',
      port: 8080,
      connect: { host: 'backend_1.example.test', port: 8080 },
      origin: 'http://backend_1.example.test:8080',
    },
    {
      server: { path: '/run/app.sock' },
      address: 'unix:/run/app.sock',
      host: '',
      port: 0,
      connect: { path: '/run/app.sock' },
      origin: 'http://localhost',
    },
  ])('at $address', ({ server, origin, ...wanted }) => {
    const { checkups } = harness({ servers: [server] })
    const peer = checkups.selectPeer('api')!
    expect(peer).toMatchObject({ ...wanted, upstream: 'api' })
    expect({ ...peer.connect }).toEqual(wanted.connect)
    expect(peer.origin()).toBe(origin)
    expect(peer.origin('https')).toBe(origin.replace('http', 'https'))
    expect(peer.origin('ws')).toBe(origin.replace('http', 'ws'))
    expect(String(peer)).toBe(wanted.address)
    expect(new URL(peer.origin()).hostname.length).toBeGreaterThan(0)
    expect(checkups.feedbackStatus('api', peer, 'ok')).toBe(true)
    expect(checkups.selectPeer('api', { exclude: [peer] })).toBeUndefined()
  })

  it('is the same object every time, over updates', async () => {
    const { checkups } = harness(level('ab'))
    const peer = checkups.selectPeer('api', { exclude: [target('b')] })!
    await checkups.updateUpstream('api', [level('c'), level('ba')])
    expect(checkups.selectPeer('api', { clusterKey: '1', exclude: [target('b'), target('c')] })).toBe(peer)
  })

  it('has the labels and the meta of its server, and those of the last update', async () => {
    const meta = { shard: 7 }
    const { checkups, told } = harness({ servers: [{ ...target('a'), labels: { zone: 'b' }, meta }] })
    const peer = checkups.selectPeer('api')!
    expect(peer.labels).toEqual({ zone: 'b' })
    expect(peer.meta).toBe(meta)
    const other = { shard: 8 }
    await checkups.updateUpstream('api', [{ servers: [{ ...target('a'), labels: { zone: 'c' }, meta: other }] }])
    expect(peer.labels).toEqual({ zone: 'c' })
    expect(peer.meta).toBe(other)
    expect(told()).toEqual(['upstream:update'])
    await checkups.updateUpstream('api', [level('a')])
    expect(peer.labels).toEqual({})
    expect(peer.meta).toBeUndefined()
  })

  it('has the meta that was given, whatever it looks like inside', async () => {
    class Client {
      readonly #url: string
      constructor(url: string) {
        this.#url = url
      }
      get url() {
        return this.#url
      }
    }
    const write = (url: string) => [{ servers: [{ ...target('a'), meta: new Client(url) }] }]
    const { checkups } = harness({ cluster: write('one') })
    await checkups.updateUpstream('api', write('two'))
    expect((checkups.selectPeer('api')!.meta as Client).url).toBe('two')
  })

  it('has the labels of the last of its servers', () => {
    const of = (zone: string) => level('', { a: { labels: { zone } } })
    const { checkups } = harness({ cluster: { x: of('one'), y: of('two') } })
    expect(checkups.selectPeer('api')?.labels).toEqual({ zone: 'two' })
  })
})

describe('asking', () => {
  it('never changes what is picked', () => {
    const servers = fc.array(
      fc.record({ weight: fc.nat(4), down: fc.boolean(), backup: fc.boolean(), maxConns: fc.nat(2) }),
      { minLength: 1, maxLength: 6 },
    )
    const steps = fc.array(
      fc.record({ kind: fc.constantFrom('select', 'acquire', 'fail', 'exclude'), at: fc.nat(5) }),
      {
        maxLength: 30,
        size: 'max',
      },
    )
    const ask = ({ checkups }: ReturnType<typeof harness>, at: number) => {
      const exclude = [{ host: '10.0.0.1', port: 1 + at }]
      checkups.unavailableReason('api')
      checkups.unavailableReason('api', { exclude, clusterKey: 'x' })
      toCheckupsStatus(checkups.getStatus())
      checkups.getUpstream('api')
      checkups.getUpstreams()
      checkups.getUpstreamTimeouts('api')
      checkups.upstream('api').unavailableReason({ exclude })
    }
    const sequence = (lists: readonly object[][], made: { kind: string; at: number }[], asks: number) => {
      const cluster = Object.fromEntries(
        lists.map((list, i) => [
          'xyz'[i]!,
          { servers: list.map((server, at) => ({ ...target('abcdef'[at]!), ...server })) },
        ]),
      )
      const instance = harness({ cluster, protected: false })
      const { checkups } = instance
      return made.map(({ kind, at }) => {
        for (let i = 0; i < asks; i++) ask(instance, at)
        const exclude = kind === 'exclude' ? [{ host: '10.0.0.1', port: 1 + at }] : undefined
        if (kind !== 'acquire' && kind !== 'fail') return select(checkups, exclude && { exclude })
        const pick = checkups.acquirePeer('api')
        if (kind === 'fail') pick?.done('failed')
        return letterOf(pick?.peer)
      })
    }
    fc.assert(
      fc.property(servers, servers, steps, (first, second, made) => {
        // One level only names an address, so that they need not agree.
        const lists = [first, second.map((server) => ({ ...server, host: '10.0.0.2' }))]
        expect(sequence(lists, made, 3)).toEqual(sequence(lists, made, 0))
      }),
      { numRuns: 150 },
    )
  })
})

/** A policy that writes down what it is told; picks the first available, or what `pick` says. */
class Recorder implements Balancer {
  readonly calls: unknown[][] = []
  members: readonly Member[] = []
  readonly timed: boolean
  readonly env: BalancerEnv
  pickWith: (members: readonly Member[]) => Member | undefined = (members) => members.find(({ available }) => available)

  constructor(env: BalancerEnv, timed = false) {
    this.env = env
    this.timed = timed
  }

  update(members: readonly Member[]): void {
    this.members = members
    this.calls.push(['update', members.map(({ peer, available }) => letterOf(peer) + (available ? '' : '!')).join('')])
  }

  pick(request: Request, now: number): Member | undefined {
    const member = this.pickWith(this.members)
    this.calls.push(['pick', request.hashKey, now])
    return member
  }

  changed({ peer, available, healthy }: Member): void {
    this.calls.push(['changed', letterOf(peer), available, healthy])
  }

  acquired({ peer, inFlight }: Member): void {
    this.calls.push(['acquired', letterOf(peer), inFlight])
  }

  report({ peer }: Member, { outcome, status, ms, now, acquired }: Result): void {
    this.calls.push(['report', letterOf(peer), outcome, status, ms, now, acquired])
  }

  /** What it has been told since the last look. */
  take(...names: string[]): unknown[][] {
    return this.calls.splice(0).filter(([name]) => names.length === 0 || names.includes(name as string))
  }
}

/** An upstream whose levels are balanced by recorders, in the order of the levels. */
function recorded(upstream: UpstreamOptions, timed = false, wrap: (policy: Recorder) => Balancer = (policy) => policy) {
  const policies: Recorder[] = []
  const balancer: BalancerFactory = (env) => {
    const policy = new Recorder(env, timed)
    policies.push(policy)
    return wrap(policy)
  }
  const made = harness({ ...upstream, balancer })
  for (const policy of policies) policy.take()
  return { ...made, policies, policy: policies[0]!, balancer }
}

describe('a policy of one’s own', () => {
  it('is made once for each list of a level, and told its servers', () => {
    const policies: Recorder[] = []
    const balancer = (env: BalancerEnv) => {
      const policy = new Recorder(env)
      policies.push(policy)
      return policy
    }
    const cluster = [level('ab', { c: { backup: true }, d: { weight: 0 } }), level('', { e: { down: true } })]
    harness({ cluster, balancer })
    expect(policies.map((policy) => policy.take())).toEqual([[['update', 'ab']], [['update', 'c']], [['update', 'e!']]])
  })

  it('is given chance of its level’s own and the time', async () => {
    // The third is for what the instance does by itself.
    const draws = [0.25, 0.75, 0.5]
    const seen: number[][] = []
    const balancer = (env: BalancerEnv) => {
      seen.push([env.random(), env.random(), env.random()])
      return new Recorder(env)
    }
    let drawn = 0
    const random = () => draws[drawn++] ?? expect.fail('one draw per level')
    const upstream = { cluster: [level('a'), level('b')], balancer }
    harness(upstream, { random })
    expect(seen.map(([first]) => first)).toEqual([0.25, 0.75])
    expect(new Set(seen.flat()).size).toBe(6)
    const again: number[][] = seen.splice(0)
    drawn = 0
    harness(upstream, { random })
    expect(seen).toEqual(again)

    const { clock, policy } = recorded(level('a'))
    await clock.advance(123)
    expect(policy.env.now()).toBe(123)
  })

  it('may be a plain object with two methods', () => {
    let list: readonly Member[] = []
    const { checkups, picks } = harness({
      ...level('abc'),
      balancer: () => ({
        update: (members) => void (list = members),
        pick: () => list.findLast(({ available }) => available),
      }),
    })
    expect(picks(2)).toBe('cc')
    acquire(checkups).done('failed')
    expect(picks(2)).toBe('bb')
  })

  it('is asked once for every pick', async () => {
    const { checkups, policy } = recorded({ ...level('abc'), maxFails: 0 })
    select(checkups)
    select(checkups, { hashKey: 'k' })
    select(checkups, { exclude: [target('a')] })
    select(checkups, { clusterKey: '0' })
    acquire(checkups).done('ok')
    expect(policy.take('pick')).toEqual([
      ['pick', undefined, NaN],
      ['pick', 'k', NaN],
      ['pick', undefined, NaN],
      ['pick', undefined, NaN],
      ['pick', undefined, NaN],
    ])
    await checkups.readyOk('api', ({ port }) => port === 3, { hashKey: 'r' })
    expect(policy.take('pick')).toEqual([
      ['pick', 'r', NaN],
      ['pick', 'r', NaN],
      ['pick', 'r', NaN],
    ])
  })

  it('is not asked where its level has nobody', () => {
    const { checkups, policies } = recorded({ cluster: [level('', { a: { down: true } }), level('b')], maxFails: 0 })
    expect(select(checkups)).toBe('b')
    expect(select(checkups, { hashKey: 'k' })).toBe('b')
    acquire(checkups).done('ok')
    expect(policies.map((policy) => policy.take('pick').length)).toEqual([0, 3])
  })

  it('is asked once for every pick while somebody is on trial', async () => {
    const { checkups, clock, feedback, policies } = recorded({
      cluster: [level('a'), level('b')],
      failTimeout: 1000,
    })
    feedback('a')
    await clock.advance(1000)
    for (const policy of policies) policy.take()
    expect(selections(checkups, 4)).toBe('abbb')
    expect(policies.map((policy) => policy.take('pick').length)).toEqual([1, 3])
  })

  it('is told what the core keeps, and no update for a ban, an exclusion or a full peer', async () => {
    const { checkups, clock, policy, feedback } = recorded({ ...level('abc'), failTimeout: 1000, readmit: 'fresh' })
    feedback('b')
    expect(policy.take()).toEqual([
      ['report', 'b', 'failed', 0, NaN, NaN, false],
      ['changed', 'b', false, false],
    ])
    await clock.advance(1000)
    expect(policy.take()).toEqual([['changed', 'b', true, true]])
    select(checkups, { exclude: [target('a')] })
    expect(policy.take()).toEqual([
      ['changed', 'a', false, true],
      ['pick', undefined, NaN],
      ['changed', 'a', true, true],
    ])
    await checkups.setServer('api', target('a'), { maxConns: 1 })
    policy.take()
    const pick = acquire(checkups)
    expect(policy.take()).toEqual([
      ['pick', undefined, NaN],
      ['changed', 'a', false, true],
      ['acquired', 'a', 1],
    ])
    pick.done({ status: 201 })
    expect(policy.take()).toEqual([
      ['changed', 'a', true, true],
      ['report', 'a', 'ok', 201, NaN, NaN, true],
    ])
  })

  it.each<{ name: string; act: (pick: ReturnType<typeof acquire>) => void; wanted: unknown[][] }>([
    { name: 'ok', act: (pick) => pick.done('ok'), wanted: [['ok', 0]] },
    { name: 'failed', act: (pick) => pick.done('failed'), wanted: [['failed', 0]] },
    { name: 'neutral', act: (pick) => pick.done('neutral'), wanted: [['neutral', 0]] },
    { name: 'a status', act: (pick) => pick.done({ status: 503 }), wanted: [['failed', 503]] },
    { name: 'disposed', act: (pick) => pick[Symbol.dispose](), wanted: [['neutral', 0]] },
  ])('is told once how a request went: $name', ({ act, wanted }) => {
    const { checkups, policy } = recorded(level('ab'))
    const pick = acquire(checkups)
    policy.take()
    act(pick)
    act(pick)
    expect(policy.take('report').map(([, , outcome, status]) => [outcome, status])).toEqual(wanted)
  })

  it('keeps its data on members while they stay', async () => {
    const { checkups, policy } = recorded(level('abc'))
    for (const member of policy.members) member.data = letterOf(member.peer)
    await checkups.setServer('api', target('b'), { weight: 7 })
    await checkups.updateUpstream('api', [level('cb')])
    expect(policy.members.map(({ data }) => data)).toEqual(['c', 'b'])
    await checkups.updateUpstream('api', [level('abc')])
    expect(policy.members.map(({ data }) => data)).toEqual([undefined, 'b', 'c'])
  })

  it('is shown weights and requests in flight', async () => {
    const { checkups, policy } = recorded(level('a', { b: { weight: 5 } }))
    expect(policy.members.map(({ weight, fullWeight }) => [weight, fullWeight])).toEqual([
      [1, 1],
      [5, 5],
    ])
    const picks = [acquire(checkups), acquire(checkups)]
    expect(policy.members.map(({ inFlight }) => inFlight)).toEqual([2, 0])
    await checkups.updateUpstream('api', [level('ba')])
    expect(policy.members.map(({ peer, inFlight }) => [letterOf(peer), inFlight])).toEqual([
      ['b', 0],
      ['a', 2],
    ])
    for (const pick of picks) pick.done('ok')
    expect(policy.members[1]?.inFlight).toBe(0)
  })

  it('may decline: the next level is asked, and at the end nobody is left', async () => {
    const { checkups, policies } = recorded({ cluster: [level('a'), level('b')], maxFails: 0 })
    policies[0]!.pickWith = () => undefined
    expect(select(checkups)).toBe('b')
    expect(select(checkups, { hashKey: 'k' })).toBe('b')
    expect(letterOf(acquire(checkups).peer)).toBe('b')
    expect(policies.map((policy) => policy.take('pick').length)).toEqual([3, 3])
    policies[1]!.pickWith = () => undefined
    expect(select(checkups)).toBe('-')
    await expect(checkups.readyOk('api', () => 'ok')).rejects.toThrow(AttemptsError)
  })

  it('may be wrong: who is not available is not handed out', () => {
    const { checkups, feedback, policies } = recorded({ cluster: [level('ab'), level('c')] })
    feedback('a')
    policies[0]!.pickWith = ([first]) => first
    expect(select(checkups)).toBe('c')
    expect(select(checkups, { hashKey: 'k' })).toBe('c')
    expect(letterOf(acquire(checkups).peer)).toBe('c')
    expect(select(checkups, { exclude: [target('c')] })).toBe('-')
  })

  it('may be wrong: who has left is not handed out', async () => {
    const { checkups, policy, events } = recorded({ cluster: [level('ab'), level('c')] })
    const { members } = policy
    // It has kept the list from before.
    policy.pickWith = () => members[0]
    await checkups.removeServer('api', target('a'))
    expect(select(checkups)).toBe('c')
    expect(letterOf(acquire(checkups).peer)).toBe('c')
    expect(events.map(({ name }) => name)).toEqual(['upstream:update'])
  })

  it.each<{ during: string; act: (made: ReturnType<typeof recorded>) => unknown }>([
    { during: 'update', act: ({ checkups }) => checkups.addServer('api', target('d')) },
    { during: 'changed', act: ({ feedback }) => feedback('c') },
    { during: 'acquired', act: ({ checkups }) => acquire(checkups) },
    { during: 'report', act: ({ checkups }) => checkups.acquirePeer('api')?.done('ok') },
  ])('may throw in $during: that is told, and nothing else happens', async ({ during, act }) => {
    const thrown = new Error('mine')
    let throwing = false
    const made = recorded(level('abc'), false, (policy) => {
      const original = policy[during as 'update'].bind(policy)
      policy[during as 'update'] = (...args) => {
        if (throwing) throw thrown
        original(...args)
      }
      return policy
    })
    throwing = true
    await act(made)
    throwing = false
    const errors = made.events.filter(({ name }) => name === 'error')
    expect(errors).toEqual([{ name: 'error', error: thrown, during: `${during} of the balancer of level "0"` }])
    expect(made.picks(1)).toBe('a')
    acquire(made.checkups).done('ok')
    await made.checkups.setServer('api', target('b'), { weight: 3 })
    expect(made.events.filter(({ name }) => name === 'error')).toHaveLength(1)
    expect(made.server('a').inFlight).toBe(during === 'acquired' ? 1 : 0)
  })

  it('that throws in pick throws to the caller, and hides nobody for good', () => {
    const { checkups, policy } = recorded(level('ab'))
    policy.pickWith = () => {
      throw new Error('mine')
    }
    expect(() => checkups.selectPeer('api')).toThrow('mine')
    expect(() => checkups.selectPeer('api', { exclude: [target('a')] })).toThrow('mine')
    expect(() => checkups.acquirePeer('api')).toThrow('mine')
    policy.pickWith = ([first]) => first
    expect(select(checkups)).toBe('a')
    expect(policy.members.map(({ inFlight }) => inFlight)).toEqual([0, 0])
  })

  it('is replaced by another function and kept for the same', async () => {
    const { checkups, policies, balancer, picks } = recorded({ ...level('ab') })
    policies[0]!.members[0]!.data = 'mine'
    await checkups.updateUpstream('api', { ...level('abc'), balancer })
    expect(policies).toHaveLength(1)
    await checkups.updateUpstream('api', { ...level('abc'), balancer: (env) => balancer(env) })
    expect(policies).toHaveLength(2)
    expect(policies[1]!.take()).toEqual([['update', 'abc']])
    expect(policies[1]!.members[0]!.data).toBeUndefined()
    await checkups.updateUpstream('api', level('abc'))
    expect(picks(3)).toBe('abc')
    expect(policies.map((policy) => policy.take('pick').length)).toEqual([0, 0])
  })

  it.each<{ name: string; balancer: BalancerFactory }>([
    {
      name: 'throws',
      balancer: () => {
        throw new Error('mine')
      },
    },
    { name: 'makes nothing', balancer: (() => undefined) as never },
    { name: 'makes something else', balancer: (() => ({ update: () => undefined })) as never },
  ])('whose factory $name changes nothing', async ({ balancer }) => {
    const { checkups, picks, told } = harness({ ...level('abc') })
    expect(picks(1)).toBe('a')
    const before = checkups.getStatus()
    await expect(checkups.updateUpstream('api', { ...level('bcd'), balancer })).rejects.toThrow(Error)
    await expect(checkups.updateUpstream('new', { ...level('bcd'), balancer })).rejects.toThrow(Error)
    expect(checkups.getStatus()).toEqual(before)
    expect(told()).toEqual([])
    expect(picks(3)).toBe('bca')
  })

  it('is no policy by a name that is inherited', () => {
    for (const balancer of ['constructor', '__proto__', 'toString']) {
      expect(() => harness({ ...level('a'), balancer: balancer as 'wrr' })).toThrow(/upstreams\.api\.balancer/)
    }
  })
})

describe('a timed policy', () => {
  const timed = (upstream: UpstreamOptions = level('ab')) => recorded(upstream, true)
  const reports = ({ policy }: { policy: Recorder }) => policy.take('report').map((call) => call.slice(2))

  it('is given the time of every pick', async () => {
    const { checkups, clock, policy } = timed()
    await clock.advance(40)
    select(checkups)
    await clock.advance(2)
    select(checkups, { hashKey: 'k' })
    acquire(checkups)
    expect(policy.take('pick')).toEqual([
      ['pick', undefined, 40],
      ['pick', 'k', 42],
      ['pick', undefined, 42],
    ])
  })

  it('is told the time to the answer, once', async () => {
    const made = timed()
    const pick = acquire(made.checkups)
    await made.clock.advance(30)
    pick.answered(200)
    pick.answered(200)
    expect(reports(made)).toEqual([['ok', 200, 30, 30, true]])
    await made.clock.advance(10_000)
    pick.done('ok')
    expect(reports(made)).toEqual([])
  })

  it('is told the time to the end, unanswered', async () => {
    const made = timed({ ...level('ab'), maxFails: 0 })
    for (const outcome of ['ok', 'failed', 'neutral'] as const) {
      const pick = acquire(made.checkups)
      await made.clock.advance(30)
      pick.done(outcome)
    }
    expect(reports(made)).toEqual([
      ['ok', 0, 30, 30, true],
      ['failed', 0, 30, 60, true],
      ['neutral', 0, 30, 90, true],
    ])
  })

  it('is told of a failure after a good answer, without a time', async () => {
    const made = timed()
    const pick = acquire(made.checkups)
    await made.clock.advance(10)
    pick.answered()
    await made.clock.advance(10)
    pick.done('failed')
    expect(reports(made)).toEqual([
      ['ok', 0, 10, 10, true],
      ['failed', 0, NaN, 20, true],
    ])
  })

  it('gets no sample from an answer that counts as failed before its end', async () => {
    const made = timed()
    const pick = acquire(made.checkups)
    await made.clock.advance(10)
    pick.answered(503)
    expect(reports(made)).toEqual([])
    await made.clock.advance(10)
    pick.done({ status: 503 })
    expect(reports(made)).toEqual([['failed', 503, 10, 20, true]])
  })

  it('is told of feedbackStatus without a time', async () => {
    const made = timed()
    await made.clock.advance(5)
    made.feedback('a', { status: 500 })
    expect(reports(made)).toEqual([['failed', 500, NaN, 5, false]])
  })

  it('sees the oldest request that waits for its answer', async () => {
    const { checkups, clock, policy } = timed(level('a'))
    const oldest = () => policy.members[0]?.oldest
    expect(oldest()).toBe(Infinity)
    const picks = []
    for (let i = 0; i < 4; i++) {
      picks.push(acquire(checkups))
      await clock.advance(10)
    }
    expect(oldest()).toBe(0)
    picks[1]!.answered()
    expect(oldest()).toBe(0)
    picks[0]!.answered()
    expect(oldest()).toBe(20)
    expect(policy.members[0]?.inFlight).toBe(4)
    picks[3]!.done('ok')
    expect(oldest()).toBe(20)
    picks[2]!.done('neutral')
    expect(oldest()).toBe(Infinity)
    picks[0]!.done('ok')
    picks[1]!.done('ok')
    expect(policy.members[0]?.inFlight).toBe(0)
  })

  it('sees it right in any order of answers and ends', async () => {
    const order = fc.array(fc.record({ act: fc.constantFrom('acquire', 'answered', 'done'), at: fc.nat(20) }), {
      maxLength: 60,
      size: 'max',
    })
    await fc.assert(
      fc.asyncProperty(order, async (acts) => {
        const { checkups, clock, policy } = timed(level('a'))
        const open: { pick: ReturnType<typeof acquire>; start: number; waits: boolean }[] = []
        for (const { act, at } of acts) {
          const request = open[at % (open.length || 1)]
          if (act === 'acquire') open.push({ pick: acquire(checkups), start: clock.now(), waits: true })
          else if (request !== undefined) {
            request.waits = false
            if (act === 'answered') request.pick.answered()
            else {
              request.pick.done('ok')
              open.splice(open.indexOf(request), 1)
            }
          }
          const waiting = open.filter(({ waits }) => waits).map(({ start }) => start)
          expect(policy.members[0]?.oldest).toBe(Math.min(Infinity, ...waiting))
          expect(policy.members[0]?.inFlight).toBe(open.length)
          await clock.advance(1)
        }
      }),
      { numRuns: 30 },
    )
  })

  it('is asked of readyOk the same', async () => {
    const made = timed(level('a'))
    await Promise.all([
      made.checkups.readyOk('api', async (_, attempt) => {
        await made.clock.sleep(7)
        attempt.answered(200)
        await made.clock.sleep(100)
      }),
      made.clock.advance(200),
    ])
    expect(reports(made)).toEqual([['ok', 200, 7, 7, true]])
  })

  it('is the only one that costs reading the clock', () => {
    class CountingClock extends VirtualClock {
      reads = 0
      override now(): number {
        this.reads++
        return super.now()
      }
    }
    const clock = new CountingClock()
    const { checkups } = harness(level('abc'), { clock })
    clock.reads = 0
    for (let i = 0; i < 10; i++) {
      select(checkups)
      const pick = acquire(checkups)
      pick.answered(200)
      pick.done('ok')
    }
    expect(clock.reads).toBe(0)
  })
})

describe('a handle', () => {
  it('does what the instance does', async () => {
    const { checkups } = harness({ cluster: { x: level('ab'), y: level('c') }, maxConns: 1, maxFails: 1 })
    const handle = checkups.upstream('api')
    expect(handle.key).toBe('api')
    expect(letterOf(handle.selectPeer({ clusterKey: 'y' }))).toBe('c')
    const pick = handle.acquirePeer()!
    expect(letterOf(pick.peer)).toBe('a')
    expect(select(checkups)).toBe('b')
    expect(handle.feedbackStatus(pick.peer, 'failed')).toBe(true)
    expect(handle.unavailableReason({ clusterKey: 'none' })).toBe('empty')
    expect(await handle.readyOk(({ address }) => address)).toBe(address('b'))
  })

  it('sees every update', async () => {
    const { checkups } = harness(level('a'))
    const handle = checkups.upstream('api')
    await checkups.updateUpstream('api', [level('b')])
    expect(letterOf(handle.selectPeer())).toBe('b')
  })

  it('survives that its upstream is deleted and made again, and throws in between', async () => {
    const { checkups } = harness(level('a'))
    const handle = checkups.upstream('api')
    await checkups.deleteUpstream('api')
    for (let i = 0; i < 2; i++) {
      expect(() => handle.selectPeer()).toThrow(UnknownUpstreamError)
      expect(() => handle.acquirePeer()).toThrow(UnknownUpstreamError)
      expect(() => handle.unavailableReason()).toThrow(UnknownUpstreamError)
      expect(() => handle.feedbackStatus(target('a'), 'ok')).toThrow(UnknownUpstreamError)
      await expect(async () => handle.readyOk(() => 'ok')).rejects.toThrow(UnknownUpstreamError)
    }
    await checkups.updateUpstream('api', [level('b')])
    expect(letterOf(handle.selectPeer())).toBe('b')
    await checkups.deleteUpstream('api')
    await checkups.updateUpstream('api', [level('c')])
    expect(letterOf(handle.acquirePeer()?.peer)).toBe('c')
  })

  it('is not made for an unknown key', () => {
    const { checkups } = harness(level('a'))
    for (const key of ['none', '__proto__', 'constructor']) {
      expect(() => checkups.upstream(key)).toThrow(UnknownUpstreamError)
      expect(() => checkups.selectPeer(key)).toThrow(UnknownUpstreamError)
      expect(() => checkups.acquirePeer(key)).toThrow(UnknownUpstreamError)
      expect(() => checkups.unavailableReason(key)).toThrow(UnknownUpstreamError)
      expect(() => checkups.getUpstreamTimeouts(key)).toThrow(UnknownUpstreamError)
      expect(checkups.getUpstream(key)).toBeUndefined()
    }
  })
})
