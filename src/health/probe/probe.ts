/** What all probes share: one kind of probe a file, each parses its own options. */
import type { ConnectOptions, Peer } from '../../upstream/peer.js'

/**
 * What a probe found of a peer: `ok`; `err`; or `unstable`, which is used only while none of the upstream is `ok` (a Redis
 * replica that has lost its master).
 */
export type ProbeStatus = 'ok' | 'unstable' | 'err'

/** What a probe has to say. */
export interface ProbeReport {
  /** Whether the peer can be used. */
  readonly status: ProbeStatus
  /** In words, for people: of an `err` what went wrong. */
  readonly message?: string | undefined
  /** What it learnt of the peer, for status: a version, a role. */
  readonly facts?: Readonly<Record<string, string | number | boolean>> | undefined
}

/** Where to probe: a peer, at its own address or at the one that the heartbeat's `host` and `port` say. */
export interface ProbeTarget {
  readonly peer: Peer
  /** IP address or host name; empty for a unix socket. */
  readonly host: string
  /** 0 for a unix socket. */
  readonly port: number
  readonly connect: ConnectOptions
}

export interface Probe {
  /**
   * Probes once. What rejects has failed, with the error's message. It must end, and leave no socket behind, when `signal`
   * is aborted: the scheduler keeps the deadline.
   */
  check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport>
  /** Ends what it keeps for a target that left: connections. */
  forget?(target: ProbeTarget): void
  /** Ends all that it keeps. */
  close?(): void
}

export interface ProbeEnv {
  /** Milliseconds since the Unix epoch. */
  wallTime(): number
}

/** One for every upstream. */
export type ProbeFactory = (env: ProbeEnv) => Probe

/** Checks a probe's options, `type` among them (those of the schedule are not), and compiles them. */
export type ParseProbe = (path: string, options: Record<string, unknown>) => ProbeFactory

export const PROBE_OK: ProbeReport = Object.freeze({ status: 'ok' })
