import { readFile } from 'node:fs/promises'
import { describe, expect, it } from 'vitest'
import { Checkups, ConfigError, toCheckupsStatus, UnknownPeerError, UnknownUpstreamError } from '../src/index.js'
import type { ServerChange } from '../src/index.js'
import { address, harness, letterOf, level, target } from './upstream/harness.js'

const letters = ({ checkups }: ReturnType<typeof harness>) =>
  checkups
    .getStatus()
    .upstreams[0]?.levels.map(({ servers }) =>
      servers.map(({ address: at }) => 'abcdef'[Number(at.split(':')[1]) - 1]).join(''),
    )

describe('addServer', () => {
  it.each<{ name: string; server: Parameters<Checkups['addServer']>[1] }>([
    { name: 'an address', server: '10.0.0.1:4' },
    { name: 'host and port', server: target('d') },
    { name: 'options', server: { address: '10.0.0.1:4', weight: 2 } },
  ])('takes $name', async ({ server }) => {
    const made = harness(level('abc'))
    await made.checkups.addServer('api', server)
    expect(letters(made)).toEqual(['abcd'])
    expect(made.picks(8)).toContain('d')
  })

  it('adds to the level that is named, else to the first', async () => {
    const made = harness({ cluster: { x: level('a'), y: level('b') } })
    await made.checkups.addServer('api', target('c'), { level: 'y' })
    await made.checkups.addServer('api', target('d'))
    expect(letters(made)).toEqual(['ad', 'bc'])
    await expect(made.checkups.addServer('api', target('e'), { level: 'z' })).rejects.toThrow(
      'upstreams.api: no level "z"',
    )
    await expect(made.checkups.addServer('api', target('e'), { level: '__proto__' })).rejects.toThrow(ConfigError)
    expect(letters(made)).toEqual(['ad', 'bc'])
  })

  it.each([{ servers: [] }, { cluster: [] }, { cluster: {} }])(
    'fills an upstream that began empty: %o',
    async (upstream) => {
      const made = harness(upstream)
      await made.checkups.addServer('api', target('a'))
      expect(made.picks(1)).toBe('a')
    },
  )

  it('refuses what is there, what is none, and an unknown key', async () => {
    const { checkups, told } = harness(level('ab'))
    await expect(checkups.addServer('api', '10.0.0.1:2')).rejects.toThrow(/the same address as .*servers\[1\]/)
    await expect(checkups.addServer('api', { ...target('c'), weight: -1 })).rejects.toThrow(ConfigError)
    await expect(checkups.addServer('api', 'nonsense')).rejects.toThrow(ConfigError)
    await expect(checkups.addServer('none', target('c'))).rejects.toThrow(UnknownUpstreamError)
    expect(told()).toEqual([])
  })
})

describe('removeServer', () => {
  it('takes an address, host and port, or a peer, and removes it from every level', async () => {
    const made = harness({ cluster: [level('abcd'), level('cbae')] })
    await made.checkups.removeServer('api', '10.0.0.1:1')
    await made.checkups.removeServer('api', { host: '10.0.0.1', port: '2' })
    await made.checkups.removeServer('api', made.checkups.selectPeer('api')!)
    expect(letters(made)).toEqual(['d', 'e'])
    expect(made.told()).toEqual(['upstream:update', 'upstream:update', 'upstream:update'])
  })

  it('refuses who is not there, what is no address, and the last one', async () => {
    const { checkups, picks } = harness(level('a'))
    await expect(checkups.removeServer('api', target('b'))).rejects.toThrow(UnknownPeerError)
    await expect(checkups.removeServer('api', 'nonsense')).rejects.toThrow(ConfigError)
    await expect(checkups.removeServer('none', target('a'))).rejects.toThrow(UnknownUpstreamError)
    await expect(checkups.removeServer('api', target('a'))).rejects.toThrow('expected at least one server')
    expect(picks(1)).toBe('a')
  })
})

