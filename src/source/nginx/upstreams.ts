/** From nginx's directives to our options. What has no counterpart is reported; what is wrong is left out and reported. */
import { parseEndpoint } from '../../address.js'
import type { NamedBalancer } from '../../balancer/registry.js'
import type { ServerOptions, UpstreamOptions } from '../../config.js'
import type { Refused } from '../source.js'
import { Check } from './check.js'
import type { Directive, Position, Report } from './syntax.js'
import { parseInteger, parseTime } from './units.js'
import { Upsync, type NginxUpsync } from './upsync.js'

/** Where an `upstream` stands; undefined in a file that is only a part of a configuration. */
export type NginxContext = 'http' | 'stream'

/** An `upstream` block. */
export interface NginxUpstream {
  /**
   * What the block says, and nothing else: its servers, of which each has the parameters that were written, `balancer`,
   * `keepalive` and, of `check …`, `heartbeat`.
   */
  readonly options: UpstreamOptions
  /** The key that `hash` names, as nginx writes it: `'$request_uri'`. Give requests a `hashKey` of the same. */
  readonly hashKey: string | undefined
  /** What `upsync …` says: where nginx-upsync gets the servers from. */
  readonly upsync: NginxUpsync | undefined
  /** Where it stands. */
  readonly context: NginxContext | undefined
  /** Its file and line, as `/etc/nginx/nginx.conf:12`. */
  readonly at: string
}

/** The upstreams of a configuration. */
export interface NginxUpstreams {
  /** By name. */
  readonly upstreams: ReadonlyMap<string, NginxUpstream>
  /** What was left out or has no counterpart, by file and line. */
  readonly refused: readonly Refused[]
}

const where = ({ file, line }: Position) => `${file}:${line}`

/** Finds the upstreams at the top, in `http` and in `stream`. */
export function toUpstreams(directives: readonly Directive[]): NginxUpstreams {
  const upstreams = new Map<string, NginxUpstream>()
  const refused: Refused[] = []
  const report: Report = (at, reason) => refused.push({ at: where(at), reason })
  /** nginx compares names without regard to case. */
  const names = new Map<string, Position>()
  const look = (list: readonly Directive[], context: NginxContext | undefined) => {
    for (const directive of list) {
      const { name, args, at, block } = directive
      if (context === undefined && block !== undefined && (name === 'http' || name === 'stream')) look(block, name)
      else if (name === 'include') report(at, `include ${args.join(' ')}: not followed`)
      else if (name === 'upstream') {
        const [key] = args
        const twin = key === undefined ? undefined : names.get(key.toLowerCase())
        if (key === undefined || key === '' || args.length > 1 || block === undefined) {
          report(at, 'expected upstream with one name and a block')
        } else if (twin !== undefined) report(at, `upstream ${key} is already in ${where(twin)}`)
        else {
          names.set(key.toLowerCase(), at)
          upstreams.set(key, new Block(at, context, report).read(block))
        }
      }
    }
  }
  look(directives, undefined)
  return { upstreams, refused }
}

/** nginx's own memory and connections: without a meaning here, and nothing that anybody would miss. */
const MEANINGLESS: ReadonlySet<string> = new Set([
  ...['zone', 'keepalive_requests', 'keepalive_time', 'keepalive_timeout', 'check_shm_size'],
])

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

class Block {
  readonly #at: Position
  readonly #context: NginxContext | undefined
  readonly #report: Report
  readonly #servers: ServerOptions[] = []
  /** By address. */
  readonly #seen = new Map<string, Position>()
  /** Servers that nginx's ring knows by another name than ours. */
  readonly #otherNames: { at: Position; text: string; address: string }[] = []
  readonly #check: Check
  readonly #upsync: Upsync
  #balancer: NamedBalancer | undefined
  #hashKey: string | undefined
  #keepalive: number | undefined

  constructor(at: Position, context: NginxContext | undefined, report: Report) {
    this.#at = at
    this.#context = context
    this.#report = report
    this.#check = new Check(report)
    this.#upsync = new Upsync(report)
  }

