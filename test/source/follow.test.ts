import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import {
  Checkups,
  type CheckupsEvents,
  type CheckupsOptions,
  type Cluster,
  type Source,
  type SourceContext,
  type SourceLists,
  type SourceOptions,
} from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'

const servers = (...names: string[]): Cluster => [{ servers: names.map((name) => `10.0.0.${name}:80`) }]

/** A source whose answers are given by hand. */
class Hand implements Source {
  readonly name: string
  readonly options: SourceOptions
  asks: number[] = []
  context!: SourceContext
  apply!: (lists: SourceLists) => void
  #end: { resolve: () => void; reject: (error: unknown) => void } | undefined
  readonly #clock: VirtualClock

  constructor(clock: VirtualClock, options: SourceOptions = {}, name = 'hand') {
    this.#clock = clock
    this.name = name
    this.options = options
  }

  watch(apply: (lists: SourceLists) => void, context: SourceContext): Promise<void> {
    this.asks.push(this.#clock.now())
    this.apply = apply
    this.context = context
    return new Promise((resolve, reject) => {
      this.#end = { resolve, reject }
      context.signal.addEventListener('abort', () => reject(context.signal.reason as Error))
    })
  }

  give(upstreams: SourceLists['upstreams'], refused?: SourceLists['refused']): void {
    this.apply({ upstreams, refused })
  }

  async end(error?: unknown): Promise<void> {
    if (error === undefined) this.#end!.resolve()
    else this.#end!.reject(error)
    await this.#clock.advance(0)
  }
}

function world(options: SourceOptions = {}, more: Partial<CheckupsOptions> = {}) {
  const clock = new VirtualClock()
  const source = new Hand(clock, options)
  const checkups = new Checkups({ clock, random: () => 0, sources: [source], ...more })
  const events: (CheckupsEvents['source:error'] | CheckupsEvents['source:up'] | CheckupsEvents['upstream:update'])[] =
    []
  for (const name of ['source:error', 'source:up', 'upstream:update'] as const) checkups.on(name, (e) => events.push(e))
  const start = async () => {
    void checkups.start().catch(() => undefined)
    await clock.advance(0)
  }
  const addresses = (key = 'api') =>
    checkups
      .getStatus()
      .upstreams.find((upstream) => upstream.key === key)
      ?.levels.flatMap((level) => level.servers.map(({ address }) => address.slice('10.0.0.'.length, -':80'.length)))
      .join('')
  const status = () => checkups.getStatus().sources[0]!
  return { clock, source, checkups, events, start, addresses, status }
}

describe('what a source gives', () => {
  it('makes upstreams, and changes them', async () => {
    const { source, start, addresses, status, checkups } = world()
    await start()
    expect(status()).toMatchObject({ name: 'hand', state: 'waiting', asks: 1, upstreams: [] })
    source.give({ api: servers('1', '2'), web: { servers: ['10.0.0.9:80'], balancer: 'random' } })
    expect([addresses(), addresses('web')]).toEqual(['12', '9'])
    expect(checkups.getUpstream('web')).toMatchObject({ balancer: 'random' })
    source.give({ api: servers('2', '3'), web: { servers: ['10.0.0.9:80'], balancer: 'random' } })
    expect(addresses()).toBe('23')
    expect(status()).toMatchObject({ state: 'current', error: '', upstreams: ['api', 'web'] })
  })

  it('takes the place of the servers configured, and keeps their options', async () => {
    const upstreams = { api: { servers: ['10.0.0.1:80'], balancer: 'pick-first', maxFails: 7 } } as const
    const { source, start, addresses, checkups } = world({}, { upstreams })
    await start()
    expect(addresses()).toBe('1')
    source.give(new Map([['api', servers('2')]]))
    expect(addresses()).toBe('2')
    expect(checkups.getUpstream('api')).toMatchObject({ balancer: 'pick-first', maxFails: 7 })
  })

  it('keeps the state of peers that stay, and tells listeners whose change it was', async () => {
    const { source, start, checkups, events, clock } = world()
    await start()
    source.give({ api: servers('1', '2') })
    const peer = checkups.selectPeer('api')!
    checkups.feedbackStatus('api', peer, 'failed')
    await clock.advance(10)
    source.give({ api: servers('1', '2', '3') })
    expect(checkups.getStatus().upstreams[0]!.levels[0]!.servers.map(({ health }) => health)).toEqual([
      'err',
      'ok',
      'ok',
    ])
    expect(events.at(-1)).toMatchObject({ type: 'upstream:update', source: 'source', reason: 'hand' })
  })

  it('given again changes nothing, also what was changed by hand meanwhile', async () => {
    const { source, start, addresses, checkups } = world()
    await start()
    source.give({ api: servers('1', '2') })
    await checkups.updateUpstream('api', servers('5'))
    source.give({ api: servers('1', '2') })
    expect(addresses()).toBe('5')
    source.give({ api: servers('1') })
    expect(addresses()).toBe('1')
  })

  it('leaves other upstreams alone', async () => {
    const { source, start, checkups } = world({}, { upstreams: { other: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } } })
    await start()
    const before = checkups.selectPeer('other')!.address
    source.give({ api: servers('1') })
    expect(checkups.selectPeer('other')!.address).not.toBe(before)
  })

  it('of two sources with one upstream, the first that gives it has it', async () => {
    const clock = new VirtualClock()
    const [one, two] = [new Hand(clock, {}, 'one'), new Hand(clock, {}, 'two')]
    const checkups = new Checkups({ clock, sources: [one, two] })
    void checkups.start()
    await clock.advance(0)
    two.give({ api: servers('2') })
    one.give({ api: servers('1'), web: servers('1') })
    expect(checkups.selectPeer('api')!.host).toBe('10.0.0.2')
    expect(checkups.selectPeer('web')!.host).toBe('10.0.0.1')
    expect(checkups.getStatus().sources.map(({ state, refused }) => [state, refused])).toEqual([
      ['stale', [{ at: 'api', reason: 'the source two has it' }]],
      ['current', []],
    ])
  })

  it('is named once among the sources', () => {
    const clock = new VirtualClock()
    const sources = [new Hand(clock), new Hand(clock)]
    expect(() => new Checkups({ sources })).toThrow('options.sources[1].name: another source has this name')
  })
})

