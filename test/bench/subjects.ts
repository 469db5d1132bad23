/** What is measured: a name, and what makes its pick over n peers. */
import { subscribe } from 'node:diagnostics_channel'
import type { BalancerOption, ConsistentHashOptions, UpstreamOptions } from 'checkups'
import { churn, churnWithTrials } from './churn.js'
import * as keyPeers from './key-peers.js'
import type { FindFunction } from './keys.js'
import type { PickFunction } from './measure.js'
import { Checkups, equalServers, hashKey, servers } from './package.js'
import * as peers from './peers.js'
import { policies } from './policies.js'

export interface Sized {
  readonly name: string
  /** Default: all of {@link SIZES}. The first stands for those left out. */
  readonly sizes?: readonly number[]
}

export interface Subject extends Sized {
  readonly make: (n: number) => PickFunction
}

/** What finds the server of a key. */
export interface KeyedSubject extends Sized {
  readonly make: (n: number) => FindFunction
}

export const SIZES = [3, 10, 100, 1_000, 10_000]

const KEY = 'api'
const OTHERS_RUN = 1_000_000

type HashName = NonNullable<ConsistentHashOptions['hash']>

const instance = (n: number) => new Checkups({ upstreams: { [KEY]: { servers: servers(n) } } })

function byHandle(n: number): PickFunction {
  const handle = instance(n).upstream(KEY)
  return () => handle.selectPeer()
}

function byKey(n: number): PickFunction {
  const checkups = instance(n)
  return () => checkups.selectPeer(KEY)
}

const acquireAndDone =
  (balancer: BalancerOption) =>
  (n: number): PickFunction => {
    const handle = new Checkups({ upstreams: { [KEY]: { balancer, servers: servers(n) } } }).upstream(KEY)
    return () => {
      const pick = handle.acquirePeer()!
      pick.done('ok')
      return pick
    }
  }

/** Of equal weight, as not all others know weights. */
const byHash =
  (hash: HashName) =>
  (n: number): FindFunction => {
    const balancer = { type: 'consistent-hash', hash } as const
    const handle = new Checkups({ upstreams: { [KEY]: { balancer, servers: equalServers(n) } } }).upstream(KEY)
    return (hashKey) => handle.selectPeer({ hashKey })
  }

/** While somebody listens to the picks. */
function heard(n: number): PickFunction {
  let told = 0
  subscribe('checkups:pick', () => {
    told++
  })
  const pick = byHandle(n)
  pick()
  if (told !== 1) throw new Error('nobody is told')
  return pick
}

function byKeyOfThousand(n: number): PickFunction {
  const others = Array.from({ length: 999 }, (_, i) => [`other-${i}`, { servers: servers(2) }] as const)
  const checkups = new Checkups({
    upstreams: new Map<string, UpstreamOptions>([...others, [KEY, { servers: servers(n) }]]),
  })
  return () => checkups.selectPeer(KEY)
}

function everyPolicyHasRun(n: number): PickFunction {
  const others = Object.entries(policies).map(([key, balancer]) => [key, { balancer, servers: servers(10) }] as const)
  const checkups = new Checkups({
    upstreams: new Map<string, UpstreamOptions>([...others, [KEY, { servers: servers(n) }]]),
  })
  for (const [key] of others) {
    const handle = checkups.upstream(key)
    let picked = 0
    for (let i = 0; i < OTHERS_RUN; i++) if (handle.selectPeer() !== undefined) picked++
    if (picked < OTHERS_RUN) throw new Error(`${key} picks nobody`)
  }
  const handle = checkups.upstream(KEY)
  return () => handle.selectPeer()
}

const somebody = {}

export const ours = {
  handle: { name: 'upstream(key).selectPeer()', make: byHandle },
  everyPolicy: { name: 'the same where six policies have run', make: everyPolicyHasRun },
  heard: { name: 'the same with a subscriber of checkups:pick', make: heard },
  key: { name: 'selectPeer(key), 1 upstream', make: byKey },
  keyOfThousand: { name: 'selectPeer(key), 1,000 upstreams', make: byKeyOfThousand },
  acquire: { name: "acquirePeer() + done('ok')", make: acquireAndDone('wrr') },
  churn: { name: 'a ban and a return per 1,000 picks', make: churn },
  churnWithTrials: { name: 'the same, trials waiting for their pick', make: churnWithTrials },
} satisfies Record<string, Subject>

export const theirs = {
  moleculer: { name: 'moleculer RoundRobin', make: peers.moleculerRoundRobin },
  loadbalance: { name: 'loadbalance RoundRobinEngine', make: peers.loadbalanceRoundRobin },
  loadbalanceWeighted: { name: 'loadbalance WeightedRoundRobinEngine', make: peers.loadbalanceWeighted },
  undiciRoundRobin: { name: 'undici RoundRobinPool', make: peers.undiciRoundRobin },
  undiciBalanced: { name: 'undici BalancedPool', make: peers.undiciBalanced },
  grpcRoundRobin: { name: 'grpc-js round_robin', make: peers.grpcRoundRobin },
  grpcWeighted: { name: 'grpc-js weighted_round_robin', make: peers.grpcWeightedRoundRobin },
} satisfies Record<string, Subject>

/** A request from its pick to its end, under policies that look at load. */
export const load = {
  fastestFirst: { name: 'fastest-first', make: acquireAndDone('fastest-first') },
  leastOfTwo: { name: 'least-connections of two', make: acquireAndDone({ type: 'least-connections', choices: 2 }) },
  leastOfAll: { name: 'least-connections of all', make: acquireAndDone('least-connections') },
} satisfies Record<string, Subject>

export const floor: Subject = { name: 'the loop alone', make: () => () => somebody, sizes: [SIZES[0]!] }

export const subjects: readonly Subject[] = [
  ...Object.values(ours),
  ...Object.values(theirs),
  ...Object.values(load),
  floor,
]

export const ourHashes = {
  ketama: { name: 'consistent-hash', make: byHash('ketama') },
  maglev: { name: "consistent-hash, hash: 'maglev'", make: byHash('maglev') },
  nginx: { name: "consistent-hash, hash: 'nginx'", make: byHash('nginx') },
} satisfies Record<string, KeyedSubject>

export const theirHashes = {
  consistentHash: { name: 'the package consistent-hash', make: keyPeers.consistentHash },
  nodeHashring: { name: 'node-hashring', make: keyPeers.nodeHashring },
  hashring: { name: 'hashring', make: keyPeers.hashring },
  jump: { name: '@subspace/jump-consistent-hash, of our hash', make: keyPeers.jumpHash },
  moleculer: { name: 'moleculer Shard', make: keyPeers.moleculerShard },
} satisfies Record<string, KeyedSubject>

export const bareHash: KeyedSubject = { name: 'the hash of the key alone', make: () => hashKey, sizes: [SIZES[0]!] }
export const bareKey: KeyedSubject = { name: 'the key alone', make: () => (key) => key, sizes: [SIZES[0]!] }

/** Whose memory is measured. */
export const remembered: readonly Sized[] = [
  ours.handle,
  load.fastestFirst,
  ourHashes.ketama,
  ourHashes.maglev,
  theirHashes.consistentHash,
  theirHashes.nodeHashring,
  theirHashes.hashring,
  theirHashes.moleculer,
]

export const keyedSubjects: readonly KeyedSubject[] = [
  ...Object.values(ourHashes),
  ...Object.values(theirHashes),
  bareHash,
  bareKey,
]
