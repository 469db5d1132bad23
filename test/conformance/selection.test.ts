import { describe } from 'vitest'
import { asAncestor, levels, nameOf, rows, servers, World, write } from './support.js'

const api = () => new World({ api: { ...asAncestor, tries: 2, cluster: levels('54 55 56', '60 61') } })

describe('equal weights', () => {
  rows(api, [
    ['C01: equal weights rotate in list order', (w) => w.ok('api', 6), '54,55,56,54,55,56'],
    ['C01, then by selectPeer: it goes on', (w) => w.select('api', 6), '54,55,56,54,55,56'],
  ])
  rows(
    () => new World({ one: { ...asAncestor, cluster: levels('50') } }),
    [['C11: one server without options', (w) => w.ok('one', 3), '50,50,50']],
  )
})

describe('weights', () => {
  const weighted = () => new World({ rr: { ...asAncestor, cluster: levels('A1 B4 C3 E6') } })
  const twice = 'EBCEBEACEBECBE' + 'EBCEBEACEBECBE'
  rows(weighted, [
    ['C12: the exact sequence of smooth weighted round robin, from its start', (w) => w.ok('rr', 28), twice],
    ['C12, then by selectPeer: the cycle repeats', (w) => w.select('rr', 28), twice],
    [
      'C12, then by acquirePeer: the cycle repeats',
      ({ checkups }) =>
        write(
          Array.from({ length: 28 }, () => {
            using pick = checkups.acquirePeer('rr')!
            return nameOf(pick.peer)
          }),
        ),
      twice,
    ],
  ])

  const named = () => new World({ rr: { ...asAncestor, cluster: { c1: { servers: servers('A1 B2 C3') } } } })
  rows(named, [
    ['C16: a named cluster', (w) => w.ok('rr', 18, { clusterKey: ['c1'] }), 'CBACBC' + 'CBACBC' + 'CBACBC'],
    ['C16, then with its name as a string', (w) => w.ok('rr', 6, { clusterKey: 'c1' }), 'CBACBC'],
  ])
})

describe('dead servers', () => {
  const clusterKey = ['c1', 'c2']
  const clusters = { c1: { servers: servers('54 55x 56 57x') }, c2: { servers: servers('55x 56 57x 54') } }
  rows(
    () => new World({ api: { ...asAncestor, cluster: clusters } }),
    [['C19: the dead ones of the first cluster are passed over', (w) => w.ok('api', 3, { clusterKey }), '54,56,54']],
  )

  rows(
    () => new World({ api: { ...asAncestor, cluster: levels('54 55x 56 57x', '60x 61x') } }),
    [['C23: the dead ones of the first level are passed over', (w) => w.ok('api', 2), '54,56']],
  )
})
