/** Changes of single servers: each makes the cluster as it is to be, for the checkers to compile like any other. */
import { onlyKeys, record } from '../check.js'
import { serverOptions, toCluster } from '../compile.js'
import type { Cluster, ServerConfig, ServerOptions, UpstreamConfig } from '../config.js'
import { ConfigError, UnknownPeerError } from '../errors.js'
import { parseEndpoint } from '../address.js'
import type { Peer } from './peer.js'
import { addressOf, type PeerAddress } from './selection.js'

/** What `setServer` can change of a server. */
export interface ServerChange {
  /** See {@link ServerOptions.weight}; of all its entries. */
  readonly weight?: number | undefined
  /** See {@link ServerOptions.down}. */
  readonly down?: boolean | undefined
  /** See {@link ServerOptions.drain}. */
  readonly drain?: boolean | undefined
  /** See {@link ServerDefaults.maxConns}. */
  readonly maxConns?: number | undefined
  /** See {@link ServerDefaults.maxFails}. */
  readonly maxFails?: number | undefined
  /** See {@link ServerDefaults.failTimeout}. */
  readonly failTimeout?: number | undefined
}

/** A server by its address (`'10.0.0.1:80'`), by host and port, or by its peer. */
export type ServerTarget = string | PeerAddress | Peer

const CHANGE_KEYS = new Set(['weight', 'down', 'drain', 'maxConns', 'maxFails', 'failTimeout'])

/** The canonical address of a target. */
export function targetAddress(target: ServerTarget): string {
  return typeof target === 'string' ? parseEndpoint('address', '', target).address : addressOf(target)
}

/** With one server more, at the end of a level: the named one, or the first. */
export function withServer(
  path: string,
  config: UpstreamConfig,
  server: ServerOptions | string,
  level?: string,
): Cluster {
  if (level === undefined && config.levels.length === 0) return [{ servers: [server] }]
  const name = level ?? config.levels[0]?.name
  if (!config.levels.some((other) => other.name === name))
    throw new ConfigError(path, `no level ${JSON.stringify(level)}`)
  return toCluster(config, (at) => [...at.servers.map(serverOptions), ...(at.name === name ? [server] : [])])
}

/** Without a server, in whatever levels it is. */
export function withoutServer(key: string, config: UpstreamConfig, address: string): Cluster {
  mustHave(key, config, address)
  return toCluster(config, ({ servers }) => servers.filter((server) => !isAt(address)(server)).map(serverOptions))
}

/** With a server changed, in whatever levels it is. */
export function withChange(key: string, config: UpstreamConfig, address: string, change: ServerChange): Cluster {
  onlyKeys('change', record('change', '', change), CHANGE_KEYS)
  mustHave(key, config, address)
  // An option that is given as undefined stays as it is.
  const given = Object.fromEntries(Object.entries(change).filter(([, value]) => value !== undefined))
  return toCluster(config, ({ servers }) =>
    servers.map((server) => ({ ...serverOptions(server), ...(isAt(address)(server) ? given : {}) })),
  )
}

const isAt = (address: string) => (server: ServerConfig) => server.endpoint.address === address

function mustHave(key: string, { levels }: UpstreamConfig, address: string): void {
  if (!levels.some(({ servers }) => servers.some(isAt(address)))) throw new UnknownPeerError(key, address)
}
