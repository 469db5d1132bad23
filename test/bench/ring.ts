/** What rings of equal servers cost to build, and one server more beside 10,000: prints milliseconds. */
import { setImmediate } from 'node:timers/promises'
import { freshKeys } from './keys.js'
import { median } from './measure.js'
import { Checkups, equalServers, type Server } from './package.js'
import type { RingTimes } from './results.js'

const BUILT = 1_000
const GROWN = 10_000
const TIMES = 15
const WARM_UP = 3
/** A turn of the event loop in which nothing is done takes some microseconds. */
const BUSY = 0.1

const upstream = (servers: readonly Server[]) => ({ balancer: 'consistent-hash', servers }) as const
const instance = (servers: readonly Server[]) => new Checkups({ upstreams: { api: upstream(servers) } })

function building(): number {
  const servers = equalServers(BUILT)
  const start = performance.now()
  instance(servers).selectPeer('api', { hashKey: 'key' })
  return performance.now() - start
}

/** A key of each server: who it belongs to among all, it belongs to among fewer. */
function keysOf(wanted: readonly Server[], all: readonly Server[]): Map<Server, string> {
  const handle = instance(all).upstream('api')
  const missing = new Map(wanted.map((server) => [`${server.host}:${server.port}`, server]))
  const keys = new Map<Server, string>()
  const search = freshKeys((hashKey) => {
    const { address } = handle.selectPeer({ hashKey })!
    const server = missing.get(address)
    if (server !== undefined) keys.set(server, hashKey)
    missing.delete(address)
  })
  for (let tries = 0; missing.size > 0; tries++) {
    if (tries > 50 * all.length) throw new Error('a server without a key')
    search()
  }
  return keys
}

type Instance = InstanceType<typeof Checkups>

interface Pieces {
  readonly total: number
  readonly longest: number
}

/** The pieces for which the event loop is held, from the update until `done`. The objects are fresh ones, as from a source. */
async function pieces(checkups: Instance, servers: readonly Server[], done: () => boolean): Promise<Pieces> {
  const fresh = JSON.parse(JSON.stringify([{ servers }])) as { servers: Server[] }[]
  await setImmediate()
  let total = 0
  let longest = 0
  let last = performance.now()
  const updated = checkups.updateUpstream('api', fresh)
  for (let over = false; !over;) {
    await setImmediate()
    over = done()
    const now = performance.now()
    if (now - last > BUSY) {
      total += now - last
      longest = Math.max(longest, now - last)
    }
    last = now
  }
  await updated
  return { total, longest }
}

async function growing(): Promise<Pieces[]> {
  const servers = equalServers(GROWN)
  const more = equalServers(GROWN + WARM_UP + TIMES).slice(GROWN)
  const keys = keysOf(more, [...servers, ...more])
  const checkups = instance(servers)
  const handle = checkups.upstream('api')
  const measured: Pieces[] = []
  for (const server of more) {
    servers.splice((measured.length * 997) % GROWN, 0, server)
    const hashKey = keys.get(server)!
    const { host } = server
    measured.push(await pieces(checkups, servers, () => handle.selectPeer({ hashKey })?.host === host))
  }
  return measured.slice(WARM_UP)
}

const [cold, ...later] = Array.from({ length: 1 + WARM_UP + TIMES }, building)
const grown = await growing()
const times: RingTimes = {
  cold: cold!,
  warm: median(later.slice(WARM_UP)),
  total: median(grown.map(({ total }) => total)),
  piece: median(grown.map(({ longest }) => longest)),
  longest: Math.max(...grown.map(({ longest }) => longest)),
}
console.log(JSON.stringify(times))
