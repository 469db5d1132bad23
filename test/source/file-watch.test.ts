import {
  appendFileSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
  type FSWatcher,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished, vi } from 'vitest'
import { changes, stamps } from '../../src/source/lib/watch-file.js'
import { eventually } from '../support/eventually.js'

const { watch } = vi.hoisted(() => ({ watch: vi.fn() }))
vi.mock(import('node:fs'), async (original) => {
  const fs = await original()
  watch.mockImplementation(fs.watch)
  return { ...fs, watch }
})

function folder(): string {
  const path = realpathSync(mkdtempSync(join(tmpdir(), 'checkups-watch-')))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

/** Watches, without the slow look: what is seen, events have told. `look` is that look, by hand. */
function watched(...paths: string[]) {
  const controller = new AbortController()
  const looks: (() => void)[] = []
  const sleep = vi.fn(() => new Promise<void>((resolve) => looks.push(resolve)))
  const iterator = changes(paths, { signal: controller.signal, sleep })
  onTestFinished(() => controller.abort())
  const next = () => {
    const seen = iterator.next()
    // The last one of a test ends with it.
    seen.catch(() => undefined)
    return seen
  }
  return {
    controller,
    next,
    sleep,
    /** Begins to wait, and returns when it does wait. */
    first: async () => {
      const seen = next()
      await eventually(() => expect(sleep).toHaveBeenCalled())
      return { seen }
    },
    look: () => looks.splice(0).forEach((wake) => wake()),
  }
}

const CHANGED = { done: false, value: undefined }

describe('what it sees', () => {
  it('a file that is written in place, again and again', async () => {
    const path = join(folder(), 'a')
    writeFileSync(path, 'one')
    const { first, next } = watched(path)
    const { seen } = await first()
    appendFileSync(path, 'two')
    expect(await seen).toEqual(CHANGED)
    for (let i = 0; i < 5; i++) {
      const again = next()
      appendFileSync(path, 'more')
      expect(await again).toEqual(CHANGED)
    }
  })

  it('a file that is replaced by a rename', async () => {
    const at = folder()
    const path = join(at, 'a')
    writeFileSync(path, 'one')
    const { first, next } = watched(path)
    const { seen } = await first()
    writeFileSync(join(at, 'b'), 'two')
    renameSync(join(at, 'b'), path)
    expect(await seen).toEqual(CHANGED)
    const again = next()
    writeFileSync(join(at, 'c'), 'six')
    renameSync(join(at, 'c'), path)
    expect(await again).toEqual(CHANGED)
  })

  it('a ConfigMap: the folder behind a link is exchanged', async () => {
    const at = folder()
    for (const version of ['..1', '..2', '..3']) {
      mkdirSync(join(at, version))
      writeFileSync(join(at, version, 'a'), `of ${version}`)
    }
    symlinkSync('..1', join(at, '..data'))
    symlinkSync('..data/a', join(at, 'a'))
    const { first, next } = watched(join(at, 'a'))
    let { seen } = await first()
    for (const version of ['..2', '..3']) {
      symlinkSync(version, join(at, '..tmp'))
      renameSync(join(at, '..tmp'), join(at, '..data'))
      expect(await seen).toEqual(CHANGED)
      seen = next()
    }
    // Also what is written behind the links is seen.
    appendFileSync(join(at, '..3', 'a'), 'more')
    expect(await seen).toEqual(CHANGED)
  })

  it('a file behind an absolute link, and a link that is bent elsewhere', async () => {
    const [here, there] = [folder(), folder()]
    const path = join(here, 'link')
    writeFileSync(join(there, 'a'), 'one')
    writeFileSync(join(there, 'b'), 'two')
    symlinkSync(join(there, 'a'), path)
    const { first, next } = watched(path)
    const { seen } = await first()
    appendFileSync(join(there, 'a'), 'more')
    expect(await seen).toEqual(CHANGED)
    const again = next()
    symlinkSync(join(there, 'b'), join(here, 'new'))
    renameSync(join(here, 'new'), path)
    expect(await again).toEqual(CHANGED)
  })

  it('a file that comes, goes and comes back', async () => {
    const path = join(folder(), 'a')
    const { first, next } = watched(path)
    const { seen } = await first()
    writeFileSync(path, 'one')
    expect(await seen).toEqual(CHANGED)
    const gone = next()
    unlinkSync(path)
    expect(await gone).toEqual(CHANGED)
    const back = next()
    writeFileSync(path, 'one')
    expect(await back).toEqual(CHANGED)
  })

  it('a file whose folder is not there yet, goes, and is another one', async () => {
    const at = folder()
    const path = join(at, 'x', 'y', 'a')
    const { first, next } = watched(path)
    const { seen } = await first()
    mkdirSync(join(at, 'x', 'y'), { recursive: true })
    writeFileSync(path, 'one')
    expect(await seen).toEqual(CHANGED)
    const gone = next()
    renameSync(join(at, 'x'), join(at, 'old'))
    rmSync(join(at, 'old', 'y', 'a'))
    rmSync(join(at, 'old'), { recursive: true })
    expect(await gone).toEqual(CHANGED)
    const back = next()
    mkdirSync(join(at, 'x', 'y'), { recursive: true })
    writeFileSync(path, 'two')
    expect(await back).toEqual(CHANGED)
  })

  it('each of several files', async () => {
    const at = folder()
    const paths = ['a', 'b', 'c'].map((name) => join(at, name))
    for (const path of paths) writeFileSync(path, 'one')
    const { first, next } = watched(...paths)
    let { seen } = await first()
    for (const path of paths) {
      appendFileSync(path, 'two')
      expect(await seen).toEqual(CHANGED)
      seen = next()
    }
  })

  it('what changed after the stamps were taken, before it began', async () => {
    const path = join(folder(), 'a')
    writeFileSync(path, 'one')
    const seen = await stamps([path])
    appendFileSync(path, 'two')
    const { signal } = new AbortController()
    const iterator = changes([path], { signal, sleep: () => Promise.reject(new Error('nobody waits')) }, seen)
    expect(await iterator.next()).toEqual(CHANGED)
    expect(await iterator.return()).toEqual({ done: true, value: undefined })
  })

  it('nothing where a neighbour changes, or the file is only touched by readers', async () => {
    const at = folder()
    const path = join(at, 'a')
    writeFileSync(path, 'one')
    const { first, look, sleep } = watched(path)
    const { seen } = await first()
    let isSeen = false
    void seen.then(() => (isSeen = true))
    writeFileSync(join(at, 'b'), 'two')
    readFileSync(path)
    look()
    // It has looked, and waits again.
    await eventually(() => expect(sleep).toHaveBeenCalledTimes(2))
    expect(isSeen).toBe(false)
    appendFileSync(path, 'more')
    expect(await seen).toEqual(CHANGED)
  })
})

describe('how it ends', () => {
  it('at once on abort, with its reason, and leaves no watch', async () => {
    const path = join(folder(), 'a')
    writeFileSync(path, 'one')
    const { controller, first } = watched(path)
    watch.mockClear()
    const { seen } = await first()
    const watchers = watch.mock.results.map(({ value }) => vi.spyOn(value as FSWatcher, 'close'))
    expect(watchers.length).toBeGreaterThan(0)
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(seen).rejects.toBe(reason)
    for (const close of watchers) expect(close).toHaveBeenCalled()
  })

  it('before it began, if the signal was aborted', async () => {
    const reason = new Error('enough')
    const iterator = changes(['/'], { signal: AbortSignal.abort(reason), sleep: () => Promise.resolve() })
    await expect(iterator.next()).rejects.toBe(reason)
  })
})

describe('where a folder cannot be watched', () => {
  it('looks again, slowly', async () => {
    const path = join(folder(), 'a')
    writeFileSync(path, 'one')
    watch.mockImplementationOnce(() => {
      throw Object.assign(new Error('no space left'), { code: 'ENOSPC' })
    })
    const { first, look } = watched(path)
    const { seen } = await first()
    appendFileSync(path, 'two')
    look()
    expect(await seen).toEqual(CHANGED)
  })

  it('goes on with looks when a watch fails, and watches again', async () => {
    const path = join(folder(), 'a')
    writeFileSync(path, 'one')
    watch.mockClear()
    const { first, look } = watched(path)
    const { seen } = await first()
    const watcher = watch.mock.results[0]!.value as FSWatcher
    watcher.emit('error', new Error('broken'))
    look()
    await eventually(() => expect(watch).toHaveBeenCalledTimes(2))
    appendFileSync(path, 'two')
    expect(await seen).toEqual(CHANGED)
  })

  it('a link to itself is a file that cannot be read', async () => {
    const at = folder()
    const path = join(at, 'a')
    symlinkSync('a', path)
    expect((await stamps([path])).get(path)).toBe('ELOOP')
    const { first } = watched(path)
    const { seen } = await first()
    unlinkSync(path)
    writeFileSync(path, 'one')
    expect(await seen).toEqual(CHANGED)
  })
})
