/** What others do to find the server of a key; their servers are of equal weight, as two of them know no other. */
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type { FindFunction } from './keys.js'
import { equalServers, hashKey } from './package.js'

const require = createRequire(import.meta.url)

const addresses = (n: number) => equalServers(n).map(({ host, port }) => `${host}:${port}`)

export function hashring(n: number): FindFunction {
  const HashRing = require('hashring') as new (servers: readonly string[]) => { get(key: string): unknown }
  const ring = new HashRing(addresses(n))
  return (key) => ring.get(key)
}

interface ConsistentHashRing {
  add(server: string): void
  get(key: string): unknown
}

export function consistentHash(n: number): FindFunction {
  const ConsistentHash = require('consistent-hash') as new (options: { range?: number }) => ConsistentHashRing
  // Its default range is for 2,500 servers; the wider one is what its manual names for more.
  const ring = new ConsistentHash(n > 2_500 ? { range: 1_000_003 } : {})
  for (const address of addresses(n)) ring.add(address)
  return (key) => ring.get(key)
}

export function nodeHashring(n: number): FindFunction {
  const HashRing = require('node-hashring') as new (servers: readonly string[]) => { findNode(key: string): unknown }
  const ring = new HashRing(addresses(n))
  return (key) => ring.findNode(key)
}

interface JumpHash {
  readonly jumpConsistentHash: (key: Uint8Array, buckets: number) => number
}

/** It takes 8 bytes: those of our hash and of a multiple of it, which costs it least. */
export function jumpHash(n: number): FindFunction {
  const { jumpConsistentHash } = require('@subspace/jump-consistent-hash') as JumpHash
  const list = equalServers(n)
  const bytes = new Uint8Array(8)
  const halves = new Uint32Array(bytes.buffer)
  return (key) => {
    const hash = hashKey(key)
    halves[0] = hash
    halves[1] = Math.imul(hash, 0x9e3779b1)
    return list[jumpConsistentHash(bytes, n)]
  }
}

interface Shard {
  select(list: readonly object[], context: object): unknown
}

export function moleculerShard(n: number): FindFunction {
  const file = join(dirname(require.resolve('moleculer')), 'src/strategies/shard.js')
  const Strategy = require(file) as new (registry: object, broker: object, options: { shardKey: string }) => Shard
  const strategy = new Strategy({}, { localBus: { on: () => undefined } }, { shardKey: 'key' })
  const list = addresses(n).map((id) => ({ id }))
  return (key) => strategy.select(list, { params: { key } })
}
