/**
 * What the ancestor's rows say of heartbeats. Its servers are checked in rounds, and the last round decides; here each has its
 * own time, and what was found of each decides. Dead servers are in the other files, with what is tried in their place.
 */
import { describe, expect } from 'vitest'
import type { HeartbeatSchedule, UpstreamOptions } from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'
import {
  asAncestor,
  beats,
  fail,
  levels,
  NO_PEER,
  refuse,
  refusing,
  rows,
  servers,
  status502,
  World,
} from './support.js'
import type { Beat } from './support.js'

const API: UpstreamOptions = { ...asAncestor, tries: 2, cluster: levels('54 55 56', '60 61') }
const api = (answer: Beat, options?: HeartbeatSchedule) =>
  new World({ api: { ...API, heartbeat: beats(answer, options) } })

const down = { status: 'err', message: 'down' } as const
const lags = { status: 'unstable', message: 'lags' } as const

/** A later beat. */
const beaten = (run: (world: World) => unknown) => async (world: World) => {
  await world.beaten(1)
  return run(world)
}

/** The web servers of the rows: 54 answers 200, 55 502, 56 404, 57 after 3 s, and the others refuse. */
function web(upstream: UpstreamOptions, options?: HeartbeatSchedule): World {
  const clock = new VirtualClock()
  const answers: Readonly<Record<string, number>> = { 54: 200, 55: 502, 56: 404, 57: 200 }
  const answer: Beat = async (name) => {
    if (name === '57') await clock.sleep(3000)
    const status = answers[name] ?? refuse()
    return { status: status === 502 ? 'err' : 'ok', message: status === 502 ? 'bad status code' : undefined }
  }
  return new World({ api: { ...asAncestor, ...upstream, heartbeat: beats(answer, options) } }, clock)
}

/** A server in order, as status shows it. */
const shownOk = (name: string) => ({
  server: `api:127.0.0.1:123${name}`,
  status: 'ok',
  msg: null,
  fail_num: 0,
  lastmodified: undefined,
  weight: 1,
  max_fails: 0,
  fail_timeout: 10,
  passive: { state: 'up', failures: 0, bans: 0, remaining: 0 },
})

describe('what is found', () => {
  rows(
    () => api(refusing('60', '61')),
    [
      [
        // The ancestor logs them in this order, which here is that of their times.
        'C02: after the first beat exactly 60 and 61 have refused',
        (w) => w.words('api'),
        [
          ['ok', 'ok', 'ok'],
          ['err connection refused', 'err connection refused'],
        ],
      ],
    ],
    1,
  )
  rows(
    () => {
      const acm = { ...asAncestor, cluster: levels('34'), heartbeat: beats(refuse, { enable: false }) }
      return new World({ api: { ...API, heartbeat: beats(refusing('56', '61')) }, acm })
    },
    [
      [
        'C40: what is found stands in status, with what went wrong',
        (w) => w.words('api'),
        [
          ['ok', 'ok', 'err connection refused'],
          ['ok', 'err connection refused'],
        ],
      ],
      ['C41: with enable false nothing is found', (w) => w.words('acm'), [['unchecked']]],
      ['C41: and everybody is used', (w) => w.ok('acm', 2), '34,34'],
    ],
    1,
  )
  rows(
    () => api(refusing('56', '61')),
    [
      [
        'C43: failures of requests that maxFails 0 does not count leave it alone',
        async (w) => {
          const { tried } = await w.call('api', fail)
          const [{ status, msg, fail_num }] = w.shown('api')[0] as [object] & { [0]: Record<string, unknown> }
          return { tried, status, msg, fail_num }
        },
        { tried: '54,55', status: 'ok', msg: null, fail_num: 0 },
      ],
    ],
    1,
  )
})

