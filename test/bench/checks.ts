/** The ratios that are stated, and which of them a run misses. */
import type { Results } from './results.js'
import { ours, SIZES, theirs } from './subjects.js'

export function missed(results: Results): string[] {
  const misses: string[] = []
  const atMost = (what: string, value: number, limit: number, unit: string) => {
    // Also where either could not be measured.
    if (!(value <= limit)) misses.push(`${what}: ${value.toFixed(2)} ${unit}, expected at most ${limit.toFixed(2)}`)
  }
  const handle = (n: number) => results.ns(ours.handle, n)
  atMost(`${ours.handle.name} with 10,000 peers, to 3`, handle(10_000) / handle(3), 1.75, 'times')

  for (const n of SIZES) {
    const size = `with ${n} peers`
    // Those that know health or changes of weight. RoundRobinPool is a rotation over the connections of one origin.
    for (const other of [theirs.undiciBalanced, theirs.grpcRoundRobin, theirs.grpcWeighted]) {
      atMost(`${ours.handle.name} ${size}, beside ${other.name}`, handle(n), results.ns(other, n), 'ns')
    }
    const table = results.ns(theirs.loadbalanceWeighted, n)
    atMost(`${ours.handle.name} ${size}, to loadbalance`, handle(n) / table, 2, 'times')
    atMost(`${ours.everyPolicy.name} ${size}, to loadbalance`, results.ns(ours.everyPolicy, n) / table, 3, 'times')
    atMost(`${ours.key.name} ${size}`, results.ns(ours.key, n), 40, 'ns')
    atMost(`${ours.keyOfThousand.name} ${size}`, results.ns(ours.keyOfThousand, n), 40, 'ns')
    atMost(`${ours.churn.name} ${size}`, results.ns(ours.churn, n), 250, 'ns')
  }

  for (const [kind, { median }] of Object.entries(results.updates)) atMost(`updateUpstream, ${kind}`, median, 10, 'ms')
  atMost(`memory of ${ours.handle.name}`, results.allocation.handle, 0.1, 'bytes')
  atMost(`memory of ${ours.key.name}`, results.allocation.key, 0.1, 'bytes')
  return misses
}
