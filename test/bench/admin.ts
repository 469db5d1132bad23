/**
 * The admin interface under load: `npm run bench:admin`, with `-- --markdown` for the table of the docs and `-- --check` to
 * fail where a promise is broken.
 *
 * 200 readers ask for the status of 100 peers as fast as they are answered, one writer changes the upstream 50 times a
 * second, and the process that answers picks all the while. What is promised is no speed: no change is lost, every reader
 * sees whole changes in their order, and no pick fails.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { Agent, request } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { FIRST, PEERS, SECOND, servers, type ChildResult } from './admin-figures.js'
import { check, conclude, machine, table } from './output.js'

const READERS = 200
const WRITES_PER_SECOND = 50
const SECONDS = 30

const child = fork(fileURLToPath(new URL('admin-child.ts', import.meta.url)))
const [url] = (await once(child, 'message')) as [string]
const { hostname, port } = new URL(url)
const agent = new Agent({ keepAlive: true, maxSockets: Infinity })

function ask(method: string, path: string, body?: string): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const headers = body === undefined ? {} : { 'content-length': Buffer.byteLength(body) }
    const req = request({ hostname, port, method, path, agent, headers }, (res) => {
      let text = ''
      res.setEncoding('utf8').on('data', (chunk: string) => (text += chunk))
      res.on('end', () => resolve({ status: res.statusCode ?? 0, text })).on('error', reject)
    })
    req.on('error', reject).end(body)
  })
}

interface Status {
  readonly generation: number
  readonly upstreams: readonly {
    generation: number
    levels: readonly { servers: readonly { server: { weight: number } }[] }[]
  }[]
}

const misses: string[] = []
const miss = (what: string) => {
  if (misses.length < 20) misses.push(what)
}
const readTimes: number[] = []
const writeTimes: number[] = []
let running = true

async function reader(): Promise<void> {
  let last = 0
  while (running) {
    const begun = performance.now()
    const { status, text } = await ask('GET', '/v1/status')
    readTimes.push(performance.now() - begun)
    if (status !== 200) {
      miss(`a reader was answered ${status}`)
      continue
    }
    const generation = Number(/"generation":(\d+)/.exec(text)?.[1])
    if (!(generation >= last)) miss(`generation ${generation} after ${last}`)
    last = generation
    // To read all of every answer would take this process more time than to make them takes the other one.
    if (readTimes.length % 10 === 0) checkWhole(text)
  }
}

function checkWhole(text: string): void {
  const { upstreams } = JSON.parse(text) as Status
  const [first, second] = [FIRST, SECOND].map((i) => upstreams[0]!.levels[0]!.servers[i]!.server.weight)
  if (first !== second) miss(`half a change: weights ${first} and ${second}`)
}

let sent = 1
async function write(weight: number): Promise<void> {
  const begun = performance.now()
  const { status, text } = await ask('PUT', '/v1/upstreams/api', JSON.stringify([{ servers: servers(weight) }]))
  writeTimes.push(performance.now() - begun)
  if (status !== 200) miss(`change ${weight} was answered ${status}: ${text}`)
}

/** At its pace, however long an answer takes. */
async function writer(): Promise<void> {
  const begin = performance.now()
  const written: Promise<void>[] = []
  while (running) {
    written.push(write(++sent))
    const due = begin + ((sent - 1) * 1_000) / WRITES_PER_SECOND
    if (due > performance.now()) await sleep(due - performance.now())
  }
  await Promise.all(written)
}

const work = [...Array.from({ length: READERS }, reader), writer()]
await sleep(SECONDS * 1_000)
running = false
await Promise.all(work)
agent.destroy()
child.send('end')
const [{ picks, failed, changes, weights }] = (await once(child, 'message')) as [ChildResult]

// Over several connections one may pass another.
const expected = Array.from({ length: sent - 1 }, (_, i) => i + 2)
const made = changes.toSorted((a, b) => a - b)
if (JSON.stringify(made) !== JSON.stringify(expected)) miss(`${expected.length} changes sent, ${made.length} made`)
const last = changes.at(-1)
if (weights.some((weight) => weight !== last)) miss(`at the end the weights are ${weights.join(' and ')}, not ${last}`)
if (failed > 0) miss(`${failed} of ${picks} picks failed`)
if (readTimes.length < READERS) miss(`${readTimes.length} reads only`)

const quantile = (times: readonly number[], q: number) => {
  const sorted = times.toSorted((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))]!.toFixed(1)
}
const row = (name: string, times: readonly number[]) => [
  ...[name, String(times.length), (times.length / SECONDS).toFixed(0), quantile(times, 0.5), quantile(times, 0.99)],
]
console.log(
  `${machine()}: ${READERS} readers, ${PEERS} peers, ${SECONDS} s; ${picks} picks meanwhile, ${failed} failed`,
)
console.log(
  table([['', 'in all', 'a second', 'P50, ms', 'P99, ms'], row('status reads', readTimes), row('changes', writeTimes)]),
)
if (check) conclude(misses, true)
else for (const what of misses) console.log(`MISSED  ${what}`)
