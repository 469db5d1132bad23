/**
 * One upstream at run time. Control enters by {@link Upstream.apply} and compiles; a pick in the steady state finds the
 * first level that has somebody and asks its balancer.
 */
import { isDeepStrictEqual } from 'node:util'
import type { Request, Result } from '../balancer/balancer.js'
import { heartbeatChannel, outcomeChannel, pickChannel } from '../channels.js'
import type { HeartbeatMessage, OutcomeMessage, PickMessage } from '../channels.js'
import type { Clock, Random } from '../clock.js'
import type { UpstreamConfig, UpstreamSettings } from '../config.js'
import { UnknownPeerError } from '../errors.js'
import { isUntested, type Heartbeat } from '../health/heartbeat.js'
import { isClean, nextPassive, type Lease, type Passive, type PassiveEvent } from '../health/passive.js'
import { retryAfterOf, Statuses, statusOf, verdictOf, type Outcome, type Verdict } from '../health/outcome.js'
import type { Scheduler } from '../health/scheduler.js'
import type { Cause, Change, ChangeEvent, ChangeSource } from './change.js'
import { mayBan, Standings, toLift, type Panic } from './guard.js'
import { Heartbeats, type Check } from './heartbeats.js'
import type { Level, OnThrow } from './level.js'
import { Membership } from './membership.js'
import { PeerObject, type Peer } from './peer.js'
import { PickHandle, type PickOwner } from './pick.js'
import { addressOf, hasOthers, search, whyUnavailable, type AttemptRequest, type PeerAddress } from './selection.js'
import type { SelectOptions, UnavailableReason } from './selection.js'
import type { Entry, PeerState } from './state.js'

/** What an upstream is given by the instance it belongs to. */
export interface UpstreamEnv {
  /** The instance, for whoever listens to the channels. */
  readonly instance: object
  readonly clock: Clock
  readonly random: Random
  readonly nextGeneration: () => number
  readonly publish: (event: ChangeEvent) => void
  /** Every change is told here as it comes in: for those who are to have the same. */
  readonly changed: (key: string, change: Change) => void
  readonly onThrow: OnThrow
  readonly scheduler: Scheduler
  /** Heartbeats are configured, nobody has started them, and there was a pick. */
  readonly onIdle: (key: string) => void
}

const NO_OPTIONS: SelectOptions = Object.freeze({})

export class Upstream implements PickOwner {
  readonly key: string
  readonly membership: Membership
  readonly heartbeats: Heartbeats
  config: UpstreamConfig
  statuses: Statuses
  deleted = false
  /** Of the last change of its configuration; 0 before the first. */
  generation = 0
  readonly #env: UpstreamEnv
  readonly #pickFrom = (level: Level, request: Request) => this.#ask(level, request)
  /** Peers on trial; while there are none, no pick looks for a slot to take. */
  #trials = 0
  /** The first level, while nobody is on trial and its policy takes no times: a pick without options need ask no more. */
  #steady: Level | undefined = undefined
  #closed = false
  readonly #standings = new Standings()
  /** Whether the next pick is to be told of: see {@link UpstreamEnv.onIdle}. */
  #idling = false
  /** When a policy was last asked, if it wants times. */
  #asked = NaN
  /** The last lease's id. */
  #leases = 0

