/** A peer without a socket. */
import type { Clock, Random } from '../clock.js'
import type { Answer, Profile } from './profiles.js'

/** What a {@link SimulatedPeer} is made of. */
export interface SimulatedPeerOptions {
  /** As `peer.address` has it: `10.0.0.1:80`. */
  readonly address: string
  /** How it answers. */
  readonly profile: Profile
  /** Where its time comes from: a virtual clock. */
  readonly clock: Clock
  /** Where its chance comes from; its own, so that others do not change what it does. */
  readonly random: Random
}

/** Answers requests by a {@link Profile}, in virtual time. {@link simulate} makes its own; a test may use one directly. */
export class SimulatedPeer {
  /** Its address. */
  readonly address: string
  readonly #options: SimulatedPeerOptions
  #inFlight = 0
  #requests = 0
  #responses = 0

  constructor(options: SimulatedPeerOptions) {
    this.address = options.address
    this.#options = options
  }

  /** Requests that it has and has not answered. */
  get inFlight(): number {
    return this.#inFlight
  }

  /** Requests that have reached it. */
  get requests(): number {
    return this.#requests
  }

  /** Answers with a status that it has given, whether or not the client still waited. */
  get responses(): number {
    return this.#responses
  }

  /**
   * Sends it a request. A client that stops waiting leaves it working, as servers do; one that it will never answer is to be
   * taken back by {@link hangUp}.
   *
   * @param onAnswer - called when the clock comes to the answer, never before this returns
   * @returns whether there will be an answer
   */
  request(onAnswer: (answer: Answer) => void): boolean {
    const { clock, profile, random } = this.#options
    this.#requests++
    this.#inFlight++
    const response = profile(clock.now(), this.#inFlight, random)
    if (response === 'silent') return false
    clock.setTimeout(() => {
      this.#inFlight--
      if (response.error === undefined) this.#responses++
      onAnswer(response)
    }, response.latency)
    return true
  }

  /** The client of a request that stays without an answer has closed its connection. */
  hangUp(): void {
    this.#inFlight--
  }
}
