import { describe, expect, it } from 'vitest'
import { Checkups, isCheckupsError, UnknownPeerError, UnknownUpstreamError } from '../../src/index.js'
import type { Outcome, UpstreamOptions } from '../../src/index.js'
import { address, harness, letterOf, level, target } from './harness.js'

const FAIL_TIMEOUT = 1000
const abc: UpstreamOptions = { ...level('abc'), maxFails: 1, failTimeout: FAIL_TIMEOUT }
const count = (letters: string, letter: string) => letters.split(letter).length - 1

describe('a ban', () => {
  it('comes with the last of maxFails failures', () => {
    const { picks, feedback, server, told } = harness({ ...abc, maxFails: 3 })
    expect(picks(3)).toBe('abc')
    feedback('a')
    feedback('a')
    expect(server('a')).toMatchObject({ health: 'ok', available: true, passive: { state: 'up', failures: 2, bans: 0 } })
    expect(told()).toEqual([])
    feedback('a')
    expect(server('a')).toMatchObject({
      health: 'err',
      available: false,
      passive: { state: 'banned', bans: 1, remaining: FAIL_TIMEOUT },
    })
    expect(told()).toEqual(['peer:down a'])
    expect(picks(4)).toBe('bcbc')
  })

  it('lasts exactly failTimeout from the failure that trips it', async () => {
    const { clock, feedback, server } = harness({ ...abc, maxFails: 2 })
    feedback('a')
    await clock.advance(600)
    feedback('a')
    await clock.advance(FAIL_TIMEOUT - 1)
    expect(server('a')).toMatchObject({ available: false, passive: { state: 'banned', remaining: 1 } })
    await clock.advance(1)
    expect(server('a')).toMatchObject({ available: true, passive: { state: 'trial', remaining: 0 } })
  })

  it('is not made longer by failures of requests that were under way', async () => {
    const { clock, feedback, server } = harness(abc)
    feedback('a')
    await clock.advance(900)
    feedback('a')
    await clock.advance(100)
    expect(server('a').passive).toMatchObject({ state: 'trial', bans: 1 })
  })

  it.each([
    { apart: FAIL_TIMEOUT - 1, health: 'err' },
    { apart: FAIL_TIMEOUT, health: 'ok' },
  ])('counts failures $apart ms apart: $health', async ({ apart, health }) => {
    const { clock, feedback, server } = harness({ ...abc, maxFails: 2 })
    feedback('a')
    await clock.advance(apart)
    feedback('a')
    expect(server('a').health).toBe(health)
  })

  it('slides its window: of three failures the last two count', async () => {
    const { clock, feedback, server } = harness({ ...abc, maxFails: 2 })
    for (let i = 0; i < 3; i++) {
      expect(server('a').health).toBe('ok')
      feedback('a')
      await clock.advance(i === 0 ? FAIL_TIMEOUT : 500)
    }
    expect(server('a').health).toBe('err')
  })

  it('does not come where a success has cleared the count', () => {
    const { feedback, server } = harness({ ...abc, maxFails: 2 })
    feedback('a')
    feedback('a', 'ok')
    feedback('a')
    expect(server('a')).toMatchObject({ health: 'ok', passive: { failures: 1 } })
  })

  it('does not come with maxFails 0', () => {
    const { feedback, server, told } = harness({ ...abc, maxFails: 0 })
    for (let i = 0; i < 20; i++) feedback('a')
    expect(server('a')).toMatchObject({ health: 'ok', available: true, passive: { failures: 0, bans: 0 } })
    expect(told()).toEqual([])
  })

  it('may last longer than a timer of Node can', async () => {
    const failTimeout = 2 ** 31 + 5
    const { clock, feedback, server } = harness({ ...abc, failTimeout })
    feedback('a')
    await clock.advance(failTimeout - 1)
    expect(server('a').health).toBe('err')
    await clock.advance(1)
    expect(server('a').passive.state).toBe('trial')
  })

  it.each<{ outcome: Outcome; failures: number }>([
    { outcome: true, failures: 1 },
    { outcome: false, failures: 0 },
    { outcome: 'failed', failures: 1 },
    { outcome: 'neutral', failures: 0 },
    { outcome: { status: 500 }, failures: 1 },
    { outcome: { status: 404 }, failures: 0 },
    { outcome: new Error('refused'), failures: 1 },
    { outcome: new DOMException('gone', 'AbortError'), failures: 0 },
  ])('counts $outcome as $failures, told or done', ({ outcome, failures }) => {
    const { checkups, feedback, server } = harness({ ...abc, maxFails: 5 })
    feedback('b', outcome)
    expect(server('b').passive.failures).toBe(failures)
    const pick = checkups.acquirePeer('api')!
    pick.done(outcome)
    pick.done('failed')
    expect(server(letterOf(pick.peer)).passive.failures).toBe(failures)
  })

  it('is of the address, in every level that names it', () => {
    const { checkups, feedback, told } = harness({
      cluster: { x: level('ab'), y: level('ac') },
      failTimeout: FAIL_TIMEOUT,
    })
    feedback('a')
    expect(letterOf(checkups.selectPeer('api', { clusterKey: 'x' }))).toBe('b')
    expect(letterOf(checkups.selectPeer('api', { clusterKey: 'y' }))).toBe('c')
    expect(told()).toEqual(['peer:down a'])
  })
})

