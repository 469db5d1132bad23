/** Asks over one dispatcher: `<program> <its name>` takes a {@link Task} after another, and answers with {@link Figures}. */
import { BalancedPool, Pool, type Dispatcher } from 'undici'
import { Checkups } from 'checkups'
import { createDispatcher } from 'checkups/undici'
import type { Figures, Task } from './figures.js'

const AT_ONCE = 64

interface Client {
  readonly dispatcher: Dispatcher
  readonly origin: string
}

function ours(balancer: 'wrr' | 'fastest-first', { ports, patience }: Task): Client {
  const checkups = new Checkups({
    upstreams: { backends: { balancer, servers: ports.map((port) => `127.0.0.1:${port}`) } },
  })
  const dispatcher = createDispatcher(checkups, patience === 0 ? {} : { tryTimeout: patience })
  return { dispatcher, origin: 'http://backends' }
}

const originOf = (port: number) => `http://127.0.0.1:${port}`
const options = ({ patience }: Task) => (patience === 0 ? {} : { headersTimeout: patience })

const clients: Readonly<Record<string, (task: Task) => Client>> = {
  pool(task) {
    const origin = originOf(task.ports[0]!)
    return { dispatcher: new Pool(origin, options(task)), origin }
  },
  balancedPool: (task) => ({
    dispatcher: new BalancedPool(task.ports.map(originOf), options(task)),
    origin: originOf(task.ports[0]!),
  }),
  wrr: (task) => ours('wrr', task),
  fastestFirst: (task) => ours('fastest-first', task),
}

async function measure({ dispatcher, origin }: Client, seconds: number): Promise<Figures> {
  const request = { origin, path: '/', method: 'GET' } as const
  const isAnswered = async () => {
    try {
      const { statusCode, body } = await dispatcher.request(request)
      await body.text()
      return statusCode === 200
    } catch {
      return false
    }
  }
  const times: number[] = []
  let failures = 0
  const used = process.cpuUsage()
  const begun = performance.now()
  const end = begun + seconds * 1_000
  const ask = async () => {
    for (let start = begun; start < end;) {
      if (!(await isAnswered())) failures++
      const now = performance.now()
      times.push(now - start)
      start = now
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, ask))
  const rate = (times.length / (performance.now() - begun)) * 1_000
  const { user, system } = process.cpuUsage(used)
  times.sort((a, b) => a - b)
  const quantile = (q: number) => times[Math.floor(q * (times.length - 1))]!
  return {
    rate,
    p50: quantile(0.5),
    p99: quantile(0.99),
    processor: (user + system) / times.length,
    failed: (failures / times.length) * 10_000,
  }
}

const make = clients[process.argv[2] ?? '']
if (make === undefined) throw new Error(`no client ${process.argv[2]}`)
let current: { readonly client: Client; readonly ports: string } | undefined

process.on('message', (task: Task) => {
  const ports = task.ports.join(' ')
  if (current?.ports !== ports) {
    void current?.client.dispatcher.destroy()
    current = { client: make(task), ports }
  }
  void measure(current.client, task.seconds).then((figures) => process.send!(figures))
})
console.log(0)
