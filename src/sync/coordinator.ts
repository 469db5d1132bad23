/** The process in charge: it makes every change, and tells all others. */
import { Timer } from '../clock.js'
import type { Change } from '../upstream/change.js'
import { decode, encode } from './codec.js'
import type { Hub, Link } from './link.js'
import { sendError, type FromCoordinator, type FromWorker, type ProcessStatus, type SharedChange } from './messages.js'
import type { Load, Operation, SharedBan, SyncHost } from './sync.js'

/** Milliseconds between two signs of life. */
export const BEAT = 1_000
/** Milliseconds without one after which a process is taken to hang: nobody waits for it any more. */
export const SILENCE = 5_000

/** A worker that is connected. */
class Member {
  readonly link: Link
  id = ''
  pid = 0
  /** The last change that it has. */
  revision = -1
  /** Whether it was given the state. */
  joined = false
  /** When it last said something. */
  heard: number
  /** Whoever waits for its load. */
  readonly asked = new Map<number, (load: readonly Load[]) => void>()

  constructor(link: Link, now: number) {
    this.link = link
    this.heard = now
  }
}

interface Waiting {
  readonly revision: number
  readonly resolve: () => void
}

export class Coordinator {
  readonly #host: SyncHost
  readonly #hub: Hub
  readonly #id: string
  readonly #shareBans: boolean
  readonly #members = new Set<Member>()
  readonly #beat: Timer
  /** Whoever waits until all have a change. */
  #waiting: Waiting[] = []
  #revision: number
  #asks = 0
  #isLeading = false

  constructor(host: SyncHost, hub: Hub, id: string, shareBans: boolean, revision: number) {
    this.#host = host
    this.#hub = hub
    this.#id = id
    this.#shareBans = shareBans
    this.#revision = revision
    this.#beat = new Timer(host.clock, () => this.#onBeat())
    hub.onLink = (link) => this.#connect(link)
  }

  get revision(): number {
    return this.#revision
  }

