import { isDeepStrictEqual } from 'node:util'
import { describe, expect, it } from 'vitest'
import {
  healthyStart,
  isClean,
  nextPassive,
  type Passive,
  type PassiveEvent,
  type PassiveRules,
} from '../../src/health/passive.js'

const FAIL_TIMEOUT = 100

/** The handful of events; a lease and what ends it need to know the state. */
const handful = {
  ok: () => ({ type: 'ok' }),
  failed: () => ({ type: 'failed', mayBan: true }),
  'failed, kept': () => ({ type: 'failed', mayBan: false }),
  neutral: (state) => ({ type: 'neutral', lease: (state.state === 'trial' && state.lease?.id) || 1 }),
  'neutral of another': () => ({ type: 'neutral', lease: 999 }),
  select: (_, now, id) => ({ type: 'lease', lease: { id, kind: 'select', until: now + FAIL_TIMEOUT } }),
  acquire: (_, now, id) => ({ type: 'lease', lease: { id, kind: 'acquire', until: now + FAIL_TIMEOUT } }),
  due: () => ({ type: 'due' }),
  lifted: () => ({ type: 'lifted' }),
} satisfies Record<string, (state: Passive, now: number, id: number) => PassiveEvent>

type Name = keyof typeof handful
const names = Object.keys(handful) as Name[]

/** Every rule a step must keep, by name: whether it does. */
type Step = {
  readonly before: Passive
  readonly event: PassiveEvent
  readonly after: Passive
  readonly now: number
  readonly rules: PassiveRules
}
const due = (state: Passive, now: number, rules: PassiveRules) => nextPassive(state, { type: 'due' }, now, rules)
const laws: Record<string, (step: Step) => boolean> = {
  // A failure that counts is noted, also one that takes the place of another of the same instant.
  'what is not changed is the same object': ({ before, event, after }) =>
    before === after || !isDeepStrictEqual(before, after) || (event.type === 'failed' && before.state === 'up'),
  'a ban ends when its time is over': ({ after, rules }) =>
    after.state !== 'banned' || due(after, after.until, rules).state === (rules.readmit === 'trial' ? 'trial' : 'up'),
  'a ban does not end before': ({ after, rules }) =>
    after.state !== 'banned' || due(after, after.until - 1, rules) === after,
  'a ban lasts failTimeout from the failure that trips it': ({ before, after, now }) =>
    after.state !== 'banned' || (before.state === 'banned' ? after === before : after.until === now + FAIL_TIMEOUT),
  'only a failure that may ban bans': ({ before, event, after }) =>
    after.state !== 'banned' || before.state === 'banned' || (event.type === 'failed' && event.mayBan),
  'nothing but time and lifting ends a ban': ({ before, event, after }) =>
    before.state !== 'banned' || after === before || event.type === 'due' || event.type === 'lifted',
  'bans count the bans': ({ before, after }) =>
    after.bans === before.bans + Number(after.state === 'banned' && before.state !== 'banned'),
  'there are at most maxFails failures': ({ after, rules }) =>
    after.state !== 'up' || after.failures.length <= rules.maxFails,
  'a ban comes at maxFails failures, or at one on trial': ({ before, event, after, rules, now }) => {
    if (event.type !== 'failed' || before.state === 'banned') return true
    const recent = before.state === 'up' ? before.failures.filter((at) => now - at < FAIL_TIMEOUT).length + 1 : Infinity
    return (after.state === 'banned') === (event.mayBan && rules.maxFails > 0 && recent >= rules.maxFails)
  },
  'failures that count are younger than failTimeout': ({ event, after, now }) =>
    event.type !== 'failed' || after.state !== 'up' || after.failures.every((at) => now - at < FAIL_TIMEOUT),
  'maxFails 0 switches it off': ({ after, rules }) => rules.maxFails > 0 || after === healthyStart,
  'fresh knows no trial': ({ after, rules }) => rules.readmit === 'trial' || after.state !== 'trial',
  'a success clears all but a ban': ({ before, event, after }) =>
    event.type !== 'ok' || (before.state === 'banned' ? after === before : isClean(after)),
  'a slot is given to one': ({ before, event, after }) =>
    event.type !== 'lease' ||
    (before.state === 'trial' && before.lease === undefined
      ? after.state === 'trial' && after.lease === event.lease
      : after === before),
  'a slot is freed by its own neutral only': ({ before, event, after }) =>
    event.type !== 'neutral' ||
    (before.state === 'trial' && before.lease?.id === event.lease
      ? after.state === 'trial' && after.lease === undefined
      : after === before),
  'a lapsed slot of select readmits, one of acquire is free again': ({ after, rules }) => {
    if (after.state !== 'trial' || after.lease === undefined) return true
    const { kind, until } = after.lease
    const lapsed = due(after, until, rules)
    if (due(after, until - 1, rules) !== after) return false
    return kind === 'select' ? isClean(lapsed) : lapsed.state === 'trial' && lapsed.lease === undefined
  },
  'who comes back without a success is not proven': ({ before, after }) =>
    before.state !== 'banned' || after.state !== 'up' || !after.proven,
  'lifted is back, and unstable': ({ before, event, after }) =>
    event.type !== 'lifted' || (before.state === 'banned' ? after.state === 'up' && after.unstable : after === before),
}

