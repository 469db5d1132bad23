/** The clients of a simulation: one call is one request with its retries. */
import type { Random } from '../clock.js'
import type { Peer } from '../upstream/peer.js'
import type { Pick } from '../upstream/pick.js'
import type { UpstreamHandle } from '../upstream/handle.js'
import { expected } from '../check.js'
import type { Answer } from './profiles.js'
import type { Retries, Scenario } from './scenario.js'
import type { SimulatedPeer } from './simulated-peer.js'
import type { VirtualClock } from './virtual-clock.js'

/** What the calls of one simulation share. */
export interface Run {
  readonly scenario: Scenario
  readonly clock: VirtualClock
  readonly peers: ReadonlyMap<string, SimulatedPeer>
  /** Of the clients: back-off and keys. */
  readonly random: Random
  readonly tally: Tally
}

/** Counts while the simulation runs. */
export interface Tally {
  requests: number
  ok: number
  unserved: number
  attempts: number
  /** Calls that something will still happen to: an answer, a timeout or a retry. */
  open: number
  readonly latencies: number[]
}

const RETRIED = [502, 503, 504]
const ENDED_WELL = (status: number) => status < 400

/** The error of a connection, as Node would have it. */
const CONNECTION_ERRORS = {
  refused: Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' }),
  reset: Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }),
}

export class Call {
  readonly #run: Run
  readonly #upstream: UpstreamHandle
  readonly #hashKey: string | undefined
  readonly #onEnd: ((took: number) => void) | undefined
  readonly #began: number
  readonly #tried: Peer[] = []

  /** @param onEnd - called when the call has ended; never for one that stays without an answer */
  constructor(run: Run, upstream: UpstreamHandle, onEnd?: (took: number) => void) {
    const { clock, scenario, random, tally } = run
    this.#run = run
    this.#upstream = upstream
    this.#onEnd = onEnd
    this.#began = clock.now()
    this.#hashKey = scenario.hashKey?.(tally.requests, random)
    tally.requests++
    tally.open++
    this.#attempt()
  }

  #attempt(): void {
    const { peers, tally } = this.#run
    const pick = this.#acquire()
    if (pick === undefined) {
      tally.unserved++
      return this.#end(false)
    }
    const peer = peers.get(pick.peer.address)
    if (peer === undefined) throw expected('scenario', 'peers', `a peer at ${pick.peer.address}`, undefined)
    tally.attempts++
    this.#tried.push(pick.peer)
    this.#send(peer, pick)
  }

  #acquire(): Pick | undefined {
    const { retries } = this.#run.scenario
    const hashKey = this.#hashKey
    if (this.#tried.length > 0 && retries?.exclude !== false) {
      return this.#upstream.acquirePeer({ hashKey, exclude: this.#tried })
    }
    return hashKey === undefined ? this.#upstream.acquirePeer() : this.#upstream.acquirePeer({ hashKey })
  }

  #send(peer: SimulatedPeer, pick: Pick): void {
    const { clock, scenario, tally } = this.#run
    let waiting = true
    let timer: unknown
    const answers = peer.request((answer) => {
      // The client has given up: nobody hears it.
      if (!waiting) return
      waiting = false
      clock.clearTimeout(timer)
      this.#answered(pick, answer)
    })
    if (scenario.timeout !== undefined && scenario.timeout > 0) {
      timer = clock.setTimeout(() => {
        waiting = false
        if (!answers) peer.hangUp()
        pick.done('failed')
        this.#failed()
      }, scenario.timeout)
    } else if (!answers) {
      tally.open--
    }
  }

  #answered(pick: Pick, { status = 200, error }: Answer): void {
    const { okStatus = ENDED_WELL, retries } = this.#run.scenario
    if (error !== undefined) {
      pick.done(CONNECTION_ERRORS[error])
      return this.#failed()
    }
    pick.answered(status)
    pick.done({ status })
    if (retries !== undefined && (retries.statuses ?? RETRIED).includes(status) && this.#retry(retries)) return
    this.#end(okStatus(status))
  }

  #failed(): void {
    const { retries } = this.#run.scenario
    if (retries === undefined || retries.errors === false || !this.#retry(retries)) this.#end(false)
  }

  /** Returns whether there is another attempt. */
  #retry({ count, backoff }: Retries): boolean {
    const attempt = this.#tried.length
    if (attempt > count) return false
    if (backoff === undefined) this.#attempt()
    else this.#run.clock.setTimeout(() => this.#attempt(), backoff(attempt, this.#run.random))
    return true
  }

  #end(well: boolean): void {
    const { clock, scenario, tally } = this.#run
    const took = clock.now() - this.#began
    tally.open--
    tally.latencies.push(took)
    if (well && took <= (scenario.okWithin ?? Infinity)) tally.ok++
    this.#onEnd?.(took)
  }
}
