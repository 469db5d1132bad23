/** What the upstreams of the source are made of: service records, or servers among whose hosts are names. */
import { isIP } from 'node:net'
import { parseEndpoint, tcpEndpoint } from '../../address.js'
import { array, expected, integer, oneOf, onlyKeys, record, string } from '../../check.js'
import { compileUpstream, isWhole, upstreamPath } from '../../compile.js'
import type { Cluster, ServerOptions, UpstreamOptions } from '../../config.js'
import { ConfigError } from '../../errors.js'
import type { LookupResult, LookupType } from './lookup.js'
import { domainName } from './message.js'

/** Which addresses of a name: of IPv4, of IPv6, or of both, if both are answered. */
export type DnsAddresses = 'A' | 'AAAA' | 'A+AAAA'

/** One name that says which servers an upstream has. */
export interface DnsName {
  /** What is asked for, whole: neither search domains nor `/etc/hosts` are looked at. */
  readonly name: string
  /** `SRV`: the service records of the name, the lowest priority as the first level. */
  readonly type: DnsAddresses | 'SRV'
  /** The port of every address; not with `SRV`, which says it itself. */
  readonly port?: number | undefined
  /** The weight of every address; not with `SRV`. Default 1. */
  readonly weight?: number | undefined
}

/** A server whose host may be a name that stands for several. */
export interface DnsServerOptions extends ServerOptions {
  /**
   * Whether the host, a name, is asked for, and each of its addresses is a server with these options. `true` is `'A+AAAA'`,
   * as nginx's `resolve`. Default false: the name is left to whoever connects.
   */
  readonly resolve?: boolean | DnsAddresses | undefined
}

/** A level of priority, or one of several named clusters. */
export interface DnsLevelOptions {
  /** Its servers; one address is there once, as the first one says. */
  readonly servers: readonly (DnsServerOptions | string)[]
}

/** Servers in levels, or named clusters. */
export type DnsCluster = readonly DnsLevelOptions[] | Readonly<Record<string, DnsLevelOptions>>

/** A whole configuration. */
export interface DnsUpstreamOptions extends Omit<UpstreamOptions, 'cluster' | 'servers'> {
  /** Levels or named clusters of servers. */
  readonly cluster?: DnsCluster | undefined
  /** Short for a cluster of one level. */
  readonly servers?: DnsLevelOptions['servers'] | undefined
}

/** One upstream: a name; or its servers, in levels or named clusters, or in a whole configuration. */
export type DnsUpstream = DnsName | DnsCluster | DnsUpstreamOptions

/** What is asked for. */
export interface Question {
  readonly name: string
  readonly type: LookupType
}

/** What a question was answered with last; undefined before. */
export type ResultOf = (question: Question) => LookupResult | undefined

/** An upstream, checked. */
export interface Wanted {
  readonly key: string
  /** What its servers depend on. */
  readonly questions: readonly Question[]
  /** All that is known to be its servers; undefined if there are none, but may be once more is known. */
  readonly toServers: (resultOf: ResultOf) => Cluster | UpstreamOptions | undefined
}

const NAME_KEYS = new Set(['name', 'type', 'port', 'weight'])
const ADDRESSES = ['A', 'AAAA', 'A+AAAA'] as const

/** @throws ConfigError */
export function compileDnsUpstream(key: string, value: unknown): Wanted {
  const path = `dns.${upstreamPath(key)}`
  if (Array.isArray(value)) return { key, ...compileServers(path, value) }
  const { name, type } = record(path, '', value)
  // A cluster may be named so too.
  return {
    key,
    ...(typeof (name ?? type) === 'string' ? compileName(path, value as object) : compileServers(path, value)),
  }
}