describe('what a source must not do', () => {
  it('one bad entry: the others are applied, the bad one is told', async () => {
    const { source, start, addresses, status, events } = world()
    await start()
    source.give({ api: [{ servers: ['10.0.0.1:80', { host: '10.0.0.2', port: 0 }, '10.0.0.1:80', '10.0.0.3:80'] }] })
    expect(addresses()).toBe('13')
    const refused = [
      { at: 'upstreams.api.cluster[0].servers[1].port', reason: 'expected an integer from 1 to 65535, got 0' },
      { at: 'upstreams.api.cluster[0].servers[2]', reason: '10.0.0.1:80 is there already' },
    ]
    expect(status()).toMatchObject({ state: 'current', refused })
    expect(events).toContainEqual(expect.objectContaining({ type: 'source:error', refused }))
    const told = events.length
    source.give({ api: [{ servers: ['10.0.0.1:80', { host: '10.0.0.2', port: 0 }, '10.0.0.1:80', '10.0.0.3:80'] }] })
    expect(status().refused).toEqual(refused)
    expect(events).toHaveLength(told)
  })

  it('a broken upstream keeps its last servers, the others are applied', async () => {
    const { source, start, addresses, status } = world()
    await start()
    source.give({ api: servers('1'), web: servers('1') })
    source.give({ api: { servers: ['10.0.0.2:80'], balancer: 'fastest' as never }, web: servers('2') })
    expect([addresses(), addresses('web')]).toEqual(['1', '2'])
    expect(status().state).toBe('stale')
    expect(status().error).toMatch(/^upstreams\.api\.balancer: expected one of/)
    source.give({ api: servers('3'), web: servers('2') })
    expect([addresses(), status().state, status().refused]).toEqual(['3', 'current', []])
  })

  it.each([
    ['no servers', { api: [{ servers: [] }] }],
    ['no levels', { api: [] }],
    ['only bad servers', { api: [{ servers: ['nowhere'] }] }],
    ['not there any more', { web: servers('1') }],
    ['nothing at all', {}],
  ])('empty (%s): the last list stays', async (_, lists) => {
    const { source, start, addresses, status } = world()
    await start()
    source.give({ api: servers('1', '2'), web: servers('1') })
    source.give(lists)
    expect(addresses()).toBe('12')
    expect(status().state).toBe('stale')
    expect(status().error).not.toBe('')
    source.give({ api: servers('1', '2'), web: servers('1') })
    expect(status()).toMatchObject({ state: 'current', error: '' })
  })

  it('with allowEmpty an empty list is a list', async () => {
    const { source, start, addresses, checkups, status } = world({ allowEmpty: true })
    await start()
    source.give({ api: servers('1'), web: servers('1') })
    source.give({ api: [{ servers: [] }] })
    expect([addresses(), addresses('web')]).toEqual(['', ''])
    expect(checkups.selectPeer('api')).toBeUndefined()
    expect(status()).toMatchObject({ state: 'current', upstreams: ['api'] })
  })

  it('with prune what is gone is deleted, but not everything at once', async () => {
    const { source, start, addresses, checkups } = world({ prune: true })
    await start()
    source.give({ api: servers('1'), web: servers('1') })
    source.give({ api: servers('1') })
    expect([addresses(), addresses('web')]).toEqual(['1', undefined])
    source.give({})
    expect(addresses()).toBe('1')
    expect(checkups.getUpstreams().size).toBe(1)
  })

  it('what could not be read this time is not gone', async () => {
    const { source, start, addresses, status } = world({ prune: true, allowEmpty: true })
    await start()
    source.give({ api: servers('1'), web: servers('1') })
    source.apply({ upstreams: { api: servers('2') }, unread: ['web'], refused: [{ at: 'web', reason: 'no answer' }] })
    expect([addresses(), addresses('web')]).toEqual(['2', '1'])
    expect(status()).toMatchObject({ state: 'current', upstreams: ['api', 'web'] })
    source.apply({ upstreams: {}, unread: ['api', 'web'] })
    expect([addresses(), addresses('web')]).toEqual(['2', '1'])
    source.give({ api: servers('2') })
    expect(addresses('web')).toBeUndefined()
  })

  it('names of objects are keys like others', async () => {
    const { source, start, checkups } = world()
    await start()
    source.give(
      new Map([
        ['__proto__', servers('1')],
        ['constructor', servers('2')],
      ]),
    )
    expect(checkups.selectPeer('__proto__')!.host).toBe('10.0.0.1')
    expect(checkups.selectPeer('constructor')!.host).toBe('10.0.0.2')
    expect(({} as Record<string, unknown>)['servers']).toBeUndefined()
  })

  it('a throwing listener ends nothing', async () => {
    const { source, start, addresses, checkups } = world()
    const fail = () => {
      throw new Error('listener')
    }
    checkups
      .on('upstream:update', fail)
      .on('source:up', fail)
      .on('source:error', fail)
      .on('error', () => undefined)
    await start()
    source.give({ api: servers('1') })
    await source.end(new Error('gone'))
    expect(addresses()).toBe('1')
  })
})

