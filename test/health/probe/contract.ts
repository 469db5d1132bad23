/** What every probe keeps to, whatever it speaks. */
import { getEventListeners, once } from 'node:events'
import type { Socket } from 'node:net'
import { afterEach, beforeEach, describe, expect, it, onTestFinished } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import type { ParseProbe, Probe, ProbeReport, ProbeTarget } from '../../../src/health/probe/probe.js'
import { eventually } from '../../support/eventually.js'
import { checkOnce, deserted, outcome, probeOf, refusing, socketPath, startRelay } from './servers.js'
import { openSockets, startStuck, startTcp, targetOf, turn, type Listening, type Place } from './servers.js'

/**
 * A kind of server, or of way to one:
 * - `refuses`: nobody listens.
 * - `stuck`: connections to it never open.
 * - `silent`: accepts connections, reads, says nothing.
 * - `resets`: resets every connection as soon as it stands.
 * - `garbage`: says what belongs to no protocol, then closes.
 * - `endless`: says that without end.
 * - `half`: the healthy one, which closes after half of the bytes that an `ok` takes.
 * - `slow`: the healthy one, whose bytes arrive one by one.
 * - `unix`: the healthy one at a unix socket.
 */
export type Server = 'refuses' | 'stuck' | 'silent' | 'resets' | 'garbage' | 'endless' | 'half' | 'slow' | 'unix'

/** What must come of a check: a status, or nothing until the check is aborted, or that is not tested. */
export type Expected = ProbeReport['status'] | 'pending' | 'skipped'

const EXPECTED: Readonly<Record<Server, Expected>> = {
  refuses: 'err',
  stuck: 'pending',
  silent: 'pending',
  resets: 'err',
  garbage: 'err',
  endless: 'err',
  half: 'err',
  slow: 'ok',
  unix: 'ok',
}

export interface ProbeContract {
  readonly parse: ParseProbe
  /** With which the healthy server is `ok`; `type` among them. */
  readonly options: Record<string, unknown>
  /** Starts a healthy server, one for every test; `close` is called at the test's end. */
  readonly healthy: () => Promise<Place & { readonly close?: () => unknown }>
  /** Where this probe rightly comes to something else, and why. */
  readonly exceptions?: Partial<Record<Server, { readonly expected: Expected; readonly reason: string }>>
}

/**
 * Runs the contract, as a `describe` of that name: what a probe makes of each {@link Server}, that it ends at once when it
 * is aborted (before it began, while it connects, while it waits), and that it leaves no socket, listener or unhandled
 * rejection behind.
 *
 *     probeContract('redis', {
 *       parse: parseRedis,
 *       options: { type: 'redis' },
 *       healthy: async () => startRedis(),                                 // { port, host?, path?, close? }
 *       exceptions: { resets: { expected: 'ok', reason: 'why that is right' } },
 *     })
 */
