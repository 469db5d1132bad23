/** What is measured: a name, and what makes its pick over n peers. */
import type { UpstreamOptions } from 'checkups'
import { churn, churnWithTrials } from './churn.js'
import type { PickFunction } from './measure.js'
import { Checkups, servers } from './package.js'
import * as peers from './peers.js'
import { policies } from './policies.js'

export interface Subject {
  readonly name: string
  readonly make: (n: number) => PickFunction
  /** Default: all of {@link SIZES}. */
  readonly sizes?: readonly number[]
}

export const SIZES = [3, 10, 100, 1_000, 10_000]

const KEY = 'api'
const OTHERS_RUN = 1_000_000

const instance = (n: number) => new Checkups({ upstreams: { [KEY]: { servers: servers(n) } } })

function byHandle(n: number): PickFunction {
  const handle = instance(n).upstream(KEY)
  return () => handle.selectPeer()
}

function byKey(n: number): PickFunction {
  const checkups = instance(n)
  return () => checkups.selectPeer(KEY)
}

function acquireAndDone(n: number): PickFunction {
  const handle = instance(n).upstream(KEY)
  return () => {
    const pick = handle.acquirePeer()!
    pick.done('ok')
    return pick
  }
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
  key: { name: 'selectPeer(key), 1 upstream', make: byKey },
  keyOfThousand: { name: 'selectPeer(key), 1,000 upstreams', make: byKeyOfThousand },
  acquire: { name: "acquirePeer() + done('ok')", make: acquireAndDone },
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

export const floor: Subject = { name: 'the loop alone', make: () => () => somebody, sizes: [SIZES[0]!] }

export const subjects: readonly Subject[] = [...Object.values(ours), ...Object.values(theirs), floor]
