/** How simulated peers answer: ready-made profiles, and those that combine others. */
import { expected } from '../check.js'
import type { Random } from '../clock.js'

/** An answer that comes, or an end of the connection. */
export interface Answer {
  /** Milliseconds from the request to it; 0 or more. */
  readonly latency: number
  /** HTTP status. Default 200. */
  readonly status?: number | undefined
  /** No answer: the connection is `refused`, or `reset` after the latency. */
  readonly error?: 'refused' | 'reset' | undefined
}

/** What becomes of one request: an {@link Answer}, or nothing ever. */
export type Response = Answer | 'silent'

/**
 * How a peer answers a request that reaches it at `now`.
 *
 * @param now - milliseconds since the beginning of the scenario
 * @param inFlight - requests at the peer, this one included
 * @param random - the peer's own generator; draw from no other
 */
export type Profile = (now: number, inFlight: number, random: Random) => Response

/** Always the same latency, in milliseconds. */
export function constant(ms: number): Profile {
  const answer: Answer = { latency: ms }
  return () => answer
}

/** One of these latencies (milliseconds), each as likely as another: measured ones, say. */
export function sampled(latencies: ArrayLike<number>): Profile {
  if (!(latencies.length > 0)) throw expected('sampled', 'latencies', 'at least one number', latencies)
  return (_now, _inFlight, random) => ({ latency: latencies[Math.floor(random() * latencies.length)]! })
}

/**
 * Slower the busier: base · (1 + in flight / capacity) milliseconds, and 5 · base above the capacity. That is the model of
 * palantir/dialogue's simulations (`SimulationServer.linearResponseTime`).
 *
 * @param base - milliseconds when idle
 * @param capacity - requests in flight at which the latency has doubled
 */
export function linear(base: number, capacity: number): Profile {
  return (_now, inFlight) => ({ latency: inFlight > capacity ? 5 * base : base + (base * inFlight) / capacity })
}

/**
 * An error status for every request.
 *
 * @param ms - its latency in milliseconds, or a profile that has the latencies. Default 0.
 */
export function failing(status: number, ms: number | Profile = 0): Profile {
  const profile = typeof ms === 'number' ? constant(ms) : ms
  return mapped(profile, (answer) => ({ ...answer, status }))
}

/** Nobody listens: every connection is refused, `ms` milliseconds later. Default 0. */
export function refusing(ms = 0): Profile {
  const answer: Answer = { latency: ms, error: 'refused' }
  return () => answer
}

/** Takes requests and never answers. */
export function silent(): Profile {
  return () => 'silent'
}

/**
 * One profile for requests that arrive from `from` (included) to `to` (excluded), in milliseconds of the scenario; another
 * for all others.
 */
export function between(from: number, to: number, profile: Profile, otherwise: Profile): Profile {
  return (now, inFlight, random) => (now >= from && now < to ? profile : otherwise)(now, inFlight, random)
}

/** The latencies of `profile`, times `factor` for requests that arrive from `from` (included) to `to` (excluded). */
export function slowBetween(profile: Profile, from: number, to: number, factor: number): Profile {
  const slow = mapped(profile, (answer) => ({ ...answer, latency: answer.latency * factor }))
  return between(from, to, slow, profile)
}

/** One profile for a share of the requests, from 0 to 1 and by chance; another for the others. */
export function sometimes(share: number, profile: Profile, otherwise: Profile): Profile {
  return (now, inFlight, random) => (random() < share ? profile : otherwise)(now, inFlight, random)
}

/**
 * A peer that protects itself: above `capacity` requests in flight it answers by another profile.
 *
 * @param over - default: status 429 at once
 */
export function limited(capacity: number, profile: Profile, over: Profile = failing(429)): Profile {
  return (now, inFlight, random) => (inFlight > capacity ? over : profile)(now, inFlight, random)
}

function mapped(profile: Profile, change: (answer: Answer) => Answer): Profile {
  return (now, inFlight, random) => {
    const response = profile(now, inFlight, random)
    return response === 'silent' ? response : change(response)
  }
}
