import { describe, expect, it } from 'vitest'
import type { UpstreamOptions } from '../../../src/index.js'
import { ancestor } from './support.js'

const start = (upstreams: Record<string, UpstreamOptions>) => ancestor({ upsync: true }, { upstreams })

const test: UpstreamOptions = {
  servers: [
    { address: '127.0.0.1:8089', weight: 20, maxFails: 0, failTimeout: 30_000 },
    { address: '127.0.0.1:8088', weight: 10, maxFails: 3, down: true },
  ],
}
const backend: UpstreamOptions = { servers: [{ address: '127.0.0.1:8090', weight: 10, maxFails: 3 }] }
const TEST = `Upstream name: test; Backend server count: 2
        server 127.0.0.1:8089 weight=20 max_fails=0 fail_timeout=30s;
        server 127.0.0.1:8088 weight=10 max_fails=3 fail_timeout=10s down;
`
const BACKEND = `Upstream name: backend; Backend server count: 1
        server 127.0.0.1:8090 weight=10 max_fails=3 fail_timeout=10s;
`
const UNKNOWN = 'The upstream you requested does not exist. Please double-check the name'

describe('/upstream_show', () => {
  it('U06, U12: one upstream, by its bare name', async () => {
    const { ask } = await start({ test, backend })
    const answer = await ask('GET', '/upstream_show?test')
    expect(answer).toMatchObject({ status: 200, text: TEST })
    expect(answer.headers['content-type']).toMatch(/^text\/plain/)
    expect(await ask('GET', '/upstream_show?TEST')).toMatchObject({ status: 200, text: TEST })
  })

  it('U04, U15: all of them, with a blank line between', async () => {
    const { ask } = await start({ test, backend })
    expect(await ask('GET', '/upstream_show')).toMatchObject({ status: 200, text: `${TEST}\n${BACKEND}` })
  })

  it('U05: what was removed is not there', async () => {
    const { ask, checkups } = await start({ test })
    await checkups.removeServer('test', '127.0.0.1:8088')
    expect((await ask('GET', '/upstream_show?test')).text).toBe(
      TEST.replace('count: 2', 'count: 1').replace(/\n.*8088.*/, ''),
    )
  })

  it('a name that is none, and none at all', async () => {
    const { ask } = await start({ test })
    for (const query of ['nobody', 'test=1', 'test&test', 'name=test', '%ff', '__proto__']) {
      expect(await ask('GET', `/upstream_show?${query}`)).toMatchObject({ status: 200, text: UNKNOWN })
    }
    const empty = await start({})
    expect(await empty.ask('GET', '/upstream_show')).toMatchObject({ status: 200, text: 'No upstreams defined' })
  })

  it('levels and backups, and times that are no whole seconds', async () => {
    const { ask } = await start({
      test: {
        cluster: [
          { servers: ['a:1', { address: 'b:1', backup: true, failTimeout: 1_500 }] },
          { servers: [{ address: '[::1]:1', down: true }] },
        ],
      },
    })
    expect((await ask('GET', '/upstream_show?test')).text).toBe(
      `Upstream name: test; Backend server count: 3
        server a:1 weight=1 max_fails=1 fail_timeout=10s;
        server b:1 weight=1 max_fails=1 fail_timeout=1.5s backup;
        server [::1]:1 weight=1 max_fails=1 fail_timeout=10s backup down;
`,
    )
  })

  it('names that no query would think of', async () => {
    const { ask } = await start({ 'a=b&c': backend, 'd e': backend })
    expect((await ask('GET', '/upstream_show?a=b&c')).text).toMatch(/^Upstream name: a=b&c;/)
    expect((await ask('GET', '/upstream_show?d%20e')).text).toMatch(/^Upstream name: d e;/)
  })

  it('GET and HEAD alone', async () => {
    const { ask } = await start({ test })
    expect(await ask('HEAD', '/upstream_show?test')).toMatchObject({
      status: 200,
      text: '',
      headers: { 'content-length': String(TEST.length) },
    })
    for (const method of ['POST', 'PUT', 'DELETE', 'PATCH']) {
      expect(await ask(method, '/upstream_show?test')).toMatchObject({ status: 405 })
    }
    expect(await ask('GET', '/upstream_show/test')).toMatchObject({ status: 404 })
  })
})
