import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { get } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { Checkups, ConfigError, isCheckupsError } from '../../../src/index.js'
import type { UpstreamOptions } from '../../../src/index.js'
import { NginxCommandError, nginxWriter, parseNginx, type NginxWriterOptions } from '../../../src/source/nginx.js'
import { eventually } from '../../support/eventually.js'
import { startServer } from '../../support/http.js'
import { installed, startNginx, whereInstalled } from '../../support/servers.js'

const [A, B, C] = ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80'] as const
const HEADER = '# Written by checkups: changes are lost.\n'

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'checkups-nginx-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

/** A writer of upstreams, with what it wrote and what went wrong. */
function setUp(upstreams: Record<string, UpstreamOptions>, options: Partial<NginxWriterOptions> = {}) {
  const checkups = new Checkups({ upstreams })
  const folder = newFolder()
  const path = join(folder, 'upstreams.conf')
  const errors: unknown[] = []
  const writer = nginxWriter({ checkups, path, onError: (error) => errors.push(error), ...options })
  onTestFinished(async () => {
    await writer.close()
    await checkups.close()
  })
  const text = () => readFileSync(options.path ?? path, 'utf8')
  const servers = () =>
    [...parseNginx(text()).upstreams].map(
      ([name, { options }]) =>
        `${name} ${options.servers!.map((one) => (one as { address: string }).address).join(' ')}`,
    )
  return { checkups, writer, folder, path, errors, text, servers }
}
/** A command in Node. */
const node = (script: string, ...args: string[]) => [process.execPath, '-e', script, ...args]

