/**
 * What a pick costs, beside others, and what changes cost: `npm run bench`, with `-- --markdown` for the README's tables
 * and `-- --check` to fail where a stated ratio is missed.
 *
 * Every subject at every size runs in a process of its own, so that the engine has compiled for one policy; the processes
 * take turns, a round after a round, so that noise hits all alike.
 */
import { execFileSync } from 'node:child_process'
import { loadavg } from 'node:os'
import { fileURLToPath } from 'node:url'
import { missed } from './checks.js'
import { check, conclude, isQuiet } from './output.js'
import { report } from './report.js'
import { Results, type Allocation, type RingTimes, type Timings, type Updates } from './results.js'
import { keyedSubjects, remembered, SIZES, subjects, type Sized } from './subjects.js'

const ROUNDS = 5
/** The others differ by more, and the largest rings take seconds to build. */
const KEYED_ROUNDS = 3
const REMEMBERED_PEERS = 1_000
/** For one subject at one size; whoever is not built by then is not used at that size. */
const LONGEST_MS = 60_000
/** The load of the last minute at the end of a quiet run: it is this run's one process. */
const QUIET_AFTER = 1.6

/** What the file, run by itself, prints. */
function measured(file: string, flags: readonly string[], ...args: readonly string[]): unknown {
  const path = fileURLToPath(new URL(file, import.meta.url))
  const stdout = execFileSync(process.execPath, [...flags, '--import', 'tsx', path, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: LONGEST_MS,
  })
  return JSON.parse(stdout)
}

/** One round of subjects at all sizes; a process of each prints as many figures as there are timings. */
function measureRound(results: Results, list: readonly Sized[], ...timings: readonly Timings[]): void {
  for (const n of SIZES) {
    process.stderr.write(` ${n}`)
    for (const subject of list) {
      if (subject.sizes?.includes(n) === false || results.hasFailed(subject, n)) continue
      try {
        const figures = measured('child.ts', ['--expose-gc'], subject.name, String(n)) as number[]
        timings.forEach((timing, i) => timing.add(subject, n, figures[i]!))
      } catch (error) {
        results.fail(subject, n, isTimeout(error) ? `no figure within ${LONGEST_MS / 1_000} s` : error)
      }
    }
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof Error && 'code' in error && error.code === 'ETIMEDOUT'
}

function measureAll(): Results {
  const results = new Results()
  for (let round = 1; round <= ROUNDS; round++) {
    process.stderr.write(`round ${round} of ${ROUNDS}, peers:`)
    measureRound(results, subjects, results.picks)
    process.stderr.write('; updates')
    results.addUpdates(measured('update.ts', []) as Updates)
    if (round <= KEYED_ROUNDS) {
      process.stderr.write('; by key:')
      measureRound(results, keyedSubjects, results.fresh, results.hot)
      process.stderr.write('; rings')
      results.addRings(measured('ring.ts', []) as RingTimes)
      process.stderr.write('; memory')
      for (const subject of remembered) {
        const bytes = measured('memory.ts', ['--expose-gc'], subject.name, String(REMEMBERED_PEERS)) as number
        results.addMemory(subject, bytes)
      }
    }
    process.stderr.write('\n')
  }
  results.quiet = isQuiet && loadavg()[0]! < QUIET_AFTER
  // All that is allocated stays in the young generation, uncollected, and so is seen.
  const flags = ['--expose-gc', '--min-semi-space-size=256', '--max-semi-space-size=256']
  results.allocation = measured('allocation.ts', flags) as Allocation
  return results
}

const results = measureAll()
console.log(report(results))
if (check) conclude(missed(results), results.quiet)
