/** Picking beyond the steady path: named clusters, exclusion, the next level, a trial as the last resort, and why nobody is left. */
import type { Request } from '../balancer/balancer.js'
import { expected } from '../check.js'
import { tcpEndpoint } from '../address.js'
import type { Level } from './level.js'
import type { Membership } from './membership.js'
import type { Peer } from './peer.js'
import type { Entry } from './state.js'

/** Names a peer by its address, for those who do not have the object. A port may be a numeric string. */
export interface PeerAddress {
  /** IP address or host name. */
  readonly host: string
  /** TCP port. */
  readonly port: number | string
}

/** What a pick may be asked for. */
export interface SelectOptions extends Request {
  /** Named clusters to use, in this order; names that do not exist are passed over. Default: all, in their order. */
  readonly clusterKey?: string | readonly string[] | undefined
  /** Peers not to return: for retry loops written by hand. */
  readonly exclude?: Iterable<Peer | PeerAddress> | undefined
}

/** What one attempt of a retry asks for. */
export interface AttemptRequest extends SelectOptions {
  /** What this call has tried before: not the same entry again, though the same address in another level. */
  readonly tried?: readonly Entry[]
}

/**
 * Why nobody is available: the levels asked for are `empty` (or all of weight 0), everybody left is `down` (banned, down,
 * draining), `excluded` (by the caller, or tried before in this call), or at the cap of requests in flight, `full`.
 */
export type UnavailableReason = 'empty' | 'down' | 'excluded' | 'full'

/** Asks a level's policy. */
export type PickFrom = (level: Level, request: Request) => Entry | undefined

/** The canonical address of a peer, or of a host and port. */
export function addressOf(target: Peer | PeerAddress): string {
  if (typeof target !== 'object' || (target as unknown) === null)
    throw expected('peer', '', 'a peer, or { host, port }', target)
  if ('address' in target) return target.address
  const { host, port } = target
  return tcpEndpoint('peer', host, typeof port === 'string' && /^\d+$/.test(port) ? Number(port) : port).address
}

/** The levels that a request may use. */
export function levelsFor({ levels }: Membership, clusterKey: SelectOptions['clusterKey']): readonly Level[] {
  if (clusterKey === undefined) return levels
  const names = typeof clusterKey === 'string' ? [clusterKey] : clusterKey
  return names.flatMap((name) => levels.filter((level) => level.name === name))
}

/**
 * Goes through the levels in order, except one whose policy has declined already. What must not be returned is hidden from
 * the policies for the length of the call.
 */
export function search(
  membership: Membership,
  request: AttemptRequest,
  pickFrom: PickFrom,
  declined?: Level,
): Entry | undefined {
  const levels = levelsFor(membership, request.clusterKey)
  const hidden = entriesToHide(membership, request)
  setHidden(hidden, true)
  try {
    for (const level of levels) {
      const entry = level.available > 0 && level !== declined ? pickFrom(level, request) : undefined
      if (entry !== undefined) return entry
    }
    return lastResort(levels, request, pickFrom)
  } finally {
    setHidden(hidden, false)
  }
}

/** The slot of a trial limits only while somebody else is available: where nobody is, a peer on trial will do. */
function lastResort(levels: readonly Level[], request: Request, pickFrom: PickFrom): Entry | undefined {
  const onTrial = levels.flatMap(({ entries }) => entries.filter((entry) => isLastResort(entry) && !entry.hidden))
  const setLastResort = (on: boolean) => {
    for (const { state } of onTrial) {
      state.lastResort = on
      state.refresh()
    }
  }
  if (onTrial.length === 0) return undefined
  setLastResort(true)
  try {
    for (const level of levels) {
      const entry = level.available > 0 ? pickFrom(level, request) : undefined
      if (entry !== undefined) return entry
    }
    return undefined
  } finally {
    setLastResort(false)
  }
}

/** Why a search finds nobody, or undefined if it would find somebody. */
export function whyUnavailable(membership: Membership, request: AttemptRequest): UnavailableReason | undefined {
  const hidden = entriesToHide(membership, request)
  const entries = levelsFor(membership, request.clusterKey).flatMap((level) => level.entries)
  const weighted = entries.filter(({ weight }) => weight > 0)
  if (weighted.length === 0) return 'empty'
  const healthy = weighted.filter(({ state }) => state.healthy)
  if (healthy.length === 0) return 'down'
  const left = healthy.filter((entry) => !hidden.has(entry))
  if (left.length === 0) return 'excluded'
  return left.every(({ state }) => state.full) ? 'full' : undefined
}

/** Whether somebody is available who need not be hidden. */
export function hasOthers(membership: Membership, request: AttemptRequest): boolean {
  const levels = levelsFor(membership, request.clusterKey)
  const hidden = entriesToHide(membership, request)
  let available = levels.reduce((sum, level) => sum + level.available, 0)
  for (const entry of hidden) {
    if (entry.available && levels.some(({ byAddress }) => byAddress.get(entry.peer.address) === entry)) available--
  }
  return (
    available > 0 || levels.some(({ entries }) => entries.some((entry) => isLastResort(entry) && !hidden.has(entry)))
  )
}

function isLastResort({ state, weight }: Entry): boolean {
  return state.onTrial && state.healthy && !state.full && weight > 0
}

function entriesToHide({ peers, levels }: Membership, { exclude, tried = [] }: AttemptRequest): Set<Entry> {
  const hidden = new Set<Entry>()
  for (const peer of exclude ?? []) for (const entry of peers.get(addressOf(peer))?.entries ?? []) hidden.add(entry)
  for (const { level, peer } of tried) {
    // By level and address: an update may have put another entry in its place since.
    for (const { name, byAddress } of levels) {
      const entry = name === level.name ? byAddress.get(peer.address) : undefined
      if (entry !== undefined) hidden.add(entry)
    }
  }
  return hidden
}

function setHidden(entries: ReadonlySet<Entry>, hidden: boolean): void {
  for (const entry of entries) {
    entry.hidden = hidden
    entry.level.refresh(entry)
  }
}
