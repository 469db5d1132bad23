/** An upstream as nginx's configuration: what nginx 1.22 takes, and nothing that would mean something else there. */
import type { NamedBalancer } from '../../balancer/registry.js'
import { oneOf, onlyKeys, record, string } from '../../check.js'
import { compileUpstream, upstreamPath } from '../../compile.js'
import type { ServerConfig, UpstreamConfig, UpstreamOptions } from '../../config.js'
import { ConfigError } from '../../errors.js'
import { MAX_INT } from './units.js'

/** What is done with what nginx cannot say: an error that names it, or it is left out and a comment says so. */
export type NginxUnsupported = 'error' | 'comment'

/** Options of {@link printNginx}. */
export interface PrintNginxOptions {
  /**
   * What is done with what nginx cannot say: a third level, weight 0, draining, a backup under a hash or random, an address
   * with a zone, a policy of ours. Default `'error'`: nothing is written then. With `'comment'` a server that would get more
   * there than here is left out, a time is rounded up to seconds, and a policy becomes round robin.
   */
  readonly unsupported?: NginxUnsupported | undefined
  /** `'block'`: `upstream name { … }`. `'dump'`: `server …;` lines alone, as nginx-upsync dumps them. Default `'block'`. */
  readonly format?: 'block' | 'dump' | undefined
  /** Where it is to stand; `stream` has neither `ip_hash` nor `keepalive`. Default `'http'`. */
  readonly context?: 'http' | 'stream' | undefined
  /** What `hash … consistent` hashes, as nginx writes it: `'$request_uri'`. Needed for the policy that hashes as nginx does. */
  readonly hashKey?: string | undefined
}

const OPTION_KEYS = new Set(['unsupported', 'format', 'context', 'hashKey'])

/** Bytes of one word with its quotes: nginx reads through a buffer of 4,096, which what ends the word must fit into. */
const LONGEST_WORD = 4_094

/** Checks the options, with their defaults. */
export function checkPrintOptions(path: string, value: unknown) {
  const options = record(path, '', value)
  onlyKeys(path, options, OPTION_KEYS)
  const { hashKey } = options
  return {
    unsupported: oneOf(path, 'unsupported', options['unsupported'] ?? 'error', ['error', 'comment']),
    format: oneOf(path, 'format', options['format'] ?? 'block', ['block', 'dump']),
    context: oneOf(path, 'context', options['context'] ?? 'http', ['http', 'stream']),
    hashKey: hashKey === undefined ? undefined : string(path, 'hashKey', hashKey),
  }
}

/**
 * An upstream as text for nginx. A level after the first becomes `backup`. How requests are made of it (`tries`, `timeouts`,
 * `heartbeat`, …) is said elsewhere in nginx, and not here.
 *
 * @throws ConfigError naming what nginx cannot say
 */
export function printNginx(name: string, upstream: UpstreamOptions, options: PrintNginxOptions = {}): string {
  const checked = checkPrintOptions('printNginx', options)
  const path = upstreamPath(string('printNginx', 'name', name))
  return new Printing(path, name, upstream, compileUpstream(path, upstream), checked).print()
}

interface Entry {
  readonly path: string
  readonly server: ServerConfig
}

class Printing {
  readonly #path: string
  readonly #name: string
  readonly #given: UpstreamOptions
  readonly #config: UpstreamConfig
  readonly #options: ReturnType<typeof checkPrintOptions>
  readonly #comments: string[] = []

  constructor(
    path: string,
    name: string,
    given: UpstreamOptions,
    config: UpstreamConfig,
    options: ReturnType<typeof checkPrintOptions>,
  ) {
    this.#path = path
    this.#name = name
    this.#given = given
    this.#config = config
    this.#options = options
  }

