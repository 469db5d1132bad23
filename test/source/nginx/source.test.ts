import { mkdirSync, mkdtempSync, renameSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock } from '../../../src/clock.js'
import { ConfigError } from '../../../src/index.js'
import type { UpstreamOptions } from '../../../src/index.js'
import { segmentMatcher } from '../../../src/source/nginx/include.js'
import { nginx, NginxSyntaxError, readNginx, type NginxOptions } from '../../../src/source/nginx.js'
import type { Refused, SourceContext } from '../../../src/source/source.js'
import { eventually } from '../../support/eventually.js'

function newFolder(files: Readonly<Record<string, string>>): string {
  const folder = mkdtempSync(join(tmpdir(), 'checkups-nginx-'))
  onTestFinished(() => rmSync(folder, { recursive: true }))
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(folder, name, '..'), { recursive: true })
    writeFileSync(join(folder, name), text)
  }
  return folder
}
const block = (name: string, ...hosts: number[]) =>
  `upstream ${name} { ${hosts.map((host) => `server 10.0.0.${host}:80;`).join(' ')} }\n`
const read = async (folder: string) => [...(await readNginx(join(folder, 'nginx.conf'))).upstreams.keys()]
const failure = async (folder: string) => {
  const error: unknown = await readNginx(join(folder, 'nginx.conf')).catch((reason: unknown) => reason)
  expect(error).toBeInstanceOf(NginxSyntaxError)
  return (error as Error).message.replaceAll(folder, '')
}

