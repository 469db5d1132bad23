// A reverse proxy without http-proxy: requests and WebSockets, while one of three backends is killed and comes back.
// npx tsx examples/proxy.ts
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Checkups } from 'checkups'
import { createProxyHandler } from 'checkups/undici'
import { killBackend, startBackend, type Backend } from './gateway/backends.js'

const backends = await Promise.all(['a', 'b', 'c'].map((name) => startBackend(name)))
const checkups = new Checkups({
  upstreams: {
    // The name that clients ask for: `localhost` in http://localhost:8080/.
    localhost: { servers: backends.map(({ port }) => `127.0.0.1:${port}`), maxFails: 2, failTimeout: 500 },
  },
})
checkups.on('peer:down', ({ peer, reason }) => console.log(`${peer.address} is out: ${reason}`))
checkups.on('peer:up', ({ peer, reason }) => console.log(`${peer.address} is back: ${reason}`))

let retried = 0
const proxy = createProxyHandler(checkups, {
  tryTimeout: 1_000,
  onEnd: ({ attempts }) => (retried += Math.max(0, attempts.length - 1)),
})
const gateway = createServer(proxy).on('upgrade', proxy.upgrade).listen(0, '127.0.0.1')
await once(gateway, 'listening')
const url = `http://localhost:${(gateway.address() as AddressInfo).port}/`

let asked = 0
async function ask(): Promise<string> {
  asked++
  const response = await fetch(url)
  if (!response.ok) throw new Error(`status ${response.status}`)
  return response.text()
}
let running = true
const client = async () => {
  while (running) await ask()
}
const clients = [client(), client(), client()]

const [, victim] = backends as [Backend, Backend]
console.log(`SIGKILL for b, 127.0.0.1:${victim.port}`)
const down = new Promise((resolve) => checkups.on('peer:down', resolve))
await killBackend(victim)
await down

console.log('it is started again')
backends[1] = await startBackend('b', victim.port)
while ((await ask()) !== 'b');
console.log('b has answered')

running = false
await Promise.all(clients)
console.log(`${asked} requests, all answered; ${retried} of them by the next peer`)

proxy.close()
gateway.close()
await checkups.close()
for (const backend of backends) backend.process.disconnect()
