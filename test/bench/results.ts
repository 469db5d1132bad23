/** What a run of all measurements has found. */
import { median } from './measure.js'
import type { Sized } from './subjects.js'

/** Milliseconds that updates of one kind hold the event loop. */
export interface UpdateTimes {
  readonly median: number
  readonly longest: number
  /** In a process that has made no update yet. */
  readonly first: number
}

/** By kind of update. */
export type Updates = Readonly<Record<string, UpdateTimes>>

/** Bytes per pick, by how it is made. */
export type Allocation = Readonly<Record<'handle' | 'key', number>>

/** Milliseconds. */
export interface RingTimes {
  /** A ring of 1,000 servers from nothing, first of a process. */
  readonly cold: number
  /** Later ones, the median. */
  readonly warm: number
  /** One server more in 10,000: how long the event loop is held until it is picked, the median. */
  readonly total: number
  /** The longest piece of that, the median. */
  readonly piece: number
  /** The longest piece of all. */
  readonly longest: number
}

/** Nanoseconds of subjects at sizes. */
export class Timings {
  readonly #samples = new Map<string, number[]>()

  add(subject: Sized, n: number, ns: number): void {
    const id = idOf(subject, n)
    const samples = this.#samples.get(id)
    if (samples === undefined) this.#samples.set(id, [ns])
    else samples.push(ns)
  }

  /** Nanoseconds per pick, the median of all rounds; NaN if it could not be measured. */
  ns(subject: Sized, n: number): number {
    const size = subject.sizes?.includes(n) === false ? subject.sizes[0]! : n
    return median(this.#samples.get(idOf(subject, size)) ?? [NaN])
  }
}

export class Results {
  readonly picks = new Timings()
  /** Of keyed subjects. */
  readonly fresh = new Timings()
  readonly hot = new Timings()
  readonly #failures = new Map<string, string>()
  readonly #updates: Updates[] = []
  readonly #rings: RingTimes[] = []
  readonly #memory = new Map<string, number[]>()
  allocation: Allocation = { handle: NaN, key: NaN }
  /** Whether nothing else of weight ran on the machine, so that limits in nanoseconds mean something. */
  quiet = false

  /** The subject cannot be driven at this size. */
  fail(subject: Sized, n: number, error: unknown): void {
    const text = error instanceof Error ? error.message : String(error)
    this.#failures.set(idOf(subject, n), /^\w*Error: .*/m.exec(text)?.[0] ?? text)
  }

  hasFailed(subject: Sized, n: number): boolean {
    return this.#failures.has(idOf(subject, n))
  }

  /** What could not be measured, and why. */
  get failures(): string[] {
    return Array.from(this.#failures, ([id, reason]) => `${id}: ${reason}`)
  }

  addUpdates(updates: Updates): void {
    this.#updates.push(updates)
  }

  /** The medians of all rounds, but the longest of all. */
  get updates(): Updates {
    const kinds = Object.keys(this.#updates[0] ?? {})
    const merged = kinds.map((kind) => {
      const all = (of: keyof UpdateTimes) => this.#updates.map((updates) => updates[kind]?.[of] ?? NaN)
      return [
        kind,
        { median: median(all('median')), longest: Math.max(...all('longest')), first: median(all('first')) },
      ]
    })
    return Object.fromEntries(merged) as Updates
  }

  addRings(times: RingTimes): void {
    this.#rings.push(times)
  }

  /** The medians of all rounds, but the longest of all. */
  get rings(): RingTimes {
    const all = (of: keyof RingTimes) => this.#rings.map((times) => times[of])
    return {
      cold: median(all('cold')),
      warm: median(all('warm')),
      total: median(all('total')),
      piece: median(all('piece')),
      longest: Math.max(...all('longest')),
    }
  }

  addMemory({ name }: Sized, bytes: number): void {
    this.#memory.set(name, [...(this.#memory.get(name) ?? []), bytes])
  }

  /** Bytes per server, the median of all rounds. */
  memory({ name }: Sized): number {
    return median(this.#memory.get(name) ?? [NaN])
  }
}

function idOf(subject: Sized, n: number): string {
  return `${subject.name} with ${n} peers`
}