describe('the trial after a ban', () => {
  /** a on trial, its slot free. */
  const onTrial = async (options: Partial<UpstreamOptions> = {}) => {
    const made = harness({ ...abc, ...options })
    made.feedback('a')
    await made.clock.advance(FAIL_TIMEOUT)
    made.events.length = 0
    expect(made.server('a').passive.state).toBe('trial')
    return made
  }
  /** Picks until it is a's turn. */
  const acquireA = ({ checkups }: Awaited<ReturnType<typeof onTrial>>) => {
    for (let i = 0; i < 10; i++) {
      const pick = checkups.acquirePeer('api')!
      if (letterOf(pick.peer) === 'a') return pick
      pick.done('ok')
    }
    throw new Error('a was not picked')
  }

  it('lets one request of selectPeer try it', async () => {
    const { picks } = await onTrial()
    expect(count(picks(30), 'a')).toBe(1)
  })

  it('lets one request of acquirePeer try it', async () => {
    const made = await onTrial()
    acquireA(made)
    expect(count(made.picks(30), 'a')).toBe(0)
  })

  it('ends with a success: fully back', async () => {
    const made = await onTrial()
    const pick = acquireA(made)
    expect(made.server('a').health).toBe('unstable')
    pick.done('ok')
    expect(made.server('a')).toMatchObject({ health: 'ok', passive: { state: 'up', failures: 0, bans: 1 } })
    expect(count(made.picks(30), 'a')).toBe(10)
    expect(made.clock.pending).toBe(0)
  })

  it('ends with one failure: banned again for a full time, whatever maxFails says', async () => {
    const made = harness({ ...abc, maxFails: 3 })
    for (let i = 0; i < 3; i++) made.feedback('a')
    await made.clock.advance(FAIL_TIMEOUT)
    const pick = acquireA(made)
    await made.clock.advance(300)
    pick.done('failed')
    expect(made.server('a').passive).toMatchObject({ state: 'banned', bans: 2, remaining: FAIL_TIMEOUT })
    await made.clock.advance(FAIL_TIMEOUT)
    expect(made.server('a').passive.state).toBe('trial')
  })

  it('ends with what feedbackStatus says of a request that selectPeer gave', async () => {
    const made = await onTrial()
    expect(made.picks(3)).toContain('a')
    made.feedback('a')
    expect(made.server('a').passive).toMatchObject({ state: 'banned', bans: 2 })
    await made.clock.advance(FAIL_TIMEOUT)
    expect(made.picks(3)).toContain('a')
    made.feedback('a', 'ok')
    expect(made.server('a').health).toBe('ok')
  })

  it('frees the slot of an attempt that ended without a result', async () => {
    const made = await onTrial()
    acquireA(made).done('neutral')
    expect(made.server('a').passive.state).toBe('trial')
    const again = acquireA(made)
    again[Symbol.dispose]()
    expect(made.picks(3)).toContain('a')
    made.feedback('a', 'neutral')
    expect(made.picks(3)).toContain('a')
  })

  it('is over when a request of selectPeer lapses without a failure reported: fully back', async () => {
    const { clock, picks, server, feedback } = await onTrial()
    expect(count(picks(3), 'a')).toBe(1)
    await clock.advance(FAIL_TIMEOUT - 1)
    expect(server('a').health).toBe('unstable')
    expect(count(picks(30), 'a')).toBe(0)
    await clock.advance(1)
    expect(server('a')).toMatchObject({ health: 'ok', passive: { state: 'up' } })
    expect(count(picks(30), 'a')).toBe(10)
    // Fully: it is a reason to ban others.
    feedback('b')
    feedback('c')
    expect(server('c').health).toBe('err')
  })

  it('goes on when a request of acquirePeer lapses: its slot is free, no more', async () => {
    const made = await onTrial()
    acquireA(made)
    await made.clock.advance(FAIL_TIMEOUT - 1)
    expect(count(made.picks(30), 'a')).toBe(0)
    await made.clock.advance(1)
    expect(made.server('a')).toMatchObject({ health: 'unstable', passive: { state: 'trial' } })
    acquireA(made)
    expect(count(made.picks(30), 'a')).toBe(0)
  })

  it('limits only while another peer is available', async () => {
    const made = await onTrial()
    acquireA(made)
    await made.checkups.setServer('api', target('b'), { down: true })
    expect(made.picks(3)).toBe('ccc')
    await made.checkups.setServer('api', target('c'), { down: true })
    expect(made.picks(3)).toBe('aaa')
    expect(letterOf(made.checkups.acquirePeer('api')?.peer)).toBe('a')
    await made.checkups.setServer('api', target('b'), { down: false })
    expect(made.picks(3)).toBe('bbb')
  })

  it('limits while another is available for this request: one that is excluded or full is not', async () => {
    const made = await onTrial()
    acquireA(made)
    const { checkups } = made
    expect(letterOf(checkups.selectPeer('api', { exclude: [target('b')] }))).toBe('c')
    expect(letterOf(checkups.selectPeer('api', { exclude: [target('b'), target('c')] }))).toBe('a')
    expect(checkups.selectPeer('api', { exclude: ['a', 'b', 'c'].map(target) })).toBeUndefined()
    await checkups.setServer('api', target('b'), { maxConns: 1 })
    await checkups.setServer('api', target('c'), { maxConns: 1 })
    const held = [checkups.acquirePeer('api')!, checkups.acquirePeer('api')!]
    expect(held.map(({ peer }) => letterOf(peer)).sort()).toEqual(['b', 'c'])
    expect(made.picks(2)).toBe('aa')
    held[0]!.done('ok')
    expect(made.picks(2)).toBe(letterOf(held[0]!.peer).repeat(2))
  })

  it('prefers the next level to a second attempt', async () => {
    const { clock, feedback, picks } = harness({ cluster: [level('a'), level('b')], failTimeout: FAIL_TIMEOUT })
    feedback('a')
    await clock.advance(FAIL_TIMEOUT)
    expect(picks(4)).toBe('abbb')
  })

  it('is not ended by a request from before the ban', async () => {
    const { clock, checkups, picks, server } = harness({
      ...abc,
      cluster: [level('a'), level('b')],
      servers: undefined,
    })
    const old = [checkups.acquirePeer('api')!, checkups.acquirePeer('api')!, checkups.acquirePeer('api')!]
    expect(old.map(({ peer }) => letterOf(peer))).toEqual(['a', 'a', 'a'])
    checkups.acquirePeer('api')!.done('failed')
    await clock.advance(FAIL_TIMEOUT)
    expect(picks(2)).toBe('ab')
    old[0]!.done('ok')
    old[1]!.done('failed')
    old[2]!.done('neutral')
    expect(server('a').passive).toMatchObject({ state: 'trial', bans: 1 })
    expect(picks(2)).toBe('bb')
  })

  it('is not ended by a request from before the ban after the peer is back, either', async () => {
    const { clock, checkups, server } = harness({ ...abc, readmit: 'fresh' })
    const old = checkups.acquirePeer('api')!
    checkups.feedbackStatus('api', old.peer, 'failed')
    await clock.advance(FAIL_TIMEOUT)
    expect(server('a').health).toBe('unstable')
    old.done('failed')
    expect(server('a')).toMatchObject({ health: 'unstable', passive: { failures: 0, bans: 1 } })
  })

  it('keeps its slot over an update', async () => {
    const made = await onTrial()
    const pick = acquireA(made)
    await made.checkups.addServer('api', target('d'))
    expect(count(made.picks(30), 'a')).toBe(0)
    await made.clock.advance(FAIL_TIMEOUT)
    expect(count(made.picks(30), 'a')).toBe(1)
    pick.done('ok')
    expect(made.server('a').health).toBe('ok')
  })

  it('is what one attempt of readyOk does', async () => {
    const made = await onTrial()
    const tried: string[] = []
    await made.checkups.readyOk('api', async (peer) => {
      tried.push(letterOf(peer))
      if (peer.port !== 1) throw new Error('no')
    })
    expect(tried.at(-1)).toBe('a')
    expect(made.server('a').health).toBe('ok')
  })

  it('leaves no timer while its slot is free', async () => {
    const { clock } = await onTrial()
    expect(clock.pending).toBe(0)
  })
})