describe('the loop', () => {
  it('asks instant sources at a rate', async () => {
    const clock = new VirtualClock()
    let asks = 0
    const instant: Source = {
      name: 'instant',
      watch: async () => {
        asks++
      },
    }
    const checkups = new Checkups({ clock, sources: [instant] })
    void checkups.start()
    await clock.advance(10_000)
    // A burst of 20, then 5 a second.
    expect(asks).toBeGreaterThanOrEqual(69)
    expect(asks).toBeLessThanOrEqual(71)
  })

  it('waits longer after every failure: 100 ms, doubled up to 2 s once it was there, up to 30 s before', async () => {
    const run = async (known: boolean) => {
      const { source, start, clock } = world()
      await start()
      if (known) source.give({ api: servers('1') })
      for (let i = 0; i < 11; i++) {
        await source.end(new Error('refused'))
        await clock.advance(30_000)
      }
      return source.asks.slice(1).map((at, i) => at - i * 30_000)
    }
    const between = async (known: boolean, longest: readonly number[]) => {
      const waits = await run(known)
      expect(waits).toHaveLength(longest.length)
      waits.forEach((wait, i) => {
        expect(wait).toBeLessThanOrEqual(longest[i]!)
        expect(wait).toBeGreaterThanOrEqual(longest[i]! / 2)
      })
      // Chance is in it.
      expect(waits).not.toEqual(longest)
    }
    await between(true, [100, 200, 400, 800, 1_600, 2_000, 2_000, 2_000, 2_000, 2_000, 2_000])
    await between(false, [100, 200, 400, 800, 1_600, 3_200, 6_400, 12_800, 25_600, 30_000, 30_000])
  })

  it('waits at least a half of that, whatever chance says', async () => {
    await fc.assert(
      fc.asyncProperty(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), async (u) => {
        const { source, start, clock } = world({}, { random: () => u })
        await start()
        await source.end(new Error('refused'))
        await clock.advance(100)
        expect(source.asks[1]).toBeGreaterThan(49)
        expect(source.asks[1]).toBeLessThanOrEqual(100)
      }),
      { numRuns: 50, seed: 5 },
    )
  })

  it('says once what is wrong, keeps the lists, and says when it is back', async () => {
    const { source, start, clock, events, addresses, status } = world()
    await start()
    source.give({ api: servers('1') })
    await clock.advance(1_000)
    for (let i = 0; i < 3; i++) {
      await source.end(new Error('connection refused'))
      await clock.advance(2_000)
    }
    expect(status()).toMatchObject({ state: 'stale', error: 'connection refused' })
    expect(addresses()).toBe('1')
    source.give({ api: servers('1') })
    expect(status()).toMatchObject({ state: 'current', error: '' })
    const told = events.filter(({ type }) => type !== 'upstream:update').map(({ type }) => type)
    expect(told).toEqual(['source:up', 'source:error', 'source:up'])
    expect(events.at(-1)).toMatchObject({ source: 'hand', lasted: 6_000 })
  })

  it('a watch that ends without lists has confirmed the last ones', async () => {
    const { source, start, clock, status } = world()
    await start()
    source.give({ api: servers('1') })
    await source.end(new Error('connection reset'))
    await clock.advance(200)
    expect(status().state).toBe('stale')
    await source.end()
    expect(status().state).toBe('current')
  })

  it('survives a source that throws at once', async () => {
    const clock = new VirtualClock()
    let calls = 0
    const bad = {
      name: 'bad',
      watch: () => {
        calls++
        throw new Error('at once')
      },
    } as unknown as Source
    const checkups = new Checkups({ clock, sources: [bad] })
    await checkups.start()
    await clock.advance(1_000)
    expect(calls).toBeGreaterThan(2)
    expect(checkups.getStatus().sources[0]).toMatchObject({ state: 'waiting', error: 'at once' })
  })

  it('with debounce many changes become one, when it is quiet', async () => {
    const { source, start, clock, addresses, events } = world({ debounce: 100 })
    await start()
    for (let i = 1; i <= 5; i++) {
      source.give({ api: servers(...Array.from('12345').slice(0, i)) })
      await clock.advance(60)
      expect(addresses()).toBeUndefined()
    }
    await clock.advance(40)
    expect(addresses()).toBe('12345')
    expect(events.filter(({ type }) => type === 'upstream:update')).toHaveLength(1)
  })

  it('close ends it at once, amid a watch, a wait and a debounce', async () => {
    for (const amid of ['watch', 'wait', 'debounce'] as const) {
      const { source, start, clock, checkups, addresses } = world({ debounce: 50 })
      await start()
      if (amid === 'wait') await source.end(new Error('refused'))
      if (amid === 'debounce') source.give({ api: servers('1') })
      await checkups.close()
      expect(source.context.signal.aborted).toBe(true)
      expect(clock.pending).toBe(0)
      source.give({ api: servers('2') })
      await clock.advance(60_000)
      expect(addresses()).toBeUndefined()
      expect(source.asks).toHaveLength(1)
    }
  })
})