describe('what else status shows', () => {
  const found = { status: 'ok', redis_version: '7.2.4', role: 'slave', server: 'none of its business' } as const
  rows(
    () => api((name) => (name === '54' ? found : true)),
    [
      [
        '3.1.8: what a check has learnt stands beside, and in the place of nothing',
        (w) => {
          const [first, second] = w.shown('api')[0]!.map((server) => ({ ...server, lastmodified: undefined }))
          return [first, second]
        },
        [{ ...shownOk('54'), redis_version: '7.2.4', role: 'slave' }, { ...shownOk('55') }],
      ],
      [
        'it stays when a later check learns nothing',
        beaten((w) => w.shown('api')[0]![0]),
        expect.objectContaining({ redis_version: '7.2.4', lastmodified: expect.any(String) as string }),
      ],
    ],
    1,
  )
})

describe('web servers', () => {
  const clusterKey = ['c1', 'c2']
  const named = { c1: { servers: servers('54 55 56 57') }, c2: { servers: servers('55 56 57 54') } }
  const found = ['ok', 'err bad status code', 'ok', 'err timeout after 2000 ms']
  rows(
    () => web({ cluster: named, tries: 5, statuses: { 500: false, 501: false, 502: false } }, { timeout: 2000 }),
    [
      ['C19: 55 has a bad status, 57 hangs, 404 is alive', (w) => w.ok('api', 3, { clusterKey }), '54,56,54'],
      [
        // The ancestor checks 57 once for every cluster that names it.
        'C20: that 57 hangs is found for both clusters',
        (w) => (w.shown('api') as unknown as Record<string, { msg: string }[]>)['c2']!.map(({ msg }) => msg),
        [found[1]!.slice(4), null, found[3]!.slice(4), null],
      ],
    ],
    2,
  )
  rows(
    () => web({ cluster: named, tries: 5, statuses: { 500: false, 501: false, 502: false } }, { timeout: 2000 }),
    [
      [
        'C21, C22: who is alive is tried in both clusters',
        (w) => w.call('api', status502, { clusterKey }).then(({ tried, code }) => [tried, code]),
        ['54,56,56,54', NO_PEER],
      ],
    ],
    2,
  )
  const two = { cluster: levels('54 55 56 57', '60 61'), statuses: { 502: false } }
  rows(
    () => web(two, { timeout: 2000 }),
    [
      ['C23: 404 counts as alive', (w) => w.ok('api', 2), '54,56'],
      [
        'C24: 57 hangs, 60 and 61 refuse',
        (w) => w.words('api'),
        [found, ['err connection refused', 'err connection refused']],
      ],
    ],
    2,
  )
  rows(
    () => web(two, { timeout: 2000 }),
    [
      [
        'C25: a bad status of a request fails it, too',
        (w) => w.call('api', status502, { tries: 2 }).then(({ tried }) => tried),
        '54,56',
      ],
    ],
    2,
  )

  const once = { maxFails: 1, failTimeout: 60_000 }
  const first = [
    ...servers('54', once),
    ...servers('55'),
    ...servers('56', once),
    ...servers('57', { failTimeout: 60_000 }),
  ]
  const failed = (w: World, port: number) => w.checkups.feedbackStatus('api', { host: '127.0.0.1', port }, true)
  rows(
    () => web({ cluster: [{ servers: first }, ...levels('60 61')] }),
    [
      ['C37: feedback of a failure is taken', (w) => [failed(w, 12_354), failed(w, 12_356)], [true, true]],
      ['C38: what failed, and what is found dead, is out', (w) => w.ok('api', 2), '57,57'],
      [
        'C39: 57, slow, but not beyond the timeout of 5 s, is fine',
        (w) => w.words('api'),
        [
          ['ok', 'err bad status code', 'ok', 'ok'],
          ['err connection refused', 'err connection refused'],
        ],
      ],
    ],
    3,
  )
})

