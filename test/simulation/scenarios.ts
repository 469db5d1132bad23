/** Published experiments with balancers, as data, and the balancers that go through them. */
import type { BalancerOption } from '../../src/index.js'
import {
  between,
  constant,
  failing,
  linear,
  sampled,
  silent,
  slowBetween,
  type Retries,
  type Scenario,
} from '../../src/testing/index.js'
import { LATENCIES } from './latencies.js'

/** A scenario without a policy, and what to say of it. */
export interface Experiment {
  readonly name: string
  /** Markdown. */
  readonly text: string
  /** What its picture shows: requests not ok, or the mean latency. */
  readonly picture: 'failed' | 'mean'
  readonly scenario: Scenario
}

export const BALANCERS = {
  wrr: 'wrr',
  'least-connections (all)': { type: 'least-connections', choices: 'all' },
  'least-connections (2)': { type: 'least-connections', choices: 2 },
  'random (1)': { type: 'random', choices: 1 },
  'random (2)': { type: 'random', choices: 2 },
  'fastest-first': 'fastest-first',
  'pick-first': 'pick-first',
  'consistent-hash (ketama)': { type: 'consistent-hash', hash: 'ketama' },
  'local-first': { type: 'local-first', rings: [{ subnets: ['10.0.0.0/8'] }] },
} as const satisfies Record<string, BalancerOption>

export type BalancerName = keyof typeof BALANCERS

/** For the policy that hashes; no other looks at it. Drawn from no generator, so that it changes nothing else. */
const hashKey = (request: number) => `key ${request}`

/** Dialogue's clients: 10 that know nothing of each other, and send a 429 or 503 again up to four times, to anybody. */
const retries: Retries = {
  count: 4,
  statuses: [429, 503],
  exclude: false,
  backoff: (attempt, random) => random() * 250 * 2 ** (attempt - 1),
}

const slowLatencies = slowBetween(sampled(LATENCIES), 15_000, 45_000, 10)

export const EXPERIMENTS = {
  beyondRoundRobin: {
    name: 'Beyond Round Robin (Linkerd, 2016)',
    text:
      'Eleven servers whose latencies are sampled from production (median 167 ms), one client, 1,000 requests a second ' +
      'for 60 s. From 15 s to 45 s one server takes ten times as long. Ok is what took less than 1 s.',
    picture: 'failed',
    scenario: {
      peers: [slowLatencies, ...Array.from({ length: 10 }, () => sampled(LATENCIES))],
      load: { rate: 1000 },
      duration: 60_000,
      okWithin: 1000,
      hashKey,
    },
  },
  simplest: {
    name: 'simplest_possible_case (dialogue)',
    text: 'Three servers that take 600, 800 and 1,000 ms; 11 requests a second for 20 minutes.',
    picture: 'mean',
    scenario: {
      peers: [constant(600), constant(800), constant(1000)],
      load: { rate: 11 },
      duration: 20 * 60_000,
      instances: 10,
      retries,
      hashKey,
    },
  },
  slow503s: {
    name: 'slow_503s_then_revert (dialogue)',
    text:
      'Two servers that take 60 ms when idle and twice that at 60 requests in flight; from 3 s to 10 s one answers 503, ' +
      'after 1 s when idle. 200 requests a second for 15 s.',
    picture: 'mean',
    scenario: {
      peers: [between(3000, 10_000, failing(503, linear(1000, 60)), linear(60, 60)), linear(60, 60)],
      load: { rate: 200 },
      duration: 15_000,
      instances: 10,
      retries,
      hashKey,
    },
  },
  fast503s: {
    name: 'fast_503s_then_revert (dialogue)',
    text: 'Two servers that take 120 ms; from 3 s to 60 s one answers 503 at once. 500 requests a second for 90 s.',
    picture: 'failed',
    scenario: {
      peers: [between(3000, 60_000, failing(503), constant(120)), constant(120)],
      load: { rate: 500 },
      duration: 90_000,
      instances: 10,
      retries,
      hashKey,
    },
  },
  blackHole: {
    name: 'black_hole (dialogue)',
    text:
      'Two servers that take 600 ms; from 3 s on one never answers, and no client ever gives up. 200 requests a second ' +
      'for 10 s. Latencies are those of requests that were answered.',
    picture: 'failed',
    scenario: {
      peers: [between(3000, Infinity, silent(), constant(600)), constant(600)],
      load: { rate: 200 },
      duration: 10_000,
      instances: 10,
      retries,
      hashKey,
    },
  },
} as const satisfies Record<string, Experiment>

export type ExperimentName = keyof typeof EXPERIMENTS
