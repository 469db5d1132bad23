/** Two ends that send messages to each other, in order, until one of them is gone. */

/** One end. */
export interface Link {
  /** Sends; to an end that is gone, nothing happens. */
  send(message: unknown): void
  /** Called with every message. */
  onMessage: ((message: unknown) => void) | undefined
  /** Called once, when the other end is gone. */
  onClose: (() => void) | undefined
  /** Ends it. */
  close(): void
}

/** What others connect to. */
export interface Hub {
  /** Called with every end that comes. */
  onLink: ((link: Link) => void) | undefined
  close(): void
}

/** In channels that carry other messages as well, ours are told by this: of an instance by its name. */
const MARK = 'checkups:sync'

interface Marked {
  readonly [MARK]: string
  readonly message: unknown
}

export const mark = (name: string, message: unknown): Marked => ({ [MARK]: name, message })

/** Undefined if it is somebody else's. */
export function unmark(name: string, raw: unknown): { readonly message: unknown } | undefined {
  if (typeof raw !== 'object' || raw === null || (raw as Partial<Marked>)[MARK] !== name) return undefined
  return { message: (raw as Marked).message }
}
