/** Where this library differs from lua-resty-checkups by choice: the README says why. Here is what it does. */
import { describe, expect, it } from 'vitest'
import { Checkups, ConfigError, type BalancerOption, type Outcome, type UpstreamOptions } from '../../src/index.js'
import { codeOf, fail, levels, NO_PEER, recordedServer, servers, status502 } from './support.js'
import { weighted, World } from './support.js'

const of = (count: number, options: UpstreamOptions = {}) =>
  new World({ up: { ...weighted(Array.from({ length: count }, () => 1)), ...options } })
const peer = (index: number) => ({ host: '127.0.0.1', port: 23_001 + index })
const tell = ({ checkups }: World, index: number, outcome: Outcome) =>
  checkups.feedbackStatus('up', peer(index), outcome)
const once = { maxFails: 1, failTimeout: 2000 }
const twice = { maxFails: 2, failTimeout: 10_000 }

describe('configuration', () => {
  it('the policy may be named wrr, which crashes the ancestor; an unknown one is refused', async () => {
    expect(of(3, { balancer: 'wrr' }).select('up', 3)).toBe('012')
    const update = of(1).checkups.updateUpstream('up', { ...weighted([1]), balancer: 'rr' as BalancerOption })
    await expect(update).rejects.toThrow(
      'upstreams.up.balancer: expected one of "wrr", "consistent-hash", "fastest-first", "local-first", "least-connections", "random", "pick-first", or a function that makes a balancer, got "rr"',
    )
  })

  it('an option that is not known is refused, as `try` inside a level, which the ancestor ignores', () => {
    const level = { servers: [recordedServer(0)], try: 2 }
    expect(() => of(0, { servers: undefined, cluster: [level] })).toThrow(ConfigError)
  })

  it('an address stands once in a level, and its entries in several levels agree', () => {
    const one = (options: object) => ({ servers: [{ ...recordedServer(0), ...options }] })
    expect(() => new World({ up: { servers: ['a:1', 'a:1'] } })).toThrow(
      'upstreams.up.servers[1]: the same address as upstreams.up.servers[0]',
    )
    expect(() => new World({ up: { cluster: [one({ maxFails: 2 }), one({ maxFails: 3 })] } })).toThrow(
      'upstreams.up.cluster[1].servers[0].maxFails: 3, but upstreams.up.cluster[0].servers[0].maxFails, the same address, has 2',
    )
  })

  it('one address in two levels has one health, and feedback is for both', async () => {
    const cluster = levels('54 55', '54 56')
    const world = new World({ up: { cluster, ...once } })
    world.checkups.feedbackStatus('up', { host: '127.0.0.1', port: 12_354 }, 'failed')
    expect(await world.calls('up', 1, fail)).toEqual(['55,56'])
  })

  it('an instance begins anywhere in its cycle; with random 0, where the ancestor does', () => {
    const first = (random: number) =>
      new Checkups({ upstreams: { up: weighted([1, 1, 1]) }, random: () => random }).selectPeer('up')?.port
    expect([first(0), first(0.5), first(0.99)]).toEqual([23_001, 23_002, 23_003])
  })

  it('adapters are told 5 s to connect and 60 s to send and read, the ancestor has 5 s for all', () => {
    const { checkups } = of(1)
    expect(checkups.getUpstreamTimeouts('up')).toEqual({ connect: 5000, send: 60_000, read: 60_000 })
  })
})

describe('what counts as a failure', () => {
  const plain = () => new World({ up: { servers: [recordedServer(0), recordedServer(1)] } })

  it('with nothing set one failure takes a server out, in the ancestor none does', async () => {
    expect(await plain().failed('up', 6)).toBe('011111')
  })

  it('a callback that returns nothing has succeeded, in the ancestor it has failed', async () => {
    expect(await of(2).call('up', () => undefined)).toEqual({ tried: '0', result: undefined })
    expect(await of(2).call('up', () => null)).toEqual({ tried: '0', result: null })
  })

  it('a status of 5xx has failed with nothing set, in the ancestor only those in `statuses`', async () => {
    expect(await of(2).call('up', status502)).toMatchObject({ tried: '01', errors: ['status 502', 'status 502'] })
    expect(await of(2).call('up', () => ({ status: 499 }))).toEqual({ tried: '0', result: { status: 499 } })
    const statuses = { '5xx': true, 503: false }
    expect(await of(2, { statuses }).call('up', status502)).toEqual({ tried: '0', result: { status: 502 } })
  })

  it('a callback that throws has failed and the next peer is tried, in the ancestor the error goes up unmarked', async () => {
    const world = of(2, once)
    expect(await world.call('up', (name) => name === '1' || fail())).toEqual({
      tried: '01',
      result: true,
    })
    expect(world.select('up', 3)).toBe('111')
  })

  it('an AbortError ends the call and is nobody’s failure', async () => {
    const world = of(2, once)
    const aborted = () => {
      throw new DOMException('gone', 'AbortError')
    }
    expect(await world.call('up', aborted)).toEqual({ tried: '0', code: 'ERR_CHECKUPS_ABORTED', errors: ['gone'] })
    expect(world.select('up', 4)).toBe('1010')
  })
})

