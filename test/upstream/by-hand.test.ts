import { describe, expect, it } from 'vitest'
import { UnknownPeerError, UnknownUpstreamError } from '../../src/index.js'
import { address, harness, level, target } from './harness.js'

describe('resetMarks', () => {
  const banned = { ...level('ab'), maxFails: 2 }

  it('ends a ban, and the peer has its full count again', async () => {
    const { checkups, feedback, picks, told, server } = harness(banned)
    feedback('a')
    feedback('a')
    expect(picks(3)).toBe('bbb')
    told()
    await checkups.resetMarks('api', address('a'), { source: 'admin', reason: 'it is well' })
    expect(told()).toEqual(['peer:up a'])
    expect(server('a')).toMatchObject({
      health: 'ok',
      reason: 'it is well',
      passive: { state: 'up', failures: 0, bans: 1 },
    })
    expect(picks(4)).toMatch(/^(ab|ba){2}$/)
    feedback('a')
    expect(server('a').health).toBe('ok')
  })

  it('ends a trial and forgets failures, without a word where nothing turns', async () => {
    const { checkups, clock, feedback, told, server } = harness(banned)
    feedback('b')
    expect(server('b').passive.failures).toBe(1)
    feedback('a')
    feedback('a')
    await clock.advance(10_000)
    expect(server('a')).toMatchObject({ health: 'unstable', passive: { state: 'trial' } })
    told()
    await checkups.resetMarks('api')
    expect([server('a').health, server('b').passive.failures]).toEqual(['ok', 0])
    expect(told()).toEqual([])
  })

  it('leaves what an operator or a heartbeat says', async () => {
    let status: 'ok' | 'err' = 'err'
    let checks = 0
    const check = () => {
      checks++
      return { status }
    }
    const heartbeat = { type: 'custom', check, fall: 1, interval: 60_000, jitter: 0, defaultDown: true } as const
    const { checkups, clock, server } = harness({
      servers: [...level('ab').servers, { ...target('c'), down: true }],
      heartbeat,
      protected: false,
    })
    const started = checkups.start()
    await clock.advance(0)
    await started
    expect(server('a').health).toBe('err')
    expect(checks).toBe(3)
    await checkups.resetMarks('api')
    expect([server('a').health, server('c').health]).toEqual(['err', 'down'])
    // But it has them checked now, and not in a minute.
    status = 'ok'
    await clock.advance(0)
    expect(checks).toBe(6)
    expect(server('a').health).toBe('ok')
    await checkups.close()
  })

  it('knows whom', async () => {
    const { checkups } = harness(banned)
    await expect(checkups.resetMarks('none')).rejects.toThrow(UnknownUpstreamError)
    await expect(checkups.resetMarks('api', '10.0.0.9:80')).rejects.toThrow(UnknownPeerError)
    await checkups.close()
    await expect(checkups.resetMarks('api')).rejects.toThrow('closed')
  })
})

describe('whose a change is', () => {
  it('stands in its event', async () => {
    const { checkups, events } = harness(level('ab'))
    const by = { source: 'admin', reason: 'because' } as const
    await checkups.setServer('api', address('a'), { weight: 2 }, by)
    await checkups.addServer('api', target('c'), by)
    await checkups.removeServer('api', address('c'), by)
    await checkups.updateUpstream('api', [level('a')], by)
    await checkups.deleteUpstream('api', by)
    expect(events).toHaveLength(5)
    for (const event of events) expect(event).toMatchObject(by)
  })

  it('is the program’s by default, with the method as its reason', async () => {
    const { checkups, events } = harness(level('ab'))
    await checkups.setServer('api', address('a'), { weight: 2 })
    await checkups.deleteUpstream('api')
    expect(events.map(({ source, reason }) => [source, reason])).toEqual([
      ['code', 'setServer'],
      ['code', 'deleteUpstream'],
    ])
  })

  it('may empty an upstream, if it says so', async () => {
    const { checkups, picks } = harness(level('a'))
    await expect(checkups.removeServer('api', address('a'))).rejects.toThrow('at least one server')
    await checkups.removeServer('api', address('a'), { allowEmpty: true })
    expect(picks(1)).toBe('-')
    const bad = { source: 'heartbeat' } as never
    await expect(checkups.deleteUpstream('api', bad)).rejects.toThrow('options.source: expected "code" or "admin"')
    await expect(checkups.deleteUpstream('api', { by: 'me' } as never)).rejects.toThrow('options.by: unknown option')
  })
})