describe('readmit: fresh', () => {
  it('brings the peer back at once, for everybody, with its full count', async () => {
    const { clock, feedback, picks, server, told } = harness({ ...abc, maxFails: 2, readmit: 'fresh' })
    feedback('a')
    feedback('a')
    await clock.advance(FAIL_TIMEOUT)
    expect(told()).toEqual(['peer:down a', 'peer:up a'])
    expect(count(picks(30), 'a')).toBe(10)
    feedback('a')
    expect(server('a')).toMatchObject({ available: true, passive: { state: 'up', failures: 1 } })
    feedback('a')
    expect(server('a').health).toBe('err')
  })

  it('says unstable until a success', async () => {
    const { clock, feedback, server } = harness({ ...abc, readmit: 'fresh' })
    feedback('a')
    await clock.advance(FAIL_TIMEOUT)
    expect(server('a').health).toBe('unstable')
    feedback('a', 'ok')
    expect(server('a').health).toBe('ok')
  })
})

describe('the last one left', () => {
  it.each([{ protected: true }, { protected: false }])('a lone server is never banned ($protected)', (options) => {
    const { feedback, picks, server, told } = harness({ ...level('a'), ...options })
    for (let i = 0; i < 10; i++) feedback('a')
    expect(server('a')).toMatchObject({ health: 'unstable', available: true, passive: { bans: 0 } })
    expect(picks(2)).toBe('aa')
    expect(told()).toEqual([])
    feedback('a', 'ok')
    expect(server('a').health).toBe('ok')
  })

  it('is kept, unstable', () => {
    const { feedback, picks, server, told } = harness(abc)
    feedback('a')
    feedback('b')
    feedback('c')
    expect(told()).toEqual(['peer:down a', 'peer:down b'])
    expect(server('c').health).toBe('unstable')
    expect(picks(2)).toBe('cc')
  })

  it('is banned with protected: false', async () => {
    const { checkups, clock, feedback, picks } = harness({ ...abc, protected: false })
    for (const letter of 'abc') feedback(letter)
    expect(picks(1)).toBe('-')
    expect(checkups.unavailableReason('api')).toBe('down')
    await clock.advance(FAIL_TIMEOUT)
    expect(Array.from(picks(3)).sort()).toEqual(['a', 'b', 'c'])
  })

  it.each<{ name: string; upstream: UpstreamOptions }>([
    { name: 'over levels', upstream: { cluster: [level('a'), level('b')] } },
    { name: 'over backups', upstream: level('a', { b: { backup: true } }) },
    { name: 'over named clusters', upstream: { cluster: { x: level('a'), y: level('b') } } },
    { name: 'without those of weight 0', upstream: level('ab', { c: { weight: 0 } }) },
    { name: 'without those that are down', upstream: level('ab', { c: { down: true } }) },
    { name: 'without those that drain', upstream: level('ab', { c: { drain: true } }) },
  ])('is counted over the whole upstream, $name', ({ upstream }) => {
    const { feedback, server } = harness(upstream)
    feedback('b')
    feedback('a')
    expect(server('b').health).toBe('err')
    expect(server('a')).toMatchObject({ health: 'unstable', available: true })
  })

  it.each([{ readmit: 'trial' as const }, { readmit: 'fresh' as const }])(
    'is not excused by one that came back without a success ($readmit)',
    async ({ readmit }) => {
      const { clock, feedback, server } = harness({ ...level('ab'), failTimeout: FAIL_TIMEOUT, readmit })
      feedback('a')
      await clock.advance(FAIL_TIMEOUT)
      feedback('b')
      expect(server('b').health).toBe('unstable')
      feedback('a', 'ok')
      feedback('b')
      expect(server('b').health).toBe('err')
    },
  )

  it('is excused by one that is full', () => {
    const { checkups, feedback, server } = harness({ ...level('ab'), maxConns: 1 })
    expect(letterOf(checkups.acquirePeer('api')!.peer)).toBe('a')
    feedback('b')
    expect(server('b').health).toBe('err')
  })

  it('is not banned by failing on trial', async () => {
    const { clock, feedback, picks, server } = harness({ ...level('ab'), failTimeout: FAIL_TIMEOUT })
    feedback('a')
    feedback('b')
    await clock.advance(FAIL_TIMEOUT)
    expect(picks(4)).toContain('a')
    // b has failed and was kept, but is proven: a may be banned again.
    feedback('a')
    expect(server('a').health).toBe('err')
    expect(picks(2)).toBe('bb')
  })
})

