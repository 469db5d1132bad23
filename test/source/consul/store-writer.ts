/** A process of `store.test.ts`: adds 1 to the weight of a server, so many times, and prints how often it had to retry. */
import { ConsulStore } from '../../../src/source/consul.js'

const [address, layout, server, times] = process.argv.slice(2) as [string, 'upsync' | 'slardar', string, string]
const store = new ConsulStore({ prefix: 'app', layout, address })
let retries = 0
for (let i = 0; i < Number(times); i++) {
  const result = await store.patchServer('api', server, ({ weight = 1 }) => ({ weight: weight + 1 }))
  retries += result.retries
}
store.close()
console.log(retries)
