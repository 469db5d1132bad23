/** Options without what would be there anyway: what is kept for later should say no more than somebody has said. */
import { isDeepStrictEqual } from 'node:util'
import { compileUpstream, toOptions } from '../../compile.js'
import type { Cluster, LevelOptions, ServerOptions, UpstreamOptions } from '../../config.js'

const DEFAULTS = toOptions(compileUpstream('', { servers: [] })) as Readonly<Record<string, unknown>>
const SERVER_DEFAULTS = { weight: 1, backup: false, down: false, drain: false, labels: {}, meta: undefined }
const INHERITED = ['maxFails', 'failTimeout', 'maxConns'] as const

/** Of options with every default written out. */
export function sparseOptions(options: UpstreamOptions): UpstreamOptions {
  const { cluster = [], ...settings } = options
  const said = Object.entries(settings).filter(([key, value]) => !isDeepStrictEqual(value, DEFAULTS[key]))
  return { ...Object.fromEntries(said), cluster: sparseCluster(cluster, options) }
}

/** Of levels of an upstream with these settings. */
export function sparseCluster(cluster: Cluster, settings: UpstreamOptions): Cluster {
  const inherited = Object.fromEntries(INHERITED.map((key) => [key, settings[key]]))
  const defaults: Readonly<Record<string, unknown>> = { ...SERVER_DEFAULTS, ...inherited }
  const server = (options: ServerOptions | string) => {
    if (typeof options === 'string') return options
    return Object.fromEntries(
      Object.entries(options).filter(([key, value]) => !isDeepStrictEqual(value, defaults[key])),
    )
  }
  const level = ({ servers }: LevelOptions): LevelOptions => ({ servers: servers.map(server) })
  if (Array.isArray(cluster)) return (cluster as readonly LevelOptions[]).map(level)
  return Object.fromEntries(Object.entries(cluster).map(([name, one]) => [name, level(one)]))
}
