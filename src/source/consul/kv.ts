/** The key-value store as a source. */
import { boolean, expected, oneOf, onlyKeys, record, string } from '../../check.js'
import { ConfigError } from '../../errors.js'
import { SOURCE_OPTIONS, type Source, type SourceContext, type SourceLists, type SourceOptions } from '../source.js'
import { BlockingQuery } from './blocking-query.js'
import { atMostTenMinutes, Connection, CONNECTION_OPTIONS, type ConsulConnectionOptions } from './connection.js'
import { ConsulError } from './error.js'
import type { KvEntry, Layout } from './layout.js'
import { slardarLayout } from './slardar.js'
import { upsyncLayout } from './upsync.js'

/** How long Consul may let a source wait, and how exactly it answers. */
export interface ConsulQueryOptions {
  /**
   * Milliseconds after which an ask without a change ends, for the next. Default 60,000, consul-template's: it is also how
   * long a connection may be dead that nobody has closed.
   */
  readonly wait?: number | undefined
  /** Whether a server may answer that is not the leader: then there are answers without one too. Default false. */
  readonly stale?: boolean | undefined
}

/** Options of {@link consulKv}. */
export interface ConsulKvOptions extends ConsulConnectionOptions, ConsulQueryOptions, SourceOptions {
  /** Where the upstreams are: a folder of keys. With or without its slash, it never means another that begins alike. */
  readonly prefix: string
  /**
   * `'upsync'`: nginx-upsync's `<prefix>/<upstream>/<host:port>`. `'slardar'`: `<prefix>/upstreams/<name>`, with levels.
   */
  readonly layout: 'upsync' | 'slardar'
  /** Only with `upsync`: the prefix is the folder of this one upstream. Default: every folder below the prefix is one. */
  readonly upstream?: string | undefined
  /** For status and events. Default `'consul:<prefix>'`. */
  readonly name?: string | undefined
}

const KEYS = new Set([
  'prefix',
  'layout',
  'upstream',
  'name',
  'wait',
  'stale',
  ...CONNECTION_OPTIONS,
  ...SOURCE_OPTIONS,
])

/**
 * Upstreams from Consul's key-value store. One blocking query reads the whole prefix: a change is here in milliseconds.
 *
 * @throws `ConfigError`
 */
export function consulKv(options: ConsulKvOptions): Source {
  const given = record('consulKv', '', options)
  onlyKeys('consulKv', given, KEYS)
  const layout = parseLayout('consulKv', given)
  const name = string('consulKv', 'name', given['name'] ?? `consul:${layout.folder}`)
  const query = parseQuery('consulKv', given)
  const source = new KvSource(new Connection('consulKv', given), layout, query)
  return { name, options: sourceOptions(options), watch: (apply, context) => source.watch(apply, context) }
}

export function parseLayout(path: string, options: Record<string, unknown>): Layout {
  const prefix = string(path, 'prefix', options['prefix'])
  if (/^\/*$/.test(prefix)) throw expected(path, 'prefix', 'a folder of keys', prefix)
  const layout = oneOf(path, 'layout', options['layout'], ['upsync', 'slardar'])
  const { upstream } = options
  if (layout === 'upsync') {
    return upsyncLayout(prefix, upstream === undefined ? undefined : string(path, 'upstream', upstream))
  }
  if (upstream !== undefined) throw new ConfigError(`${path}.upstream`, 'only with the layout "upsync"')
  return slardarLayout(prefix)
}

interface Query {
  readonly wait: number
  readonly stale: boolean
}

export function parseQuery(path: string, { wait = 60_000, stale = false }: Record<string, unknown>): Query {
  return { wait: atMostTenMinutes(path, 'wait', wait), stale: boolean(path, 'stale', stale) }
}

export function sourceOptions(options: SourceOptions): SourceOptions {
  return Object.fromEntries(
    SOURCE_OPTIONS.filter((key) => options[key] !== undefined).map((key) => [key, options[key]]),
  )
}

/** An entry, as the client gives it. */
interface Item {
  readonly Key: string
  readonly Value: Buffer | null
}

class KvSource {
  readonly #layout: Layout
  readonly #query: BlockingQuery<readonly Item[] | undefined>
  /** A key that was there, and may be read by itself. */
  #probe: string

  constructor(connection: Connection, layout: Layout, { wait, stale }: Query) {
    this.#layout = layout
    this.#probe = layout.folder
    this.#query = new BlockingQuery(connection, wait, (client, options) => {
      return client.kv.get({ ...options, key: layout.folder, recurse: true, buffer: true, stale }) as never
    })
  }

  async watch(apply: (lists: SourceLists) => void, { signal, clock }: SourceContext): Promise<void> {
    const answer = await this.#query.ask(signal, clock)
    const items = answer.body ?? []
    if (items.length === 0) await this.#refuseDenied(signal)
    else this.#probe = items[0]!.Key
    apply(this.#layout.parse(items.map(({ Key: key, Value: value }): KvEntry => ({ key, value }))))
    answer.applied()
  }

  /** To a token without rights every prefix looks empty; a single key is denied. */
  async #refuseDenied(signal: AbortSignal): Promise<void> {
    await this.#query
      .call(signal, (client, options) => client.kv.get({ ...options, key: this.#probe }))
      .catch((error: unknown) => {
        if (!(error instanceof ConsulError) || error.reason !== 'denied') throw error
        const message = `denied: the token may not read ${JSON.stringify(this.#probe)}, so that all looks empty`
        throw new ConsulError('denied', message, { status: 403, cause: error })
      })
  }
}
