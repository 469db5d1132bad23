/** What a user holds: upstreams by key, events, start and close. */
import { stateChannel, type StateMessage } from './channels.js'
import { array, boolean, expected, integer, oneOf, onlyKeys, record, string } from './check.js'
import { keepAlive, levelRandom, systemClock, systemRandom, type Clock, type Random } from './clock.js'
import {
  compileCluster,
  compileUpstream,
  isWhole,
  sameConfig,
  toOptions,
  upstreamPath,
  withoutBadServers,
} from './compile.js'
import type { Cluster, ServerOptions, Timeouts, UpstreamConfig, UpstreamOptions } from './config.js'
import { CheckupsError, ConfigError, UnknownUpstreamError } from './errors.js'
import { Events, type CheckupsEvents, type Listener } from './events.js'
import type { Outcome } from './health/outcome.js'
import { Scheduler } from './health/scheduler.js'
import { Follower, type FollowHost, type SourceEvent } from './source/follow.js'
import type { Refused, Source } from './source/source.js'
import { digestOf, loadOf, sharedUpstream } from './upstream/shared.js'
import type { Operation, Sync, SyncHost } from './sync/sync.js'
import { upstreamStatus, type CheckupsStatus } from './status.js'
import {
  targetAddress,
  withChange,
  withoutServer,
  withServer,
  type ServerChange,
  type ServerTarget,
} from './upstream/edit.js'
import { UpstreamHandle, type HandleOwner } from './upstream/handle.js'
import { PeerObject, type Peer } from './upstream/peer.js'
import type { Cause, ChangeEvent } from './upstream/change.js'
import type { Pick } from './upstream/pick.js'
import type { AttemptContext } from './upstream/attempt.js'
import { compileBudget, type RetryBudget, type RetryBudgetOptions } from './upstream/budget.js'
import { readyOk, type ReadyOkOptions } from './upstream/retry.js'
import type { PeerAddress, SelectOptions, UnavailableReason } from './upstream/selection.js'
import { Upstream, type UpstreamEnv } from './upstream/upstream.js'

/** Options of an instance. */
export interface CheckupsOptions {
  /** The upstreams it begins with, by key. Here, and only here, one may be empty. Default: none. */
  readonly upstreams?: Readonly<Record<string, UpstreamOptions>> | ReadonlyMap<string, UpstreamOptions> | undefined
  /** Where time comes from. Default: the machine's clock. */
  readonly clock?: Clock | undefined
  /** Where chance comes from, in [0, 1). Default `Math.random`; `() => 0` gives nginx's sequences from their first pick. */
  readonly random?: Random | undefined
  /**
   * Limits the retries of all `readyOk` calls, and so of all adapters, that bring none of their own. Default: one retry in
   * five requests and ten a second beyond that, so that an outage brings a fifth more load and not a multiple; `false`: no
   * limit.
   */
  readonly retryBudget?: RetryBudget | RetryBudgetOptions | false | undefined
  /**
   * Heartbeats under way at once, over all upstreams; further ones wait in line. Default 256: with a timeout of 1 s enough
   * for 1,280 silent peers every 5 s, and no storm of connections when many are due.
   */
  readonly concurrency?: number | undefined
  /**
   * Where lists of servers come from, once `start()` was called. What is configured in `upstreams` serves until a source
   * has given its own, and keeps its options. Of two sources with one upstream the first that gives it has it; a change by
   * hand lasts until the source has another one. Default: none.
   */
  readonly sources?: readonly Source[] | undefined
  /**
   * Keeps instances of several processes in agreement: one of them is in charge, and alone checks and follows sources. Made by
   * `clusterSync`, `threadSync` or `socketSync` of `checkups/cluster`. Default: none.
   */
  readonly sync?: Sync | undefined
}