describe('bans', () => {
  it('a success clears the count: failed, ok, ok, failed with maxFails 2 takes nobody out', () => {
    const world = of(2, twice)
    for (const failed of [true, false, false, true]) tell(world, 0, failed)
    expect(world.select('up', 4)).toBe('0101')
    tell(world, 0, true)
    expect(world.select('up', 4)).toBe('1111')
  })

  it('failures count for failTimeout each, not in windows that the first report opens', async () => {
    const world = of(2, twice)
    tell(world, 0, false)
    await world.clock.advance(9000)
    tell(world, 0, true)
    await world.clock.advance(2000)
    // In the ancestor the success at 0 opens a window that ends at 10 s, so that this is a first failure again.
    tell(world, 0, true)
    expect(world.select('up', 4)).toBe('1111')
  })

  it('selectPeer tells no success: it leaves the count alone', () => {
    const world = of(2, twice)
    tell(world, 0, true)
    expect(world.select('up', 2)).toBe('01')
    tell(world, 0, true)
    expect(world.select('up', 2)).toBe('11')
  })

  it('a server back from a ban has one attempt at a time until it succeeds', async () => {
    const world = of(2, { ...twice, readmit: 'trial' })
    tell(world, 0, true)
    tell(world, 0, true)
    await world.clock.advance(10_000)
    const held = world.checkups.acquirePeer('up')!
    expect([held.peer.port, world.select('up', 4)]).toEqual([23_001, '1111'])
    held.done('ok')
    expect(world.select('up', 4)).toBe('1010')
  })

  it('the trial limits nobody when nobody else is left', async () => {
    const world = of(2, { ...once, readmit: 'trial' })
    tell(world, 0, 'failed')
    await world.clock.advance(2000)
    await world.checkups.setServer('up', peer(1), { down: true })
    expect(world.select('up', 4)).toBe('0000')
  })

  it('a trial begun by selectPeer ends well when no failure is told within failTimeout', async () => {
    const world = of(2, { ...once, readmit: 'trial' })
    tell(world, 0, 'failed')
    await world.clock.advance(2000)
    expect(world.select('up', 4)).toBe('0111')
    await world.clock.advance(1999)
    expect(world.select('up', 4)).toBe('1111')
    await world.clock.advance(1)
    expect(world.select('up', 4)).toBe('1010')
  })
})

describe('the last one', () => {
  it('a server that is back and has succeeded is enough for another to be taken out', async () => {
    const world = of(2, { ...once, readmit: 'trial' })
    tell(world, 0, 'failed')
    await world.clock.advance(2000)
    tell(world, 0, 'ok')
    tell(world, 1, 'failed')
    // In the ancestor the ban of 0 still counts when it is over: 1 stays in.
    expect(world.select('up', 4)).toBe('0000')
  })

  it.each(['trial', 'fresh'] as const)(
    'one that is back and has not succeeded yet is not (readmit %s)',
    async (readmit) => {
      const world = of(2, { ...once, readmit })
      tell(world, 0, 'failed')
      await world.clock.advance(2000)
      tell(world, 1, 'failed')
      expect(world.checkups.getStatus().upstreams[0]!.levels[0]!.servers.map(({ available }) => available)).toEqual([
        true,
        true,
      ])
    },
  )

  it('one that is down is no reason to take out the last that is not', async () => {
    const world = new World({ up: { ...once, cluster: levels('54x 55') } })
    // In the ancestor 54, out by its heartbeats, counts as one more: 55 goes too, and nobody is left.
    expect(await world.failed('up', 3)).toBe('55,55,55')
  })

  it('the ban that would end soonest ends when all but banned ones are taken down; down by hand stays', async () => {
    const world = of(3, once)
    const down = (index: number) => world.checkups.setServer('up', peer(index), { down: true })
    tell(world, 1, 'failed')
    await world.clock.advance(500)
    tell(world, 0, 'failed')
    expect(world.select('up', 2)).toBe('22')
    await down(2)
    expect(world.select('up', 2)).toBe('11')
    await down(1)
    expect(world.select('up', 2)).toBe('00')
    await down(0)
    expect(world.checkups.selectPeer('up')).toBeUndefined()
  })

  it('protected: false lets all be taken out, in the ancestor it is about heartbeats alone', async () => {
    const world = of(2, { ...once, protected: false })
    expect((await world.call('up', fail)).tried).toBe('01')
    expect(await world.call('up', fail)).toEqual({ tried: '', code: NO_PEER, errors: [] })
    expect(world.checkups.selectPeer('up')).toBeUndefined()
    expect(world.checkups.unavailableReason('up')).toBe('down')
  })
})

