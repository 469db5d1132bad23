/**
 * A proxy whose backends are in Consul: one is added, one is removed, services register themselves, and in the end Consul
 * dies. Run it with `node --import tsx examples/consul/main.ts`; it starts an agent of its own.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import httpProxy from 'http-proxy'
import { Checkups, type CheckupsEvents } from 'checkups'
import { consulKv, consulServices } from 'checkups/consul'
import { balanceProxy } from 'checkups/http-proxy'
import { startBackend, type Backend } from '../gateway/backends.js'
import { startClients } from '../gateway/clients.js'
import { startAgent } from './agent.js'

const HOST = 'shop.example'
setTimeout(() => {
  throw new Error('it should have ended by now')
}, 60_000).unref()

const consul = await startAgent()
const [a, b, c] = (await Promise.all(['a', 'b', 'c'].map((name) => startBackend(name)))) as [Backend, Backend, Backend]

// The layout of nginx-upsync: a key for each server. This is `curl -X PUT -d '{"weight":1}' http://…/v1/kv/…`.
const keyOf = ({ port }: Backend) => `/v1/kv/upstreams/${HOST}/127.0.0.1:${port}`
await consul.put(keyOf(a), { weight: 1 })
await consul.put(keyOf(b), { weight: 1 })

const { address } = consul
const checkups = new Checkups({
  sources: [
    consulKv({ address, prefix: 'upstreams', layout: 'upsync' }),
    ...consulServices({ address, services: { billing: 'billing' } }),
  ],
})
await checkups.start()

// The proxy, and the requests it sends, by backend.
const proxy = httpProxy.createProxyServer()
const gateway = balanceProxy(checkups, proxy)
const server = createServer(gateway.web).listen(0, '127.0.0.1')
await once(server, 'listening')
const sent = new Map<string, number>()
let toC: number | undefined
proxy.on('proxyReq', (_request, _from, _to, { target }) => {
  const { name } = [a, b, c].find(({ port }) => Number((target as URL).port) === port)!
  sent.set(name, (sent.get(name) ?? 0) + 1)
  if (name === 'c') toC ??= performance.now()
})
/** What the proxy sends in a second. */
const watch = async (what: string) => {
  sent.clear()
  await sleep(1_000)
  const [ofA = 0, ofB = 0, ofC = 0] = ['a', 'b', 'c'].map((name) => sent.get(name))
  console.log(`${what.padEnd(24)} a ${ofA}  b ${ofB}  c ${ofC}`)
  return { a: ofA, b: ofB, c: ofC }
}
const next = <E extends keyof CheckupsEvents>(event: E, is: (event: CheckupsEvents[E]) => boolean) =>
  new Promise<void>((resolve) => checkups.on(event, (one) => is(one) && resolve()))
const updated = (upstream: string) => next('upstream:update', (event) => event.upstream === upstream)

const clients = startClients(20, (server.address() as AddressInfo).port, HOST)
const before = await watch('with a and b')
assert(before.a > 0 && before.b > 0 && before.c === 0)

let written = performance.now()
await consul.put(keyOf(c), '')
const three = await watch('PUT of c')
assert(toC !== undefined && three.c > 0)
console.log(`  its first request ${(toC - written).toFixed(1)} ms after the PUT was sent`)

const isRemoved = updated(HOST)
written = performance.now()
await consul.delete(keyOf(b))
await isRemoved
console.log(`  out of the list ${(performance.now() - written).toFixed(1)} ms after the DELETE was sent`)
const without = await watch('DELETE of b')
assert(without.a > 0 && without.b === 0 && without.c > 0)

// Services, as Registrator or the deployment registers them. Not by the npm client `consul`, which drops Weights.
const register = ({ name, port }: Backend, weight: number) => {
  const service = { Name: 'billing', ID: `billing-${name}`, Address: '127.0.0.1', Port: port }
  return consul.put('/v1/agent/service/register', {
    ...service,
    Weights: { Passing: weight, Warning: 1 },
    Meta: { zone: name },
  })
}
for (const [backend, weight] of [
  [a, 3],
  [b, 1],
] as const) {
  const isThere = updated('billing')
  await register(backend, weight)
  await isThere
}
const picks = Array.from({ length: 8 }, () => checkups.selectPeer('billing')?.labels['zone'])
console.log(`services of weight 3 and 1 ${picks.join(' ')}`)
assert.equal(picks.filter((zone) => zone === 'a').length, 6)

const areMissed = checkups.getStatus().sources.map(({ name }) => next('source:error', ({ source }) => source === name))
await consul.kill()
await Promise.all(areMissed)
const alone = await watch('Consul is dead')
assert(alone.a > 0 && alone.b === 0 && alone.c > 0)
for (const { name, state, error, upstreams } of checkups.getStatus().sources) {
  console.log(`  ${name} is ${state}, still with ${upstreams.join(', ')}: ${error}`)
  assert.equal(state, 'stale')
}
assert(checkups.selectPeer('billing') !== undefined)

await clients.stop()
const answers = [...clients.answers.values()].reduce((sum, count) => sum + count, 0)
console.log(`${answers} requests answered, ${clients.failures.length} failed`)
assert.deepEqual(clients.failures, [])

gateway.close()
server.close()
server.closeAllConnections()
await checkups.close()
for (const backend of [a, b, c]) backend.process.disconnect()
