/**
 * nginx and a Node proxy before the same servers, both driven from one prefix in Consul: a URL goes to the same server
 * through both, also after a server has come. Run it with `node --import tsx examples/nginx-and-node/main.ts`; it starts
 * Consul and an nginx of its own, and needs nginx to be installed.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer, get } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'
import httpProxy from 'http-proxy'
import { Checkups } from 'checkups'
import { consulKv } from 'checkups/consul'
import { balanceProxy } from 'checkups/http-proxy'
import { nginxWriter } from 'checkups/nginx'
import { startBackend, type Backend } from '../gateway/backends.js'
import { freePort, startAgent } from '../consul/agent.js'
import { Nginx } from './nginx.js'

setTimeout(() => {
  throw new Error('it should have ended by now')
}, 60_000).unref()

const consul = await startAgent()
const backends = await Promise.all(['a', 'b', 'c', 'd'].map((name) => startBackend(name)))
const add = ({ port }: Backend) => consul.put(`/v1/kv/upstreams/shop/127.0.0.1:${port}`, { weight: 1 })
const [a, b, c, d] = backends as [Backend, Backend, Backend, Backend]
for (const backend of [a, b, c]) await add(backend)

// The servers come from Consul; how they are used is said here.
const checkups = new Checkups({
  upstreams: { shop: { servers: [], allowEmpty: true, balancer: { type: 'consistent-hash', hash: 'nginx' } } },
  sources: [consulKv({ address: consul.address, prefix: 'upstreams', layout: 'upsync' })],
})
await checkups.start()

const gateway = balanceProxy(checkups, httpProxy.createProxyServer(), { key: () => 'shop', hashKey: 'url' })
const node = createServer(gateway.web).listen(0, '127.0.0.1')
await once(node, 'listening')

// nginx follows by its file, which is written and read again after each change.
const nginx = new Nginx(await freePort(), 'shop')
const writer = nginxWriter({
  checkups,
  upstreams: ['shop'],
  path: nginx.upstreamFile,
  hashKey: '$request_uri',
  command: ['sh', '-c', nginx.reload],
})
await writer.flush()
nginx.start()

const KEYS = Array.from({ length: 100 }, (_, i) => `/item/${i}?page=${i % 7}`)
const ask = (port: number, path: string) =>
  new Promise<string>((resolve, reject) => {
    get({ host: '127.0.0.1', port, path, agent: false }, (res) => resolve(text(res))).on('error', reject)
  })
/** Who answers each of the keys: a backend says its name. */
const answers = (port: number) => Promise.all(KEYS.map((key) => ask(port, key)))
const both = async () => {
  const byNode = await answers((node.address() as AddressInfo).port)
  const byNginx = await answers(nginx.port)
  return { byNode, byNginx, same: byNode.filter((name, i) => name === byNginx[i]).length }
}
const shares = (names: readonly string[]) =>
  backends.map(({ name }) => `${name} ${names.filter((one) => one === name).length}`).join('  ')
const print = ({ byNode, byNginx, same }: Awaited<ReturnType<typeof both>>) => {
  console.log(`  by Node   ${shares(byNode)}`)
  console.log(`  by nginx  ${shares(byNginx)}`)
  console.log(`  ${same} of ${KEYS.length} keys go to the same server`)
}

while (!(await ask(nginx.port, '/').catch(() => undefined))) await sleep(20)
console.log(readFileSync(nginx.upstreamFile, 'utf8'))
const before = await both()
print(before)
assert.equal(before.same, KEYS.length)

const isThere = new Promise((resolve) => checkups.on('upstream:update', resolve))
const written = performance.now()
const since = () => `${(performance.now() - written).toFixed(0)} ms`
await add(d)
await isThere
console.log(`\nPUT of d: in Node after ${since()}`)
await writer.flush()
console.log(`  nginx is told to read its file again after ${since()}`)
// Workers with the old file take connections until those with the new one are there.
let after = await both()
while (after.same < KEYS.length) after = await both()
console.log(`  both are the same again after ${since()}`)
print(after)
const moved = KEYS.filter((_, i) => before.byNode[i] !== after.byNode[i]).length
const toNew = after.byNode.filter((name) => name === 'd').length
console.log(`  ${moved} keys have moved, ${toNew} of them to d`)
assert(moved > 0 && moved === toNew)

await writer.close()
await nginx.stop()
gateway.close()
node.close()
node.closeAllConnections()
await checkups.close()
await consul.kill()
for (const backend of backends) backend.process.disconnect()
