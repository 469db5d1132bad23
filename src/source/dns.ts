/** Upstreams from DNS: addresses or service records, asked for again when their time to live is over. */
import { getServers } from 'node:dns'
import { setMaxListeners } from 'node:events'
import { isIP } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import { parseEndpoint } from '../address.js'
import { array, expected, integer, milliseconds, oneOf, onlyKeys, record, string } from '../check.js'
import { systemRandom } from '../clock.js'
import { upstreamPath } from '../compile.js'
import type { LevelOptions } from '../config.js'
import { ConfigError } from '../errors.js'
import { untilAborted } from '../optional.js'
import type { NameServer } from './dns/exchange.js'
import { Lookup, type LookupResult, type LookupType } from './dns/lookup.js'
import { domainName } from './dns/message.js'
import { Resolver } from './dns/resolver.js'
import { backOff } from './pace.js'
import { SOURCE_OPTIONS, type Refused, type Source, type SourceContext, type SourceLists } from './source.js'
import type { SourceOptions } from './source.js'

/** One upstream of {@link dns}: the name that says which servers it has. */
export interface DnsUpstream {
  /** What is asked for, whole: neither search domains nor `/etc/hosts` are looked at. */
  readonly name: string
  /**
   * `A`, `AAAA`: the addresses of the name; `A+AAAA`: those of both, if both are answered. `SRV`: its service records, the
   * lowest priority as the first level.
   */
  readonly type: 'A' | 'AAAA' | 'A+AAAA' | 'SRV'
  /** The port of every address; not with `SRV`, which says it itself. */
  readonly port?: number | undefined
  /** The weight of every address; not with `SRV`. Default 1. */
  readonly weight?: number | undefined
}

/** Options of {@link dns}. */
export interface DnsOptions extends SourceOptions {
  /** By the key of the upstream. */
  readonly upstreams: Readonly<Record<string, DnsUpstream>>
  /** For status, events and its snapshot; two sources of one instance need two names. Default `'dns'`. */
  readonly name?: string | undefined
  /**
   * Name servers, IP addresses with or without port: `['127.0.0.1:8600', '::1']`. Who answered last is asked first. Default:
   * the system's.
   */
  readonly servers?: readonly string[] | undefined
  /**
   * Milliseconds after which a name is asked for again at the soonest, whatever its time to live: Consul says 0. From 200.
   * Default 5,000, which is Envoy's.
   */
  readonly minTtl?: number | undefined
  /**
   * Milliseconds after which a name is asked for again at the latest. Default 300,000, or `minTtl`: a list of servers that is a day old is
   * of no use to anybody.
   */
  readonly maxTtl?: number | undefined
  /** Up to this part of the time is added to it at random, so that processes do not ask in step. Default 0.1. */
  readonly jitter?: number | undefined
  /**
   * Milliseconds until a server that says nothing is left for the next one; when all were silent they are asked once more.
   * Default 2,000, as in c-ares, with which one silent server is given up within `timeout`.
   */
  readonly queryTimeout?: number | undefined
}

const OPTION_KEYS = new Set<string>(
  ['upstreams', 'name', 'servers', 'minTtl', 'maxTtl', 'jitter', 'queryTimeout'].concat(SOURCE_OPTIONS),
)
const UPSTREAM_KEYS = new Set(['name', 'type', 'port', 'weight'])

/** The rate of asks that the loop keeps for all sources, of a name that is asked for within one. */
const SHORTEST_TTL = 200
const DNS_PORT = 53

/**
 * Follows names in DNS; needs the package `dns-packet`. A name that does not exist, or of which nobody can say anything,
 * keeps its servers, and delays no other one; a name that exists and has none is an empty list.
 */
