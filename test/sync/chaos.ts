/**
 * The primary of a cluster of four workers that proxy, for so many seconds: 200 changes a second, asked of any of the
 * processes; requests through the proxy all the time; every second or so a worker is killed and another one started. Says
 * at the end what came of it.
 */
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { isDeepStrictEqual } from 'node:util'
import { Checkups, type Cluster } from '../../src/index.js'
import { clusterSync } from '../../src/sync/index.js'

export interface ChaosResult {
  readonly asked: number
  readonly accepted: number
  /** Changes that were asked of a worker which was killed before it answered. */
  readonly unanswered: number
  readonly kills: number
  readonly answered: number
  /** Requests that broke off because their worker was killed. */
  readonly broken: number
  /** Requests that failed otherwise. */
  readonly failures: readonly string[]
  /** Accepted changes that were followed by no later one and are not there. */
  readonly lost: readonly string[]
  /** Workers that have something else at the end. */
  readonly disagreeing: readonly string[]
}

const SECONDS = Number(process.argv[2])
const WORKERS = 4
const CLIENTS = 8
/** Milliseconds without an answer. */
const SILENT = 8_000
/** Changes that a worker has in hand at most. What is more is asked of this process: on a slow machine, too, little is lost with it. */
const IN_HAND = 50
const KEYS = ['api', 'a', 'b', 'c', 'd']

const backends = await Promise.all(
  ['x', 'y', 'z'].map(async (name) => {
    const server = createServer((req, res) => {
      req.resume()
      res.end(name)
    })
    server.keepAliveTimeout = 120_000
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return server
  }),
)
const ports = backends.map((server) => (server.address() as AddressInfo).port)
const clusterOf = (change: number): Cluster => [
  { servers: ports.map((port, i) => ({ host: '127.0.0.1', port, weight: 1 + ((change + i) % 97) })) },
]

const checkups = new Checkups({
  upstreams: Object.fromEntries(KEYS.map((key) => [key, { cluster: clusterOf(0) }])),
  sync: clusterSync(),
})
await checkups.start()

cluster.setupPrimary({
  exec: fileURLToPath(new URL('proxy-worker.js', import.meta.url)),
  execArgv: [],
})

interface Accepted {
  readonly generation: number
  readonly cluster: string
}
const live = new Set<Worker>()
const last = new Map<string, Accepted>()
let asked = 0
let accepted = 0
let kills = 0
/** What is asked and not answered, and of which worker; of none if of this process. */
const pending = new Map<number, { readonly key: string; readonly update: Cluster; readonly worker?: Worker }>()

const inHand = (worker: Worker) => [...pending.values()].filter((one) => one.worker === worker).length

function accept(change: number, generation: number): void {
  const { key, update } = pending.get(change)!
  pending.delete(change)
  accepted++
  if ((last.get(key)?.generation ?? 0) < generation) last.set(key, { generation, cluster: weights(update) })
}
const weights = (value: Cluster) =>
  JSON.stringify(
    (value as { servers: { weight: number }[] }[]).map(({ servers }) => servers.map(({ weight }) => weight)),
  )

/** The one that all of them listen at: any, for the first. It stays theirs, for there is always one. */
let proxyPort = 0

async function startWorker(): Promise<void> {
  const worker = cluster.fork()
  worker.once('listening', ({ port }) => (proxyPort = port))
  worker.on('message', (message: { listening?: true; asked?: number; generation?: number; error?: string }) => {
    if (message.listening) live.add(worker)
    if (message.error !== undefined) failures.push(message.error)
    if (message.asked === undefined || message.generation === undefined) return
    accept(message.asked, message.generation)
  })
  await Promise.race([once(worker, 'listening'), once(worker, 'exit')])
}
await Promise.all(Array.from({ length: WORKERS }, startWorker))

let running = true
interface Span {
  readonly from: number
  to: number
}
/** From a kill until this process knows of it: until then it goes on to hand connections over. */
const dying: Span[] = []
const failed: (Span & { readonly why: string; readonly isReset: boolean })[] = []
const failures: string[] = []
let answered = 0

async function client(): Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  while (running) {
    const begun = performance.now()
    try {
      const status = await get(agent)
      if (status === 200) answered++
      else failures.push(`status ${status}`)
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException
      const isReset = ['ECONNRESET', 'EPIPE', 'ECONNREFUSED', 'ETIMEDOUT'].includes(String(code))
      failed.push({ from: begun, to: performance.now(), why: String(error), isReset })
    }
  }
  agent.destroy()
}

