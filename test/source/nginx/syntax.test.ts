import { spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { describe, expect, it, onTestFinished } from 'vitest'
import { isCheckupsError } from '../../../src/index.js'
import { parseNginx } from '../../../src/source/nginx.js'
import { NginxSyntaxError, parseDirectives, type Directive } from '../../../src/source/nginx/syntax.js'
import { installed, whereInstalled } from '../../support/servers.js'

/** Words of directives, with what stands in their braces. */
type Words = (string | Words)[]
const words = (directives: readonly Directive[]): Words[] =>
  directives.map(({ name, args, block }) => [name, ...args, ...(block === undefined ? [] : [words(block)])])
const parse = (text: string) => words(parseDirectives(text, 'nginx.conf'))
const errorOf = (text: string): NginxSyntaxError => {
  try {
    parseDirectives(text, 'nginx.conf')
  } catch (error) {
    return error as NginxSyntaxError
  }
  throw new Error('no error')
}

describe('what nginx reads', () => {
  const read: [name: string, text: string, expected: Words[]][] = [
    ['nothing', '', []],
    ['a byte order mark', '\uFEFFa;', [['a']]],
    ['words', 'a  b\tc\r\nd;e;', [['a', 'b', 'c', 'd'], ['e']]],
    ['blocks', 'a b { c; d { } }', [['a', 'b', [['c'], ['d', []]]]]],
    ['comments', '#{\na;#}\nb # c;\n;', [['a'], ['b']]],
    ['a hash inside a word', 'a b#c;', [['a', 'b#c']]],
    ['quotes', `a "b c;{}#" 'd "e' "";`, [['a', 'b c;{}#', 'd "e', '']]],
    ['quotes inside a word', `a b"c d'e;`, [['a', 'b"c', "d'e"]]],
    ['a quoted word over lines', 'a "b\nc";', [['a', 'b\nc']]],
    ['escapes', String.raw`a "\"\\\t\n\r\x" \"b\; 'c\'';`, [['a', '"\\\t\n\r\\x', '"b\\;', "c'"]]],
    ['an escaped space', String.raw`a\ b c;`, [['a\\ b', 'c']]],
    ['a brace that closes inside a word', 'a b}c;', [['a', 'b}c']]],
    ['a parenthesis after a quoted word', `if ("a") { b; }`, [['if', '("a")', [['b']]]]],
    ['a parenthesis after a quoted word of its own', `if ( "a") { b; }`, [['if', '(', 'a', ')', [['b']]]]],
    [
      'no space',
      'a{b;}c{}d "e"{}',
      [
        ['a', [['b']]],
        ['c', []],
        ['d', 'e', []],
      ],
    ],
  ]
  it.each(read)('%s', (_, text, expected) => expect(parse(text)).toEqual(expected))

  it('a brace after a dollar as part of the word', () => {
    expect(parse('a ${b}c d${{;')).toEqual([['a', '${b}c', 'd${{']])
  })

  it('blocks of Lua as one, whatever is in them', () => {
    const lua = `--[==[ } ]] ]==] local a = "}\\"}" -- }\n local b = '}' .. [[ } ]] .. { 1 }[1] .. [=[]]}]=]`
    expect(parse(`upstream a { balancer_by_lua_block {${lua}} server b; } c;`)).toEqual([
      [
        'upstream',
        'a',
        [
          ['balancer_by_lua_block', []],
          ['server', 'b'],
        ],
      ],
      ['c'],
    ])
  })

  it('blocks however deep', () => {
    const deep = parseDirectives('a{'.repeat(200_000) + '}'.repeat(200_000), 'nginx.conf')
    expect(deep).toHaveLength(1)
  })

  it('and where', () => {
    const [a] = parseDirectives('\n  a b {\n "c\nd" e;\n   f; }', 'x.conf')
    expect(a!.at).toEqual({ file: 'x.conf', line: 2, column: 3 })
    expect(a!.block!.map(({ at }) => [at.line, at.column])).toEqual([
      [3, 2],
      [5, 4],
    ])
  })
})

describe('what nginx refuses', () => {
  const refused: [text: string, line: number, column: number, problem: string][] = [
    [';', 1, 1, 'unexpected ";"'],
    ['a;\n{', 2, 1, 'unexpected "{"'],
    ['a; }', 1, 4, 'unexpected "}"'],
    ['a { b }', 1, 7, 'unexpected "}"'],
    ['a "b"c;', 1, 6, 'unexpected "c"'],
    ['a "b"#;', 1, 6, 'unexpected "#"'],
    ['a "b"};', 1, 6, 'unexpected "}"'],
    ['a b', 1, 4, 'unexpected end of file, expecting ";" or "}"'],
    ['a "b"', 1, 6, 'unexpected end of file, expecting ";" or "}"'],
    ['x;\na {\nb;\n', 4, 1, 'unexpected end of file, expecting "}" of "a" in line 2'],
    ['a\n  "b;\n', 2, 3, 'unexpected end of file, expecting the end of a quoted word'],
    ['a "b\\"', 1, 3, 'unexpected end of file, expecting the end of a quoted word'],
    ['a_by_lua_block { "}', 1, 17, 'unexpected end of file, expecting "}" of a block of Lua'],
    ['a_by_lua_block { [[}', 1, 17, 'unexpected end of file, expecting "}" of a block of Lua'],
    ['a_by_lua_block { --}', 1, 17, 'unexpected end of file, expecting "}" of a block of Lua'],
  ]
  it.each(refused)('%j at %i:%i', (text, line, column, problem) => {
    const error = errorOf(text)
    expect(error).toBeInstanceOf(NginxSyntaxError)
    expect(error).toMatchObject({ file: 'nginx.conf', line, column, path: `nginx.conf:${line}:${column}` })
    expect(error.message).toBe(`nginx.conf:${line}:${column}: ${problem}`)
    expect(isCheckupsError(error, 'ERR_CHECKUPS_CONFIG')).toBe(true)
  })
})

describe('any text', () => {
  const piece = fc.oneof(
    fc.constantFrom(...Array.from(' \t\n\r;{}"\'\\#$()[]=-')),
    fc.constantFrom('a', '${', '}', 'upstream a {', 'server b;', 'x_by_lua_block {', '[[', ']]', '--', '\uFEFF', '\0'),
    fc.string({ unit: 'binary', maxLength: 3 }),
  )

  it('is read, or refused by an error of ours', () => {
    fc.assert(
      fc.property(fc.array(piece, { maxLength: 60 }), (pieces) => {
        try {
          parse(pieces.join(''))
        } catch (error) {
          expect(error).toBeInstanceOf(NginxSyntaxError)
        }
      }),
      { numRuns: 5_000 },
    )
  })

  it.each([
    'a{',
    '"',
    "'",
    '\\',
    '[[',
    '[=',
    'x_by_lua_block {',
    'x_by_lua_block {"\\',
    'x_by_lua_block{--[[',
    '${',
    '#',
    ' ',
  ])('of a million characters %j is read once', (unit) => {
    const text = unit.repeat(Math.ceil(1e6 / unit.length))
    for (const prefix of ['', 'a_by_lua_block {']) {
      const started = process.cpuUsage()
      try {
        parseDirectives(prefix + text, 'nginx.conf')
      } catch (error) {
        expect(error).toBeInstanceOf(NginxSyntaxError)
      }
      // Quadratic work would take minutes of the processor's time; the clock's is up to others, too.
      expect(process.cpuUsage(started).user / 1_000).toBeLessThan(5_000)
    }
  })
})

whereInstalled('the same as nginx', 'nginx', () => {
  const folder = mkdtempSync(join(tmpdir(), 'checkups-nginx-'))
  const file = join(folder, 'nginx.conf')

  /**
   * The name that nginx reads: it says so of one that comes twice. True if it takes the
   * text, false if it refuses its syntax, undefined if it refuses it for another reason.
   */
  function nginxReads(text: string): string | boolean | undefined {
    writeFileSync(file, `pid ${folder}/pid; error_log stderr; events {} http {\n${text}\n}`)
    const { stderr } = spawnSync(installed('nginx')!, ['-t', '-q', '-p', folder, '-c', file], { encoding: 'utf8' })
    const said = stderr.replace(/^.*could not open error log file.*\n/, '')
    const [, name] = /duplicate upstream "(.*)" in \S*:\d+\n/s.exec(said) ?? []
    if (name !== undefined || said === '') return name ?? true
    return /unexpected|no opening|invalid number of arguments/.test(said) ? false : undefined
  }

  function weRead(text: string): string | boolean {
    try {
      const { upstreams, refused } = parseNginx(`http {\n${text}\n}`)
      const [name] = upstreams.keys()
      if (refused.some(({ reason }) => reason.includes('already'))) return name!
      return name !== undefined && refused.length === 0
    } catch (error) {
      expect(error).toBeInstanceOf(NginxSyntaxError)
      return false
    }
  }

  it('reads words, and refuses others', () => {
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const piece = fc.constantFrom(...Array.from(' \n"\'\\#${});abtnr'), '${', '\\"', "\\'", 'é')
    const word = fc
      .tuple(fc.constantFrom('', '"', "'"), fc.array(piece, { minLength: 1, maxLength: 6 }))
      .map(([quote, pieces]) => `${quote}${pieces.join('')}${quote}`)
    const words = fc.sample(word, { numRuns: 400, seed: 7 })
    const texts = words.map((one) => `upstream ${one} { server 127.0.0.1; } upstream ${one} { server 127.0.0.1; }`)
    const theirs = texts.map(nginxReads)
    expect(texts.map((text, i) => (theirs[i] === undefined ? undefined : weRead(text)))).toEqual(theirs)
    // Some of both.
    expect(theirs.filter((name) => name === false).length).toBeGreaterThan(50)
    expect(theirs.filter((name) => typeof name === 'string').length).toBeGreaterThan(50)
  })
})