  read(directives: readonly Directive[]): NginxUpstream {
    for (const directive of directives) this.#directive(directive)
    const balancer = this.#balancer ?? this.#upsync.balancer
    const heartbeat = this.#check.heartbeat()
    if (typeof balancer === 'object' && balancer.type === 'consistent-hash' && balancer.hash === 'nginx') {
      for (const { at, text, address } of this.#otherNames) {
        this.#report(at, `nginx hashes this server as ${text}, here it is ${address}: keys go elsewhere`)
      }
    }
    return {
      options: {
        servers: this.#servers,
        ...(balancer !== undefined && { balancer }),
        ...(this.#keepalive !== undefined && { keepalive: this.#keepalive }),
        ...(heartbeat !== undefined && { heartbeat }),
      },
      hashKey: this.#hashKey,
      upsync: this.#upsync.description,
      context: this.#context,
      at: where(this.#at),
    }
  }

  #directive(directive: Directive): void {
    const { name, args, at } = directive
    switch (name) {
      case 'server':
        return this.#server(directive)
      case 'least_conn':
        return this.#method(directive, args.length === 0 ? { type: 'least-connections' } : undefined)
      case 'ip_hash':
        return this.#method(directive, args.length === 0 ? { type: 'consistent-hash', hash: 'nginx-ip' } : undefined)
      case 'hash':
        return this.#hash(directive)
      case 'random':
        return this.#random(directive)
      case 'keepalive': {
        const connections = args.length === 1 ? parseInteger(args[0]!, 1) : undefined
        if (connections === undefined) return this.#report(at, `expected a number from 1: keepalive ${args.join(' ')}`)
        this.#keepalive = connections
        return
      }
      case 'include':
        return this.#report(at, `include ${args.join(' ')}: not there`)
      default:
        if (MEANINGLESS.has(name) || this.#check.directive(directive) || this.#upsync.directive(directive)) return
        return this.#report(at, `unknown directive ${name}`)
    }
  }

  #method({ name, args, at }: Directive, balancer: NamedBalancer | undefined): void {
    if (balancer === undefined) return this.#report(at, `unknown parameters: ${name} ${args.join(' ')}`)
    if (this.#balancer !== undefined) this.#report(at, `${name} takes the place of another method`)
    this.#balancer = balancer
    this.#hashKey = undefined
  }

  #hash(directive: Directive): void {
    const { args, at } = directive
    const [key = '', consistent] = args
    const isKnown = key !== '' && args.length <= 2 && (consistent === undefined || consistent === 'consistent')
    this.#method(directive, isKnown ? { type: 'consistent-hash', hash: 'nginx' } : undefined)
    if (!isKnown) return
    this.#hashKey = key
    if (consistent === undefined)
      this.#report(at, 'hash without consistent: the consistent one is used, keys go elsewhere')
  }

  #random(directive: Directive): void {
    const [two, method = 'least_conn'] = directive.args
    const isKnown = directive.args.length <= 2 && (two === undefined || two === 'two')
    const choices = two === undefined ? 1 : 2
    this.#method(directive, isKnown ? { type: 'random', choices } : undefined)
    if (isKnown && method !== 'least_conn') this.#report(directive.at, `unknown method ${method}: least_conn is used`)
  }

  #server({ args, at }: Directive): void {
    const [address = '', ...parameters] = args
    const refuse = (reason: string) => this.#report(at, `server ${address}: ${reason}`)
    const server: Mutable<ServerOptions> = { address: '' }
    try {
      server.address = parseEndpoint('server', '', this.#withPort(address)).address
    } catch (error) {
      return refuse((error as Error).message.replace(/^server(?:\.|: )/, ''))
    }
    const twin = this.#seen.get(server.address)
    if (twin !== undefined) return refuse(`the same address as in ${where(twin)}`)
    const unknown: string[] = []
    for (const parameter of parameters) {
      const problem = this.#parameter(server, parameter)
      if (problem === 'unknown') unknown.push(parameter)
      else if (problem !== undefined) return refuse(problem)
    }
    for (const parameter of unknown) refuse(`${parameter} has no counterpart and is ignored`)
    this.#seen.set(server.address, at)
    this.#servers.push(server)
    if (address !== server.address) this.#otherNames.push({ at, text: address, address: server.address })
  }

  /** In `http` a port may be left out. */
  #withPort(address: string): string {
    if (/^unix:/i.test(address)) return `unix:${address.slice('unix:'.length)}`
    const hasPort = address.includes(':', address.startsWith('[') ? address.indexOf(']') : 0)
    return hasPort || this.#context === 'stream' ? address : `${address}:80`
  }

  /** Says what is wrong with it, if anything; `unknown` leaves the server as it is without it. */
  #parameter(server: Mutable<ServerOptions>, parameter: string): string | undefined {
    const [name = '', value = ''] = parameter.split(/=(.*)/s)
    const number = parseInteger(value, name === 'weight' ? 1 : 0)
    switch (parameter === name ? name : `${name}=`) {
      case 'weight=':
        server.weight = number
        return number === undefined ? `expected a weight from 1: ${parameter}` : undefined
      case 'max_fails=':
        server.maxFails = number
        return number === undefined ? `expected a number: ${parameter}` : undefined
      case 'max_conns=':
        server.maxConns = number
        return number === undefined ? `expected a number: ${parameter}` : undefined
      case 'fail_timeout=': {
        const time = parseTime(value)
        if (time === undefined) return `expected a time: ${parameter}`
        // nginx counts whole seconds, and a ban of 0 lasts until the next one begins.
        server.failTimeout = time === 0 ? 1_000 : time
        return undefined
      }
      case 'backup':
        server.backup = true
        return undefined
      case 'down':
        server.down = true
        return undefined
      case 'drain':
        server.drain = true
        return undefined
      case 'service=':
        return `${parameter}: its hosts and ports are in DNS, which a source for DNS can follow`
      default:
        return 'unknown'
    }
  }
}
