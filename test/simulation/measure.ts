/** Runs experiments, means of five seeds. */
import type { BalancerOption } from '../../src/index.js'
import { simulate } from '../../src/testing/index.js'
import { BALANCERS, EXPERIMENTS, type BalancerName, type Experiment, type ExperimentName } from './scenarios.js'

export const SEEDS = [1, 2, 3, 4, 5] as const

/** Means over the seeds. Milliseconds; shares from 0 to 1. */
export interface Figures {
  readonly ok: number
  /** Requests that were not ok: failed, too slow, or without an answer. */
  readonly failed: number
  readonly mean: number
  readonly p97: number
  readonly p99: number
  readonly p999: number
  readonly attempts: number
}

export type Results = Readonly<Record<ExperimentName, Readonly<Record<BalancerName, Figures>>>>

export function measure({ scenario }: Experiment, balancer: BalancerOption, passiveHealth: boolean): Figures {
  const upstream = passiveHealth ? {} : { maxFails: 0 }
  const runs = SEEDS.map((seed): Figures => {
    const { successRate, requests, ok, attempts, latency } = simulate({ ...scenario, balancer, upstream, seed })
    const { mean, p97, p99, p999 } = latency
    return { ok: successRate, failed: requests - ok, mean, p97, p99, p999, attempts }
  })
  const average = (of: keyof Figures) => runs.reduce((sum, figures) => sum + figures[of], 0) / runs.length
  return {
    ok: average('ok'),
    failed: average('failed'),
    mean: average('mean'),
    p97: average('p97'),
    p99: average('p99'),
    p999: average('p999'),
    attempts: average('attempts'),
  }
}

/** Every experiment with every balancer. */
export function measureAll(passiveHealth: boolean): Results {
  return mapValues(EXPERIMENTS, (experiment) =>
    mapValues(BALANCERS, (balancer) => measure(experiment, balancer, passiveHealth)),
  )
}

function mapValues<K extends string, V, W>(object: Readonly<Record<K, V>>, change: (value: V) => W): Record<K, W> {
  return Object.fromEntries(Object.entries<V>(object).map(([key, value]) => [key, change(value)])) as Record<K, W>
}
