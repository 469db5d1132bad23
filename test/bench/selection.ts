/**
 * What a pick costs, beside others, and what changes cost: `npm run bench`, with `-- --markdown` for the README's tables
 * and `-- --check` to fail where a stated ratio is missed.
 *
 * Every subject at every size runs in a process of its own, so that the engine has compiled for one policy; the processes
 * take turns, a round after a round, so that noise hits all alike.
 */
import { execFileSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { missed } from './checks.js'
import { report } from './report.js'
import { Results, type Allocation, type Updates } from './results.js'
import { SIZES, subjects } from './subjects.js'

const ROUNDS = 5

const { values: options } = parseArgs({ options: { check: { type: 'boolean' }, markdown: { type: 'boolean' } } })

/** What the file, run by itself, prints. */
function measured(file: string, flags: readonly string[], ...args: readonly string[]): unknown {
  const path = fileURLToPath(new URL(file, import.meta.url))
  const stdout = execFileSync(process.execPath, [...flags, '--import', 'tsx', path, ...args], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return JSON.parse(stdout)
}

function measureAll(): Results {
  const results = new Results()
  for (let round = 1; round <= ROUNDS; round++) {
    for (const n of SIZES) {
      process.stderr.write(`round ${round} of ${ROUNDS}, ${n} peers\n`)
      for (const subject of subjects) {
        if (subject.sizes?.includes(n) === false || results.hasFailed(subject, n)) continue
        try {
          results.add(subject, n, measured('child.ts', ['--expose-gc'], subject.name, String(n)) as number)
        } catch (error) {
          results.fail(subject, n, error)
        }
      }
    }
    process.stderr.write(`round ${round} of ${ROUNDS}, updates\n`)
    results.addUpdates(measured('update.ts', []) as Updates)
  }
  // All that is allocated stays in the young generation, uncollected, and so is seen.
  const flags = ['--expose-gc', '--min-semi-space-size=256', '--max-semi-space-size=256']
  results.allocation = measured('allocation.ts', flags) as Allocation
  return results
}

const results = measureAll()
console.log(report(results, ROUNDS, options.markdown === true))
if (options.check === true) {
  const misses = missed(results)
  for (const miss of misses) console.error(`MISSED  ${miss}`)
  if (misses.length > 0) process.exitCode = 1
  else console.error('every stated ratio is kept')
}
