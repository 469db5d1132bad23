/**
 * Consistent hash: the same key goes to the same server, whoever else comes or goes. A server that is out is passed over:
 * its keys go on to others, and come back with it.
 */
import { isUtf8 } from 'node:buffer'
import { LRUCache } from 'lru-cache'
import { expected, integer, milliseconds, oneOf, onlyKeys, record } from '../check.js'
import type { Balancer, BalancerEnv, BalancerFactory, Member, Request } from './balancer.js'
import type { HashFinder } from './lib/hash-finder.js'
import { HashIp } from './lib/hash-ip.js'
import { HashMaglev } from './lib/hash-maglev.js'
import { HashRing, murmurRingHash } from './lib/hash-ring.js'
import { nginxRingHash } from './lib/nginx-hash.js'
import { wrr } from './wrr.js'

/** Options of `consistent-hash`. */
export interface ConsistentHashOptions {
  /** The policy. A request without a `hashKey` is balanced by `wrr`, as nginx does with an empty key. */
  readonly type: 'consistent-hash'
  /**
   * `'ketama'`: a ring of 160 points per weight, murmur3. `'nginx'`: the ring of nginx's `hash … consistent`, so that a
   * Node tier and an nginx tier send a key to the same server. `'nginx-ip'`: nginx's `ip_hash`; keys are client addresses.
   * `'maglev'`: Maglev's table, which shares more evenly and moves a few more keys. Default `'ketama'`.
   */
  readonly hash?: 'ketama' | 'nginx' | 'nginx-ip' | 'maglev' | undefined
  /**
   * No server is given a request that takes it above so many times its fair share of those in flight, rounded up; the
   * request goes on to the next server of its key. At least 1; Vimeo and HAProxy's manual suggest 1.25. Default: no bound.
   */
  readonly boundedLoad?: number | undefined
  /** Keeps a key where it is while its server is available, even when the ring changes. Default: it follows the ring. */
  readonly sticky?: StickyOptions | undefined
}

/** What is remembered of keys and their servers. */
export interface StickyOptions {
  /** Keys remembered at most, up to 1,048,576; those not used for longest go first. Their memory is taken at once. */
  readonly max: number
  /** Milliseconds a key is remembered after its last use. */
  readonly ttl: number
}

/** A key of another kind would hash to a constant, and send everything to one server. */
function hasKey(key: unknown): key is string | Uint8Array {
  if (typeof key === 'string') return key !== ''
  if (key === undefined || key === null) return false
  if (key instanceof Uint8Array) return key.length > 0
  throw expected('hashKey', '', 'a string or bytes', key)
}

/** A string and its UTF-8 bytes hash alike, so they are one key to remember; other bytes are none of any string. */
function textOf(key: Uint8Array): string {
  const bytes = Buffer.from(key.buffer, key.byteOffset, key.byteLength)
  return isUtf8(bytes) ? bytes.toString() : `\0${bytes.toString('latin1')}`
}

const isAvailable = ({ available }: Member): boolean => available

