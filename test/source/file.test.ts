import {
  appendFileSync,
  closeSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { execFileSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Checkups } from '../../src/index.js'
import { systemClock } from '../../src/clock.js'
import { file, type FileOptions } from '../../src/source/file.js'
import type { SourceErrorEvent } from '../../src/source/follow.js'
import type { SourceLists } from '../../src/source/source.js'
import { eventually } from '../support/eventually.js'

const servers = (...servers: string[]) => ({ servers })

function temporary(name = 'upstreams.json'): string {
  const folder = realpathSync(mkdtempSync(join(tmpdir(), 'checkups-file-')))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return join(folder, name)
}

/** A file of a while ago, which has come to rest. */
function write(path: string, content: unknown): void {
  writeFileSync(path, typeof content === 'string' ? content : JSON.stringify(content))
  utimesSync(path, 1_000_000_000 + Math.random(), 1_000_000_000 + Math.random())
}

/** Put there by a rename, as it should be. */
function replace(path: string, content: unknown): void {
  write(`${path}.new`, content)
  renameSync(`${path}.new`, path)
}

/** Calls `watch` as the loop does, one after the other, without its waits. */
function follow(options: FileOptions) {
  const controller = new AbortController()
  onTestFinished(() => controller.abort(new Error('the test is over')))
  const source = file(options)
  const sleep = vi.fn(
    (ms: number) =>
      new Promise<void>((resolve, reject) => {
        const timer = setTimeout(resolve, ms).unref()
        controller.signal.addEventListener('abort', () => {
          clearTimeout(timer)
          reject(controller.signal.reason as Error)
        })
      }),
  )
  const context = { signal: controller.signal, clock: systemClock, sleep }
  return {
    source,
    controller,
    sleep,
    /** What the next watch gives; rejects as it does. */
    next: async (): Promise<Record<string, unknown>> => {
      const applied: SourceLists[] = []
      await source.watch((lists) => applied.push(lists), context)
      expect(applied).toHaveLength(1)
      const { upstreams, refused } = applied[0]!
      return {
        ...Object.fromEntries(upstreams as Map<string, unknown>),
        ...(refused !== undefined && refused.length > 0 && { refused }),
      }
    },
  }
}

/** What is given for a content, once. */
async function given(content: string | Uint8Array, name?: string): Promise<Record<string, unknown>> {
  const path = temporary(name)
  writeFileSync(path, content)
  utimesSync(path, 1, 1)
  return follow({ path, watch: false }).next()
}

describe('content', () => {
  it('is a map of upstreams, or has one', async () => {
    const upstreams = { a: [servers('10.0.0.1:80')], b: { ...servers('10.0.0.2:80'), balancer: 'random' } }
    expect(await given(JSON.stringify(upstreams))).toEqual(upstreams)
    expect(await given(JSON.stringify({ upstreams }))).toEqual(upstreams)
    expect(await given('{}')).toEqual({})
  })

  it('is read in YAML as in JSON', async () => {
    const text = `
# a comment
upstreams:
  a:
    - &first { servers: [10.0.0.1:80] }
    - servers: ['[::1]:80', &s { host: b.test, port: 80, weight: 2 }]
  b: { servers: [*s], statuses: { 404: next }, balancer: wrr }
  'on': [*first]
`
    const shared = { host: 'b.test', port: 80, weight: 2 }
    const expected = {
      a: [servers('10.0.0.1:80'), { servers: ['[::1]:80', shared] }],
      b: { servers: [shared], statuses: { 404: 'next' }, balancer: 'wrr' },
      on: [servers('10.0.0.1:80')],
    }
    expect(await given(text, 'a.yaml')).toEqual(expected)
    expect(await given(text, 'a.YML')).toEqual(expected)
  })

  it.each(['a.json', 'a.yaml'])('has keys of any name (%s)', async (name) => {
    const text = '{"__proto__": {"servers": []}, "constructor": [], "toString": {"__proto__": {"servers": ["a:1"]}}}'
    const path = temporary(name)
    write(path, text)
    const { source, controller } = follow({ path })
    const applied: SourceLists[] = []
    const context = { signal: controller.signal, clock: systemClock, sleep: () => Promise.resolve() }
    await source.watch((lists) => applied.push(lists), context)
    const upstreams = applied[0]!.upstreams as Map<string, object>
    expect([...upstreams.keys()]).toEqual(['__proto__', 'constructor', 'toString'])
    expect(Object.getPrototypeOf(upstreams.get('toString'))).toBe(Object.prototype)
    expect(Object.keys(upstreams.get('toString')!)).toEqual(['__proto__'])
  })

  it('beside the map of upstreams is reported', async () => {
    expect(await given('{"upstreams": {"c": []}, "version": 1}')).toEqual({
      c: [],
      refused: [{ at: expect.stringMatching(/: "version"$/) as string, reason: 'unknown key beside "upstreams"' }],
    })
  })

  it('that is no upstream is refused by the loop, and what was there stays', async () => {
    const path = temporary()
    write(path, { a: [servers('10.0.0.1:80')], b: [servers('10.0.0.2:80')], c: [servers('10.0.0.3:80')] })
    const checkups = new Checkups({ sources: [file({ path })] })
    onTestFinished(() => checkups.close())
    await checkups.start()
    const updated = new Promise((resolve) => checkups.on('upstream:update', resolve))
    const refused = new Promise<SourceErrorEvent>((resolve) => checkups.on('source:error', resolve))
    replace(path, { a: 1, b: null, d: [servers('10.0.0.4:80')] })
    await updated
    expect((await refused).refused.map(({ at }) => at)).toEqual(['upstreams.a.cluster', 'upstreams.b.cluster'])
    expect(checkups.selectPeer('a')?.address).toBe('10.0.0.1:80')
    expect(checkups.selectPeer('b')?.address).toBe('10.0.0.2:80')
    expect(checkups.selectPeer('d')?.address).toBe('10.0.0.4:80')
    expect(() => checkups.selectPeer('c')).toThrow('unknown upstream "c"')
  })

  it.each(['[]', '1', 'null', '"a"'])('must be an object, not %s', async (text) => {
    await expect(given(text)).rejects.toThrow('upstreams.json: expected an object of upstreams')
    await expect(given(text, 'a.yaml')).rejects.toThrow('a.yaml: expected an object of upstreams')
    await expect(given(`{"upstreams": ${text}}`)).rejects.toThrow('upstreams.json: upstreams: expected an object')
  })

  it('may begin with a byte order mark, and must be UTF-8', async () => {
    expect(await given('\ufeff{"ä": []}')).toEqual({ ä: [] })
    await expect(given(Buffer.from('{"\xe4": []}', 'latin1'))).rejects.toThrow(/upstreams\.json: .*utf-8/i)
  })
})

describe('broken JSON', () => {
  it.each([
    ['', '1:1: it ends too early'],
    ['{"a": [\n', '2:1: it ends too early'],
    ['{\n  "a": [,]\n}', '2:9: unexpected ","'],
    ['{\n  "a": [1,]\n}', '2:11: unexpected "]"'],
    ['{"a": 1,}', '1:9: unexpected "}"'],
    ['{"a" 1}', '1:6: unexpected "1"'],
    ['{"a": 1 "b": 2}', '1:9: unexpected "\\""'],
    ['{a: 1}', '1:2: unexpected "a"'],
    ["{'a': 1}", '1:2: unexpected "\'"'],
    ['{"a": nul}', '1:7: unexpected "n"'],
    ['{"a": 01}', '1:8: unexpected "1"'],
    ['{"a": 1.}', '1:8: unexpected "."'],
    ['{"a": -}', '1:7: unexpected "-"'],
    ['{"a": .5}', '1:7: unexpected "."'],
    ['{"a": "x\ny"}', '1:7: unexpected "\\""'],
    ['{"a": "\\x"}', '1:7: unexpected "\\""'],
    ['{"a": "x', '1:7: unexpected "\\""'],
    ['{"a": []]}', '1:9: unexpected "]"'],
    ['{"a": []}}', '1:10: unexpected "}"'],
    ['{} {}', '1:4: unexpected "{"'],
    ['{\r\n"a": 😀}', '2:6: unexpected "😀"'],
    ['<html>', '1:1: unexpected "<"'],
    ['{"a": [],\n "b": [],\n "\\u0061": []}', '3:2: "\\u0061" is there twice'],
    ['['.repeat(200), '1:101: more than 100 levels deep'],
  ])('%j: %s', async (text, problem) => {
    await expect(given(text)).rejects.toThrow(`upstreams.json:${problem}`)
  })

  it('is what JSON.parse says is broken', async () => {
    const texts = ['{"a": [true, false, null, -0, 1e5, 1.5E-3, "\\u00e4\\n\\/", {}, [], [[]], {"b": {}}]}', ' {\t}\r\n']
    for (const text of texts) {
      await expect(given(text)).resolves.toBeDefined()
      for (let end = 0; end < text.trimEnd().length; end++) {
        await expect(given(text.slice(0, end)), text.slice(0, end)).rejects.toThrow(/\.json:\d+:\d+: /)
      }
    }
  })
})

describe('broken YAML', () => {
  it.each([
    ['a: [\n', '2:1: '],
    ['a:\n  - b\n c: d\n', '3:1: All mapping items must start at the same column'],
    ['a: []\na: []\n', '2:1: Map keys must be unique'],
    ['a: []\n__proto__: []\n__proto__: []\n', '3:1: Map keys must be unique'],
    ['a: !!js/function "x"\n', '1:4: Unresolved tag: tag:yaml.org,2002:js/function'],
    ['a: !env HOME\n', '1:4: Unresolved tag: !env'],
    ['a: !!binary aGk=\n', '1:4: Unresolved tag: '],
    ['a: []\n---\nb: []\n', '2:1: Source contains multiple documents'],
  ])('%j: %s', async (text, problem) => {
    await expect(given(text, 'a.yaml')).rejects.toThrow(`a.yaml:${problem}`)
  })

  it('has keys that are lists, aliases of what they are in, or too many of them', async () => {
    await expect(given('? [a]\n: b\n', 'a.yaml')).rejects.toThrow('a.yaml: a key that is a list or a map')
    await expect(given('a: *b\n', 'a.yaml')).rejects.toThrow('a.yaml: Unresolved alias')
    await expect(given('a: &a [*a]\n', 'a.yaml')).rejects.toThrow('a.yaml')
    const laughs = Array.from({ length: 9 }, (_, i) => `a${i + 1}: &a${i + 1} [${Array(9).fill(`*a${i}`).join()}]`)
    const text = ['a0: &a0 [lol]', ...laughs].join('\n')
    await expect(given(text, 'a.yaml')).rejects.toThrow('a.yaml: Excessive alias count')
    await expect(given('['.repeat(150) + ']'.repeat(150), 'a.yaml')).rejects.toThrow('more than 100 levels deep')
  })
})

describe('files that are none', () => {
  it('are refused: folders, pipes, devices, too many bytes', async () => {
    const path = temporary()
    mkdirSync(path)
    await expect(follow({ path }).next()).rejects.toThrow(`${path}: not a regular file`)
    rmSync(path, { recursive: true })
    execFileSync('mkfifo', [path])
    await expect(follow({ path }).next()).rejects.toThrow(`${path}: not a regular file`)
    await expect(follow({ path: '/dev/zero', format: 'json' }).next()).rejects.toThrow('/dev/zero: not a regular file')
    unlinkSync(path)
    writeFileSync(path, '')
    truncateSync(path, 2 ** 40)
    await expect(follow({ path }).next()).rejects.toThrow(`${path}: ${2 ** 40} bytes, expected at most 16777216`)
  })

  it('are waited for when they are not there', async () => {
    const path = temporary()
    const { next } = follow({ path })
    await expect(next()).rejects.toThrow(`${path}: there is no such file`)
    const lists = next()
    write(path, { a: [] })
    expect(await lists).toEqual({ a: [] })
  })
})

describe('a change', () => {
  it('in place, by rename, by another link is read; a broken file is reported once', async () => {
    const path = temporary()
    write(path, { a: [] })
    const { next } = follow({ path })
    expect(await next()).toEqual({ a: [] })
    const inPlace = next()
    writeFileSync(path, '{"b": []}')
    expect(await inPlace).toEqual({ b: [] })
    const broken = next()
    replace(path, '{"b": [}')
    await expect(broken).rejects.toThrow(`${path}:1:8: unexpected "}"`)
    // It is not read again before it is another one.
    const mended = next()
    replace(path, { c: [] })
    expect(await mended).toEqual({ c: [] })
  })

  it('of a ConfigMap is read', async () => {
    const path = temporary()
    const folder = join(path, '..')
    for (const version of ['..1', '..2']) {
      mkdirSync(join(folder, version))
      write(join(folder, version, 'upstreams.json'), { [version]: [] })
    }
    symlinkSync('..1', join(folder, '..data'))
    symlinkSync('..data/upstreams.json', path)
    const { next } = follow({ path })
    expect(await next()).toEqual({ '..1': [] })
    const lists = next()
    symlinkSync('..2', join(folder, '..tmp'))
    renameSync(join(folder, '..tmp'), join(folder, '..data'))
    expect(await lists).toEqual({ '..2': [] })
  })

  it('that went on between two watches is seen', async () => {
    const path = temporary()
    write(path, { a: [] })
    const { next } = follow({ path })
    await next()
    replace(path, { b: [] })
    expect(await next()).toEqual({ b: [] })
  })

  it('that is under way is waited for', async () => {
    const path = temporary('upstreams.yaml')
    write(path, 'a: []\n')
    const { next, sleep } = follow({ path })
    await next()
    sleep.mockClear()
    const lists = next()
    // Each part by itself would be a good file.
    const handle = openSync(path, 'w')
    writeSync(handle, 'a: []\n')
    for (const part of ['b: []\n', 'c: []\n', 'd: []\n']) {
      // The rest begins; before it is over there is more.
      const rests = () => sleep.mock.calls.filter(([ms]) => ms === 50).length
      const before = rests()
      await eventually(() => expect(rests()).toBeGreaterThan(before))
      writeSync(handle, part)
    }
    closeSync(handle)
    expect(await lists).toEqual({ a: [], b: [], c: [], d: [] })
  })

  it('that never ends is an error', async () => {
    const path = temporary()
    const { source, controller } = follow({ path })
    writeFileSync(path, '')
    let looks = 0
    const sleep = () => {
      looks++
      appendFileSync(path, ' ')
      return Promise.resolve()
    }
    const done = source.watch(() => expect.unreachable(), { signal: controller.signal, clock: systemClock, sleep })
    await expect(done).rejects.toThrow(`${path}: it changes all the time`)
    expect(looks).toBe(200)
  })

  it('is not looked for if it is not to be', async () => {
    const path = temporary()
    write(path, { a: [] })
    const { next, source } = follow({ path, watch: false })
    await next()
    replace(path, { b: [] })
    const lists = next()
    replace(path, { c: [] })
    await source.reload()
    expect(await lists).toEqual({ c: [] })
  })
})

describe('reload', () => {
  it('reads what has not changed, and says what is wrong', async () => {
    const path = temporary()
    write(path, { a: [] })
    const { next, source, controller } = follow({ path })
    const early = source.reload()
    expect(await next()).toEqual({ a: [] })
    await early
    const lists = next()
    await source.reload()
    expect(await lists).toEqual({ a: [] })
    write(path, '{')
    const broken = next()
    await expect(source.reload()).rejects.toThrow(`${path}:1:2: it ends too early`)
    await expect(broken).rejects.toThrow('it ends too early')
    // Not followed at the moment: with the next watch, or when that is over.
    const late = source.reload()
    const reason = new Error('closed')
    controller.abort(reason)
    await expect(next()).rejects.toBe(reason)
    await expect(late).rejects.toBe(reason)
    await expect(source.reload()).rejects.toBe(reason)
  })
})

describe('the end', () => {
  it.each([true, false])('comes at once (watch: %s)', async (watch) => {
    const path = temporary()
    write(path, { a: [] })
    const { next, controller } = follow({ path, watch })
    await next()
    const lists = next()
    const reason = new Error('closed')
    controller.abort(reason)
    await expect(lists).rejects.toBe(reason)
  })

  it('of one who follows is not that of another', async () => {
    const path = temporary()
    write(path, { a: [] })
    const { source, next } = follow({ path })
    expect(await next()).toEqual({ a: [] })
    const applied: SourceLists[] = []
    const { signal } = new AbortController()
    await source.watch((lists) => applied.push(lists), { signal, clock: systemClock, sleep: () => Promise.resolve() })
    expect(applied).toHaveLength(1)
  })

  it('of a process is not kept off', () => {
    const path = temporary()
    write(path, { a: [] })
    const script = `
      import { file } from ${JSON.stringify(new URL('../../src/source/file.ts', import.meta.url).href)}
      import { systemClock } from ${JSON.stringify(new URL('../../src/clock.ts', import.meta.url).href)}
      const source = file({ path: ${JSON.stringify(path)} })
      const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms).unref())
      const context = { signal: new AbortController().signal, clock: systemClock, sleep }
      const follow = async () => { for (;;) await source.watch(() => console.log('applied'), context) }
      void follow()`
    const args = ['--import', 'tsx', '--input-type=module', '--eval', script]
    expect(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 })).toBe('applied\n')
  })
})

describe('options', () => {
  const bad = (options: unknown) => () => file(options as FileOptions)

  it('are checked', () => {
    expect(bad(undefined)).toThrow('file: expected an object')
    expect(bad({})).toThrow('file.path: expected a non-empty string')
    expect(bad({ path: 'a.json', fromat: 'yaml' })).toThrow('file.fromat: unknown option')
    expect(bad({ path: 'a.conf' })).toThrow('file.path: expected a name that ends in .json, .yaml or .yml, or a format')
    expect(bad({ path: 'a.conf', format: 'xml' })).toThrow('file.format: expected "json" or "yaml"')
    expect(bad({ path: 'a.json', watch: 1 })).toThrow('file.watch: expected true or false')
  })

  it('of the loop are handed to it; what is not in the file is pruned', () => {
    expect(file({ path: '/a.json' })).toMatchObject({ name: 'file:/a.json', options: { prune: true } })
    expect(file({ path: '/a.json', prune: false, debounce: 5 }).options).toEqual({ prune: false, debounce: 5 })
  })
})
