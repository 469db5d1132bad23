// Requests with undici and fetch, balanced; one of three backends is killed, and no request notices.
// npx tsx examples/undici.ts
import { Checkups } from 'checkups'
import { createDispatcher } from 'checkups/undici'
import { request } from 'undici'
import { killBackend, startBackend, type Backend } from './gateway/backends.js'

const backends = await Promise.all(['a', 'b', 'c'].map((name) => startBackend(name)))
const checkups = new Checkups({
  upstreams: { imgprocess: { servers: backends.map(({ port }) => `127.0.0.1:${port}`) } },
})
checkups.on('peer:down', ({ peer, reason }) => console.log(`${peer.address} is out: ${reason}`))

const dispatcher = createDispatcher(checkups)

// The host of the URL is the key of the upstream.
const counts = new Map<string, number>()
async function ask(): Promise<void> {
  const { statusCode, body } = await request('http://imgprocess/thumbnail', { dispatcher })
  const name = await body.text()
  if (statusCode !== 200) throw new Error(`status ${statusCode}`)
  counts.set(name, (counts.get(name) ?? 0) + 1)
}
const load = async () => {
  for (let i = 0; i < 30; i++) await ask()
}
const tell = (when: string) => {
  console.log(
    `${when}: ${Array.from(counts, ([name, count]) => `${name} ${count}`)
      .sort()
      .join(', ')}`,
  )
  counts.clear()
}

await Promise.all([load(), load(), load()])
tell('all three')

const [, victim] = backends as [Backend, Backend]
const clients = [load(), load(), load()]
console.log(`SIGKILL for b, 127.0.0.1:${victim.port}, in the middle of it`)
await killBackend(victim)
await Promise.all(clients)
tell('meanwhile')

// Node's own fetch takes the same dispatcher (its types know another undici), and a body goes with the request to the next peer.
const options = { dispatcher, method: 'PUT', body: 'pixels' } as unknown as RequestInit
const texts = await Promise.all([1, 2, 3].map(async () => (await fetch('http://imgprocess/', options)).text()))
console.log(`fetch: ${texts.join(', ')}`)

await dispatcher.close()
await checkups.close()
for (const backend of backends) if (backend !== victim) backend.process.disconnect()
