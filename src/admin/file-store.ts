/** A file that keeps what operators have changed, and brings it back. */
import { mkdir, readFile, rename } from 'node:fs/promises'
import { dirname, resolve } from 'node:path'
import { array, onlyKeys, record, string } from '../check.js'
import { isWhole, serverAddress } from '../compile.js'
import type { Cluster, ServerOptions, UpstreamOptions } from '../config.js'
import { ConfigError, UnknownPeerError, UnknownUpstreamError } from '../errors.js'
import { syncFolder, writeSynced } from '../source/lib/replace-file.js'
import { parseJson } from '../source/lib/text.js'
import type { Source, SourceContext, SourceLists, SourceOptions } from '../source/source.js'
import type { ServerChange } from '../upstream/edit.js'
import type { Stored, UpstreamStore } from './store.js'

/** Options of {@link FileStore}. */
export interface FileStoreOptions {
  /** The file, which is this process's alone; its folder is made if it is not there. */
  readonly path: string
}

type Value = Cluster | UpstreamOptions
type Servers = readonly (ServerOptions | string)[]

interface Content {
  readonly upstreams: ReadonlyMap<string, Value>
  /** Upstreams that are not to be, though the program has them. */
  readonly deleted: ReadonlySet<string>
}

const EMPTY: Content = { upstreams: new Map(), deleted: new Set() }

/**
 * Keeps upstreams in a JSON file, written whole or not at all: it is synced before it takes the place of the one before, so
 * that what was accepted survives the end of the process, and of the machine.
 *
 * It is a source as well: give it to the instance, and to the admin interface.
 *
 * @example
 * ```ts
 * const store = new FileStore({ path: '/var/lib/gateway/upstreams.json' })
 * const checkups = new Checkups({ upstreams, sources: [store] })
 * await checkups.start()
 * await createAdminServer(checkups, { store, tokens })
 * ```
 */
export class FileStore implements UpstreamStore, Source {
  readonly name: string
  /** What is deleted here was somebody's hand. */
  readonly options: SourceOptions = { prune: true, allowEmpty: true }
  readonly #path: string
  #content: Content | undefined
  #apply: ((lists: SourceLists) => void) | undefined
  /** The write under way, and those that wait. */
  #last: Promise<unknown> = Promise.resolve()

  /** @throws `ConfigError` */
  constructor(options: FileStoreOptions) {
    const given = record('FileStore', '', options)
    onlyKeys('FileStore', given, new Set(['path']))
    this.#path = resolve(string('FileStore', 'path', given['path']))
    this.name = `store:${this.#path}`
  }

