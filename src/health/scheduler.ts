/**
 * The loop of all heartbeats: every peer has its own time, deadline and pace; one that hangs delays nobody. At most so many
 * checks are under way at once, those that are due beyond that wait in line.
 */
import { Timer, type Clock, type Random } from '../clock.js'
import { failureText, isOwnFault } from './probe/lib/failure.js'
import type { Probe, ProbeReport, ProbeTarget } from './probe/probe.js'
import type { Schedule } from './schedule.js'

/** Who is checked. */
export interface Subject {
  readonly target: ProbeTarget
  readonly probe: Probe
  readonly schedule: Schedule
  /** See {@link Schedule}: which of its three intervals counts now. */
  readonly pace: 'steady' | 'changing' | 'down'
  /** A check is over, after so many milliseconds. What it throws disturbs nobody. */
  found(report: ProbeReport, ms: number): void
}

/** What a watch says of its checks. */
export interface CheckTimes {
  /** Whether one is under way. */
  readonly checking: boolean
  /** Milliseconds since the last one ended; NaN before. */
  readonly age: number
  /** Milliseconds that it took; NaN before. */
  readonly duration: number
  /** How many there have been. */
  readonly checks: number
}

/** The scheduler, in status. */
export interface SchedulerStatus {
  /** Whether `start()` was called. */
  readonly started: boolean
  /** Peers that are checked. */
  readonly peers: number
  /** Checks under way. */
  readonly inProgress: number
  /** Checks that are due and wait in line. */
  readonly waiting: number
  /** Checks so far. */
  readonly checks: number
  /** When the last check began, in milliseconds since the Unix epoch; NaN before. */
  readonly lastRun: number
  /** Milliseconds that it began after its time: more than some shows a process, or a `concurrency`, that cannot keep up. */
  readonly lag: number
}

interface SchedulerEnv {
  readonly clock: Clock
  readonly onThrow: (error: unknown, during: string) => void
}

/**
 * A deadline that is seen so many milliseconds late was missed by this process, not by the peer: what has arrived meanwhile
 * is read first.
 */
const LATE = 20

export class Scheduler {
  readonly clock: Clock
  readonly #onThrow: SchedulerEnv['onThrow']
  readonly #concurrency: number
  readonly #watches = new Set<Watch>()
  readonly #line = new Set<Watch>()
  #random: Random | undefined
  #inProgress = 0
  #checks = 0
  #lastRun = NaN
  #lag = 0

  constructor({ clock, onThrow }: SchedulerEnv, concurrency: number) {
    this.clock = clock
    this.#onThrow = onThrow
    this.#concurrency = concurrency
  }

  get started(): boolean {
    return this.#random !== undefined
  }

  get status(): SchedulerStatus {
    return {
      started: this.started,
      peers: this.#watches.size,
      inProgress: this.#inProgress,
      waiting: this.#line.size,
      checks: this.#checks,
      lastRun: this.#lastRun,
      lag: this.#lag,
    }
  }

