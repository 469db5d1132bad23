/**
 * What a proxy costs, beside those that do nothing but proxy and those that others use: `npm run bench:proxy`, with
 * `-- --markdown` for the tables of the docs, `-- --check` to fail where a ratio is missed, and `-- --seconds N --runs N`
 * for runs that are shorter (5) or fewer (5).
 *
 * A proxy is alone on one core; wrk and the backends, servers of one nginx that answer 12 bytes, share the other. In every
 * round all of them are measured, each in a new process after a warm-up: what disturbs a round disturbs all alike, and a
 * process that was lucky counts once. Ratios are those within a round, and of these the median; on a machine that was busy
 * before they are not of rates, but of the processor time that a request takes.
 *
 * What updates of the upstream cost is measured within one process: without, with, without. The cost is what is missing from the
 * mean of the outer two, the noise half their difference, and a cost is too high if it exceeds limit and noise together.
 */
import { once } from 'node:events'
import { runs, seconds, warmUp } from './proxy/options.js'
import { check, conclude, Limits, load, machine, table, type Row } from './output.js'
import { compile, packageVersion } from './proxy/compiled.js'
import { atLeast, compared, median, medianRatio, pace, rateCells, type Measured } from './proxy/numbers.js'
import { need, processorTime, versionOf } from './proxy/programs.js'
import { freePorts, startBackends } from './proxy/servers.js'
import { makeSubjects, type Proxy } from './proxy/subjects.js'
import { wrk, type Answers } from './proxy/wrk.js'

const BACKENDS = 4
/** Of the rates; `updates` of what 10 updates a second take off. */
const LIMITS = { httpProxy: 0.97, handler: 0.85, handlerToHttpProxy: 1.7, updates: 0.01 } as const

type Figures = Answers & Measured

/** One process: without updates, with them, without them. */
type UpdateRound = readonly [Figures, Figures, Figures]

need('wrk', 'nginx', 'haproxy')
const subjects = makeSubjects(compile('proxy'))
type Name = keyof typeof subjects
const names = Object.keys(subjects) as Name[]
const updated = ['httpProxy', 'handler'] as const
type Updated = (typeof updated)[number]

const failures: string[] = []
const direct: Answers[] = []
const measured = Object.fromEntries(names.map((name) => [name, [] as Figures[]])) as Record<Name, Figures[]>
const rounds: Record<Updated, UpdateRound[]> = { httpProxy: [], handler: [] }

async function ask(what: string, port: number, time: number): Promise<Answers> {
  const answers = await wrk(port, time)
  failures.push(...answers.failures.map((words) => `${what}: ${words}`))
  return answers
}

async function measure(what: string, { port, program }: Proxy): Promise<Figures> {
  const before = processorTime(program)
  const answers = await ask(what, port, seconds)
  return { ...answers, processor: (processorTime(program) - before) / answers.requests }
}

async function measureOne(name: Name): Promise<void> {
  const proxy = await subjects[name].start(backends)
  await ask(subjects[name].name, proxy.port, warmUp)
  measured[name].push(await measure(subjects[name].name, proxy))
  await proxy.program.end()
}

/** In one process, so that nothing but the updates makes a difference. */
async function measureUpdates(name: Updated): Promise<void> {
  const what = `${subjects[name].name}, with updates`
  const proxy = await subjects[name].start(backends)
  const { child } = proxy.program
  child.send(true)
  await ask(what, proxy.port, warmUp)
  const stop = async () => {
    child.send(false)
    const [made] = (await once(child, 'message')) as [number]
    return made
  }
  await stop()
  const before = await measure(what, proxy)
  child.send(true)
  const during = await measure(what, proxy)
  const made = await stop()
  if (made < seconds * 10 - 2) failures.push(`${what}: ${made} updates in ${seconds} s`)
  rounds[name].push([before, during, await measure(what, proxy)])
  await proxy.program.end()
}

const ratio = (name: Name, to: Name) => medianRatio(measured[name], measured[to])