describe('a ban is lifted when somebody else takes the last one', () => {
  const banned = async () => {
    const made = harness(abc)
    made.feedback('a')
    await made.clock.advance(100)
    made.feedback('b')
    made.events.length = 0
    return made
  }

  it.each([{ change: { down: true } }, { change: { drain: true } }, { change: { weight: 0 } }])(
    'by $change',
    async ({ change }) => {
      const { checkups, clock, events, picks, server } = await banned()
      await checkups.setServer('api', target('c'), change)
      // a's ban would have ended first.
      expect(server('a')).toMatchObject({ health: 'unstable', passive: { state: 'up', bans: 1 } })
      expect(server('b').health).toBe('err')
      expect(picks(2)).toBe('aa')
      const up = events.find(({ name }) => name === 'peer:up')
      expect(up).toMatchObject({ source: 'guard', reason: 'nobody else is left', health: 'unstable', lasted: 100 })
      expect(clock.pending).toBe(1)
    },
  )

  it('by removal', async () => {
    const { checkups, picks, server } = await banned()
    await checkups.removeServer('api', target('c'))
    expect(server('a').health).toBe('unstable')
    expect(picks(1)).toBe('a')
  })

  it('but not with protected: false', async () => {
    const { checkups, feedback, picks } = harness({ ...level('ab'), protected: false })
    feedback('a')
    await checkups.setServer('api', target('b'), { down: true })
    expect(picks(1)).toBe('-')
  })

  it('but not of one that is down or draining as well', async () => {
    const { checkups, picks, server } = await banned()
    await checkups.setServer('api', target('a'), { down: true })
    await checkups.setServer('api', target('b'), { drain: true })
    await checkups.setServer('api', target('c'), { down: true })
    expect(picks(1)).toBe('-')
    expect(server('a').health).toBe('down')
    expect(server('b').health).toBe('drain')
  })

  it('but not while one is on trial', async () => {
    const { checkups, clock, picks, server } = await banned()
    await clock.advance(FAIL_TIMEOUT - 100)
    expect(server('a').passive.state).toBe('trial')
    await checkups.setServer('api', target('c'), { down: true })
    expect(server('b').health).toBe('err')
    expect(picks(2)).toBe('aa')
  })
})

