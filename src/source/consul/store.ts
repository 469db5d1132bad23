/** Changes written to the key-value store, from where every process that watches it has them. */
import { parseEndpoint } from '../../address.js'
import { array, expected, integer, onlyKeys, record, string } from '../../check.js'
import type { Cluster, LevelOptions, ServerOptions, UpstreamOptions } from '../../config.js'
import { ConfigError, UnknownPeerError, UnknownUpstreamError } from '../../errors.js'
import { isKey } from './config.js'
import { Connection, CONNECTION_OPTIONS, type Caller, type ConsulConnectionOptions } from './connection.js'
import { ConsulError } from './error.js'
import { parseLayout } from './kv.js'
import type { Layout } from './layout.js'
import { printSlardarValue, type SlardarValue } from './slardar.js'
import { parseUpsyncValue, printUpsyncValue } from './upsync.js'
import { defined, isOptions, parseWireServer, printWireServer, splitServer, WIRE_NAMES } from './wire.js'
import type { SplitServer, WireServer } from './wire.js'

/** Options of {@link ConsulStore}. */
export interface ConsulStoreOptions extends ConsulConnectionOptions {
  /** As of `consulKv`. */
  readonly prefix: string
  /** As of `consulKv`; the prefix of `upsync` is that of all upstreams. */
  readonly layout: 'upsync' | 'slardar'
  /**
   * How often a write is tried again, on fresh data, that somebody else was faster with; then it is a conflict. Default 100:
   * of all who write at once one succeeds each time.
   */
  readonly retries?: number | undefined
}

/** What a write has done. */
export interface StoreResult {
  /** Whether anything was written: what is there already is not written again. */
  readonly changed: boolean
  /** How often somebody else was faster. */
  readonly retries: number
}

const KEYS = new Set(['prefix', 'layout', 'retries', ...CONNECTION_OPTIONS])

/** A key, as the client gives it. */
interface Item {
  readonly Key: string
  readonly Value: Buffer | null
  readonly ModifyIndex: number
}

const textOf = ({ Value }: Item) => Value?.toString() ?? ''

/** Whether a try wrote something, or lost against somebody else. */
type Written = 'changed' | 'same' | 'conflict'

/**
 * Writes upstreams to Consul's key-value store, each key only if it is still what it was when it was read. Every process that
 * watches the prefix has the change then, this one too: nothing is changed but by that way.
 *
 * All calls reject with a `ConsulError` if Consul did not do it.
 */
export class ConsulStore {
  readonly #connection: Connection
  readonly #caller: Caller
  readonly #layout: Layout
  readonly #writer: Writer
  readonly #retries: number

  /** @throws `ConfigError` */
  constructor(options: ConsulStoreOptions) {
    const given = record('ConsulStore', '', options)
    onlyKeys('ConsulStore', given, KEYS)
    this.#layout = parseLayout('ConsulStore', given)
    this.#retries = integer('ConsulStore', 'retries', given['retries'] ?? 100, 0, 2 ** 31 - 1)
    this.#connection = new Connection('ConsulStore', given)
    this.#caller = this.#connection.caller()
    const keys = new Keys(this.#caller)
    this.#writer = given['layout'] === 'upsync' ? new UpsyncWriter(keys) : new SlardarWriter(keys)
  }

  /**
   * Writes an upstream: a cluster alone leaves its other fields as they are, a whole configuration replaces them. In the
   * layout of upsync it is one transaction up to 64 keys; beyond, new servers are written before old ones are deleted.
   *
   * `check` is called with what is there before it is written over, undefined if nothing is; what it throws is what this
   * rejects with, and nothing is written.
   */
  async put(
    key: string,
    upstream: Cluster | UpstreamOptions,
    { check }: { readonly check?: ((stored: Cluster | UpstreamOptions | undefined) => void) | undefined } = {},
  ): Promise<StoreResult> {
    const look = (items: readonly Item[]) => {
      if (check === undefined) return
      const { upstreams } = this.#layout.parse(items.map(({ Key, Value }) => ({ key: Key, value: Value })))
      check((upstreams as ReadonlyMap<string, Cluster | UpstreamOptions>).get(key))
    }
    return this.#try(key, (at) => this.#writer.put(at, key, upstream, look))
  }

  /**
   * Changes a server, in every level that has it. What the change does not name stays; a function gets what is there, also
   * on every further try.
   *
   * @throws `UnknownUpstreamError` · `UnknownPeerError`
   */
  async patchServer(
    key: string,
    address: string,
    change: WireServer | ((server: WireServer) => WireServer),
  ): Promise<StoreResult> {
    const { address: canonical } = parseEndpoint('address', '', string('address', '', address))
    const apply = (server: WireServer) => ({
      ...server,
      ...defined(typeof change === 'function' ? change(server) : change),
    })
    return this.#try(key, (at) => this.#writer.patch(at, key, canonical, apply))
  }

  /**
   * Adds a server at the end of a level: the named one, or the first.
   *
   * @throws `UnknownUpstreamError` · `ConfigError`, also if the level has it already
   */
  async addServer(
    key: string,
    server: ServerOptions | string,
    { level }: { readonly level?: string | undefined } = {},
  ): Promise<StoreResult> {
    const split = splitServer('server', server)
    return this.#try(key, (at) => this.#writer.add(at, key, split, level))
  }

  /**
   * Removes a server, from every level that has it.
   *
   * @throws `UnknownUpstreamError` · `UnknownPeerError`
   */
  async removeServer(key: string, address: string): Promise<StoreResult> {
    const { address: canonical } = parseEndpoint('address', '', string('address', '', address))
    return this.#try(key, (at) => this.#writer.remove(at, key, canonical))
  }

  /** Deletes an upstream. That there was none is no error: nothing has changed. */
  async delete(key: string): Promise<StoreResult> {
    return this.#try(key, (at) => this.#writer.delete(at))
  }

  /** Closes the connections that are idle. */
  close(): void {
    this.#connection.release()
  }

  async #try(key: string, write: (at: string) => Promise<Written>): Promise<StoreResult> {
    if (typeof key !== 'string' || !isKey(key) || key.includes('/')) throw expected('key', '', 'the name of a key', key)
    const at = `${this.#layout.folder}${key}`
    let changed = false
    for (let retries = 0; ; retries++) {
      const written = await write(at)
      changed ||= written === 'changed'
      if (written !== 'conflict') return { changed, retries }
      if (retries === this.#retries) {
        throw new ConsulError('conflict', `${at}: somebody else wrote each of ${retries + 1} times`)
      }
    }
  }
}

