/** The tables, for a terminal or for the README. */
import { cpus } from 'node:os'
import type { Results } from './results.js'
import { floor, ours, SIZES, theirs, type Subject } from './subjects.js'

type Row = readonly string[]
type Table = (rows: readonly Row[]) => string

export function report(results: Results, rounds: number, markdown: boolean): string {
  const table = markdown ? markdownTable : textTable
  const parts = [
    `${machine()}. Medians of ${rounds} rounds, each in a process of its own; the loop alone is ` +
      `${nanoseconds(results.ns(floor, 3))} ns of every pick.`,
    picks(results, table),
    changes(results, table),
    memory(results, table),
    ...results.failures.map((failure) => `–: ${failure}`),
  ]
  return parts.join('\n\n')
}

function picks(results: Results, table: Table): string {
  const row = (subject: Subject): Row => [subject.name, ...SIZES.map((n) => nanoseconds(results.ns(subject, n)))]
  const head = ['ns per pick, by number of peers', ...SIZES.map((n) => n.toLocaleString('en'))]
  return table([head, ...Object.values(ours).map(row), ...Object.values(theirs).map(row)])
}

function changes({ updates }: Results, table: Table): string {
  const head = ['updateUpstream with 10,000 peers, ms of event loop', 'median of 20', 'longest', 'first of a process']
  const row = (kind: string, times: readonly number[]): Row => [kind, ...times.map((ms) => ms.toFixed(1))]
  const rows = Object.entries(updates).map(([kind, { median, longest, first }]) => row(kind, [median, longest, first]))
  return table([head, ...rows])
}

function memory({ allocation }: Results, table: Table): string {
  const row = ({ name }: Subject, bytes: number): Row => [name, bytes.toFixed(bytes < 1 ? 3 : 0)]
  const { handle, key, acquire } = allocation
  const head = ['heap growth over 1,000,000 picks', 'bytes per pick']
  return table([head, row(ours.handle, handle), row(ours.key, key), row(ours.acquire, acquire)])
}

function machine(): string {
  const all = cpus()
  const date = new Date().toISOString().slice(0, 10)
  return `${all[0]?.model.trim() ?? 'unknown processor'}, ${all.length} cores, Node ${process.versions.node}, ${date}`
}

/** Three figures. */
function nanoseconds(ns: number): string {
  if (Number.isNaN(ns)) return '–'
  if (ns >= 9_999.5) return `${(ns / 1_000).toPrecision(3)} µs`
  return ns < 99.95 ? ns.toFixed(1) : Math.round(ns).toLocaleString('en')
}

function textTable(rows: readonly Row[]): string {
  const widths = rows[0]!.map((_, column) => Math.max(...rows.map((row) => row[column]!.length)))
  const line = (row: Row) =>
    row.map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!))).join('  ')
  return rows.map(line).join('\n')
}

function markdownTable([head, ...rows]: readonly Row[]): string {
  const line = (row: Row) => `| ${row.join(' | ')} |`
  return [line(head!), line(head!.map((_, column) => (column === 0 ? '---' : '--:'))), ...rows.map(line)].join('\n')
}