function get(agent: Agent): Promise<number> {
  return new Promise((resolve, reject) => {
    const req = request({ host: '127.0.0.1', port: proxyPort, agent }, (res) => {
      res.resume()
      res.on('end', () => resolve(res.statusCode ?? 0)).on('error', reject)
    })
    // A connection on its way to a worker that is killed is closed by nobody: Node's primary waits for that worker's word.
    req.setTimeout(SILENT, () => req.destroy(Object.assign(new Error('no answer'), { code: 'ETIMEDOUT' })))
    req.on('error', reject).end()
  })
}

async function changes(): Promise<void> {
  const begin = performance.now()
  while (running) {
    const due = Math.floor(((performance.now() - begin) / 1_000) * 200)
    for (; asked < due; asked++) {
      const key = KEYS[asked % KEYS.length]!
      const update = clusterOf(asked + 1)
      const workers = [...live]
      const next = workers[asked % (workers.length + 1)]
      const worker = next !== undefined && inHand(next) < IN_HAND ? next : undefined
      const change = asked
      pending.set(change, { key, update, ...(worker !== undefined && { worker }) })
      if (worker === undefined)
        void checkups.updateUpstream(key, update).then((generation) => accept(change, generation))
      else worker.send({ ask: change, key, update }, () => undefined)
    }
    await sleep(5)
  }
}

async function killer(): Promise<void> {
  while (running) {
    await sleep(1_000)
    const [victim] = live
    if (victim === undefined || live.size < 2) continue
    live.delete(victim)
    const gone = once(victim, 'exit')
    const span = { from: performance.now(), to: Infinity }
    dying.push(span)
    victim.process.kill('SIGKILL')
    await gone
    span.to = performance.now()
    kills++
    void startWorker()
  }
}

const work = [...Array.from({ length: CLIENTS }, client), changes(), killer()]
await sleep(SECONDS * 1_000)
running = false
await Promise.all(work)

// Open on a worker that was killed, and broken off: nobody else could have answered that.
const isBroken = ({ from, to, isReset }: (typeof failed)[number]) =>
  isReset && dying.some((span) => span.from <= to && span.to >= from)
for (const one of failed) {
  if (!isBroken(one)) failures.push(`${one.why}, ${(one.to - one.from).toFixed(0)} ms`)
}
const broken = failed.filter(isBroken).length

// Whoever lives answers what it was asked.
const isOpen = ({ worker }: { readonly worker?: Worker }) => worker === undefined || !worker.isDead()
while ([...pending.values()].some(isOpen)) await sleep(50)

// One more change, which all must have: what came before it has then arrived.
while (live.size < WORKERS) await sleep(50)
await checkups.updateUpstream('end', [{ servers: ['10.0.0.1:1'] }])
const own = [
  [...checkups.getUpstreams()].map(([key, config]) => [key, JSON.stringify(config.cluster)]).sort(),
  checkups
    .getStatus()
    .upstreams.map(({ key, generation }) => [key, generation])
    .sort(),
]
const disagreeing: string[] = []
for (const worker of live) {
  const view = new Promise((resolve) => {
    worker.on('message', (message: { view?: unknown }) => {
      if (message.view !== undefined) resolve(message.view)
    })
  })
  worker.send({ view: true })
  if (!isDeepStrictEqual(await view, own)) disagreeing.push(`worker ${worker.id}`)
}
const lost: string[] = []
for (const [key, { generation, cluster: wanted }] of last) {
  const now = checkups.getStatus().upstreams.find((upstream) => upstream.key === key)
  const is = weights(checkups.getUpstream(key)!.cluster!)
  if (now === undefined || now.generation < generation) lost.push(`${key}: generation ${generation}`)
  else if (now.generation === generation && is !== wanted) lost.push(`${key}: ${wanted}, not ${is}`)
}
const result: ChaosResult = {
  asked,
  accepted,
  unanswered: pending.size,
  kills,
  answered,
  broken,
  failures: failures.slice(0, 20),
  lost,
  disagreeing,
}
process.send!(result, () => {
  for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill('SIGKILL')
  process.exit()
})