  get workers(): number {
    return [...this.#members].filter(({ joined }) => joined).length
  }

  /** Whoever has come until then gets the state, too. */
  async start(): Promise<void> {
    await this.#host.lead()
    this.#isLeading = true
    for (const member of this.#members) if (member.id !== '') this.#join(member)
    this.#beat.at(this.#host.clock.now() + BEAT)
  }

  /** Resolves when every worker has what was changed until now; those that hang are not waited for. */
  agreed(): Promise<void> {
    const revision = this.#revision
    if (this.#isAgreed(revision)) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push({ revision, resolve }))
  }

  /** Makes a change that somebody asks for. Throws as the instance's methods reject. */
  make(operation: Operation): number {
    const generation = this.#host.perform(operation)
    const { op, key, source, reason } = operation
    // Of marks that were only counts nothing else tells.
    if (op === 'reset') this.tell({ what: 'reset', key, source, reason, address: operation.address })
    return generation
  }

  /** A change was made here. */
  changed(key: string, change: Change): void {
    const shared = this.#toShare(key, change)
    if (shared !== undefined) this.tell(shared)
  }

  tell(change: SharedChange): void {
    this.#revision++
    const message: FromCoordinator = { type: 'change', revision: this.#revision, change }
    for (const member of this.#members) if (member.joined) member.link.send(message)
  }

  /** Of all processes, this one first. */
  async processes(): Promise<readonly ProcessStatus[]> {
    const own: ProcessStatus = {
      ...{ id: this.#id, pid: process.pid, role: 'coordinator', state: 'connected', revision: this.#revision },
      load: this.#host.load(),
    }
    const others = [...this.#members].filter(({ joined }) => joined).map((member) => this.#statusOf(member))
    return [own, ...(await Promise.all(others))]
  }

  close(): void {
    this.#beat.stop()
    this.#hub.onLink = undefined
    this.#hub.close()
    for (const { link } of this.#members) link.close()
    this.#members.clear()
    this.#settle()
  }

  #connect(link: Link): void {
    const member = new Member(link, this.#host.clock.now())
    this.#members.add(member)
    link.onMessage = (message) => {
      member.heard = this.#host.clock.now()
      try {
        this.#receive(member, message as FromWorker)
      } catch (error) {
        this.#host.caught(error, 'a message of a worker')
      }
    }
    link.onClose = () => {
      this.#members.delete(member)
      for (const resolve of member.asked.values()) resolve([])
      this.#settle()
    }
  }

  #receive(member: Member, message: FromWorker): void {
    switch (message.type) {
      case 'hello':
        member.id = message.id
        member.pid = message.pid
        if (this.#isLeading) this.#join(member)
        return
      case 'need':
        if (this.#isLeading) this.#join(member)
        return
      case 'ack':
        member.revision = Math.max(member.revision, message.revision)
        return this.#settle()
      case 'ban':
        return this.#onBan(member, message.key, message.ban)
      case 'request':
        void this.#perform(member, message.n, message.operation)
        return
      case 'load':
        member.asked.get(message.n)?.(message.load)
        member.asked.delete(message.n)
        return
      case 'status?':
        void this.processes().then((processes) => member.link.send({ type: 'status', n: message.n, processes }))
    }
  }

  #join(member: Member): void {
    const upstreams = this.#host.state().map((upstream) => ({ ...upstream, options: encode(upstream.options) }))
    member.joined = true
    const message: FromCoordinator = { type: 'state', revision: this.#revision, upstreams }
    member.link.send(message)
  }

  async #perform(member: Member, n: number, encoded: unknown): Promise<void> {
    let reply: FromCoordinator
    try {
      const { key } = encoded as { key: string }
      const operation = decode('operation', encoded, { update: this.#host.optionsOf(key) }) as Operation
      const generation = this.make(operation)
      await this.agreed()
      reply = { type: 'reply', n, generation }
    } catch (error) {
      reply = { type: 'reply', n, error: sendError(error) }
    }
    member.link.send(reply)
  }

  #onBan(member: Member, key: string, ban: SharedBan): void {
    if (this.#shareBans) this.#host.applyBan(key, { ...ban, reason: `${ban.reason} (in worker ${member.id})` })
  }

  /** What others have to know of a change. */
  #toShare(key: string, change: Change): SharedChange | undefined {
    const { source, reason } = change
    switch (change.what) {
      case 'config': {
        const options = encode(this.#host.optionsOf(key))
        return { what: 'config', key, source, reason, generation: change.generation, options }
      }
      case 'delete':
        return { what: 'delete', key, source, reason, generation: change.generation }
      case 'heartbeat':
        return { what: 'heartbeat', key, source, reason, address: change.address, heartbeat: change.heartbeat }
      case 'passive': {
        // What a heartbeat has ended here, nobody else would know of.
        const isEnded = change.source === 'heartbeat' && change.passive.state === 'up'
        if (isEnded) return { what: 'reset', key, source, reason, address: change.address }
        const ban = banOf(change, this.#host.clock.now())
        if (ban === undefined || !this.#shareBans) return undefined
        return { what: 'ban', key, source, reason, ban }
      }
    }
  }

  #onBeat(): void {
    const { clock } = this.#host
    const message: FromCoordinator = { type: 'beat', revision: this.#revision, digest: this.#host.digest() }
    for (const member of this.#members) if (member.joined) member.link.send(message)
    this.#beat.at(clock.now() + BEAT)
    // Somebody may have fallen silent.
    this.#settle()
  }

  #isSilent({ heard }: Member): boolean {
    return this.#host.clock.now() - heard > SILENCE
  }

  #isAgreed(revision: number): boolean {
    for (const member of this.#members) {
      if (member.joined && member.revision < revision && !this.#isSilent(member)) return false
    }
    return true
  }

  #settle(): void {
    const waiting = this.#waiting
    if (waiting.length === 0) return
    this.#waiting = []
    for (const one of waiting) {
      if (this.#isAgreed(one.revision)) one.resolve()
      else this.#waiting.push(one)
    }
  }

  async #statusOf(member: Member): Promise<ProcessStatus> {
    const { id, pid, revision } = member
    const status = { id, pid, role: 'worker', revision } as const
    if (this.#isSilent(member)) return { ...status, state: 'silent', load: [] }
    const n = ++this.#asks
    const load = await new Promise<readonly Load[] | undefined>((resolve) => {
      const timer = new Timer(this.#host.clock, () => {
        member.asked.delete(n)
        resolve(undefined)
      })
      member.asked.set(n, (found) => {
        timer.stop()
        resolve(found)
      })
      timer.at(this.#host.clock.now() + SILENCE)
      member.link.send({ type: 'load?', n })
    })
    return load === undefined ? { ...status, state: 'silent', load: [] } : { ...status, state: 'connected', load }
  }
}

/** A ban that outcomes have caused; undefined for any other change of passive health: how a ban ends, each process sees itself. */
export function banOf(change: Change, now: number): SharedBan | undefined {
  if (change.what !== 'passive' || change.source !== 'passive' || change.passive.state !== 'banned') return undefined
  const { until, asked = false } = change.passive
  return { address: change.address, ms: Math.max(0, until - now), asked, reason: change.reason }
}
