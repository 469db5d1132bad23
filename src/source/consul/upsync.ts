/** The layout of nginx-upsync: `<prefix>/<upstream>/<host:port>`, a key for a server. */
import { parseEndpoint } from '../../address.js'
import type { Cluster, ServerOptions, UpstreamOptions } from '../../config.js'
import { ConfigError } from '../../errors.js'
import type { Refused, SourceLists } from '../source.js'
import { folderOf, type KvEntry, type Layout } from './layout.js'
import { parseJson, parseWireServer, printWireServer, reasonOf, type WireServer } from './wire.js'

/** nginx-upsync's, which are not nginx's: what is not in the value is this, and not what it was before. */
const DEFAULTS = { weight: 1, maxFails: 2, failTimeout: 10_000 } as const

/** The servers below `prefix`: of one upstream, or of all that have a folder there. */
export function upsyncLayout(prefix: string, upstream?: string): Layout {
  const folder = folderOf(prefix)
  return { folder, parse: (entries) => parseUpsync(folder, upstream, entries) }
}

/**
 * Reads the value of a key of nginx-upsync's layout: JSON with `weight`, `max_fails`, `fail_timeout` (seconds), `down`,
 * `backup`, and with ours `max_conns`, `drain`, `labels`; empty for all defaults. Fields that are unknown are ignored.
 *
 * @throws `ConfigError`
 */
export function parseUpsyncValue(path: string, value: Buffer | null): WireServer {
  return { ...DEFAULTS, ...(value === null || value.length === 0 ? {} : parseWireServer(path, parseJson(path, value))) }
}

/** Writes what {@link parseUpsyncValue} reads. */
export function printUpsyncValue(server: WireServer): string {
  const fields = printWireServer(server)
  return Object.keys(fields).length === 0 ? '' : JSON.stringify(fields)
}

function parseUpsync(folder: string, only: string | undefined, entries: readonly KvEntry[]): SourceLists {
  const upstreams = new Map<string, Cluster | UpstreamOptions>()
  const servers = new Map<string, Map<string, ServerOptions>>()
  const refused: Refused[] = []
  const serversOf = (name: string) => {
    let found = servers.get(name)
    if (found === undefined) {
      found = new Map()
      servers.set(name, found)
      upstreams.set(name, [])
    }
    return found
  }
  if (only !== undefined) serversOf(only)
  for (const { key, value } of entries) {
    const names = key.slice(folder.length).split('/')
    const address = names.pop()!
    const [name] = only === undefined ? names : [only, ...names]
    if (name === undefined || name === '' || names.length !== (only === undefined ? 1 : 0)) {
      // A key that ends in a slash is a folder, which Consul's own pages make.
      if (address !== '' || name === undefined) refuse(key, address === '' ? undefined : 'no key of a server')
      continue
    }
    const known = serversOf(name)
    if (address === '') continue
    try {
      const endpoint = parseEndpoint(key, '', address)
      if (known.has(endpoint.address)) throw new ConfigError(key, `the same address as another key`)
      const { host, port } = endpoint
      known.set(endpoint.address, { host, port, ...parseUpsyncValue(key, value) })
    } catch (error) {
      refuse(key, reasonOf(error, key))
    }
  }
  for (const [name, list] of servers) upstreams.set(name, [{ servers: [...list.values()] }])
  return { upstreams, refused }

  function refuse(at: string, reason: string | undefined): void {
    if (reason !== undefined) refused.push({ at, reason })
  }
}
