/** What is measured of heartbeats. */
export const PEERS = 10_000
/** Milliseconds. */
export const INTERVAL = 5_000
/** Milliseconds. A shorter one would count more of the calm between two delays, and cost more itself. */
export const RESOLUTION = 10

/** What was measured after a warm-up of one interval, over four. */
export interface Figures {
  /** A second. */
  readonly checks: number
  /** Percent of a core, of all threads of the process; `system` includes the other side's half of a loopback connection. */
  readonly user: number
  readonly system: number
  /** Milliseconds between two calls of a timer of {@link RESOLUTION}. */
  readonly p99: number
  readonly longest: number
  /** Bytes. */
  readonly rss: number
  readonly heap: number
  /** Bytes that the heap has grown by meanwhile. */
  readonly growth: number
  /** Of heartbeats, milliseconds. */
  readonly lag: number | undefined
}