describe('late and wrong feedback', () => {
  it('of a peer that left is false, by object and by address', async () => {
    const { checkups, feedback } = harness(abc)
    const peer = checkups.selectPeer('api')!
    await checkups.removeServer('api', peer)
    expect(checkups.feedbackStatus('api', peer, 'failed')).toBe(false)
    expect(feedback('a')).toBe(false)
    expect(feedback('b')).toBe(true)
  })

  it('of a peer that left is nothing to one that comes in its place later', async () => {
    const { checkups, feedback, server } = harness(abc)
    await checkups.removeServer('api', target('a'))
    feedback('a')
    await checkups.addServer('api', target('a'))
    expect(server('a')).toMatchObject({ health: 'ok', passive: { failures: 0, bans: 0 } })
  })

  it('of a peer of a deleted upstream is false, as through the handle', async () => {
    const { checkups } = harness(abc)
    const handle = checkups.upstream('api')
    const peer = handle.selectPeer()!
    await checkups.deleteUpstream('api')
    expect(checkups.feedbackStatus('api', peer, 'failed')).toBe(false)
    expect(handle.feedbackStatus(peer, 'failed')).toBe(false)
  })

  it('of a peer of the upstream that had the key before is false', async () => {
    const { checkups } = harness(abc)
    const peer = checkups.selectPeer('api')!
    await checkups.deleteUpstream('api')
    await checkups.updateUpstream('api', [level('xyz')])
    expect(checkups.feedbackStatus('api', peer, 'failed')).toBe(false)
  })

  it('of an address never known throws', () => {
    const { checkups, feedback } = harness(abc)
    expect(() => feedback('z')).toThrow(UnknownPeerError)
    const thrown = (() => {
      try {
        return checkups.feedbackStatus('api', { host: 'Example.TEST', port: '80' }, 'failed')
      } catch (error) {
        return error
      }
    })()
    expect(isCheckupsError(thrown, 'ERR_CHECKUPS_UNKNOWN_PEER')).toBe(true)
    expect(thrown).toMatchObject({ key: 'api', address: 'example.test:80', message: /"api".*example\.test:80/ })
  })

  it('of a peer of another upstream throws', async () => {
    const { checkups } = harness(abc)
    await checkups.updateUpstream('other', [level('xyz')])
    const peer = checkups.selectPeer('other')!
    expect(() => checkups.feedbackStatus('api', peer, 'failed')).toThrow(UnknownPeerError)
  })

  it('of an unknown key throws', () => {
    const { checkups } = harness(abc)
    expect(() => checkups.feedbackStatus('none', target('a'), 'failed')).toThrow(UnknownUpstreamError)
  })

  it.each([
    { name: 'a number', peer: { host: '10.0.0.1', port: 1 } },
    { name: 'a numeric string', peer: { host: '10.0.0.1', port: '1' } },
  ])('takes a port that is $name', ({ peer }) => {
    const { checkups, server } = harness(abc)
    expect(checkups.feedbackStatus('api', peer, 'failed')).toBe(true)
    expect(server('a').health).toBe('err')
  })

  it('takes any spelling of the host', () => {
    const { checkups } = harness({ servers: ['[2001:db8::1]:80', 'example.test:80'] })
    expect(checkups.feedbackStatus('api', { host: '2001:DB8:0::1', port: 80 }, 'failed')).toBe(true)
    expect(checkups.feedbackStatus('api', { host: '[2001:db8::1]', port: 80 }, 'failed')).toBe(true)
    expect(checkups.feedbackStatus('api', { host: 'EXAMPLE.test', port: 80 }, 'failed')).toBe(true)
  })

  it.each([
    { name: 'port', peer: { host: '10.0.0.1', port: '1x' }, path: 'peer.port' },
    { name: 'host', peer: { host: '', port: 1 }, path: 'peer.host' },
    { name: 'nothing', peer: undefined as never, path: 'peer' },
  ])('a bad $name is a ConfigError', ({ peer, path }) => {
    const { checkups } = harness(abc)
    expect(() => checkups.feedbackStatus('api', peer, 'failed')).toThrow(
      expect.objectContaining({ code: 'ERR_CHECKUPS_CONFIG', path }),
    )
  })

  it('of an address that left is remembered for the last 10,000', async () => {
    const { checkups } = harness({ servers: ['10.9.9.9:1'] })
    const many = Array.from({ length: 10_000 }, (_, i) => ({ host: '10.0.0.2', port: i + 1 }))
    await checkups.updateUpstream('api', [{ servers: many }])
    expect(checkups.feedbackStatus('api', { host: '10.9.9.9', port: 1 }, 'failed')).toBe(false)
    await checkups.updateUpstream('api', [{ servers: ['10.9.9.8:1'] }])
    expect(checkups.feedbackStatus('api', many.at(-1)!, 'failed')).toBe(false)
    expect(() => checkups.feedbackStatus('api', { host: '10.9.9.9', port: 1 }, 'failed')).toThrow(UnknownPeerError)
  })
})