describe('sensibility', () => {
  const fails = (w: World) => w.shown('api').map((level) => level.map(({ fail_num }) => fail_num))
  rows(
    () => api(refusing('56', '61'), { fall: undefined, sensibility: 2 }),
    [
      [
        'C46: after the first beat nobody is out, and what went wrong is shown',
        (w) => [w.words('api'), fails(w)],
        [
          [
            ['ok', 'ok', 'ok connection refused'],
            ['ok', 'ok connection refused'],
          ],
          [
            [0, 0, 1],
            [0, 1],
          ],
        ],
      ],
      [
        'C47: after the second they are',
        beaten((w) => [w.words('api'), fails(w)]),
        [
          [
            ['ok', 'ok', 'err connection refused'],
            ['ok', 'err connection refused'],
          ],
          [
            [0, 0, 2],
            [0, 2],
          ],
        ],
      ],
    ],
    1,
  )
})

describe('when all are out', () => {
  const firstKept = [
    ['unstable down', 'err down', 'err down'],
    ['err down', 'err down'],
  ]
  rows(
    () => api(() => down),
    [
      ['C48: the first one is used alone', (w) => w.ok('api', 2), '54,54'],
      ['C49: and is unstable; the others are err', (w) => w.words('api'), firstKept],
    ],
    1,
  )
  rows(
    () => {
      let checks = 0
      return api(() => checks++ === 0 || down)
    },
    [
      ['C50: also where it was alive once', (w) => w.ok('api', 2), '54,54'],
      ['C51: and is unstable; the others are err', (w) => w.words('api'), firstKept],
    ],
    6,
  )
  rows(
    () => new World({ api: { ...API, protected: false, heartbeat: beats(() => down) } }),
    [
      [
        'C52: without protection nobody is used',
        async (w) => [await w.call('api', () => true), await w.call('api', () => true)],
        [
          { tried: '', code: NO_PEER, errors: [] },
          { tried: '', code: NO_PEER, errors: [] },
        ],
      ],
      [
        'C53: and all are err',
        (w) => w.words('api'),
        [
          ['err down', 'err down', 'err down'],
          ['err down', 'err down'],
        ],
      ],
    ],
    1,
  )
})

describe('protected, unstable and sensibility (3.1.5)', () => {
  /** Servers of one level by what they answer: `o` ok, `u` unstable, `e` err; what status and six picks make of it. */
  const round =
    (spec: string, upstream: UpstreamOptions = {}, options?: HeartbeatSchedule) =>
    () => {
      const letters: Readonly<Record<string, ReturnType<Beat>>> = { o: true, u: lags, e: down }
      const names = Array.from(spec, (_, i) => `5${i}`)
      const heartbeat = beats((name) => letters[spec.charAt(names.indexOf(name))]!, options)
      return new World({ api: { ...asAncestor, cluster: levels(names.join(' ')), ...upstream, heartbeat } })
    }
  const outcome = async (w: World) => {
    const used = [...new Set((await w.ok('api', 6)).split(','))].sort().join(' ')
    const [words] = w.words('api')
    return { words, used: w.checkups.selectPeer('api') === undefined ? '' : used }
  }
  rows(
    round('oeu'),
    [['any ok: others are err, unstable ones, too', outcome, { words: ['ok', 'err down', 'err lags'], used: '50' }]],
    1,
  )
  rows(
    round('eee'),
    [
      [
        'all err, protected: the first is unstable',
        outcome,
        { words: ['unstable down', 'err down', 'err down'], used: '50' },
      ],
    ],
    1,
  )
  rows(
    round('eee', { protected: false }),
    [['all err, not protected: all are err', outcome, { words: ['err down', 'err down', 'err down'], used: '' }]],
    1,
  )
  rows(
    round('uuu'),
    [
      [
        'all unstable: all are used',
        outcome,
        { words: ['unstable lags', 'unstable lags', 'unstable lags'], used: '50 51 52' },
      ],
    ],
    1,
  )
  rows(
    round('eueu'),
    [
      [
        'err and unstable, none ok: the unstable are used',
        outcome,
        { words: ['err down', 'unstable lags', 'err down', 'unstable lags'], used: '51 53' },
      ],
    ],
    1,
  )

  const script = 'o,e,e,o,e,o,e,e,e'.split(',')
  const scripted = () => {
    let checks = 0
    return new World({
      api: {
        ...asAncestor,
        cluster: levels('54 55'),
        heartbeat: beats((name) => name === '55' || script[checks++] === 'o' || down, {
          fall: undefined,
          sensibility: 2,
        }),
      },
    })
  }
  const after = (beat: number, expected: string, fails: number) =>
    [
      `sensibility 2: beat ${beat} of ${script.join('')} gives ${expected}`,
      (w: World) => w.beaten(1).then(() => [w.words('api')[0]![0], w.shown('api')[0]![0]!.fail_num]),
      [expected, fails],
    ] as const
  rows(scripted, [
    after(1, 'ok', 0),
    after(2, 'ok down', 1),
    after(3, 'err down', 2),
    after(4, 'ok', 0),
    after(5, 'ok down', 1),
    after(6, 'ok', 0),
    after(7, 'ok down', 1),
    after(8, 'err down', 2),
    after(9, 'err down', 3),
  ])
})