/** How time passes between the events. */
const rhythms = { 'at once': [0], 'in steps': [40], 'a whole time': [100], mixed: [1, 99, 0, 60, 150] }

function freeze(state: Passive): Passive {
  if (state.state === 'up') Object.freeze(state.failures)
  return Object.freeze(state)
}

/** Every order of `depth` events from a state; `path` is how it was come by. Returns how many steps were made. */
function explore(
  state: Passive,
  now: number,
  depth: number,
  rules: PassiveRules,
  rhythm: readonly number[],
  path: readonly Name[] = [],
): number {
  if (depth === 0) return 0
  let steps = 0
  for (const name of names) {
    const event = handful[name](state, now, path.length + 1)
    const after = nextPassive(state, event, now, rules)
    for (const [law, keeps] of Object.entries(laws)) {
      if (keeps({ before: state, event, after, now, rules })) continue
      expect.fail(`${law}: ${[...path, name].join(', ')}: ${JSON.stringify(state)} became ${JSON.stringify(after)}`)
    }
    const later = now + rhythm[path.length % rhythm.length]!
    steps += 1 + explore(freeze(after), later, depth - 1, rules, rhythm, [...path, name])
  }
  return steps
}

describe('every order of five events keeps every law', () => {
  for (const maxFails of [0, 1, 2]) {
    for (const readmit of ['trial', 'fresh'] as const) {
      it.each(Object.keys(rhythms) as (keyof typeof rhythms)[])(`maxFails ${maxFails}, ${readmit}, %s`, (rhythm) => {
        const rules = { maxFails, failTimeout: FAIL_TIMEOUT, readmit }
        const steps = explore(freeze(healthyStart), 1000, 5, rules, rhythms[rhythm])
        expect(steps).toBe(9 + 9 ** 2 + 9 ** 3 + 9 ** 4 + 9 ** 5)
      })
    }
  }

  it('and every order of four from each kind of state that takes longer to reach', () => {
    const lease = { id: 7, kind: 'acquire', until: 1050 } as const
    const states: Passive[] = [
      { state: 'trial', bans: 1, lease: undefined },
      { state: 'trial', bans: 1, lease },
      { state: 'trial', bans: 1, lease: { ...lease, kind: 'select' } },
      { state: 'banned', bans: 3, until: 1040 },
      { state: 'up', bans: 2, failures: [950], proven: false, unstable: true },
    ]
    for (const state of states) {
      const rules = { maxFails: 2, failTimeout: FAIL_TIMEOUT, readmit: 'trial' } as const
      for (const rhythm of Object.values(rhythms)) explore(freeze(state), 1000, 4, rules, rhythm)
    }
  })
})