describe('a peer that left', () => {
  it('is the same object again while a request was in flight, and the request counts', async () => {
    const { checkups, server } = harness({ ...abc, maxConns: 1 })
    const pick = checkups.acquirePeer('api')!
    await checkups.removeServer('api', pick.peer)
    await checkups.addServer('api', target('a'))
    const full = checkups.selectPeer('api', { exclude: [target('b'), target('c')] })
    expect(full).toBeUndefined()
    expect(checkups.unavailableReason('api', { exclude: [target('b'), target('c')] })).toBe('full')
    pick.done('ok')
    expect(checkups.selectPeer('api', { exclude: [target('b'), target('c')] })).toBe(pick.peer)
    expect(server('a').available).toBe(true)
  })

  it('shows what is in flight when it is back', async () => {
    const { checkups, server } = harness(abc)
    const pick = checkups.acquirePeer('api')!
    await checkups.removeServer('api', pick.peer)
    await checkups.addServer('api', target('a'))
    expect(server('a').inFlight).toBe(1)
    pick.done('ok')
    expect(server('a').inFlight).toBe(0)
  })

  it('is the same object again while it is banned, still banned, until the same time', async () => {
    const { checkups, clock, feedback, server } = harness(abc)
    const peer = checkups.selectPeer('api')!
    feedback('a')
    await clock.advance(400)
    await checkups.removeServer('api', peer)
    await clock.advance(400)
    await checkups.addServer('api', target('a'))
    expect(server('a')).toMatchObject({ health: 'err', passive: { remaining: 200 } })
    await clock.advance(200)
    expect(server('a').passive.state).toBe('trial')
    expect(checkups.selectPeer('api', { exclude: [target('b'), target('c')] })).toBe(peer)
  })

  it('is forgotten when it has nothing in flight and no ban to serve', async () => {
    const { checkups, clock, feedback, server, told } = harness(abc)
    const pick = checkups.acquirePeer('api')!
    feedback('a')
    await checkups.removeServer('api', pick.peer)
    await clock.advance(FAIL_TIMEOUT)
    expect(clock.pending).toBe(0)
    pick.done('failed')
    expect(told()).toEqual(['peer:down a', 'upstream:update'])
    await checkups.addServer('api', target('a'))
    expect(server('a')).toMatchObject({ health: 'ok', passive: { bans: 0 } })
    expect(checkups.selectPeer('api', { exclude: [target('b'), target('c')] })).not.toBe(pick.peer)
  })

  it('is banned by its last requests, and serves that ban when it is back', async () => {
    const { checkups, clock, server } = harness(abc)
    const pick = checkups.acquirePeer('api')!
    await checkups.removeServer('api', pick.peer)
    pick.done('failed')
    await clock.advance(300)
    await checkups.addServer('api', target('a'))
    expect(server('a')).toMatchObject({ health: 'err', available: false, passive: { remaining: 700 } })
  })
})

