/**
 * The last good lists of a source, in a file: what a process begins with when its source is down.
 *
 * Written whole or not at all: to a file beside it, which is synced and then renamed, the folder synced after it; the one
 * before stays as `.bak`. So at any moment one of the two is there and whole.
 */
import * as nodeFs from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { array, record, string } from '../check.js'
import type { Cluster, UpstreamOptions } from '../config.js'
import { syncFolder, writeSynced } from './lib/replace-file.js'

/** Of the format; another one is refused. */
const VERSION = 1

/** Lists by key, as a source gives them. */
export type Lists = ReadonlyMap<string, Cluster | UpstreamOptions>

/** What is used of the file system; a test looks at its order. */
export type FileSystem = Pick<typeof nodeFs, 'mkdir' | 'open' | 'rename' | 'readFile'>

export class Snapshot {
  readonly #path: string
  readonly #source: string
  readonly #fs: FileSystem
  #writing: Promise<void> = Promise.resolve()
  /** What waits to be written; what came before it and was not begun is not needed any more. */
  #next: Lists | undefined

  constructor(path: string, source: string, fs: FileSystem = nodeFs) {
    this.#path = path
    this.#source = source
    this.#fs = fs
  }

  /** The lists, and what was wrong with the file if those of the one before it had to do. Rejects if neither is whole. */
  async load(): Promise<{ lists: Lists; problem: string | undefined } | undefined> {
    let problem: string | undefined
    for (const path of [this.#path, `${this.#path}.bak`]) {
      try {
        return { lists: this.#parse(await this.#fs.readFile(path, 'utf8')), problem }
      } catch (error) {
        if ((error as NodeJS.ErrnoException).code === 'ENOENT') continue
        problem ??= `${path}: ${(error as Error).message}`
      }
    }
    if (problem === undefined) return undefined
    throw new Error(problem)
  }

  /** Keeps these lists. Resolves when they, or later ones, are on the disk. */
  save(lists: Lists): Promise<void> {
    const isWaiting = this.#next !== undefined
    this.#next = lists
    if (!isWaiting) {
      this.#writing = this.#writing
        .catch(() => undefined)
        .then(async () => {
          const next = this.#next!
          this.#next = undefined
          await this.#write(this.#print(next))
        })
    }
    return this.#writing
  }

  #print(lists: Lists): string {
    const upstreams = JSON.stringify([...lists])
    return JSON.stringify({ version: VERSION, source: this.#source, checksum: checksum(upstreams), upstreams })
  }

  #parse(text: string): Lists {
    const { version, source, checksum: sum, upstreams } = record('snapshot', '', JSON.parse(text))
    if (version !== VERSION) throw new Error(`a snapshot of version ${String(version)}, expected ${VERSION}`)
    if (source !== this.#source) throw new Error(`a snapshot of the source ${String(source)}`)
    const entries = string('snapshot', 'upstreams', upstreams)
    if (checksum(entries) !== sum) throw new Error('its checksum is wrong')
    return new Map(array('snapshot', 'upstreams', JSON.parse(entries)) as [string, Cluster | UpstreamOptions][])
  }

  async #write(text: string): Promise<void> {
    const folder = dirname(this.#path)
    await this.#fs.mkdir(folder, { recursive: true })
    const temporary = `${this.#path}.${process.pid}.tmp`
    // Options may hold passwords.
    await writeSynced(temporary, text, 0o600, this.#fs)
    await this.#fs.rename(this.#path, `${this.#path}.bak`).catch((error: unknown) => {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error
    })
    await this.#fs.rename(temporary, this.#path)
    await syncFolder(folder, this.#fs)
  }
}

function checksum(text: string): string {
  return crc32(text).toString(16)
}
