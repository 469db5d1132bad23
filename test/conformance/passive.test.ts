import { describe } from 'vitest'
import { toCheckupsStatus, type CheckupsServerStatus } from '../../src/index.js'
import { asAncestor, levels, rows, servers, World, fail } from './support.js'

const later = (run: (world: World) => unknown) => async (world: World) => {
  await world.clock.advance(2500)
  return run(world)
}
const once = { maxFails: 1, failTimeout: 2000 }

describe('maxFails and failTimeout', () => {
  const s1 = (readmit: 'fresh' | 'trial') => () => {
    const first = [...servers('54', { maxFails: 2, failTimeout: 2000 }), ...servers('55', { failTimeout: 2000 })]
    return new World({ s1: { ...asAncestor, readmit, cluster: [{ servers: first }, ...levels('56')] } })
  }
  rows(s1('fresh'), [
    ['C30: the first call reaches 54', (w) => w.ok('s1', 1), '54'],
    [
      'C31: 54 is out after its second failure, 55 never is, and level 2 is not used while 55 is in',
      (w) => w.failed('s1', 10),
      '55,54,55,54,55,55,55,55,55,55',
    ],
    [
      'C32: after failTimeout 54 is back with a full count of failures (readmit fresh)',
      later((w) => w.failed('s1', 10)),
      '55,54,55,54,55,55,55,55,55,55',
    ],
  ])
  rows(s1('trial'), [
    ['C30 with readmit trial', (w) => w.ok('s1', 1), '54'],
    ['C31 with readmit trial: the ban is the same', (w) => w.failed('s1', 10), '55,54,55,54,55,55,55,55,55,55'],
    [
      // The ancestor gives 54 its full count of failures again: 55,54,55,54,55,55,55,55,55,55.
      'C32 with readmit trial: after failTimeout one failure of 54 takes it out again',
      later((w) => w.failed('s1', 10)),
      '55,54,55,55,55,55,55,55,55,55',
    ],
  ])

  rows(
    () => new World({ s2: { ...asAncestor, ...once, cluster: levels('54 55') } }),
    [
      ['C33: the last one left is never taken out', (w) => w.failed('s2', 5), '54,55,55,55,55'],
      ['C34: the same after failTimeout', later((w) => w.failed('s2', 5)), '55,54,55,55,55'],
    ],
  )
  rows(
    () => new World({ s3: { ...asAncestor, ...once, cluster: levels('54 55', '56') } }),
    [
      ['C35: level 2 when level 1 is empty; its last one stays', (w) => w.failed('s3', 5), '54,55,56,56,56'],
      ['C36: the same after failTimeout', later((w) => w.failed('s3', 5)), '55,54,56,56,56'],
    ],
  )
})

describe('feedbackStatus', () => {
  const first = [...servers('54', once), ...servers('55x'), ...servers('56', once), ...servers('57')]
  const tell = (w: World, port: number) => w.checkups.feedbackStatus('api', { host: '127.0.0.1', port }, true)
  rows(
    () => new World({ api: { ...asAncestor, cluster: [{ servers: first }, ...levels('60x 61x')] } }),
    [
      ['C37: feedback of a failure is taken', (w) => [tell(w, 12_354), tell(w, 12_356)], [true, true]],
      ['C38: what failed is out', (w) => w.ok('api', 2), '57,57'],
    ],
  )
})

describe('status', () => {
  const of54 = ({ checkups }: World) => {
    const status = toCheckupsStatus(checkups.getStatus())['cls:api'] as CheckupsServerStatus[][]
    return status[0]![0]!
  }
  const acm = () => new World({ acm: { ...asAncestor, cluster: levels('34') } })
  rows(acm, [
    [
      'C41: without heartbeats a server is unchecked',
      ({ checkups }) => toCheckupsStatus(checkups.getStatus())['cls:acm'],
      [
        [
          {
            server: 'acm:127.0.0.1:12334',
            status: 'unchecked',
            weight: 1,
            max_fails: 0,
            fail_timeout: 10,
            passive: { state: 'up', failures: 0, bans: 0, remaining: 0 },
          },
        ],
      ],
    ],
  ])
  const clean = { status: 'unchecked', passive: { state: 'up', failures: 0, bans: 0, remaining: 0 } }
  rows(
    () => new World({ api: { ...asAncestor, tries: 2, cluster: levels('54 55 56', '60 61') } }),
    [
      [
        'C43: failures that maxFails 0 does not count do not show',
        async (w) => {
          await w.call('api', fail)
          const { status, passive } = of54(w)
          return { status, passive }
        },
        clean,
      ],
    ],
  )
  rows(
    () => new World({ api: { ...asAncestor, ...once, cluster: levels('54 55 56') } }),
    [
      [
        // The ancestor shows nothing of it at all.
        'C43 with maxFails 1: the word for heartbeats stays, the ban shows beside it',
        async (w) => {
          await w.failed('api', 1)
          await w.clock.advance(500)
          const { status, passive } = of54(w)
          return { status, passive }
        },
        { status: 'unchecked', passive: { state: 'banned', failures: 0, bans: 1, remaining: 1.5 } },
      ],
    ],
  )
})
