import { describe, expect, it } from 'vitest'
import { Checkups } from '../../src/index.js'
import { Agreement, type End, type Transport } from '../../src/sync/agreement.js'
import type { Hub, Link } from '../../src/sync/link.js'
import type { FromCoordinator } from '../../src/sync/messages.js'
import { VirtualClock } from '../support/virtual-clock.js'

/** Two ends in this process; what goes to the worker can be looked at, changed or lost. */
function pair() {
  const sent: FromCoordinator[] = []
  const wire = { to: (message: FromCoordinator): FromCoordinator | undefined => message }
  const end = (): Link => ({ send: () => undefined, onMessage: undefined, onClose: undefined, close: () => undefined })
  const [near, far] = [end(), end()]
  near.send = (message) => {
    const copy = JSON.parse(JSON.stringify(message)) as FromCoordinator
    sent.push(copy)
    const arrives = wire.to(copy)
    if (arrives !== undefined) queueMicrotask(() => far.onMessage?.(arrives))
  }
  far.send = (message) => {
    const copy: unknown = JSON.parse(JSON.stringify(message))
    queueMicrotask(() => near.onMessage?.(copy))
  }
  const hub: Hub = { onLink: undefined, close: () => undefined }
  return { near, far, hub, sent, wire }
}

const transport = (id: string, end: () => End): Transport => ({ id, elects: false, connect: async () => end() })

async function two() {
  const clock = new VirtualClock()
  const { near, far, hub, sent, wire } = pair()
  const upstreams = { api: { servers: ['10.0.0.1:80', '10.0.0.2:80'], failTimeout: 1_000_000 } }
  const make = (sync: Agreement) => new Checkups({ clock, random: () => 0, upstreams, sync })
  const first = make(
    new Agreement(
      transport('first', () => ({ hub })),
      true,
      10_000,
    ),
  )
  await first.start()
  const worker = make(
    new Agreement(
      transport('1', () => ({ link: far })),
      true,
      10_000,
    ),
  )
  const started = worker.start()
  await clock.advance(0)
  hub.onLink!(near)
  await clock.advance(1_000)
  await started
  const serversOf = ({ getStatus }: { getStatus: () => ReturnType<Checkups['getStatus']> }) =>
    getStatus().upstreams[0]!.levels[0]!.servers.map(({ address }) => address)
  const agree = () => {
    const [a, b] = [first, worker].map((one) => one.getStatus().upstreams)
    expect(b!.map(({ key, generation }) => [key, generation])).toEqual(
      a!.map(({ key, generation }) => [key, generation]),
    )
    expect(serversOf({ getStatus: () => worker.getStatus() })).toEqual(
      serversOf({ getStatus: () => first.getStatus() }),
    )
  }
  const states = () => sent.filter(({ type }) => type === 'state').length
  return { clock, first, worker, far, sent, wire, agree, states }
}

const isChange = (message: FromCoordinator) => message.type === 'change'

describe('a worker that has missed a change', () => {
  it('sees it at the next one, and asks for everything', async () => {
    const { clock, first, wire, agree, states } = await two()
    const before = states()
    wire.to = (message) => (isChange(message) ? undefined : message)
    void first.addServer('api', '10.0.0.3:80')
    await clock.advance(0)
    wire.to = (message) => message
    void first.addServer('api', '10.0.0.4:80')
    await clock.advance(10)
    agree()
    expect(states()).toBe(before + 1)
  })

  it('of the last one it learns within a second', async () => {
    const { clock, first, worker, wire, agree } = await two()
    wire.to = (message) => (isChange(message) ? undefined : message)
    const changed = first.addServer('api', '10.0.0.3:80')
    await clock.advance(0)
    wire.to = (message) => message
    expect(worker.getStatus().generation).toBeLessThan(first.getStatus().generation)
    await clock.advance(1_000)
    agree()
    // Whoever made it has waited until then.
    await changed
  })

  it('and one that has something else than all others asks once, and not again and again', async () => {
    const { clock, first, wire, agree, states } = await two()
    const before = states()
    // What arrives is another change than was made.
    wire.to = (message) => {
      if (message.type !== 'change' || message.change.what !== 'config') return message
      return { ...message, change: { ...message.change, generation: 999 } }
    }
    void first.addServer('api', '10.0.0.3:80')
    await clock.advance(10)
    wire.to = (message) => message
    await clock.advance(1_000)
    agree()
    expect(states()).toBe(before + 1)
    // One that cannot be made to agree is given everything once for every revision.
    wire.to = (message) => (message.type === 'beat' ? { ...message, digest: 'other' } : message)
    await clock.advance(10_000)
    expect(states()).toBe(before + 1)
    void first.addServer('api', '10.0.0.4:80')
    await clock.advance(10_000)
    expect(states()).toBe(before + 2)
  })

  it('a change that comes twice is made once', async () => {
    const { clock, first, worker, far, agree, sent } = await two()
    const updates: string[] = []
    worker.on('upstream:update', ({ upstream }) => updates.push(upstream))
    void first.addServer('api', '10.0.0.3:80')
    await clock.advance(10)
    const change = sent.filter(isChange).at(-1)!
    far.onMessage!(change)
    await clock.advance(2_000)
    agree()
    expect(updates).toEqual(['api'])
  })
})

describe('a guard that looks from here', () => {
  it('another process’s ban never takes the last one', async () => {
    const { clock, first, worker } = await two()
    const fail = (checkups: Checkups, host: string) => checkups.feedbackStatus('api', { host, port: 80 }, 'failed')
    // Both at once, before either knows of the other's.
    fail(first, '10.0.0.1')
    fail(worker, '10.0.0.2')
    await clock.advance(10)
    for (const checkups of [first, worker]) expect(checkups.selectPeer('api')).toBeDefined()
  })
})
