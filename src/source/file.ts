/** Upstreams from a file: JSON or YAML, followed as it changes. */
import { setMaxListeners } from 'node:events'
import { readFile, stat } from 'node:fs/promises'
import { extname, resolve } from 'node:path'
import { boolean, oneOf, onlyKeys, record, string } from '../check.js'
import type { Cluster, UpstreamOptions } from '../config.js'
import { ConfigError } from '../errors.js'
import { untilAborted } from '../optional.js'
import { parseJson, parseYaml, TextError } from './lib/text.js'
import { changes, stamps } from './lib/watch-file.js'
import { SOURCE_OPTIONS, type Source, type SourceContext, type SourceLists } from './source.js'
import type { SourceOptions } from './source.js'

/** Options of {@link file}. */
export interface FileOptions extends SourceOptions {
  /**
   * The file: `{ "upstreams": { key: … } }`, or the keys alone; at each key the servers, in levels or named clusters, or a
   * whole configuration.
   */
  readonly path: string
  /**
   * How it is written. Default: by its extension, `.json`, `.yaml` or `.yml`. YAML is 1.2's core schema, and needs the
   * package `yaml`.
   */
  readonly format?: 'json' | 'yaml' | undefined
  /** Whether it is read again when it changes. Default true; false: only by {@link FileSource.reload}. */
  readonly watch?: boolean | undefined
  /** Default true: whoever took an upstream out of the file meant it. */
  readonly prune?: boolean | undefined
}

/** A file as a source. */
export interface FileSource extends Source {
  /**
   * Has the file read, whether or not it has changed: now, or, if it is not followed yet, when it is. Resolves when its
   * lists are given; rejects, as the source itself does, if they cannot be read.
   */
  reload(): Promise<void>
}

const OPTION_KEYS = new Set<string>(['path', 'format', 'watch', ...SOURCE_OPTIONS])
const FORMATS: ReadonlyMap<string, 'json' | 'yaml'> = new Map([
  ['.json', 'json'],
  ['.yaml', 'yaml'],
  ['.yml', 'yaml'],
])

/** Bytes. A hundred thousand servers in JSON are about 10 MB; what is longer is some other file. */
const LONGEST = 16 * 1_048_576
/**
 * Milliseconds: what was written in the last second may still be being written, so it must rest for so long before it is
 * read. That is also more than one tick of file times (10 ms at most): the next change has another time.
 */
const RECENT = 1_000
const REST = 50
/** Looks at a file that never rests, before that is an error: 10 s or so. */
const MOST_LOOKS = 200

/** Follows a file. */
export function file(options: FileOptions): FileSource {
  onlyKeys('file', record('file', '', options), OPTION_KEYS)
  const { path, format, watch = true, prune = true, ...followed } = options
  const byName = FORMATS.get(extname(string('file', 'path', path)).toLowerCase())
  if (format === undefined && byName === undefined) {
    throw new ConfigError('file.path', 'expected a name that ends in .json, .yaml or .yml, or a format')
  }
  return new WatchedFile(
    resolve(path),
    format === undefined ? byName! : oneOf('file', 'format', format, ['json', 'yaml']),
    boolean('file', 'watch', watch),
    { ...followed, prune },
  )
}

/** Somebody who waits for a reload. */
interface Reload {
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

class WatchedFile implements FileSource {
  readonly name: string
  readonly options: SourceOptions
  readonly #path: string
  readonly #format: 'json' | 'yaml'
  readonly #isWatched: boolean
  /** By the signal of who follows: the stamp of what was read last. */
  readonly #seen = new WeakMap<AbortSignal, string>()
  #followed: AbortSignal | undefined
  #reloads: Reload[] = []
  #wake: (() => void) | undefined

  constructor(path: string, format: 'json' | 'yaml', isWatched: boolean, options: SourceOptions) {
    this.name = `file:${path}`
    this.options = options
    this.#path = path
    this.#format = format
    this.#isWatched = isWatched
  }

  reload(): Promise<void> {
    return new Promise<void>((resolve, reject) => {
      this.#followed?.throwIfAborted()
      this.#reloads.push({ resolve, reject })
      this.#wake?.()
    })
  }

