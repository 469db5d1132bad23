/** The report: `node --import tsx test/simulation/report.ts` writes it again. */
import { writeFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { format, resolveConfig } from 'prettier'
import { measureAll, SEEDS, type Figures, type Results } from './measure.js'
import { BALANCERS, EXPERIMENTS, type BalancerName, type Experiment, type ExperimentName } from './scenarios.js'

export const REPORT = fileURLToPath(new URL('report.md', import.meta.url))

const INTRODUCTION = `# How the balancers do in published experiments

Made by \`node --import tsx test/simulation/report.ts\`; a test compares it with what the code does now. Simulated with
\`checkups/testing\` in virtual time, means of ${SEEDS.length} seeds. Milliseconds are of requests that ended, retries and their
pauses included. "Not ok" is requests that failed, took too long or were never answered; "sent" is attempts.

Each experiment was made with passive health off (\`maxFails: 0\`), which shows the policy alone, and with its defaults.
Where no answer is an error and no client gives up, there is nothing for passive health to see.

- \`local-first\` has all servers in one ring, which it balances by \`wrr\`.
- \`consistent-hash\` is given another key in every request; a retry has the key of its request, and so the same server
  while that is available.
- \`pick-first\` depends on which server each client happened to pick: with one client, none of the seeds picked the slow
  one of eleven.
`

const COLUMNS: readonly (readonly [string, (figures: Figures) => string])[] = [
  ['ok %', ({ ok }) => (100 * ok).toFixed(3)],
  ['mean ms', ({ mean }) => mean.toFixed(1)],
  ['P97', ({ p97 }) => p97.toFixed(1)],
  ['P99', ({ p99 }) => p99.toFixed(1)],
  ['P99.9', ({ p999 }) => p999.toFixed(1)],
  ['not ok', ({ failed }) => failed.toFixed(1)],
  ['sent', ({ attempts }) => attempts.toFixed(1)],
]

const BAR_WIDTH = 60
const names = Object.keys(BALANCERS) as BalancerName[]
const nameWidth = Math.max(...names.map(({ length }) => length))

/** Markdown, as Prettier has it. */
export async function render(alone: Results, withHealth: Results): Promise<string> {
  const sections = (Object.keys(EXPERIMENTS) as ExperimentName[]).map((key) => {
    const experiment: Experiment = EXPERIMENTS[key]
    return [
      `## ${experiment.name}`,
      experiment.text,
      '### Passive health off',
      table(alone[key]),
      picture(experiment, alone[key]),
      '### Passive health on',
      ...(isDeepStrictEqual(alone[key], withHealth[key])
        ? ['All as with it off.']
        : [table(withHealth[key]), picture(experiment, withHealth[key])]),
    ].join('\n\n')
  })
  const options = await resolveConfig(REPORT)
  return format([INTRODUCTION, ...sections].join('\n\n'), { ...options, parser: 'markdown' })
}

function table(results: Results[ExperimentName]): string {
  const row = (cells: readonly string[]) => `| ${cells.join(' | ')} |`
  return [
    row(['', ...COLUMNS.map(([title]) => title)]),
    row(['---', ...COLUMNS.map(() => '--:')]),
    ...names.map((name) => row([name, ...COLUMNS.map(([, cell]) => cell(results[name]))])),
  ].join('\n')
}

/** A bar per balancer; shorter is better. */
function picture({ picture: what }: Experiment, results: Results[ExperimentName]): string {
  const values = names.map((name) => results[name][what])
  const longest = Math.max(...values)
  const bars = names.map((name, i) => {
    const value = values[i]!
    const length = longest === 0 ? 0 : Math.round((value / longest) * BAR_WIDTH)
    // What is not nothing can be seen.
    const bar = value > 0 ? '█'.repeat(Math.max(1, length)) + ' ' : ''
    return `${name.padEnd(nameWidth)} ${bar}${value.toFixed(1)}`
  })
  const title = what === 'failed' ? 'requests that were not ok' : 'mean latency in ms'
  return ['```text', `${title} (shorter is better)`, '', ...bars, '```'].join('\n')
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await writeFile(REPORT, await render(measureAll(false), measureAll(true)))
}
