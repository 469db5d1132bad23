/** Where a store keeps what operators change. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { FileStore, type AdminInterfaces } from '../../../src/admin/index.js'
import { Checkups } from '../../../src/index.js'
import { folder } from '../support.js'
import { ancestor, configOf } from './support.js'

type Change = readonly [method: string, path: string, body?: unknown]

interface Case {
  readonly name: string
  readonly interfaces: AdminInterfaces
  /** Changes of the upstream `test`, of 10.0.0.1:80 (number 1) and 10.0.0.2:80 (number 2). */
  readonly changes: readonly Change[]
  /** What is said of one that the store has taken. */
  readonly done: string | RegExp
}

const CASES: readonly Case[] = [
  {
    name: 'Slardar',
    interfaces: { slardar: true },
    changes: [
      ['PUT', '/upstream/test', { servers: [{ host: '10.0.0.3', port: 80 }] }],
      ['POST', '/upstream/new', { servers: [{ host: '10.0.0.3', port: 80 }] }],
      ['DELETE', '/upstream/test'],
    ],
    done: /^{"status":20[02]}$/,
  },
  {
    name: 'dyups',
    interfaces: { dyups: true },
    changes: [
      ['POST', '/upstream/test', 'server 10.0.0.3:80;'],
      ['POST', '/upstream/new', 'ip_hash; server 10.0.0.3:80;'],
      ['DELETE', '/upstream/test'],
    ],
    done: 'success',
  },
  {
    name: 'ngx_dynamic_upstream',
    interfaces: { dynamicUpstream: true },
    changes: [
      ['GET', '/dynamic?upstream=test&add=&server=10.0.0.3:80'],
      ['GET', '/dynamic?upstream=test&remove=&server=10.0.0.1:80'],
      ['GET', '/dynamic?upstream=test&server=10.0.0.1:80&weight=3'],
    ],
    done: /^server 10/,
  },
  {
    name: 'shared-dict',
    interfaces: { sharedDict: { upstream: 'test' } },
    changes: [
      ['GET', '/add?ip=10.0.0.3&port=80&no=3'],
      ['GET', '/add?ip=10.0.0.4&port=80&no=1'],
      ['GET', '/delete?no=2'],
    ],
    done: 'OK',
  },
]

const servers = [1, 2].map((no) => ({ address: `10.0.0.${no}:80`, labels: { no: String(no) } }))

function world(interfaces: AdminInterfaces, path: string) {
  const store = new FileStore({ path })
  const checkups = new Checkups({ upstreams: { test: { servers } }, sources: [store] })
  return ancestor(interfaces, checkups, { store, storeTimeout: 20 })
}

describe.each(CASES)('$name, with a store', ({ interfaces, changes, done }) => {
  for (const [method, path, body] of changes) {
    describe(`${method} ${path}`, () => {
      it('is in use, and there after a restart', async () => {
        const file = join(folder(), 'store.json')
        const { ask, checkups } = await world(interfaces, file)
        await checkups.start()
        const before = configOf(checkups)
        const { status, text } = await ask(method, path, { body })
        expect({ status, text }).toEqual({ status: 200, text: like(done) })
        const after = configOf(checkups)
        expect(after).not.toEqual(before)
        const later = await world(interfaces, file)
        await later.checkups.start()
        expect(configOf(later.checkups)).toEqual(after)
      })

      it('is 503 if the store does not take it, and not made', async () => {
        const file = join(folder(), 'file')
        writeFileSync(file, '')
        const { ask, checkups } = await world(interfaces, join(file, 'store.json'))
        const before = configOf(checkups)
        const { status, text } = await ask(method, path, { body })
        expect({ status, text }).toEqual({ status: 503, text: like(/store/) })
        expect(configOf(checkups)).toEqual(before)
      })

      it('is 202 if the store has it, and nobody has brought it yet', async () => {
        const { ask, checkups } = await world(interfaces, join(folder(), 'store.json'))
        const before = configOf(checkups)
        const { status, text } = await ask(method, path, { body })
        expect({ status, text }).toEqual({ status: 202, text: like(done) })
        expect(configOf(checkups)).toEqual(before)
      })
    })
  }
})

describe('what the store has, and nobody has brought yet', () => {
  it('may be written over, but not by what depends on what was there', async () => {
    const balancer = { type: 'consistent-hash', hash: 'nginx' } as const
    const store = new FileStore({ path: join(folder(), 'store.json') })
    const checkups = new Checkups({ upstreams: { test: { servers, balancer } }, sources: [store] })
    const { ask } = await ancestor({ dyups: true }, checkups, { store, storeTimeout: 20 })
    const post = async (body: string) => {
      const { status, text } = await ask('POST', '/upstream/test', { body })
      return [status, text]
    }
    expect(await post('least_conn; server 10.0.0.3:80;')).toEqual([202, 'success'])
    expect(await post('least_conn; server 10.0.0.4:80;')).toEqual([409, 'wait and try again\n'])
    expect(await post('server 10.0.0.5:80;')).toEqual([202, 'success'])
    await checkups.start()
    expect((await ask('GET', '/upstream/test')).text).toBe('server 10.0.0.5:80\n')
    expect(await post('least_conn; server 10.0.0.4:80;')).toEqual([200, 'success'])
  })
})

const like = (text: string | RegExp): unknown => expect.stringMatching(text)
