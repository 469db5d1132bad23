/**
 * Local first: rings of nearness around this process. Requests stay in the nearest ring while its healthy servers carry
 * them, and spill to the next one in proportion when they do not; never does one fail because the near ring is empty.
 */
import { BlockList, isIP, isIPv6 } from 'node:net'
import { networkInterfaces } from 'node:os'
import { array, expected, onlyKeys, record, string } from '../check.js'
import type { Peer } from '../upstream/peer.js'
import type { Balancer, BalancerEnv, BalancerFactory, Member, Request, Result } from './balancer.js'

/** Peers by nearness: addresses of this machine, of its subnets, of given subnets, by a label, or as a function says. */
export type Nearness = 'host' | 'subnet' | NearSubnets | NearLabel | ((peer: Peer) => boolean)

/** Peers in given subnets. */
export interface NearSubnets {
  /** As `10.1.0.0/16` or `fd00::/8`. */
  readonly subnets: readonly string[]
}

/** Peers with a label. */
export interface NearLabel {
  /** The label's name, as `zone`. */
  readonly label: string
  /** Its value. */
  readonly value: string
}

/** How the load is spread over rings. */
export interface RingStatus {
  /** The share of requests that each ring is to have now, in percent; the last ring is everybody else. */
  readonly shares: readonly number[]
  /** Picks that each ring has had. */
  readonly picks: readonly number[]
}

/**
 * A ring carries its load alone while this many times its healthy share is at least 1: at 1.4, Envoy's, until 29 % of it
 * are out.
 */
const OVERPROVISIONING = 1.4

/**
 * The shares of rings, in percent, nearest first: each takes what it can carry of what the nearer ones leave (Envoy's
 * priority levels). Where all together cannot carry it, they share it in proportion.
 */
export function ringShares(rings: readonly { readonly healthy: number; readonly total: number }[]): number[] {
  const carries = rings.map(({ healthy, total }) =>
    total === 0 ? 0 : Math.min(100, Math.floor((OVERPROVISIONING * 100 * healthy) / total)),
  )
  const all = Math.min(
    100,
    carries.reduce((sum, carried) => sum + carried, 0),
  )
  let left = all === 0 ? 0 : 100
  return carries.map((carried) => {
    const share = all === 0 ? 0 : Math.min(left, Math.round((carried * 100) / all))
    left -= share
    return share
  })
}

/** Options of `local-first` but the policy within its rings. */
export interface LocalFirstRings {
  /** The policy. */
  readonly type: 'local-first'
  /**
   * Nearest first; a peer belongs to the first ring that it matches, and to a last one, of everybody else, if to none.
   * Default `['host', 'subnet']`: this machine, then the subnets of its interfaces.
   */
  readonly rings?: readonly Nearness[] | undefined
}

interface RingOf {
  readonly balancer: Balancer
  members: readonly Member[]
  /** By weight: a ring is worth what its servers can take. */
  healthy: number
  total: number
  picks: number
}

class LocalFirst implements Balancer {
  readonly timed: boolean
  readonly #env: BalancerEnv
  readonly #nearness: readonly ((peer: Peer) => boolean)[]
  readonly #rings: readonly RingOf[]
  readonly #ringOf = new Map<Member, RingOf>()
  readonly #healthy = new Set<Member>()
  #shares: number[] = []

  constructor(env: BalancerEnv, nearness: readonly ((peer: Peer) => boolean)[], inner: BalancerFactory) {
    this.#env = env
    this.#nearness = nearness
    this.#rings = Array.from({ length: nearness.length + 1 }, () => ({
      balancer: inner(env),
      members: [],
      healthy: 0,
      total: 0,
      picks: 0,
    }))
    this.timed = this.#rings.some(({ balancer }) => balancer.timed === true)
  }

  update(members: readonly Member[]): void {
    this.#ringOf.clear()
    this.#healthy.clear()
    const lists = this.#rings.map((): Member[] => [])
    for (const member of members) {
      const near = this.#nearness.findIndex((isNear) => isNear(member.peer))
      const index = near < 0 ? this.#rings.length - 1 : near
      lists[index]!.push(member)
      this.#ringOf.set(member, this.#rings[index]!)
    }
    this.#rings.forEach((ring, i) => {
      ring.members = lists[i]!
      ring.total = ring.members.reduce((sum, { weight }) => sum + weight, 0)
      ring.healthy = 0
      for (const member of ring.members) if (member.healthy) this.#count(ring, member)
      ring.balancer.update(ring.members)
    })
    this.#shares = ringShares(this.#rings)
  }

  pick(request: Request, now: number): Member | undefined {
    const first = this.#draw()
    const member = this.#rings[first] === undefined ? undefined : this.#pickFrom(this.#rings[first], request, now)
    if (member !== undefined) return member
    // The ring may be full, or tried: then whoever is nearest.
    for (const [i, ring] of this.#rings.entries()) {
      const other = i === first ? undefined : this.#pickFrom(ring, request, now)
      if (other !== undefined) return other
    }
    return undefined
  }

  changed(member: Member): void {
    const ring = this.#ringOf.get(member)
    if (ring === undefined) return
    ring.balancer.changed?.(member)
    if (this.#healthy.has(member) === member.healthy) return
    this.#count(ring, member)
    this.#shares = ringShares(this.#rings)
  }

  acquired(member: Member): void {
    this.#ringOf.get(member)?.balancer.acquired?.(member)
  }

  released(member: Member): void {
    this.#ringOf.get(member)?.balancer.released?.(member)
  }

  report(member: Member, result: Result): void {
    this.#ringOf.get(member)?.balancer.report?.(member, result)
  }

  status(): RingStatus {
    return { shares: this.#shares, picks: this.#rings.map(({ picks }) => picks) }
  }

  #pickFrom(ring: RingOf, request: Request, now: number): Member | undefined {
    const member = ring.members.length === 0 ? undefined : ring.balancer.pick(request, now)
    if (member !== undefined) ring.picks++
    return member
  }

  #draw(): number {
    const near = this.#shares[0] ?? 0
    // All stay near: nothing to draw.
    if (near === 100) return 0
    let rest = this.#env.random() * 100
    const drawn = this.#shares.findIndex((share) => (rest -= share) < 0)
    return drawn < 0 ? 0 : drawn
  }

  #count(ring: RingOf, member: Member): void {
    if (member.healthy) this.#healthy.add(member)
    else this.#healthy.delete(member)
    ring.healthy += member.healthy ? member.weight : -member.weight
  }
}