export function dns(options: DnsOptions): Source {
  onlyKeys('dns', record('dns', '', options), OPTION_KEYS)
  const { upstreams, name = 'dns', servers, minTtl = 5_000, ...rest } = options
  const { maxTtl = Math.max(300_000, minTtl), jitter = 0.1, queryTimeout = 2_000, ...followed } = rest
  const times = {
    minTtl: milliseconds('dns', 'minTtl', minTtl, SHORTEST_TTL),
    maxTtl: milliseconds('dns', 'maxTtl', maxTtl, minTtl),
    jitter,
    queryTimeout: milliseconds('dns', 'queryTimeout', queryTimeout, 1),
  }
  if (typeof jitter !== 'number' || !(jitter >= 0 && jitter <= 1)) {
    throw expected('dns', 'jitter', 'a number from 0 to 1', jitter)
  }
  const fixed = servers === undefined ? undefined : compileServers(servers)
  return new DnsSource(
    string('dns', 'name', name),
    followed,
    Object.entries(record('dns', 'upstreams', upstreams)).map(([key, value]) => compile(key, value)),
    // The system's may change.
    fixed === undefined ? () => getServers().map((text) => toServer('dns', 'servers', text)) : () => fixed,
    times,
  )
}

/** An upstream, checked. */
interface Wanted {
  readonly key: string
  readonly name: string
  readonly type: LookupType
  readonly port: number
  readonly weight: number
}

interface Times {
  readonly minTtl: number
  readonly maxTtl: number
  readonly jitter: number
  readonly queryTimeout: number
}

function compile(key: string, value: unknown): Wanted {
  const path = `dns.${upstreamPath(key)}`
  const { name, type, port, weight } = record(path, '', value)
  onlyKeys(path, value as object, UPSTREAM_KEYS)
  const checked = domainName(string(path, 'name', name))
  if (checked === undefined || isIP(checked) !== 0) throw expected(path, 'name', 'a domain name', name)
  const kind = oneOf(path, 'type', type, ['A', 'AAAA', 'A+AAAA', 'SRV'])
  if (kind === 'SRV') {
    for (const [option, given] of Object.entries({ port, weight })) {
      if (given !== undefined) throw new ConfigError(`${path}.${option}`, 'not with SRV, whose records say it')
    }
    return { key, name: checked, type: kind, port: 0, weight: 0 }
  }
  return {
    key,
    name: checked,
    type: kind,
    port: integer(path, 'port', port, 1, 65_535),
    weight: integer(path, 'weight', weight ?? 1, 0, 2 ** 31 - 1),
  }
}

function compileServers(value: unknown): NameServer[] {
  const servers = array('dns', 'servers', value).map((server, i) => {
    return toServer(`dns.servers[${i}]`, '', string(`dns.servers[${i}]`, '', server))
  })
  if (servers.length === 0) throw expected('dns', 'servers', 'at least one name server', value)
  return servers
}

function toServer(path: string, key: string, text: string): NameServer {
  const { address, host, port } = parseEndpoint(path, key, withPort(text))
  // A name would have to be asked for first, of whom?
  if (isIP(host) === 0) throw expected(path, key, 'an IP address with or without port', text)
  return { address, host, port }
}

function withPort(text: string): string {
  switch (isIP(text.replace(/^\[(.*)\]$/, '$1'))) {
    case 4:
      return `${text}:${DNS_PORT}`
    case 6:
      return text.startsWith('[') ? `${text}:${DNS_PORT}` : `[${text}]:${DNS_PORT}`
    default:
      return text
  }
}

/** A name that is followed, for one upstream or several. */
interface Followed {
  readonly lookup: Lookup
  readonly wanted: readonly Wanted[]
  /** What it stood for when that was last known. */
  result: LookupResult | undefined
  /** Of each upstream, the same list as long as it says the same. */
  readonly lists: Map<string, readonly LevelOptions[]>
  failure: Error | undefined
  failures: number
}

class DnsSource implements Source {
  readonly name: string
  readonly options: SourceOptions
  readonly #wanted: readonly Wanted[]
  readonly #servers: () => readonly NameServer[]
  readonly #times: Times
  /** What is known, by the signal of who follows. */
  readonly #known = new WeakMap<AbortSignal, readonly Followed[]>()

  constructor(
    name: string,
    options: SourceOptions,
    wanted: readonly Wanted[],
    servers: () => readonly NameServer[],
    times: Times,
  ) {
    this.name = name
    this.options = options
    this.#wanted = wanted
    this.#servers = servers
    this.#times = times
  }

