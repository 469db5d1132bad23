/**
 * A source of your own: lists from an HTTP endpoint. Run it with `node --import tsx examples/own-source.ts`.
 *
 * It reads, and says what it read; that it is asked again, how soon after a failure, what happens to an empty or a broken
 * answer and that the last good list stays is not its business.
 */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Checkups, type Source, type SourceLists } from 'checkups'

/** Asks `url` every `interval` milliseconds: `{ "api": [{ "servers": ["10.0.0.1:80"] }] }`. */
function httpSource(url: string, interval: number): Source {
  return {
    name: url,
    async watch(apply, { signal, sleep }) {
      const response = await fetch(url, { signal })
      if (!response.ok) throw new Error(`status ${response.status}`)
      apply({ upstreams: (await response.json()) as SourceLists['upstreams'] })
      await sleep(interval)
    },
  }
}

/** A list that does not change needs no source; it can be one all the same. */
const fixed: Source = {
  name: 'fixed',
  async watch(apply, { signal }) {
    apply({ upstreams: { static: [{ servers: ['10.0.0.9:80'] }] } })
    await once(signal, 'abort')
  },
}

let answer: unknown = { api: [{ servers: ['10.0.0.1:80', '10.0.0.2:80'] }] }
const registry = createServer((_, response) => {
  if (answer === undefined) response.writeHead(503)
  response.end(JSON.stringify(answer))
}).listen(0, '127.0.0.1')
await once(registry, 'listening')
const url = `http://127.0.0.1:${(registry.address() as AddressInfo).port}/`

const checkups = new Checkups({ sources: [httpSource(url, 50), fixed] })
const servers = () =>
  checkups
    .getStatus()
    .upstreams.map(({ key, levels }) => [key, ...levels[0]!.servers.map(({ address }) => address)].join(' '))

await checkups.start()
console.log('started with', servers())

const next = (event: 'source:error' | 'upstream:update') => new Promise((resolve) => checkups.on(event, resolve))

answer = { api: [{ servers: ['10.0.0.2:80', '10.0.0.3:80'] }] }
await next('upstream:update')
console.log('changed to  ', servers())

answer = { api: [] }
await next('source:error')
console.log('after an empty answer', servers(), checkups.getStatus().sources[0]!.error)

answer = undefined
await next('source:error')
console.log('while it fails       ', servers(), checkups.getStatus().sources[0]!.state)

await checkups.close()
registry.close()
registry.closeAllConnections()
