// node --import tsx examples/cluster/main.ts: four workers that proxy on one port and agree; one changes the list, one is
// killed and another one takes its place.
import cluster, { type Worker } from 'node:cluster'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { Checkups } from 'checkups'
import { clusterSync } from 'checkups/cluster'

async function startBackend(name: string): Promise<number> {
  const server = createServer((_req, res) => res.end(name)).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return (server.address() as AddressInfo).port
}
const [a, b] = [await startBackend('a'), await startBackend('b')]

const sync = clusterSync()
const checkups = new Checkups({ upstreams: { shop: { servers: [`127.0.0.1:${a}`] } }, sync })
await checkups.start()

cluster.setupPrimary({ exec: fileURLToPath(new URL('worker.ts', import.meta.url)), execArgv: ['--import', 'tsx'] })
const startWorker = async () => {
  const worker = cluster.fork()
  const [, { port }] = (await once(cluster, 'listening')) as [Worker, { port: number }]
  return { worker, port }
}
const workers = [await startWorker(), await startWorker(), await startWorker(), await startWorker()]
const { port } = workers[0]!

/** What so many requests are answered with: by whom, of which worker. */
async function ask(count: number): Promise<string> {
  const answers = new Set<string>()
  for (let i = 0; i < count; i++) {
    const response = await fetch(`http://127.0.0.1:${port}/`, { headers: { connection: 'close' } })
    answers.add(await response.text())
  }
  return [...answers].sort().join(' ')
}
console.log(`at first: ${await ask(8)}`)

workers[1]!.worker.send({ add: `127.0.0.1:${b}` })
await new Promise((resolve) => checkups.on('upstream:update', resolve))
console.log(`after one worker has added b: ${await ask(16)}`)

const killed = once(workers[0]!.worker, 'exit')
workers[0]!.worker.process.kill('SIGKILL')
await killed
await startWorker()
console.log(`with a new worker in the place of one that was killed: ${await ask(16)}`)

const { processes } = await sync.processes()
console.log(processes.map(({ id, role, revision }) => `${id} (${role}): revision ${revision}`).join(', '))
for (const worker of Object.values(cluster.workers ?? {})) worker?.process.kill()
process.exit()