  /**
   * Goes on until nothing is known of any name any more. Each name has its own time, and after a failure its own back-off,
   * by the rules of the loop.
   */
  async watch(apply: (lists: SourceLists) => void, context: SourceContext): Promise<void> {
    const { signal, clock } = context
    signal.throwIfAborted()
    let known = this.#known.get(signal)
    if (known === undefined) this.#known.set(signal, (known = this.#begin()))
    const all = known
    const controller = new AbortController()
    // Each name waits and asks by itself: many listeners are no leak.
    setMaxListeners(0, signal, controller.signal)
    const abort = () => controller.abort(signal.reason)
    signal.addEventListener('abort', abort)
    const mine = { signal: controller.signal, clock }
    const pause = (ms: number) => untilAborted(mine.signal, context.sleep(ms))
    // The first lists are those of all names, but they do not wait for who is silent.
    let isOpen = false
    const unsettled = new Set(all)
    const publish = () => {
      if (unsettled.size === 0) isOpen = true
      if (all.length > 0 && all.every(({ failure }) => failure !== undefined)) throw failureOf(all)
      const isKnown = all.some(({ result, failure }) => result !== undefined && failure === undefined)
      if (isOpen && isKnown) apply(toLists(all))
    }
    const open = () => {
      isOpen = true
      publish()
    }
    const follow = async (followed: Followed) => {
      for (;;) {
        const ms = await this.#look(followed, mine)
        unsettled.delete(followed)
        publish()
        await pause(ms)
      }
    }
    try {
      await Promise.all([...all.map(follow), pause(this.#times.queryTimeout).then(open), forEver(mine.signal)])
    } finally {
      signal.removeEventListener('abort', abort)
      controller.abort()
    }
  }

  /** Names that several upstreams have are asked for once. */
  #begin(): Followed[] {
    const resolver = new Resolver(this.#servers, this.#times.queryTimeout)
    const byQuestion = new Map<string, Wanted[]>()
    for (const wanted of this.#wanted) {
      const question = `${wanted.name} ${wanted.type}`
      byQuestion.set(question, [...(byQuestion.get(question) ?? []), wanted])
    }
    return [...byQuestion.values()].map((wanted) => ({
      lookup: new Lookup(wanted[0]!.name, wanted[0]!.type, resolver),
      wanted,
      result: undefined,
      lists: new Map(),
      failure: undefined,
      failures: 0,
    }))
  }

  /** Asks once; returns after how many milliseconds to ask again. */
  async #look(followed: Followed, context: Pick<SourceContext, 'signal' | 'clock'>): Promise<number> {
    const { minTtl, maxTtl, jitter } = this.#times
    try {
      const result = await followed.lookup.look(context)
      followed.result = result
      followed.failure = undefined
      followed.failures = 0
      for (const wanted of followed.wanted) {
        const list = toCluster(result, wanted)
        if (!isDeepStrictEqual(list, followed.lists.get(wanted.key))) followed.lists.set(wanted.key, list)
      }
      return Math.min(Math.max(result.ttl, minTtl), maxTtl) * (1 + jitter * systemRandom())
    } catch (error) {
      context.signal.throwIfAborted()
      followed.failure = error as Error
      followed.failures++
      return backOff(followed.failures, followed.result !== undefined, systemRandom)
    }
  }
}

function toCluster({ levels }: LookupResult, wanted: Wanted): LevelOptions[] {
  return levels.map((level) => ({
    servers: level.map(({ host, port = wanted.port, weight = wanted.weight }) => ({ host, port, weight })),
  }))
}

/** All that is known; of a name that fails now, what it stood for before. */
function toLists(all: readonly Followed[]): SourceLists {
  const upstreams = new Map<string, readonly LevelOptions[]>()
  const refused: Refused[] = []
  const unread: string[] = []
  for (const { lists, wanted, failure, result } of all) {
    for (const [key, list] of lists) upstreams.set(key, list)
    if (result === undefined) unread.push(...wanted.map(({ key }) => key))
    if (failure === undefined) refused.push(...(result?.refused ?? []))
    else for (const { key } of wanted) refused.push({ at: key, reason: failure.message })
  }
  return { upstreams, unread, refused }
}

function forEver(signal: AbortSignal): Promise<never> {
  return untilAborted(signal, new Promise<never>(() => undefined))
}

function failureOf(all: readonly Followed[]): Error {
  const failures = all.flatMap(({ failure }) => (failure === undefined ? [] : [failure]))
  const [first] = failures
  return failures.length === 1
    ? first!
    : new AggregateError(failures, failures.map(({ message }) => message).join('; '))
}