/** Reads and writes of single keys. */
class Keys {
  readonly #caller: Caller

  constructor(caller: Caller) {
    this.#caller = caller
  }

  async read(key: string): Promise<Item | undefined> {
    const [head, item] = await this.#caller.call((client, common) => client.kv.get({ ...common, key, buffer: true }))
    return head.statusCode === 404 ? undefined : (item as Item)
  }

  async list(folder: string): Promise<readonly Item[]> {
    const [head, items] = await this.#caller.call((client, common) =>
      client.kv.get({ ...common, key: folder, recurse: true, buffer: true }),
    )
    return head.statusCode === 404 ? [] : (items as readonly Item[])
  }

  /** Makes all changes or, if a key is not what it was any more, none. More than a transaction takes are several. */
  async write(changes: readonly Change[]): Promise<Written> {
    for (let from = 0; from < changes.length; from += MAX_CHANGES) {
      const operations = changes.slice(from, from + MAX_CHANGES).map(({ key, index, value }) => ({
        KV: {
          Verb: value === undefined ? 'delete-cas' : 'cas',
          Key: key,
          Index: index,
          ...(value !== undefined && { Value: Buffer.from(value).toString('base64') }),
        },
      }))
      if (!(await this.#transact(operations))) return 'conflict'
    }
    return changes.length === 0 ? 'same' : 'changed'
  }

  async #transact(operations: readonly object[]): Promise<boolean> {
    try {
      await this.#caller.call((client, common) => client.transaction.create(operations, common), { once: true })
      return true
    } catch (error) {
      if (!(error instanceof ConsulError) || error.status !== 409) throw error
      const why = rollBack(error.cause)
      if (why.includes('index is stale')) return false
      const denied = why.includes('Permission denied')
      throw new ConsulError(denied ? 'denied' : 'refused', `${denied ? 'denied' : 'rolled back'}: ${why}`, {
        ...{ status: 409, cause: error },
      })
    }
  }
}

/** What Consul says of a transaction that it has not done, of the first operation that failed. */
function rollBack(error: unknown): string {
  const { body } = (error as { response: { body?: { Errors?: readonly { What?: unknown }[] } } }).response
  const why = body?.Errors?.[0]?.What
  return typeof why === 'string' ? why : 'without a reason'
}

/** The operations that Consul takes in a transaction. */
const MAX_CHANGES = 64

/** A key written, or deleted if there is no value, if its index is still this one; 0: if it is not there. */
interface Change {
  readonly key: string
  readonly index: number
  readonly value?: string
}

const deletion = ({ Key: key, ModifyIndex: index }: Item): Change => ({ key, index })

type Look = (items: readonly Item[]) => void

interface Writer {
  /** `look` is given all that is there, and may throw. */
  put(at: string, key: string, upstream: Cluster | UpstreamOptions, look: Look): Promise<Written>
  patch(at: string, key: string, address: string, change: (server: WireServer) => WireServer): Promise<Written>
  add(at: string, key: string, server: SplitServer, level: string | undefined): Promise<Written>
  remove(at: string, key: string, address: string): Promise<Written>
  delete(at: string): Promise<Written>
}

