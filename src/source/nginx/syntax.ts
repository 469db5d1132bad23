/** nginx's configuration syntax: words, `;` and blocks, exactly as nginx's own tokenizer (ngx_conf_file.c) reads them. */
import { ConfigError } from '../../errors.js'

/** A place in a file. */
export interface Position {
  /** The file, as it was opened. */
  readonly file: string
  /** From 1. */
  readonly line: number
  /** From 1, in UTF-16 units. */
  readonly column: number
}

/** Says what is left out, or has no counterpart. */
export type Report = (at: Position, reason: string) => void

/** A directive with its words. */
export interface Directive {
  readonly name: string
  readonly args: readonly string[]
  readonly at: Position
  /** What stands in its braces; undefined for one that ends with `;`. */
  readonly block: readonly Directive[] | undefined
}

/** A configuration that cannot be read: its syntax is wrong, or a file that it includes is not there. Nothing was changed. */
export class NginxSyntaxError extends ConfigError {
  /** The file, as it was opened. */
  readonly file: string
  /** From 1. */
  readonly line: number
  /** From 1. */
  readonly column: number

  constructor({ file, line, column }: Position, problem: string, options?: ErrorOptions) {
    super(`${file}:${line}:${column}`, problem)
    if (options?.cause !== undefined) this.cause = options.cause
    this.file = file
    this.line = line
    this.column = column
  }

  static {
    this.prototype.name = 'NginxSyntaxError'
  }
}

/** A directive whose block has not ended yet. */
interface Open extends Directive {
  readonly block: Directive[]
}

/** Reads a text; includes are directives like any other. */
export function parseDirectives(text: string, file: string): Directive[] {
  const scanner = new Scanner(text, file)
  const top: Directive[] = []
  // A list and no recursion: a text may nest as deep as it likes.
  const open: Open[] = []
  let words: string[] = []
  let start: Position | undefined
  for (;;) {
    const token = scanner.next()
    const into = open.at(-1)?.block ?? top
    if (typeof token === 'string') {
      words.push(token)
      start ??= scanner.tokenAt
      continue
    }
    const [name, ...args] = words
    if (token === END) {
      if (name !== undefined) throw scanner.error('unexpected end of file, expecting ";" or "}"')
      const unclosed = open.at(-1)
      if (unclosed === undefined) return top
      throw scanner.error(`unexpected end of file, expecting "}" of "${unclosed.name}" in line ${unclosed.at.line}`)
    }
    if (token === CLOSE) {
      if (name !== undefined || open.pop() === undefined) throw scanner.error('unexpected "}"')
      continue
    }
    if (name === undefined) throw scanner.error(`unexpected "${String.fromCharCode(token)}"`)
    if (token === SEMICOLON) into.push({ name, args, at: start!, block: undefined })
    else {
      const block: Open = { name, args, at: start!, block: [] }
      into.push(block)
      // OpenResty: what stands in these braces is Lua.
      if (name.endsWith('_by_lua_block')) scanner.skipLua()
      else open.push(block)
    }
    words = []
    start = undefined
  }
}

const TAB = 9
const NEWLINE = 10
const RETURN = 13
const SPACE = 32
const DOUBLE = 34
const HASH = 35
const DOLLAR = 36
const SINGLE = 39
const PARENTHESIS = 41
const SEMICOLON = 59
const BACKSLASH = 92
const OPEN = 123
const CLOSE = 125
const END = -1

type Token = string | typeof SEMICOLON | typeof OPEN | typeof CLOSE | typeof END

const isSpace = (char: number) => char === SPACE || char === TAB || char === RETURN || char === NEWLINE

/** What a backslash stands before, and what both are then. Before anything else it is itself. */
const ESCAPES: ReadonlyMap<string, string> = new Map([
  ['"', '"'],
  ["'", "'"],
  ['\\', '\\'],
  ['t', '\t'],
  ['r', '\r'],
  ['n', '\n'],
])

const unescape = (word: string) =>
  word.includes('\\') ? word.replace(/\\(.)/gs, (both, char: string) => ESCAPES.get(char) ?? both) : word

class Scanner {
  readonly #text: string
  readonly #file: string
  #at: number
  #line = 1
  #lineStart: number
  #tokenAt: number
  /** Line and its start, of the token: a quoted word may span lines. */
  #tokenLine = 1
  #tokenLineStart: number
  /** After a quoted word nothing but an end of the word may follow. */
  #quotedBefore = false