describe('start', () => {
  const settled = async (promise: Promise<unknown>, clock: VirtualClock): Promise<string> => {
    let state = 'pending'
    promise.then(
      () => (state = 'resolved'),
      (error: unknown) => (state = (error as Error).message),
    )
    await clock.advance(0)
    return state
  }

  it('waits for the first lists', async () => {
    const { checkups, clock, source } = world()
    const started = checkups.start()
    expect(await settled(started, clock)).toBe('pending')
    source.give({ api: servers('1') })
    expect(await settled(started, clock)).toBe('resolved')
  })

  it('does not wait for one that cannot be reached, unless it is required', async () => {
    for (const required of [false, true]) {
      const { checkups, clock, source } = world({ required, timeout: 1_000 })
      const started = checkups.start()
      await clock.advance(0)
      await source.end(new Error('connection refused'))
      expect(await settled(started, clock)).toBe(required ? 'pending' : 'resolved')
      await clock.advance(1_000)
      const message = 'the source hand, which is required, has given nothing in 1000 ms: connection refused'
      expect(await settled(started, clock)).toBe(required ? message : 'resolved')
    }
  })

  it('waits no longer than its time for one that hangs', async () => {
    const { checkups, clock } = world()
    const started = checkups.start()
    await clock.advance(4_999)
    expect(await settled(started, clock)).toBe('pending')
    await clock.advance(1)
    expect(await settled(started, clock)).toBe('resolved')
  })

  it('a required source may come in time', async () => {
    const { checkups, clock, source } = world({ required: true })
    const started = checkups.start()
    await clock.advance(0)
    await source.end(new Error('connection refused'))
    await clock.advance(200)
    source.give({ api: servers('1') })
    expect(await settled(started, clock)).toBe('resolved')
  })
})

