/** The servers of an upstream as nginx's modules list them. */
import { serverAddress } from '../../../compile.js'
import type { Cluster, LevelOptions, ServerOptions, UpstreamOptions } from '../../../config.js'

/** A server of a level, every default written out. */
export interface Listed {
  readonly address: string
  readonly server: ServerOptions
  /** nginx has one other level: whatever comes after the first is its backup. */
  readonly backup: boolean
}

/** A cluster, or something like one, with other servers in its levels. */
export function mapServers<T>(
  cluster: Cluster,
  map: (servers: readonly ServerOptions[]) => readonly T[],
): readonly { servers: readonly T[] }[] | Readonly<Record<string, { servers: readonly T[] }>> {
  const level = ({ servers }: LevelOptions) => ({ servers: map(servers as readonly ServerOptions[]) })
  if (Array.isArray(cluster)) return (cluster as readonly LevelOptions[]).map(level)
  return Object.fromEntries(Object.entries(cluster).map(([name, one]) => [name, level(one)]))
}

/** All servers of a configuration with every default written out, level by level. */
export function listServers({ cluster = [] }: UpstreamOptions): readonly Listed[] {
  return Object.values(cluster).flatMap(({ servers }: LevelOptions, level) =>
    (servers as readonly ServerOptions[]).map((server) => ({
      address: serverAddress('server', server),
      server,
      backup: level > 0 || server.backup === true,
    })),
  )
}

/** `weight=… max_fails=… fail_timeout=…`, the latter in seconds, as all of them have it. */
export function parametersOf({ weight, maxFails, failTimeout }: ServerOptions, unit: '' | 's'): string {
  return `weight=${weight ?? 1} max_fails=${maxFails ?? 0} fail_timeout=${seconds(failTimeout)}${unit}`
}

export const seconds = (ms = 0): number => ms / 1_000

/** Whatever a name or a path has in it, it is one word in one line of a list. */
export function oneLine(text: string): string {
  return text.replace(/[\p{Cc}\u2028\u2029]/gu, '?')
}