/** Of a change: whose it is, for events and status. */
export interface ChangeOptions {
  /** `admin`: an operator's; default `code`, the program's. */
  readonly source?: 'code' | 'admin' | undefined
  /** In words, for people. Default: the method's name. */
  readonly reason?: string | undefined
  /** Whether it may leave the upstream without any server. Default: what the upstream's `allowEmpty` says. */
  readonly allowEmpty?: boolean | undefined
  /**
   * The change is made only if the upstream has this generation still, wherever it is made; 0: only if there is no such
   * upstream. Otherwise it rejects with `ERR_CHECKUPS_CONFLICT`. Default: whatever it has.
   */
  readonly ifGeneration?: number | undefined
}

const CHANGE_KEYS = new Set(['source', 'reason', 'allowEmpty', 'ifGeneration'])
const OPTION_KEYS = new Set(['upstreams', 'clock', 'random', 'retryBudget', 'concurrency', 'sources', 'sync'])

/**
 * A set of upstreams: which peer next, how that went, and who belongs to them.
 *
 * @example
 * ```ts
 * const checkups = new Checkups({ upstreams: { api: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } } })
 * const peer = checkups.selectPeer('api')
 * ```
 */
export class Checkups {
  readonly #upstreams = new Map<string, Upstream>()
  readonly #events = new Events()
  readonly #clock: Clock
  readonly #budget: RetryBudget | undefined
  /** For what runs by itself: it never changes what policies draw. */
  readonly #chance: Random
  readonly #env: UpstreamEnv
  readonly #scheduler: Scheduler
  readonly #followers: readonly Follower[]
  readonly #sync: Sync | undefined
  /** Which source has an upstream. */
  readonly #owners = new Map<string, string>()
  readonly #handleOwner: HandleOwner
  readonly #startedAt: number
  #generation = 0
  /** Changes of configurations since it was made. */
  #updates = 0
  #closed = false
  #started: Promise<void> | undefined
  /** Whether it has been said that heartbeats do not run. */
  #warned = false