describe('includes', () => {
  it('are read where they stand, relative to the configuration wherever they are written', async () => {
    const folder = newFolder({
      'nginx.conf': 'http { include a/one.conf; } include a/s*.conf;',
      'a/one.conf': `include a/two.conf; ${block('one', 1)}`,
      'a/two.conf': block('two', 2),
      'a/stream.conf': 'stream { upstream tcp { include a/servers; } }',
      'a/servers': 'server 10.0.0.1:1; server 10.0.0.2;',
    })
    const { upstreams, refused } = await readNginx(join(folder, 'nginx.conf'))
    expect([...upstreams].map(([name, { context }]) => [name, context])).toEqual([
      ['two', 'http'],
      ['one', 'http'],
      ['tcp', 'stream'],
    ])
    expect(upstreams.get('tcp')!.options.servers).toEqual([{ address: '10.0.0.1:1' }])
    expect(refused.map(({ at }) => at)).toEqual([join(folder, 'a/servers:1')])
  })

  it('are looked for in another root', async () => {
    const folder = newFolder({ 'sites/a.conf': 'include b.conf;', 'b.conf': block('b', 1) })
    expect([...(await readNginx(join(folder, 'sites/a.conf'), { root: folder })).upstreams.keys()]).toEqual(['b'])
  })

  it('by patterns: in the order of bytes, without hidden files, none being fine', async () => {
    const folder = newFolder({
      'nginx.conf': 'include conf.d/*.conf; include none/*; include [d]?r/*/x.conf; include "conf.d/[!a-z]*";',
      'conf.d/b.conf': block('b', 1),
      'conf.d/a.conf': block('a', 1),
      'conf.d/B.conf': block('capital', 1),
      'conf.d/.hidden.conf': block('hidden', 1),
      'conf.d/c.conf.bak': block('bak', 1),
      'dir/one/x.conf': block('x', 1),
      'dir/two/y.conf': block('y', 1),
    })
    expect(await read(folder)).toEqual(['capital', 'a', 'b', 'x'])
  })

  it('not of blocks that have no upstream', async () => {
    const folder = newFolder({
      'nginx.conf': `events { include none; } http { server { include none; } ${block('a', 1)} }`,
    })
    expect(await read(folder)).toEqual(['a'])
  })

  it('not however deep', async () => {
    const folder = newFolder({ 'nginx.conf': `${'http {'.repeat(100_000)} include none; ${'}'.repeat(100_000)}` })
    expect(await read(folder)).toEqual([])
  })

  it('that are not there are an error, except a dump that is not there yet', async () => {
    expect(await failure(newFolder({ 'nginx.conf': '\n include a.conf;' }))).toBe(
      '/nginx.conf:2:2: cannot read /a.conf (ENOENT)',
    )
    expect(await failure(newFolder({ 'nginx.conf': 'upstream a { server a; include b; }' }))).toContain('cannot read')
    const folder = newFolder({ 'nginx.conf': 'upstream a { upsync c:1/; include b; server a; }' })
    const { upstreams, refused } = await readNginx(join(folder, 'nginx.conf'))
    expect(upstreams.get('a')!.options.servers).toHaveLength(1)
    expect(refused).toEqual([{ at: join(folder, 'nginx.conf:1'), reason: 'include b: not there' }])
  })

  it('in a circle are refused, by links too', async () => {
    const circle = { 'nginx.conf': 'include a.conf;', 'a.conf': '\n\ninclude nginx.conf;' }
    expect(await failure(newFolder(circle))).toBe('/a.conf:3:1: /nginx.conf includes itself')
    const folder = newFolder({ 'nginx.conf': 'include d/b.conf;', 'a.conf': 'include d/d/b.conf;' })
    symlinkSync('.', join(folder, 'd'))
    symlinkSync('a.conf', join(folder, 'b.conf'))
    expect(await failure(folder)).toBe('/d/b.conf:1:1: /d/d/b.conf includes itself')
  })

  it('again and again are refused', async () => {
    const twice = Object.fromEntries(
      Array.from({ length: 20 }, (_, i) => [`${i}`, `include ${i + 1}; include ${i + 1};`]),
    )
    expect(await failure(newFolder({ ...twice, 'nginx.conf': 'include 0;', 20: '' }))).toContain(
      'more than 10000 files',
    )
  }, 180_000)

  it('that are no files, or wrong, say where', async () => {
    expect(await failure(newFolder({ 'nginx.conf': 'include d;', 'd/x': '' }))).toContain('not a regular file')
    expect(await failure(newFolder({ 'nginx.conf': 'include a;', a: 'b;\n}' }))).toBe('/a:2:1: unexpected "}"')
    expect(await failure(newFolder({ 'nginx.conf': 'include;' }))).toContain('expected include with one file')
  })

  const patterns: [pattern: string, matching: string[], other: string[]][] = [
    ['*', ['a', 'é'], ['.a']],
    ['.*', ['.a'], ['a']],
    ['*.conf', ['.conf'.slice(1) + '.conf', 'a.conf'], ['a.conf.bak', 'conf', '.conf']],
    ['a?c', ['abc', 'aéc', 'a😀c'], ['ac', 'abbc']],
    ['[a-c]x', ['ax', 'cx'], ['dx', 'x']],
    ['[!a-c]x', ['dx'], ['ax']],
    ['[^a]', ['b'], ['a']],
    ['[]]', [']'], ['[']],
    ['[a', ['[a'], ['a']],
    ['\\*', ['*'], ['a']],
    ['*a*b*', ['ab', 'xaxbx'], ['ba']],
    ['(a|b)+.', ['(a|b)+.'], ['a.', 'ax']],
  ]
  it.each(patterns)('pattern %s', (pattern, matching, other) => {
    const matches = segmentMatcher(pattern)
    expect(matching.filter(matches)).toEqual(matching)
    expect(other.filter(matches)).toEqual([])
  })

  it('a pattern of many stars ends', () => {
    expect(segmentMatcher('*a'.repeat(50) + 'b')('a'.repeat(255))).toBe(false)
  })
})

/** Runs a source as the loop does, one watch after another, until the test ends. */
function follow(options: NginxOptions) {
  const source = nginx(options)
  const controller = new AbortController()
  const { signal } = controller
  const context: SourceContext = {
    signal,
    clock: systemClock,
    sleep: (ms) =>
      new Promise((resolve, reject) => {
        const timer = setTimeout(resolve, ms)
        signal.addEventListener('abort', () => {
          clearTimeout(timer)
          reject(signal.reason as Error)
        })
      }),
  }
  const applied: Record<string, UpstreamOptions>[] = []
  const errors: Error[] = []
  let refused: readonly Refused[] = []
  let watches = 0
  const done = (async () => {
    while (!signal.aborted) {
      watches++
      await source
        .watch((lists) => {
          applied.push(Object.fromEntries(lists.upstreams as Map<string, UpstreamOptions>))
          refused = lists.refused ?? []
        }, context)
        .catch((error: unknown) => errors.push(error as Error))
    }
  })()
  const close = async () => {
    controller.abort(new Error('closed'))
    await done
  }
  onTestFinished(close)
  return { source, applied, errors, refused: () => refused, watches: () => watches, close }
}
const addresses = (lists: Record<string, UpstreamOptions> | undefined) =>
  Object.entries(lists ?? {}).map(
    ([name, { servers }]) => `${name} ${servers!.map((one) => (one as { address: string }).address).join(' ')}`,
  )

