import { describe } from 'vitest'
import { asAncestor, codeOf, levels, NO_PEER, rows, UNKNOWN, World } from './support.js'

/** The ancestor's workers see a change within 0.5 s, here the next pick does: no row waits. */
const dynamic = () => {
  const options = { ...asAncestor, tries: 2 }
  return new World({
    ups1: { ...options, cluster: levels('', '') },
    ups2: { ...options, cluster: levels('50', '') },
    // The ancestor imports these from an nginx upstream; level 2 are its backups.
    ups3: { ...options, cluster: levels('50 51', '52 53') },
  })
}

/** Whom `count` calls reach after the update. */
const update = (key: string, spec: string, count: number) => async (w: World) => {
  await w.checkups.updateUpstream(key, levels(spec))
  return w.ok(key, count)
}
const remove = (key: string) => (w: World) => w.checkups.deleteUpstream(key)
const removing = (key: string) => (w: World) => codeOf(w.checkups.deleteUpstream(key))
const calling = (key: string) => (w: World) => codeOf(w.checkups.readyOk(key, () => true))
const removeAndCall = (key: string) => async (w: World) => {
  await remove(key)(w)
  return calling(key)(w)
}

describe('updates of the cluster', () => {
  rows(dynamic, [
    ['C60: empty levels have nobody, which is not an unknown key', calling('ups1'), NO_PEER],
    ['C60, by its reason', ({ checkups }) => checkups.unavailableReason('ups1'), 'empty'],
    ['C61: the first server of an upstream that was empty', update('ups1', '53', 1), '53'],
    ['C62: a second server', update('ups1', '53 50', 2), '53,50'],
    ['C63: the same list is no error', update('ups2', '50', 1), '50'],
    ['C64: a second server beside one that has been picked', update('ups2', '50 51', 2), '50,51'],
  ])
  rows(dynamic, [
    ['C73: four servers', update('ups2', '50 51 52 53', 4), '50,51,52,53'],
    ['C73, by selectPeer', (w) => w.select('ups2', 4), '50,51,52,53'],
  ])
  rows(dynamic, [
    ['C81: two servers', update('new_ups', '50 51', 2), '50,51'],
    [
      'C81: and two more, at the end of a cycle, where going on and beginning anew are the same',
      update('new_ups', '50 51 52 53', 6),
      '50,51,52,53,50,51',
    ],
  ])
  rows(dynamic, [
    ['C81, in the middle of a cycle', update('new_ups', '50 51', 1), '50'],
    [
      // The ancestor begins anew: 50,51,52,53,50.
      'C81, in the middle of a cycle: 50 and 51 keep their place',
      update('new_ups', '50 51 52 53', 5),
      '51,52,53,50,51',
    ],
  ])
})

describe('deleting and making anew', () => {
  rows(dynamic, [
    ['C65: deleting what never was is an error', removing('ups5'), UNKNOWN],
    ['C66: a deleted upstream is unknown', removeAndCall('ups2'), UNKNOWN],
    ['C67: an update makes it again', update('ups2', '50 51', 2), '50,51'],
    ['C68: level 1 only, written out', (w) => w.ok('ups3', 4), '50,51,50,51'],
    ['C69: a deleted upstream with backups is unknown', removeAndCall('ups3'), UNKNOWN],
    ['C70: and made again with what were its backups', update('ups3', '52 53', 2), '52,53'],
  ])
  rows(dynamic, [
    ['C71: unknown, once', removeAndCall('ups3'), UNKNOWN],
    ['C71: and again', calling('ups3'), UNKNOWN],
    ['C72: made again with one server', update('ups3', '52', 2), '52,52'],
  ])
  rows(dynamic, [
    ['C74: an upstream before it is made', calling('new_ups'), UNKNOWN],
    ['C75: an update makes it', update('new_ups', '50 51 52 53', 5), '50,51,52,53,50'],
  ])
  rows(dynamic, [
    ['C76: deleting it before it is made', removing('new_ups'), UNKNOWN],
    [
      'C77: update, delete and delete without waiting',
      async ({ checkups }) => {
        const results = await Promise.all([
          codeOf(checkups.updateUpstream('new_ups', levels('50 51 52 53'))),
          codeOf(checkups.deleteUpstream('new_ups')),
          codeOf(checkups.deleteUpstream('new_ups')),
        ])
        return results
      },
      ['no error', 'no error', UNKNOWN],
    ],
    ['C78: unknown then, once', calling('new_ups'), UNKNOWN],
    ['C78: and again', calling('new_ups'), UNKNOWN],
    ['C79: made again, in another order', update('new_ups', '52 53 50', 3), '52,53,50'],
    ['C80: and deleted again', removeAndCall('new_ups'), UNKNOWN],
    ['C82: made again with two servers', update('new_ups', '52 53', 2), '52,53'],
  ])
})

describe('updates of the options', () => {
  const whole = { ...asAncestor, tries: 3, statuses: { 404: false }, cluster: levels('55 56', '60 61') }
  /** Whom four calls reach after an update of everything. */
  const make =
    (options = {}) =>
    async (w: World) => {
      await w.checkups.updateUpstream('dyconfig', { ...whole, ...options })
      return w.ok('dyconfig', 4, { hashKey: '/ab' })
    }
  const options = ({ checkups }: World) => {
    const { tries, statuses } = checkups.getUpstream('dyconfig')!
    return { tries, statuses }
  }
  const empty = () => new World()
  rows(empty, [
    ['C84: a whole configuration makes an upstream; round robin ignores the hash key', make(), '55,56,55,56'],
    // C87 itself is about the mode hash.
    ['C87, by other options: a whole configuration brings them', options, { tries: 3, statuses: { 404: false } }],
    ['C87, by other options: then only the cluster is updated', update('dyconfig', '60 61', 4), '60,61,60,61'],
    ['C87, by other options: the options are kept', options, { tries: 3, statuses: { 404: false } }],
  ])
  rows(empty, [
    ['C88: round robin', make(), '55,56,55,56'],
    [
      'C89: a whole configuration with other statuses, and with 55 dead',
      make({ statuses: { 500: false, 501: false, 502: false }, cluster: levels('55x 56', '60 61') }),
      '56,56,56,56',
    ],
    ['C89: the old options are gone', options, { tries: 3, statuses: { 500: false, 501: false, 502: false } }],
    [
      'C89, then a whole configuration that names no options',
      (w) => w.checkups.updateUpstream('dyconfig', { servers: ['a:1'] }).then(() => options(w)),
      { tries: 0, statuses: {} },
    ],
  ])
})