describe('by example', () => {
  const examples: {
    name: string
    rules?: Partial<PassiveRules>
    events: (readonly [at: number, event: Name])[]
    state: object
  }[] = [
    { name: 'nothing has happened', events: [], state: { state: 'up', bans: 0, proven: true } },
    {
      name: 'two failures of two ban, for a full time from the second',
      events: [
        [0, 'failed'],
        [99, 'failed'],
      ],
      state: { state: 'banned', bans: 1, until: 199 },
    },
    {
      name: 'the window slides: two failures a whole time apart do not ban',
      events: [
        [0, 'failed'],
        [100, 'failed'],
      ],
      state: { state: 'up', failures: [100] },
    },
    {
      name: 'the window slides: the second and the third ban',
      events: [
        [0, 'failed'],
        [100, 'failed'],
        [199, 'failed'],
      ],
      state: { state: 'banned', until: 299 },
    },
    {
      name: 'a success between clears',
      events: [
        [0, 'failed'],
        [1, 'ok'],
        [2, 'failed'],
      ],
      state: { state: 'up', failures: [2] },
    },
    {
      name: 'failures while banned do not lengthen the ban',
      events: [
        [0, 'failed'],
        [0, 'failed'],
        [50, 'failed'],
      ],
      state: { state: 'banned', bans: 1, until: 100 },
    },
    {
      name: 'a success while banned does not shorten it',
      events: [
        [0, 'failed'],
        [0, 'failed'],
        [50, 'ok'],
      ],
      state: { state: 'banned', bans: 1, until: 100 },
    },
    {
      name: 'one failure on trial bans again',
      events: [
        [0, 'failed'],
        [0, 'failed'],
        [100, 'due'],
        [110, 'acquire'],
        [120, 'failed'],
      ],
      state: { state: 'banned', bans: 2, until: 220 },
    },
    {
      name: 'a success on trial clears',
      events: [
        [0, 'failed'],
        [0, 'failed'],
        [100, 'due'],
        [110, 'acquire'],
        [120, 'ok'],
      ],
      state: { state: 'up', bans: 1, failures: [], proven: true, unstable: false },
    },
    {
      name: 'a trial that failed with nobody else left goes on, its slot free',
      events: [
        [0, 'failed'],
        [0, 'failed'],
        [100, 'due'],
        [110, 'acquire'],
        [120, 'failed, kept'],
      ],
      state: { state: 'trial', bans: 1, lease: undefined },
    },
    {
      name: 'fresh has its full count again',
      rules: { readmit: 'fresh' },
      events: [
        [0, 'failed'],
        [0, 'failed'],
        [100, 'due'],
        [110, 'failed'],
      ],
      state: { state: 'up', bans: 1, failures: [110], proven: false },
    },
    {
      name: 'the last one is kept, and unstable',
      events: [
        [0, 'failed, kept'],
        [1, 'failed, kept'],
        [2, 'failed, kept'],
      ],
      state: { state: 'up', bans: 0, failures: [1, 2], unstable: true },
    },
    {
      name: 'the last one is kept until it is not the last any more',
      events: [
        [0, 'failed, kept'],
        [1, 'failed, kept'],
        [2, 'failed'],
      ],
      state: { state: 'banned', until: 102 },
    },
    {
      name: 'a lifted ban leaves an unproven peer with its count anew',
      events: [
        [0, 'failed'],
        [0, 'failed'],
        [50, 'lifted'],
        [60, 'failed'],
      ],
      state: { state: 'up', bans: 1, failures: [60], proven: false, unstable: true },
    },
  ]
  it.each(examples)('$name', ({ rules, events, state }) => {
    let passive = healthyStart
    for (const [now, name] of events) {
      const event = handful[name](passive, now, now)
      passive = nextPassive(passive, event, now, { maxFails: 2, failTimeout: FAIL_TIMEOUT, readmit: 'trial', ...rules })
    }
    expect(passive).toMatchObject(state)
  })

  it('fewer allowed failures than were counted ban at the next one', () => {
    const rules = { maxFails: 5, failTimeout: FAIL_TIMEOUT, readmit: 'trial' } as const
    let passive = healthyStart
    for (let i = 0; i < 4; i++) passive = nextPassive(passive, { type: 'failed', mayBan: true }, i, rules)
    expect(passive.state).toBe('up')
    expect(nextPassive(passive, { type: 'failed', mayBan: true }, 5, { ...rules, maxFails: 2 }).state).toBe('banned')
  })
})
