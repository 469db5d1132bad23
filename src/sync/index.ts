/**
 * Workers that agree: one process is in charge, checks and follows sources; all others have what it has, and pick by
 * themselves.
 *
 * @module checkups/cluster
 */
import { isMainThread, type Worker } from 'node:worker_threads'
import { boolean, milliseconds, onlyKeys, record, string } from '../check.js'
import { Agreement, type ClusterStatus, type SyncOptions, type Transport } from './agreement.js'
import { ipc } from './ipc.js'
import { socketTransport } from './socket.js'
import { ThreadHub, threads } from './threads.js'
import type { Sync } from './sync.js'

export type { ClusterStatus, SyncOptions } from './agreement.js'
export type { ProcessStatus } from './messages.js'
export type { Load, ServerLoad, Sync, SyncStatus } from './sync.js'

/** A way to agree, for the option `sync` of one instance. */
export interface ProcessSync extends Sync {
  /** How every process is, and the requests that all of them have in flight: each is asked. */
  processes(): Promise<ClusterStatus>
}

/** For threads. */
export interface ThreadSync extends ProcessSync {
  /** Lets a thread in; to be called when it was started, by the one that is in charge. */
  connect(worker: Worker): void
}

/** Options of {@link clusterSync} and {@link threadSync}. */
export interface NamedSyncOptions extends SyncOptions {
  /** Of the instance, where a process has several: it agrees with those of the same name. Default `'checkups'`. */
  readonly name?: string | undefined
}

/** Options of {@link socketSync}. */
export interface SocketSyncOptions extends SyncOptions {
  /** Of a unix socket, the same for all processes that are to agree, in a folder that only they can write to. */
  readonly path: string
}

/**
 * For `node:cluster`: the primary is in charge, its workers follow. Every process makes its instance with it.
 *
 * @example
 * ```ts
 * const checkups = new Checkups({ upstreams, sources, sync: clusterSync() })
 * await checkups.start() // in a worker: it has everything now
 * ```
 *
 * @throws `ConfigError`
 */
export function clusterSync(options: NamedSyncOptions = {}): ProcessSync {
  const { name, ...rest } = named('clusterSync', options)
  return agreement('clusterSync', rest, ipc(name))
}

/**
 * For `node:worker_threads`: the main thread is in charge. It calls `sync.connect(worker)` for every thread that it starts.
 *
 * @throws `ConfigError`
 */
export function threadSync(options: NamedSyncOptions = {}): ThreadSync {
  const { name, ...rest } = named('threadSync', options)
  const hub = isMainThread ? new ThreadHub() : undefined
  return Object.assign(agreement('threadSync', rest, threads(hub, name)), {
    connect(worker: Worker) {
      hub?.connect(worker, name)
    },
  })
}

/**
 * For processes of one machine that have no primary of ours, as those of PM2: whoever comes first is in charge, and when it is
 * gone, another one.
 *
 * @throws `ConfigError`
 */
export function socketSync(options: SocketSyncOptions): ProcessSync {
  const { path, ...rest } = record('socketSync', '', options) as unknown as SocketSyncOptions
  return agreement('socketSync', rest, socketTransport(string('socketSync', 'path', path)))
}

function named(path: string, options: NamedSyncOptions): SyncOptions & { readonly name: string } {
  const { name = 'checkups', ...rest } = record(path, '', options) as NamedSyncOptions
  return { name: string(path, 'name', name), ...rest }
}

const OPTION_KEYS = new Set(['shareBans', 'timeout'])

function agreement(path: string, options: SyncOptions, transport: Transport): Agreement {
  onlyKeys(path, record(path, '', options), OPTION_KEYS)
  const shareBans = boolean(path, 'shareBans', options.shareBans ?? true)
  return new Agreement(transport, shareBans, milliseconds(path, 'timeout', options.timeout ?? 10_000, 1))
}
