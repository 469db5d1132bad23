import { fork } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs'
import * as fs from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Snapshot, type FileSystem, type Lists } from '../../src/source/snapshot.js'

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'checkups-snapshot-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const lists = (...addresses: string[]): Lists => new Map([['api', [{ servers: addresses }]]])

/** The file system, and what was done to it. */
function watched(): { calls: string[]; fileSystem: FileSystem } {
  const calls: string[] = []
  const name = (path: unknown) => String(path).split('/').at(-1)!.replace(/\d+/, 'PID')
  const fileSystem: FileSystem = {
    mkdir: fs.mkdir,
    readFile: fs.readFile,
    rename: async (from, to) => {
      await fs.rename(from, to)
      calls.push(`rename ${name(from)} ${name(to)}`)
    },
    open: async (path, flags, mode) => {
      const handle = await fs.open(path, flags, mode)
      const what = statSync(path).isDirectory() ? 'folder' : name(path)
      const sync = handle.sync.bind(handle)
      const writeFile = handle.writeFile.bind(handle)
      handle.sync = async () => {
        await sync()
        calls.push(`sync ${what}`)
      }
      handle.writeFile = async (data, options) => {
        await writeFile(data, options)
        calls.push(`write ${what}`)
      }
      return handle
    },
  }
  return { calls, fileSystem }
}

describe('a snapshot', () => {
  it('gives back what it was given', async () => {
    const path = join(folder(), 'a.json')
    const all: Lists = new Map<string, never>([
      ['api', { servers: ['10.0.0.1:80'], balancer: 'random' } as never],
      ['__proto__', [{ servers: [{ host: 'é', port: 1 }] }] as never],
    ])
    await new Snapshot(path, 'store').save(all)
    expect((await new Snapshot(path, 'store').load())!.lists).toEqual(all)
    // Options may hold passwords.
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  it('is nothing where there is no file', async () => {
    expect(await new Snapshot(join(folder(), 'none/a.json'), 'store').load()).toBeUndefined()
  })

  it('is written, synced, renamed, and its folder synced, in this order', async () => {
    const path = join(folder(), 'a.json')
    const { calls, fileSystem } = watched()
    const snapshot = new Snapshot(path, 'store', fileSystem)
    await snapshot.save(lists('10.0.0.1:80'))
    const first = ['write a.json.PID.tmp', 'sync a.json.PID.tmp', 'rename a.json.PID.tmp a.json', 'sync folder']
    expect(calls).toEqual(first)
    await snapshot.save(lists('10.0.0.2:80'))
    expect(calls.slice(4)).toEqual([...first.slice(0, 2), 'rename a.json a.json.bak', ...first.slice(2)])
  })

  it('of many at once writes the last, and resolves when it is there', async () => {
    const path = join(folder(), 'a.json')
    const { calls, fileSystem } = watched()
    const snapshot = new Snapshot(path, 'store', fileSystem)
    await Promise.all(Array.from({ length: 50 }, (_, i) => snapshot.save(lists(`10.0.0.${i}:80`))))
    expect((await snapshot.load())!.lists).toEqual(lists('10.0.0.49:80'))
    expect(calls.filter((call) => call.startsWith('write')).length).toBeLessThanOrEqual(2)
  })

  it('after a failed write the next one is made', async () => {
    const dir = folder()
    const path = join(dir, 'sub', 'a.json')
    writeFileSync(join(dir, 'sub'), 'in the way')
    const snapshot = new Snapshot(path, 'store')
    await expect(snapshot.save(lists('10.0.0.1:80'))).rejects.toThrow()
    rmSync(join(dir, 'sub'))
    await snapshot.save(lists('10.0.0.2:80'))
    expect((await snapshot.load())!.lists).toEqual(lists('10.0.0.2:80'))
  })

  const damages: readonly (readonly [string, (text: string) => string, RegExp])[] = [
    ['cut off', (text) => text.slice(0, text.length / 2), /JSON/],
    ['empty', () => '', /JSON/],
    ['of another', () => '{"upstreams":{}}', /version undefined/],
    ['of a later version', (text) => text.replace('"version":1', '"version":2'), /version 2/],
    ['of another source', (text) => text.replace('"store"', '"other"'), /source other/],
    ['changed', (text) => text.replace('10.0.0.2', '10.0.0.9'), /checksum/],
  ]
  it.each(damages)('%s is refused, and the one before it is used', async (_, damage, message) => {
    const path = join(folder(), 'a.json')
    const snapshot = new Snapshot(path, 'store')
    await snapshot.save(lists('10.0.0.1:80'))
    await snapshot.save(lists('10.0.0.2:80'))
    writeFileSync(path, damage(readFileSync(path, 'utf8')))
    const found = (await snapshot.load())!
    expect(found.lists).toEqual(lists('10.0.0.1:80'))
    expect(found.problem).toMatch(message)
    writeFileSync(`${path}.bak`, damage(readFileSync(`${path}.bak`, 'utf8').replace('10.0.0.1', '10.0.0.2')))
    await expect(snapshot.load()).rejects.toThrow()
  })

  it('killed while writing, at any moment, leaves a whole one', async () => {
    const path = join(folder(), 'a.json')
    const child = fileURLToPath(new URL('snapshot-child.js', import.meta.url))
    let last = 0
    for (let round = 0; round < 200; round++) {
      const writer = fork(child, [path, `${round * 1_000}`], { silent: true })
      for (let written = 0; written <= round % 5; written++) await once(writer, 'message')
      // Amid what it does now, sooner or later.
      for (let turns = (round * 7) % 40; turns > 0; turns--) await new Promise(setImmediate)
      writer.kill('SIGKILL')
      await once(writer, 'exit')
      const found = await new Snapshot(path, 'store').load()
      if (found === undefined) {
        expect(last).toBe(0)
        continue
      }
      expect(found.problem).toBeUndefined()
      const [value] = found.lists.values()
      const number = Number((value as { servers: string[] }[])[0]!.servers[0]!.split(':')[1])
      expect(number).toBeGreaterThanOrEqual(last)
      last = number
    }
    expect(last).toBeGreaterThan(190_000)
    // 200 processes, each with a few writes that are synced to the disk.
  }, 600_000)
})
