/**
 * How soon a change in Consul is in use: `npm run bench:consul`, with `-- --markdown` for the table of the docs and
 * `-- --check` to fail where a limit is missed on a quiet machine.
 *
 * A real agent, and all else in this process: who writes, who follows and who picks take turns on one event loop, so that a
 * figure is rather too high than too low. The time begins when the PUT is sent, before Consul has the change.
 */
import { Agent as HttpAgent, request } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import { Checkups } from 'checkups'
import { consulKv } from 'checkups/consul'
import { check, conclude, isQuiet, Limits, load, machine, table } from './output.js'
import { startAgent } from '../../examples/consul/agent.js'

const CHANGES = 200
/** Milliseconds between them: 4 a second, below the 5 asks a second that a source has in the long run. */
const APART = 250
/** Before the first one that counts, for the engine to compile. */
const WARM_UP = 10
/** Milliseconds. */
const LIMITS = { p50: 5, p99: 50 } as const

const agent = new HttpAgent({ keepAlive: true })

/** What an HTTP call by hand takes: the body, and Consul's index. */
function call(method: string, address: string, path: string, body = ''): Promise<{ body: string; index: string }> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-length': Buffer.byteLength(body) }
    const sent = request(`http://${address}/v1/kv/${path}`, { method, agent, headers }, (res) => {
      const index = String(res.headers['x-consul-index'])
      text(res).then((body) => resolve({ body, index }), reject)
    })
    sent.on('error', reject).end(body)
  })
}

const serverOf = (change: number) => `10.0.${change >> 8}.${change & 255}:80`

interface Subject {
  /** Resolves when the server of the change is in use; called before it is written. */
  next(change: number): Promise<void>
  /** Asks since the last call, if it counts them. */
  asks(): number | undefined
  close(): Promise<void>
}

/** A blocking query after another, and the list looked for in the body: what Consul and the network take. */
async function byHand(address: string, prefix: string): Promise<Subject> {
  let { index } = await call('GET', address, `${prefix}/?recurse`)
  return {
    async next(change) {
      for (let found = false; !found;) {
        const answer = await call('GET', address, `${prefix}/?recurse&wait=60s&index=${index}`)
        index = answer.index
        found = answer.body.includes(`/${serverOf(change)}"`)
      }
    },
    asks: () => undefined,
    close: () => Promise.resolve(),
  }
}

/** The change is in use when `selectPeer` has given the server. */
async function bySource(address: string, prefix: string): Promise<Subject> {
  const checkups = new Checkups({ sources: [consulKv({ address, prefix, layout: 'upsync' })] })
  let asked = 0
  await checkups.start()
  return {
    next: (change) =>
      new Promise((resolve) => {
        const pick = () => {
          // In a turn of all servers each is picked once.
          for (let i = 0; i <= change; i++) {
            if (checkups.selectPeer('api')?.address !== serverOf(change)) continue
            checkups.off('upstream:update', pick)
            resolve()
            return
          }
        }
        checkups.on('upstream:update', pick)
      }),
    asks() {
      const { asks } = checkups.getStatus().sources[0]!
      const since = asks - asked
      asked = asks
      return since
    },
    close: () => checkups.close(),
  }
}

interface Figures {
  /** Milliseconds of each change, from the PUT sent and from its answer; the latter below 0 if the change was faster. */
  readonly sent: readonly number[]
  readonly answered: readonly number[]
  readonly asks: number | undefined
}

async function measure(follow: (address: string, prefix: string) => Promise<Subject>): Promise<Figures> {
  const consul = await startAgent()
  await call('PUT', consul.address, `upstreams/api/${serverOf(0)}`, '')
  const subject = await follow(consul.address, 'upstreams')
  const sent: number[] = []
  const answered: number[] = []
  const start = performance.now()
  for (let change = 1; change <= WARM_UP + CHANGES; change++) {
    await sleep(start + change * APART - performance.now())
    if (change === WARM_UP + 1) subject.asks()
    const inUse = subject.next(change).then(() => performance.now())
    const begun = performance.now()
    await call('PUT', consul.address, `upstreams/api/${serverOf(change)}`, '{"weight":1}')
    const done = performance.now()
    const end = await inUse
    if (change <= WARM_UP) continue
    sent.push(end - begun)
    answered.push(end - done)
    if (change % 50 === 0) process.stderr.write('.')
  }
  // The last change is followed by an ask too.
  await sleep(APART)
  const asks = subject.asks()
  await subject.close()
  await consul.kill()
  return { sent, answered, asks }
}

function percentile(values: readonly number[], share: number): number {
  return values.toSorted((a, b) => a - b)[Math.ceil(values.length * share) - 1]!
}

const NAMES = { hand: 'a blocking query by hand', source: '`consulKv`, to the first pick' } as const
type Results = Readonly<Record<keyof typeof NAMES, Figures>>

function report(results: Results): string {
  const head = [
    `${CHANGES} changes, ${APART} ms apart; ms`,
    ...['P50', 'P99', 'longest', 'from the answer to the PUT: P50', 'P99', 'asks'],
  ]
  const rows = (['hand', 'source'] as const).map((name) => {
    const { sent, answered, asks } = results[name]
    const figures = [
      ...[0.5, 0.99, 1].map((share) => percentile(sent, share)),
      ...[0.5, 0.99].map((share) => percentile(answered, share)),
    ]
    return [NAMES[name], ...figures.map((ms) => ms.toFixed(1)), asks === undefined ? '' : String(asks)]
  })
  return `${machine()}; load ${load.toFixed(1)}.\n\n${table([head, ...rows])}`
}

/** An ask for each change, and no more: else the source's rate would be used up by something else. */
function missed({ source: { sent, asks } }: Results): string[] {
  const limits = new Limits()
  limits.atMost('asks', asks!, CHANGES * 1.1, `for ${CHANGES} changes`)
  if (isQuiet) {
    limits.atMost('P50', percentile(sent, 0.5), LIMITS.p50, 'ms')
    limits.atMost('P99', percentile(sent, 0.99), LIMITS.p99, 'ms')
  }
  return limits.misses
}

const results = { hand: await measure(byHand), source: await measure(bySource) }
process.stderr.write('\n')
agent.destroy()
console.log(report(results))
if (check) conclude(missed(results), isQuiet)