describe('setServer', () => {
  it.each<ServerChange>([{ weight: 7 }, { weight: 0 }, { down: true }, { drain: true }, { maxConns: 9 }])(
    'changes %o of one server, and nothing else',
    async (change) => {
      const { checkups, status } = harness({
        cluster: [level('', { a: { weight: 3, backup: true }, b: { weight: 2 } })],
      })
      const before = status()
      await checkups.setServer('api', address('a'), change)
      expect(status().get(address('a'))?.server).toEqual({ ...before.get(address('a'))?.server, ...change })
      expect(status().get(address('b'))).toEqual(before.get(address('b')))
    },
  )

  it('changes every entry of the address', async () => {
    const { checkups } = harness({ cluster: { x: level('ab'), y: level('ca') } })
    await checkups.setServer('api', target('a'), { maxConns: 2, weight: 5 })
    const { cluster } = checkups.getUpstream('api') as { cluster: Record<string, { servers: object[] }> }
    expect(cluster['x']?.servers[0]).toMatchObject({ maxConns: 2, weight: 5 })
    expect(cluster['y']?.servers[1]).toMatchObject({ maxConns: 2, weight: 5 })
  })

  it('leaves what is undefined as it is', async () => {
    const { checkups, server } = harness({ ...level('b', { a: { weight: 5, maxConns: 4 } }), maxConns: 4 })
    await checkups.setServer('api', target('a'), { down: true, weight: undefined, maxConns: undefined })
    expect(server('a').server).toMatchObject({ down: true, weight: 5, maxConns: 4 })
  })

  it('lasts until an update brings other values', async () => {
    const { checkups, server } = harness(level('ab'))
    await checkups.setServer('api', target('a'), { down: true })
    await checkups.addServer('api', target('c'))
    expect(server('a').health).toBe('down')
    await checkups.updateUpstream('api', [level('abc')])
    expect(server('a').health).toBe('ok')
  })

  it('refuses what it cannot change, bad values, and who is not there', async () => {
    const { checkups, told } = harness(level('ab'))
    const refusal = (change: object, server: string = address('a')) =>
      expect(checkups.setServer('api', server, change)).rejects
    await refusal({ port: 7 }).toThrow('change.port: unknown option; known are weight, down, drain, maxConns')
    await refusal({ weight: -1 }).toThrow('upstreams.api.cluster[0].servers[0].weight: expected an integer')
    await refusal({ down: 'no' }).toThrow('servers[0].down: expected true or false, got "no"')
    await refusal([]).toThrow('change: expected an object, got an array of 0')
    await refusal({ down: true }, address('c')).toThrow(UnknownPeerError)
    await expect(checkups.setServer('none', target('a'), {})).rejects.toThrow(UnknownUpstreamError)
    expect(told()).toEqual([])
  })
})

describe('an upstream', () => {
  it('is made by an update, and there before the promise resolves', async () => {
    const { checkups, events } = harness(level('a'))
    const promise = checkups.updateUpstream('new', [level('bc')])
    expect(letterOf(checkups.selectPeer('new'))).toBe('b')
    expect(await promise).toBe(2)
    expect(events).toEqual([expect.objectContaining({ name: 'upstream:update', upstream: 'new', created: true })])
    expect([...checkups.getUpstreams().keys()]).toEqual(['api', 'new'])
  })

  it('is deleted, with its timers; its requests end as they would', async () => {
    const { checkups, clock, events, feedback } = harness(level('ab'))
    const pick = checkups.acquirePeer('api')!
    feedback('b')
    events.length = 0
    expect(clock.pending).toBe(1)
    const generation = await checkups.deleteUpstream('api')
    expect(clock.pending).toBe(0)
    expect(events).toEqual([
      expect.objectContaining({ name: 'upstream:delete', upstream: 'api', generation, reason: 'deleteUpstream' }),
    ])
    expect(() => checkups.selectPeer('api')).toThrow(UnknownUpstreamError)
    expect(checkups.getStatus().upstreams).toEqual([])
    pick.done('failed')
    pick.done('ok')
    expect(clock.pending).toBe(0)
    expect(events).toHaveLength(1)
    await expect(checkups.deleteUpstream('api')).rejects.toThrow(UnknownUpstreamError)
  })

  it('made anew knows nothing of the one before', async () => {
    const { checkups, feedback, picks, server } = harness(level('ab'))
    const peer = checkups.selectPeer('api')!
    feedback('a')
    await checkups.deleteUpstream('api')
    await checkups.updateUpstream('api', [level('ab')])
    expect(server('a')).toMatchObject({ health: 'ok', passive: { bans: 0 } })
    expect(checkups.selectPeer('api')).not.toBe(peer)
    expect(picks(1)).toBe('b')
  })
})