describe('a change of what one has seen', () => {
  it('is made only if it is still that', async () => {
    const { checkups } = harness(level('ab'))
    const seen = checkups.upstream('api').generation
    const first = await checkups.addServer('api', target('c'), { ifGeneration: seen })
    const conflict = { code: 'ERR_CHECKUPS_CONFLICT' }
    await expect(checkups.addServer('api', target('d'), { ifGeneration: seen })).rejects.toMatchObject(conflict)
    await expect(checkups.updateUpstream('api', [level('x')], { ifGeneration: 0 })).rejects.toMatchObject(conflict)
    await expect(checkups.deleteUpstream('none', { ifGeneration: 3 })).rejects.toMatchObject(conflict)
    await checkups.updateUpstream('new', [level('x')], { ifGeneration: 0 })
    await checkups.deleteUpstream('api', { ifGeneration: first })
    await expect(checkups.deleteUpstream('new', { ifGeneration: -1 })).rejects.toThrow('options.ifGeneration')
  })
})

describe('what counts changes', () => {
  it('status.updates: of configurations, since it was made', async () => {
    const { checkups, feedback } = harness(level('ab'))
    const updates = () => checkups.getStatus().updates
    expect(updates()).toBe(0)
    feedback('a')
    await checkups.updateUpstream('api', [level('ab')])
    expect(updates()).toBe(0)
    await checkups.updateUpstream('api', [level('abc')])
    await checkups.deleteUpstream('api')
    expect(updates()).toBe(2)
  })

  it('a handle has the generation of its upstream', async () => {
    const { checkups } = harness(level('ab'))
    const handle = checkups.upstream('api')
    expect(handle.generation).toBe(1)
    const generation = await checkups.updateUpstream('api', [level('abc')])
    expect(handle.generation).toBe(generation)
    await checkups.deleteUpstream('api')
    expect(() => handle.generation).toThrow(UnknownUpstreamError)
  })
})

describe('setServer', () => {
  it('changes what belongs to health, too', async () => {
    const { checkups, server, feedback } = harness(level('ab'))
    await checkups.setServer('api', address('a'), { maxFails: 2, failTimeout: 50 })
    expect(server('a').server).toMatchObject({ maxFails: 2, failTimeout: 50 })
    feedback('a')
    expect(server('a').health).toBe('ok')
    feedback('a')
    expect(server('a').passive).toMatchObject({ state: 'banned', remaining: 50 })
  })
})

describe('a peer on trial that has begun to answer', () => {
  const trial = async (balancer: 'wrr' | 'fastest-first') => {
    const made = harness({ ...level('ab'), balancer })
    made.feedback('a')
    await made.clock.advance(10_000)
    const pick = made.checkups.acquirePeer('api', { exclude: [target('b')] })!
    expect(made.server('a').passive.state).toBe('trial')
    return { ...made, pick }
  }

  it.each(['wrr', 'fastest-first'] as const)('is back, however long its answer takes: %s', async (balancer) => {
    const { pick, server, clock } = await trial(balancer)
    pick.answered(200)
    expect(server('a')).toMatchObject({ health: 'ok', passive: { state: 'up' } })
    // It may still fail: that is a failure like any other.
    await clock.advance(60_000)
    pick.done('failed')
    expect(server('a').health).toBe('err')
  })

  it('but not by an answer that has failed, nor by one from before another ban', async () => {
    const bad = await trial('wrr')
    bad.pick.answered(503)
    expect(bad.server('a').passive.state).toBe('trial')
    const late = await trial('wrr')
    late.feedback('a')
    late.pick.answered(200)
    expect(late.server('a').passive.state).toBe('banned')
  })
})