export function parseLocalFirst(
  path: string,
  options: Record<string, unknown>,
  factoryOf: (path: string, key: string, option: unknown) => BalancerFactory,
): BalancerFactory {
  onlyKeys(path, options, new Set(['type', 'rings', 'balancer']))
  const rings = array(path, 'rings', options['rings'] ?? ['host', 'subnet'])
  const nearness = rings.map((ring, i) => compileNearness(`${path}.rings[${i}]`, ring))
  const inner = factoryOf(path, 'balancer', options['balancer'] ?? 'wrr')
  return (env) => new LocalFirst(env, nearness, inner)
}

function compileNearness(path: string, ring: unknown): (peer: Peer) => boolean {
  if (typeof ring === 'function') return ring as (peer: Peer) => boolean
  if (ring === 'host') return isHere(machineAddresses())
  if (ring === 'subnet') return isWithin(machineSubnets())
  if (typeof ring === 'string')
    throw expected(path, '', '"host", "subnet", { subnets }, { label, value } or a function', ring)
  const options = record(path, '', ring)
  if ('subnets' in options) {
    onlyKeys(path, options, new Set(['subnets']))
    const subnets = array(path, 'subnets', options['subnets'])
    return isWithin(subnets.map((subnet, i) => compileSubnet(`${path}.subnets[${i}]`, subnet)))
  }
  onlyKeys(path, options, new Set(['label', 'value']))
  const label = string(path, 'label', options['label'])
  const value = string(path, 'value', options['value'])
  return ({ labels }) => Object.hasOwn(labels, label) && labels[label] === value
}

interface Subnet {
  readonly address: string
  readonly bits: number
}

function compileSubnet(path: string, subnet: unknown): Subnet {
  const [address = '', bits = ''] = typeof subnet === 'string' ? subnet.split('/') : []
  const most = isIP(address) === 6 ? 128 : 32
  if (isIP(address) === 0 || !/^\d{1,3}$/.test(bits) || Number(bits) > most) {
    throw expected(path, '', 'a subnet as "10.1.0.0/16" or "fd00::/8"', subnet)
  }
  return { address, bits: Number(bits) }
}

const family = (address: string) => (isIPv6(address) ? 'ipv6' : 'ipv4')

function isWithin(subnets: readonly Subnet[]): (peer: Peer) => boolean {
  const list = new BlockList()
  for (const { address, bits } of subnets) list.addSubnet(address, bits, family(address))
  return ({ host }) => isIP(host) !== 0 && list.check(host, family(host))
}

/** Unix sockets and loopback are here; of host names only localhost is known to be. */
function isHere(addresses: ReadonlySet<string>): (peer: Peer) => boolean {
  const loopback = isWithin([
    { address: '127.0.0.0', bits: 8 },
    { address: '::1', bits: 128 },
  ])
  return (peer) => peer.port === 0 || peer.host === 'localhost' || addresses.has(peer.host) || loopback(peer)
}

const interfaces = () => Object.values(networkInterfaces()).flatMap((addresses) => addresses ?? [])

function machineAddresses(): ReadonlySet<string> {
  return new Set(interfaces().map(({ address }) => address))
}

function machineSubnets(): Subnet[] {
  return interfaces().flatMap(({ cidr }) => (cidr === null ? [] : [compileSubnet('interface', cidr)]))
}
