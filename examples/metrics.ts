// Metrics for Prometheus: three backends, one of which fails, some traffic, and one scrape of what came of it.
// npx tsx examples/metrics.ts
import { once } from 'node:events'
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Registry } from 'prom-client'
import { Checkups } from 'checkups'
import { collectMetrics } from 'checkups/metrics'

async function listen(listener: RequestListener) {
  const server = createServer(listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  return { port: (server.address() as AddressInfo).port, close: () => server.close().closeAllConnections() }
}

const backends = await Promise.all([
  listen((_req, res) => void sleep(2).then(() => res.end('fast'))),
  listen((_req, res) => void sleep(30).then(() => res.end('slow'))),
  listen((_req, res) => res.writeHead(503).end('failing')),
])
const names = new Map(backends.map(({ port }, i) => [`127.0.0.1:${port}`, ['fast', 'slow', 'failing'][i]!]))

const checkups = new Checkups({
  upstreams: {
    api: { servers: [...names.keys()], failTimeout: 200, heartbeat: { type: 'tcp', interval: 500 } },
  },
})
await checkups.start()

// Without a register of its own it is prom-client's default one, where the metrics of the process are, too.
const metrics = await collectMetrics(checkups, { register: new Registry() })

const exporter = await listen((_req, res) => {
  const { register } = metrics
  register.metrics().then(
    (text) => res.setHeader('content-type', register.contentType).end(text),
    (error: unknown) => res.writeHead(500).end(String(error)),
  )
})
const url = `http://127.0.0.1:${exporter.port}/metrics`
console.log(`a server of your own has them, as ${url}\n`)

const until = performance.now() + 1_500
const client = async () => {
  while (performance.now() < until) {
    await checkups.readyOk('api', async (peer, attempt) => {
      const response = await fetch(peer.origin(), { signal: attempt.signal })
      attempt.answered(response.status)
      await response.arrayBuffer()
      return response
    })
  }
}
await Promise.all([client(), client(), client(), client()])

const text = await (await fetch(url)).text()
const interesting =
  /^checkups_(retries_total|outcomes_total.*outcome="(ok|failed)"|request_duration_seconds_bucket.*le="0.025",.*outcome="ok"|peer_state.* 1$|bans_total)/
for (const line of text.split('\n')) {
  if (interesting.test(line)) console.log(line.replace(/127\.0\.0\.1:\d+/, (address) => names.get(address)!))
}

metrics.close()
await checkups.close()
for (const server of [exporter, ...backends]) server.close()