/** The share of the rate that updates take off, beside the mean of the runs before and after. */
function costs(name: Updated): number {
  return median(rounds[name].map(([before, during, after]) => 1 - pace(during) / ((pace(before) + pace(after)) / 2)))
}

/** Half the difference between two runs in which nothing was different: that much of a cost may be none. */
function noise(name: Updated): number {
  return median(
    rounds[name].map(([before, , after]) => Math.abs(pace(before) - pace(after)) / (pace(before) + pace(after))),
  )
}

const percent = (share: number) => `${(100 * share).toFixed(1)} %`
const times = (all: readonly Answers[]) => [
  median(all.map(({ p50 }) => p50)).toFixed(2),
  median(all.map(({ p99 }) => p99)).toFixed(2),
]

function report(): string {
  const used = ['wrk', 'nginx', 'haproxy'].map((program) => `${program} ${versionOf(program)}`)
  used.push(...['http-proxy', 'undici'].map((name) => `${name} ${packageVersion(name)}`))
  const to = (name: Name, other: Name) => (name === other ? '1' : ratio(name, other).toFixed(2))
  const proxyRow = (name: Name): Row => [
    subjects[name].name,
    ...rateCells(measured[name]),
    ...times(measured[name]),
    median(measured[name].map(({ processor }) => processor)).toFixed(1),
    to(name, 'bareHttpProxy'),
    to(name, 'bareDispatch'),
  ]
  const head = [
    '',
    'requests/s',
    'runs',
    'P50, ms',
    'P99, ms',
    'µs of its core',
    'to `http-proxy`',
    'to `Pool.dispatch`',
  ]
  const proxies = [head, ['no proxy', ...rateCells(direct), ...times(direct), '', '', ''], ...names.map(proxyRow)]

  const updateRows = updated.flatMap((name): Row[] => {
    const without = rounds[name].flatMap(([before, , after]) => [before, after])
    const during = rounds[name].map(([, one]) => one)
    return [
      [subjects[name].name, ...rateCells(without), ...times(without), '', ''],
      ['with 10 updates a second', ...rateCells(during), ...times(during), percent(costs(name)), percent(noise(name))],
    ]
  })
  const updates = [['', 'requests/s', 'runs', 'P50, ms', 'P99, ms', 'cost', 'noise'], ...updateRows]
  return [
    `${machine()}, load ${load.toFixed(1)} before; ${used.join(', ')}. 64 connections, ${BACKENDS} backends, ${seconds} s a run. Ratios are of ${compared}.`,
    table(proxies),
    table(updates),
  ].join('\n\n')
}

function missed(): string[] {
  const limits = new Limits()
  limits.misses.push(...failures)
  const toHold = (name: Name, to: Name, limit: number) =>
    atLeast(limits, `${subjects[name].name} to ${subjects[to].name}`, ratio(name, to), limit)
  toHold('httpProxy', 'bareHttpProxy', LIMITS.httpProxy)
  toHold('handler', 'bareDispatch', LIMITS.handler)
  toHold('handler', 'bareHttpProxy', LIMITS.handlerToHttpProxy)
  for (const name of updated) {
    const allowed = LIMITS.updates + noise(name)
    limits.atMost(
      `what 10 updates a second take off ${subjects[name].name}, with room for noise`,
      100 * costs(name),
      100 * allowed,
      '%',
    )
  }
  return limits.misses
}

const backends = await freePorts(BACKENDS)
const nginx = await startBackends(backends)
const steps = [
  async () => void direct.push(await ask('no proxy', backends[0]!, seconds)),
  ...names.map((name) => () => measureOne(name)),
  ...updated.map((name) => () => measureUpdates(name)),
]
for (let round = 0; round < runs; round++) {
  // Who is compared is next to each other, in either order.
  for (const step of round % 2 === 0 ? steps : steps.toReversed()) {
    await step()
    process.stderr.write('.')
  }
}
await nginx.end()
process.stderr.write('\n')
console.log(report())
if (check) conclude(missed(), true)
else for (const what of failures) console.error(`FAILED  ${what}`)