const ONE_LEVEL = 'only one level can be written in the layout of upsync'
const NO_SOCKET = 'a unix socket cannot be written in the layout of upsync'

class UpsyncWriter implements Writer {
  readonly #keys: Keys

  constructor(keys: Keys) {
    this.#keys = keys
  }

  async put(at: string, key: string, upstream: Cluster | UpstreamOptions, look: Look): Promise<Written> {
    const wanted = upsyncServers(key, upstream)
    const there = await this.#keys.list(`${at}/`)
    look(there)
    const known = new Map(there.map((item) => [item.Key.slice(at.length + 1), item]))
    // New servers first: of several transactions the one before leaves servers.
    const changes: Change[] = []
    for (const [name, value] of wanted) {
      const item = known.get(name)
      if (item === undefined || textOf(item) !== value) {
        changes.push({ key: `${at}/${name}`, index: item?.ModifyIndex ?? 0, value })
      }
    }
    for (const [name, item] of known) {
      // A key that ends in a slash is a folder, which stays.
      if (!wanted.has(name) && name !== '') changes.push(deletion(item))
    }
    return this.#keys.write(changes)
  }

  async patch(at: string, key: string, address: string, change: (server: WireServer) => WireServer): Promise<Written> {
    const item = await this.#find(at, key, address)
    const value = printUpsyncValue(change(parseUpsyncValue(item.Key, item.Value)))
    parseUpsyncValue(`${key}.${address}`, Buffer.from(value))
    return this.#keys.write(value === textOf(item) ? [] : [{ key: item.Key, index: item.ModifyIndex, value }])
  }

  async add(at: string, key: string, { endpoint, wire }: SplitServer, level: string | undefined): Promise<Written> {
    if (level !== undefined && level !== '0') throw new ConfigError(`${key}.cluster`, ONE_LEVEL)
    if (endpoint.path !== undefined) throw new ConfigError(key, NO_SOCKET)
    const there = await this.#keys.list(`${at}/`)
    if (there.length === 0) throw new UnknownUpstreamError(key)
    const value = printUpsyncValue(wire)
    parseUpsyncValue(key, Buffer.from(value))
    const name = `${at}/${endpoint.address}`
    const item = there.find(({ Key }) => Key === name)
    if (item !== undefined && textOf(item) !== value) throw new ConfigError(key, `${endpoint.address} is there already`)
    return this.#keys.write(item === undefined ? [{ key: name, index: 0, value }] : [])
  }

  async remove(at: string, key: string, address: string): Promise<Written> {
    return this.#keys.write([deletion(await this.#find(at, key, address))])
  }

  async #find(at: string, key: string, address: string): Promise<Item> {
    const item = await this.#keys.read(`${at}/${address}`)
    if (item !== undefined) return item
    if ((await this.#keys.list(`${at}/`)).length === 0) throw new UnknownUpstreamError(key)
    throw new UnknownPeerError(key, address)
  }

  async delete(at: string): Promise<Written> {
    return this.#keys.write((await this.#keys.list(`${at}/`)).map(deletion))
  }
}

/** The values of the keys, by address. */
function upsyncServers(key: string, upstream: Cluster | UpstreamOptions): ReadonlyMap<string, string> {
  const { cluster, servers, maxFails, failTimeout, maxConns, ...rest } = isOptions(upstream)
    ? upstream
    : { cluster: upstream }
  const other = Object.keys(defined(rest))[0]
  if (other !== undefined) throw new ConfigError(`${key}.${other}`, 'cannot be written in the layout of upsync')
  const levels = cluster === undefined ? [{ servers: servers ?? [] }] : cluster
  const [level, ...others] = array(key, 'cluster', levels) as readonly LevelOptions[]
  if (level === undefined || others.length > 0) {
    throw new ConfigError(`${key}.cluster`, ONE_LEVEL)
  }
  const values = new Map<string, string>()
  array(key, 'servers', level.servers).forEach((server, i) => {
    const at = `${key}.servers[${i}]`
    const { endpoint, wire } = splitServer(at, server as ServerOptions | string)
    if (endpoint.path !== undefined) throw new ConfigError(at, NO_SOCKET)
    if (values.has(endpoint.address)) throw new ConfigError(at, 'the same address as a server before it')
    const value = printUpsyncValue({ ...defined({ maxFails, failTimeout, maxConns }), ...wire })
    parseUpsyncValue(at, Buffer.from(value))
    values.set(endpoint.address, value)
  })
  return values
}

class SlardarWriter implements Writer {
  readonly #keys: Keys

  constructor(keys: Keys) {
    this.#keys = keys
  }