describe('the generation', () => {
  it('grows with every change, and with no other call', async () => {
    const { checkups, clock, feedback } = harness(level('abc'))
    const seen = [checkups.getStatus().generation]
    const changes: (() => unknown)[] = [
      () => checkups.updateUpstream('api', [level('abcd')]),
      () => checkups.setServer('api', target('a'), { weight: 2 }),
      () => checkups.addServer('api', target('e')),
      () => checkups.removeServer('api', target('e')),
      () => checkups.updateUpstream('new', [level('a')]),
      () => checkups.deleteUpstream('new'),
      () => feedback('a'),
      () => clock.advance(10_000),
    ]
    for (const change of changes) {
      const result = await change()
      const { generation } = checkups.getStatus()
      expect(generation).toBeGreaterThan(seen.at(-1)!)
      if (typeof result === 'number') expect(result).toBe(generation)
      seen.push(generation)
    }
    checkups.selectPeer('api')
    checkups.acquirePeer('api')?.done('ok')
    await checkups.updateUpstream('api', checkups.getUpstream('api')!)
    await checkups.updateUpstream('api', []).catch(() => undefined)
    expect(checkups.getStatus().generation).toBe(seen.at(-1))
  })

  it('of an upstream is that of its last change', async () => {
    const { checkups } = harness(level('a'))
    const other = await checkups.updateUpstream('other', [level('b')])
    const { generation, upstreams } = checkups.getStatus()
    expect(generation).toBe(other)
    expect(upstreams.map((upstream) => upstream.generation)).toEqual([other - 1, other])
  })
})

describe('close', () => {
  it('ends every timer; picks go on, and changes are refused', async () => {
    const { checkups, clock, feedback, picks, server } = harness({ ...level('abc'), maxFails: 1, failTimeout: 1000 })
    feedback('a')
    expect(clock.pending).toBe(1)
    await checkups.close()
    await checkups.close()
    expect(clock.pending).toBe(0)
    expect(picks(4)).toBe('bcbc')
    const pick = checkups.acquirePeer('api')!
    pick.done('failed')
    expect(server(letterOf(pick.peer)).health).toBe('err')
    expect(clock.pending).toBe(0)
    await expect(checkups.readyOk('api', () => 'ok')).resolves.toBe('ok')

    const closed = expect.objectContaining({ code: 'ERR_CHECKUPS_CLOSED' }) as Error
    await expect(checkups.start()).rejects.toEqual(closed)
    await expect(checkups.updateUpstream('api', [level('d')])).rejects.toEqual(closed)
    await expect(checkups.updateUpstream('new', [level('d')])).rejects.toEqual(closed)
    await expect(checkups.deleteUpstream('api')).rejects.toEqual(closed)
    await expect(checkups.addServer('api', target('d'))).rejects.toEqual(closed)
    await expect(checkups.removeServer('api', target('b'))).rejects.toEqual(closed)
    await expect(checkups.setServer('api', target('b'), { down: true })).rejects.toEqual(closed)
    expect(server('b').server.down).toBe(false)
  })

  it('ends the timers of peers that left too', async () => {
    const { checkups, clock, feedback } = harness(level('abc'))
    feedback('a')
    await checkups.removeServer('api', target('a'))
    expect(clock.pending).toBe(1)
    await checkups.close()
    expect(clock.pending).toBe(0)
  })

  it('lets a call under way end within its limits', async () => {
    const { checkups, clock } = harness(level('a'))
    const ended = expect(
      checkups.readyOk('api', () => new Promise<never>(() => undefined), { timeout: 50 }),
    ).rejects.toMatchObject({ code: 'ERR_CHECKUPS_TIMEOUT' })
    await checkups.close()
    await clock.advance(50)
    await ended
    expect(clock.pending).toBe(0)
  })

  it('is what await using does', async () => {
    const { checkups, clock, feedback } = harness(level('ab'))
    {
      await using used = checkups
      await used.start()
      feedback('a')
      expect(clock.pending).toBe(1)
    }
    expect(clock.pending).toBe(0)
    await expect(checkups.start()).rejects.toMatchObject({ code: 'ERR_CHECKUPS_CLOSED' })
  })
})

