/** What the benchmark and its clients say to each other. */

/** A task of a client: to ask these ports of 127.0.0.1 for some seconds. */
export interface Task {
  readonly ports: readonly number[]
  readonly seconds: number
  /** Milliseconds until the head of an answer, after which the next one is asked or the request fails; 0 = the default. */
  readonly patience: number
}

/** What came of it. */
export interface Figures {
  /** Requests a second, those that failed too. */
  readonly rate: number
  /** Milliseconds, of all of them. */
  readonly p50: number
  readonly p99: number
  /** Microseconds of the client's core for a request. */
  readonly processor: number
  /** Of 10,000 requests: those without an answer, or with another status than 200. */
  readonly failed: number
}
