/**
 * Prove what a policy does, in milliseconds and without sockets: virtual time, seeded chance, simulated peers and clients.
 * See {@link simulate}.
 *
 * @module checkups/testing
 */
export { quantile } from './latency.js'
export {
  between,
  constant,
  failing,
  limited,
  linear,
  refusing,
  sampled,
  silent,
  slowBetween,
  sometimes,
  type Answer,
  type Profile,
  type Response,
} from './profiles.js'
export { seededRandom } from './random.js'
export type {
  Ban,
  ClosedLoop,
  LatencySummary,
  Load,
  OpenLoop,
  PeerResult,
  Retries,
  Scenario,
  ScenarioPeer,
  ScriptStep,
  SimulationResult,
} from './scenario.js'
export { simulate } from './simulate.js'
export { SimulatedPeer, type SimulatedPeerOptions } from './simulated-peer.js'
export { VirtualClock, type VirtualTimer } from './virtual-clock.js'
