/** JSON and YAML that people write: what is wrong is said with line and column. */
import type { YAMLParseError, YAMLWarning } from 'yaml'
import { loadOptional } from '../../optional.js'

/** Something is wrong with a text, at a place in it; both count from 1, columns in UTF-16 units. */
export class TextError extends Error {
  readonly line: number
  readonly column: number

  constructor(problem: string, line: number, column: number) {
    super(problem)
    this.line = line
    this.column = column
  }
}

/** Of lists and maps in each other. Far beyond any configuration, and far from the end of any stack. */
const DEEPEST = 100
/** What aliases may amount to in all, each counted with those in what it stands for; the package's own default. */
const MOST_ALIASES = 100

const SPACE = /[\t\n\r ]*/y
/** RFC 8259's grammar: what stands for itself, and the two scalars. */
const WORD = /[[\]{}:,]|true|false|null/y
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[\da-fA-F]{4}))*"/y

/** Reads JSON. A key that is there twice is an error: one of the two would be lost without a word. */
export function parseJson(text: string): unknown {
  checkJson(text)
  return JSON.parse(text)
}

/**
 * Walks through a JSON text. The place of an error is not to be had from `JSON.parse`: whether its message names one
 * depends on the error and on the version of V8.
 */
function checkJson(text: string): void {
  let at = 0
  const take = (pattern: RegExp): string => {
    pattern.lastIndex = at
    const found = pattern.exec(text)?.[0] ?? ''
    at += found.length
    return found
  }
  /** The keys of every object that is open; of an array undefined. */
  const open: (Set<string> | undefined)[] = []
  let wanted: 'value' | 'first' | 'key' | 'first key' | 'colon' | 'next' = 'value'
  for (;;) {
    take(SPACE)
    const start = at
    const fail = (problem: string) => new TextError(problem, ...placeOf(text, start))
    if (start === text.length) {
      if (wanted === 'next' && open.length === 0) return
      throw fail('it ends too early')
    }
    const unexpected = () => fail(`unexpected ${JSON.stringify(String.fromCodePoint(text.codePointAt(start)!))}`)
    if (wanted === 'next' && open.length === 0) throw unexpected()
    const word = take(WORD)
    const string = word === '' ? take(STRING) : ''
    const keys = open.at(-1)
    switch (wanted) {
      case 'colon':
        if (word !== ':') throw unexpected()
        wanted = 'value'
        break
      case 'next':
        if (word === ',') wanted = keys === undefined ? 'value' : 'key'
        else if (word === (keys === undefined ? ']' : '}')) open.pop()
        else throw unexpected()
        break
      case 'key':
      case 'first key':
        if (wanted === 'first key' && word === '}') {
          open.pop()
          wanted = 'next'
          break
        }
        if (string === '') throw unexpected()
        if (keys!.size === keys!.add(JSON.parse(string) as string).size) throw fail(`${string} is there twice`)
        wanted = 'colon'
        break
      case 'value':
      case 'first':
        if (word === '{' || word === '[') {
          open.push(word === '{' ? new Set() : undefined)
          if (open.length > DEEPEST) throw fail(`more than ${DEEPEST} levels deep`)
          wanted = word === '{' ? 'first key' : 'first'
          break
        }
        if (wanted === 'first' && word === ']') open.pop()
        else if (string === '' && !/^[tfn]/.test(word) && (word !== '' || take(NUMBER) === '')) throw unexpected()
        wanted = 'next'
    }
  }
}

function placeOf(text: string, at: number): [line: number, column: number] {
  const before = text.slice(0, at)
  const lastBreak = before.lastIndexOf('\n')
  return [before.split('\n').length, at - lastBreak]
}

/**
 * Reads YAML 1.2 by its core schema. Tags beyond it, keys that are there twice and aliases without bounds are errors; every
 * map becomes an object whose keys are its own, whatever they are.
 */
export async function parseYaml(text: string): Promise<unknown> {
  const { parseDocument } = await loadOptional('a YAML file', 'yaml', () => import('yaml'))
  const document = parseDocument(text, {
    schema: 'core',
    resolveKnownTags: false,
    uniqueKeys: true,
    prettyErrors: true,
    logLevel: 'error',
  })
  // What it only warns of is a tag that it does not know.
  const [problem] = [...document.errors, ...document.warnings]
  if (problem !== undefined) throw inWords(problem)
  return plain(document.toJS({ mapAsMap: true, maxAliasCount: MOST_ALIASES }), 0)
}

function inWords({ message, linePos }: YAMLParseError | YAMLWarning): Error {
  // A pretty message goes on with " at line …" and a picture.
  const [problem] = message.split(/ at line \d+, column \d+:\n/)
  return linePos === undefined ? new Error(problem) : new TextError(problem!, linePos[0].line, linePos[0].col)
}

/** Maps as plain objects, made of own properties alone. */
function plain(value: unknown, depth: number): unknown {
  if (typeof value !== 'object' || value === null) return value
  // Also an alias for something that it stands in.
  if (depth >= DEEPEST) throw new Error(`more than ${DEEPEST} levels deep`)
  if (Array.isArray(value)) return value.map((item) => plain(item, depth + 1))
  const entries = [...(value as Map<unknown, unknown>)].map(([key, item]) => {
    if (typeof key === 'object' && key !== null) throw new Error('a key that is a list or a map')
    return [String(key), plain(item, depth + 1)] as const
  })
  return Object.fromEntries(entries)
}