  /**
   * Waits until the file is not what was read last, and reads it. So what is broken is reported once, and read again as soon
   * as it is something else.
   */
  async watch(apply: (lists: SourceLists) => void, context: SourceContext): Promise<void> {
    const { signal } = context
    // A wait that ended early is left to end by itself: its listener is no leak.
    setMaxListeners(0, signal)
    this.#followed = signal
    const seen = this.#seen.get(signal)
    let reloads: Reload[] = []
    try {
      if (seen !== undefined && this.#reloads.length === 0) await this.#untilChanged(seen, context)
      reloads = this.#reloads.splice(0)
      apply(toLists(this.#path, await this.#read(context)))
      for (const { resolve } of reloads) resolve()
    } catch (error) {
      if (signal.aborted) reloads.push(...this.#reloads.splice(0))
      for (const { reject } of reloads) reject(error as Error)
      throw error
    }
  }

  /** Resolves when the file is not what it was, or a reload is asked for. */
  async #untilChanged(seen: string, context: SourceContext): Promise<void> {
    const { signal } = context
    signal.throwIfAborted()
    const waiting = new AbortController()
    const end = () => waiting.abort(signal.reason)
    signal.addEventListener('abort', end)
    try {
      const woken = new Promise<void>((resolve) => (this.#wake = resolve))
      const files = new Map([[this.#path, seen]])
      const changed = this.#isWatched
        ? changes([this.#path], { signal: waiting.signal, sleep: (ms) => context.sleep(ms) }, files).next()
        : untilAborted(waiting.signal, new Promise<never>(() => undefined))
      await Promise.race([changed, woken])
    } finally {
      this.#wake = undefined
      signal.removeEventListener('abort', end)
      // A watch that has not ended ends by this, with an error that is nobody's.
      waiting.abort()
    }
  }

  async #read(context: SourceContext): Promise<unknown> {
    const { signal } = context
    for (let look = 0; look < MOST_LOOKS; look++) {
      const stamp = await this.#stamp(signal)
      this.#seen.set(signal, stamp)
      try {
        const bytes = await untilAborted(signal, this.#load(stamp, context))
        if (bytes !== undefined && stamp === (await this.#stamp(signal))) return await this.#parse(bytes)
      } catch (error) {
        signal.throwIfAborted()
        // What goes wrong amid a change says nothing of what comes of it.
        if (stamp === (await this.#stamp(signal))) throw this.#inWords(error)
      }
    }
    throw new Error(`${this.#path}: it changes all the time`)
  }

  /** All of it; undefined if it does not rest. */
  async #load(stamp: string, context: SourceContext): Promise<Buffer | undefined> {
    const found = await stat(this.#path)
    // Of a pipe or a device there may be no end.
    if (!found.isFile()) throw new Error('not a regular file')
    if (found.size > LONGEST) throw new Error(`${found.size} bytes, expected at most ${LONGEST}`)
    if (context.clock.wallTime() - found.mtimeMs < RECENT) {
      await context.sleep(REST)
      if (stamp !== (await this.#stamp(context.signal))) return undefined
    }
    return readFile(this.#path)
  }

  async #parse(bytes: Buffer): Promise<unknown> {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    return this.#format === 'json' ? parseJson(text) : parseYaml(text)
  }

  async #stamp(signal: AbortSignal): Promise<string> {
    return (await untilAborted(signal, stamps([this.#path]))).get(this.#path)!
  }

  #inWords(error: unknown): Error {
    const { code, message } = error as NodeJS.ErrnoException
    const place = error instanceof TextError ? `:${error.line}:${error.column}` : ''
    const problem = code === 'ENOENT' ? 'there is no such file' : message
    return new Error(`${this.#path}${place}: ${problem}`, { cause: error })
  }
}

/**
 * What the content of a file says. An entry that is no upstream is given too: the loop refuses it, and knows by it that the
 * upstream is still meant to be there.
 */
function toLists(path: string, content: unknown): SourceLists {
  if (!isObject(content)) throw new Error(`${path}: expected an object of upstreams`)
  if (!Object.hasOwn(content, 'upstreams')) return { upstreams: toMap(content) }
  const { upstreams, ...others } = content as { upstreams?: unknown }
  if (!isObject(upstreams)) throw new Error(`${path}: upstreams: expected an object`)
  const refused = Object.keys(others).map((key) => ({
    at: `${path}: ${JSON.stringify(key)}`,
    reason: 'unknown key beside "upstreams"',
  }))
  return { upstreams: toMap(upstreams), refused }
}

function toMap(entries: object): ReadonlyMap<string, Cluster | UpstreamOptions> {
  return new Map(Object.entries(entries) as [string, Cluster | UpstreamOptions][])
}

function isObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