describe('with a hash and with updates', () => {
  const answer502: Beat = (name) => name !== '55' || { status: 'err', message: 'bad status code' }
  const hash: UpstreamOptions = {
    ...asAncestor,
    balancer: 'consistent-hash',
    cluster: levels('54 55 56', '60 61'),
    heartbeat: beats(answer502),
  }
  const keys = ['/ab', '/ab', '/abc', '/abc', '/abcd', '/abcd', '/1', '/1']
  /** Whom each key reaches, in pairs. */
  const pairs = async (w: World) => {
    const names: string[] = []
    for (const hashKey of keys) names.push(await w.ok('api', 1, { hashKey }))
    return names
  }
  /** Every key stays with one server, and none is with a dead one or on the second level. */
  const sticky = async (w: World) => {
    const names = await pairs(w)
    return {
      stays: keys.every((key, i) => names[keys.indexOf(key)] === names[i]),
      alive: names.every((name) => name === '54' || name === '56'),
    }
  }
  // Which server has a key is the ancestor's hash, of which design takes none of its skew.
  rows(() => new World({ api: hash }), [['C26: a key stays with its server', sticky, { stays: true, alive: true }]], 1)

  const plain: UpstreamOptions = {
    ...asAncestor,
    tries: 3,
    cluster: levels('55 56', '60 61'),
    heartbeat: beats(() => true),
  }
  rows(
    () => new World({ api: plain }),
    [
      ['C84: with round robin a key is ignored', (w) => w.ok('api', 4, { hashKey: '/ab' }), '55,56,55,56'],
      [
        'C85: an update of everything brings the hash, and 55 is found dead at once',
        async (w) => {
          await w.checkups.updateUpstream('api', hash)
          await w.clock.advance(0)
          return sticky(w)
        },
        { stays: true, alive: true },
      ],
    ],
    1,
  )
  rows(
    () => new World({ api: hash }),
    [
      ['C86: the hash first', sticky, { stays: true, alive: true }],
      [
        'C87: then only the cluster is updated: hash and heartbeats stay',
        async (w) => {
          await w.checkups.updateUpstream('api', levels('55 56', '60 61'))
          return pairs(w)
        },
        keys.map(() => '56'),
      ],
    ],
    1,
  )
  rows(
    () => new World({ api: plain }),
    [
      ['C88: round robin, all alive', (w) => w.ok('api', 4), '55,56,55,56'],
      [
        'C89: a whole update whose heartbeats mind a 502',
        async (w) => {
          await w.checkups.updateUpstream('api', { ...plain, heartbeat: beats(answer502) })
          await w.beaten(1)
          return w.ok('api', 4)
        },
        '56,56,56,56',
      ],
    ],
    1,
  )
})
