/** The heartbeats of one upstream: who of its peers is checked, and how. */
import { sameHeartbeat } from '../compile.js'
import { firstHeartbeat, nextHeartbeat, paceOf, unchecked, type Heartbeat } from '../health/heartbeat.js'
import type { Probe, ProbeReport, ProbeStatus, ProbeTarget } from '../health/probe/probe.js'
import type { HeartbeatPlan, Schedule } from '../health/schedule.js'
import type { CheckTimes, Scheduler, Subject, Watch } from '../health/scheduler.js'
import type { Peer } from './peer.js'
import type { PeerState } from './state.js'

/** A check that is over. */
export interface Check {
  readonly status: ProbeStatus
  /** Milliseconds that it took. */
  readonly ms: number
}

/** Told of a check and of the state that it has led to. */
type OnFound = (state: PeerState, heartbeat: Heartbeat, check: Check) => void

export class Heartbeats {
  readonly #scheduler: Scheduler
  readonly #onFound: OnFound
  readonly #watches = new Map<PeerState, Watch>()
  #plan: HeartbeatPlan | undefined
  #probe: Probe | undefined

  constructor(scheduler: Scheduler, onFound: OnFound) {
    this.#scheduler = scheduler
    this.#onFound = onFound
  }

  /** Whether there are checks that nobody has started. */
  get idle(): boolean {
    return this.#plan !== undefined && !this.#scheduler.started
  }

  /** Takes over a plan and a list. Peers that stay keep what was found of them; under another plan they are checked anew. */
  update(plan: HeartbeatPlan | undefined, peers: ReadonlyMap<string, PeerState>): void {
    const isNew = !sameHeartbeat(plan, this.#plan)
    for (const [state, watch] of this.#watches) if (isNew || !state.member) this.#stop(state, watch)
    if (isNew) {
      this.#probe?.close?.()
      this.#plan = plan
      this.#probe = plan?.probe({ wallTime: () => this.#scheduler.clock.wallTime() })
    }
    if (this.#watches.size === peers.size) return
    for (const state of peers.values()) {
      if (this.#plan === undefined || this.#probe === undefined) state.forgetChecks()
      else if (!this.#watches.has(state)) {
        if (state.heartbeat === unchecked) state.heartbeat = firstHeartbeat(this.#plan.schedule)
        this.#watches.set(
          state,
          this.#scheduler.watch(subject(state, this.#plan.schedule, this.#probe, this.#onFound), true),
        )
      }
    }
  }

  /** Checks a peer now, not at its next time. */
  checkNow(state: PeerState): void {
    this.#watches.get(state)?.now()
  }

  /** Undefined for a peer that is not checked. */
  timesOf(state: PeerState): CheckTimes | undefined {
    return this.#watches.get(state)?.times
  }

  /** Ends all checks; what they have found is still there to see. */
  close(): void {
    for (const watch of this.#watches.values()) watch.stop()
    this.#probe?.close?.()
  }

  #stop(state: PeerState, watch: Watch): void {
    this.#watches.delete(state)
    watch.stop()
  }
}

function subject(state: PeerState, schedule: Schedule, probe: Probe, onFound: OnFound): Subject {
  return {
    target: targetOf(state.peer, schedule),
    probe,
    schedule,
    get pace() {
      return paceOf(state.heartbeat)
    },
    found: (report: ProbeReport, ms: number) => {
      onFound(state, nextHeartbeat(state.heartbeat, report, schedule), { status: report.status, ms })
    },
  }
}

/** The peer itself, or what is to be checked in its place. A host alone makes no sense of a unix socket, which has no port. */
function targetOf(peer: Peer, { host, port }: Schedule): ProbeTarget {
  const at = { host: host ?? peer.host, port: port ?? peer.port }
  if (at.port === 0 || at.host === '') return { peer, host: '', port: 0, connect: peer.connect }
  return { peer, ...at, connect: at }
}
