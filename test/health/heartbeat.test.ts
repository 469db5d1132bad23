import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { firstHeartbeat, nextHeartbeat, paceOf, unchecked } from '../../src/health/heartbeat.js'
import type { Found, Heartbeat, HeartbeatRules } from '../../src/health/heartbeat.js'
import type { ProbeReport, ProbeStatus } from '../../src/health/probe/probe.js'

const rulesOf = (rules: Partial<HeartbeatRules> = {}) => ({ rise: 2, fall: 3, defaultDown: false, ...rules })
const STATUSES: Readonly<Record<string, ProbeStatus>> = { o: 'ok', e: 'err', u: 'unstable' }
/** The state after every report of `oeu`. */
function after(reports: string, rules: HeartbeatRules): Heartbeat[] {
  let heartbeat = firstHeartbeat(rules)
  return Array.from(reports, (letter) => (heartbeat = nextHeartbeat(heartbeat, { status: STATUSES[letter]! }, rules)))
}
const letters = (states: readonly Heartbeat[]) =>
  states.map(({ found }) => (found === 'unchecked' ? '?' : found[0])).join('')

describe('what is found', () => {
  it('is nothing before the first check', () => {
    expect(firstHeartbeat(rulesOf())).toEqual({ found: 'unchecked', successes: 0, failures: 0, message: '', facts: {} })
    expect(firstHeartbeat(rulesOf())).toBe(unchecked)
  })

  it('is err before the first check with defaultDown, and says why', () => {
    expect(firstHeartbeat(rulesOf({ defaultDown: true }))).toMatchObject({ found: 'err', message: 'not checked yet' })
  })

  it.each<{ reports: string; found: string; rules: Partial<HeartbeatRules> }>([
    { reports: 'o', found: 'o', rules: {} },
    { reports: 'eee', found: 'ooe', rules: {} },
    { reports: 'eeoeee', found: 'oooooe', rules: {} },
    { reports: 'oeeeoo', found: 'oooeeo', rules: {} },
    { reports: 'eeeoeoo', found: 'ooeeeeo', rules: {} },
    { reports: 'eeeoeeeoo', found: 'ooeeeeeeo', rules: {} },
    { reports: 'eeuoeeuoo', found: 'oouuuuuuo', rules: {} },
    { reports: 'uuu', found: 'oou', rules: {} },
    { reports: 'eueue', found: 'ooeue', rules: {} },
    { reports: 'uuuee', found: 'oouee', rules: {} },
    { reports: 'uuuoee', found: 'oouuuu', rules: {} },
    { reports: 'eoe', found: 'eoe', rules: { rise: 1, fall: 1 } },
    { reports: 'ueou', found: 'ueou', rules: { rise: 1, fall: 1 } },
    { reports: 'eooo', found: 'eeeo', rules: { rise: 3, fall: 1 } },
    { reports: 'oo', found: 'eo', rules: { defaultDown: true } },
    { reports: 'oeoo', found: 'eeeo', rules: { defaultDown: true } },
    { reports: 'euu', found: 'eeu', rules: { defaultDown: true } },
    { reports: 'o', found: 'o', rules: { defaultDown: true, rise: 1 } },
  ])('$reports gives $found with $rules', ({ reports, found, rules }) => {
    expect(letters(after(reports, rulesOf(rules)))).toBe(found)
  })

  it('counts checks in a row, one count at a time', () => {
    const counts = after('ooeeuo', rulesOf()).map(({ successes, failures }) => [successes, failures])
    expect(counts).toEqual([
      [1, 0],
      [2, 0],
      [0, 1],
      [0, 2],
      [0, 3],
      [1, 0],
    ])
  })

  it('has the message of the last check, and the facts of the last that had any', () => {
    const rules = rulesOf()
    const facts = { version: '7.2' }
    const first = nextHeartbeat(unchecked, { status: 'ok', message: 'hello', facts }, rules)
    expect(first).toMatchObject({ message: 'hello', facts })
    const second = nextHeartbeat(first, { status: 'err', message: 'gone' }, rules)
    expect(second).toMatchObject({ found: 'ok', message: 'gone', facts })
    expect(nextHeartbeat(second, { status: 'ok', facts: {} }, rules)).toMatchObject({ message: '', facts: {} })
  })
})

describe('every order of reports', () => {
  /** How many of the same kind end at `i`. */
  const run = (reports: readonly ProbeReport[], i: number, passes: boolean): number =>
    i < 0 || (reports[i]!.status === 'ok') !== passes ? 0 : 1 + run(reports, i - 1, passes)

  /** What was last: enough failures in a row, of which the last one says how it is out, or enough passes. */
  function model(reports: readonly ProbeReport[], { rise, fall, defaultDown }: HeartbeatRules): Found {
    let found: Found = defaultDown ? 'err' : reports.length === 0 ? 'unchecked' : 'ok'
    for (const [i, { status }] of reports.entries()) {
      if (run(reports, i, false) >= fall) found = status
      if (run(reports, i, true) >= rise) found = 'ok'
    }
    return found
  }

  it('leads to what a look at all of them gives', () => {
    const report = fc.record<ProbeReport>({
      status: fc.constantFrom<ProbeStatus>('ok', 'ok', 'err', 'err', 'unstable'),
      message: fc.option(fc.constantFrom('a', 'b'), { nil: undefined }),
      facts: fc.option(fc.constantFrom({ v: 1 }, { v: 2 }), { nil: undefined }),
    })
    const rules = fc.record({
      rise: fc.integer({ min: 1, max: 4 }),
      fall: fc.integer({ min: 1, max: 4 }),
      defaultDown: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(report, { maxLength: 30 }), rules, (reports, rules) => {
        let heartbeat = Object.freeze(firstHeartbeat(rules))
        for (const [i, report] of reports.entries()) {
          const told = reports.slice(0, i + 1)
          heartbeat = Object.freeze(nextHeartbeat(heartbeat, report, rules))
          expect(heartbeat).toEqual({
            found: model(told, rules),
            successes: run(told, i, true),
            failures: run(told, i, false),
            message: report.message ?? '',
            facts: told.findLast(({ facts }) => facts !== undefined)?.facts ?? {},
          })
        }
      }),
      { numRuns: 500 },
    )
  })

  it('with rise and fall 1 every report is what is found', () => {
    const rules = rulesOf({ rise: 1, fall: 1 })
    fc.assert(
      fc.property(fc.array(fc.constantFrom('o', 'e', 'u')), (reports) => {
        expect(letters(after(reports.join(''), rules))).toBe(reports.join(''))
      }),
    )
  })
})

describe('the pace', () => {
  it.each<{ reports: string; paces: string[] }>([
    { reports: 'oo', paces: ['steady', 'steady'] },
    { reports: 'eeee', paces: ['changing', 'changing', 'down', 'down'] },
    { reports: 'eeo', paces: ['changing', 'changing', 'steady'] },
    { reports: 'eeeoo', paces: ['changing', 'changing', 'down', 'changing', 'steady'] },
    { reports: 'eeeoe', paces: ['changing', 'changing', 'down', 'changing', 'down'] },
    { reports: 'uuuu', paces: ['changing', 'changing', 'steady', 'steady'] },
  ])('after $reports is $paces', ({ reports, paces }) => {
    expect(after(reports, rulesOf()).map(paceOf)).toEqual(paces)
  })

  it('before the first check is steady, or that of a peer that is out', () => {
    expect([paceOf(unchecked), paceOf(firstHeartbeat(rulesOf({ defaultDown: true })))]).toEqual(['steady', 'down'])
  })
})