  constructor(text: string, file: string) {
    this.#text = text
    this.#file = file
    // A byte order mark is no part of the first word.
    this.#at = text.startsWith('\uFEFF') ? 1 : 0
    this.#tokenAt = this.#lineStart = this.#tokenLineStart = this.#at
  }

  get tokenAt(): Position {
    return { file: this.#file, line: this.#tokenLine, column: this.#tokenAt - this.#tokenLineStart + 1 }
  }

  error(problem: string): NginxSyntaxError {
    return new NginxSyntaxError(this.tokenAt, problem)
  }

  next(): Token {
    this.#skipSpace()
    const start = this.#begin()
    const char = this.#read()
    if (char === END || char === SEMICOLON || char === OPEN || char === CLOSE) return char
    if (char === DOUBLE || char === SINGLE) return this.#quoted(char)
    return this.#word(start, char)
  }

  /** Lua, to the brace that closes it: strings, long brackets and comments may have braces of their own. */
  skipLua(): void {
    this.#begin()
    const opened = this.tokenAt
    const fail = () => new NginxSyntaxError(opened, 'unexpected end of file, expecting "}" of a block of Lua')
    const token = /--|\[=*\[|["'{}]/g
    const restOf = { '"': /(?:\\.|[^"\\])*"/sy, "'": /(?:\\.|[^'\\])*'/sy, comment: /[^\n]*/y, bracket: /\[=*\[/y }
    token.lastIndex = this.#at
    // What does not end is an error at once: the text is read once.
    for (let depth = 1; depth > 0;) {
      let [found] = token.exec(this.#text) ?? []
      if (found === undefined) throw fail()
      if (found === '{') depth++
      else if (found === '}') depth--
      else if (found === '"' || found === "'") {
        restOf[found].lastIndex = token.lastIndex
        if (!restOf[found].test(this.#text)) throw fail()
        token.lastIndex = restOf[found].lastIndex
      } else {
        if (found === '--') {
          restOf.bracket.lastIndex = token.lastIndex
          ;[found] = restOf.bracket.exec(this.#text) ?? []
        }
        if (found === undefined) {
          restOf.comment.lastIndex = token.lastIndex
          restOf.comment.test(this.#text)
          token.lastIndex = restOf.comment.lastIndex
        } else {
          const close = found.replaceAll('[', ']')
          const end = this.#text.indexOf(close, token.lastIndex)
          if (end < 0) throw fail()
          token.lastIndex = end + close.length
        }
      }
    }
    while (this.#at < token.lastIndex) this.#read()
  }

  #skipSpace(): void {
    for (;;) {
      const char = this.#peek()
      if (isSpace(char)) this.#read()
      else if (char === HASH && !this.#quotedBefore)
        while (this.#peek() !== END && this.#peek() !== NEWLINE) this.#read()
      else break
      this.#quotedBefore = false
    }
    if (!this.#quotedBefore) return
    this.#quotedBefore = false
    const char = this.#peek()
    if (char === SEMICOLON || char === OPEN || char === PARENTHESIS || char === END) return
    this.#begin()
    throw this.error(`unexpected "${String.fromCodePoint(this.#text.codePointAt(this.#at)!)}"`)
  }

  #quoted(quote: number): string {
    const start = this.#at
    for (;;) {
      const char = this.#read()
      if (char === END) throw this.error('unexpected end of file, expecting the end of a quoted word')
      if (char === BACKSLASH) this.#read()
      else if (char === quote) break
    }
    this.#quotedBefore = true
    return unescape(this.#text.slice(start, this.#at - 1))
  }

  /** A brace belongs to a word after a dollar (`${name}`), and so does a closing one anywhere but at its start. */
  #word(start: number, first: number): string {
    let inVariable = false
    for (let char = first; ; char = this.#read()) {
      if (char !== OPEN) inVariable = char === DOLLAR
      if (char === BACKSLASH) this.#read()
      const next = this.#peek()
      if (next === END || isSpace(next) || next === SEMICOLON || (next === OPEN && !inVariable)) break
    }
    return unescape(this.#text.slice(start, this.#at))
  }

  #begin(): number {
    this.#tokenLine = this.#line
    this.#tokenLineStart = this.#lineStart
    return (this.#tokenAt = this.#at)
  }

  #peek(): number {
    return this.#at < this.#text.length ? this.#text.charCodeAt(this.#at) : END
  }

  #read(): number {
    const char = this.#peek()
    if (char === END) return END
    this.#at++
    if (char === NEWLINE) {
      this.#line++
      this.#lineStart = this.#at
    }
    return char
  }
}