describe('getStatus', () => {
  it('says all there is to say', async () => {
    const { checkups, clock, feedback } = harness({
      cluster: { x: level('', { a: { weight: 2, maxFails: 2 } }), y: level('b') },
    })
    await clock.advance(500)
    feedback('a')
    checkups.acquirePeer('api', { clusterKey: 'y' })
    await clock.advance(100)
    const upstream = checkups.getStatus().upstreams[0]
    expect(checkups.getStatus()).toMatchObject({ startedAt: clock.epoch, at: clock.epoch + 600, generation: 1 })
    expect(upstream).toMatchObject({ key: 'api', generation: 1, keyed: true })
    expect(upstream?.levels.map(({ name }) => name)).toEqual(['x', 'y'])
    expect(upstream?.levels[0]?.servers).toEqual([
      {
        address: address('a'),
        server: expect.objectContaining({ ...target('a'), weight: 2, maxFails: 2 }) as object,
        available: true,
        health: 'ok',
        reason: '',
        age: 600,
        since: clock.epoch,
        passive: { state: 'up', failures: 1, bans: 0, remaining: 0 },
        inFlight: 0,
      },
    ])
    expect(upstream?.levels[1]?.servers[0]).toMatchObject({ address: address('b'), inFlight: 1 })
  })

  it('is a picture: what happens later does not change it', async () => {
    const { checkups, feedback } = harness(level('ab'))
    const status = checkups.getStatus()
    const copy = structuredClone(status)
    feedback('a')
    await checkups.updateUpstream('api', [level('c')])
    expect(status).toEqual(copy)
  })

  it('has primaries and backups in the order they were given', () => {
    const made = harness(level('a', { c: { backup: true }, b: {} }))
    expect(letters(made)).toEqual(['acb'])
  })

  it('in the ancestor’s shape is JSON', () => {
    const { checkups, feedback } = harness({ cluster: [level('', { a: { maxFails: 1, failTimeout: 2500 }, b: {} })] })
    feedback('a')
    const status = JSON.parse(JSON.stringify(toCheckupsStatus(checkups.getStatus()))) as object
    expect(status).toEqual({
      'cls:api': [
        [
          {
            server: 'api:10.0.0.1:1',
            status: 'unchecked',
            weight: 1,
            max_fails: 1,
            fail_timeout: 2.5,
            passive: { state: 'banned', failures: 0, bans: 1, remaining: 2.5 },
          },
          expect.objectContaining({ server: 'api:10.0.0.1:2' }),
        ],
      ],
      start_time: expect.stringMatching(/^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d$/) as string,
      conf_hash: null,
      shd_config_version: 2,
    })
  })
})

describe('the package', () => {
  it('exports what the sources say, and the classes are what they are called', async () => {
    const library = await import('../src/index.js')
    const text = await readFile(new URL('../src/index.ts', import.meta.url), 'utf8')
    for (const [name, value] of Object.entries(library)) {
      expect(text).toContain(name)
      if (typeof value === 'function') expect(value.name).toBe(name)
    }
    expect(Object.keys(library).sort()).toEqual([
      'AttemptsError',
      'Checkups',
      'CheckupsError',
      'ConfigError',
      'UnknownPeerError',
      'UnknownUpstreamError',
      'errorCodes',
      'formatAttempts',
      'isCheckupsError',
      'toCheckupsStatus',
    ])
  })

  it('works on the machine’s own clock and chance', () => {
    const checkups = new Checkups({ upstreams: { api: level('ab') } })
    expect([checkups.selectPeer('api'), checkups.selectPeer('api')].map(letterOf).sort()).toEqual(['a', 'b'])
  })
})
