// One of three backends is killed and comes back: heartbeats say so, and the requests meanwhile notice nothing.
// npx tsx examples/heartbeats.ts
import { setTimeout as sleep } from 'node:timers/promises'
import { Checkups } from 'checkups'
import { killBackend, startBackend, type Backend } from './gateway/backends.js'

const backends = await Promise.all(['a', 'b', 'c'].map((name) => startBackend(name)))

const checkups = new Checkups({
  retryBudget: false, // until the heartbeats have seen it, every third request is repeated
  upstreams: {
    api: {
      servers: backends.map(({ port }) => `127.0.0.1:${port}`),
      maxFails: 0, // only heartbeats take servers out; without this line the first failed request does, at once
      heartbeat: { type: 'http', path: '/status', interval: 500, fastInterval: 200, timeout: 200, fall: 2 },
    },
  },
})

const start = performance.now()
const log = (text: string) => console.log(`${((performance.now() - start) / 1000).toFixed(2)} s  ${text}`)
checkups.on('peer:down', ({ peer, reason }) => log(`${peer.address} is out: ${reason}`))
checkups.on('peer:up', ({ peer, reason }) => log(`${peer.address} is back: ${reason}`))
const next = (event: 'peer:down' | 'peer:up') => new Promise((resolve) => checkups.on(event, resolve))

await checkups.start()
setTimeout(() => process.exit(1), 60_000).unref() // if nobody saw it die

// Traffic, one request after another; one that fails would end the program with code 1.
let answers = 0
let running = true
const client = async () => {
  for (; running; answers++) {
    await checkups.readyOk('api', async (peer, { signal }) => (await fetch(peer.origin(), { signal })).text())
  }
}
const clients = [client(), client(), client(), client()]
await sleep(1_000)

const [, victim] = backends as [Backend, Backend]
log(`SIGKILL for 127.0.0.1:${victim.port}`)
const down = next('peer:down')
await killBackend(victim)
await down
await sleep(1_000)

log('it is started again')
const up = next('peer:up')
backends[1] = await startBackend('b', victim.port)
await up
await sleep(1_000)

running = false
await Promise.all(clients)
log(`${answers} requests, all answered`)

await checkups.close()
for (const backend of backends) backend.process.disconnect()
