import { describe, expect, it } from 'vitest'
import { Checkups } from '../src/index.js'
import type { ErrorEvent, PeerEvent, UpstreamUpdateEvent } from '../src/index.js'
import { harness, level, target } from './upstream/harness.js'

/** The warnings of the process that come while `act` runs. */
async function warningsOf(act: () => unknown): Promise<Error[]> {
  const warnings: Error[] = []
  const listen = (warning: Error) => void warnings.push(warning)
  process.on('warning', listen)
  try {
    await act()
    // Warnings are told on the next tick.
    await new Promise((resolve) => setImmediate(resolve))
  } finally {
    process.off('warning', listen)
  }
  return warnings
}

describe('a listener that throws', () => {
  it('disturbs neither the others nor who made the change, and is told as error', async () => {
    const { checkups, events, server } = harness(level('ab'))
    const thrown = new Error('mine')
    const after: PeerEvent[] = []
    checkups.on('peer:down', () => {
      throw thrown
    })
    checkups.on('peer:down', (event) => void after.push(event))
    checkups.feedbackStatus('api', target('a'), 'failed')
    expect(server('a').health).toBe('err')
    expect(after).toHaveLength(1)
    expect(events.filter(({ name }) => name === 'error')).toEqual([
      { name: 'error', error: thrown, during: 'a listener of peer:down' },
    ])
  })

  it('does not make an update fail', async () => {
    const { checkups, picks } = harness(level('ab'))
    checkups.on('upstream:update', () => {
      throw new Error('mine')
    })
    await expect(checkups.updateUpstream('api', [level('c')])).resolves.toBeGreaterThan(0)
    expect(picks(1)).toBe('c')
  })

  it('becomes a process warning where nobody listens to error', async () => {
    const checkups = new Checkups({ upstreams: { api: level('ab') } })
    checkups.on('peer:down', () => {
      throw new Error('mine')
    })
    const warnings = await warningsOf(() => checkups.feedbackStatus('api', target('a'), 'failed'))
    expect(warnings).toEqual([expect.objectContaining({ name: 'CheckupsWarning' })])
    expect(warnings[0]?.message).toMatch(/^a listener of peer:down threw: Error: mine/)
  })

  it('of error itself becomes a process warning, and the others still hear', async () => {
    const { checkups, events } = harness(level('ab'))
    checkups.on('error', () => {
      throw new Error('of error')
    })
    checkups.on('peer:down', () => {
      // eslint-disable-next-line @typescript-eslint/only-throw-error -- what is tested
      throw 'a string'
    })
    const warnings = await warningsOf(() => checkups.feedbackStatus('api', target('a'), 'failed'))
    expect(warnings.map(({ message }) => message.split('\n')[0])).toEqual([
      'a listener of error threw: Error: of error',
    ])
    expect(events.filter(({ name }) => name === 'error')).toEqual([
      { name: 'error', error: 'a string', during: 'a listener of peer:down' },
    ])
  })
})

describe('listeners', () => {
  it('are called in order, after the change, and not after off', async () => {
    const { checkups } = harness(level('ab'))
    const heard: string[] = []
    const first = ({ generation }: UpstreamUpdateEvent) => {
      heard.push(`first ${checkups.getUpstreams().size} ${generation === checkups.getStatus().generation}`)
    }
    expect(checkups.on('upstream:update', first)).toBe(checkups)
    checkups.on('upstream:update', () => void heard.push('second'))
    await checkups.updateUpstream('new', [level('a')])
    expect(heard).toEqual(['first 2 true', 'second'])
    expect(checkups.off('upstream:update', first)).toBe(checkups)
    await checkups.updateUpstream('new', [level('b')])
    expect(heard).toEqual(['first 2 true', 'second', 'second'])
  })

  it('may take themselves off while they are called', () => {
    const { checkups } = harness({ ...level('abc'), maxFails: 1 })
    const heard: string[] = []
    const once = () => {
      heard.push('once')
      checkups.off('peer:down', once)
    }
    checkups.on('peer:down', once)
    checkups.on('peer:down', () => void heard.push('always'))
    checkups.feedbackStatus('api', target('a'), 'failed')
    checkups.feedbackStatus('api', target('b'), 'failed')
    expect(heard).toEqual(['once', 'always', 'always'])
  })

  it('may change the upstream that they are told of', async () => {
    const { checkups, picks, server, events } = harness(level('abc'))
    checkups.on('peer:down', ({ peer }) => void checkups.removeServer('api', peer))
    checkups.feedbackStatus('api', target('a'), 'failed')
    expect(picks(4)).toBe('bcbc')
    expect(server('a')).toBeUndefined()
    expect(events.map(({ name }) => name)).toEqual(['peer:down', 'upstream:update'])
  })

  it('may replace a list that has just been made', async () => {
    const { checkups, picks } = harness(level('ab'))
    const generations: number[] = []
    checkups.on('upstream:update', ({ generation, added }) => {
      generations.push(generation)
      if (added.some(({ port }) => port === 3)) void checkups.updateUpstream('api', [level('d')])
    })
    await checkups.updateUpstream('api', [level('abc')])
    expect(picks(2)).toBe('dd')
    expect(checkups.getStatus().upstreams[0]?.generation).toBe(Math.max(...generations))
    expect(checkups.getUpstream('api')).toMatchObject({ cluster: [level('d')] })
  })
})

it('an update says what came, what left and what changed', async () => {
  const { checkups, clock } = harness(level('abc'))
  const updates: UpstreamUpdateEvent[] = []
  checkups.on('upstream:update', (event) => void updates.push(event))
  const letters = (peers: readonly { port: number }[]) => peers.map(({ port }) => 'abcdefg'[port - 1]).join('')
  await clock.advance(5)
  await checkups.updateUpstream('api', [level('bd', { c: { weight: 3 } })])
  await checkups.updateUpstream('other', [level('a')])
  await checkups.updateUpstream('api', { ...level('bd', { c: { weight: 3 } }), tries: 1 })
  await checkups.updateUpstream('api', [level('db', { c: { weight: 3 } })])
  expect(
    updates.map(({ upstream, created, added, removed, changed }) => [
      upstream,
      created,
      letters(added),
      letters(removed),
      letters(changed),
    ]),
  ).toEqual([
    ['api', false, 'd', 'a', 'c'],
    ['other', true, 'a', '', ''],
    ['api', false, '', '', ''],
    ['api', false, '', '', ''],
  ])
  expect(updates[0]).toMatchObject({ source: 'code', reason: 'updateUpstream', at: clock.epoch + 5 })
})

it('an error event says in whose code', () => {
  const errors: ErrorEvent[] = []
  const { checkups } = harness({
    ...level('ab'),
    balancer: () => ({
      update: () => undefined,
      pick: () => undefined,
      report: () => {
        throw new Error('mine')
      },
    }),
  })
  checkups.on('error', (event) => void errors.push(event))
  checkups.feedbackStatus('api', target('a'), 'ok')
  expect(errors).toEqual([{ error: new Error('mine'), during: 'report of the balancer of level "0"' }])
})
