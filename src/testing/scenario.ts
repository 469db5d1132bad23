/** What a simulation is told, and what it tells. */
import type { Checkups } from '../checkups.js'
import type { Random } from '../clock.js'
import type { ServerOptions, UpstreamOptions } from '../config.js'
import type { Profile } from './profiles.js'

/** A peer of a scenario: how it answers, and its options as a server, as `weight` and `labels`. */
export interface ScenarioPeer extends Omit<ServerOptions, 'host' | 'port' | 'path'> {
  /** How it answers. */
  readonly profile: Profile
  /** As `peer.address` has it. Default `10.0.0.1:80` for the first peer, `10.0.0.2:80` for the second and so on. */
  readonly address?: string | undefined
}

/** Requests evenly spaced from time 0, however slow the answers. */
export interface OpenLoop {
  /** Requests a second. */
  readonly rate: number
}

/** Clients that each send their next request after the answer to the last; at least 1 ms after it was sent. */
export interface ClosedLoop {
  /** How many. */
  readonly clients: number
  /** Milliseconds between an answer and the next request. Default 0. */
  readonly think?: number | undefined
}

/** Who asks. */
export type Load = OpenLoop | ClosedLoop

/** When a request is sent again. */
export interface Retries {
  /** Further attempts at most; an integer from 1. */
  readonly count: number
  /** Statuses to send it again for. Default: 502, 503, 504. */
  readonly statuses?: readonly number[] | undefined
  /** Whether also after a refused or broken connection, and after a timeout. Default true. */
  readonly errors?: boolean | undefined
  /** Whether peers tried before are excluded, as `readyOk` does. Default true. */
  readonly exclude?: boolean | undefined
  /** Milliseconds before attempt `attempt`; the first further one is 1. Default: none. */
  readonly backoff?: ((attempt: number, random: Random) => number) | undefined
}

/** Something done in the middle of a scenario. */
export interface ScriptStep {
  /** Milliseconds of the scenario; before the requests of that instant. */
  readonly at: number
  /** Called for every instance. The upstream's key is `'simulated'`: `checkups.updateUpstream('simulated', …)`. */
  readonly run: (checkups: Checkups, instance: number) => unknown
}

/** An experiment with a policy. The same scenario with the same seed has the same result. */
export interface Scenario {
  /** The peers, in the order of the upstream's servers. */
  readonly peers: readonly (Profile | ScenarioPeer)[]
  /** The policy: a name, a name with options, or a factory of your own. Default `'wrr'`. */
  readonly balancer?: UpstreamOptions['balancer']
  /**
   * The upstream's other options. `maxFails: 0` turns passive health off. With `servers` or `cluster` (levels, or a part of
   * the peers) they are used instead of the peers' own options; every address there must be that of a peer.
   */
  readonly upstream?: UpstreamOptions | undefined
  /** Who asks, and how often. */
  readonly load: Load
  /** Milliseconds during which requests are begun. */
  readonly duration: number
  /** Milliseconds after that during which answers are waited for. Default: until all that can come have. */
  readonly grace?: number | undefined
  /** Milliseconds after which a client gives up an attempt, which then failed. Default 0 = never. */
  readonly timeout?: number | undefined
  /** A request that took longer than so many milliseconds in all is not ok, though it ended well. Default: no limit. */
  readonly okWithin?: number | undefined
  /** Which statuses are ok in the end. Default: those below 400. */
  readonly okStatus?: ((status: number) => boolean) | undefined
  /** Default: none. */
  readonly retries?: Retries | undefined
  /** Processes, each with a `Checkups` of its own. Requests go to one by chance, a closed loop's clients in turn. Default 1. */
  readonly instances?: number | undefined
  /** What a hashing policy hashes in the n-th request, from 0. Default: no key. */
  readonly hashKey?: ((request: number, random: Random) => string) | undefined
  /** What happens on the way: deploys, drains. Default: nothing. */
  readonly script?: readonly ScriptStep[] | undefined
  /** An integer. Default 1. */
  readonly seed?: number | undefined
}

/** Latencies in milliseconds by nearest rank; NaN if no request ended. */
export interface LatencySummary {
  /** Half of the requests took at most this. */
  readonly p50: number
  /** 90 %. */
  readonly p90: number
  /** 97 %. */
  readonly p97: number
  /** 99 %. */
  readonly p99: number
  /** 99.9 %. */
  readonly p999: number
  /** The arithmetic mean. */
  readonly mean: number
  /** The slowest. */
  readonly max: number
}

/** What one peer got. */
export interface PeerResult {
  /** Its address. */
  readonly address: string
  /** Attempts that were sent to it. */
  readonly requests: number
  /** Its part of all attempts, from 0 to 1; 0 if there were none. */
  readonly share: number
  /** Answers with a status that it gave, of whatever status, until the end of the simulation. */
  readonly responses: number
}

/** A time during which one instance did not use one peer. */
export interface Ban {
  /** Of the instance, from 0. */
  readonly instance: number
  /** The peer's address. */
  readonly peer: string
  /** Milliseconds of the scenario at which it was taken out. */
  readonly from: number
  /** Milliseconds of the scenario at which it came back, or Infinity if it did not before the end. */
  readonly to: number
}

/** How a scenario went. Plain data. */
export interface SimulationResult {
  /** Requests that clients began. */
  readonly requests: number
  /** Of those, the ones that ended well, and in time. */
  readonly ok: number
  /** {@link ok} of {@link requests}, from 0 to 1; NaN if there were none. */
  readonly successRate: number
  /** Requests that had not ended when the simulation did. They are not ok, and have no latency. */
  readonly unended: number
  /** Requests for which nobody was available, at the first attempt or a further one. */
  readonly unserved: number
  /** Attempts that were sent to peers. */
  readonly attempts: number
  /** Answers that peers gave. */
  readonly responses: number
  /** Of the requests that ended, well or not, from their first attempt to their end. */
  readonly latency: LatencySummary
  /** The latencies themselves in milliseconds, ascending; for {@link quantile}. */
  readonly latencies: Float64Array
  /** What each peer got, in the order of the scenario. */
  readonly peers: readonly PeerResult[]
  /** All bans, by their beginning. */
  readonly bans: readonly Ban[]
}
