/** The ratios that are stated, and which of them a run misses. */
import { Limits } from './output.js'
import type { Results } from './results.js'
import { bareHash, load, ourHashes, ours, SIZES, theirHashes, theirs } from './subjects.js'

export function missed(results: Results): string[] {
  const limits = new Limits()
  const atMost = limits.atMost.bind(limits)
  const handle = (n: number) => results.picks.ns(ours.handle, n)
  atMost(`${ours.handle.name} with 10,000 peers, to 3`, handle(10_000) / handle(3), 1.75, 'times')

  for (const n of SIZES) {
    const size = `with ${n} peers`
    // Those that know health or changes of weight. RoundRobinPool is a rotation over the connections of one origin.
    for (const other of [theirs.undiciBalanced, theirs.grpcRoundRobin, theirs.grpcWeighted]) {
      atMost(`${ours.handle.name} ${size}, beside ${other.name}`, handle(n), results.picks.ns(other, n), 'ns')
    }
    atMost(`${ours.heard.name} ${size}`, results.picks.ns(ours.heard, n) / handle(n), 4, 'times')
    const alias = results.picks.ns(theirs.loadbalanceWeighted, n)
    atMost(`${ours.handle.name} ${size}, to loadbalance`, handle(n) / alias, 2, 'times')
    atMost(
      `${ours.everyPolicy.name} ${size}, to loadbalance`,
      results.picks.ns(ours.everyPolicy, n) / alias,
      3,
      'times',
    )
    atMost(`${ours.key.name} ${size}`, results.picks.ns(ours.key, n), 40, 'ns')
    atMost(`${ours.keyOfThousand.name} ${size}`, results.picks.ns(ours.keyOfThousand, n), 40, 'ns')
    atMost(`${ours.churn.name} ${size}`, results.picks.ns(ours.churn, n), 250, 'ns')
  }

  for (const [kind, { median }] of Object.entries(results.updates)) atMost(`updateUpstream, ${kind}`, median, 10, 'ms')
  atMost(`memory of ${ours.handle.name}`, results.allocation.handle, 0.1, 'bytes')
  atMost(`memory of ${ours.key.name}`, results.allocation.key, 0.1, 'bytes')

  const ketama = (n: number) => results.fresh.ns(ourHashes.ketama, n)
  const fastest = (n: number) => results.picks.ns(load.fastestFirst, n)
  for (const n of SIZES) {
    const size = `with ${n} peers`
    // Both include the making of the key. Beyond 1,000 the ring is larger than the caches.
    const hash = results.fresh.ns(bareHash, n)
    if (n <= 1_000) atMost(`${ourHashes.ketama.name} ${size}, fresh keys, to the hash`, ketama(n) / hash, 2, 'times')
    for (const other of Object.values(theirHashes)) {
      const limit = results.fresh.ns(other, n)
      atMost(`${ourHashes.ketama.name} ${size}, fresh keys, beside ${other.name}`, ketama(n), limit, 'ns')
    }
    atMost(`${load.fastestFirst.name} ${size}, to 3`, fastest(n) / fastest(3), 1.75, 'times')
  }
  const { cold, total, longest } = results.rings
  if (results.quiet) {
    for (const n of SIZES) atMost(`${load.fastestFirst.name} with ${n} peers`, fastest(n), 250, 'ns')
    atMost('a ring of 1,000, first of a process', cold, 60, 'ms')
    atMost('one server more in a ring of 10,000', total, 40, 'ms')
    atMost('one server more in a ring of 10,000, longest piece', longest, 10, 'ms')
  }
  return limits.misses
}