  /** See {@link UpstreamStore}. */
  put(
    key: string,
    upstream: Cluster | UpstreamOptions,
    { check }: { check?: ((stored: Cluster | UpstreamOptions | undefined) => void) | undefined } = {},
  ): Promise<Stored> {
    return this.#edit(key, (before) => {
      check?.(before)
      if (isWhole(upstream) || before === undefined || !isWhole(before)) return upstream
      const { servers: _servers, cluster: _cluster, ...options } = before
      return { ...options, cluster: upstream }
    })
  }

  /** See {@link UpstreamStore}. */
  patchServer(key: string, address: string, change: ServerChange): Promise<Stored> {
    return this.#editServers(key, address, (servers) =>
      servers.map((server) => {
        if (addressOf(server) !== address) return server
        return { ...(typeof server === 'string' ? { address: server } : server), ...change }
      }),
    )
  }

  /** See {@link UpstreamStore}. */
  addServer(
    key: string,
    server: ServerOptions | string,
    options: { level?: string | undefined } = {},
  ): Promise<Stored> {
    const { level } = options
    return this.#edit(key, (before) => {
      const path = `${this.#path}: ${key}`
      const levels = levelsOf(path, must(key, before))
      const name = level ?? levels[0]?.[0]
      if (!levels.some(([at]) => at === name)) throw new ConfigError(path, `no level ${JSON.stringify(level)}`)
      return withLevels(path, before!, (servers, at) => (at === name ? [...servers, server] : servers))
    })
  }

  /** See {@link UpstreamStore}. */
  removeServer(key: string, address: string): Promise<Stored> {
    return this.#editServers(key, address, (servers) => servers.filter((server) => addressOf(server) !== address))
  }

  /** See {@link UpstreamStore}. */
  delete(key: string): Promise<Stored> {
    return this.#write(({ upstreams, deleted }) => {
      if (!upstreams.has(key) && deleted.has(key)) return undefined
      const others = new Map(upstreams)
      others.delete(key)
      return { upstreams: others, deleted: new Set(deleted).add(key) }
    })
  }

  /** See {@link Source}. */
  async watch(apply: (lists: SourceLists) => void, { signal }: SourceContext): Promise<void> {
    await this.#queue(async () => {
      this.#tell(apply, await this.#load())
      this.#apply = apply
    })
    await new Promise<void>((resolve) => {
      if (signal.aborted) resolve()
      else signal.addEventListener('abort', () => resolve(), { once: true })
    })
    if (this.#apply === apply) this.#apply = undefined
  }

  #editServers(key: string, address: string, edit: (servers: Servers) => Servers): Promise<Stored> {
    return this.#edit(key, (before) => {
      const path = `${this.#path}: ${key}`
      const has = levelsOf(path, must(key, before)).some(([, servers]) =>
        servers.some((one) => addressOf(one) === address),
      )
      if (!has) throw new UnknownPeerError(key, address)
      return withLevels(path, before!, edit)
    })
  }

  #edit(key: string, edit: (before: Value | undefined) => Value): Promise<Stored> {
    return this.#write(({ upstreams, deleted }) => {
      const before = upstreams.get(key)
      const after = toJson(`${this.#path}: ${key}`, edit(before)) as Value
      if (JSON.stringify(before) === JSON.stringify(after)) return undefined
      const others = new Set(deleted)
      others.delete(key)
      return { upstreams: new Map(upstreams).set(key, after), deleted: others }
    })
  }

  /** In use, and told, only once it is on the disk. */
  #write(edit: (content: Content) => Content | undefined): Promise<Stored> {
    return this.#queue(async () => {
      const content = edit(await this.#load())
      if (content === undefined) return { changed: false }
      await this.#save(content)
      this.#content = content
      if (this.#apply !== undefined) this.#tell(this.#apply, content)
      return { changed: true }
    })
  }

  #queue<T>(task: () => Promise<T>): Promise<T> {
    const done = this.#last.then(task)
    this.#last = done.catch(() => undefined)
    return done
  }

  #tell(apply: (lists: SourceLists) => void, { upstreams, deleted }: Content): void {
    apply({ upstreams, deleted: [...deleted] })
  }

  async #load(): Promise<Content> {
    if (this.#content !== undefined) return this.#content
    try {
      this.#content = parse(await readFile(this.#path, 'utf8'))
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
        throw new Error(`${this.#path}: ${(error as Error).message}`, { cause: error })
      }
      this.#content = EMPTY
    }
    return this.#content
  }

  async #save({ upstreams, deleted }: Content): Promise<void> {
    const content = { upstreams: Object.fromEntries(upstreams), deleted: [...deleted] }
    const folder = dirname(this.#path)
    await mkdir(folder, { recursive: true })
    const temporary = `${this.#path}.${process.pid}.tmp`
    // Options may hold passwords.
    await writeSynced(temporary, `${JSON.stringify(content, null, 2)}\n`, 0o600)
    await rename(temporary, this.#path)
    await syncFolder(folder)
  }
}

function parse(text: string): Content {
  const content = record('store', '', parseJson(text))
  onlyKeys('store', content, new Set(['upstreams', 'deleted']))
  const upstreams = Object.entries(record('store', 'upstreams', content['upstreams'] ?? {})) as [string, Value][]
  const deleted = array('store', 'deleted', content['deleted'] ?? []).map((key, i) =>
    string('store', `deleted[${i}]`, key),
  )
  return { upstreams: new Map(upstreams), deleted: new Set(deleted) }
}

function must(key: string, value: Value | undefined): Value {
  if (value === undefined) throw new UnknownUpstreamError(key)
  return value
}

/** By name; those of an array by their place. */
function levelsOf(path: string, value: Value): readonly (readonly [string, Servers])[] {
  if (isWhole(value) && value.servers !== undefined) return [['0', value.servers]]
  const cluster = isWhole(value) ? value.cluster! : value
  return Object.entries(cluster).map(([name, level]) => [name, array(path, 'servers', level.servers) as Servers])
}

function withLevels(path: string, value: Value, edit: (servers: Servers, level: string) => Servers): Value {
  const levels = levelsOf(path, value).map(([name, servers]) => [name, { servers: edit(servers, name) }] as const)
  const isArray = Array.isArray(isWhole(value) ? value.cluster : value)
  const cluster = isArray ? levels.map(([, level]) => level) : Object.fromEntries(levels)
  if (!isWhole(value)) return cluster
  return value.servers === undefined ? { ...value, cluster } : { ...value, servers: levels[0]![1].servers }
}

const addressOf = (server: ServerOptions | string) => serverAddress('server', server)

/** As JSON has it, so that it is the same after a restart. */
function toJson(path: string, value: unknown): unknown {
  if (value === null || typeof value === 'string' || typeof value === 'boolean') return value
  if (typeof value === 'number' && Number.isFinite(value)) return value
  if (Array.isArray(value)) return value.map((item, i) => toJson(`${path}[${i}]`, item))
  const isPlain =
    typeof value === 'object' && [Object.prototype, null].includes(Object.getPrototypeOf(value) as object | null)
  if (!isPlain) throw new ConfigError(path, 'cannot be kept in a file: it is no JSON')
  const entries = Object.entries(value).filter(([, item]) => item !== undefined)
  return Object.fromEntries(entries.map(([key, item]) => [key, toJson(`${path}.${key}`, item)]))
}
