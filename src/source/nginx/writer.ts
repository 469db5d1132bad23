/** Writes upstreams for nginx as they change: what consul-template is used for. */
import { mkdir, readFile, realpath, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { array, expected, milliseconds, onlyKeys, record, string } from '../../check.js'
import type { Checkups } from '../../checkups.js'
import { systemClock } from '../../clock.js'
import { compileUpstream } from '../../compile.js'
import { CheckupsError } from '../../errors.js'
import { syncFolder, writeSynced } from '../lib/replace-file.js'
import { checkCommand, run } from './command.js'
import { checkPrintOptions, printNginx, type PrintNginxOptions } from './print.js'

export { NginxCommandError } from './command.js'

/** Options of {@link nginxWriter}. */
export interface NginxWriterOptions extends Omit<PrintNginxOptions, 'hashKey'> {
  /** Whose upstreams are written. */
  readonly checkups: Checkups
  /** Their keys, one of them with the format `dump`; those that are not there are left out. Default: all there are. */
  readonly upstreams?: readonly string[] | undefined
  /** The file, which is nobody else's; its folder is made if it is not there. */
  readonly path: string
  /** What `hash … consistent` hashes, as nginx writes it: of all upstreams, or by key. Default: nothing is hashed. */
  readonly hashKey?: string | Readonly<Record<string, string>> | ReadonlyMap<string, string> | undefined
  /** Run when the file has changed, as `['nginx', '-s', 'reload']`. Default: nothing. */
  readonly command?: readonly string[] | undefined
  /**
   * Run before the file is changed, which it then is only if this ends with status 0. `{file}` stands for the new file,
   * `{conf}` for a whole configuration that includes nothing else: `['nginx', '-t', '-c', '{conf}']`. Default: nothing.
   */
  readonly test?: readonly string[] | undefined
  /** Milliseconds that each of them may take. Default 30,000, consul-template's. */
  readonly timeout?: number | undefined
  /** Called with what went wrong; the file is then as it was, unless it was the command. It is tried again at the next change. */
  readonly onError?: ((error: unknown) => void) | undefined
}

/** How a writer is. */
export interface NginxWriterStatus {
  /** `waiting`: nothing to write yet. `current`: the file says what is so. `failed`: it does not, or the command failed. */
  readonly state: 'waiting' | 'current' | 'failed'
  /** How often the file was changed. */
  readonly written: number
  /** When it last was, in milliseconds since the Unix epoch; NaN before. */
  readonly lastWritten: number
  /** What went wrong last, if it has not gone well since. */
  readonly error: unknown
}

/** Keeps a file for nginx. */
export interface NginxWriter {
  /** How it is. */
  readonly status: NginxWriterStatus
  /** Resolves when the file says what is so now, and the command is done; rejects with what went wrong. */
  flush(): Promise<void>
  /** Writes no more. A command that runs is ended; the file is whole at any time. */
  close(): Promise<void>
}

const PRINT_KEYS = ['unsupported', 'format', 'context'] as const
const OPTION_KEYS = new Set<string>([
  ...['checkups', 'upstreams', 'path', 'hashKey', 'command', 'test', 'timeout', 'onError', ...PRINT_KEYS],
])

/**
 * Writes upstreams as they are now, and again whenever one of them changes: when the current turn of the event loop is
 * over, only if the text is another, and whole or not at all.
 *
 * @throws ConfigError
 */
export function nginxWriter(options: NginxWriterOptions): NginxWriter {
  const given = record('nginxWriter', '', options) as unknown as NginxWriterOptions
  onlyKeys('nginxWriter', given, OPTION_KEYS)
  const { checkups, upstreams, path, hashKey, command, test, timeout = 30_000, onError } = given
  const print = checkPrintOptions(
    'nginxWriter',
    Object.fromEntries(PRINT_KEYS.flatMap((key) => (given[key] === undefined ? [] : [[key, given[key]]]))),
  )
  record('nginxWriter', 'checkups', checkups)
  const keys = upstreams === undefined ? undefined : array('nginxWriter', 'upstreams', upstreams)
  keys?.forEach((key, i) => string('nginxWriter', `upstreams[${i}]`, key))
  if (print.format === 'dump' && keys?.length !== 1) {
    throw expected('nginxWriter', 'upstreams', 'one key, with the format "dump"', upstreams)
  }
  if (onError !== undefined && typeof onError !== 'function')
    throw expected('nginxWriter', 'onError', 'a function', onError)
  return new Writer({
    checkups,
    keys: keys as readonly string[] | undefined,
    path: resolve(string('nginxWriter', 'path', path)),
    print,
    hashKeyOf: checkHashKey(hashKey),
    command: checkCommand('nginxWriter', 'command', command),
    test: checkCommand('nginxWriter', 'test', test),
    timeout: milliseconds('nginxWriter', 'timeout', timeout, 1),
    onError,
  })
}

function checkHashKey(hashKey: NginxWriterOptions['hashKey']): (upstream: string) => string | undefined {
  if (hashKey === undefined) return () => undefined
  if (typeof hashKey === 'string') {
    const one = string('nginxWriter', 'hashKey', hashKey)
    return () => one
  }
  const entries = hashKey instanceof Map ? hashKey : Object.entries(record('nginxWriter', 'hashKey', hashKey))
  const byKey = new Map<string, string>(entries as Iterable<[string, string]>)
  for (const [key, one] of byKey) string('nginxWriter', `hashKey[${JSON.stringify(key)}]`, one)
  return (upstream) => byKey.get(upstream)
}

interface Settings {
  readonly checkups: Checkups
  readonly keys: readonly string[] | undefined
  readonly path: string
  readonly print: ReturnType<typeof checkPrintOptions>
  readonly hashKeyOf: (upstream: string) => string | undefined
  readonly command: readonly string[] | undefined
  readonly test: readonly string[] | undefined
  readonly timeout: number
  readonly onError: ((error: unknown) => void) | undefined
}

const DEFAULT_KEEPALIVE = compileUpstream('', { servers: [] }).settings.keepalive

const HEADER = '# Written by checkups: changes are lost.\n'

class Writer implements NginxWriter {
  readonly #settings: Settings
  readonly #controller = new AbortController()
  #status: NginxWriterStatus = { state: 'waiting', written: 0, lastWritten: NaN, error: undefined }
  /** The write that is under way or awaited; one that has not begun sees every change until then. */
  #work: Promise<void> = Promise.resolve()
  #isAwaited = false
  /** Whether the file has changed and the command has not yet ended well. */
  #isCommandDue = false

  constructor(settings: Settings) {
    this.#settings = settings
    settings.checkups.on('upstream:update', this.#onChange).on('upstream:delete', this.#onChange)
    this.#begin()
  }

  get status(): NginxWriterStatus {
    return this.#status
  }

  async flush(): Promise<void> {
    if (this.#isClosed()) throw new CheckupsError('ERR_CHECKUPS_CLOSED', 'this writer was closed')
    this.#begin()
    await this.#work
    if (this.#status.state === 'failed') throw this.#status.error
  }

  async close(): Promise<void> {
    const { checkups } = this.#settings
    checkups.off('upstream:update', this.#onChange).off('upstream:delete', this.#onChange)
    this.#controller.abort(new CheckupsError('ERR_CHECKUPS_CLOSED', 'this writer was closed'))
    await this.#work
  }

  #isClosed(): boolean {
    return this.#controller.signal.aborted
  }

  readonly #onChange = ({ upstream }: { readonly upstream: string }) => {
    const { keys } = this.#settings
    if (keys === undefined || keys.includes(upstream)) this.#begin()
  }

  #begin(): void {
    if (this.#isAwaited || this.#isClosed()) return
    this.#isAwaited = true
    this.#work = this.#work.then(async () => {
      this.#isAwaited = false
      if (this.#isClosed()) return
      try {
        await this.#write()
      } catch (error) {
        if (this.#isClosed()) return
        this.#status = { ...this.#status, state: 'failed', error }
        this.#tell(error)
      }
    })
  }

  /** What a listener throws ends nothing. */
  #tell(error: unknown): void {
    try {
      this.#settings.onError?.(error)
    } catch (thrown) {
      process.emitWarning(`nginxWriter.onError threw: ${String(thrown)}`, { type: 'CheckupsWarning' })
    }
  }

  async #write(): Promise<void> {
    const { path, command, timeout } = this.#settings
    const text = this.#print()
    if (text === undefined) return
    const before = await readFile(path, 'utf8').catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
      return undefined
    })
    if (text !== before) {
      if (!(await this.#replace(text))) return
      this.#isCommandDue = command !== undefined
      const written = this.#status.written + 1
      this.#status = { ...this.#status, written, lastWritten: systemClock.wallTime() }
    }
    if (this.#isCommandDue) {
      await run(command!, timeout, this.#controller.signal)
      this.#isCommandDue = false
    }
    this.#status = { ...this.#status, state: 'current', error: undefined }
  }

  /** Undefined if none of the upstreams is there: what the file has then is the last that is known. */
  #print(): string | undefined {
    const { checkups, keys, print, hashKeyOf } = this.#settings
    const blocks: string[] = []
    for (const key of new Set(keys ?? checkups.getUpstreams().keys())) {
      const upstream = checkups.getUpstream(key)
      if (upstream === undefined) continue
      // Live options have every default written out: of connections to keep, nobody has said anything then.
      const keepalive = upstream.keepalive === DEFAULT_KEEPALIVE ? undefined : upstream.keepalive
      blocks.push(printNginx(key, { ...upstream, keepalive }, { ...print, hashKey: hashKeyOf(key) }))
    }
    return blocks.length === 0 ? undefined : HEADER + blocks.join('\n')
  }

  /** Whether it was done: not if the writer was closed meanwhile. */
  async #replace(text: string): Promise<boolean> {
    // A link to the file stays one.
    const path = await realpath(this.#settings.path).catch(() => this.#settings.path)
    const folder = dirname(path)
    await mkdir(folder, { recursive: true })
    // Who may read the file may read the next one.
    const mode = await stat(path).then(
      (found) => found.mode & 0o777,
      () => 0o644,
    )
    // No pattern of an include finds a name with a leading dot.
    const temporary = join(folder, `.${basename(path)}.${process.pid}.tmp`)
    try {
      await writeSynced(temporary, text, mode)
      await this.#test(temporary)
      if (this.#isClosed()) return false
      await rename(temporary, path)
    } finally {
      await rm(temporary, { force: true })
    }
    await syncFolder(folder)
    return true
  }

  async #test(file: string): Promise<void> {
    const { test, timeout, print } = this.#settings
    if (test === undefined) return
    const conf = `${file}.conf`
    try {
      if (test.some((word) => word.includes('{conf}'))) {
        const include = `include "${file.replace(/["\\*?[]/g, '\\$&')}";`
        const inner = print.format === 'dump' ? `upstream test { ${include} }` : include
        const lines = [`pid "${file}.pid";`, 'error_log stderr;', 'events {}', `${print.context} { ${inner} }`, '']
        await writeSynced(conf, lines.join('\n'), 0o600)
      }
      const words = test.map((word) => word.replaceAll('{file}', file).replaceAll('{conf}', conf))
      await run(words, timeout, this.#controller.signal)
    } finally {
      for (const left of [conf, `${file}.pid`]) await rm(left, { force: true })
    }
  }
}
