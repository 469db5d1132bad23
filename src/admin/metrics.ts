/**
 * Metrics for Prometheus, in a register of prom-client.
 *
 * @module checkups/metrics
 */
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { readFile } from 'node:fs/promises'
import { heartbeatChannel, outcomeChannel, pickChannel, stateChannel } from '../channels.js'
import type { ChannelMessage, HeartbeatMessage, OutcomeMessage, PickMessage, StateMessage } from '../channels.js'
import { array, boolean, expected, integer, onlyKeys, record, string } from '../check.js'
import type { Checkups } from '../checkups.js'
import { loadOptional } from '../optional.js'
import { catalogue, type Look } from './metrics/catalogue.js'
import { Counts } from './metrics/counts.js'
import { ExposedMetric, type MetricsRegister, type Shown } from './metrics/exposed.js'

export type { MetricsRegister } from './metrics/exposed.js'

/** Options of {@link collectMetrics}. */
export interface MetricsOptions {
  /** Where the metrics are. Default: prom-client's own `register`. */
  readonly register?: MetricsRegister | undefined
  /** What all names begin with: letters, digits and underscores. Default `checkups_`. */
  readonly prefix?: string | undefined
  /**
   * What this instance is called in a label `checkups`, for those who have several in one register. Default: there is no
   * such label. (`instance` would be what Prometheus calls the process.)
   */
  readonly name?: string | undefined
  /** Whether peers are told apart, by a label `peer`. Default true; false where there are too many of them. */
  readonly peers?: boolean | undefined
  /**
   * Peers that have series of their own, over all upstreams; further ones are counted together as `peer="other"`, in each
   * upstream. Default 1,000: with 30 to 46 series each a scrape of some 4 MB, for which a process stands still for 50 ms.
   */
  readonly maxPeers?: number | undefined
  /**
   * Upper bounds of the histograms, in seconds, ascending. Default 1 ms to 10 s: prom-client's, and two below them, because
   * peers in one data centre answer in milliseconds.
   */
  readonly buckets?: readonly number[] | undefined
}

/** What {@link collectMetrics} has begun. */
export interface Metrics extends Disposable {
  /** Where the metrics are; `await register.metrics()` is the text of a scrape. */
  readonly register: MetricsRegister
  /** Counts no more, and takes the metrics out of the register. May be called again. */
  close(): void
}

const OPTION_KEYS = new Set(['register', 'prefix', 'name', 'peers', 'maxPeers', 'buckets'])
const BUCKETS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10]
const MOST_PEERS = 1_000_000

/**
 * Counts what an instance does, from now on, and shows it in a register of prom-client, which has to be installed. A request
 * is counted without an allocation; the state of the peers is asked for once a scrape.
 *
 * @throws ConfigError (the promise rejects), also if the register has such metrics already
 *
 * @example
 * ```ts
 * const { register } = await collectMetrics(checkups)
 * createServer(async (req, res) => res.setHeader('content-type', register.contentType).end(await register.metrics()))
 * ```
 */
export async function collectMetrics(checkups: Checkups, options: MetricsOptions = {}): Promise<Metrics> {
  const { register: given, prefix, name, ...counted } = compileOptions(options)
  const register = given ?? (await loadOptional('collectMetrics', 'prom-client', () => import('prom-client'))).register
  const counts = new Counts(counted)
  const shown = show(checkups, counts, name, await packageVersion())
  const definitions = catalogue.filter(({ perPeer }) => counted.peers || perPeer !== true)
  const names = definitions.map((definition) => prefix + definition.name)
  const hide = () => {
    for (const one of names) ExposedMetric.hide(register, one, shown)
  }
  try {
    for (const [i, definition] of definitions.entries()) ExposedMetric.show(register, names[i]!, definition, shown)
  } catch (error) {
    hide()
    throw error
  }
  const stop = listen(checkups, counts)
  const close = () => {
    stop()
    hide()
  }
  return { register, close, [Symbol.dispose]: close }
}

function compileOptions(options: MetricsOptions) {
  onlyKeys('metrics', record('metrics', '', options), OPTION_KEYS)
  const { register, prefix = 'checkups_', name, peers = true, maxPeers = 1_000, buckets = BUCKETS } = options
  if (register !== undefined && typeof (register as Partial<MetricsRegister> | null)?.registerMetric !== 'function') {
    throw expected('metrics', 'register', 'a register of prom-client', register)
  }
  if (typeof prefix !== 'string' || !/^([a-z_]\w*)?$/i.test(prefix)) {
    throw expected('metrics', 'prefix', 'letters, digits and underscores, no digit first', prefix)
  }
  return {
    register,
    prefix,
    name: name === undefined ? undefined : string('metrics', 'name', name),
    peers: boolean('metrics', 'peers', peers),
    maxPeers: integer('metrics', 'maxPeers', maxPeers, 1, MOST_PEERS),
    buckets: compileBuckets(buckets),
  }
}

function compileBuckets(value: unknown): readonly number[] {
  const buckets = array('metrics', 'buckets', value)
  for (const [i, bound] of buckets.entries()) {
    const before = i === 0 ? 0 : (buckets[i - 1] as number)
    if (typeof bound !== 'number' || !Number.isFinite(bound) || bound <= before) {
      throw expected('metrics', `buckets[${i}]`, `seconds, a finite number above ${before}`, bound)
    }
  }
  return [...(buckets as readonly number[])]
}

/** All metrics of a scrape are asked for in one turn of the event loop, and have one look. */
function show(checkups: Checkups, counts: Counts, name: string | undefined, version: string): Shown {
  let look: Look | undefined
  const lookNow = (): Look => {
    const status = checkups.getStatus()
    counts.look(status)
    queueMicrotask(() => (look = undefined))
    return { status, counts, version }
  }
  // Who is there has to be known before the first of them ends a request.
  counts.look(checkups.getStatus())
  return {
    name,
    look: () => (look ??= lookNow()),
    reset: () => {
      counts.reset()
      counts.look(checkups.getStatus())
    },
  }
}

/** Returns what ends it. */
function listen(checkups: Checkups, counts: Counts): () => void {
  const isOwn = (message: unknown) => (message as ChannelMessage).checkups === checkups
  const listeners: readonly (readonly [string | symbol, (message: unknown) => void])[] = [
    [pickChannel.name, (message) => isOwn(message) && counts.pick(message as PickMessage)],
    [outcomeChannel.name, (message) => isOwn(message) && counts.outcome(message as OutcomeMessage)],
    [heartbeatChannel.name, (message) => isOwn(message) && counts.heartbeat(message as HeartbeatMessage)],
    [stateChannel.name, (message) => isOwn(message) && counts.state(message as StateMessage)],
  ]
  for (const [channel, listener] of listeners) subscribe(channel, listener)
  return () => {
    for (const [channel, listener] of listeners) unsubscribe(channel, listener)
  }
}

let version: Promise<string> | undefined

/** Read once: with a read of its own, each of several begun at once would be in the register when the disk was done with it. */
function packageVersion(): Promise<string> {
  return (version ??= readVersion())
}

/** Bundled, the library has lost its package.json. */
async function readVersion(): Promise<string> {
  try {
    const text = await readFile(new URL('../../package.json', import.meta.url), 'utf8')
    return (JSON.parse(text) as { version: string }).version
  } catch {
    return 'unknown'
  }
}
