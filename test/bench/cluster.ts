/**
 * How soon a change is in use everywhere: `npm run bench:cluster`, with `-- --markdown` for the table of the docs and
 * `-- --check` to fail where a limit is missed on a quiet machine.
 *
 * One of four workers makes a change; from then until the last of the others picks the server that it has brought. The
 * ancestor's workers look every 0.5 s: p50 323 ms.
 */
import cluster, { type Worker } from 'node:cluster'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Checkups } from 'checkups'
import { clusterSync } from 'checkups/cluster'
import { addressOf, KEY, type FromBench, type FromWorker } from './cluster-figures.js'
import { check, conclude, isQuiet, Limits, load, machine, table } from './output.js'

const WORKERS = 4
const CHANGES = 300
/** Before the first one that counts, for the engines to compile. */
const WARM_UP = 50
/** Milliseconds between them. */
const APART = 30
/** Milliseconds. */
const LIMITS = { p50: 5, p99: 50 } as const
const FIRST = 1_000

const checkups = new Checkups({ upstreams: { [KEY]: { servers: [addressOf(FIRST)] } }, sync: clusterSync() })
await checkups.start()
cluster.setupPrimary({
  exec: fileURLToPath(new URL('cluster-worker.ts', import.meta.url)),
  execArgv: ['--import', 'tsx'],
})

interface Seen {
  /** When each of the workers first picked it, and when all were said to agree. */
  readonly picked: bigint[]
  begun: bigint
  agreed: bigint
  done: () => void
}
const seen = new Map<number, Seen>()
const end = (one: Seen) => {
  if (one.picked.length === WORKERS && one.agreed > 0n) one.done()
}
const start = () =>
  new Promise<Worker>((resolve) => {
    const worker = cluster.fork()
    worker.on('message', (message: FromWorker) => {
      if (message.type === 'ready') return resolve(worker)
      const one = 'change' in message ? seen.get(message.change) : undefined
      if (one === undefined) return
      if (message.type === 'picked') one.picked.push(BigInt(message.at))
      if (message.type === 'changed') {
        one.begun = BigInt(message.at)
        one.agreed = BigInt(message.agreed)
      }
      end(one)
    })
  })
const workers = await Promise.all(Array.from({ length: WORKERS }, start))

const inUse: number[] = []
const agreed: number[] = []
for (let i = 1; i <= WARM_UP + CHANGES; i++) {
  const change = FIRST + i
  await new Promise<void>((done) => {
    seen.set(change, { picked: [], begun: 0n, agreed: 0n, done })
    const message: FromBench = { type: 'change', change }
    workers[i % WORKERS]!.send(message)
  })
  const { picked, begun, agreed: all } = seen.get(change)!
  if (i > WARM_UP) {
    const last = picked.reduce((a, b) => (a > b ? a : b))
    inUse.push(Number(last - begun) / 1e6)
    agreed.push(Number(all - begun) / 1e6)
  }
  await sleep(APART)
}

const quantile = (times: readonly number[], q: number) => {
  const sorted = times.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!
}
const row = (name: string, times: readonly number[]) => [
  name,
  ...[0.5, 0.99, 1].map((q) => quantile(times, q).toFixed(2)),
]
console.log(`${machine()}: ${WORKERS} workers, ${CHANGES} changes, load ${load.toFixed(2)} before`)
console.log(
  table([
    ['ms from the change', 'P50', 'P99', 'most'],
    row('first picked by the last of the other workers', inUse),
    row('said to be agreed', agreed),
  ]),
)
if (check) {
  const limits = new Limits()
  if (isQuiet) {
    limits.atMost('p50', quantile(inUse, 0.5), LIMITS.p50, 'ms')
    limits.atMost('p99', quantile(inUse, 0.99), LIMITS.p99, 'ms')
  }
  conclude(limits.misses, isQuiet)
}
for (const worker of workers) worker.process.kill()
await checkups.close()