function compileName(path: string, value: object): Omit<Wanted, 'key'> {
  onlyKeys(path, value, NAME_KEYS)
  const { name, type, port, weight = 1 } = value as Record<string, unknown>
  const host = domainName(string(path, 'name', name))
  if (host === undefined || isIP(host) !== 0) throw expected(path, 'name', 'a domain name', name)
  const kind = oneOf(path, 'type', type, [...ADDRESSES, 'SRV'])
  if (kind !== 'SRV') {
    integer(path, 'port', port, 1, 65_535)
    integer(path, 'weight', weight, 0, 2 ** 31 - 1)
    return compileServers(path, [{ servers: [{ host, port, weight, resolve: kind }] }])
  }
  for (const option of ['port', 'weight']) {
    if ((value as Record<string, unknown>)[option] === undefined) continue
    throw new ConfigError(`${path}.${option}`, 'not with SRV, whose records say it')
  }
  const question = { name: host, type: kind }
  return {
    questions: [question],
    toServers: (resultOf) => resultOf(question)?.levels.map((servers) => ({ servers })),
  }
}

function compileServers(path: string, value: unknown): Omit<Wanted, 'key'> {
  const named = new Map<unknown, { question: Question; port: number }>()
  const plain = mapServers(path, value, (server, at) => {
    if (typeof server !== 'object' || server === null) return [server]
    const { resolve = false, ...options } = server as Record<string, unknown>
    if (resolve !== false) named.set(options, compileResolve(at, resolve, options))
    return [options]
  })
  compileUpstream(path, isWhole(plain) ? plain : { cluster: plain })
  const questions = [...named.values()].map(({ question }) => question)
  return {
    questions,
    toServers: (resultOf) => {
      let count = 0
      const servers = mapServers(path, plain, (server) => {
        const from = named.get(server)
        const found =
          from === undefined ? [server] : expand(server as ServerOptions, from.port, resultOf(from.question))
        count += found.length
        return found
      })
      return count === 0 && questions.some((question) => resultOf(question) === undefined)
        ? undefined
        : (servers as Cluster | UpstreamOptions)
    },
  }
}

function compileResolve(at: string, resolve: unknown, { host, port, path, address }: Record<string, unknown>) {
  const type = resolve === true ? 'A+AAAA' : ADDRESSES.find((addresses) => addresses === resolve)
  if (type === undefined) throw expected(at, 'resolve', 'true, false, "A", "AAAA" or "A+AAAA"', resolve)
  if (path !== undefined) throw new ConfigError(`${at}.resolve`, 'not with a unix socket')
  const endpoint =
    address === undefined ? tcpEndpoint(at, host, port) : parseEndpoint(at, 'address', string(at, 'address', address))
  const name = isIP(endpoint.host) === 0 ? domainName(endpoint.host) : undefined
  if (name === undefined)
    throw new ConfigError(`${at}.resolve`, `only with a domain name, not with ${endpoint.address}`)
  return { question: { name, type }, port: endpoint.port }
}

function expand(options: ServerOptions, port: number, result: LookupResult | undefined): ServerOptions[] {
  const { address: _address, ...rest } = options
  return (result?.levels.flat() ?? []).map(({ host }) => ({ ...rest, host, port }))
}

/** A cluster or a whole configuration with others in the place of each server. */
function mapServers(path: string, value: unknown, map: (server: unknown, at: string) => readonly unknown[]): unknown {
  const level = (at: string, options: unknown) => {
    const given = record(at, '', options)
    const servers = array(at, 'servers', given['servers']).flatMap((server, i) => map(server, `${at}.servers[${i}]`))
    return { ...given, servers }
  }
  const cluster = (at: string, levels: unknown) =>
    Array.isArray(levels)
      ? levels.map((options, i) => level(`${at}[${i}]`, options))
      : // fromEntries defines own properties: a cluster named __proto__ is one like any other.
        Object.fromEntries(
          Object.entries(record(at, '', levels)).map(([name, options]) => [
            name,
            level(`${at}[${JSON.stringify(name)}]`, options),
          ]),
        )
  if (!isWhole(value)) return cluster(`${path}.cluster`, value)
  if (value.servers !== undefined) return level(path, value)
  return { ...value, cluster: cluster(`${path}.cluster`, value.cluster) }
}
