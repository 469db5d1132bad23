/** The tables, for a terminal or for the README. */
import { machine, table, type Row } from './output.js'
import type { Results, Timings } from './results.js'
import {
  bareHash,
  bareKey,
  floor,
  load,
  ourHashes,
  ours,
  remembered,
  SIZES,
  theirHashes,
  theirs,
  type Sized,
} from './subjects.js'

export function report(results: Results): string {
  const groups = { ...ours, ...theirs }
  const hashes = [...Object.values(ourHashes), ...Object.values(theirHashes), bareHash, bareKey]
  const parts = [
    `${machine()}. Medians of rounds, each in a process of its own; the loop alone is ` +
      `${nanoseconds(results.picks.ns(floor, 3))} ns of every pick.`,
    timings('ns per pick', Object.values(groups), results.picks),
    timings("ns per acquirePeer() + done('ok')", Object.values(load), results.picks),
    timings('ns per pick by a fresh key of 12 characters, its making included', hashes, results.fresh),
    timings('ns per pick by one of 1,000 hot keys', hashes, results.hot),
    changes(results),
    rings(results),
    allocation(results),
    memory(results),
    ...results.failures.map((failure) => `–: ${failure}`),
  ]
  return parts.join('\n\n')
}

function timings(what: string, subjects: readonly Sized[], measured: Timings): string {
  const row = (subject: Sized): Row => [subject.name, ...SIZES.map((n) => nanoseconds(measured.ns(subject, n)))]
  return table([[`${what}, by number of peers`, ...SIZES.map((n) => n.toLocaleString('en'))], ...subjects.map(row)])
}

function changes({ updates }: Results): string {
  const head = ['updateUpstream with 10,000 peers, ms of event loop', 'median of 20', 'longest', 'first of a process']
  const row = (kind: string, times: readonly number[]): Row => [kind, ...times.map((ms) => ms.toFixed(1))]
  const rows = Object.entries(updates).map(([kind, { median, longest, first }]) => row(kind, [median, longest, first]))
  return table([head, ...rows])
}

function rings({ rings: { cold, warm, total, piece, longest } }: Results): string {
  const row = (what: string, ms: number): Row => [what, ms.toFixed(1)]
  return table([
    ['consistent-hash, ms of event loop', 'ms'],
    row('a ring of 1,000 from nothing, first of a process', cold),
    row('the same, later', warm),
    row('one peer more in 10,000, until it is picked', total),
    row('the same, longest piece', piece),
    row('the same, longest piece ever', longest),
  ])
}

function allocation({ allocation: { handle, key } }: Results): string {
  const row = ({ name }: Sized, bytes: number): Row => [name, bytes.toFixed(bytes < 1 ? 3 : 0)]
  const head = ['heap growth over 1,000,000 picks', 'bytes per pick']
  return table([head, row(ours.handle, handle), row(ours.key, key)])
}

function memory(results: Results): string {
  const row = (subject: Sized): Row => [subject.name, Math.round(results.memory(subject)).toLocaleString('en')]
  return table([['memory with 1,000 peers, after 30,000 picks', 'bytes per peer'], ...remembered.map(row)])
}

/** Three figures. */
function nanoseconds(ns: number): string {
  if (Number.isNaN(ns)) return '–'
  if (ns >= 9_999.5) return `${(ns / 1_000).toPrecision(3)} µs`
  return ns < 99.95 ? ns.toFixed(1) : Math.round(ns).toLocaleString('en')
}
