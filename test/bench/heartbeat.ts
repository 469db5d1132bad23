/**
 * What 10,000 heartbeats each 5 s cost, beside the bare connections and requests: `npm run bench:heartbeat`, with
 * `-- --markdown` for the table of the docs and `-- --check` to fail where a limit is missed on a quiet machine.
 *
 * One subject after another runs in a process of its own; whom they check are servers in other processes, on loopback.
 */
import { execFile, fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { check, conclude, isQuiet, Limits, machine, table } from './output.js'
import { INTERVAL, PEERS, RESOLUTION, type Figures } from './heartbeat-figures.js'

const SERVERS = 4
/** Percent of a core. */
const LIMITS = { tcp: 15, http: 25 } as const
/** To the bare connections and requests: noise hits both, so this is looked at on a busy machine too. */
const RATIO = 1.5
/** Milliseconds of P99 beyond that of an idle process. */
const DELAY = 10

const path = (file: string) => fileURLToPath(new URL(file, import.meta.url))

const subjects = {
  idle: 'an idle process',
  bareTcp: 'net.connect and destroy',
  tcp: 'heartbeats, `tcp`',
  bareHttp: 'a GET by http.Agent, kept alive',
  http: 'heartbeats, `http`',
} as const
type Name = keyof typeof subjects
type Results = Readonly<Record<Name, Figures>>

async function measureAll(): Promise<Results> {
  const servers = Array.from({ length: SERVERS }, () => fork(path('heartbeat-server.ts'), { execArgv: tsx }))
  const ports = (await Promise.all(servers.map((server) => once(server, 'message')))).map(([port]) => String(port))
  const results: [string, Figures][] = []
  for (const name of Object.keys(subjects)) {
    process.stderr.write(`${name} `)
    const args = ['--expose-gc', ...tsx, path('heartbeat-child.ts'), name, ...ports]
    const { stdout } = await promisify(execFile)(process.execPath, args)
    results.push([name, JSON.parse(stdout) as Figures])
  }
  process.stderr.write('\n')
  for (const server of servers) server.disconnect()
  return Object.fromEntries(results) as unknown as Results
}

function report(results: Results): string {
  const head = [
    `${PEERS.toLocaleString('en')} checks each ${INTERVAL / 1_000} s`,
    ...['checks/s', '% of a core', 'user', 'system', 'to bare', 'delay P99, ms', 'longest', 'lag, ms'],
    ...['rss, MB', 'heap, MB', 'growth, MB'],
  ]
  const rows = (Object.keys(subjects) as Name[]).map((name) => {
    const { checks, user, system, p99, longest, lag, rss, heap, growth } = results[name]
    return [
      subjects[name],
      ...[Math.round(checks).toLocaleString('en'), cpu(results[name]).toFixed(1), user.toFixed(1), system.toFixed(1)],
      name === 'tcp' || name === 'http' ? ratio(results, name).toFixed(2) : '',
      ...[p99, longest].map((ms) => ms.toFixed(1)),
      lag === undefined ? '' : lag.toFixed(1),
      ...[rss, heap, growth].map((bytes) => (bytes / 1e6).toFixed(1)),
    ]
  })
  const delays = `The delay is that of a timer of ${RESOLUTION} ms, the lag that of checks.`
  return `${machine()}. ${delays}\n\n${table([head, ...rows])}`
}

function cpu({ user, system }: Figures): number {
  return user + system
}

function ratio(results: Results, name: keyof typeof LIMITS): number {
  return cpu(results[name]) / cpu(results[name === 'tcp' ? 'bareTcp' : 'bareHttp'])
}

function missed(results: Results): string[] {
  const limits = new Limits()
  for (const name of ['tcp', 'http'] as const) {
    const delay = results[name].p99 - results.idle.p99
    limits.atMost(`${subjects[name]}, processor, to bare`, ratio(results, name), RATIO, 'times')
    if (!isQuiet) continue
    limits.atMost(`${subjects[name]}, processor`, cpu(results[name]), LIMITS[name], '% of a core')
    limits.atMost(`${subjects[name]}, delay of the event loop, P99`, delay, DELAY, 'ms')
  }
  return limits.misses
}

const tsx = ['--import', 'tsx']
const results = await measureAll()
console.log(report(results))
if (check) conclude(missed(results), isQuiet)
