/** A process that has what the process in charge says. */
import { Timer } from '../clock.js'
import { CheckupsError } from '../errors.js'
import type { Change } from '../upstream/change.js'
import { decode, encodeRequest } from './codec.js'
import { BEAT, banOf, SILENCE } from './coordinator.js'
import type { Link } from './link.js'
import { receiveError } from './messages.js'
import type { FromCoordinator, FromWorker, ProcessStatus, SentUpstream, SharedChange } from './messages.js'
import type { Operation, SyncHost, SyncStatus } from './sync.js'

interface Pending<T> {
  readonly resolve: (value: T) => void
  readonly reject: (error: Error) => void
}

export class Worker {
  readonly #host: SyncHost
  readonly #link: Link
  readonly #shareBans: boolean
  readonly #onLost: () => void
  readonly #silence: Timer
  readonly #hello: Timer
  readonly #pending = new Map<number, Pending<number>>()
  readonly #asked = new Map<number, Pending<readonly ProcessStatus[]>>()
  #requests = 0
  #revision = -1
  /** Whether it has everything up to its revision: not before the first state, and not after a gap. */
  #isWhole = false
  #isSilent = false
  #isLost = false
  /** The revision for which it has asked for the state because it did not agree: once is enough. */
  #disagreed = -1
  /** Whether what happens here is somebody else's change. */
  #isApplying = false
  #since: number
  #joined!: { resolve: () => void; reject: (error: Error) => void }
  /** Resolves with the first state. */
  readonly joined = new Promise<void>((resolve, reject) => (this.#joined = { resolve, reject }))

  constructor(host: SyncHost, link: Link, id: string, shareBans: boolean, onLost: () => void) {
    this.#host = host
    this.#link = link
    this.#shareBans = shareBans
    this.#onLost = onLost
    this.#since = host.clock.wallTime()
    this.#silence = new Timer(host.clock, () => this.#turnTo(true))
    this.joined.catch(() => undefined)
    link.onMessage = (message) => {
      this.#hear()
      try {
        this.#receive(message as FromCoordinator)
      } catch (error) {
        host.caught(error, 'a message of the process in charge')
      }
    }
    link.onClose = () => this.#lost()
    this.#hello = new Timer(host.clock, () => this.#greet(id))
    this.#greet(id)
  }

  /** Until it is answered: the process in charge may not be there yet. */
  #greet(id: string): void {
    this.#send({ type: 'hello', id, pid: process.pid })
    this.#hello.at(this.#host.clock.now() + BEAT)
  }

  get revision(): number {
    return Math.max(0, this.#revision)
  }

  get state(): SyncStatus['state'] {
    return this.#isLost ? 'lost' : this.#isSilent ? 'silent' : 'connected'
  }

  get since(): number {
    return this.#since
  }

  /** Asks for a change; resolves when all have it. */
  request(operation: Operation): Promise<number> {
    if (this.#isLost) return Promise.reject(gone())
    const encoded = encodeRequest(operation.key, operation)
    return this.#ask(this.#pending, (n) => ({ type: 'request', n, operation: encoded }))
  }

  /** Of all processes. */
  processes(): Promise<readonly ProcessStatus[]> {
    if (this.#isLost) return Promise.reject(gone())
    return this.#ask(this.#asked, (n) => ({ type: 'status?', n }))
  }

  /** A change was made here: of those that are not somebody else's, bans are told. */
  changed(key: string, change: Change): void {
    if (this.#isApplying || !this.#shareBans) return
    const ban = banOf(change, this.#host.clock.now())
    if (ban !== undefined) this.#send({ type: 'ban', key, ban })
  }

  close(): void {
    this.#link.onClose = undefined
    this.#lost()
    this.#link.close()
  }

  #ask<T>(pending: Map<number, Pending<T>>, message: (n: number) => FromWorker): Promise<T> {
    const n = ++this.#requests
    return new Promise((resolve, reject) => {
      pending.set(n, { resolve, reject })
      this.#send(message(n))
    })
  }

  #send(message: FromWorker): void {
    this.#link.send(message)
  }

  #receive(message: FromCoordinator): void {
    switch (message.type) {
      case 'state':
        return this.#onState(message.revision, message.upstreams)
      case 'change':
        return this.#onChange(message.revision, message.change)
      case 'beat':
        return this.#onBeat(message.revision, message.digest)
      case 'reply': {
        const { n, generation, error } = message
        const pending = this.#pending.get(n)
        this.#pending.delete(n)
        if (error === undefined) pending?.resolve(generation!)
        else pending?.reject(receiveError(error))
        return
      }
      case 'load?':
        return this.#send({ type: 'load', n: message.n, load: this.#host.load() })
      case 'status':
        this.#asked.get(message.n)?.resolve(message.processes)
        this.#asked.delete(message.n)
    }
  }

  /** Everything, anew: what is as it was stays as it is. */
  #onState(revision: number, upstreams: readonly SentUpstream[]): void {
    const keys = new Set(upstreams.map(({ key }) => key))
    this.#apply(() => {
      const by = { source: 'source', reason: 'the process in charge' } as const
      for (const key of this.#host.keys()) if (!keys.has(key)) this.#host.applyDelete(key, 0, by)
      for (const { key, generation, options, heartbeats, bans } of upstreams) {
        this.#config(key, generation, options, by)
        for (const [address, heartbeat] of heartbeats) {
          this.#host.applyHeartbeat(key, address, heartbeat, { source: 'heartbeat', reason: heartbeat.message })
        }
        if (this.#shareBans) for (const ban of bans) this.#host.applyBan(key, ban)
      }
    })
    this.#revision = revision
    this.#isWhole = true
    this.#hello.stop()
    this.#send({ type: 'ack', revision })
    this.#joined.resolve()
  }

  #onChange(revision: number, change: SharedChange): void {
    if (!this.#isWhole || revision <= this.#revision) return
    if (revision !== this.#revision + 1) return this.#need()
    this.#apply(() => this.#make(change))
    this.#revision = revision
    this.#send({ type: 'ack', revision })
  }

  #make(change: SharedChange): void {
    const { key, source, reason } = change
    const by = { source, reason }
    switch (change.what) {
      case 'config':
        return this.#config(key, change.generation, change.options, by)
      case 'delete':
        return this.#host.applyDelete(key, change.generation, by)
      case 'heartbeat':
        return this.#host.applyHeartbeat(key, change.address, change.heartbeat, by)
      case 'ban':
        if (this.#shareBans) this.#host.applyBan(key, change.ban)
        return
      case 'reset':
        return this.#host.applyReset(key, change.address, by)
    }
  }

  /** What cannot be made here is told, and the others go on. */
  #config(key: string, generation: number, options: unknown, by: { source: Change['source']; reason: string }): void {
    try {
      const decoded = decode(key, options, this.#host.optionsOf(key))
      this.#host.applyConfig(key, decoded as object, generation, by)
    } catch (error) {
      this.#host.caught(error, `the upstream ${JSON.stringify(key)} of the process in charge`)
    }
  }

  #apply(make: () => void): void {
    this.#isApplying = true
    try {
      make()
    } finally {
      this.#isApplying = false
    }
  }

  /** If it has the same changes, it must have the same of everything. */
  #onBeat(revision: number, digest: string): void {
    if (!this.#isWhole) return
    const agrees = revision !== this.#revision || digest === this.#host.digest()
    if (revision > this.#revision || (!agrees && this.#disagreed !== revision)) {
      this.#disagreed = revision
      this.#need()
    } else this.#send({ type: 'ack', revision: this.#revision })
  }

  #need(): void {
    this.#isWhole = false
    this.#send({ type: 'need' })
  }

  #hear(): void {
    this.#turnTo(false)
    this.#silence.at(this.#host.clock.now() + Math.max(SILENCE, 3 * BEAT))
  }

  #turnTo(silent: boolean): void {
    if (this.#isLost || silent === this.#isSilent) return
    this.#isSilent = silent
    this.#since = this.#host.clock.wallTime()
  }

  #lost(): void {
    if (this.#isLost) return
    this.#isLost = true
    this.#since = this.#host.clock.wallTime()
    this.#silence.stop()
    this.#hello.stop()
    const error = gone()
    for (const { reject } of [...this.#pending.values(), ...this.#asked.values()]) reject(error)
    this.#pending.clear()
    this.#asked.clear()
    this.#joined.reject(error)
    this.#onLost()
  }
}

function gone(): CheckupsError {
  return new CheckupsError(
    'ERR_CHECKUPS_SYNC',
    'the process in charge is gone: what was asked of it may not have been done',
  )
}
