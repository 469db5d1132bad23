/** What a run of all measurements has found. */
import { median } from './measure.js'
import type { Subject } from './subjects.js'

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
export type Allocation = Readonly<Record<'handle' | 'key' | 'acquire', number>>

export class Results {
  readonly #samples = new Map<string, number[]>()
  readonly #failures = new Map<string, string>()
  readonly #updates: Updates[] = []
  allocation: Allocation = { handle: NaN, key: NaN, acquire: NaN }

  add(subject: Subject, n: number, ns: number): void {
    const id = idOf(subject, n)
    const samples = this.#samples.get(id)
    if (samples === undefined) this.#samples.set(id, [ns])
    else samples.push(ns)
  }

  /** The subject cannot be driven at this size. */
  fail(subject: Subject, n: number, error: unknown): void {
    const text = error instanceof Error ? error.message : String(error)
    this.#failures.set(idOf(subject, n), /^\w*Error: .*/m.exec(text)?.[0] ?? text)
  }

  hasFailed(subject: Subject, n: number): boolean {
    return this.#failures.has(idOf(subject, n))
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

  /** What could not be measured, and why. */
  get failures(): string[] {
    return Array.from(this.#failures, ([id, reason]) => `${id}: ${reason}`)
  }

  /** Nanoseconds per pick, the median of all rounds; NaN if it could not be measured. */
  ns(subject: Subject, n: number): number {
    return this.hasFailed(subject, n) ? NaN : median(this.#samples.get(idOf(subject, n)) ?? [NaN])
  }
}

function idOf(subject: Subject, n: number): string {
  return `${subject.name} with ${n} peers`
}
