/** The stream of changes: read once a second for everybody who looks, and not at all while nobody does. */
import { Timer, type Clock } from '../../clock.js'
import type { Meter } from '../meter.js'
import type { Model } from './model.js'
import type { Reader } from './read.js'

/** Milliseconds. */
const TICK = 1_000
/** Ticks between two comments that keep what is in between from ending a silent connection. */
const KEEP_ALIVE = 15

type Write = (text: string) => void

export class Live {
  readonly #reader: Reader
  readonly #meter: Meter
  readonly #clock: Clock
  readonly #viewers = new Set<Write>()
  readonly #timer: Timer
  #ticks = 0
  /** What all viewers have; undefined while there are none. */
  #shown: Model | undefined
  /** What one who comes before the next tick is given. */
  #snapshot: string | undefined

  constructor(reader: Reader, meter: Meter, clock: Clock) {
    this.#reader = reader
    this.#meter = meter
    this.#clock = clock
    this.#timer = new Timer(clock, () => this.#tick())
  }

  /** Begins with a snapshot, and goes on until `closed` is aborted. */
  add(write: Write, closed: AbortSignal): void {
    if (closed.aborted) return
    const unwatch = this.#meter.watch()
    const shown = (this.#shown ??= this.#reader.read())
    if (this.#viewers.size === 0) this.#arm()
    this.#viewers.add(write)
    closed.addEventListener('abort', () => {
      unwatch()
      this.#viewers.delete(write)
      if (this.#viewers.size === 0) this.close()
    })
    this.#snapshot ??= message('snapshot', this.#reader.withHistory(shown))
    write(`retry: 1000\n\n${this.#snapshot}`)
  }

  close(): void {
    this.#timer.stop()
    this.#viewers.clear()
    this.#shown = this.#snapshot = undefined
  }

  /** At whole seconds of the clock: then each tick has one second more to tell. */
  #arm(): void {
    this.#timer.at((Math.floor(this.#clock.now() / TICK) + 1) * TICK)
  }

  #tick(): void {
    const before = this.#shown
    if (before === undefined) return
    this.#arm()
    const now = (this.#shown = this.#reader.read())
    this.#snapshot = undefined
    let text = message('patch', this.#reader.patch(before, now))
    if (++this.#ticks % KEEP_ALIVE === 0) text += ': still here\n\n'
    for (const write of this.#viewers) write(text)
  }
}

/** One line: JSON has no line ends of its own. */
function message(event: string, data: object): string {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`
}
