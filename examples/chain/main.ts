// A gateway that composes three services, each of two backends: beautify, zoom, watermark. One backend of zoom is killed and
// started again under traffic, and no request fails.
// npx tsx examples/chain/main.ts
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Checkups } from 'checkups'
import { createGateway } from './gateway.js'
import { killBackend, startBackend } from './services.js'

const STEPS = ['beautify', 'zoom', 'watermark']
const CONCURRENCY = 10

const backends = await Promise.all([...STEPS, ...STEPS].map((service) => startBackend(service)))
const addressOf = (port: number) => `127.0.0.1:${port}`
const servers = (step: string) => ({
  servers: backends.filter(({ service }) => service === step).map(({ port }) => addressOf(port)),
  failTimeout: 500,
})
const checkups = new Checkups({ upstreams: new Map(STEPS.map((step) => [step, servers(step)])) })

const start = performance.now()
const log = (text: string) => console.log(`${((performance.now() - start) / 1000).toFixed(1)} s  ${text}`)
checkups.on('peer:down', ({ upstream, peer, reason }) => log(`  ${upstream} ${peer.address} is out: ${reason}`))
checkups.on('peer:up', ({ upstream, peer, reason }) => log(`  ${upstream} ${peer.address} is back: ${reason}`))

const gateway = createGateway(checkups).listen(0, '127.0.0.1')
await once(gateway, 'listening')
const url = `http://127.0.0.1:${(gateway.address() as AddressInfo).port}/${STEPS.join('/')}`

let answered = 0
const failures: string[] = []
let running = true
const client = async (_: unknown, number: number) => {
  const expected = `C a t   ${number} (c) chain`
  while (running) {
    const response = await fetch(url, { method: 'POST', body: `  cat ${number} ` })
    const picture = await response.text()
    if (picture === expected) answered++
    else failures.push(picture)
  }
}
const clients = Promise.all(Array.from({ length: CONCURRENCY }, client))
await sleep(1_000)
log(`${answered} requests so far`)

const victim = backends.findIndex(({ service }) => service === 'zoom')
const { port } = backends[victim]!
log(`SIGKILL for zoom ${addressOf(port)}`)
await killBackend(backends[victim]!)
await sleep(1_500)
log(`${answered} requests so far`)

log('it is started again')
backends[victim] = await startBackend('zoom', port)
await sleep(1_500)

running = false
await clients
log(`${answered} requests through ${STEPS.join(', ')}; failed ${failures.length}`)
for (const failure of new Set(failures)) console.log(`  ${failure}`)

gateway.close()
await checkups.close()
for (const backend of backends) backend.process.disconnect()
if (failures.length > 0) process.exitCode = 1
