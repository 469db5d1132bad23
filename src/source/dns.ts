/** Upstreams from DNS: addresses or service records, asked for again when their time to live is over. */
import { getServers } from 'node:dns'
import { setMaxListeners } from 'node:events'
import { isIP } from 'node:net'
import { isDeepStrictEqual } from 'node:util'
import { parseEndpoint } from '../address.js'
import { array, expected, milliseconds, onlyKeys, record, string } from '../check.js'
import { systemRandom } from '../clock.js'
import type { Cluster, UpstreamOptions } from '../config.js'
import { untilAborted } from '../optional.js'
import type { NameServer } from './dns/exchange.js'
import { Lookup, type LookupResult } from './dns/lookup.js'
import { Resolver } from './dns/resolver.js'
import { compileDnsUpstream, type DnsUpstream, type Question, type Wanted } from './dns/upstream.js'
import { backOff } from './pace.js'
import { SOURCE_OPTIONS, type Refused, type Source, type SourceContext, type SourceLists } from './source.js'
import type { SourceOptions } from './source.js'

export type {
  DnsAddresses,
  DnsCluster,
  DnsLevelOptions,
  DnsName,
  DnsServerOptions,
  DnsUpstream,
  DnsUpstreamOptions,
} from './dns/upstream.js'

/** Options of {@link dns}. */
export interface DnsOptions extends SourceOptions {
  /** By the key of the upstream: the name that says which servers it has, or servers whose hosts may be names. */
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
    Object.entries(record('dns', 'upstreams', upstreams)).map(([key, value]) => compileDnsUpstream(key, value)),
    // The system's may change.
    fixed === undefined ? () => getServers().map((text) => toServer('dns', 'servers', text)) : () => fixed,
    times,
  )
}

interface Times {
  readonly minTtl: number
  readonly maxTtl: number
  readonly jitter: number
  readonly queryTimeout: number
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

/** A question that is followed, for one upstream or several. */
interface Followed {
  readonly text: string
  readonly lookup: Lookup
  readonly wanted: readonly Wanted[]
  /** What it was answered with last. */
  result: LookupResult | undefined
  failure: Error | undefined
  failures: number
}

/** What is known to one who follows. */
interface Known {
  /** By what is asked. */
  readonly followed: ReadonlyMap<string, Followed>
  /** Of each upstream of which something is known, the same object as long as it says the same. */
  readonly lists: Map<string, Cluster | UpstreamOptions>
  /** Whether lists were applied. */
  isGiven: boolean
}

class DnsSource implements Source {
  readonly name: string
  readonly options: SourceOptions
  readonly #wanted: readonly Wanted[]
  readonly #servers: () => readonly NameServer[]
  readonly #times: Times
  /** What is known, by the signal of who follows. */
  readonly #known = new WeakMap<AbortSignal, Known>()

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
   * by the rules of the loop. Servers that need no name are given once even if all names fail.
   */
  async watch(apply: (lists: SourceLists) => void, context: SourceContext): Promise<void> {
    const { signal, clock } = context
    signal.throwIfAborted()
    const known = this.#known.get(signal) ?? this.#begin()
    this.#known.set(signal, known)
    const all = [...known.followed.values()]
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
      const isKnown = all.some(({ result, failure }) => result !== undefined && failure === undefined)
      if (isOpen && (isKnown || (!known.isGiven && known.lists.size > 0))) {
        known.isGiven = true
        apply(toLists(this.#wanted, known))
      }
      if (all.length > 0 && all.every(({ failure }) => failure !== undefined)) throw failureOf(all)
    }
    const open = () => {
      isOpen = true
      publish()
    }
    const follow = async (followed: Followed) => {
      for (;;) {
        const ms = await this.#look(known, followed, mine)
        unsettled.delete(followed)
        publish()
        await pause(ms)
      }
    }
    try {
      if (all.length === 0) publish()
      await Promise.all([...all.map(follow), pause(this.#times.queryTimeout).then(open), forEver(mine.signal)])
    } finally {
      signal.removeEventListener('abort', abort)
      controller.abort()
    }
  }

  /** Names that several servers or upstreams have are asked for once. */
  #begin(): Known {
    const resolver = new Resolver(this.#servers, this.#times.queryTimeout)
    const wantedBy = new Map<string, { question: Question; wanted: Set<Wanted> }>()
    for (const wanted of this.#wanted) {
      for (const question of wanted.questions) {
        const text = toText(question)
        const asked = wantedBy.get(text) ?? { question, wanted: new Set() }
        wantedBy.set(text, asked)
        asked.wanted.add(wanted)
      }
    }
    const followed = new Map<string, Followed>()
    for (const [text, { question, wanted }] of wantedBy) {
      const lookup = new Lookup(question.name, question.type, resolver)
      followed.set(text, { text, lookup, wanted: [...wanted], result: undefined, failure: undefined, failures: 0 })
    }
    const known: Known = { followed, lists: new Map(), isGiven: false }
    for (const wanted of this.#wanted) refresh(known, wanted)
    return known
  }

  /** Asks once; returns after how many milliseconds to ask again. */
  async #look(known: Known, followed: Followed, context: Pick<SourceContext, 'signal' | 'clock'>): Promise<number> {
    const { minTtl, maxTtl, jitter } = this.#times
    try {
      const result = await followed.lookup.look(context)
      followed.result = result
      followed.failure = undefined
      followed.failures = 0
      for (const wanted of followed.wanted) refresh(known, wanted)
      return Math.min(Math.max(result.ttl, minTtl), maxTtl) * (1 + jitter * systemRandom())
    } catch (error) {
      context.signal.throwIfAborted()
      followed.failure = error as Error
      followed.failures++
      return backOff(followed.failures, followed.result !== undefined, systemRandom)
    }
  }
}

/** Takes what is known into the list of an upstream. */
function refresh({ followed, lists }: Known, { key, toServers }: Wanted): void {
  const list = toServers((question) => followed.get(toText(question))?.result)
  if (list !== undefined && !isDeepStrictEqual(list, lists.get(key))) lists.set(key, list)
}

/** All that is known; of a name that fails now, what it stood for before. */
function toLists(all: readonly Wanted[], { followed, lists }: Known): SourceLists {
  const refused: Refused[] = []
  for (const { text, wanted, failure, result } of followed.values()) {
    if (failure === undefined) refused.push(...(result?.refused ?? []))
    const reason = failure?.message ?? (result === undefined ? `${text}: no answer yet` : undefined)
    if (reason === undefined) continue
    // Of a list that is not there nothing is left out; that it could not be read is told when that is sure.
    for (const { key } of wanted) if (failure !== undefined || lists.has(key)) refused.push({ at: key, reason })
  }
  const unread = all.flatMap(({ key }) => (lists.has(key) ? [] : [key]))
  return { upstreams: new Map(lists), unread, refused }
}

function toText({ name, type }: Question): string {
  return `${name} ${type}`
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
