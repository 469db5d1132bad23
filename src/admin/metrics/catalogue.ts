/** All metrics: their names without the prefix, what they mean, and where their values come from. */
import type { CheckupsStatus } from '../../status.js'
import { FOUND, OUTCOMES, STATES, type Counts, type Labels, type PeerCounts } from './counts.js'
import type { Histogram } from './histogram.js'

/** Adds one value; one of a histogram has a suffix to its name, `_bucket` with the bucket's bound. */
export type Add = (value: number, labels: Labels, suffix?: '_bucket' | '_sum' | '_count', bound?: number) => void

/** One look at an instance. */
export interface Look {
  readonly status: CheckupsStatus
  /** Brought up to date by this status. */
  readonly counts: Counts
  /** Of the package. */
  readonly version: string
}

export interface Definition {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly help: string
  /** What several processes make of their values, in prom-client's words. */
  readonly aggregator: 'sum' | 'min' | 'max' | 'average' | 'first'
  /** Whether it makes sense only where peers are told apart. */
  readonly perPeer?: true
  readonly collect: (look: Look, add: Add) => void
}

export const catalogue: readonly Definition[] = [
  {
    name: 'picks_total',
    type: 'counter',
    help: 'Picks, by whether a peer was picked or nobody was available.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const peer of allPeers(counts)) add(peer.picks, peer.labels.with('result', 'picked'))
      for (const { labels, nobody } of counts.upstreams.values()) add(nobody, labels.with('result', 'nobody'))
    },
  },
  {
    name: 'retries_total',
    type: 'counter',
    help: 'Picks for a further attempt of one request.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const { labels, retries } of counts.upstreams.values()) add(retries, labels.plain)
    },
  },
  {
    name: 'outcomes_total',
    type: 'counter',
    help: 'Requests that have ended, by what that means for the health of the peer.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const peer of allPeers(counts)) {
        for (const outcome of OUTCOMES) add(peer.outcomes[outcome], peer.labels.with('outcome', outcome))
      }
    },
  },
  {
    name: 'request_duration_seconds',
    type: 'histogram',
    help: 'Time to the answer, or to the end of a request without one, by outcome.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const peer of allPeers(counts)) {
        for (const outcome of OUTCOMES) addHistogram(peer.latency[outcome], peer.labels.with('outcome', outcome), add)
      }
    },
  },
  {
    name: 'requests_in_flight',
    type: 'gauge',
    help: 'Requests that were given a peer and have not ended.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const peer of presentPeers(counts)) add(peer.inFlight, peer.labels.plain)
    },
  },
  {
    name: 'peer_state',
    type: 'gauge',
    help: 'State of a peer: 1 for the one it is in, 0 for the others.',
    aggregator: 'average',
    perPeer: true,
    collect: ({ counts }, add) => {
      for (const peer of presentPeers(counts)) {
        if (peer.state === undefined) continue
        for (const state of STATES) add(Number(peer.state === state), peer.labels.with('state', state))
      }
    },
  },
  {
    name: 'peers',
    type: 'gauge',
    help: 'Peers of an upstream, by state.',
    aggregator: 'average',
    collect: ({ counts }, add) => {
      for (const { labels, states, left } of counts.upstreams.values()) {
        if (!left) for (const [state, count] of states) add(count, labels.with('state', state))
      }
    },
  },
  {
    name: 'bans_total',
    type: 'counter',
    help: 'How often outcomes have taken a peer out: it failed, or asked to be left alone.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const peer of allPeers(counts)) add(peer.bans, peer.labels.plain)
    },
  },
  {
    name: 'heartbeats_total',
    type: 'counter',
    help: 'Heartbeats that have ended, by what they have found.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const peer of allPeers(counts)) {
        if (peer.checked) for (const found of FOUND) add(peer.heartbeats[found], peer.labels.with('found', found))
      }
    },
  },
  {
    name: 'heartbeat_duration_seconds',
    type: 'histogram',
    help: 'Time that heartbeats have taken.',
    aggregator: 'sum',
    collect: ({ counts }, add) => {
      for (const { labels, heartbeats } of counts.upstreams.values()) addHistogram(heartbeats, labels.plain, add)
    },
  },
  {
    name: 'heartbeats_waiting',
    type: 'gauge',
    help: 'Heartbeats that are due and wait in line, because too many are under way.',
    aggregator: 'sum',
    collect: ({ status }, add) => add(status.heartbeats.waiting, {}),
  },
  {
    name: 'heartbeat_lag_seconds',
    type: 'gauge',
    help: 'How late the last heartbeat began: more than some shows that the process cannot keep up.',
    aggregator: 'max',
    collect: ({ status }, add) => add(status.heartbeats.lag / 1000, {}),
  },
  {
    name: 'upstream_generation',
    type: 'gauge',
    help: 'Generation of the last change of the servers or options of an upstream.',
    aggregator: 'max',
    collect: ({ counts }, add) => {
      for (const { labels, generation, left } of counts.upstreams.values()) if (!left) add(generation, labels.plain)
    },
  },
  {
    name: 'source_up',
    type: 'gauge',
    help: 'Whether what a source gave last is in use and it can be reached.',
    aggregator: 'min',
    collect: ({ status }, add) => {
      for (const { name, state } of status.sources) add(Number(state === 'current'), { source: name })
    },
  },
  {
    name: 'source_last_contact_timestamp_seconds',
    type: 'gauge',
    help: 'When a source was last reached, in seconds since the Unix epoch.',
    aggregator: 'min',
    collect: ({ status }, add) => {
      for (const { name, lastContact } of status.sources) addTime(lastContact, { source: name }, add)
    },
  },
  {
    name: 'source_last_change_timestamp_seconds',
    type: 'gauge',
    help: 'When something that a source gave was last applied, in seconds since the Unix epoch.',
    aggregator: 'min',
    collect: ({ status }, add) => {
      for (const { name, lastChange } of status.sources) addTime(lastChange, { source: name }, add)
    },
  },
  {
    name: 'source_changes_total',
    type: 'counter',
    help: 'Upstreams that a source has created, changed or deleted.',
    aggregator: 'sum',
    collect: ({ status, counts }, add) => {
      for (const { name } of status.sources) add(counts.source(name).changes, { source: name })
    },
  },
  {
    name: 'source_errors_total',
    type: 'counter',
    help: 'Errors that were told of a source; one that goes on is told once.',
    aggregator: 'sum',
    collect: ({ status, counts }, add) => {
      for (const { name } of status.sources) add(counts.source(name).errors, { source: name })
    },
  },
  {
    name: 'source_refused_entries',
    type: 'gauge',
    help: 'Entries of what a source gave last that were left out.',
    aggregator: 'max',
    collect: ({ status }, add) => {
      for (const { name, refused } of status.sources) add(refused.length, { source: name })
    },
  },
  {
    name: 'other_peers',
    type: 'gauge',
    help: 'Peers beyond maxPeers: they have no series of their own and are counted as the peer "other".',
    aggregator: 'max',
    perPeer: true,
    collect: ({ counts }, add) => add(counts.others, {}),
  },
  {
    name: 'build_info',
    type: 'gauge',
    help: 'Always 1; the version of checkups is a label.',
    aggregator: 'first',
    collect: ({ version }, add) => add(1, { version }),
  },
]

/** Also those that have left, once more. */
function* allPeers(counts: Counts): Generator<PeerCounts> {
  for (const upstream of counts.upstreams.values()) yield* upstream.all()
}

function* presentPeers(counts: Counts): Generator<PeerCounts> {
  for (const peer of allPeers(counts)) if (!peer.left && !peer.upstream.left) yield peer
}

function addHistogram(histogram: Histogram | undefined, labels: Labels, add: Add): void {
  if (histogram === undefined) return
  const counts = histogram.cumulative()
  for (const [i, count] of counts.entries()) add(count, labels, '_bucket', histogram.bounds[i] ?? Infinity)
  add(histogram.sum, labels, '_sum')
  add(counts.at(-1)!, labels, '_count')
}

/** Milliseconds become seconds; a time that is not known has no value. */
function addTime(wall: number, labels: Labels, add: Add): void {
  if (!Number.isNaN(wall)) add(wall / 1000, labels)
}
