/**
 * nginx's upstreams: read from its configuration, followed as it changes, and written for it.
 *
 * @module checkups/nginx
 */
import { watch, type FSWatcher } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { array, boolean, onlyKeys, record, string } from '../check.js'
import { Timer, type Clock } from '../clock.js'
import type { UpstreamOptions } from '../config.js'
import { ConfigError } from '../errors.js'
import { untilAborted } from '../optional.js'
import { changes, stamps } from './lib/watch-file.js'
import { Tree } from './nginx/include.js'
import { toUpstreams, type NginxUpstreams } from './nginx/upstreams.js'
import { SOURCE_OPTIONS, type Source, type SourceContext, type SourceLists, type SourceOptions } from './source.js'

export { printNginx, type NginxUnsupported, type PrintNginxOptions } from './nginx/print.js'
export { parseNginx, readNginx, type ReadNginxOptions } from './nginx/read.js'
export { NginxSyntaxError, type Position } from './nginx/syntax.js'
export type { NginxContext, NginxUpstream, NginxUpstreams } from './nginx/upstreams.js'
export type { NginxUpsync } from './nginx/upsync.js'
export {
  NginxCommandError,
  nginxWriter,
  type NginxWriter,
  type NginxWriterOptions,
  type NginxWriterStatus,
} from './nginx/writer.js'

/** What may be said of an upstream beside its servers. */
export type NginxDefaults = Omit<UpstreamOptions, 'cluster' | 'servers'>

/** Options of {@link nginx}. */
export interface NginxOptions extends SourceOptions {
  /** nginx's configuration, or a part of it that has `upstream` blocks. */
  readonly file: string
  /** The folder in which relative includes are looked for. Default: that of the file, which for `nginx.conf` is nginx's. */
  readonly root?: string | undefined
  /**
   * Names of the upstreams to take. Default: all but those that have `upsync`, whose servers in the file are the ones to
   * begin with; a source for Consul follows the others (`readNginx` says which).
   */
  readonly upstreams?: readonly string[] | undefined
  /**
   * Options of the upstreams that the file cannot say or does not, as `{ tries: 2 }`; or a function from the name to them.
   * What the file says counts. Default: none.
   */
  readonly defaults?: NginxDefaults | ((upstream: string) => NginxDefaults) | undefined
  /** Whether files are read again when one of them changes. Default true. */
  readonly watch?: boolean | undefined
  /** Default true: who took an upstream out of the file meant it. */
  readonly prune?: boolean | undefined
}

const OPTION_KEYS = new Set<string>(['file', 'root', 'upstreams', 'defaults', 'watch', ...SOURCE_OPTIONS])

/** Milliseconds: what was written in the last second may still be being written; then it must stay as it is for so long. */
const RECENT = 1_000
const SETTLED = 50
/** Readings of files that never rest, before the source says so. */
const MOST_READINGS = 100

/**
 * Follows the `upstream` blocks of a file and of those that it includes.
 *
 * @throws ConfigError
 */
export function nginx(options: NginxOptions): Source {
  const given = record('nginx', '', options) as unknown as NginxOptions
  onlyKeys('nginx', given, OPTION_KEYS)
  const { file, root, upstreams, defaults, watch: isWatched = true, prune = true, ...followed } = given
  const path = resolve(string('nginx', 'file', file))
  const names = upstreams === undefined ? undefined : array('nginx', 'upstreams', upstreams)
  names?.forEach((name, i) => string('nginx', `upstreams[${i}]`, name))
  return new NginxSource({
    file: path,
    root: root === undefined ? dirname(path) : resolve(string('nginx', 'root', root)),
    names: names as readonly string[] | undefined,
    defaults: checkDefaults(defaults ?? {}),
    isWatched: boolean('nginx', 'watch', isWatched),
    options: { ...followed, prune },
  })
}

function checkDefaults(defaults: unknown): (upstream: string) => NginxDefaults {
  if (typeof defaults === 'function') return defaults as (upstream: string) => NginxDefaults
  const options = record('nginx', 'defaults', defaults)
  for (const key of ['cluster', 'servers']) {
    if (key in options) throw new ConfigError(`nginx.defaults.${key}`, 'not here: the file says it')
  }
  return () => options
}

interface Settings {
  readonly file: string
  readonly root: string
  readonly names: readonly string[] | undefined
  readonly defaults: (upstream: string) => NginxDefaults
  readonly isWatched: boolean
  readonly options: SourceOptions
}