describe('what is written', () => {
  it('is what is live, whenever it changes', async () => {
    const { checkups, writer, servers, text } = setUp({ a: { servers: [A] }, b: { servers: [B] } })
    await writer.flush()
    expect(text().startsWith(HEADER)).toBe(true)
    expect(servers()).toEqual([`a ${A}`, `b ${B}`])
    await checkups.addServer('a', C)
    await eventually(() => expect(servers()).toEqual([`a ${A} ${C}`, `b ${B}`]))
    await checkups.setServer('a', C, { down: true })
    await eventually(() => expect(text()).toContain(`server ${C} down;`))
    await checkups.deleteUpstream('b')
    await eventually(() => expect(servers()).toEqual([`a ${A} ${C}`]))
    await checkups.updateUpstream('c', { servers: [B] })
    await eventually(() => expect(servers()).toEqual([`a ${A} ${C}`, `c ${B}`]))
  })

  it('of some upstreams, those that are there', async () => {
    const { checkups, writer, servers, path } = setUp({ a: { servers: [A] } }, { upstreams: ['b', 'c'] })
    await writer.flush()
    expect(writer.status.state).toBe('waiting')
    expect(existsSync(path)).toBe(false)
    await checkups.updateUpstream('c', { servers: [C] })
    await eventually(() => expect(servers()).toEqual([`c ${C}`]))
    await checkups.deleteUpstream('c')
    await writer.flush()
    // Nothing is left to write: what is there is the last that is known.
    expect(servers()).toEqual([`c ${C}`])
  })

  it('as a dump', async () => {
    const { writer, text } = setUp({ a: { servers: [A] } }, { upstreams: ['a'], format: 'dump' })
    await writer.flush()
    expect(text()).toBe(`${HEADER}server ${A} weight=1 max_fails=1 fail_timeout=10s;\n`)
  })

  it('with connections to keep, if somebody has said how many', async () => {
    const { writer, text } = setUp({ a: { servers: [A] }, b: { servers: [B], keepalive: 32 } })
    await writer.flush()
    expect(text().match(/keepalive.*/g)).toEqual(['keepalive 32;'])
  })

  it('with keys to hash', async () => {
    const hash = { servers: [A], balancer: { type: 'consistent-hash', hash: 'nginx' } } as const
    const hashKey = new Map([
      ['a', '$uri'],
      ['b', '$host'],
    ])
    const { writer, text } = setUp({ a: hash, b: hash }, { hashKey })
    await writer.flush()
    expect(text().match(/hash .* consistent/g)).toEqual(['hash $uri consistent', 'hash $host consistent'])
    const other = setUp({ a: hash }, { hashKey: { a: '$arg_a' } })
    await other.writer.flush()
    expect(other.text()).toContain('hash $arg_a consistent;')
  })

  it('once for all changes of a turn, and not if nothing is new', async () => {
    const { checkups, writer } = setUp({ a: { servers: [A] } })
    await writer.flush()
    await Promise.all(Array.from({ length: 20 }, (_, i) => checkups.addServer('a', `10.0.1.${i + 1}:80`)))
    await writer.flush()
    expect(writer.status).toMatchObject({ state: 'current', written: 2 })
    await checkups.updateUpstream('a', { ...checkups.getUpstream('a')!, tries: 7 })
    await writer.flush()
    expect(writer.status.written).toBe(2)
  })

  it('again if somebody else has changed it', async () => {
    const { writer, path, servers } = setUp({ a: { servers: [A] } })
    await writer.flush()
    writeFileSync(path, 'mine')
    await writer.flush()
    expect(servers()).toEqual([`a ${A}`])
  })

  it('to folders that are not there, to where a link leads, with the rights that the file had', async () => {
    const folder = newFolder()
    const path = join(folder, 'a', 'b', 'c.conf')
    const { checkups, writer, servers } = setUp({ a: { servers: [A] } }, { path })
    await writer.flush()
    expect(statSync(path).mode & 0o600).toBe(0o600)
    chmodSync(path, 0o640)
    await checkups.addServer('a', B)
    await writer.flush()
    expect(statSync(path).mode & 0o777).toBe(0o640)
    symlinkSync(path, join(folder, 'link'))
    const linked = setUp({ b: { servers: [B] } }, { path: join(folder, 'link') })
    await linked.writer.flush()
    expect(servers()).toEqual([`b ${B}`])
    expect(readdirSync(join(folder, 'a', 'b'))).toEqual(['c.conf'])
  })

  it('whole, at any time', async () => {
    const { checkups, writer, path } = setUp({ a: { servers: [A] } })
    await writer.flush()
    const changes = (async () => {
      for (let i = 1; i <= 100; i++) {
        await checkups.updateUpstream('a', { servers: Array.from({ length: 200 }, (_, j) => `10.${i}.0.${j + 1}:80`) })
        if (i % 5 === 0) await writer.flush()
      }
    })()
    const counts = new Set<number>()
    const state = { isDone: false }
    void changes.finally(() => (state.isDone = true))
    while (!state.isDone) {
      counts.add(parseNginx(readFileSync(path, 'utf8')).upstreams.get('a')!.options.servers!.length)
      await new Promise((resolve) => setImmediate(resolve))
    }
    await changes
    await writer.flush()
    expect([...counts].filter((count) => count !== 1 && count !== 200)).toEqual([])
  })

  it('nothing, if nginx cannot say it', async () => {
    const { checkups, writer, servers, errors } = setUp({ a: { servers: [A] } })
    await writer.flush()
    await checkups.setServer('a', A, { drain: true })
    await eventually(() => expect(errors).toHaveLength(1))
    expect(errors[0]).toBeInstanceOf(ConfigError)
    expect((errors[0] as ConfigError).path).toBe('upstreams.a.cluster[0].servers[0]')
    expect(writer.status).toMatchObject({ state: 'failed', written: 1, error: errors[0] })
    await expect(writer.flush()).rejects.toThrow('nginx cannot drain a server')
    expect(servers()).toEqual([`a ${A}`])
    await checkups.updateUpstream('a', { servers: [B] })
    await eventually(() => expect(writer.status).toMatchObject({ state: 'current', written: 2, error: undefined }))
  })
})