describe('picking and telling', () => {
  it('selectPeer takes options', () => {
    const cluster = { c1: { servers: servers('54 55') }, c2: { servers: servers('56') } }
    const { checkups } = new World({ up: { cluster } })
    expect(checkups.selectPeer('up', { clusterKey: 'c2' })?.port).toBe(12_356)
    expect(checkups.selectPeer('up', { exclude: [{ host: '127.0.0.1', port: 12_354 }] })?.port).toBe(12_355)
  })

  it('a port may be told as a string, which the ancestor does not know', () => {
    const { checkups } = of(1)
    expect(checkups.feedbackStatus('up', { host: '127.0.0.1', port: '23001' }, 'failed')).toBe(true)
  })

  it('feedback of a server that has left is false, of one that never was an error', async () => {
    const world = of(2)
    await world.checkups.removeServer('up', peer(1))
    expect(tell(world, 1, 'failed')).toBe(false)
    expect(await codeOf((async () => tell(world, 2, 'failed'))())).toBe('ERR_CHECKUPS_UNKNOWN_PEER')
  })
})

describe('updates', () => {
  it('an update of one upstream leaves the others alone', async () => {
    const world = new World({ a: weighted([5, 1, 1]), b: weighted([1, 1]) })
    expect(world.select('a', 2)).toBe('00')
    await world.checkups.updateUpstream('b', [{ servers: [recordedServer(2)] }])
    // In the ancestor the sequence of a begins anew: 00102.
    expect(world.select('a', 5)).toBe('10200')
  })

  it('an empty list is refused unless allowEmpty, and nothing has changed then; one empty level is not', async () => {
    const world = of(1)
    const { checkups } = world
    expect(await codeOf(checkups.updateUpstream('up', []))).toBe('ERR_CHECKUPS_CONFIG')
    expect(await codeOf(checkups.updateUpstream('up', [{ servers: [] }]))).toBe('ERR_CHECKUPS_CONFIG')
    expect(world.select('up', 1)).toBe('0')
    // The ancestor refuses every empty level in an update.
    await checkups.updateUpstream('up', [{ servers: [] }, { servers: [recordedServer(1)] }])
    expect(world.select('up', 1)).toBe('1')
    await checkups.updateUpstream('up', { servers: [], allowEmpty: true })
    expect(checkups.selectPeer('up')).toBeUndefined()
  })

  it('what is known of a server that left is forgotten when its ban is over', async () => {
    const world = of(3, { ...once, readmit: 'trial' })
    tell(world, 0, 'failed')
    const without = [{ servers: [recordedServer(1), recordedServer(2)] }]
    const with0 = [{ servers: [recordedServer(0), recordedServer(1), recordedServer(2)] }]
    const words = () => world.checkups.getStatus().upstreams[0]!.levels[0]!.servers.map(({ health }) => health)
    await world.checkups.updateUpstream('up', without)
    await world.checkups.updateUpstream('up', with0)
    expect(words()).toEqual(['err', 'ok', 'ok'])
    await world.checkups.updateUpstream('up', without)
    await world.clock.advance(2000)
    await world.checkups.updateUpstream('up', with0)
    expect(words()).toEqual(['ok', 'ok', 'ok'])
  })

  it('a deleted upstream made again knows nothing of before', async () => {
    const world = of(2, once)
    tell(world, 0, 'failed')
    await world.checkups.deleteUpstream('up')
    await world.checkups.updateUpstream('up', weighted([1, 1]))
    expect(world.select('up', 2)).toBe('01')
  })
})