  print(): string {
    const isBlock = this.#options.format === 'block'
    const name = isBlock ? word(this.#path, this.#name) : ''
    const method = this.#method()
    const tiers = this.#tiers(method !== undefined && method !== 'least_conn')
    const servers = tiers.flatMap((tier, i) => tier.map((entry) => this.#server(entry, i > 0)))
    if (servers.length === 0) this.#cannot(this.#path, 'expected a server: nginx takes no upstream without')
    const keepalive = this.#keepalive()
    const lines = isBlock
      ? [method, ...servers, keepalive].flatMap((line) => (line === undefined ? [] : [`${line};`]))
      : servers.map((server) => `${server};`)
    const comments = this.#comments.map((comment) => `# left out: ${comment}`)
    if (!isBlock) return text([...comments, ...lines])
    if (servers.length === 0) return text(comments)
    return text([`upstream ${name} {`, ...[...comments, ...lines].map((line) => `    ${line}`), '}'])
  }

  #cannot(path: string, problem: string): void {
    if (this.#options.unsupported === 'error') throw new ConfigError(path, problem)
    this.#comments.push(`${path}: ${problem}`)
  }

  /** nginx has two tiers: servers and, when none of these is left, backups. An empty one does not count. */
  #tiers(withoutBackup: boolean): Entry[][] {
    const { levels, keyed } = this.#config
    const used = levels.filter(({ servers }) => servers.length > 0)
    if (keyed && used.length > 1) this.#cannot(`${this.#path}.cluster`, 'nginx has no named clusters, only levels')
    const tiers = levels
      .flatMap(({ name, servers }) => {
        const entries = servers.map((server, i): Entry => ({ path: this.#serverPath(name, i), server }))
        return [false, true].map((backup) => entries.filter(({ server }) => server.backup === backup))
      })
      .map((tier) => tier.filter((entry) => this.#isSayable(entry)))
      .filter((tier) => tier.length > 0)
    const most = withoutBackup ? 1 : 2
    for (const { path } of tiers.slice(most).flat()) {
      this.#cannot(path, withoutBackup ? 'under this policy nginx has no backups' : 'nginx has no third level')
    }
    return tiers.slice(0, most)
  }

  #serverPath(level: string, i: number): string {
    if (this.#given.cluster === undefined) return `${this.#path}.servers[${i}]`
    return `${this.#path}.cluster[${this.#config.keyed ? JSON.stringify(level) : level}].servers[${i}]`
  }

  /** Left out is a server of which nginx would make more than it is. */
  #isSayable({ path, server }: Entry): boolean {
    const { endpoint, weight, drain } = server
    const problem =
      weight === 0
        ? 'nginx has no weight 0'
        : drain
          ? 'nginx cannot drain a server'
          : endpoint.host.includes('%')
            ? 'nginx takes no zone of an IPv6 address'
            : endpoint.host === 'unix'
              ? 'nginx takes this name for a unix socket'
              : wordProblem(endpoint.address)
    if (problem === undefined) return true
    this.#cannot(path, problem)
    return false
  }

  #server({ path, server }: Entry, isBackup: boolean): string {
    const { endpoint, weight, maxFails, failTimeout, maxConns, down } = server
    let seconds = failTimeout / 1_000
    if (!Number.isInteger(seconds) || seconds > MAX_INT) {
      this.#cannot(`${path}.failTimeout`, `nginx has whole seconds, got ${failTimeout} ms`)
      seconds = Math.min(Math.ceil(seconds), MAX_INT)
    }
    const all = this.#options.format === 'dump'
    const words = [
      'server',
      word(path, endpoint.address),
      ...(all || weight !== 1 ? [`weight=${weight}`] : []),
      ...(all || maxFails !== 1 ? [`max_fails=${maxFails}`] : []),
      ...(all || seconds !== 10 ? [`fail_timeout=${seconds}s`] : []),
      ...(maxConns > 0 ? [`max_conns=${maxConns}`] : []),
      ...(isBackup ? ['backup'] : []),
      ...(down ? ['down'] : []),
    ]
    return words.join(' ')
  }

  #keepalive(): string | undefined {
    const { keepalive } = this.#given
    return keepalive === undefined || keepalive === 0 || this.#options.context === 'stream'
      ? undefined
      : `keepalive ${keepalive}`
  }

  /** Undefined for round robin. */
  #method(): string | undefined {
    const { balancer } = this.#config.settings
    if (typeof balancer === 'function') return this.#noMethod('nginx does not have this policy')
    const policy: NamedBalancer = typeof balancer === 'string' ? { type: balancer } : balancer
    switch (policy.type) {
      case 'wrr':
        return undefined
      case 'least-connections':
        return policy.choices === 2 ? this.#noMethod('nginx does not draw two for least_conn') : 'least_conn'
      case 'random':
        return policy.choices === 2 ? 'random two least_conn' : 'random'
      case 'consistent-hash': {
        const { hash, boundedLoad, sticky } = policy
        if (hash !== 'nginx' && hash !== 'nginx-ip') {
          return this.#noMethod('nginx has another ring; with hash "nginx" it is the same')
        }
        if (boundedLoad !== undefined) return this.#noMethod('nginx does not have boundedLoad')
        if (sticky !== undefined) return this.#noMethod('nginx does not have sticky keys')
        return hash === 'nginx' ? this.#hash() : this.#ipHash()
      }
      default:
        return this.#noMethod(`nginx does not have ${policy.type}`)
    }
  }

  #hash(): string | undefined {
    const { hashKey, format } = this.#options
    if (format === 'dump') return 'hash'
    if (hashKey === undefined) return this.#noMethod('nginx must know what to hash: give hashKey, as "$request_uri"')
    return `hash ${word('printNginx.hashKey', hashKey)} consistent`
  }

  #ipHash(): string | undefined {
    return this.#options.context === 'stream' ? this.#noMethod('nginx has no ip_hash in stream') : 'ip_hash'
  }

  #noMethod(problem: string): string | undefined {
    // A dump stands in a block that says it.
    if (this.#options.format === 'block') this.#cannot(`${this.#path}.balancer`, problem)
    return undefined
  }
}

const text = (lines: readonly string[]) => lines.map((line) => `${line}\n`).join('')

const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['\n', '\\n'],
  ['\r', '\\r'],
  ['\t', '\\t'],
])

function quoted(value: string): string {
  if (/^[\w$.:/[\]%=@,+~!*?&<>()|^-]+$/.test(value)) return value
  return `"${value.replace(/["\\\n\r\t]/g, (char) => ESCAPES.get(char) ?? `\\${char}`)}"`
}

/** Why nginx could not read it, if so. */
function wordProblem(value: string): string | undefined {
  if (/\0|\p{Surrogate}/u.test(value)) return 'it has characters that a file for nginx cannot have'
  return Buffer.byteLength(quoted(value)) > LONGEST_WORD ? `nginx takes at most ${LONGEST_WORD} bytes` : undefined
}

function word(path: string, value: string): string {
  const problem = wordProblem(value)
  if (problem === undefined) return quoted(value)
  throw new ConfigError(path, problem)
}