describe('commands', () => {
  it('run after a change, and only then', async () => {
    const folder = newFolder()
    const log = join(folder, 'log')
    const command = node('fs.appendFileSync(process.argv[1], "x")', log)
    const { checkups, writer } = setUp({ a: { servers: [A] } }, { command })
    await writer.flush()
    await writer.flush()
    await checkups.addServer('a', B)
    await writer.flush()
    expect(readFileSync(log, 'utf8')).toBe('xx')
  })

  it('that fail are told with their output, and run again', async () => {
    const folder = newFolder()
    const command = node(
      'if (!fs.existsSync(process.argv[1])) { console.log("one"); console.error("two"); process.exit(3) }',
      join(folder, 'ok'),
    )
    const { writer, servers, errors } = setUp({ a: { servers: [A] } }, { command })
    await expect(writer.flush()).rejects.toThrow(/: exit status 3: (one\ntwo|two\none)$/)
    expect(errors[0]).toBeInstanceOf(NginxCommandError)
    expect(isCheckupsError(errors[0])).toBe(true)
    expect(servers()).toEqual([`a ${A}`])
    writeFileSync(join(folder, 'ok'), '')
    await writer.flush()
    expect(writer.status).toMatchObject({ state: 'current', written: 1 })
  })

  it('are not read by a shell', async () => {
    const folder = newFolder()
    const command = node('fs.writeFileSync(process.argv[1], process.argv[2])', join(folder, 'out'), '$(id) `id` ; * "')
    await setUp({ a: { servers: [A] } }, { command }).writer.flush()
    expect(readFileSync(join(folder, 'out'), 'utf8')).toBe('$(id) `id` ; * "')
  })

  it('that are not there, or do not end', async () => {
    const missing = setUp({ a: { servers: [A] } }, { command: ['/nowhere/nginx'] })
    await expect(missing.writer.flush()).rejects.toThrow('/nowhere/nginx: spawn /nowhere/nginx ENOENT')
    const endless = setUp({ a: { servers: [A] } }, { command: node('setInterval(() => {}, 1000)'), timeout: 100 })
    await expect(endless.writer.flush()).rejects.toThrow('not done in 100 ms')
  })

  it('end when the writer is closed', async () => {
    const folder = newFolder()
    const log = join(folder, 'log')
    const endless = node('fs.writeFileSync(process.argv[1], ""); setInterval(() => {}, 1000)', log)
    for (const options of [{ command: endless }, { test: endless }]) {
      rmSync(log, { force: true })
      const { writer, folder: own, errors } = setUp({ a: { servers: [A] } }, options)
      await eventually(() => expect(existsSync(log)).toBe(true))
      const started = performance.now()
      await writer.close()
      // Of its own the command would end after 30 s.
      expect(performance.now() - started).toBeLessThan(10_000)
      expect(readdirSync(own)).toEqual('test' in options ? [] : ['upstreams.conf'])
      expect(errors).toEqual([])
      await expect(writer.flush()).rejects.toThrow('closed')
    }
  })

  it('test the new file before it takes the place of the old one', async () => {
    const test = node(
      'if (fs.readFileSync(process.argv[1], "utf8").includes("10.0.0.2")) { console.error("no 2"); process.exit(1) }',
      '{file}',
    )
    const { checkups, writer, servers, errors, folder } = setUp({ a: { servers: [A] } }, { test })
    await writer.flush()
    await checkups.addServer('a', B)
    await eventually(() => expect(errors).toHaveLength(1))
    expect((errors[0] as Error).message).toMatch(/: exit status 1: no 2$/)
    expect(servers()).toEqual([`a ${A}`])
    expect(readdirSync(folder)).toEqual(['upstreams.conf'])
    await checkups.updateUpstream('a', { servers: [A, C] })
    await eventually(() => expect(servers()).toEqual([`a ${A} ${C}`]))
  })

  it('a listener that throws ends nothing', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    onTestFinished(() => warned.mockRestore())
    const onError = () => {
      throw new Error('mine')
    }
    const { checkups, writer, servers } = setUp({ a: { servers: [{ address: A, weight: 0 }, B] } }, { onError })
    await expect(writer.flush()).rejects.toThrow('weight 0')
    expect(warned).toHaveBeenCalledWith('nginxWriter.onError threw: Error: mine', { type: 'CheckupsWarning' })
    await checkups.updateUpstream('a', { servers: [A] })
    await writer.flush()
    expect(servers()).toEqual([`a ${A}`])
  })
})