class NginxSource implements Source {
  readonly name: string
  readonly options: SourceOptions
  readonly #settings: Settings
  /** What was read last, whether or not that went well. */
  #tree: Tree | undefined

  constructor(settings: Settings) {
    this.name = `nginx:${settings.file}`
    this.options = settings.options
    this.#settings = settings
  }

  /**
   * Waits until a file is not what was read last, and reads them all. So a broken file is reported once, and read again when
   * it is another one, not when a back-off says so.
   */
  async watch(apply: (lists: SourceLists) => void, context: SourceContext): Promise<void> {
    context.signal.throwIfAborted()
    if (this.#tree !== undefined) await this.#untilChanged(this.#tree, context)
    const lists = this.#toLists(await untilAborted(context.signal, this.#read(context)))
    context.signal.throwIfAborted()
    apply(lists)
  }

  async #untilChanged({ seen, folders }: Tree, { signal, clock }: SourceContext): Promise<void> {
    if (!this.#settings.isWatched) return untilAborted(signal, new Promise<never>(() => undefined))
    const sleeper = new Sleeper(clock, folders)
    try {
      for await (const _ of changes([...seen.keys()], { signal, sleep: (ms) => sleeper.sleep(ms) }, seen)) return
    } finally {
      sleeper.close()
    }
  }

  async #read({ signal, clock, sleep }: SourceContext): Promise<NginxUpstreams> {
    for (let reading = 0; reading < MOST_READINGS; reading++) {
      const tree = new Tree(this.#settings.root)
      const outcome = await tree.read(this.#settings.file).then(
        (directives) => ({ directives }),
        (error: unknown) => ({ error }),
      )
      signal.throwIfAborted()
      if (clock.wallTime() - tree.youngest < RECENT) await sleep(SETTLED)
      // What was read amid a change is worth nothing, be it an error or a shorter list.
      const now = await stamps([...tree.seen.keys()])
      if ([...tree.seen].some(([path, stamp]) => now.get(path) !== stamp)) continue
      this.#tree = tree
      if ('error' in outcome) throw outcome.error
      return toUpstreams(outcome.directives)
    }
    throw new Error(`${this.#settings.file}: it, or what it includes, is being written all the time`)
  }

  #toLists({ upstreams, refused }: NginxUpstreams): SourceLists {
    const { file, names, defaults, options } = this.#settings
    if (upstreams.size === 0 && options.allowEmpty !== true) throw new ConfigError(file, 'expected an upstream')
    const lists = new Map<string, UpstreamOptions>()
    const missing = (names ?? []).filter((name) => !upstreams.has(name))
    for (const [name, upstream] of upstreams) {
      if (names === undefined ? upstream.upsync !== undefined : !names.includes(name)) continue
      lists.set(name, { ...(record('nginx', 'defaults', defaults(name)) as NginxDefaults), ...upstream.options })
    }
    return {
      upstreams: lists,
      refused: [...refused, ...missing.map((name) => ({ at: file, reason: `there is no upstream ${name}` }))],
    }
  }
}

/**
 * Between two looks at the files. Ends early when anything comes or goes where a pattern looks: no file is known there yet
 * that could be watched.
 */
class Sleeper {
  readonly #clock: Clock
  readonly #timer: Timer
  readonly #watchers: FSWatcher[] = []
  #wake: (() => void) | undefined
  /** Whether there was a reason to wake while nobody slept. */
  #isDue = false

  constructor(clock: Clock, folders: ReadonlySet<string>) {
    this.#clock = clock
    this.#timer = new Timer(clock, () => this.#wake?.())
    for (const folder of folders) {
      try {
        const watcher = watch(folder, { persistent: false }, () => this.#end())
        this.#watchers.push(watcher.on('error', () => watcher.close()))
      } catch {
        // Not there, or no watches left: looked at slowly.
      }
    }
  }

  async sleep(ms: number): Promise<void> {
    if (!this.#isDue) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve
        this.#timer.at(this.#clock.now() + ms)
      })
    }
    this.#isDue = false
    this.#wake = undefined
  }

  close(): void {
    this.#timer.stop()
    for (const watcher of this.#watchers) watcher.close()
  }

  #end(): void {
    this.#isDue = true
    this.#wake?.()
  }
}
