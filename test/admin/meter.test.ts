import { channel } from 'node:diagnostics_channel'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Meter } from '../../src/admin/meter.js'
import { Checkups, type UpstreamOptions } from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'

const pick = channel('checkups:pick')
const outcome = channel('checkups:outcome')

function world(upstreams: Record<string, UpstreamOptions> = { api: { servers: ['a:1', 'b:1'], maxFails: 0 } }) {
  const clock = new VirtualClock()
  const checkups = new Checkups({ clock, upstreams, random: () => 0 })
  const meter = new Meter(checkups, clock)
  onTestFinished(async () => {
    meter.close()
    await checkups.close()
  })
  const request = async (ms: number, how: 'ok' | 'failed' | 'neutral' = 'ok') => {
    const asked = checkups.acquirePeer('api')!
    await clock.advance(ms)
    asked.done(how)
    return asked.peer.address
  }
  const all = (upstream = 'api', address?: string) => meter.samples(-100, 1_000_000, upstream, address)
  return { clock, checkups, meter, request, all }
}

describe('what is measured', () => {
  it('is what happened in each second, of peers and of all', async () => {
    const { clock, meter, request, all } = world()
    meter.watch()
    expect(await request(10)).toBe('a:1')
    expect(await request(30)).toBe('b:1')
    expect(await request(20)).toBe('a:1')
    await clock.advance(940)
    await request(4)
    // Second, requests, outcomes, failed, mean, slowest, found nobody.
    expect(all('api', 'a:1')).toEqual([[0, 2, 2, 0, 15, 20, 0]])
    expect(all('api', 'b:1')).toEqual([
      [0, 1, 1, 0, 30, 30, 0],
      [1, 1, 1, 0, 4, 4, 0],
    ])
    expect(all()).toEqual([
      [0, 3, 3, 0, 20, 30, 0],
      [1, 1, 1, 0, 4, 4, 0],
    ])
  })

  it('a request is in the second of its pick, its outcome in that of its end', async () => {
    const { meter, request, all } = world()
    meter.watch()
    await request(1_500)
    expect(all()).toEqual([
      [0, 1, 0, 0, 0, 0, 0],
      [1, 0, 1, 0, 1_500, 1_500, 0],
    ])
  })

  it('the time is that until the answer, and only of what was answered well', async () => {
    const { clock, checkups, meter, request, all } = world()
    meter.watch()
    const asked = checkups.acquirePeer('api')!
    await clock.advance(7)
    asked.answered(200)
    await clock.advance(100)
    asked.done('ok')
    await request(1, 'failed')
    await request(400, 'neutral')
    expect(all()).toEqual([[0, 3, 3, 1, 7, 7, 0]])
  })

  it('who only selects is counted too, and what is told of it', () => {
    const { checkups, meter, all } = world()
    meter.watch()
    const peer = checkups.selectPeer('api')!
    checkups.selectPeer('api')
    checkups.feedbackStatus('api', peer, 'failed')
    expect(all()).toEqual([[0, 2, 1, 1, 0, 0, 0]])
  })

  it('requests that find nobody are counted once, however often they look', async () => {
    const { checkups, meter, all } = world({ api: { servers: [{ address: 'a:1', down: true }, 'b:1'] } })
    meter.watch()
    await expect(checkups.readyOk('api', () => Promise.reject(new Error('no')), { tries: 2 })).rejects.toThrow()
    expect(all()).toEqual([[0, 1, 1, 1, 0, 0, 0]])
    await checkups.setServer('api', 'b:1', { down: true })
    expect(checkups.selectPeer('api')).toBeUndefined()
    await expect(checkups.readyOk('api', () => 1)).rejects.toThrow()
    expect(all()).toEqual([[0, 1, 1, 1, 0, 0, 2]])
  })

  it('another instance is none of its business', async () => {
    const { meter, all } = world()
    const other = world()
    meter.watch()
    await other.request(5)
    expect(all()).toEqual([])
  })

  it('a minute can be read back, and no more', async () => {
    const { clock, meter, request, all } = world()
    meter.watch()
    for (let second = 0; second < 200; second++) {
      await request(1)
      await clock.advance(999)
    }
    expect(meter.second).toBe(199)
    expect(all().map(([second]) => second)).toEqual(Array.from({ length: 64 }, (_, i) => 136 + i))
    await clock.advance(1_000_000)
    await request(1)
    expect(all()).toEqual([[1_200, 1, 1, 0, 1, 1, 0]])
  })
})

describe('peers that leave', () => {
  it('are forgotten, and begin anew when they come back', async () => {
    const { checkups, meter, request, all } = world()
    meter.watch()
    await request(1)
    const asked = checkups.acquirePeer('api')!
    expect(asked.peer.address).toBe('b:1')
    await checkups.removeServer('api', 'b:1')
    expect(all('api', 'b:1')).toEqual([])
    // The end of what it had is counted for nobody, but for all.
    asked.done('ok')
    expect(all('api', 'b:1')).toEqual([])
    expect(all()).toEqual([[0, 2, 2, 0, 0.5, 1, 0]])
    await checkups.addServer('api', 'b:1')
    checkups.feedbackStatus('api', { host: 'b', port: 1 }, 'ok')
    expect(all('api', 'b:1')).toEqual([[0, 0, 1, 0, 0, 0, 0]])
  })

  it('with their upstream, too', async () => {
    const { checkups, meter, request, all } = world()
    meter.watch()
    await request(1)
    await checkups.deleteUpstream('api')
    expect(all()).toEqual([])
    await checkups.updateUpstream('api', { servers: ['a:1'] })
    await request(1)
    expect(all()).toEqual([[0, 1, 1, 0, 1, 1, 0]])
  })
})

describe('it listens', () => {
  const isSubscribed = () => pick.hasSubscribers || outcome.hasSubscribers

  it('only while somebody looks, and ten minutes more', async () => {
    const { clock, meter, request, all } = world()
    expect(isSubscribed()).toBe(false)
    await request(1)
    expect(meter.isListening).toBe(false)
    expect(meter.from).toBeNaN()
    const first = meter.watch()
    const second = meter.watch()
    expect(isSubscribed()).toBe(true)
    // The second that is under way is not measured whole.
    expect(meter.from).toBe(1)
    await clock.advance(3_600_000)
    first()
    first()
    await clock.advance(3_600_000)
    expect(meter.isListening).toBe(true)
    second()
    await clock.advance(599_999)
    await request(1)
    expect(isSubscribed()).toBe(false)
    expect(meter.isListening).toBe(false)
    expect(all()).toEqual([])
    expect(clock.pending).toBe(0)
  })

  it('ten minutes after a single look', async () => {
    const { clock, meter } = world()
    meter.look()
    await clock.advance(300_000)
    meter.look()
    await clock.advance(599_000)
    expect(meter.isListening).toBe(true)
    await clock.advance(1_000)
    expect(meter.isListening).toBe(false)
  })

  it('no more once it is closed', () => {
    const { clock, meter } = world()
    const end = meter.watch()
    meter.close()
    expect(isSubscribed()).toBe(false)
    end()
    expect(meter.isListening).toBe(false)
    expect(clock.pending).toBe(0)
  })
})