describe('the snapshot', () => {
  const folder = () => {
    const path = mkdtempSync(join(tmpdir(), 'checkups-snapshot-'))
    onTestFinished(() => rmSync(path, { recursive: true }))
    return path
  }

  it('is what a process begins with when its source is down', async () => {
    // A folder that is not there is made.
    const snapshot = join(folder(), 'var/lib/lists.json')
    const first = world({ snapshot })
    const started = first.checkups.start()
    await expect.poll(() => first.source.asks.length).toBe(1)
    first.source.give({ api: servers('1', '2') })
    await started
    await first.checkups.close()
    expect(JSON.parse(readFileSync(snapshot, 'utf8'))).toMatchObject({ version: 1, source: 'hand' })

    const second = world({ snapshot, required: true })
    await second.checkups.start()
    expect(second.addresses()).toBe('12')
    expect(second.status()).toMatchObject({ fromSnapshot: true, state: 'waiting', upstreams: ['api'] })
    await expect.poll(() => second.source.asks.length).toBe(1)
    await second.source.end(new Error('connection refused'))
    expect(second.addresses()).toBe('12')
    expect(second.status().state).toBe('stale')
    second.source.give({ api: servers('1', '2', '3') })
    expect(second.addresses()).toBe('123')
    expect(second.status()).toMatchObject({ fromSnapshot: false, state: 'current' })
    await second.checkups.close()
  })
})

describe('what a source says is not to be', () => {
  it('is deleted, though the program has it, and is nobody’s after that', async () => {
    const upstreams = { api: { servers: ['10.0.0.1:80'] }, other: { servers: ['10.0.0.2:80'] } }
    const { source, start, checkups, status } = world({}, { upstreams })
    await start()
    source.apply({ upstreams: {}, deleted: ['api', 'nobody'] })
    expect([...checkups.getUpstreams().keys()]).toEqual(['other'])
    expect(status()).toMatchObject({ state: 'current', refused: [] })
    await checkups.updateUpstream('api', [{ servers: ['10.0.0.3:80'] }])
    source.apply({ upstreams: {}, deleted: [] })
    expect(checkups.getUpstreams().size).toBe(2)
  })

  it('stays while a source has it', async () => {
    const { source, start, checkups, status } = world()
    await start()
    source.apply({ upstreams: { api: servers('1') }, deleted: ['api'] })
    expect(checkups.getUpstreams().size).toBe(1)
    expect(status().refused).toEqual([{ at: 'api', reason: 'it is not deleted: the source hand has it' }])
  })
})
