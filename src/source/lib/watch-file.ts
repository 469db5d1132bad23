/**
 * Files that somebody changes: in place, by a rename over them, by another link on the way to them (a mounted ConfigMap's
 * `..data`), by taking them away and putting them back. Take stamps, read, and then wait for what is different from them:
 *
 *     const seen = await stamps(paths)
 *     … read …
 *     for await (const _ of changes(paths, context, seen)) …   // what changed since, also while it was read
 *
 * The folders are watched by which a file is reached, not the file: that would follow an inode, and miss its successor.
 * What a watch says is only a reason to look; whether anything changed is said by stat. Where a folder cannot be watched
 * (no watches left, a file system that has none or tells nothing of other machines), a slow look has to do.
 */
import { watch, type FSWatcher } from 'node:fs'
import { readlink, stat } from 'node:fs/promises'
import { basename, dirname, join, parse, resolve, sep } from 'node:path'
import { untilAborted } from '../../optional.js'
import type { SourceContext } from '../source.js'

/** By path, what tells one state of a file from another; of one that cannot be read, the error's code. */
export type Stamps = ReadonlyMap<string, string>

/** Milliseconds between two looks that nobody asked for: a few system calls per file, so that an error ends in seconds. */
const POLL = 5_000
/** Links on the way to one file, at most: Linux's own limit. */
const MAX_LINKS = 40

/** What the files are like now. Never rejects. */
export async function stamps(paths: readonly string[]): Promise<Map<string, string>> {
  return new Map(await Promise.all(paths.map(async (path) => [path, await stampOf(path)] as const)))
}

async function stampOf(path: string): Promise<string> {
  try {
    const { dev, ino, size, mtimeNs } = await stat(path, { bigint: true })
    return `${dev}:${ino}:${size}:${mtimeNs}`
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'unknown'
  }
}

/**
 * Yields whenever one of the files is not as it was: at `seen` (default: when this began), then when it yielded last. Does
 * not keep the process alive. Ends with its loop; on abort it throws the signal's reason, at once.
 */
export async function* changes(
  paths: readonly string[],
  { signal, sleep }: Pick<SourceContext, 'signal' | 'sleep'>,
  seen?: Stamps,
): AsyncGenerator<void, void, undefined> {
  const folders = new Folders()
  const abort = () => folders.wake()
  signal.addEventListener('abort', abort)
  let isAsleep = false
  try {
    for (;;) {
      signal.throwIfAborted()
      const woken = folders.next()
      await untilAborted(signal, folders.follow(paths))
      const now = await untilAborted(signal, stamps(paths))
      seen ??= now
      if (!isSame(now, seen)) {
        seen = now
        yield
        continue
      }
      // One sleep at a time: an early end of it is not worth another timer.
      if (!isAsleep) {
        isAsleep = true
        const awake = () => {
          isAsleep = false
          folders.wake()
        }
        sleep(POLL).then(awake, awake)
      }
      await woken
    }
  } finally {
    signal.removeEventListener('abort', abort)
    folders.close()
  }
}

function isSame(now: Stamps, seen: Stamps): boolean {
  return [...now].every(([path, stamp]) => seen.get(path) === stamp)
}

/** A folder under watch. */
interface Watched {
  readonly watcher: FSWatcher
  /** Device and inode: another folder may have its name by now. */
  readonly id: string
  /** What is looked for in it. */
  names: ReadonlySet<string>
}

/** The folders in which the files, and the links to them, are. */
class Folders {
  readonly #watched = new Map<string, Watched>()
  #isClosed = false
  #wake: (() => void) | undefined

  /** Resolves when there is a reason to look. */
  next(): Promise<void> {
    return new Promise((resolve) => (this.#wake = resolve))
  }

  wake(): void {
    this.#wake?.()
  }

  /** Watches what has to be watched now, and nothing else. */
  async follow(paths: readonly string[]): Promise<void> {
    const wanted = new Map<string, Set<string>>()
    for (const path of paths) await addFolders(resolve(path), wanted)
    const ids = new Map<string, string>()
    for (const folder of wanted.keys()) ids.set(folder, await idOf(folder))
    if (this.#isClosed) return
    for (const [folder, { id }] of this.#watched) if (ids.get(folder) !== id) this.#leave(folder)
    for (const [folder, names] of wanted) {
      const known = this.#watched.get(folder)
      if (known !== undefined) known.names = names
      else this.#watch(folder, ids.get(folder)!, names)
    }
  }

  close(): void {
    this.#isClosed = true
    for (const folder of [...this.#watched.keys()]) this.#leave(folder)
  }

  #watch(folder: string, id: string, names: ReadonlySet<string>): void {
    try {
      const watcher = watch(folder, { persistent: false })
      const watched: Watched = { watcher, id, names }
      this.#watched.set(folder, watched)
      watcher.on('error', () => this.#leave(folder))
      watcher.on('change', (_event, name) => {
        // No name: something. Its own name: the folder itself was moved or removed.
        if (typeof name !== 'string' || watched.names.has(name) || name === basename(folder)) this.wake()
      })
    } catch {
      // ENOSPC, EMFILE, ENOSYS, a folder that has just gone: looked at slowly, and tried again then.
    }
  }

  #leave(folder: string): void {
    this.#watched.get(folder)?.watcher.close()
    this.#watched.delete(folder)
  }
}

async function idOf(folder: string): Promise<string> {
  const found = await stat(folder).catch(() => undefined)
  return found === undefined ? '' : `${found.dev}:${found.ino}`
}

/** Adds every folder where something on the way to a file may be exchanged, with the name that it has there. */
async function addFolders(path: string, folders: Map<string, Set<string>>): Promise<void> {
  const { root } = parse(path)
  const left = path.slice(root.length).split(sep)
  let folder = root
  for (let links = 0; left.length > 0 && links <= MAX_LINKS;) {
    const name = left.shift()!
    if (name === '' || name === '.') continue
    if (name === '..') {
      folder = dirname(folder)
      continue
    }
    const here = join(folder, name)
    const target = await readlink(here).catch((error: unknown) => error as NodeJS.ErrnoException)
    const isLink = typeof target === 'string'
    // EINVAL: it is there, and no link.
    const isThere = isLink || target.code === 'EINVAL' || target.code === 'UNKNOWN'
    if (isLink || !isThere || left.length === 0) {
      const names = folders.get(folder)
      if (names === undefined) folders.set(folder, new Set([name]))
      else names.add(name)
    }
    if (!isThere) return
    if (isLink) {
      links++
      const from = parse(target).root
      if (from !== '') folder = from
      left.unshift(...target.slice(from.length).split(sep))
    } else folder = here
  }
}
