/** All of them beside each other, behind the gates of the admin interface. */
import { describe, expect, it } from 'vitest'
import type { AuditEvent } from '../../../src/admin/index.js'
import { admin, bearer, READ, WRITE } from '../support.js'
import { ancestor, configOf } from './support.js'

const interfaces = {
  ...{ slardar: true, dyups: '/old/dyups', upsync: true, checkModule: true, dynamicUpstream: true },
  sharedDict: { upstream: 'test' },
} as const

async function world() {
  const audit: AuditEvent[] = []
  const upstreams = { test: { servers: [{ address: '10.0.0.1:80', labels: { no: '1' } }, '10.0.0.2:80'] } }
  const options = {
    interfaces,
    tokens: [READ, WRITE],
    stateChangingGets: true,
    onAudit: (e: AuditEvent) => audit.push(e),
  }
  return { audit, ...(await admin({ upstreams }, options)) }
}

const READS = [
  '/slardar/status',
  '/slardar/upstreams',
  '/old/dyups/list',
  '/old/dyups/detail',
  '/old/dyups/upstream/test',
  '/upsync/upstream_show',
  '/upsync/upstream_show?test',
  '/check/check_status',
  '/dynamic-upstream/dynamic?upstream=test',
  '/shared-dict/get?no=1',
]

const SERVER = { servers: [{ host: '10.0.0.3', port: 80 }] }
const WRITES: readonly (readonly [via: string, method: string, path: string, body?: unknown])[] = [
  ['dynamicUpstream', 'GET', '/dynamic-upstream/dynamic?upstream=test&server=10.0.0.2:80&down='],
  ['dynamicUpstream', 'GET', '/dynamic-upstream/dynamic?upstream=test&server=10.0.0.2:80&remove='],
  ['sharedDict', 'GET', '/shared-dict/add?ip=10.0.0.4&port=80&no=4'],
  ['sharedDict', 'GET', '/shared-dict/delete?no=1'],
  ['slardar', 'PUT', '/slardar/upstream/test', SERVER],
  ['dyups', 'POST', '/old/dyups/upstream/test', 'server 10.0.0.5:80;'],
  ['slardar', 'POST', '/slardar/upstream/new', SERVER],
  ['slardar', 'DELETE', '/slardar/upstream/new'],
  ['dyups', 'DELETE', '/old/dyups/upstream/test'],
]

describe('beside each other', () => {
  it('show to whoever may read, and to nobody else', async () => {
    const { ask } = await world()
    for (const path of READS) {
      expect([path, (await ask('GET', path)).status]).toEqual([path, 401])
      expect([path, (await ask('GET', path, { headers: bearer(READ) })).status]).toEqual([path, 200])
      expect([path, (await ask('HEAD', path, { headers: bearer(READ) })).status]).toEqual([path, 200])
    }
  })

  it('change for whoever may write, and say whose change it was', async () => {
    const { ask, audit, checkups } = await world()
    for (const [via, method, path, body] of WRITES) {
      const before = configOf(checkups)
      expect([path, (await ask(method, path, { body, headers: bearer(READ) })).status]).toEqual([path, 403])
      expect(configOf(checkups)).toEqual(before)
      expect([path, (await ask(method, path, { body, headers: bearer(WRITE) })).status]).toEqual([path, 200])
      expect(configOf(checkups)).not.toEqual(before)
      expect(audit.at(-1)).toMatchObject({ via, who: WRITE.name })
    }
    expect(audit).toHaveLength(WRITES.length)
  })

  it('one alone at the root leaves what else is there', async () => {
    for (const alone of [{ slardar: true }, { dyups: true }]) {
      const { ask } = await ancestor(alone, { upstreams: { test: SERVER } })
      for (const method of ['GET', 'HEAD']) expect((await ask(method, '/v1/upstreams')).status).toBe(200)
    }
  })
})
