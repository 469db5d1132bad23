/**
 * What a balanced dispatcher costs a client, and what it is good for: `npm run bench:dispatcher`, with `-- --markdown` for the
 * tables of the docs, `-- --check` to fail where a limit is missed, and `-- --seconds N --runs N` for runs that are shorter
 * (5) or fewer (5).
 *
 * A client is alone on one core and makes 64 requests at once; the backends, servers of one nginx and, where they are slow
 * or silent, of Node, are on the other. In every round all are measured, each in a new process.
 *
 * Where one of the backends is not well, the client's code is warm but its dispatcher is new, and so finds out for itself;
 * such a run is three times as long, so that it sees a ban end and the next one begin.
 */
import { once } from 'node:events'
import { join } from 'node:path'
import { runs, seconds, warmUp } from './proxy/options.js'
import type { Figures, Task } from './dispatcher/figures.js'
import { check, conclude, Limits, load, machine, table } from './output.js'
import { compile, packageVersion, startNode } from './proxy/compiled.js'
import { atLeast, compared, median, medianRatio, rateCells, whole } from './proxy/numbers.js'
import { need, versionOf } from './proxy/programs.js'
import { freePorts, startBackends } from './proxy/servers.js'

/** To a Pool, which has one origin and nothing to choose. */
const LIMIT = 0.97
/** Milliseconds: longer than any healthy backend takes. */
const PATIENCE = 500

const NAMES = {
  pool: '`Pool`, one origin',
  balancedPool: '`BalancedPool`',
  wrr: '`createDispatcher`, `wrr`',
  fastestFirst: '`createDispatcher`, `fastest-first`',
} as const
type Name = keyof typeof NAMES
const names = Object.keys(NAMES) as Name[]
const balanced = ['balancedPool', 'wrr', 'fastestFirst'] as const
const ours = ['wrr', 'fastestFirst'] as const

need('nginx')
const programs = compile('dispatcher')
const faulty = await startNode('others', join(programs, 'faulty.js'), [])
const [late, silent] = faulty.ports
const [failing, dead, ...healthy] = await freePorts(6)
const nginx = await startBackends(healthy, new Map([[failing!, 503]]))

const faults = [
  { what: 'answers 300 ms late', port: late!, patience: 0 },
  { what: 'answers 503', port: failing!, patience: 0 },
  { what: 'refuses connections', port: dead!, patience: 0 },
  { what: `is silent (${PATIENCE} ms of patience)`, port: silent!, patience: PATIENCE },
] as const

async function measure(name: Name, ...tasks: readonly Task[]): Promise<Figures> {
  const client = await startNode('measured', join(programs, 'client.js'), [name])
  const figures: Figures[] = []
  for (const task of tasks) {
    client.child.send(task)
    const [answer] = (await once(client.child, 'message')) as [Figures]
    figures.push(answer)
  }
  await client.end()
  process.stderr.write('.')
  return figures.at(-1)!
}

async function rounds<N extends Name>(n: number, which: readonly N[], ...tasks: readonly Task[]) {
  const results = new Map<N, Figures[]>(which.map((name) => [name, []]))
  for (let round = 0; round < n; round++) {
    for (const name of round % 2 === 0 ? which : which.toReversed())
      results.get(name)!.push(await measure(name, ...tasks))
  }
  return results
}

const calm = { ports: healthy, patience: 0 }
const well = await rounds(runs, names, { ...calm, seconds: warmUp }, { ...calm, seconds })
const unwell: (readonly [string, ReadonlyMap<(typeof balanced)[number], readonly Figures[]>])[] = []
for (const { what, port, patience } of faults) {
  const ports = [...healthy.slice(1), port]
  const tasks = [
    { ...calm, seconds: warmUp },
    { ports, patience, seconds: 3 * seconds },
  ]
  // They differ by multiples: fewer runs will do.
  unwell.push([what, await rounds(Math.ceil(runs / 2), balanced, ...tasks)])
}
await Promise.all([nginx.end(), faulty.end()])
process.stderr.write('\n')

const ratio = (name: Name) => medianRatio(well.get(name)!, well.get('pool')!)
const cells = (all: readonly Figures[]) => [
  median(all.map(({ p50 }) => p50)).toFixed(1),
  median(all.map(({ p99 }) => p99)).toFixed(1),
  median(all.map(({ processor }) => processor)).toFixed(1),
  whole(median(all.map(({ failed }) => failed))),
]

const head = ['P50, ms', 'P99, ms', 'µs of its core', 'failed of 10,000']
const wellTable = [
  ['all healthy', 'requests/s', 'runs', ...head, 'to `Pool`'],
  ...names.map((name) => {
    const all = well.get(name)!
    return [NAMES[name], ...rateCells(all), ...cells(all), ratio(name).toFixed(3)]
  }),
]
const unwellTable = [
  ['one of four', 'client', 'requests/s', ...head],
  ...unwell.flatMap(([what, results]) =>
    balanced.map((name) => {
      const all = results.get(name)!
      return [what, NAMES[name], whole(median(all.map(({ rate }) => rate))), ...cells(all)]
    }),
  ),
]
const used = `undici ${packageVersion('undici')}, nginx ${versionOf('nginx')}`
console.log(
  `${machine()}, load ${load.toFixed(1)} before; ${used}. 64 requests at once, ${seconds} s a run. Ratios are of ${compared}.\n`,
)
console.log(`${table(wellTable)}\n\n${table(unwellTable)}`)

if (check) {
  const limits = new Limits()
  for (const name of ours) atLeast(limits, `${NAMES[name]} to \`Pool\``, ratio(name), LIMIT)
  const failed = (all: readonly Figures[]) => median(all.map((one) => one.failed))
  for (const name of names) {
    const most = Math.max(...well.get(name)!.map((one) => one.failed))
    limits.atMost(`${NAMES[name]}, all healthy: failed`, most, 0, 'of 10,000')
  }
  for (const [what, results] of unwell) {
    const theirs = failed(results.get('balancedPool')!)
    for (const name of ours) {
      limits.atMost(`${NAMES[name]}, one ${what}: failed`, failed(results.get(name)!), theirs, 'of 10,000')
    }
  }
  conclude(limits.misses, true)
}