describe('the source', () => {
  it('gives what there is, with options that the file does not say', async () => {
    const folder = newFolder({
      'nginx.conf': `${block('a', 1)} upstream b { least_conn; keepalive 3; server b; what; }`,
    })
    const file = join(folder, 'nginx.conf')
    const { applied, refused, source } = follow({
      file,
      defaults: (name) => ({ tries: name === 'a' ? 2 : 3, keepalive: 9, balancer: 'random' }),
    })
    await eventually(() => expect(applied).toHaveLength(1))
    expect(applied[0]).toEqual({
      a: { tries: 2, keepalive: 9, balancer: 'random', servers: [{ address: '10.0.0.1:80' }] },
      b: { tries: 3, keepalive: 3, balancer: { type: 'least-connections' }, servers: [{ address: 'b:80' }] },
    })
    expect(refused()).toEqual([{ at: `${file}:2`, reason: 'unknown directive what' }])
    expect(source.name).toBe(`nginx:${file}`)
    expect(source.options).toEqual({ prune: true })
  })

  it('of the names that were asked for', async () => {
    const file = join(newFolder({ 'nginx.conf': block('a', 1) + block('b', 2) }), 'nginx.conf')
    const { applied, refused } = follow({ file, upstreams: ['b', 'c'], defaults: { tries: 1 } })
    await eventually(() => expect(applied).toHaveLength(1))
    expect(addresses(applied[0])).toEqual(['b 10.0.0.2:80'])
    expect(refused()).toEqual([{ at: file, reason: 'there is no upstream c' }])
  })

  it('leaves to Consul what has upsync, unless it was asked for', async () => {
    const upsync = 'upstream c { upsync consul:8500/v1/kv/c; server 127.0.0.1:11111; }'
    const file = join(newFolder({ 'nginx.conf': block('a', 1) + upsync }), 'nginx.conf')
    const all = follow({ file })
    const one = follow({ file, upstreams: ['c'] })
    await eventually(() => expect(addresses(all.applied[0])).toEqual(['a 10.0.0.1:80']))
    await eventually(() => expect(addresses(one.applied[0])).toEqual(['c 127.0.0.1:11111']))
  })

  it('sees changes: in place, by rename, of links, of what is included', async () => {
    const folder = newFolder({ 'nginx.conf': 'include u.conf; include link/v.conf;', 'u.conf': block('u', 1) })
    for (const version of ['1', '2']) {
      mkdirSync(join(folder, version))
      writeFileSync(join(folder, version, 'v.conf'), block('v', Number(version)))
    }
    symlinkSync('1', join(folder, 'link'))
    const { applied } = follow({ file: join(folder, 'nginx.conf') })
    const last = () => addresses(applied.at(-1))
    await eventually(() => expect(last()).toEqual(['u 10.0.0.1:80', 'v 10.0.0.1:80']))
    writeFileSync(join(folder, 'u.conf'), block('u', 1, 2))
    await eventually(() => expect(last()).toEqual(['u 10.0.0.1:80 10.0.0.2:80', 'v 10.0.0.1:80']))
    writeFileSync(join(folder, 'new'), block('u', 3))
    renameSync(join(folder, 'new'), join(folder, 'u.conf'))
    await eventually(() => expect(last()).toEqual(['u 10.0.0.3:80', 'v 10.0.0.1:80']))
    symlinkSync('2', join(folder, 'link.new'))
    renameSync(join(folder, 'link.new'), join(folder, 'link'))
    await eventually(() => expect(last()).toEqual(['u 10.0.0.3:80', 'v 10.0.0.2:80']))
    writeFileSync(join(folder, 'nginx.conf'), 'include link/v.conf;')
    await eventually(() => expect(last()).toEqual(['v 10.0.0.2:80']))
  })

  it('sees files that come and go where a pattern looks', async () => {
    const folder = newFolder({ 'nginx.conf': 'include conf.d/*.conf;', 'conf.d/a.conf': block('a', 1) })
    const { applied } = follow({ file: join(folder, 'nginx.conf') })
    await eventually(() => expect(addresses(applied.at(-1))).toEqual(['a 10.0.0.1:80']))
    writeFileSync(join(folder, 'conf.d/b.conf'), block('b', 2))
    await eventually(() => expect(addresses(applied.at(-1))).toEqual(['a 10.0.0.1:80', 'b 10.0.0.2:80']))
    rmSync(join(folder, 'conf.d/a.conf'))
    await eventually(() => expect(addresses(applied.at(-1))).toEqual(['b 10.0.0.2:80']))
  })

  it('says once what is broken, and goes on when it is mended', async () => {
    const folder = newFolder({ 'nginx.conf': 'include u.conf;', 'u.conf': block('u', 1) })
    const { applied, errors, watches } = follow({ file: join(folder, 'nginx.conf') })
    await eventually(() => expect(applied).toHaveLength(1))
    writeFileSync(join(folder, 'u.conf'), 'upstream u { server ')
    await eventually(() => expect(errors).toHaveLength(1))
    expect(errors[0]!.message).toBe(`${folder}/u.conf:1:21: unexpected end of file, expecting ";" or "}"`)
    rmSync(join(folder, 'u.conf'))
    await eventually(() => expect(errors).toHaveLength(2))
    expect(errors[1]!.message).toContain('cannot read')
    writeFileSync(join(folder, 'u.conf'), '# nothing\n')
    await eventually(() => expect(errors).toHaveLength(3))
    expect(errors[2]!.message).toBe(`${folder}/nginx.conf: expected an upstream`)
    writeFileSync(join(folder, 'u.conf'), block('u', 2))
    await eventually(() => expect(applied).toHaveLength(2))
    // One for each of these, and the one that waits.
    await eventually(() => expect(watches()).toBe(6))
  })

  it('waits for a file that is not there', async () => {
    const folder = newFolder({})
    const { applied, errors } = follow({ file: join(folder, 'nginx.conf') })
    await eventually(() => expect(errors).toHaveLength(1))
    writeFileSync(join(folder, 'nginx.conf'), block('u', 2))
    await eventually(() => expect(applied).toHaveLength(1))
  })

  it('ends at once', async () => {
    for (const watch of [true, false]) {
      const { applied, close } = follow({
        file: join(newFolder({ 'nginx.conf': block('u', 1) }), 'nginx.conf'),
        watch,
      })
      await eventually(() => expect(applied).toHaveLength(1))
      // The next look by itself is after 5 s, or never.
      const started = performance.now()
      await close()
      expect(performance.now() - started).toBeLessThan(3_000)
    }
  })

  it('reads once if it is not to watch', async () => {
    const file = join(newFolder({ 'nginx.conf': block('u', 1) }), 'nginx.conf')
    const { applied, watches, close } = follow({ file, watch: false })
    await eventually(() => expect(watches()).toBe(2))
    writeFileSync(file, block('u', 2))
    await close()
    expect(applied).toHaveLength(1)
  })

  const bad: [path: string, options: object][] = [
    ['nginx.file', {}],
    ['nginx.what', { file: 'a', what: 1 }],
    ['nginx.root', { file: 'a', root: 1 }],
    ['nginx.upstreams', { file: 'a', upstreams: 'a' }],
    ['nginx.upstreams[1]', { file: 'a', upstreams: ['a', ''] }],
    ['nginx.watch', { file: 'a', watch: 1 }],
    ['nginx.defaults', { file: 'a', defaults: 1 }],
    ['nginx.defaults.servers', { file: 'a', defaults: { servers: [] } }],
  ]
  it.each(bad)('refuses %s', (path, options) => {
    try {
      nginx(options as NginxOptions)
      expect.unreachable()
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError)
      expect((error as ConfigError).path).toBe(path)
    }
  })
})