export function probeContract(name: string, { parse, options, healthy, exceptions = {} }: ProbeContract): void {
  const probe = () => probeOf(parse, options)
  const start = async (): Promise<Place> => {
    const { close, ...place } = await healthy()
    onTestFinished(async () => {
      await close?.()
    })
    return place
  }

  /** Checks until it is settled or, if that is what is expected, until somebody is connected; then aborts. */
  const meet = async (server: Server, place: Place | Listening): Promise<ProbeReport> => {
    const { expected } = exceptions[server] ?? { expected: EXPECTED[server] }
    const subject = probe()
    const target = targetOf(place)
    const before = openSockets()
    const check = begin(subject, target)
    let report: ProbeReport | undefined
    if (expected === 'pending') {
      // Enough for an answer that was already on its way.
      if ('sockets' in place) await eventually(() => expect(place.sockets.size).toBeGreaterThan(0))
      for (let i = 0; i < 20; i++) await turn()
      expect(check.settled()).toBeUndefined()
      report = await check.abort()
      if (!('sockets' in place)) await eventually(() => expect(openSockets()).toBeLessThanOrEqual(before))
    } else {
      report = await check.report
      expect(report).toMatchObject({ status: expected })
      if (expected === 'err') expect(report.message).toMatch(/^.{3,200}$/)
      expect(check.listeners()).toBe(0)
      if (expected !== 'err') subject.forget?.(target)
    }
    if ('sockets' in place) await deserted(place)
    return report
  }

  const meets = (server: Server, place: (healthy: () => Promise<Place>) => Promise<Place | Listening>) => {
    const { expected, reason } = { expected: EXPECTED[server], reason: '', ...exceptions[server] }
    it.skipIf(expected === 'skipped')(`${server}: ${expected}${reason && `, for ${reason}`}`, async () => {
      const report = await meet(server, await place(start))
      if (server === 'refuses') expect(report.message).toBe('connection refused')
    })
  }

  describe(`probe contract: ${name}`, () => {
    const rejections: unknown[] = []
    const collect = (reason: unknown) => void rejections.push(reason)
    beforeEach(() => {
      rejections.length = 0
      process.on('unhandledRejection', collect)
    })
    afterEach(async () => {
      for (let i = 0; i < 3; i++) await turn()
      process.off('unhandledRejection', collect)
      expect(rejections).toEqual([])
    })

    it('is ok with a healthy server, again and again', async () => {
      const relay = await startRelay(await start())
      const subject = probe()
      const target = targetOf(relay)
      for (let i = 0; i < 3; i++) expect(await checkOnce(subject, target)).toMatchObject({ status: 'ok' })
    })

    it('checks several at once', async () => {
      const place = await start()
      const relays = await Promise.all(Array.from({ length: 5 }, () => startRelay(place)))
      const subject = probe()
      const reports = await Promise.all([...relays, ...relays].map((relay) => checkOnce(subject, relay)))
      expect(reports.map(({ status }) => status)).toEqual(reports.map(() => 'ok'))
      subject.close?.()
      for (const relay of relays) await deserted(relay)
    })

    meets('refuses', async () => refusing)
    meets('stuck', startStuck)
    meets('silent', () => startTcp((socket) => socket.resume()))
    meets('resets', () => startTcp((socket) => socket.resetAndDestroy()))
    meets('garbage', () => startTcp((socket) => socket.resume().end('garbage\0\xff'.repeat(20))))
    meets('endless', () => startTcp(babble))
    meets('half', async (start) => {
      const place = await start()
      let sent = 0
      const whole = await startRelay(place, (chunk, client) => {
        sent += chunk.length
        client.write(chunk)
      })
      expect(await checkOnce(probe(), whole)).toMatchObject({ status: 'ok' })
      const half = Math.floor(sent / 2)
      const left = new WeakMap<Socket, number>()
      return startRelay(place, (chunk, client) => {
        const rest = left.get(client) ?? half
        left.set(client, rest - chunk.length)
        if (chunk.length < rest) client.write(chunk)
        else if (rest > 0) client.end(chunk.subarray(0, rest))
      })
    })
    meets('slow', async (start) => startRelay(await start(), trickle))
    meets('unix', async (start) => startRelay(await start(), undefined, { path: socketPath() }))

    it('connects to nobody if it is aborted before it begins', async () => {
      const server = await startTcp(() => undefined)
      const reason = new Error('too late')
      await expect(probe().check(targetOf(server), AbortSignal.abort(reason))).rejects.toBe(reason)
      await turn()
      expect(server.connections).toBe(0)
    })

    it('ends at once when it is aborted while it connects', async () => {
      const server = await startTcp((socket) => socket.resume())
      const subject = probe()
      await begin(subject, targetOf(server)).abort()
      // From Node 24 on the connection is made to its end, and kept for the next check.
      subject.close?.()
      await deserted(server)
    })

    it('ends at once when it is aborted amid the first byte', async () => {
      if (exceptions.silent) return
      const server = await startTcp((socket) => socket.resume())
      const check = begin(probe(), targetOf(server))
      const [socket] = (await once(server.server, 'connection')) as [Socket]
      // A probe that speaks first has said something; one that does not waits.
      await Promise.race([once(socket, 'data'), turn().then(turn)])
      await check.abort()
      await deserted(server)
    })

    it('is usable again after an abort', async () => {
      const place = await start()
      const subject = probe()
      const target = targetOf(place)
      await begin(subject, target).abort()
      expect(await checkOnce(subject, target)).toMatchObject({ status: 'ok' })
    })

    it('keeps nothing of a target that was forgotten, and nothing at all when it is closed', async () => {
      const place = await start()
      const [one, other] = [await startRelay(place), await startRelay(place)]
      const subject = probe()
      const [gone, stays] = [targetOf(one), targetOf(other)]
      await checkOnce(subject, gone)
      await checkOnce(subject, stays)
      subject.forget?.(gone)
      await deserted(one)
      expect(await checkOnce(subject, gone)).toMatchObject({ status: 'ok' })
      subject.forget?.(targetOf(refusing))
      subject.close?.()
      await deserted(one)
      await deserted(other)
    })

    it('refuses an option that it does not know', () => {
      const parsing = () => parse('heartbeat', { ...options, nonsense: 1 })
      expect(parsing).toThrow(ConfigError)
      expect(parsing).toThrow(/^heartbeat\.nonsense: unknown option/)
    })
  })
}

/** A check under way. `abort` ends it and sees to it that it does end, within one turn, and that nothing listens on. */
function begin(probe: Probe, target: ProbeTarget) {
  const controller = new AbortController()
  let settled: ProbeReport | undefined
  const report = outcome(probe.check(target, controller.signal)).then((report) => (settled = report))
  const listeners = () => getEventListeners(controller.signal, 'abort').length
  return {
    report,
    listeners,
    settled: () => settled,
    abort: async (): Promise<ProbeReport> => {
      controller.abort(new Error('no answer in time'))
      await turn()
      expect(settled).toEqual({ status: 'err', message: 'no answer in time' })
      expect(listeners()).toBe(0)
      return settled!
    },
  }
}

/** Writes one byte a turn. */
async function trickle(chunk: Buffer, client: Socket): Promise<void> {
  for (const byte of chunk) {
    if (client.destroyed) return
    client.write(Buffer.of(byte))
    await turn()
  }
}

/** Says garbage for as long as the other side takes it. */
function babble(socket: Socket): void {
  const garbage = Buffer.alloc(16_384, 'garbage\0\xff')
  const go = () => {
    while (!socket.destroyed && socket.write(garbage));
  }
  socket.resume().on('drain', go)
  go()
}
