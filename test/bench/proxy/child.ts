/** What the proxies of this library have in common: `<program> <backends' ports…>` prints the port it listens on. */
import { createServer, type RequestListener } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Checkups } from 'checkups'

/** Of the upstream: the host that clients ask for. */
const KEY = '127.0.0.1'
const UPDATES_PER_SECOND = 10

const servers = process.argv.slice(2).map((port) => ({ host: '127.0.0.1', port: Number(port), weight: 1 }))

export const checkups = new Checkups({ upstreams: { [KEY]: { servers } } })

export function listen(handler: RequestListener): void {
  const server = createServer(handler).listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
}

let updates: NodeJS.Timeout | undefined
let made = 0

/** `true` begins updates of the upstream, in each of which a weight changes; `false` ends them, and is told how many it were. */
process.on('message', (on: boolean) => {
  clearInterval(updates)
  if (!on) {
    process.send!(made)
    return
  }
  made = 0
  const begun = performance.now()
  const update = async () => {
    // What a late timer has missed is made up for.
    const due = ((performance.now() - begun) * UPDATES_PER_SECOND) / 1_000
    for (; made + 1 <= due; made++) {
      const weight = 2 + (made % 10)
      await checkups.updateUpstream(KEY, [{ servers: [{ ...servers[0]!, weight }, ...servers.slice(1)] }])
    }
  }
  updates = setInterval(() => void update(), 1_000 / UPDATES_PER_SECOND)
})