  constructor(key: string, config: UpstreamConfig, env: UpstreamEnv) {
    this.key = key
    this.config = config
    this.statuses = new Statuses(config.settings.statuses)
    this.#env = env
    this.membership = new Membership(key, env, (state) => this.#due(state))
    this.heartbeats = new Heartbeats(env.scheduler, (state, heartbeat, check) => this.#found(state, heartbeat, check))
  }

  get settings(): UpstreamSettings {
    return this.config.settings
  }

  selectPeer(options?: SelectOptions): Peer | undefined {
    const steady = this.#steady
    const isPlain = options === undefined || (options.clusterKey === undefined && options.exclude === undefined)
    if (steady !== undefined && isPlain && steady.available !== 0) {
      const member = steady.pick(options ?? NO_OPTIONS, NaN)
      if (member !== undefined && member.available) {
        if (pickChannel.hasSubscribers) this.#tellPick(member.peer, false, false)
        return member.peer
      }
    }
    const entry = this.#select(options ?? NO_OPTIONS, isPlain ? steady : undefined)
    if (entry !== undefined && this.#trials !== 0) this.#takeSlot(entry.state, 'select')
    if (pickChannel.hasSubscribers) this.#tellPick(entry?.peer, false, false)
    return entry?.peer
  }

  acquirePeer(options: AttemptRequest = NO_OPTIONS): PickHandle | undefined {
    const entry = this.#select(options)
    if (entry === undefined) {
      if (pickChannel.hasSubscribers) this.#tellPick(undefined, true, options.tried !== undefined)
      return undefined
    }
    const { state } = entry
    const lease = this.#trials === 0 ? 0 : this.#takeSlot(state, 'acquire')
    entry.inFlight++
    state.inFlight++
    if (state.full) state.refresh()
    const pick = new PickHandle(this, entry, lease, this.#startOf(entry))
    entry.level.acquired(entry)
    // Last: whoever listens may pick, too, and must find this one counted.
    if (pickChannel.hasSubscribers) this.#tellPick(entry.peer, true, options.tried !== undefined)
    return pick
  }

  /** Why a pick with these options finds nobody; undefined if it would find somebody. Changes nothing. */
  unavailable(options: AttemptRequest = NO_OPTIONS): UnavailableReason | undefined {
    return whyUnavailable(this.membership, options)
  }

  /** Whether somebody is available beside those that the request excludes; by counts, not by looking at everyone. */
  hasOthers(options: AttemptRequest): boolean {
    return hasOthers(this.membership, options)
  }

  /** One balancer step a pick; a second one only where a policy, `asked` here or before, declines though it has somebody. */
  #select(request: AttemptRequest, asked?: Level): Entry | undefined {
    if (this.#idling) this.#tellIdle()
    if (request.clusterKey !== undefined || request.exclude !== undefined || request.tried !== undefined) {
      return search(this.membership, request, this.#pickFrom)
    }
    for (const level of this.membership.levels) {
      if (level.available === 0) continue
      const entry = level === asked ? undefined : this.#ask(level, request)
      return entry ?? search(this.membership, request, this.#pickFrom, level)
    }
    return this.#trials === 0 ? undefined : search(this.membership, request, this.#pickFrom)
  }

  #ask(level: Level, request: Request): Entry | undefined {
    this.#asked = level.timed ? this.#env.clock.now() : NaN
    const member = level.pick(request, this.#asked)
    // A user's policy may be wrong: what is not available is not handed out.
    return member?.available === true ? (member as Entry) : undefined
  }

  /** Under a policy that takes no times, the time is read only for whoever listens. */
  #startOf(entry: Entry): number {
    return entry.level.timed || !outcomeChannel.hasSubscribers ? this.#asked : this.#env.clock.now()
  }

  #tellPick(peer: Peer | undefined, acquired: boolean, retry: boolean): void {
    const message: PickMessage = { checkups: this.#env.instance, upstream: this.key, peer, acquired, retry }
    pickChannel.publish(message)
  }

  #tellOutcome(peer: Peer, outcome: Verdict, status: number, ms: number, acquired: boolean): void {
    const { instance: checkups } = this.#env
    const message: OutcomeMessage = { checkups, upstream: this.key, peer, outcome, status, ms, acquired }
    outcomeChannel.publish(message)
  }

  // PickOwner: what becomes of the picks

  now(): number {
    return this.#env.clock.now()
  }

  timeFor(entry: Entry): number {
    return entry.level.timed ? this.#env.clock.now() : NaN
  }

  verdict(outcome: Outcome): Verdict {
    return verdictOf(this.statuses.outcome(outcome))
  }

  answered(entry: Entry, result: Result): void {
    entry.level.report(entry, result)
  }

  confirmed({ entry: { state }, bans, lease }: PickHandle): void {
    if (bans === state.passive.bans) this.#judge(state, 'ok', lease)
  }

  retryAfter(outcome: Outcome): number {
    return typeof outcome === 'object' ? retryAfterOf(outcome, this.#env.clock) : 0
  }

  done(pick: PickHandle, result: Result, told: boolean, retryAfter: number): void {
    const { entry } = pick
    const { state } = entry
    const wasFull = state.full
    entry.inFlight--
    state.inFlight--
    if (wasFull) state.refresh()
    if (!told || result.outcome === 'failed') entry.level.report(entry, result)
    entry.level.released(entry)
    // Before what follows from it, and before listeners of that take their time.
    if (outcomeChannel.hasSubscribers) {
      const ms = Number.isNaN(pick.answeredAfter) ? this.#env.clock.now() - pick.start : pick.answeredAfter
      this.#tellOutcome(pick.peer, result.outcome, result.status, ms, true)
    }
    if (pick.bans === state.passive.bans) this.#judge(state, result.outcome, pick.lease)
    if (retryAfter > 0) this.#leaveAlone(state, retryAfter)
    if (state.inFlight === 0) this.#idle(state)
  }

  feedbackStatus(target: Peer | PeerAddress, outcome: Outcome): boolean {
    const address = addressOf(target)
    const state = this.membership.peers.get(address)
    if (state === undefined) {
      if (target instanceof PeerObject && target.upstream === this.key) return false
      if (this.membership.hasLeft(address)) return false
      throw new UnknownPeerError(this.key, address)
    }
    const verdict = this.verdict(outcome)
    for (const entry of state.entries) {
      const now = this.timeFor(entry)
      entry.level.report(entry, { outcome: verdict, status: statusOf(outcome), ms: NaN, now, acquired: false })
    }
    if (outcomeChannel.hasSubscribers) this.#tellOutcome(state.peer, verdict, statusOf(outcome), NaN, false)
    // There is no handle to say which request it was: during a trial, the report is taken to be about it.
    const lease = state.passive.state === 'trial' ? state.passive.lease : undefined
    this.#judge(state, verdict, lease?.id ?? 0)
    const retryAfter = this.retryAfter(outcome)
    if (retryAfter > 0) this.#leaveAlone(state, retryAfter)
    return true
  }

  /** Another process, which checks, has found something else of a peer. */
  heard(address: string, heartbeat: Heartbeat, by: Cause): void {
    const known = this.membership.peers.get(address)?.heartbeat
    if (known === undefined || isDeepStrictEqual(known, heartbeat)) return
    this.apply({ what: 'heartbeat', address, heartbeat, ...by, generation: this.#env.nextGeneration() })
  }

  /** Another process has taken it out: so it is here, unless it is the last one as seen from here. */
  ban(address: string, ms: number, asked: boolean, by: Cause): void {
    const state = this.membership.peers.get(address)
    if (state === undefined || state.passive.state === 'banned' || ms <= 0) return
    if (!mayBan(this.membership.peers, state, this.settings.protected)) return
    const until = this.#env.clock.now() + ms
    const passive: Passive = { state: 'banned', bans: state.passive.bans + 1, until, ...(asked && { asked }) }
    this.apply({ what: 'passive', address, passive, ...by, generation: this.#env.nextGeneration() })
  }

  /**
   * Forgets failures, ends a ban, and has the peer checked now if it has heartbeats; all peers without an address.
   */
  resetMarks(address: string | undefined, by: Cause): void {
    const state = address === undefined ? undefined : this.membership.peers.get(address)
    if (address !== undefined && state === undefined) throw new UnknownPeerError(this.key, address)
    for (const one of state === undefined ? this.membership.peers.values() : [state]) {
      this.#step(one, { type: 'reset' }, by.source, by.reason)
      this.heartbeats.checkNow(one)
    }
  }

  // Passive health

  #judge(state: PeerState, verdict: Verdict, lease: number): void {
    if (verdict === 'ok') {
      if (!isClean(state.passive)) this.#step(state, { type: 'ok' }, 'passive', 'answered')
    } else if (verdict === 'neutral') {
      if (lease !== 0) this.#step(state, { type: 'neutral', lease }, 'passive', 'the trial ended without a result')
    } else {
      const { maxFails, failTimeout } = state.rules
      const often = `failed ${maxFails === 1 ? 'once' : `${maxFails} times in ${failTimeout} ms`}`
      const reason = state.passive.state === 'trial' ? 'failed on trial' : often
      const allowed = mayBan(this.membership.peers, state, this.settings.protected)
      this.#step(state, { type: 'failed', mayBan: allowed }, 'passive', reason)
    }
  }

  /** It has said itself that it has too much to do. */
  #leaveAlone(state: PeerState, ms: number): void {
    const until = this.#env.clock.now() + ms
    const allowed = mayBan(this.membership.peers, state, this.settings.protected)
    const reason = `asked to be left alone for ${Math.round(ms)} ms (Retry-After)`
    this.#step(state, { type: 'away', until, mayBan: allowed }, 'passive', reason)
  }

  /** The pick that finds a trial's slot free takes it. Returns the lease, or 0. */
  #takeSlot(state: PeerState, kind: Lease['kind']): number {
    if (state.passive.state !== 'trial' || state.passive.lease !== undefined) return 0
    const id = ++this.#leases
    const until = this.#env.clock.now() + state.rules.failTimeout
    this.#step(state, { type: 'lease', lease: { id, kind, until } }, 'passive', 'on trial')
    return id
  }

  #due(state: PeerState): void {
    const { passive, rules } = state
    const over =
      passive.state === 'banned' && passive.asked === true ? 'its time is over' : `${rules.failTimeout} ms are over`
    const reason = passive.state === 'banned' ? over : 'no failure on trial'
    this.#step(state, { type: 'due' }, 'timer', reason)
  }

  /** What changes no more than counts and slots is kept here; anything else is a change for all to see. */
  #step(state: PeerState, event: PassiveEvent, source: ChangeSource, reason: string): void {
    if (this.deleted) return
    const passive = nextPassive(state.passive, event, this.#env.clock.now(), state.rules)
    if (passive === state.passive) return
    if (passive.state === state.passive.state) return this.#setPassive(state, passive)
    const { address } = state.peer
    this.apply({ what: 'passive', address, passive, source, reason, generation: this.#env.nextGeneration() })
  }

  #setPassive(state: PeerState, passive: Passive): void {
    if (state.member) this.#trials += Number(passive.state === 'trial') - Number(state.passive.state === 'trial')
    state.passive = passive
    if (this.#closed) state.timer.stop()
    else if (passive.state === 'banned') state.timer.at(passive.until)
    else if (passive.state === 'trial' && passive.lease !== undefined) state.timer.at(passive.lease.until)
    else state.timer.stop()
    state.refresh()
    this.#findSteady()
  }

  #findSteady(): void {
    const [first] = this.membership.levels
    this.#steady = this.#trials === 0 && !this.#idling && first?.timed === false ? first : undefined
  }

  // Active health

  /** Heartbeats are running now. */
  started(): void {
    this.#idling = false
    this.#findSteady()
  }

  #tellIdle(): void {
    const isIdle = this.heartbeats.idle
    this.started()
    if (isIdle) this.#env.onIdle(this.key)
  }

  /** As with passive health, counts are kept here, and a state that turns is a change for all to see. */
  #found(state: PeerState, heartbeat: Heartbeat, check: Check): void {
    if (this.deleted) return
    const { address } = state.peer
    if (heartbeatChannel.hasSubscribers) {
      const { instance: checkups } = this.#env
      const message: HeartbeatMessage = { checkups, upstream: this.key, peer: state.peer, ...check }
      heartbeatChannel.publish(message)
    }
    if (heartbeat.found === state.heartbeat.found && !isUntested(state.heartbeat)) state.heartbeat = heartbeat
    else {
      const reason = heartbeat.found === 'ok' ? 'the heartbeat passes' : heartbeat.message || 'the heartbeat fails'
      const generation = this.#env.nextGeneration()
      this.apply({ what: 'heartbeat', address, heartbeat, source: 'heartbeat', reason, generation })
    }
    const { heartbeat: plan } = this.settings
    if (plan?.schedule.liftsBan === true && heartbeat.failures === 0) {
      this.#step(state, { type: 'passed' }, 'heartbeat', 'the heartbeat passes')
    }
  }

  // Control

  /** The one door for all that changes an upstream. */
  apply(change: Change): void {
    switch (change.what) {
      case 'config':
        return this.#applyConfig(change.config, change)
      case 'passive': {
        const state = this.membership.find(change.address)
        if (state === undefined) return
        this.#env.changed(this.key, change)
        this.#setPassive(state, change.passive)
        this.#settle(state, change)
        if (this.settings.heartbeat?.schedule.checkOnBan === true && change.passive.state === 'banned') {
          this.heartbeats.checkNow(state)
        }
        return this.#idle(state)
      }
      case 'heartbeat': {
        const state = this.membership.peers.get(change.address)
        if (state === undefined) return
        this.#env.changed(this.key, change)
        state.heartbeat = change.heartbeat
        state.foundSince = this.#env.clock.wallTime()
        return this.#settle(state, change)
      }
      case 'delete':
        this.close()
        this.deleted = true
        this.#env.changed(this.key, change)
        return this.#env.publish({ type: 'upstream:delete', ...this.#info(change) })
    }
  }

  /** Ends every timer: what is banned stays so. */
  close(): void {
    this.#closed = true
    this.membership.stopTimers()
    this.heartbeats.close()
  }

  #applyConfig(config: UpstreamConfig, change: Change): void {
    const created = this.generation === 0
    const hadChecks = this.settings.heartbeat !== undefined && !created
    const { added, removed, changed } = this.membership.apply(config)
    this.config = config
    this.statuses = new Statuses(config.settings.statuses)
    this.generation = change.generation
    this.#env.changed(this.key, change)
    this.#trials = 0
    const { peers } = this.membership
    for (const { passive } of peers.values()) if (passive.state === 'trial') this.#trials++
    const hasChecks = hadChecks || config.settings.heartbeat !== undefined
    if (hasChecks) {
      this.heartbeats.update(config.settings.heartbeat, peers)
      for (const turned of this.#standings.settle(peers, peers.values(), this.#panic)) turned.refresh()
    }
    for (const state of added) state.told = state.healthy
    this.#idling = this.heartbeats.idle
    this.#findSteady()

    const faces = (states: readonly PeerState[]) => states.map(({ peer }) => peer)
    this.#env.publish({
      type: 'upstream:update',
      ...this.#info(change),
      created,
      added: faces(added),
      removed: faces(removed),
      changed: faces(changed),
    })
    this.#keepSomebody()
    if (hadChecks && config.settings.heartbeat === undefined) {
      for (const state of peers.values()) {
        if (state.healthy) this.#tellFlip(state, { ...change, source: 'heartbeat', reason: 'not checked any more' })
      }
    }
    for (const state of changed) this.#tellFlip(state, { ...change, source: 'admin', reason: state.admin })
    if (hasChecks) this.#tellOthers(peers.values(), change.generation)
    for (const state of [...added, ...changed]) this.#idle(state)
  }

  get #panic(): Panic {
    return this.settings.protected ? (this.settings.heartbeat?.schedule.panic ?? 'all') : 'none'
  }

  /** What a change of one peer's health means for it and for the others. */
  #settle(state: PeerState, change: Change): void {
    this.#keepSomebody()
    const turned = this.#standings.settle(this.membership.peers, [state], this.#panic)
    for (const other of turned) other.refresh()
    this.#tellFlip(state, change)
    this.#tellOthers(turned, change.generation)
  }

