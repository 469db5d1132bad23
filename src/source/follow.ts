/**
 * The loop that follows one source. It asks at a rate, waits after failures, and lets nothing through that would harm: what
 * is as it was, what is empty, what is broken. The last good lists stay in use all the time.
 */
import { setMaxListeners } from 'node:events'
import { isDeepStrictEqual } from 'node:util'
import { boolean, expected, milliseconds, onlyKeys, record, string } from '../check.js'
import { Timer, type Clock, type Random } from '../clock.js'
import type { Cluster, UpstreamOptions } from '../config.js'
import { CheckupsError, ConfigError } from '../errors.js'
import { backOff, RateLimit } from './pace.js'
import { Snapshot, type Lists } from './snapshot.js'
import { SOURCE_OPTIONS, type Refused, type Source, type SourceLists, type SourceOptions } from './source.js'

/** What a follower does with lists. */
export interface FollowHost {
  readonly clock: Clock
  readonly random: Random
  /**
   * Gives an upstream other servers, or creates it. Servers that cannot be used are left out and returned; throws if
   * nothing of it can be, or if it has none and may not be empty.
   */
  update(key: string, lists: Cluster | UpstreamOptions, source: string, allowEmpty: boolean): readonly Refused[]
  /** Removes an upstream; false if there was none. */
  remove(key: string, source: string): boolean
  /** The source that has the upstream; the first one that gives it. Undefined if none has. */
  ownerOf(key: string): string | undefined
  publish(event: SourceEvent): void
}

/** A source has failed, or what it gave could not be used; the last good lists stay in use. */
export interface SourceErrorEvent {
  /** The event's name. */
  readonly type: 'source:error'
  /** The source's name. */
  readonly source: string
  /** What went wrong. */
  readonly error: unknown
  /** Entries that were left out, if that is what went wrong. */
  readonly refused: readonly Refused[]
  /** When, in milliseconds since the Unix epoch. */
  readonly at: number
}

/** A source is there: for the first time, or again. */
export interface SourceUpEvent {
  /** The event's name. */
  readonly type: 'source:up'
  /** The source's name. */
  readonly source: string
  /** Milliseconds without it. */
  readonly lasted: number
  /** When, in milliseconds since the Unix epoch. */
  readonly at: number
}

/** What listeners are told of sources. */
export type SourceEvent = SourceErrorEvent | SourceUpEvent

/** A source, in status. */
export interface SourceStatus {
  /** Its name. */
  readonly name: string
  /**
   * `waiting`: it has given nothing yet. `current`: what it gave last is in use. `stale`: it cannot be reached, or gives what
   * cannot be used; in use is what it gave before, or its snapshot.
   */
  readonly state: 'waiting' | 'current' | 'stale'
  /** Since when, in milliseconds since the Unix epoch. */
  readonly since: number
  /** When it was last reached, likewise; NaN before. */
  readonly lastContact: number
  /** When something it gave was last applied, likewise; NaN before. */
  readonly lastChange: number
  /** Whether what is in use comes from its snapshot. */
  readonly fromSnapshot: boolean
  /** What is wrong, in words; empty if nothing is. */
  readonly error: string
  /** Entries that were left out of what is in use. */
  readonly refused: readonly Refused[]
  /** How often it was asked. */
  readonly asks: number
  /** The upstreams it has given. */
  readonly upstreams: readonly string[]
}

const OPTION_KEYS = new Set<string>(SOURCE_OPTIONS)

/** Checks the options that every source has, with their defaults. */
export function compileSourceOptions(path: string, value: SourceOptions | undefined) {
  const options = record(path, '', value ?? {}) as SourceOptions
  onlyKeys(path, options, OPTION_KEYS)
  const { snapshot } = options
  return {
    allowEmpty: boolean(path, 'allowEmpty', options.allowEmpty ?? false),
    prune: boolean(path, 'prune', options.prune ?? false),
    debounce: milliseconds(path, 'debounce', options.debounce ?? 0),
    snapshot: snapshot === undefined ? undefined : string(path, 'snapshot', snapshot),
    required: boolean(path, 'required', options.required ?? false),
    timeout: milliseconds(path, 'timeout', options.timeout ?? 5_000),
  }
}

export class Follower {
  readonly #source: Source
  readonly #host: FollowHost
  readonly #options: ReturnType<typeof compileSourceOptions>
  readonly #snapshot: Snapshot | undefined
  readonly #controller = new AbortController()
  readonly #debounce: Timer
  readonly #rate: RateLimit
  /** What was given last, as it was given, of each upstream. */
  #given = new Map<string, Cluster | UpstreamOptions>()
  /** Of each of them, what was left out. */
  readonly #left = new Map<string, readonly Refused[]>()
  #pending: SourceLists | undefined
  #saved: Promise<void> = Promise.resolve()
  #state: SourceStatus['state'] = 'waiting'
  #since: number
  #sinceWall: number
  #lastContact = NaN
  #lastChange = NaN
  #fromSnapshot = false
  /** What kept the last lists from being used whole, if anything. */
  #problem: string | undefined
  #error = ''
  #refused: readonly Refused[] = []
  #asks = 0
  /** Whether it was ever reached. */
  #known = false
  #failures = 0
  #running = false
  /** While somebody waits for the first lists. */
  #started: Promise<void> | undefined
  /** Resolves start(), or rejects it. */
  #settle: { ready: () => void; failed: (error: Error) => void } | undefined

