/** One name, asked for again and again: the servers it stands for, in a stable order. */
import { tcpEndpoint } from '../../address.js'
import type { Refused } from '../source.js'
import { domainName, type DnsRecord } from './message.js'
import type { ResolveContext, Resolver } from './resolver.js'

/** What is asked for. */
export type LookupType = 'A' | 'AAAA' | 'A+AAAA' | 'SRV'

/** A server that a name stands for. */
export interface Found {
  /** An IP address. */
  readonly host: string
  /** Of a service record; undefined of an address. */
  readonly port: number | undefined
  readonly weight: number | undefined
}

/** All that a name stands for. */
export interface LookupResult {
  /** By priority, each sorted by address; at least one level, which may be empty. */
  readonly levels: readonly (readonly Found[])[]
  /** Records that are of no use. */
  readonly refused: readonly Refused[]
  /** Milliseconds for which it holds. */
  readonly ttl: number
}

/** Addresses of a target, and until when they hold. */
interface Target {
  readonly addresses: readonly string[]
  readonly until: number
}

/** Targets that are asked for at once. */
const CONCURRENCY = 32

export class Lookup {
  readonly #name: string
  readonly #type: LookupType
  readonly #resolver: Resolver
  /** Targets of the service records seen last. */
  #targets = new Map<string, Target>()

  constructor(name: string, type: LookupType, resolver: Resolver) {
    this.#name = name
    this.#type = type
    this.#resolver = resolver
  }

  /** Rejects if nobody can say, or the name does not exist. */
  look(context: ResolveContext): Promise<LookupResult> {
    return this.#type === 'SRV' ? this.#services(context) : this.#addresses(this.#type, context)
  }

  async #addresses(type: 'A' | 'AAAA' | 'A+AAAA', context: ResolveContext): Promise<LookupResult> {
    // Both or none: with one of them alone half of the servers would go and come.
    const types = type === 'A+AAAA' ? (['A', 'AAAA'] as const) : [type]
    const answers = await Promise.all(types.map((type) => this.#resolver.resolve(this.#name, type, context)))
    const hosts = new Set(answers.flatMap(({ records }) => records.map(({ data }) => canonical(data))))
    return {
      levels: [[...hosts].sort().map((host) => ({ host, port: undefined, weight: undefined }))],
      refused: [],
      ttl: 1_000 * Math.min(...answers.map(({ ttl }) => ttl)),
    }
  }

  async #services(context: ResolveContext): Promise<LookupResult> {
    const answer = await this.#resolver.resolve(this.#name, 'SRV', context)
    const refused: Refused[] = []
    const refuse = (target: string, reason: string) => refused.push({ at: `${this.#name} SRV ${target}`, reason })
    const usable = answer.records.filter(({ data: { target, port } }) => {
      // A dot alone says that there is no such service (RFC 2782).
      if (target === '.') return false
      if (domainName(target) === undefined) refuse(JSON.stringify(target), 'not a host name')
      else if (port === 0) refuse(target, 'the port 0')
      else return true
      return false
    })
    const targets = [...new Set(usable.map(({ data }) => data.target))]
    await this.#findTargets(targets, answer.additionals, refuse, context)
    const now = context.clock.now()
    const held = [...this.#targets.values()].map(({ until }) => until - now)
    return {
      levels: toLevels(usable, (target) => this.#targets.get(target)?.addresses ?? []),
      // In no order that a server or the network has made: the same is no news.
      refused: refused.sort((a, b) => (a.at + a.reason < b.at + b.reason ? -1 : 1)),
      ttl: Math.max(0, Math.min(1_000 * answer.ttl, ...held)),
    }
  }

  /** Rejects if nothing is known of any. */
  async #findTargets(
    names: readonly string[],
    additionals: readonly DnsRecord[],
    refuse: (target: string, reason: string) => void,
    context: ResolveContext,
  ): Promise<void> {
    const { signal, clock } = context
    const targets = new Map<string, Target>()
    let failure: unknown
    const find = async (name: string) => {
      const known = this.#targets.get(name)
      try {
        const given = pickAddresses(additionals.filter((record) => record.name === name))
        if (given === undefined && known !== undefined && known.until > clock.now()) return targets.set(name, known)
        const { addresses, ttl } = given ?? (await this.#askTarget(name, context))
        targets.set(name, { addresses, until: clock.now() + 1_000 * ttl })
        if (addresses.length === 0) refuse(name, 'no address')
      } catch (error) {
        signal.throwIfAborted()
        failure = error
        // What was right a moment ago is better than nothing.
        if (known !== undefined) targets.set(name, { ...known, until: clock.now() })
        refuse(name, (error as Error).message)
      }
      return undefined
    }
    const left = names.values()
    const work = async () => {
      for (const name of left) await find(name)
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, work))
    if (names.length > 0 && targets.size === 0) throw failure
    this.#targets = targets
  }

  /** Its IPv4 addresses; the IPv6 ones if it has none. Each server is then there once, however many families it speaks. */
  async #askTarget(name: string, context: ResolveContext): Promise<{ addresses: readonly string[]; ttl: number }> {
    const v4 = await this.#resolver.resolve(name, 'A', context)
    const found = v4.records.length > 0 ? v4 : await this.#resolver.resolve(name, 'AAAA', context)
    return { addresses: found.records.map(({ data }) => canonical(data)), ttl: found.ttl }
  }
}

/** The same choice among records that came unasked; undefined if there are none. */
function pickAddresses(records: readonly DnsRecord[]): { addresses: readonly string[]; ttl: number } | undefined {
  for (const type of ['A', 'AAAA'] as const) {
    const found = records.flatMap((record) => (record.type === type ? [record] : []))
    if (found.length === 0) continue
    return {
      addresses: found.map(({ data }) => canonical(data)),
      ttl: Math.min(...found.map(({ ttl }) => ttl)),
    }
  }
  return undefined
}

/** The servers of service records, by priority. */
function toLevels(
  records: readonly Extract<DnsRecord, { type: 'SRV' }>[],
  addressesOf: (target: string) => readonly string[],
): Found[][] {
  const levels = new Map<number, Map<string, Found>>()
  const seen = new Set<string>()
  for (const { data } of records) {
    const { target, port, priority = 0, weight = 0 } = data
    const record = JSON.stringify([priority, weight, port, target])
    if (seen.has(record)) continue
    seen.add(record)
    for (const host of new Set(addressesOf(target))) {
      const level = levels.get(priority) ?? new Map<string, Found>()
      levels.set(priority, level)
      const { address } = tcpEndpoint('dns', host, port)
      // A weight of 0 is a very small chance (RFC 2782); as it is it would be none. Two names of one server are one server.
      level.set(address, { host, port, weight: (level.get(address)?.weight ?? 0) + Math.max(weight, 1) })
    }
  }
  if (levels.size === 0) return [[]]
  const byKey = <T>([a]: [string | number, T], [b]: [string | number, T]) => (a < b ? -1 : 1)
  return [...levels].sort(byKey).map(([, level]) => [...level].sort(byKey).map(([, found]) => found))
}

/** As the library spells it: an IPv6 address has many spellings. */
function canonical(address: string): string {
  return tcpEndpoint('dns', address, 1).host
}
