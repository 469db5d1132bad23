import { connect } from 'node:net'
import { once } from 'node:events'
import { describe, expect, it } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { parseCustom, type CustomProbeOptions } from '../../../src/health/probe/custom.js'
import { probeContract } from './contract.js'
import { checkOnce, outcome, probeOf, startTcp, targetOf, turn } from './servers.js'

type Check = CustomProbeOptions['check']

const custom = (check: unknown) => probeOf(parseCustom, { type: 'custom', check })
/** Nobody connects to it. */
const nowhere = targetOf({ port: 4001 })

/** A check as a user would write one: it says hello, and hands the signal on. */
const hello: Check = async (peer, { signal }) => {
  signal.throwIfAborted()
  const socket = connect({ ...peer.connect })
  const abort = () => socket.destroy(signal.reason as Error)
  signal.addEventListener('abort', abort)
  try {
    let said = ''
    for await (const chunk of socket.setEncoding('latin1')) {
      said += String(chunk)
      if (said.length > 100) break
    }
    return said === 'hello' || { status: 'err', message: 'no hello' }
  } finally {
    signal.removeEventListener('abort', abort)
    socket.destroy()
  }
}

probeContract('custom', {
  parse: parseCustom,
  options: { type: 'custom', check: hello },
  healthy: () => startTcp((socket) => socket.end('hello')),
})

describe('custom', () => {
  it('asks with the peer, and where it is to be asked', async () => {
    const seen: unknown[] = []
    const probe = custom((...args: Parameters<Check>) => seen.push(args) > 0)
    const { signal } = new AbortController()
    const target = { ...nowhere, host: '10.0.0.9', port: 81 }
    expect(await probe.check(target, signal)).toEqual({ status: 'ok' })
    expect(seen).toEqual([[target.peer, { signal, host: '10.0.0.9', port: 81 }]])
  })

  it.each<[string, Check]>([
    ['true', () => true],
    ['a promise of true', async () => true],
  ])('is ok with %s', async (_, check) => {
    expect(await checkOnce(custom(check), nowhere)).toEqual({ status: 'ok' })
  })

  it('takes a status, a message and facts', async () => {
    const answer = { status: 'unstable', message: 'lags', lag: 3, role: 'replica', up: true, list: [1], none: null }
    const facts = { lag: 3, role: 'replica', up: true }
    expect(
      await checkOnce(
        custom(() => answer),
        nowhere,
      ),
    ).toEqual({ status: 'unstable', message: 'lags', facts })
  })

  it('takes a fact of any name, without harm', async () => {
    const answer = JSON.parse('{ "status": "ok", "__proto__": "x", "constructor": "y" }') as object
    const { facts } = await checkOnce(
      custom(() => answer),
      nowhere,
    )
    expect(Object.getPrototypeOf(facts)).toBe(Object.prototype)
    expect(Object.entries(facts!)).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ])
  })

  it.each<[string, () => unknown, string]>([
    ['false', () => false, 'the check returned false'],
    ['nothing', () => undefined, 'the check returned undefined'],
    ['null', () => null, 'the check returned null'],
    ['a number', () => 200, 'the check returned 200'],
    ['another status', () => ({ status: 'up' }), 'the check returned an object without a status of "ok", "unstable"'],
    ['a function', () => () => true, 'the check returned a function'],
    ['a symbol', () => Symbol('x'), 'the check returned Symbol(x)'],
  ])('fails if the check returns %s', async (_, check, message) => {
    const report = await checkOnce(custom(check), nowhere)
    expect(report.status).toBe('err')
    expect(report.message).toContain(message)
  })

  it.each<[string, () => unknown, string]>([
    ['throws', () => JSON.parse('no JSON') as unknown, 'is not valid JSON'],
    ['rejects', async () => Promise.reject(new Error('no disk left')), 'no disk left'],
    [
      'rejects with no error',
      () => ({ then: (_: unknown, reject: (why: string) => void) => reject('no disk') }),
      'no disk',
    ],
    ['has a getter that throws', () => ({ get status() { throw new Error('lazy') } }), 'lazy'], // prettier-ignore
  ])('fails if the check %s', async (_, check, message) => {
    const report = await checkOnce(custom(check), nowhere)
    expect(report.status).toBe('err')
    expect(report.message).toContain(message)
  })

  it('does not wait for a check that ignores the signal, nor minds what it does later', async () => {
    const late: ((error: Error) => void)[] = []
    const unhandled: unknown[] = []
    const collect = (reason: unknown) => void unhandled.push(reason)
    process.on('unhandledRejection', collect)
    const probe = custom(() => new Promise((_, reject) => late.push(reject)))
    const controller = new AbortController()
    const report = outcome(probe.check(nowhere, controller.signal))
    await turn()
    controller.abort(new Error('no answer in time'))
    expect(await report).toEqual({ status: 'err', message: 'no answer in time' })
    late[0]!(new Error('late'))
    for (let i = 0; i < 3; i++) await turn()
    process.off('unhandledRejection', collect)
    expect(unhandled).toEqual([])
  })

  it('tells the check when its time is over', async () => {
    let told: Promise<unknown> = Promise.resolve()
    const probe = custom((_: unknown, { signal }: { signal: AbortSignal }) => {
      told = once(signal, 'abort')
      return new Promise(() => undefined)
    })
    const controller = new AbortController()
    const report = outcome(probe.check(nowhere, controller.signal))
    controller.abort(new Error('over'))
    await told
    expect(await report).toEqual({ status: 'err', message: 'over' })
  })

  it('refuses what is no function', () => {
    expect(() => custom('ping')).toThrow(ConfigError)
    expect(() => custom('ping')).toThrow('heartbeat.check: expected a function, got "ping"')
  })
})
