/**
 * One subject in a process of its own: `heartbeat-child.ts <name> <port…>`, with --expose-gc, checks 10,000 addresses every
 * 5 s and prints its {@link Figures}.
 */
import { Agent, get } from 'node:http'
import { connect } from 'node:net'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { setImmediate, setTimeout } from 'node:timers/promises'
import { INTERVAL, PEERS, RESOLUTION, type Figures } from './heartbeat-figures.js'
import { Checkups } from './package.js'

const INTERVALS = 4
/** How often a status of 10,000 peers is asked for, which takes milliseconds itself, and with what pause. */
const STATUSES = 20
const PAUSE = 250

interface Subject {
  /** Checks so far. */
  checks(): number
  lag?(): number
}

interface Address {
  readonly host: string
  readonly port: number
}

/** Makes as many checks as an even pace asks for. */
function paced(check: (i: number, done: () => void) => void): Subject {
  let checks = 0
  let begun = 0
  const start = performance.now()
  setInterval(() => {
    const due = ((performance.now() - start) * PEERS) / INTERVAL
    for (; begun < due; begun++) check(begun % PEERS, () => checks++)
  }, 1)
  return { checks: () => checks }
}

async function heartbeats(servers: readonly Address[], type: 'tcp' | 'http'): Promise<Subject> {
  // Without jitter it is exactly the rate of the bare loops; the first checks are spread over the interval.
  const checkups = new Checkups({
    upstreams: { all: { servers, heartbeat: { type, interval: INTERVAL, jitter: 0 } } },
  })
  await checkups.start()
  return {
    checks: () => checkups.getStatus().heartbeats.checks,
    lag() {
      const { heartbeats: scheduler, upstreams } = checkups.getStatus()
      for (const { address, heartbeat } of upstreams[0]!.levels[0]!.servers) {
        if (heartbeat?.state !== 'ok') throw new Error(`${address} is ${heartbeat?.state}: ${heartbeat?.message}`)
      }
      return scheduler.lag
    },
  }
}

const subjects: Readonly<Record<string, (servers: readonly Address[]) => Subject | Promise<Subject>>> = {
  idle: () => ({ checks: () => 0 }),
  bareTcp: (servers) =>
    paced((i, done) => {
      const socket = connect({ ...servers[i]! })
      socket.once('connect', () => {
        socket.destroy()
        done()
      })
    }),
  bareHttp(servers) {
    const agent = new Agent({ keepAlive: true, maxFreeSockets: 1 })
    return paced((i, done) => void get({ ...servers[i]!, agent }, (answer) => answer.resume().once('end', done)))
  },
  tcp: (servers) => heartbeats(servers, 'tcp'),
  http: (servers) => heartbeats(servers, 'http'),
}

async function heapAfterCollection(): Promise<number> {
  // What is waiting to be closed is let go in a later turn.
  for (let i = 0; i < 3; i++) {
    globalThis.gc!()
    await setImmediate()
  }
  return process.memoryUsage().heapUsed
}

async function measure(subject: Subject): Promise<Figures> {
  await setTimeout(INTERVAL)
  const before = await heapAfterCollection()
  const checked = subject.checks()
  // The status of 10,000 peers and the collection are not measured.
  await setTimeout(PAUSE)
  const delay = monitorEventLoopDelay({ resolution: RESOLUTION })
  const start = performance.now()
  const used = process.cpuUsage()
  delay.enable()
  await setTimeout(INTERVALS * INTERVAL)
  delay.disable()
  const { user, system } = process.cpuUsage(used)
  const elapsed = performance.now() - start
  const checks = subject.checks() - checked
  const rss = process.memoryUsage.rss()
  const lags: number[] = []
  for (let i = 0; subject.lag !== undefined && i < STATUSES; i++) {
    await setTimeout(PAUSE)
    lags.push(subject.lag())
  }
  const heap = await heapAfterCollection()
  return {
    checks: (checks / (elapsed + PAUSE)) * 1_000,
    user: user / elapsed / 10,
    system: system / elapsed / 10,
    p99: delay.percentile(99) / 1e6,
    longest: delay.max / 1e6,
    rss,
    heap,
    growth: heap - before,
    lag: subject.lag === undefined ? undefined : Math.max(...lags),
  }
}

const [name = '', ...ports] = process.argv.slice(2)
const make = subjects[name]
if (make !== undefined) {
  const servers = Array.from({ length: PEERS }, (_, i) => ({
    host: `127.1.${i >> 8}.${i & 255}`,
    port: Number(ports[i % ports.length]),
  }))
  console.log(JSON.stringify(await measure(await make(servers))))
  process.exit()
}