  /** Begins to check; `random` spreads the checks. */
  start(random: Random): void {
    this.#random ??= random
    for (const watch of this.#watches) this.#begin(watch)
  }

  /** Resolves when all who are out of use until then were checked once. */
  async firstChecks(): Promise<void> {
    const awaited = [...this.#watches].filter(({ subject }) => subject.schedule.defaultDown)
    await Promise.all(awaited.map((watch) => watch.first))
  }

  /** Has somebody checked from now on; at once, if that is asked for and the scheduler is running. */
  watch(subject: Subject, atOnce: boolean): Watch {
    const watch = new Watch(this, subject)
    this.#watches.add(watch)
    if (atOnce && this.started) {
      watch.spread = true
      watch.now()
    } else this.#begin(watch)
    return watch
  }

  /** The first checks are spread over the interval, unless the peers are out of use until then. */
  #begin(watch: Watch): void {
    if (this.#random === undefined) return
    const { defaultDown, interval } = watch.subject.schedule
    watch.spread = defaultDown
    watch.at(defaultDown ? this.clock.now() : this.clock.now() + this.#random() * interval)
  }

  /** Ends all checks at once. */
  close(): void {
    for (const watch of [...this.#watches]) watch.stop()
  }

  // For watches

  due(watch: Watch): void {
    if (this.#inProgress >= this.#concurrency) this.#line.add(watch)
    else this.#run(watch)
  }

  ended(watch: Watch): void {
    this.#inProgress--
    const { schedule, pace } = watch.subject
    if (this.#watches.has(watch)) {
      const interval = { steady: schedule.interval, changing: schedule.fastInterval, down: schedule.downInterval }[pace]
      const random = this.#random?.() ?? 0
      const wait = watch.spread && pace === 'steady' ? random * interval : interval + random * schedule.jitter
      // From start to start, how long a check takes does not slow the others of its peer; but one at a time.
      watch.at(Math.max(this.clock.now(), watch.begun + wait))
      watch.spread = false
    }
    // Not now: of those in line some may be stopped in this turn, too.
    if (this.#line.size > 0) queueMicrotask(() => this.#runLine())
  }

  found(watch: Watch, report: ProbeReport, ms: number): void {
    try {
      watch.subject.found(report, ms)
    } catch (error) {
      this.#onThrow(error, 'a heartbeat')
    }
  }

  gone(watch: Watch): void {
    this.#watches.delete(watch)
    this.#line.delete(watch)
  }

  #runLine(): void {
    for (const watch of this.#line) {
      if (this.#inProgress >= this.#concurrency) return
      this.#line.delete(watch)
      this.#run(watch)
    }
  }

  #run(watch: Watch): void {
    this.#inProgress++
    this.#checks++
    this.#lastRun = this.clock.wallTime()
    this.#lag = watch.run()
  }
}

/** One who is checked, and the check that is under way. */
export class Watch {
  readonly subject: Subject
  /** Resolves when it has been checked once, or is checked no more. */
  readonly first: Promise<void>
  /** When its last check began. */
  begun = NaN
  /** Whether that was at once, with others perhaps: the next one is then anywhere in the interval. */
  spread = false
  readonly #scheduler: Scheduler
  readonly #timer: Timer
  #due = NaN
  #running: AbortController | undefined
  /** Whether its deadline was seen late, and it has been given one turn more. */
  #late = false
  #ended = NaN
  #duration = NaN
  #checks = 0
  #hadFirst!: () => void

  constructor(scheduler: Scheduler, subject: Subject) {
    this.#scheduler = scheduler
    this.subject = subject
    this.first = new Promise((resolve) => (this.#hadFirst = resolve))
    this.#timer = new Timer(scheduler.clock, () => this.#fire())
  }

  /** The next check is then. */
  at(due: number): void {
    this.#due = due
    this.#timer.at(due)
  }

  /** The next check is now, if the scheduler runs and none is under way. */
  now(): void {
    if (this.#running === undefined && this.#scheduler.started) this.at(this.#scheduler.clock.now())
  }

  /** Checked no more; a check under way is aborted and its result is nobody's. */
  stop(): void {
    this.#timer.stop()
    this.#scheduler.gone(this)
    const controller = this.#running
    this.#running = undefined
    controller?.abort(new Error('stopped'))
    this.subject.probe.forget?.(this.subject.target)
    this.#hadFirst()
    if (controller !== undefined) this.#scheduler.ended(this)
  }

  get times(): CheckTimes {
    return {
      checking: this.#running !== undefined,
      age: this.#scheduler.clock.now() - this.#ended,
      duration: this.#duration,
      checks: this.#checks,
    }
  }

  /** Begins a check; returns how late. */
  run(): number {
    const { clock } = this.#scheduler
    const controller = new AbortController()
    this.begun = clock.now()
    this.#running = controller
    this.#late = false
    this.#timer.at(this.begun + this.subject.schedule.timeout)
    this.#check(controller.signal).then(
      (report) => this.#end(controller, report),
      (error: unknown) => this.#fail(controller, error),
    )
    return this.begun - this.#due
  }

  /** A probe that throws at once fails like one that rejects. */
  async #check(signal: AbortSignal): Promise<ProbeReport> {
    return this.subject.probe.check(this.subject.target, signal)
  }

  #fire(): void {
    const controller = this.#running
    if (controller === undefined) return this.#scheduler.due(this)
    const { clock } = this.#scheduler
    const { timeout } = this.subject.schedule
    if (!this.#late && clock.now() - this.begun - timeout > LATE) {
      this.#late = true
      this.#timer.at(clock.now() + 1)
      return
    }
    const error = new Error(`timeout after ${timeout} ms`)
    this.#end(controller, { status: 'err', message: error.message })
    controller.abort(error)
  }

  #fail(controller: AbortController, error: unknown): void {
    // Out of files, ports or memory: that says nothing of the peer.
    this.#end(controller, isOwnFault(error) ? undefined : { status: 'err', message: failureText(error) })
  }

  /** After its deadline a check has nothing to say. */
  #end(controller: AbortController, report: ProbeReport | undefined): void {
    if (this.#running !== controller) return
    this.#running = undefined
    this.#timer.stop()
    this.#checks++
    this.#ended = this.#scheduler.clock.now()
    this.#duration = this.#ended - this.begun
    if (report !== undefined) this.#scheduler.found(this, report, this.#duration)
    this.#hadFirst()
    this.#scheduler.ended(this)
  }
}