  /** @throws ConfigError */
  constructor(path: string, source: Source, host: FollowHost) {
    const { name, watch, options } = record(path, '', source) as Partial<Source>
    if (typeof watch !== 'function') throw expected(path, 'watch', 'a function', watch)
    string(path, 'name', name)
    this.#source = source
    this.#host = host
    this.#options = compileSourceOptions(`${path}.options`, options)
    const { snapshot } = this.#options
    this.#snapshot = snapshot === undefined ? undefined : new Snapshot(snapshot, source.name)
    this.#debounce = new Timer(host.clock, () => this.#takePending())
    this.#rate = new RateLimit(host.clock.now())
    this.#since = host.clock.now()
    this.#sinceWall = host.clock.wallTime()
  }

  get name(): string {
    return this.#source.name
  }

  get status(): SourceStatus {
    return {
      name: this.name,
      state: this.#state,
      since: this.#sinceWall,
      lastContact: this.#lastContact,
      lastChange: this.#lastChange,
      fromSnapshot: this.#fromSnapshot,
      error: this.#error,
      refused: this.#refused,
      asks: this.#asks,
      upstreams: [...this.#given.keys()],
    }
  }

  /**
   * Begins to follow. Resolves with the first lists; for a source that is not required also when it has failed once, or
   * when its time is over.
   */
  start(): Promise<void> {
    if (!this.#running) {
      this.#running = true
      void this.#run()
    }
    if (this.#given.size > 0) return Promise.resolve()
    this.#started ??= new Promise<void>((resolve, reject) => {
      const deadline = new Timer(this.#host.clock, () => this.#deadline())
      deadline.at(this.#host.clock.now() + this.#options.timeout)
      const end = (then: () => void) => {
        this.#settle = this.#started = undefined
        deadline.stop()
        then()
      }
      this.#settle = { ready: () => end(resolve), failed: (error) => end(() => reject(error)) }
    })
    return this.#started
  }

  /** Ends at once, also amid a long poll. Resolves when a snapshot that is being written is whole. */
  async close(): Promise<void> {
    this.#debounce.stop()
    this.#pending = undefined
    this.#controller.abort(new CheckupsError('ERR_CHECKUPS_CLOSED', 'this instance was closed'))
    this.#settle?.ready()
    await this.#saved
  }

  #isClosed(): boolean {
    return this.#controller.signal.aborted
  }

  #deadline(): void {
    if (!this.#options.required || this.#given.size > 0) return this.#settle?.ready()
    const why = this.#error === '' ? 'no answer' : this.#error
    const message = `the source ${this.name}, which is required, has given nothing in ${this.#options.timeout} ms: ${why}`
    this.#settle?.failed(new CheckupsError('ERR_CHECKUPS_SOURCE', message))
  }

  async #run(): Promise<void> {
    const { signal } = this.#controller
    const { clock } = this.#host
    // Every wait listens: many are no leak.
    setMaxListeners(0, signal)
    const sleep = (ms: number) => this.#sleep(ms)
    const apply = (lists: SourceLists) => this.#receive(lists)
    if (this.#snapshot !== undefined) await this.#restore(this.#snapshot)
    while (!this.#isClosed()) {
      try {
        await sleep(this.#rate.take(clock.now()))
        this.#asks++
        await this.#source.watch(apply, { signal, clock, sleep })
        if (!this.#isClosed()) this.#reached()
      } catch (error) {
        if (this.#isClosed()) return
        this.#failures++
        this.#fail(error)
        await sleep(backOff(this.#failures, this.#known, this.#host.random)).catch(() => undefined)
      }
    }
  }

  /** Rejects when it is over before its time. */
  #sleep(ms: number): Promise<void> {
    const { signal } = this.#controller
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error)
      if (ms <= 0) return resolve()
      const abort = () => {
        timer.stop()
        reject(signal.reason as Error)
      }
      const timer = new Timer(this.#host.clock, () => {
        signal.removeEventListener('abort', abort)
        resolve()
      })
      signal.addEventListener('abort', abort, { once: true })
      timer.at(this.#host.clock.now() + ms)
    })
  }

  async #restore(snapshot: Snapshot): Promise<void> {
    try {
      const found = await snapshot.load()
      if (found === undefined || this.#isClosed() || this.#known) return
      if (found.problem !== undefined) this.#tell(new Error(found.problem))
      this.#use({ upstreams: found.lists })
      this.#fromSnapshot = true
      if (this.#options.required) this.#settle?.ready()
    } catch (error) {
      this.#tell(new Error(`no snapshot: ${(error as Error).message}`))
    }
  }

  #reached(): void {
    this.#known = true
    this.#failures = 0
    this.#lastContact = this.#host.clock.wallTime()
    // A watch without lists: nothing has changed since those before.
    if (this.#given.size > 0) this.#turnTo(this.#problem)
  }

  /** Lists have come. */
  #receive(lists: SourceLists): void {
    if (this.#isClosed()) return
    this.#known = true
    this.#failures = 0
    this.#lastContact = this.#host.clock.wallTime()
    this.#pending = lists
    if (this.#options.debounce === 0) this.#takePending()
    else this.#debounce.at(this.#host.clock.now() + this.#options.debounce)
  }

  #takePending(): void {
    const lists = this.#pending
    this.#pending = undefined
    if (lists === undefined || this.#isClosed()) return
    this.#problem = this.#use(lists)
    this.#fromSnapshot = false
    this.#turnTo(this.#problem)
    this.#settle?.ready()
  }

  /** Applies what has changed; returns what kept lists from being used, if anything. */
  #use(lists: SourceLists): string | undefined {
    let refused: Refused[] = [...(lists.refused ?? [])]
    let problem: string | undefined
    let changed = false
    const refuse = (at: string, reason: string) => {
      refused.push({ at, reason })
      problem ??= `${at}: ${reason}`
    }
    const upstreams: Lists = new Map(
      lists.upstreams instanceof Map
        ? (lists.upstreams as Lists)
        : Object.entries(lists.upstreams as Readonly<Record<string, Cluster | UpstreamOptions>>),
    )
    for (const [key, value] of upstreams) {
      if (this.#given.has(key) && isDeepStrictEqual(this.#given.get(key), value)) {
        refused.push(...(this.#left.get(key) ?? []))
        continue
      }
      const owner = this.#host.ownerOf(key)
      if (owner !== undefined && owner !== this.name) {
        refuse(key, `the source ${owner} has it`)
        continue
      }
      try {
        const left = this.#host.update(key, value, this.name, this.#options.allowEmpty)
        refused = refused.concat(left)
        this.#left.set(key, left)
        this.#given.set(key, value)
        changed = true
      } catch (error) {
        if (error instanceof ConfigError) refuse(error.path, error.problem)
        else refuse(key, (error as Error).message)
      }
    }
    const unread = new Set(lists.unread)
    for (const key of [...this.#given.keys()]) {
      if (upstreams.has(key) || unread.has(key)) continue
      if (upstreams.size + unread.size === 0 && !this.#options.allowEmpty)
        refuse(key, 'everything is gone; its last servers stay in use')
      else if (this.#options.prune) {
        this.#host.remove(key, this.name)
        this.#forget(key)
        changed = true
      } else if (this.#options.allowEmpty) {
        this.#host.update(key, [{ servers: [] }], this.name, true)
        this.#forget(key)
        changed = true
      } else refuse(key, 'it is gone; its last servers stay in use')
    }
    for (const key of lists.deleted ?? []) {
      const owner = upstreams.has(key) ? this.name : this.#host.ownerOf(key)
      if (owner !== undefined) refuse(key, `it is not deleted: the source ${owner} has it`)
      else if (this.#host.remove(key, this.name)) changed = true
    }
    const isNews = !isDeepStrictEqual(refused, this.#refused)
    this.#refused = refused
    if (isNews && refused.length > 0) {
      const [first] = refused
      const others = refused.length === 1 ? '' : ` (and ${refused.length - 1} more)`
      this.#tell(new Error(`refused: ${first!.at}: ${first!.reason}${others}`), refused)
    }
    if (changed) {
      this.#lastChange = this.#host.clock.wallTime()
      this.#keep()
    }
    return problem
  }

  #forget(key: string): void {
    this.#given.delete(key)
    this.#left.delete(key)
  }

  #keep(): void {
    if (this.#snapshot === undefined) return
    this.#saved = this.#snapshot.save(new Map(this.#given)).catch((error: unknown) => {
      this.#tell(new Error(`the snapshot could not be written: ${(error as Error).message}`))
    })
  }

  #fail(error: unknown): void {
    const message = error instanceof Error ? error.message : String(error)
    const isNews = message !== this.#error
    this.#turnTo(message)
    if (isNews) this.#tell(error)
    if (!this.#options.required) this.#settle?.ready()
  }

  /** What follows from what is wrong, if anything is. */
  #turnTo(problem: string | undefined): void {
    const { clock } = this.#host
    this.#error = problem ?? ''
    const state = problem === undefined ? 'current' : this.#given.size > 0 ? 'stale' : 'waiting'
    if (state === this.#state) return
    const before = this.#since
    this.#state = state
    this.#since = clock.now()
    this.#sinceWall = clock.wallTime()
    if (state !== 'current') return
    this.#host.publish({ type: 'source:up', source: this.name, lasted: this.#since - before, at: this.#sinceWall })
  }

  #tell(error: unknown, refused: readonly Refused[] = []): void {
    if (this.#isClosed()) return
    this.#host.publish({ type: 'source:error', source: this.name, error, refused, at: this.#host.clock.wallTime() })
  }
}
