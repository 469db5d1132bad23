import { describe, expect, it } from 'vitest'
import { asAncestor, fail, levels, NO_PEER, rows, servers, status502, TRIES_EXCEEDED, World } from './support.js'
import type { Answer } from './support.js'

const api = (first = '54 55 56', second = '60 61') =>
  new World({ api: { ...asAncestor, tries: 2, cluster: levels(first, second) } })

const returnsFalse: Answer = () => false
const throwsMaxTry: Answer = () => {
  throw new Error('max try exceeded')
}

// The ancestor returns the last error of the callback at the try limit; here every attempt's error is in the one thrown.
const maxTryExceeded = (tried: string) => ({
  tried,
  code: TRIES_EXCEEDED,
  errors: ['max try exceeded', 'max try exceeded'],
})

describe('the try limit', () => {
  rows(api, [
    [
      // In the ancestor this callback returns nothing, which fails there and is a success here.
      'C03: a failing callback is tried on two servers, then the limit stops it',
      (w) => w.call('api', returnsFalse),
      { tried: '54,55', code: TRIES_EXCEEDED, errors: ['reported as failed', 'reported as failed'] },
    ],
    [
      'C04: without maxFails those that failed stay in; 54 is not among the next three',
      (w) => w.ok('api', 3),
      '56,55,56',
    ],
  ])
  rows(api, [
    ['C05: the errors of the callback come back', (w) => w.call('api', throwsMaxTry), maxTryExceeded('54,55')],
    ['C06: the second call goes on with 56', (w) => w.call('api', throwsMaxTry), maxTryExceeded('56,55')],
    ['C07: and then two that succeed', (w) => w.ok('api', 2), '54,55'],
  ])
  rows(
    () => api('54 55 56x', '60 61x'),
    [
      ['C08: with 56 dead', (w) => w.call('api', throwsMaxTry), maxTryExceeded('54,55')],
      ['C09: the order is flipped, and 56 never tried', (w) => w.call('api', throwsMaxTry), maxTryExceeded('55,54')],
      ['C10: and then two that succeed', (w) => w.ok('api', 2), '54,55'],
    ],
  )
  rows(
    () => new World({ api: { ...asAncestor, cluster: levels('54 55x 56 57x', '60x 61x'), statuses: { 502: false } } }),
    [
      [
        // The ancestor returns the table {status = 502} and no error, which looks like a success.
        'C25: a result whose status counts as failed is a failure',
        (w) => w.call('api', status502, { tries: 2 }),
        { tried: '54,56', code: TRIES_EXCEEDED, errors: ['status 502', 'status 502'] },
      ],
    ],
  )
})

describe('levels and clusters', () => {
  const failures = (tried: string, count: number) => ({
    tried,
    code: NO_PEER,
    errors: Array.from({ length: count }, () => 'failed'),
  })
  const twoLevels = () => new World({ rr: { ...asAncestor, tries: 8, cluster: levels('x2 E3 F2', 'x3 H2 x2') } })
  rows(twoLevels, [
    [
      'C13: all that live in level 1, then level 2; the dead never',
      (w) => w.call('rr', fail).then(({ tried }) => tried),
      'EFH',
    ],
    ['C14: four more calls', (w) => w.calls('rr', 4, fail), ['FEH', 'EFH', 'FEH', 'EFH']],
  ])
  rows(twoLevels, [
    ['C15: having tried everybody ends the call before its limit of 8', (w) => w.call('rr', fail), failures('EFH', 3)],
  ])

  const clusterKey = ['c1', 'c2']
  const clusters = (c1: string, c2: string) => () =>
    new World({
      rr: { ...asAncestor, tries: 6, cluster: { c1: { servers: servers(c1) }, c2: { servers: servers(c2) } } },
    })
  rows(clusters('x2 E3 F2', 'x3 H1 x2'), [
    [
      'C17: clusters are tried in the order of clusterKey',
      (w) => w.calls('rr', 5, fail, { clusterKey }),
      ['EFH', 'FEH', 'EFH', 'FEH', 'EFH'],
    ],
    [
      'C17, then with the order turned round',
      (w) => w.calls('rr', 2, fail, { clusterKey: ['c2', 'c1'] }),
      ['HEF', 'HFE'],
    ],
  ])
  rows(clusters('x3000 x3200000 F1', 'x3 H1 x2'), [
    [
      'C18: great weights of the dead do not delay the living',
      (w) => w.call('rr', fail, { clusterKey }),
      failures('FH', 2),
    ],
  ])
  rows(() => {
    const cluster = { c1: { servers: servers('54 55x 56 57x') }, c2: { servers: servers('55x 56 57x 54') } }
    return new World({ api: { ...asAncestor, tries: 5, statuses: { 500: false, 501: false, 502: false }, cluster } })
  }, [
    [
      'C21, C22: an address that failed in one cluster may be tried again in another',
      (w) => w.call('api', status502, { clusterKey }),
      { tried: '54,56,56,54', code: NO_PEER, errors: ['status 502', 'status 502', 'status 502', 'status 502'] },
    ],
  ])
})

describe('the time limit', () => {
  const slow: Readonly<Record<string, { takes: number; status: number }>> = {
    58: { takes: 2000, status: 502 },
    59: { takes: 2000, status: 502 },
    60: { takes: 1000, status: 502 },
    61: { takes: 1000, status: 200 },
  }
  const limited = (timeout?: number) =>
    new World({
      api: { ...asAncestor, tries: 6, cluster: levels('58 59 60 61'), ...(timeout === undefined ? {} : { timeout }) },
    })

  /** The call, and the time at which it came back; its callback goes on as long as the server takes. */
  const timed = async (world: World, options = {}) => {
    const call = world.call(
      'api',
      async (name) => {
        const { takes, status } = slow[name]!
        await world.clock.sleep(takes)
        return { status }
      },
      options,
    )
    const ended = call.then((result) => ({ ...result, at: world.clock.now() }))
    await world.clock.advance(10_000)
    return ended
  }

  // The ancestor looks at the limit after each attempt, and so comes back after the 5 s that three of them take.
  const interrupted = {
    tried: '58,59,60',
    code: 'ERR_CHECKUPS_TIMEOUT',
    errors: ['status 502', 'status 502', 'no answer within 4100 ms'],
    at: 4100,
  }

  it('C27: the limit of the upstream ends the call during the third attempt', async () => {
    expect(await timed(limited(4100))).toEqual(interrupted)
  })

  it('C28: the limit of the call does the same', async () => {
    expect(await timed(limited(), { timeout: 4100 })).toEqual(interrupted)
  })

  it('C27, by its signal: the third attempt is told to stop', async () => {
    const world = limited(4100)
    const aborted: string[] = []
    const call = world.call('api', async (name, { signal }) => {
      signal.addEventListener('abort', () => aborted.push(`${name} at ${world.clock.now()}`))
      await world.clock.sleep(slow[name]!.takes)
      return { status: slow[name]!.status }
    })
    await world.clock.advance(10_000)
    await call
    expect(aborted).toEqual(['60 at 4100'])
  })

  it('C29: 0 is no limit, also where the upstream has one', async () => {
    const answered = { tried: '58,59,60,61', result: { status: 200 }, at: 6000 }
    expect(await timed(limited(), { timeout: 0 })).toEqual(answered)
    expect(await timed(limited(4100), { timeout: 0 })).toEqual(answered)
  })
})