  /** When admin, an update or a heartbeat has taken the last one, a ban ends early. */
  #keepSomebody(): void {
    if (!this.settings.protected || this.#standings.best(this.membership.peers) !== 'err') return
    const lift = toLift(this.membership.peers)
    if (lift !== undefined) this.#step(lift, { type: 'lifted' }, 'guard', 'nobody else is left')
  }

  /** Peers that are kept because of others, or not any more. */
  #tellOthers(turned: Iterable<PeerState>, generation: number): void {
    for (const state of turned) {
      const reason = state.healthy ? 'nobody else is left' : 'others are there again'
      this.#tellFlip(state, { source: 'guard', reason, generation })
    }
  }

  /** Its last request is done: a draining peer has drained, one that left is forgotten. */
  #idle(state: PeerState): void {
    this.membership.forgetIfDone(state)
    if (state.inFlight > 0 || !state.member || state.admin !== 'drain' || state.drained) return
    state.drained = true
    const change = { source: 'code', reason: 'nothing in flight', generation: this.generation } as const
    this.#env.publish({ type: 'peer:drained', ...this.#info(change), peer: state.peer })
  }

  #tellFlip(state: PeerState, change: Cause & { generation: number }): void {
    if (state.healthy === state.told || !state.member) return
    state.told = state.healthy
    const { clock, publish } = this.#env
    const now = clock.now()
    const lasted = now - state.since
    state.since = now
    state.sinceWall = clock.wallTime()
    state.reason = change.reason
    // A draining peer is not down, and says so itself when it is done.
    if (state.admin === 'drain') return
    const type = state.healthy ? 'peer:up' : 'peer:down'
    publish({ type, ...this.#info(change), peer: state.peer, health: state.word, lasted })
  }

  #info({ generation, source, reason }: { generation: number; source: ChangeSource; reason: string }) {
    return { upstream: this.key, generation, source, reason, at: this.#env.clock.wallTime() }
  }
}
