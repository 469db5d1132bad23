/** How long an update of one peer among 10,000 holds the event loop: prints milliseconds by kind of update. */
import { setImmediate } from 'node:timers/promises'
import { median } from './measure.js'
import { Checkups, servers, type Server } from './package.js'
import type { Updates, UpdateTimes } from './results.js'

const PEERS = 10_000
const TIMES = 20
const WARM_UP = 5

const before = servers(PEERS)
const checkups = new Checkups({ upstreams: { api: { servers: before } } })
const handle = checkups.upstream('api')

/** Until the next turn of the event loop. The objects are fresh ones, as from a source. */
async function blocked(list: readonly Server[]): Promise<number> {
  const fresh = JSON.parse(JSON.stringify([{ servers: list }])) as { servers: Server[] }[]
  await setImmediate()
  const start = performance.now()
  const turn = setImmediate()
  await checkups.updateUpstream('api', fresh)
  handle.selectPeer()
  await turn
  return performance.now() - start
}

const added: number[] = []
const removed: number[] = []
const weighed: number[] = []
let current = before
for (let i = 0; i < WARM_UP + TIMES; i++) {
  const at = (i * 997) % PEERS
  added.push(await blocked(current.toSpliced(at, 0, { host: '10.1.0.1', port: 80 + i, weight: 5 })))
  removed.push(await blocked(current))
  current = current.with(at, { ...current[at]!, weight: current[at]!.weight + 1 })
  weighed.push(await blocked(current))
}

function summary(times: readonly number[]): UpdateTimes {
  const warm = times.slice(WARM_UP)
  return { median: median(warm), longest: Math.max(...warm), first: times[0]! }
}

const updates: Updates = {
  'one peer added': summary(added),
  'one peer removed': summary(removed),
  'one weight changed': summary(weighed),
}
console.log(JSON.stringify(updates))
