/** Slardar's dynamic arguments: values of the store that programs ask for by name, kept for a while. */
import { LRUCache } from 'lru-cache'
import { expected, milliseconds, onlyKeys, record, string } from '../../check.js'
import { systemClock, type Clock } from '../../clock.js'
import { Connection, CONNECTION_OPTIONS, type ConsulConnectionOptions } from './connection.js'
import { folderOf } from './layout.js'

/** Options of {@link consulConfig}. */
export interface ConsulConfigOptions extends ConsulConnectionOptions {
  /** The folder of the keys. Default `'config/slardar'`, Slardar's. */
  readonly prefix?: string | undefined
  /** Milliseconds that a value is kept. Default 10,000, Slardar's. */
  readonly positiveTtl?: number | undefined
  /** Milliseconds that it is kept that there is none, or that Consul could not be asked. Default 5,000, Slardar's. */
  readonly negativeTtl?: number | undefined
  /** Default: the machine's. */
  readonly clock?: Clock | undefined
}

/** Values by name. The functions need no `this`. */
export interface ConsulConfig {
  /**
   * The value of `<prefix>/<name>`: parsed if it is JSON, else its text; undefined if there is none. While Consul cannot be
   * asked it is the last one known.
   *
   * @throws `ConsulError` if Consul cannot be asked and never could.
   */
  readonly get: (name: string) => Promise<unknown>
  /** Forgets a value, or all: they are asked for again. */
  readonly refresh: (name?: string) => void
  /** Ends what is under way and closes the connections. */
  readonly close: () => void
}

const KEYS = new Set(['prefix', 'positiveTtl', 'negativeTtl', 'clock', ...CONNECTION_OPTIONS])

/** More names than a program has; names from outside would else fill the memory. */
const MAX_NAMES = 1_000

/**
 * Slardar's dynamic arguments.
 *
 * @throws `ConfigError`
 */
export function consulConfig(options: ConsulConfigOptions = {}): ConsulConfig {
  const given = record('consulConfig', '', options)
  onlyKeys('consulConfig', given, KEYS)
  const { clock = systemClock } = options
  const folder = folderOf(string('consulConfig', 'prefix', options.prefix ?? 'config/slardar'))
  const positive = milliseconds('consulConfig', 'positiveTtl', options.positiveTtl ?? 10_000, 1)
  const negative = milliseconds('consulConfig', 'negativeTtl', options.negativeTtl ?? 5_000, 1)
  const connection = new Connection('consulConfig', given)
  const caller = connection.caller()
  const end = new AbortController()
  // 0 is no time to the cache, and it would else keep the clock's reading for a while by a timer of its own.
  const perf = { now: () => clock.now() + 1 }
  const kept = new LRUCache<string, { readonly value: unknown }>({
    max: MAX_NAMES,
    ttl: positive,
    ttlResolution: 0,
    noDeleteOnStaleGet: true,
    perf,
  })
  /** Who asks for a name that is being asked for gets that answer. */
  const underWay = new Map<string, Promise<unknown>>()

  async function ask(name: string): Promise<unknown> {
    try {
      const [head, item] = await caller.call(
        (client, common) => client.kv.get({ ...common, key: `${folder}${name}`, buffer: true }),
        { signal: end.signal },
      )
      const value = head.statusCode === 404 ? undefined : parse((item as { Value: Buffer | null }).Value)
      kept.set(name, { value }, { ttl: value === undefined ? negative : positive })
      return value
    } catch (error) {
      const last = kept.peek(name, { allowStale: true })
      if (last === undefined) throw error
      kept.set(name, last, { ttl: negative })
      return last.value
    } finally {
      underWay.delete(name)
    }
  }

  return {
    get: async (name) => {
      if (typeof name !== 'string' || !isKey(name)) throw expected('name', '', 'the name of a key', name)
      const fresh = kept.get(name)
      if (fresh !== undefined) return fresh.value
      const asked = underWay.get(name) ?? ask(name)
      underWay.set(name, asked)
      return asked
    },
    refresh: (name) => {
      if (name === undefined) kept.clear()
      else kept.delete(name)
    },
    close: () => {
      end.abort()
      connection.release()
    },
  }
}

/** Whether a name stays in its folder: Consul takes a path apart before it looks for the key. */
export function isKey(name: string): boolean {
  return name !== '' && !name.split('/').some((part) => part === '' || part === '.' || part === '..')
}

function parse(value: Buffer | null): unknown {
  const text = value?.toString() ?? ''
  try {
    return JSON.parse(text)
  } catch {
    return text
  }
}
