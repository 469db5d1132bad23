/** Configuration files with what they include. */
import { readdir, readFile, realpath, stat } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import { stamps } from '../lib/watch-file.js'
import { NginxSyntaxError, parseDirectives, type Directive } from './syntax.js'

/** What may stand in each place and lead to an `upstream`, or to its servers; what other blocks include is not read. */
type Place = 'top' | 'context' | 'upstream'
const FOLLOWED: Readonly<Record<Place, ReadonlyMap<string, Place>>> = {
  top: new Map([
    ['http', 'context'],
    ['stream', 'context'],
    ['upstream', 'upstream'],
  ]),
  context: new Map([['upstream', 'upstream']]),
  upstream: new Map(),
}

/** A configuration that includes so many files includes them again and again. */
const MOST_FILES = 10_000
/** Bytes. A hundred thousand servers are about 10 MB; what is longer is another file. */
const LONGEST = 16 * 1_048_576

/** A file with all that it includes in its place. */
export class Tree {
  /** Every file that was read or looked for, and every folder in which a pattern was, with what it was like before. */
  readonly seen = new Map<string, string>()
  /** The folders among them. */
  readonly folders = new Set<string>()
  /** When the youngest of the files was written, in milliseconds since the Unix epoch. */
  youngest = 0
  readonly #root: string
  #count = 0

  /** Relative includes are looked for in `root`, wherever they stand, as in nginx. */
  constructor(root: string) {
    this.#root = root
  }

  /** `within` are the real paths of the files that include this one. */
  async read(file: string, place: Place = 'top', within: readonly string[] = []): Promise<Directive[]> {
    await this.#look(file)
    const found = await stat(file)
    this.youngest = Math.max(this.youngest, found.mtimeMs)
    // Reading from a pipe or a device might never end.
    if (!found.isFile()) throw new Error(`${file}: not a regular file`)
    if (found.size > LONGEST) throw new Error(`${file}: ${found.size} bytes, expected at most ${LONGEST}`)
    const text = await readFile(file, 'utf8')
    return this.#expand(parseDirectives(text, file), place, [...within, await realpath(file)])
  }

  async #look(path: string): Promise<void> {
    if (!this.seen.has(path)) this.seen.set(path, (await stamps([path])).get(path)!)
  }

  async #expand(directives: readonly Directive[], place: Place, within: readonly string[]): Promise<Directive[]> {
    const expanded: Directive[] = []
    // The dump of nginx-upsync is written later than the configuration that includes it.
    const dumps = directives.some(({ name }) => name === 'upsync')
    for (const directive of directives) {
      const { name, args, at, block } = directive
      if (name === 'include' && block === undefined) {
        const included = await this.#include(directive, place, within, dumps)
        for (const other of included) expanded.push(other)
        continue
      }
      const inner = FOLLOWED[place].get(name)
      if (block === undefined || inner === undefined) expanded.push(directive)
      else expanded.push({ name, args, at, block: await this.#expand(block, inner, within) })
    }
    return expanded
  }

  async #include(
    directive: Directive,
    place: Place,
    within: readonly string[],
    mayMiss: boolean,
  ): Promise<Directive[]> {
    const { args, at } = directive
    const [pattern] = args
    if (pattern === undefined || args.length > 1) throw new NginxSyntaxError(at, 'expected include with one file')
    const isPattern = /[*?[]/.test(pattern)
    const path = resolve(this.#root, pattern)
    const files = isPattern ? await this.#glob(path) : [path]
    const included: Directive[] = []
    for (const file of files) {
      if (++this.#count > MOST_FILES) throw new NginxSyntaxError(at, `more than ${MOST_FILES} files are included`)
      try {
        if (within.includes(await realpath(file))) throw new NginxSyntaxError(at, `${file} includes itself`)
        const inner = await this.read(file, place, within)
        for (const other of inner) included.push(other)
      } catch (error) {
        if (error instanceof NginxSyntaxError) throw error
        await this.#look(file)
        const { code, message } = error as NodeJS.ErrnoException
        if (code !== 'ENOENT' || !mayMiss) {
          throw new NginxSyntaxError(at, code === undefined ? message : `cannot read ${file} (${code})`, {
            cause: error,
          })
        }
        included.push(directive)
      }
    }
    return included
  }

  /** As glob(3): in the order of bytes, a leading dot only where the pattern has one, none for a folder that is not there. */
  async #glob(pattern: string): Promise<string[]> {
    let found = ['/']
    for (const segment of pattern.split('/').filter((part) => part !== '')) {
      if (!/[*?[\\]/.test(segment)) {
        found = found.map((folder) => join(folder, segment))
        continue
      }
      const matches = segmentMatcher(segment)
      const next: string[] = []
      for (const folder of found) {
        this.folders.add(folder)
        await this.#look(folder)
        const names = await readdir(folder).catch(() => [])
        const sorted = names.filter(matches).sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
        for (const name of sorted) next.push(join(folder, name))
      }
      found = next
    }
    // A plain last segment was not looked for.
    const last = pattern.slice(pattern.lastIndexOf('/') + 1)
    if (/[*?[\\]/.test(last)) return found
    const there = await Promise.allSettled(found.map((path) => realpath(path)))
    return found.filter((_, i) => there[i]!.status === 'fulfilled')
  }
}

type Part = '*' | ((char: string) => boolean)

/** A name against one segment of a pattern: `*`, `?`, `[a-z]`, `[!a]`, and a backslash before what is meant as it is. */
export function segmentMatcher(pattern: string): (name: string) => boolean {
  const parts: Part[] = []
  for (const [part, set, escaped] of pattern.matchAll(/\[((?:[!^])?\]?[^\]]*)\]|\\(.)|./gsu)) {
    if (part === '*') parts.push('*')
    else if (part === '?') parts.push(() => true)
    else if (set !== undefined) parts.push(inSet(set))
    else parts.push((char) => char === (escaped ?? part))
  }
  return (name) => (!name.startsWith('.') || pattern.startsWith('.')) && matchParts(parts, Array.from(name))
}

function inSet(set: string): (char: string) => boolean {
  const isNegated = /^[!^]/.test(set)
  const ranges = [...set.slice(isNegated ? 1 : 0).matchAll(/(.)-(.)|./gsu)].map(
    ([one, from = one, to = one]) => [from.codePointAt(0)!, to.codePointAt(0)!] as const,
  )
  return (char) => ranges.some(([from, to]) => char.codePointAt(0)! >= from && char.codePointAt(0)! <= to) !== isNegated
}

/** Only the last star is ever tried again: O(name × pattern), whatever the pattern. */
function matchParts(parts: readonly Part[], name: readonly string[]): boolean {
  let at = 0
  let part = 0
  let star = -1
  let resume = 0
  while (at < name.length) {
    const wanted = parts[part]
    if (wanted === '*') {
      star = part++
      resume = at
    } else if (wanted?.(name[at]!) === true) {
      at++
      part++
    } else if (star >= 0) {
      part = star + 1
      at = ++resume
    } else return false
  }
  while (parts[part] === '*') part++
  return part === parts.length
}
