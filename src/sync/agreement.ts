/** An instance's part in the agreement: in charge, or one of the others. */
import { keepAlive, Timer } from '../clock.js'
import { CheckupsError } from '../errors.js'
import type { Change } from '../upstream/change.js'
import { Coordinator } from './coordinator.js'
import type { Hub, Link } from './link.js'
import type { ProcessStatus } from './messages.js'
import type { Load, Operation, Sync, SyncHost, SyncStatus } from './sync.js'
import { Worker } from './worker.js'

/** What a process has become: what others connect to, or one that is connected. */
export type End = { readonly hub: Hub } | { readonly link: Link }

/** How processes find each other. */
export interface Transport {
  /** The name of this process among the others. */
  readonly id: string
  /** Whether another one can be in charge when the one that is, is gone. */
  readonly elects: boolean
  /** Finds the process in charge, or becomes it. Rejects when `signal` is aborted. */
  connect(host: SyncHost, signal: AbortSignal): Promise<End>
}

/** Options of all ways to agree. */
export interface SyncOptions {
  /**
   * Whether a peer that a process has taken out is taken out in all. Default true: a dead peer then costs `maxFails` requests
   * in all, and not in every process.
   */
  readonly shareBans?: boolean | undefined
  /** Milliseconds that `start()` waits for the process in charge; then it rejects. Default 10,000. */
  readonly timeout?: number | undefined
}

/** All processes together. */
export interface ClusterStatus {
  /** One by one; the one in charge first. */
  readonly processes: readonly ProcessStatus[]
  /** Requests in flight, summed. */
  readonly totals: readonly Load[]
}

/** Milliseconds, up to which a process waits before it looks for another one in charge: all have lost it at once. */
const SPREAD = 100

export class Agreement implements Sync {
  readonly #transport: Transport
  readonly #shareBans: boolean
  readonly #timeout: number
  readonly #controller = new AbortController()
  #host: SyncHost | undefined
  #coordinator: Coordinator | undefined
  #worker: Worker | undefined
  #since = NaN

  constructor(transport: Transport, shareBans: boolean, timeout: number) {
    this.#transport = transport
    this.#shareBans = shareBans
    this.#timeout = timeout
  }

  get status(): SyncStatus | undefined {
    if (this.#coordinator !== undefined) {
      const { revision, workers } = this.#coordinator
      return { role: 'coordinator', state: 'connected', since: this.#since, revision, workers }
    }
    if (this.#worker === undefined) return undefined
    const { state, since, revision } = this.#worker
    return { role: 'worker', state, since, revision, workers: 0 }
  }

  async start(host: SyncHost): Promise<void> {
    if (this.#host !== undefined) throw new CheckupsError('ERR_CHECKUPS_SYNC', 'it belongs to another instance')
    this.#host = host
    let timer: Timer | undefined
    const late = new Promise<never>((_, reject) => {
      const error = new CheckupsError('ERR_CHECKUPS_SYNC', `no process in charge has answered in ${this.#timeout} ms`)
      timer = new Timer(host.clock, () => reject(error))
      timer.at(host.clock.now() + this.#timeout)
    })
    try {
      await keepAlive(Promise.race([this.#begin(host, () => timer?.stop()), late]))
    } catch (error) {
      this.#host = undefined
      this.#worker?.close()
      this.#worker = undefined
      throw error
    } finally {
      timer?.stop()
    }
  }

  changed(key: string, change: Change): void {
    this.#coordinator?.changed(key, change)
    this.#worker?.changed(key, change)
  }

  async request(operation: Operation): Promise<number> {
    if (this.#coordinator === undefined) return this.#worker!.request(operation)
    const generation = this.#coordinator.make(operation)
    await this.#coordinator.agreed()
    return generation
  }

  /** How every process is: exact, for each of them is asked. */
  async processes(): Promise<ClusterStatus> {
    const end = this.#coordinator ?? this.#worker
    if (end === undefined) throw new CheckupsError('ERR_CHECKUPS_SYNC', 'start() was not called')
    const processes = await keepAlive(end.processes())
    return { processes, totals: sum(processes.map(({ load }) => load)) }
  }

  close(): Promise<void> {
    this.#controller.abort(new CheckupsError('ERR_CHECKUPS_CLOSED', 'this instance was closed'))
    this.#coordinator?.close()
    this.#worker?.close()
    return Promise.resolve()
  }

  /** In charge, it has no limit of time: its sources have theirs. */
  async #begin(host: SyncHost, leading: () => void): Promise<void> {
    const revision = this.#worker?.revision ?? 0
    const end = await this.#transport.connect(host, this.#controller.signal)
    this.#since = host.clock.wallTime()
    if ('hub' in end) {
      leading()
      const coordinator = new Coordinator(host, end.hub, this.#transport.id, this.#shareBans, revision)
      if (this.#controller.signal.aborted) {
        coordinator.close()
        return
      }
      this.#coordinator = coordinator
      this.#worker = undefined
      return coordinator.start()
    }
    const worker = new Worker(host, end.link, this.#transport.id, this.#shareBans, () => this.#lost(host, worker))
    this.#worker = worker
    if (this.#controller.signal.aborted) worker.close()
    return worker.joined
  }

  #lost(host: SyncHost, worker: Worker): void {
    if (!this.#transport.elects || this.#controller.signal.aborted || this.#worker !== worker) return
    const retry = new Timer(host.clock, () => {
      this.#begin(host, () => undefined).catch((error: unknown) => {
        if (!this.#controller.signal.aborted) host.caught(error, 'looking for a process in charge')
      })
    })
    retry.at(host.clock.now() + host.random() * SPREAD)
    this.#controller.signal.addEventListener('abort', () => retry.stop(), { once: true })
  }
}

function sum(loads: readonly (readonly Load[])[]): readonly Load[] {
  const totals = new Map<string, Map<string, number>>()
  for (const { key, servers } of loads.flat()) {
    const own = totals.get(key) ?? new Map<string, number>()
    totals.set(key, own)
    for (const { address, inFlight } of servers) own.set(address, (own.get(address) ?? 0) + inFlight)
  }
  return Array.from(totals, ([key, servers]) => ({
    key,
    servers: Array.from(servers, ([address, inFlight]) => ({ address, inFlight })),
  }))
}
