/** `upsync …` of nginx-upsync-module: where it gets its servers from. */
import type { NamedBalancer } from '../../balancer/registry.js'
import type { Directive, Report } from './syntax.js'
import { parseTime } from './units.js'

/** A Consul (or etcd) that nginx-upsync follows, with the module's defaults written out. */
export interface NginxUpsync {
  /** Host and port, `127.0.0.1:8500`. */
  readonly address: string
  /** Path of the HTTP API, `/v1/kv/upstreams/test/`; empty if there is none. */
  readonly path: string
  /** `upsync_type`. The module demands one; default `'consul'`. */
  readonly type: 'consul' | 'consul_services' | 'consul_health' | 'etcd'
  /** Milliseconds that the module waits after each answer, `upsync_interval`. Default 5,000. */
  readonly interval: number
  /** Milliseconds that one answer may take, `upsync_timeout`. Default 360,000. */
  readonly timeout: number
  /** Whether nginx starts only if it gets a list: our `required`. Default false. */
  readonly strongDependency: boolean
  /** The file of `upsync_dump_path`: our `snapshot` in its place. */
  readonly dump: string | undefined
  /** `upsync_lb`; it has set `balancer` if no other directive has. */
  readonly lb: 'roundrobin' | 'ip_hash' | 'least_conn' | 'hash_modula' | 'hash_ketama' | undefined
}

const TYPES: readonly NginxUpsync['type'][] = ['consul', 'consul_services', 'consul_health', 'etcd']

const METHODS: ReadonlyMap<string, NamedBalancer> = new Map<string, NamedBalancer>([
  ['roundrobin', { type: 'wrr' }],
  ['least_conn', { type: 'least-connections' }],
  ['ip_hash', { type: 'consistent-hash', hash: 'nginx-ip' }],
  ['hash_modula', { type: 'consistent-hash', hash: 'nginx' }],
  ['hash_ketama', { type: 'consistent-hash', hash: 'nginx' }],
])

/** Collects the directives of one upstream. */
export class Upsync {
  readonly #report: Report
  #given: Omit<NginxUpsync, 'dump' | 'lb'> | undefined
  #dump: string | undefined
  #lb: NginxUpsync['lb']

  constructor(report: Report) {
    this.#report = report
  }

  /** What it says, if there is an `upsync`. */
  get description(): NginxUpsync | undefined {
    return this.#given && { ...this.#given, dump: this.#dump, lb: this.#lb }
  }

  get balancer(): NamedBalancer | undefined {
    return METHODS.get(this.#lb ?? '')
  }

  /** Whether the directive is one of the module's. */
  directive(directive: Directive): boolean {
    const { name, args, at } = directive
    const [value = ''] = args
    switch (name) {
      case 'upsync':
        this.#upsync(directive)
        return true
      case 'upsync_dump_path':
        if (args.length === 1 && value !== '') this.#dump = value
        else this.#report(at, 'expected upsync_dump_path with one file')
        return true
      case 'upsync_lb':
        if (args.length !== 1 || !METHODS.has(value)) this.#report(at, `unknown method: upsync_lb ${args.join(' ')}`)
        else {
          this.#lb = value as NginxUpsync['lb']
          if (value === 'hash_modula') this.#report(at, 'hash_modula: the consistent hash is used, keys go elsewhere')
        }
        return true
      default:
        return false
    }
  }

  #upsync({ args, at }: Directive): void {
    const [, address, path = ''] = /^(?:http:\/\/)?([^/]+)(\/.*)?$/is.exec(args[0] ?? '') ?? []
    if (address === undefined) return this.#report(at, 'expected upsync host:port/path')
    let type: NginxUpsync['type'] = 'consul'
    let interval = 5_000
    let timeout = 360_000
    let strongDependency = false
    for (const parameter of args.slice(1)) {
      const [name = '', value = ''] = parameter.split(/=(.*)/s)
      const time = parseTime(value)
      if (name === 'upsync_interval' && time !== undefined) interval = time
      else if (name === 'upsync_timeout' && time !== undefined) timeout = time
      else if (name === 'upsync_type' && TYPES.includes(value as NginxUpsync['type']))
        type = value as NginxUpsync['type']
      else if (name === 'strong_dependency' && /^(on|off)$/i.test(value))
        strongDependency = value.toLowerCase() === 'on'
      else this.#report(at, `upsync: unknown or wrong parameter ${parameter}`)
    }
    this.#given = { address, path, type, interval, timeout, strongDependency }
  }
}
