/** Runs a scenario: real `Checkups` instances, simulated time, chance, peers and clients. */
import { parseEndpoint } from '../address.js'
import { expected, integer, milliseconds, onlyKeys, record } from '../check.js'
import { Checkups } from '../checkups.js'
import type { Random } from '../clock.js'
import type { UpstreamOptions } from '../config.js'
import type { UpstreamHandle } from '../upstream/handle.js'
import { Call, type Run } from './client.js'
import { summarize } from './latency.js'
import { seededStreams } from './random.js'
import type { Ban, Scenario, ScenarioPeer, SimulationResult } from './scenario.js'
import { SimulatedPeer } from './simulated-peer.js'
import { VirtualClock } from './virtual-clock.js'

const KEY = 'simulated'
const SCENARIO_KEYS = new Set(
  'peers balancer upstream load duration grace timeout okWithin okStatus retries instances hashKey script seed'.split(
    ' ',
  ),
)

/**
 * Plays a scenario to its end in virtual time, without promises: a minute at 1,000 requests a second takes a part of one
 * second. What a policy of yours throws, this throws.
 *
 * @example
 * ```ts
 * const result = simulate({
 *   peers: [constant(20), constant(20), slowBetween(constant(20), 5_000, 15_000, 50)],
 *   balancer: 'fastest-first',
 *   upstream: { maxFails: 0 },
 *   load: { rate: 300 },
 *   duration: 20_000,
 *   okWithin: 500,
 * })
 * assert(result.successRate > 0.99)
 * ```
 * @throws ConfigError for a scenario or upstream that is not as described
 */
export function simulate(scenario: Scenario): SimulationResult {
  check(scenario)
  const clock = new VirtualClock()
  const stream = seededStreams(scenario.seed ?? 1)
  // In this order, so that adding peers or instances changes no more than it must.
  const policyRandom = stream()
  const clientRandom = stream()
  const chooser = stream()
  const servers = scenario.peers.map(toScenarioPeer)
  const peers = new Map(
    servers.map(({ address, profile }) => [address, new SimulatedPeer({ address, profile, clock, random: stream() })]),
  )
  if (peers.size < servers.length) throw expected('scenario', 'peers', 'addresses that differ', [...peers.keys()])
  const run: Run = {
    scenario,
    clock,
    peers,
    random: clientRandom,
    tally: { requests: 0, ok: 0, unserved: 0, attempts: 0, open: 0, latencies: [] },
  }
  const thrown: unknown[] = []
  const bans: Ban[] = []
  const instances = Array.from({ length: scenario.instances ?? 1 }, (_, instance) => {
    const upstream = upstreamOptions(scenario, servers)
    const checkups = new Checkups({ upstreams: { [KEY]: upstream }, clock, random: policyRandom })
    checkups.on('error', ({ error }) => void thrown.push(error))
    recordBans(checkups, instance, clock, bans)
    return checkups
  })
  for (const { at, run: act } of scenario.script ?? []) {
    clock.at(at, () => instances.forEach((checkups, instance) => void act(checkups, instance)))
  }
  startClients(
    run,
    instances.map((checkups) => checkups.upstream(KEY)),
    chooser,
  )
  const end = scenario.duration + (scenario.grace ?? Infinity)
  clock.advanceSync(scenario.duration)
  while (run.tally.open > 0 && thrown.length === 0 && clock.step(end));
  for (const checkups of instances) void checkups.close()
  if (thrown.length > 0) throw thrown[0]
  return toResult(run, bans)
}