  /** @throws {@link ConfigError} */
  constructor(options: CheckupsOptions = {}) {
    onlyKeys('options', record('options', '', options), OPTION_KEYS)
    this.#clock = checkClock(options.clock ?? systemClock)
    this.#budget = compileBudget('options', 'retryBudget', options.retryBudget, () => this.#clock.now())
    const random = options.random ?? systemRandom
    if (typeof random !== 'function') throw expected('options', 'random', 'a function', random)
    const onThrow: UpstreamEnv['onThrow'] = (error, during) => this.#events.caught(error, during)
    this.#scheduler = new Scheduler(
      { clock: this.#clock, onThrow },
      integer('options', 'concurrency', options.concurrency ?? 256, 1, 65_536),
    )
    this.#env = {
      instance: this,
      clock: this.#clock,
      random,
      nextGeneration: () => ++this.#generation,
      publish: (event) => this.#publish(event),
      changed: (key, change) => this.#sync?.changed(key, change),
      onThrow,
      scheduler: this.#scheduler,
      onIdle: (key) => this.#warnIdle(key),
    }
    this.#handleOwner = {
      find: (key) => this.#find(key),
      feedbackStatus: (key, peer, outcome) => this.feedbackStatus(key, peer, outcome),
      readyOk: (upstream, callback, readyOptions) => this.#readyOk(upstream, callback, readyOptions),
    }
    this.#startedAt = this.#clock.wallTime()
    this.#sync = options.sync === undefined ? undefined : checkSync(options.sync)
    const upstreams = options.upstreams ?? {}
    const entries: Iterable<[string, unknown]> =
      upstreams instanceof Map
        ? (upstreams as Map<string, unknown>)
        : Object.entries(record('upstreams', '', upstreams))
    const configs = Array.from(
      entries,
      ([key, upstream]) => [string('upstreams', 'key', key), compileUpstream(upstreamPath(key), upstream)] as const,
    )
    this.#followers = this.#follow(array('options', 'sources', options.sources ?? []) as readonly Source[])
    for (const [key, config] of configs) this.#apply(key, config, { source: 'code', reason: 'configured' })
    this.#updates = 0
    this.#chance = levelRandom(random())
  }

  // Picking

  /**
   * The next peer of an upstream; undefined if nobody is available ({@link unavailableReason} says why). Counts nothing as
   * in flight: tell failures with {@link feedbackStatus}, or use {@link acquirePeer}.
   *
   * @throws {@link UnknownUpstreamError}
   */
  selectPeer(key: string, options?: SelectOptions): Peer | undefined {
    return this.#find(key).selectPeer(options)
  }

  /**
   * The next peer with a handle that counts as a request in flight until `pick.done(outcome)`; undefined if nobody is
   * available. What `maxConns`, latency and load are about needs this form, or {@link readyOk}.
   *
   * @throws {@link UnknownUpstreamError}
   */
  acquirePeer(key: string, options?: SelectOptions): Pick | undefined {
    return this.#find(key).acquirePeer(options)
  }

  /**
   * Says how a request to a peer went: marks passive health. Returns false, and does nothing, for a peer that has left.
   *
   * @param outcome - see {@link Outcome}; `true` means failed
   * @throws {@link UnknownUpstreamError}, UnknownPeerError for an address that the upstream never had
   */
  feedbackStatus(key: string, peer: Peer | PeerAddress, outcome: Outcome): boolean {
    // The end of a request whose upstream was deleted meanwhile is no error.
    if (peer instanceof PeerObject && peer.upstream === key && !this.#upstreams.has(key)) return false
    return this.#find(key).feedbackStatus(peer, outcome)
  }

  /**
   * Calls `callback` with one peer after another, never twice with the same server of a level, until it succeeds; resolves
   * to its result. An attempt fails if the callback throws, resolves to `false` or to something with a failing HTTP
   * `status`, or exceeds `tryTimeout`.
   *
   * @throws {@link UnknownUpstreamError}; {@link AttemptsError} with every attempt's peer, time and error
   */
  async readyOk<T>(
    key: string,
    callback: (peer: Peer, attempt: AttemptContext) => T | PromiseLike<T>,
    options?: ReadyOkOptions<T>,
  ): Promise<T> {
    return this.#readyOk(this.#find(key), callback, options)
  }

  /** Why a pick would find nobody, or undefined if it would find somebody. Changes nothing. */
  unavailableReason(key: string, options?: SelectOptions): UnavailableReason | undefined {
    return this.#find(key).unavailable(options)
  }

  /** The upstream without the look-up of its key; see {@link UpstreamHandle}. */
  upstream(key: string): UpstreamHandle {
    return new UpstreamHandle(this.#handleOwner, key)
  }

  // Changing

  /**
   * Gives an upstream another cluster (its other options stay), or, if `cluster` or `servers` is in the object, a whole new
   * configuration; creates it if there is none. Peers that stay keep their health, requests in flight and place in the
   * sequence. The next pick sees it, also before the promise resolves: with the change's generation, when all who must know
   * do.
   *
   * @throws {@link ConfigError} (the promise rejects) naming the value; nothing has changed then
   */
  async updateUpstream(key: string, update: Cluster | UpstreamOptions, options?: ChangeOptions): Promise<number> {
    return this.#ask({ op: 'update', key: string('key', '', key), update, ...causeOf(options, 'updateUpstream') })
  }

  /**
   * Removes an upstream. Requests in flight end as they would; a `readyOk` under way starts no further attempt.
   *
   * @throws {@link UnknownUpstreamError} (the promise rejects)
   */
  async deleteUpstream(key: string, options?: Omit<ChangeOptions, 'allowEmpty'>): Promise<number> {
    return this.#ask({ op: 'delete', key, ...causeOf(options, 'deleteUpstream') })
  }

  /**
   * Adds one server, to the named level or to the first.
   *
   * @throws {@link UnknownUpstreamError}, {@link ConfigError} (the promise rejects)
   */
  async addServer(
    key: string,
    server: ServerOptions | string,
    options: ChangeOptions & { readonly level?: string | undefined } = {},
  ): Promise<number> {
    const { level, ...change } = options
    return this.#ask({ op: 'add', key, server, level, ...causeOf(change, 'addServer') })
  }

  /**
   * Removes one server, from every level it is in.
   *
   * @throws {@link UnknownUpstreamError}, UnknownPeerError, {@link ConfigError} for the last one (the promise rejects)
   */
  async removeServer(key: string, server: ServerTarget, options?: ChangeOptions): Promise<number> {
    return this.#ask({ op: 'remove', key, address: targetAddress(server), ...causeOf(options, 'removeServer') })
  }

  /**
   * Changes one server, in every level it is in. A later `updateUpstream` brings its own values.
   *
   * @throws {@link UnknownUpstreamError}, UnknownPeerError, {@link ConfigError} (the promise rejects)
   */
  async setServer(
    key: string,
    server: ServerTarget,
    change: ServerChange,
    options?: Omit<ChangeOptions, 'allowEmpty'>,
  ): Promise<number> {
    return this.#ask({ op: 'set', key, address: targetAddress(server), change, ...causeOf(options, 'setServer') })
  }

  /**
   * Says that a server is well, or all of the upstream: its failures are forgotten, a ban ends, and a heartbeat, if there is
   * one, checks it now. What an operator or its heartbeats say of it stays.
   *
   * @throws {@link UnknownUpstreamError}, UnknownPeerError (the promise rejects)
   */
  async resetMarks(key: string, server?: ServerTarget, options?: Omit<ChangeOptions, 'allowEmpty'>): Promise<void> {
    const address = server === undefined ? undefined : targetAddress(server)
    await this.#ask({ op: 'reset', key, address, ...causeOf(options, 'resetMarks') })
  }

  // Seeing

  /** The configuration of an upstream, every default written out; undefined if there is none. */
  getUpstream(key: string): UpstreamOptions | undefined {
    const upstream = this.#upstreams.get(key)
    return upstream === undefined ? undefined : toOptions(upstream.config)
  }

  /** All configurations by key. */
  getUpstreams(): Map<string, UpstreamOptions> {
    return new Map(Array.from(this.#upstreams, ([key, { config }]) => [key, toOptions(config)]))
  }

  /** What limits the retries of those who make attempts without {@link readyOk}; undefined: nothing. @internal */
  get retryBudget(): RetryBudget | undefined {
    return this.#budget
  }

  /** Of the last change of anything: it grows. */
  get generation(): number {
    return this.#generation
  }

  /** The state of every peer now. Changes nothing. {@link toCheckupsStatus} brings it into the ancestor's shape. */
  getStatus(): CheckupsStatus {
    const now = this.#clock.now()
    return {
      startedAt: this.#startedAt,
      at: this.#clock.wallTime(),
      generation: this.#generation,
      updates: this.#updates,
      sync: this.#sync?.status,
      heartbeats: this.#scheduler.status,
      sources: this.#followers.map(({ status }) => status),
      upstreams: Array.from(this.#upstreams.values(), (upstream) => upstreamStatus(upstream, now)),
    }
  }

  /**
   * The timeouts that an adapter is to use with the upstream's peers.
   *
   * @throws {@link UnknownUpstreamError}
   */
  getUpstreamTimeouts(key: string): Timeouts {
    return this.#find(key).settings.timeouts
  }

  /** Calls `listener` at every such event, after the change has been made. What it throws disturbs nobody. */
  on<E extends keyof CheckupsEvents>(event: E, listener: Listener<E>): this {
    this.#events.on(event, listener)
    return this
  }

  /** Stops calling `listener`. */
  off<E extends keyof CheckupsEvents>(event: E, listener: Listener<E>): this {
    this.#events.off(event, listener)
    return this
  }

  // Life

  /**
   * Begins what runs by itself: heartbeats and sources. Resolves when picking may begin: when each source has given its
   * first lists, or has failed (one that is `required` has until its `timeout`), and when the peers of upstreams with
   * `heartbeat.defaultDown` were checked once. Bans end without it. May be called again.
   *
   * @throws {@link CheckupsError} if the instance was closed, or a required source has given nothing (the promise rejects)
   */
  async start(): Promise<void> {
    this.#mustBeOpen()
    this.#started ??= keepAlive(this.#start()).catch((error: unknown) => {
      this.#started = undefined
      throw error
    })
    return this.#started
  }

  async #start(): Promise<void> {
    if (this.#sync === undefined) return this.#lead()
    await this.#sync.start(this.#syncHost())
    for (const upstream of this.#upstreams.values()) upstream.started()
  }

  /** What only one process does, of those that agree. */
  async #lead(): Promise<void> {
    this.#scheduler.start(this.#chance)
    for (const upstream of this.#upstreams.values()) upstream.started()
    await Promise.all(this.#followers.map((follower) => follower.start()))
    // Those of the lists that have come now among them.
    await this.#scheduler.firstChecks()
  }

  /** Ends every timer, every check and every source at once. Picks go on from the last state; changes are refused. May be called again. */
  async close(): Promise<void> {
    this.#closed = true
    for (const upstream of this.#upstreams.values()) upstream.close()
    this.#scheduler.close()
    await Promise.all([...this.#followers.map((follower) => follower.close()), this.#sync?.close()])
  }

  /** {@link close}, for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #warnIdle(key: string): void {
    // What another process does, is done.
    if (this.#warned || this.#closed || this.#sync?.status !== undefined) return
    this.#warned = true
    const message = `${upstreamPath(key)} has heartbeats, and nobody has called start(): they do not run`
    process.emitWarning(message, { type: 'CheckupsWarning', code: 'CHECKUPS_NOT_STARTED' })
  }

  #find(key: string): Upstream {
    const upstream = this.#upstreams.get(key)
    if (upstream === undefined) throw new UnknownUpstreamError(key)
    return upstream
  }

  #readyOk<T>(
    upstream: Upstream,
    callback: (peer: Peer, attempt: AttemptContext) => T | PromiseLike<T>,
    options: ReadyOkOptions<T> = {},
  ): Promise<T> {
    return readyOk(upstream, callback, options, {
      clock: this.#clock,
      random: () => this.#chance(),
      budget: this.#budget,
      onThrow: this.#env.onThrow,
    })
  }

  /** The next pick sees a change that is made here, also while others have yet to agree. */
  async #ask(operation: Operation): Promise<number> {
    this.#mustBeOpen()
    return this.#sync?.status === undefined ? this.#perform(operation) : this.#sync.request(operation)
  }

  #perform(operation: Operation): number {
    const { key, source, reason, allowEmpty, ifGeneration } = operation
    const is = this.#upstreams.get(key)?.generation ?? 0
    if (ifGeneration !== undefined && is !== ifGeneration) {
      const message = `upstream ${JSON.stringify(key)} has generation ${is}, expected ${ifGeneration}`
      throw new CheckupsError('ERR_CHECKUPS_CONFLICT', message)
    }
    const by = { source, reason, allowEmpty }
    switch (operation.op) {
      case 'update':
        return this.#update(key, operation.update, by)
      case 'delete':
        return this.#delete(this.#find(key), by)
      case 'add': {
        const { server, level } = operation
        return this.#update(key, withServer(upstreamPath(key), this.#find(key).config, server, level), by)
      }
      case 'remove':
        return this.#update(key, withoutServer(key, this.#find(key).config, operation.address), by)
      case 'set':
        return this.#update(key, withChange(key, this.#find(key).config, operation.address, operation.change), by)
      case 'reset':
        this.#find(key).resetMarks(operation.address, by)
        return this.#find(key).generation
    }
  }

  #update(key: string, update: Cluster | UpstreamOptions, { allowEmpty, ...by }: CheckedChange): number {
    const config = this.#compile(key, update)
    if (!(allowEmpty ?? config.settings.allowEmpty) && isEmpty(config)) throw new ConfigError(upstreamPath(key), EMPTY)
    return this.#apply(key, config, by)
  }

  #publish(event: ChangeEvent | SourceEvent): void {
    // First: a listener may change something more, and what comes of that is told after this.
    if (stateChannel.hasSubscribers) {
      const message: StateMessage = { checkups: this, event }
      stateChannel.publish(message)
    }
    this.#events.emit(event.type, event)
  }

  /** A cluster keeps the options that its upstream has. */
  #compile(key: string, update: unknown): UpstreamConfig {
    const current = this.#upstreams.get(key)?.config
    const path = upstreamPath(key)
    if (isWhole(update)) return compileUpstream(path, update, current)
    if (current === undefined) return compileUpstream(path, { cluster: update }, current)
    return compileCluster(`${path}.cluster`, update, current.settings, current)
  }

  /** An update that changes nothing is none: no event, and the generation stays. */
  #apply(key: string, config: UpstreamConfig, by: Cause, agreed?: number): number {
    const known = this.#upstreams.get(key)
    if (known !== undefined && sameConfig(known.config, config)) {
      if (agreed !== undefined) known.generation = agreed
      return known.generation
    }
    const upstream = known ?? new Upstream(key, config, this.#env)
    const before = this.#generation
    const generation = agreed ?? before + 1
    this.#generation = Math.max(before + 1, generation)
    // Listeners find a new upstream already there.
    if (known === undefined) this.#upstreams.set(key, upstream)
    try {
      upstream.apply({ what: 'config', config, generation, ...by })
    } catch (error) {
      // A policy that could not be made: nothing has changed, nothing was told.
      if (known === undefined) this.#upstreams.delete(key)
      this.#generation = before
      throw error
    }
    this.#updates++
    return generation
  }

  #delete(upstream: Upstream, by: Cause, agreed = 0): number {
    const generation = (this.#generation = Math.max(this.#generation + 1, agreed))
    this.#updates++
    this.#upstreams.delete(upstream.key)
    this.#owners.delete(upstream.key)
    upstream.apply({ what: 'delete', generation, source: by.source, reason: by.reason })
    return generation
  }

  #syncHost(): SyncHost {
    const find = (key: string) => this.#upstreams.get(key)
    return {
      clock: this.#clock,
      random: () => this.#chance(),
      lead: () => this.#lead(),
      perform: (operation) => this.#perform(operation),
      keys: () => [...this.#upstreams.keys()],
      state: () => Array.from(this.#upstreams.values(), (upstream) => sharedUpstream(upstream, this.#clock.now())),
      optionsOf: (key) => this.getUpstream(key),
      digest: () => digestOf(this.#upstreams.values()),
      load: () => Array.from(this.#upstreams.values(), loadOf),
      applyConfig: (key, options, generation, by) => {
        this.#apply(key, compileUpstream(upstreamPath(key), options, find(key)?.config), by, generation)
      },
      applyDelete: (key, generation, by) => {
        const upstream = find(key)
        if (upstream !== undefined) this.#delete(upstream, by, generation)
      },
      applyHeartbeat: (key, address, heartbeat, by) => find(key)?.heard(address, heartbeat, by),
      applyBan: (key, { address, ms, asked, reason }) =>
        find(key)?.ban(address, ms, asked, { source: 'passive', reason }),
      applyReset: (key, address, by) => find(key)?.resetMarks(address, by),
      caught: this.#env.onThrow,
    }
  }

  #follow(sources: readonly Source[]): Follower[] {
    const host: FollowHost = {
      clock: this.#clock,
      random: () => this.#chance(),
      update: (key, lists, source, allowEmpty) => this.#updateFrom(source, key, lists, allowEmpty),
      remove: (key, source) => {
        const upstream = this.#upstreams.get(key)
        if (upstream === undefined) return false
        this.#delete(upstream, { source: 'source', reason: source })
        return true
      },
      ownerOf: (key) => this.#owners.get(key),
      publish: (event) => this.#publish(event),
    }
    const names = new Set<string>()
    return sources.map((source, i) => {
      const follower = new Follower(`options.sources[${i}]`, source, host)
      if (names.has(follower.name)) throw new ConfigError(`options.sources[${i}].name`, 'another source has this name')
      names.add(follower.name)
      return follower
    })
  }

  #updateFrom(source: string, key: string, lists: Cluster | UpstreamOptions, allowEmpty: boolean): readonly Refused[] {
    string('key', '', key)
    let config: UpstreamConfig
    let refused: readonly Refused[] = []
    try {
      config = this.#compile(key, lists)
    } catch {
      const { value, errors } = withoutBadServers(upstreamPath(key), lists, this.#upstreams.get(key)?.config.settings)
      config = this.#compile(key, value)
      refused = errors.map(({ path, problem }) => ({ at: path, reason: problem }))
    }
    if (!allowEmpty && isEmpty(config)) {
      const [first] = refused
      const current = this.#upstreams.get(key)?.config
      const rest = current === undefined || isEmpty(current) ? 'it has no servers yet' : 'its last servers stay in use'
      throw new ConfigError(
        upstreamPath(key),
        first === undefined ? `no servers; ${rest}` : `no server is right (${first.at}: ${first.reason}); ${rest}`,
      )
    }
    this.#apply(key, config, { source: 'source', reason: source })
    this.#owners.set(key, source)
    return refused
  }

  #mustBeOpen(): void {
    if (this.#closed) throw new CheckupsError('ERR_CHECKUPS_CLOSED', 'this instance was closed')
  }
}

/** Why an update that leaves no server is refused. */
export const EMPTY = 'expected at least one server; deleteUpstream removes an upstream, allowEmpty allows this'

type CheckedChange = Cause & { readonly allowEmpty: boolean | undefined }
type AskedChange = CheckedChange & { readonly ifGeneration: number | undefined }

function causeOf(options: ChangeOptions | undefined, method: string): AskedChange {
  const given = record('options', '', options ?? {})
  onlyKeys('options', given, CHANGE_KEYS)
  const { source = 'code', reason, allowEmpty, ifGeneration } = given
  return {
    source: oneOf('options', 'source', source, ['code', 'admin']),
    reason: reason === undefined ? method : string('options', 'reason', reason),
    allowEmpty: allowEmpty === undefined ? undefined : boolean('options', 'allowEmpty', allowEmpty),
    ifGeneration:
      ifGeneration === undefined
        ? undefined
        : integer('options', 'ifGeneration', ifGeneration, 0, Number.MAX_SAFE_INTEGER),
  }
}

function isEmpty({ levels }: UpstreamConfig): boolean {
  return levels.every(({ servers }) => servers.length === 0)
}

function checkSync(sync: Sync): Sync {
  for (const method of ['start', 'changed', 'request', 'close'] as const) {
    if (typeof (sync as Partial<Sync>)[method] !== 'function') {
      throw expected('options.sync', method, 'a function', (sync as Partial<Sync>)[method])
    }
  }
  return sync
}

function checkClock(clock: Clock): Clock {
  for (const method of ['now', 'wallTime', 'setTimeout', 'clearTimeout'] as const) {
    if (typeof (clock as Partial<Clock>)[method] !== 'function') {
      throw expected('options.clock', method, 'a function', (clock as Partial<Clock>)[method])
    }
  }
  return clock
}
