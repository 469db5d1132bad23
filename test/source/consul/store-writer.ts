/**
 * A process of `store.test.ts`: says that it is ready, and once it is told to go adds 1 to the weight of a server, so many
 * times, and prints how often it had to retry.
 */
import { once } from 'node:events'
import { ConsulStore } from '../../../src/source/consul.js'

const [address, layout, server, times] = process.argv.slice(2) as [string, 'upsync' | 'slardar', string, string]
const store = new ConsulStore({ prefix: 'app', layout, address })
console.log('ready')
await once(process.stdin, 'data')
process.stdin.destroy()
let retries = 0
for (let i = 0; i < Number(times); i++) {
  const result = await store.patchServer('api', server, ({ weight = 1 }) => ({ weight: weight + 1 }))
  retries += result.retries
}
store.close()
console.log(retries)