function check(scenario: Scenario): void {
  onlyKeys('scenario', record('scenario', '', scenario), SCENARIO_KEYS)
  const { peers, load, duration, grace = 0, timeout = 0, okWithin = 0, instances = 1, seed = 1 } = scenario
  if (!Array.isArray(peers) || peers.length === 0) throw expected('scenario', 'peers', 'at least one peer', peers)
  milliseconds('scenario', 'duration', duration)
  milliseconds('scenario', 'grace', grace)
  milliseconds('scenario', 'timeout', timeout)
  milliseconds('scenario', 'okWithin', okWithin)
  integer('scenario', 'instances', instances, 1, 100_000)
  integer('scenario', 'seed', seed, Number.MIN_SAFE_INTEGER, Number.MAX_SAFE_INTEGER)
  if ('rate' in load) {
    if (!(load.rate > 0 && Number.isFinite(load.rate))) {
      throw expected('scenario', 'load.rate', 'requests per second, above 0', load.rate)
    }
  } else {
    integer('scenario', 'load.clients', load.clients, 1, 1_000_000)
    milliseconds('scenario', 'load.think', load.think ?? 0)
  }
}

function toScenarioPeer(peer: Scenario['peers'][number], index: number): ScenarioPeer & { address: string } {
  const options = typeof peer === 'function' ? { profile: peer } : peer
  const nth = index + 1
  const { address = `10.${nth >> 16}.${(nth >> 8) & 255}.${nth & 255}:80` } = options
  return { ...options, address: parseEndpoint(`scenario.peers[${index}]`, 'address', address).address }
}

function upstreamOptions({ upstream, balancer }: Scenario, servers: readonly ScenarioPeer[]): UpstreamOptions {
  const own = upstream?.servers !== undefined || upstream?.cluster !== undefined
  return {
    ...(own ? {} : { servers: servers.map(({ profile: _profile, ...server }) => server) }),
    ...upstream,
    ...(balancer === undefined ? {} : { balancer }),
  }
}

function recordBans(checkups: Checkups, instance: number, clock: VirtualClock, bans: Ban[]): void {
  const running = new Map<string, number>()
  checkups.on('peer:down', ({ peer }) => {
    running.set(peer.address, bans.length)
    bans.push({ instance, peer: peer.address, from: clock.now(), to: Infinity })
  })
  checkups.on('peer:up', ({ peer }) => {
    const index = running.get(peer.address)
    if (index !== undefined) bans[index] = { ...bans[index]!, to: clock.now() }
    running.delete(peer.address)
  })
}

function startClients(run: Run, upstreams: readonly UpstreamHandle[], chooser: Random): void {
  const { clock, scenario } = run
  const { load, duration } = scenario
  if ('rate' in load) {
    const choose = () => upstreams[upstreams.length === 1 ? 0 : Math.floor(chooser() * upstreams.length)]!
    const arrive = (n: number) => {
      const at = (n * 1000) / load.rate
      if (at >= duration) return
      clock.at(at, () => {
        new Call(run, choose())
        arrive(n + 1)
      })
    }
    return arrive(0)
  }
  const { think = 0 } = load
  for (let client = 0; client < load.clients; client++) {
    const upstream = upstreams[client % upstreams.length]!
    const next = (wait: number) => {
      if (clock.now() + wait >= duration) return
      // Without a pause, requests that end at once would keep the clock from going on.
      clock.setTimeout(() => new Call(run, upstream, (took) => next(took + think > 0 ? think : 1)), wait)
    }
    next(0)
  }
}

function toResult({ tally, peers }: Run, bans: readonly Ban[]): SimulationResult {
  const { requests, ok, unserved, attempts } = tally
  const latencies = Float64Array.from(tally.latencies).sort()
  const each = Array.from(peers.values(), (peer) => ({
    address: peer.address,
    requests: peer.requests,
    share: attempts === 0 ? 0 : peer.requests / attempts,
    responses: peer.responses,
  }))
  return {
    requests,
    ok,
    successRate: ok / requests,
    unended: requests - latencies.length,
    unserved,
    attempts,
    responses: each.reduce((sum, { responses }) => sum + responses, 0),
    latency: summarize(latencies),
    latencies,
    peers: each,
    bans,
  }
}
