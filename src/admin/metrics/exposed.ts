/**
 * A metric as a register of prom-client asks for it. prom-client's own ones find a value by a string made of its labels, at
 * every `inc`, and take `peer="a,upstream:b"` of one upstream for `peer="a"` of another; here values are counted elsewhere
 * and handed over when they are asked for.
 */
import type { Metric, OpenMetricsContentType, Registry } from 'prom-client'
import { ConfigError } from '../../errors.js'
import type { Definition, Look } from './catalogue.js'
import type { Labels } from './counts.js'

/** A register of prom-client, in either format. */
export type MetricsRegister = Registry | Registry<OpenMetricsContentType>

/** One instance whose values a metric shows. */
export interface Shown {
  /** Of the label `checkups`; undefined: no label. */
  readonly name: string | undefined
  /** The same one for all metrics of one scrape. */
  look(): Look
  reset(): void
}

interface Value {
  readonly labels: Readonly<Record<string, string | number>>
  /** Beside those; what is the same object is written out once, however often. */
  readonly sharedLabels: Labels
  readonly value: number
  readonly metricName: string
}

/** What a register makes its text of. */
interface Values extends Pick<ExposedMetric, 'name' | 'type' | 'help' | 'aggregator'> {
  readonly values: readonly Omit<Value, 'sharedLabels'>[]
}

export class ExposedMetric {
  /** In the format of OpenMetrics prom-client takes the `_total` off it, and writes it again itself. */
  name: string
  readonly type: Definition['type']
  readonly help: string
  readonly aggregator: Definition['aggregator']
  readonly #definition: Definition
  /** By name. */
  readonly #shown = new Map<string | undefined, Shown>()

  constructor(name: string, definition: Definition) {
    this.name = name
    this.type = definition.type
    this.help = definition.help
    this.aggregator = definition.aggregator
    this.#definition = definition
  }

  /** What a register asks for, to make a text of it. */
  async getForPromString(): Promise<Values> {
    return this.#withValues(this.#values())
  }

  /** What a register asks for otherwise. */
  async get(): Promise<Values> {
    const values = this.#values()
    return this.#withValues(
      values.map(({ labels, sharedLabels, ...value }) => ({ ...value, labels: { ...labels, ...sharedLabels } })),
    )
  }

  #withValues(values: Values['values']): Values {
    const { name, type, help, aggregator } = this
    return { name, type, help, aggregator, values }
  }

  #values(): Value[] {
    const values: Value[] = []
    for (const shown of this.#shown.values()) {
      const own = shown.name === undefined ? {} : { checkups: shown.name }
      this.#definition.collect(shown.look(), (value, sharedLabels, suffix, bound) => {
        const labels = bound === undefined ? own : { ...own, le: bound === Infinity ? '+Inf' : bound }
        values.push({ labels, sharedLabels, value, metricName: this.name + (suffix ?? '') })
      })
    }
    return values
  }

  /** What `register.resetMetrics` asks for. */
  reset(): void {
    for (const shown of this.#shown.values()) shown.reset()
  }

  /**
   * Shows an instance by a metric of this name, which others may share.
   *
   * @throws ConfigError
   */
  static show(register: MetricsRegister, name: string, definition: Definition, shown: Shown): void {
    const there: unknown = register.getSingleMetric(name)
    const metric = there ?? new ExposedMetric(name, definition)
    if (!(metric instanceof ExposedMetric)) {
      throw new ConfigError('metrics.prefix', `expected another one: the register has its own ${name}`)
    }
    if (metric.#shown.has(shown.name)) {
      const whose = shown.name === undefined ? 'without a name' : `named ${JSON.stringify(shown.name)}`
      throw new ConfigError('metrics.name', `expected another one: the register shows an instance ${whose} already`)
    }
    metric.#shown.set(shown.name, shown)
    if (there === undefined) register.registerMetric(metric as unknown as Metric)
  }

  /** The last one who is hidden takes the metric with it. */
  static hide(register: MetricsRegister, name: string, shown: Shown): void {
    const metric: unknown = register.getSingleMetric(name)
    if (!(metric instanceof ExposedMetric) || metric.#shown.get(shown.name) !== shown) return
    metric.#shown.delete(shown.name)
    if (metric.#shown.size === 0) register.removeSingleMetric(name)
  }
}