  async put(at: string, key: string, upstream: Cluster | UpstreamOptions, look: Look): Promise<Written> {
    const printed = printSlardarValue(key, upstream)
    const item = await this.#keys.read(at)
    look(item === undefined ? [] : [item])
    const { servers: _servers, cluster: _cluster, ...kept } = isOptions(upstream) ? {} : (readValue(item) ?? {})
    return this.#write(at, item, { ...kept, ...printed })
  }

  async patch(at: string, key: string, address: string, change: (server: WireServer) => WireServer): Promise<Written> {
    const patched = (server: SlardarValue): SlardarValue => {
      const rest = Object.fromEntries(Object.entries(server).filter(([name]) => !WIRE_NAMES.includes(name)))
      const printed = printWireServer(change(parseWireServer(at, server)))
      parseWireServer(`${key}.${address}`, printed)
      return { ...rest, ...printed }
    }
    return this.#edit(at, key, (servers) => {
      const found = servers.some((server) => isAt(server, address))
      return found ? servers.map((server) => (isAt(server, address) ? patched(server) : server)) : undefined
    }).then((written) => orUnknown(written, key, address))
  }

  async add(at: string, key: string, { endpoint, wire }: SplitServer, level: string | undefined): Promise<Written> {
    const { address, host, port, path } = endpoint
    if (path !== undefined) throw new ConfigError(key, 'a unix socket cannot be written in the layout of Slardar')
    const added = { host, port, ...printWireServer(wire) }
    const written = await this.#edit(at, key, (servers, name, isFirst) => {
      if (level === undefined ? !isFirst : name !== level) return undefined
      if (servers.some((server) => isAt(server, address))) throw new ConfigError(key, `${address} is there already`)
      return [...servers, added]
    })
    if (written === undefined) throw new ConfigError(key, `no level ${JSON.stringify(level)}`)
    return written
  }

  async remove(at: string, key: string, address: string): Promise<Written> {
    const written = await this.#edit(at, key, (servers) => {
      const left = servers.filter((server) => !isAt(server, address))
      return left.length < servers.length ? left : undefined
    })
    return orUnknown(written, key, address)
  }

  /** Other servers in the levels for which `edit` has some; undefined if it has for none. */
  async #edit(
    at: string,
    key: string,
    edit: (servers: readonly unknown[], level: string, isFirst: boolean) => readonly unknown[] | undefined,
  ): Promise<Written | undefined> {
    const item = await this.#keys.read(at)
    if (item === undefined) throw new UnknownUpstreamError(key)
    const value = readValue(item)
    if (value === undefined) throw new ConfigError(at, 'what is there is not the value of an upstream')
    let edited = 0
    const editLevel = (level: unknown, name: string, isFirst: boolean): unknown => {
      const { servers, ...rest } = record(at, '', level)
      // Of an empty list Lua makes an object.
      const others = edit(Array.isArray(servers) ? (servers as readonly unknown[]) : [], name, isFirst)
      if (others === undefined) return level
      edited++
      return { ...rest, servers: others }
    }
    const { cluster } = value
    const levels = Array.isArray(cluster)
      ? cluster.map((level, i) => editLevel(level, String(i), i === 0))
      : cluster !== undefined &&
        Object.fromEntries(
          Object.entries(record(at, 'cluster', cluster)).map(([name, level], i) => [
            name,
            editLevel(level, name, i === 0),
          ]),
        )
    const result = cluster === undefined ? editLevel(value, '0', true) : { ...value, cluster: levels }
    return edited === 0 ? undefined : this.#write(at, item, result as SlardarValue)
  }

  async delete(at: string): Promise<Written> {
    const item = await this.#keys.read(at)
    return this.#keys.write(item === undefined ? [] : [deletion(item)])
  }

  async #write(at: string, item: Item | undefined, value: SlardarValue): Promise<Written> {
    const text = JSON.stringify(value)
    const isSame = item !== undefined && textOf(item) === text
    return this.#keys.write(isSame ? [] : [{ key: at, index: item?.ModifyIndex ?? 0, value: text }])
  }
}

function orUnknown(written: Written | undefined, key: string, address: string): Written {
  if (written === undefined) throw new UnknownPeerError(key, address)
  return written
}

/** Undefined if it is not the value of an upstream: then there is nothing to keep of it. */
function readValue(item: Item | undefined): SlardarValue | undefined {
  try {
    const value: unknown = JSON.parse(item === undefined ? '' : textOf(item))
    return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as SlardarValue) : undefined
  } catch {
    return undefined
  }
}

function isAt(server: unknown, address: string): server is SlardarValue {
  if (typeof server !== 'object' || server === null) return false
  try {
    const { host, port } = server as ServerOptions
    return (
      parseEndpoint('', '', `${host?.includes(':') ? `[${host}]` : String(host)}:${String(port)}`).address === address
    )
  } catch {
    return false
  }
}
