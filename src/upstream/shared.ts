/** What of an upstream processes agree about, and what each of them has alone. */
import { crc32 } from 'node:zlib'
import { toOptions } from '../compile.js'
import type { Load, SharedUpstream } from '../sync/sync.js'
import type { Upstream } from './upstream.js'

export function sharedUpstream({ key, generation, config, membership }: Upstream, now: number): SharedUpstream {
  const peers = [...membership.peers]
  return {
    key,
    generation,
    options: toOptions(config),
    heartbeats: peers.flatMap(([address, { heartbeat }]) =>
      heartbeat.found === 'unchecked' ? [] : [[address, heartbeat]],
    ),
    bans: peers.flatMap(([address, { passive, reason }]) => {
      if (passive.state !== 'banned') return []
      return [{ address, ms: Math.max(0, passive.until - now), asked: passive.asked === true, reason }]
    }),
  }
}

/** Of keys, generations and what heartbeats have found: how bans end, each process sees itself. */
export function digestOf(upstreams: Iterable<Upstream>): string {
  const lines = Array.from(upstreams, ({ key, generation, membership }) => {
    const found = Array.from(membership.peers, ([address, { heartbeat }]) => `${address} ${heartbeat.found}`)
    return JSON.stringify([key, generation, ...found.sort()])
  })
  return crc32(lines.sort().join('\n')).toString(36)
}

/** Without those that have nothing in flight. */
export function loadOf({ key, membership }: Upstream): Load {
  const servers = Array.from(membership.peers, ([address, { inFlight }]) => ({ address, inFlight }))
  return { key, servers: servers.filter(({ inFlight }) => inFlight > 0) }
}