it('a peer that left is banned though one server alone is left', async () => {
  const { checkups, server } = harness({ ...level('ab'), failTimeout: FAIL_TIMEOUT })
  const pick = checkups.acquirePeer('api')!
  await checkups.removeServer('api', pick.peer)
  pick.done('failed')
  await checkups.addServer('api', target('a'))
  expect(server('a').health).toBe('err')
})

describe('events', () => {
  it('say what, why, by what and for how long', async () => {
    const { checkups, clock, events, feedback } = harness(abc)
    const { peer } = checkups.acquirePeer('api')!
    const { generation } = checkups.getStatus()
    await clock.advance(250)
    feedback('a')
    await clock.advance(FAIL_TIMEOUT)
    expect(events).toEqual([
      {
        name: 'peer:down',
        type: 'peer:down',
        upstream: 'api',
        peer,
        health: 'err',
        source: 'passive',
        reason: 'failed once',
        lasted: 250,
        at: clock.epoch + 250,
        generation: generation + 1,
      },
      {
        name: 'peer:up',
        type: 'peer:up',
        upstream: 'api',
        peer,
        health: 'unstable',
        source: 'timer',
        reason: '1000 ms are over',
        lasted: FAIL_TIMEOUT,
        at: clock.epoch + 250 + FAIL_TIMEOUT,
        generation: generation + 2,
      },
    ])
  })

  it.each([
    { name: 'counted', upstream: { maxFails: 3 }, reason: 'failed 3 times in 1000 ms' },
    { name: 'one', upstream: { maxFails: 1 }, reason: 'failed once' },
  ])('give the reason of a ban: $name', ({ upstream, reason }) => {
    const { clock, events, feedback, server } = harness({ ...abc, ...upstream })
    for (let i = 0; i < upstream.maxFails; i++) feedback('a')
    expect(events.at(-1)?.reason).toBe(reason)
    expect(server('a')).toMatchObject({ reason, since: clock.epoch, age: 0 })
  })

  it('give the reason of a ban after a trial', async () => {
    const { clock, events, feedback } = harness(abc)
    feedback('a')
    await clock.advance(FAIL_TIMEOUT)
    feedback('a')
    expect(events.at(-1)).toMatchObject({ name: 'peer:down', reason: 'failed on trial', lasted: 0 })
  })

  it('come once: a peer that is down by hand is not taken out or brought back by its bans', async () => {
    const { checkups, clock, feedback, told } = harness(abc)
    feedback('a')
    await checkups.setServer('api', target('a'), { down: true })
    await clock.advance(2 * FAIL_TIMEOUT)
    expect(told()).toEqual(['peer:down a', 'upstream:update'])
    await checkups.setServer('api', target('a'), { down: false })
    expect(told()).toEqual(['upstream:update', 'peer:up a'])
  })
})

