// npm run demo: real traffic through a gateway while one backend is killed, comes back, and a fourth one joins.
// `npm run demo -- --stay` keeps the gateway up afterwards, for curl.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import httpProxy from 'http-proxy'
import { Checkups } from 'checkups'
import { balanceProxy } from 'checkups/http-proxy'
import { killBackend, startBackend, type Backend } from './backends.js'
import { startClients } from './clients.js'
import { Picture } from './picture.js'

const HOST = 'shop.example'
const CONCURRENCY = 50

const backends: Backend[] = await Promise.all(['a', 'b', 'c'].map((name) => startBackend(name)))
const server = ({ port }: Backend) => ({ host: '127.0.0.1', port, failTimeout: 1_000 })

const checkups = new Checkups({ upstreams: { [HOST]: { servers: backends.map(server) } } })
const gateway = balanceProxy(checkups, httpProxy.createProxyServer())
const listening = createServer(gateway.web).on('upgrade', gateway.ws).listen(0, '127.0.0.1')
await once(listening, 'listening')
const { port } = listening.address() as AddressInfo

const picture = new Picture()
const nameOf = (address: string) => backends.find((backend) => address.endsWith(`:${backend.port}`))?.name ?? address
checkups.on('peer:down', ({ peer, reason }) => picture.event(`${nameOf(peer.address)} is out: ${reason}`))
checkups.on('peer:up', ({ peer, health }) => {
  picture.event(`${nameOf(peer.address)} is back${health === 'unstable' ? ', on trial' : ''}`)
})

picture.event(`gateway on http://127.0.0.1:${port}, ${CONCURRENCY} requests at once`)
const clients = startClients(CONCURRENCY, port, HOST)
const watch = async (seconds: number) => {
  for (let half = 0; half < 2 * seconds; half++) {
    await sleep(500)
    picture.line(
      clients.answers,
      backends.map(({ name }) => name),
      clients.failures.length,
    )
  }
}

await watch(2)
const [, victim] = backends as [Backend, Backend]
picture.event('SIGKILL for b')
await killBackend(victim)
await watch(2.5)

picture.event('b is started again')
backends[1] = await startBackend('b', victim.port)
await watch(2.5)

picture.event('updateUpstream adds d')
backends.push(await startBackend('d'))
await checkups.updateUpstream(HOST, [{ servers: backends.map(server) }])
await watch(2)

await clients.stop()
picture.totals(clients.answers, clients.failures)

if (process.argv.includes('--stay')) {
  console.log(`\nstill up: curl -H 'Host: ${HOST}' http://127.0.0.1:${port}/   (Ctrl-C ends it)`)
} else {
  gateway.close()
  listening.close()
  listening.closeAllConnections()
  await checkups.close()
  for (const backend of backends) backend.process.disconnect()
  if (clients.failures.length > 0) process.exitCode = 1
}
