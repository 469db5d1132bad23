/** What the benchmarks share: their options, the machine they ran on, tables, and the verdict. */
import { cpus, loadavg } from 'node:os'
import { parseArgs } from 'node:util'

/** `--markdown`: tables for the README and the docs. `--check`: a run that misses a limit fails. */
export const { check = false, markdown = false } = parseArgs({
  options: { check: { type: 'boolean' }, markdown: { type: 'boolean' } },
}).values

/** Of the last minute: below it nobody else uses the machine, and times can be held to limits. */
const QUIET = 0.5

/** The load before the run. */
export const load = loadavg()[0]!

export const isQuiet = load < QUIET

export function machine(): string {
  const all = cpus()
  const date = new Date().toISOString().slice(0, 10)
  return `${all[0]?.model.trim() ?? 'unknown processor'}, ${all.length} cores, Node ${process.versions.node}, ${date}`
}

export type Row = readonly string[]

/** The first row is the head. */
export function table(rows: readonly Row[]): string {
  return markdown ? markdownTable(rows) : textTable(rows)
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

/** Collects what exceeds its limit. */
export class Limits {
  readonly misses: string[] = []

  /** Also where it could not be measured. */
  atMost(what: string, value: number, limit: number, unit: string): void {
    if (!(value <= limit))
      this.misses.push(`${what}: ${value.toFixed(2)} ${unit}, expected at most ${limit.toFixed(2)}`)
  }
}

/** Says what was missed, and makes the process fail. */
export function conclude(misses: readonly string[], timesChecked: boolean): void {
  for (const miss of misses) console.error(`MISSED  ${miss}`)
  if (!timesChecked) console.error('the machine is busy: times are not held to their limits')
  if (misses.length > 0) process.exitCode = 1
  else console.error('every limit is kept')
}