class ConsistentHash implements Balancer {
  readonly #finder: HashFinder
  readonly #env: BalancerEnv
  /** For requests without a key, and where nginx gives up looking: made for the first of these. */
  #fallback: Balancer | undefined
  readonly #bound: number
  readonly #sticky: LRUCache<string, Member> | undefined
  #members: readonly Member[] = []
  /** The same, to look one up; only if keys are sticky. */
  #present: ReadonlySet<Member> = new Set()
  /** Only if load is bounded: requests in flight to members, and who of these is available, with the sum of their weights. */
  #inFlight = 0
  #weighed = new Set<Member>()
  #weights = 0
  readonly #fits = (member: Member) =>
    member.available &&
    member.inFlight < Math.ceil((this.#bound * (this.#inFlight + 1) * member.weight) / Math.max(1, this.#weights))

  constructor(env: BalancerEnv, finder: HashFinder, bound: number, sticky: StickyOptions | undefined) {
    this.#finder = finder
    this.#env = env
    this.#bound = bound
    // Time 0 means "never" to the cache.
    this.#sticky =
      sticky && new LRUCache({ ...sticky, updateAgeOnGet: true, ttlResolution: 0, perf: { now: () => env.now() + 1 } })
  }

  update(members: readonly Member[]): void {
    this.#members = members
    this.#finder.update(members)
    this.#fallback?.update(members)
    if (this.#sticky !== undefined) this.#present = new Set(members)
    if (this.#bound === Infinity) return
    this.#inFlight = members.reduce((sum, { inFlight }) => sum + inFlight, 0)
    this.#weighed = new Set(members.filter(isAvailable))
    this.#weights = 0
    for (const { weight } of this.#weighed) this.#weights += weight
  }

  pick({ hashKey }: Request): Member | undefined {
    if (!hasKey(hashKey)) return this.#withoutKey()
    const accept = this.#bound === Infinity ? isAvailable : this.#fits
    if (this.#sticky === undefined) return this.#find(hashKey, accept)
    const key = typeof hashKey === 'string' ? hashKey : textOf(hashKey)
    const kept = this.#sticky.get(key)
    if (kept !== undefined && this.#present.has(kept) && accept(kept)) return kept
    const member = this.#find(hashKey, accept)
    // A request that may not go where its key is kept (tried there before, full) does not move the key.
    const stays = kept !== undefined && this.#present.has(kept) && kept.healthy
    if (member !== undefined && !stays) this.#sticky.set(key, member)
    return member
  }

  changed(member: Member): void {
    this.#fallback?.changed?.(member)
    if (this.#bound < Infinity && this.#weighed.has(member) !== member.available) this.#weigh(member)
  }

  acquired(): void {
    this.#inFlight++
  }

  released(): void {
    this.#inFlight--
  }

  #find(key: string | Uint8Array, accept: (member: Member) => boolean): Member | undefined {
    return this.#finder.find(key, accept) ?? this.#withoutKey()
  }

  #withoutKey(): Member | undefined {
    if (this.#fallback === undefined) {
      this.#fallback = wrr(this.#env)
      this.#fallback.update(this.#members)
    }
    const member = this.#fallback.pick({}, NaN)
    if (this.#bound === Infinity || member === undefined || this.#fits(member)) return member
    // Among those available there is always one that fits: the bounds of all add up to more than all requests in flight.
    for (const other of this.#weighed) if (this.#fits(other)) return other
    return member
  }

  #weigh(member: Member): void {
    if (member.available) this.#weighed.add(member)
    else this.#weighed.delete(member)
    this.#weights += member.available ? member.weight : -member.weight
  }
}

export function parseConsistentHash(path: string, options: Record<string, unknown>): BalancerFactory {
  onlyKeys(path, options, new Set(['type', 'hash', 'boundedLoad', 'sticky']))
  const hash = oneOf(path, 'hash', options['hash'] ?? 'ketama', ['ketama', 'nginx', 'nginx-ip', 'maglev'])
  const { boundedLoad } = options
  if (boundedLoad !== undefined && !(typeof boundedLoad === 'number' && boundedLoad >= 1 && boundedLoad < Infinity)) {
    throw expected(path, 'boundedLoad', 'a number from 1', boundedLoad)
  }
  const sticky = options['sticky'] === undefined ? undefined : compileSticky(path, options['sticky'])
  return (env) => new ConsistentHash(env, finders[hash](env), boundedLoad ?? Infinity, sticky)
}

/** nginx counts to more than 20 points, or rounds of ip_hash, before it gives up and balances by round robin. */
const NGINX_TRIES = 21

const finders: Record<NonNullable<ConsistentHashOptions['hash']>, (env: BalancerEnv) => HashFinder> = {
  ketama: (env) => new HashRing(env, murmurRingHash),
  nginx: (env) => new HashRing(env, nginxRingHash, NGINX_TRIES),
  'nginx-ip': () => new HashIp(NGINX_TRIES),
  maglev: (env) => new HashMaglev(env),
}

/** The cache takes its memory at once: 32 MB for so many. */
const MOST_STICKY = 2 ** 20

function compileSticky(path: string, value: unknown): StickyOptions {
  const sticky = record(path, 'sticky', value)
  const at = `${path}.sticky`
  onlyKeys(at, sticky, new Set(['max', 'ttl']))
  return { max: integer(at, 'max', sticky['max'], 1, MOST_STICKY), ttl: milliseconds(at, 'ttl', sticky['ttl'], 1) }
}
