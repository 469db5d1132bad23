/** The Consul that an nginx followed by nginx-upsync, followed by this process. */
import { ConfigError } from '../../errors.js'
import type { NginxUpsync } from '../nginx/upsync.js'
import type { Source, SourceOptions } from '../source.js'
import type { ConsulConnectionOptions } from './connection.js'
import { consulKv } from './kv.js'
import { consulServices } from './services.js'

/** Consul answers no ask later. */
const LONGEST_WAIT = 600_000

/**
 * The source of an upstream with an `upsync` directive, which `readNginx` of `checkups/nginx` gives: `upsync_timeout` is the
 * time that one ask may wait, `strong_dependency` is `required`. `upsync_interval`, the module's pause between two asks, is
 * not needed: an ask waits for the next change. A dump is nginx's; `snapshot` has its place here.
 *
 * @param key - the upstream's name
 * @throws `ConfigError` for etcd, and for a path that is none of Consul's
 */
export function consulFromUpsync(
  key: string,
  { address, path, type, timeout, strongDependency }: NginxUpsync,
  options: Omit<ConsulConnectionOptions, 'address' | 'addresses'> & SourceOptions = {},
): Source {
  const at = `upsync of ${key}`
  const wait = Math.min(timeout, LONGEST_WAIT)
  const followed = { required: strongDependency, ...options, address, wait }
  if (type === 'consul') {
    const [, prefix] = /^\/v1\/kv\/(.*[^/])\/*$/.exec(path) ?? []
    if (prefix === undefined) throw new ConfigError(at, `expected a path as /v1/kv/upstreams/${key}/, got ${path}`)
    return consulKv({ ...followed, name: `consul:${prefix} (${key})`, layout: 'upsync', prefix, upstream: key })
  }
  if (type === 'etcd') throw new ConfigError(at, 'etcd is not supported')
  const [, service] = /^\/v1\/(?:catalog|health)\/service\/([^/?]+)\/*$/.exec(path) ?? []
  if (service === undefined) throw new ConfigError(at, `expected a path as /v1/health/service/${key}, got ${path}`)
  const [source] = consulServices({ ...followed, services: { [key]: decodeURIComponent(service) } })
  return source!
}
