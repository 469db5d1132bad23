/** What has happened, the last so many: for streams that were interrupted, and for pages that come later. */
import type { Checkups } from '../checkups.js'
import type { CheckupsEvents } from '../events.js'
import type { AuditEvent } from './audit.js'
import { describe, type Json } from './lib/describe.js'

/** Minutes of a busy hour; what is older is in a log. */
const KEPT = 1_000

const NAMES = [
  'upstream:update',
  'upstream:delete',
  'peer:down',
  'peer:up',
  'peer:drained',
  'source:error',
  'source:up',
] as const

/** Something that has happened. */
export interface JournalEntry {
  /** Grows by one. */
  readonly id: number
  readonly type: string
  /** Milliseconds since the Unix epoch. */
  readonly at: number
  /** As JSON: peers by their addresses, errors by their messages. */
  readonly data: { readonly [name: string]: Json }
}

export class Journal {
  readonly #checkups: Checkups
  readonly #entries: JournalEntry[] = []
  readonly #listeners = new Set<(entry: JournalEntry) => void>()
  readonly #unsubscribe: (() => void)[]
  #last = 0

  constructor(checkups: Checkups) {
    this.#checkups = checkups
    this.#unsubscribe = NAMES.map((name) => this.#follow(name))
  }

  /** The last ones, oldest first. */
  get entries(): readonly JournalEntry[] {
    return this.#entries
  }

  /** The id of the last one; 0 before. */
  get last(): number {
    return this.#last
  }

  /** What came after that one; undefined if some of it is not known any more. */
  since(id: number): readonly JournalEntry[] | undefined {
    if (id > this.#last || this.#last - id > this.#entries.length) return undefined
    return id === this.#last ? [] : this.#entries.slice(id - this.#last)
  }

  record(event: AuditEvent | CheckupsEvents[(typeof NAMES)[number]]): void {
    const data = describe(plain(event)) as JournalEntry['data']
    const entry = { id: ++this.#last, type: event.type, at: event.at, data }
    this.#entries.push(entry)
    if (this.#entries.length > KEPT) this.#entries.shift()
    for (const listener of this.#listeners) listener(entry)
  }

  /** Calls `listener` with everything from now on; what it returns ends that. */
  listen(listener: (entry: JournalEntry) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  close(): void {
    for (const end of this.#unsubscribe) end()
    this.#listeners.clear()
  }

  #follow(name: (typeof NAMES)[number]): () => void {
    const listener = (event: CheckupsEvents[typeof name]) => this.record(event)
    this.#checkups.on(name, listener)
    return () => this.#checkups.off(name, listener)
  }
}

function plain(event: object): object {
  return Object.fromEntries(
    Object.entries(event).map(([name, value]: [string, unknown]) => {
      if (name === 'peer') return [name, String(value)]
      if (name === 'error') return [name, value instanceof Error ? value.message : String(value)]
      return [name, Array.isArray(value) && name !== 'refused' ? value.map(String) : value]
    }),
  )
}