describe('options', () => {
  const checkups = new Checkups()
  const good = { checkups, path: '/nowhere/a' }
  const bad: [path: string, options: object][] = [
    ['nginxWriter.path', { checkups }],
    ['nginxWriter.checkups', { path: 'a' }],
    ['nginxWriter.what', { ...good, what: 1 }],
    ['nginxWriter.upstreams', { ...good, upstreams: 'a' }],
    ['nginxWriter.upstreams', { ...good, format: 'dump' }],
    ['nginxWriter.upstreams', { ...good, format: 'dump', upstreams: ['a', 'b'] }],
    ['nginxWriter.format', { ...good, format: 'json' }],
    ['nginxWriter.unsupported', { ...good, unsupported: 'x' }],
    ['nginxWriter.context', { ...good, context: 'mail' }],
    ['nginxWriter.hashKey', { ...good, hashKey: '' }],
    ['nginxWriter.hashKey["a"]', { ...good, hashKey: { a: 1 } }],
    ['nginxWriter.command', { ...good, command: 'nginx -s reload' }],
    ['nginxWriter.command', { ...good, command: [] }],
    ['nginxWriter.test[1]', { ...good, test: ['nginx', 1] }],
    ['nginxWriter.timeout', { ...good, timeout: 0 }],
    ['nginxWriter.onError', { ...good, onError: 1 }],
  ]
  it.each(bad)('refuses %s', (path, options) => {
    try {
      nginxWriter(options as NginxWriterOptions)
      expect.unreachable()
    } catch (error) {
      expect(error).toBeInstanceOf(ConfigError)
      expect((error as ConfigError).path).toBe(path)
    }
  })
})

whereInstalled('real nginx', 'nginx', () => {
  const nginxTest = [installed('nginx') ?? 'nginx', '-t', '-q', '-c', '{conf}']

  it('tests what is written, of a block and of a dump', async () => {
    for (const options of [{}, { format: 'dump', upstreams: ['a'] }] as const) {
      const { checkups, writer, servers, text, errors, folder } = setUp(
        { a: { servers: [A] } },
        { test: nginxTest, ...options },
      )
      await writer.flush()
      const before = text()
      // A name that is unknown to the resolver.
      await checkups.addServer('a', 'unknown.invalid:80')
      await eventually(() => expect(errors).toHaveLength(1))
      expect((errors[0] as Error).message).toContain('host not found in upstream "unknown.invalid:80"')
      expect(text()).toBe(before)
      expect(readdirSync(folder)).toEqual(['upstreams.conf'])
      if (options.format === undefined) expect(servers()).toEqual([`a ${A}`])
    }
  })

  it('shares requests by weight, and uses other servers after a change', async () => {
    const backends = await Promise.all(['a', 'b', 'c'].map((name) => startServer(name)))
    const [a, b, c] = backends.map(({ address }) => address) as [string, string, string]
    const checkups = new Checkups({ upstreams: { api: { servers: [{ address: a, weight: 3 }, b] } } })
    onTestFinished(() => checkups.close())
    const path = join(newFolder(), 'upstreams.conf')
    const first = nginxWriter({ checkups, path, test: nginxTest })
    await first.flush()
    await first.close()
    const nginx = await startNginx(
      (port, folder) => `user root; worker_processes 1; events {}
        http { access_log off; client_body_temp_path ${folder}/body; include ${path};
          server { listen 127.0.0.1:${port}; location / { proxy_pass http://api; proxy_connect_timeout 2s; } } }`,
    )
    onTestFinished(() => nginx.stop())
    const ask = () =>
      new Promise<string>((resolve, reject) => {
        get({ host: '127.0.0.1', port: nginx.port, agent: false }, (res) => {
          let text = ''
          res.on('data', (chunk: Buffer) => (text += chunk.toString())).on('end', () => resolve(text))
        }).on('error', reject)
      })
    const asked = async (count: number) => {
      const texts: string[] = []
      for (let i = 0; i < count; i++) texts.push(await ask())
      return texts.sort().join('')
    }
    expect(await asked(8)).toBe('aaaaaabb')

    const pid = readFileSync(join(nginx.folder, 'nginx.pid'), 'utf8').trim()
    const command = node('process.kill(Number(process.argv[1]), "SIGHUP")', pid)
    const writer = nginxWriter({ checkups, path, command, test: nginxTest })
    onTestFinished(() => writer.close())
    await checkups.updateUpstream('api', { servers: [b, { address: c, weight: 2 }, { address: a, down: true }] })
    await writer.flush()
    // The old worker may still take a connection while the new one starts.
    await eventually(async () => expect(await asked(6)).toBe('bbcccc'))
    expect(nginx.output()).toContain('reconfiguring')
  })
})