describe('an update', () => {
  it('keeps the state of peers that stay', async () => {
    const { checkups, feedback, server } = harness({ ...abc, maxFails: 2 })
    const pick = checkups.acquirePeer('api')!
    feedback('b')
    await checkups.updateUpstream('api', [level('dcba')])
    expect(server('b').passive.failures).toBe(1)
    expect(server('a').inFlight).toBe(1)
    feedback('b')
    expect(server('b').health).toBe('err')
    pick.done('ok')
    expect(server('a').inFlight).toBe(0)
  })

  it('keeps a ban and its time', async () => {
    const { checkups, clock, feedback, server } = harness(abc)
    feedback('a')
    await clock.advance(400)
    await checkups.updateUpstream('api', { ...abc, cluster: [level('abcd')], servers: undefined, failTimeout: 5000 })
    await checkups.setServer('api', target('a'), { weight: 7 })
    expect(server('a')).toMatchObject({ health: 'err', passive: { remaining: 600 } })
    await clock.advance(599)
    expect(server('a').health).toBe('err')
    await clock.advance(1)
    expect(server('a').passive.state).toBe('trial')
  })

  it('keeps the place in the sequence', async () => {
    const { checkups, picks } = harness(level('abc'))
    expect(picks(2)).toBe('ab')
    await checkups.updateUpstream('api', { ...level('abc'), keepalive: 7 })
    expect(picks(2)).toBe('ca')
    await checkups.setServer('api', target('a'), { maxConns: 100 })
    expect(picks(2)).toBe('bc')
  })

  it('touches no other upstream', async () => {
    const upstreams = { api: level('abc'), other: { ...level('abcd'), failTimeout: FAIL_TIMEOUT } }
    const { checkups, clock, feedback } = harness(abc, { upstreams })
    // What it does when nothing happens beside it.
    const twin = harness(abc, { upstreams })
    const use = async (made: typeof twin) => {
      const select = () => letterOf(made.checkups.selectPeer('other'))
      const seen = [select(), select()]
      made.checkups.feedbackStatus('other', target('a'), 'failed')
      const held = made.checkups.acquirePeer('other')
      if (made !== twin) {
        feedback('b')
        await checkups.updateUpstream('api', [level('xyz')])
        await checkups.deleteUpstream('api')
      }
      await made.clock.advance(100)
      const status = made.checkups.getStatus().upstreams.find(({ key }) => key === 'other')
      return { seen, status, held: held?.peer.address, after: Array.from({ length: 9 }, select) }
    }
    expect(await use({ ...twin, checkups, clock })).toEqual(await use(twin))
  })
})

it('health is the instance’s own: another one with the same upstreams knows nothing of it', () => {
  const { feedback, server } = harness(abc)
  const other = new Checkups({ random: () => 0, upstreams: { api: abc } })
  feedback('a')
  expect(server('a').health).toBe('err')
  expect(other.selectPeer('api')?.address).toBe(address('a'))
})
