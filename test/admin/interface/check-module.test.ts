import { describe, expect, it } from 'vitest'
import { Checkups, type UpstreamOptions } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { refusing, startServer } from '../../support/http.js'
import { ancestor, bare } from './support.js'
import { checkModule } from '../../../src/admin/interface/check-module.js'

const RULES = { type: 'tcp', interval: 20, timeout: 1_000, rise: 1, fall: 1 } as const

/** One that is up, one that is down, and one that nobody checks; both known. */
async function checked(options: Partial<UpstreamOptions> = {}) {
  const up = await startServer('up')
  const upstreams = {
    plain: { servers: ['10.0.0.1:80'] },
    test: { servers: [up.address, refusing()], heartbeat: RULES, maxFails: 0, ...options },
  }
  const { ask, checkups } = await ancestor({ checkModule: true }, { upstreams })
  await checkups.start()
  await eventually(() => {
    const servers = checkups.getStatus().upstreams[1]!.levels.flatMap((level) => level.servers)
    for (const { heartbeat } of servers) expect(heartbeat!.found).not.toBe('unchecked')
  })
  await checkups.close()
  const found = new Map(
    checkups
      .getStatus()
      .upstreams[1]!.levels.flatMap(({ servers }) => servers.map((s) => [s.address, s.heartbeat] as const)),
  )
  return { ask, up: up.address, down: refusing(), checkups, found }
}

const json = (answer: { text: string }) =>
  JSON.parse(answer.text) as { servers: { total: number; generation: number; server: object[] } }

describe('/check_status', () => {
  it('json, in the layout of the module', async () => {
    const { ask, up, down } = await checked({ heartbeat: { ...RULES, interval: 60_000, defaultDown: true } })
    const answer = await ask('GET', '/check_status?format=json')
    expect(answer.headers['content-type']).toBe('application/json')
    expect(answer.text).toBe(`{"servers": {
  "total": 2,
  "generation": 0,
  "server": [
    {"index": 0, "upstream": "test", "name": "${up}", "status": "up", "rise": 1, "fall": 0, "type": "tcp", "port": 0},
    {"index": 1, "upstream": "test", "name": "${down}", "status": "down", "rise": 0, "fall": 1, "type": "tcp", "port": 0}
  ]
}}
`)
    expect(json(answer).servers.server).toHaveLength(2)
  })

  it('csv, a line for each', async () => {
    const { ask, up, down, found } = await checked()
    const answer = await ask('GET', '/check_status?format=csv')
    expect(answer.headers['content-type']).toMatch(/^text\/plain/)
    const [rise, fall] = [found.get(up)!.rise, found.get(down)!.fall]
    expect(answer.text).toBe(`0,test,${up},up,${rise},0,tcp,0\n1,test,${down},down,0,${fall},tcp,0\n`)
  })

  it('html, where nothing else is asked for', async () => {
    const { ask, up, down } = await checked()
    for (const query of ['', '?format=html', '?format=htm', '?format=toString']) {
      const answer = await ask('GET', `/check_status${query}`)
      expect(answer.headers['content-type']).toBe('text/html; charset=utf-8')
      expect(answer.text).toContain('Check upstream server number: 2, generation: 0')
      expect(answer.text).toMatch(new RegExp(`<tr>\\s+<td>0</td>\\s+<td>test</td>\\s+<td>${up}</td>\\s+<td>up</td>`))
      expect(answer.text).toMatch(
        new RegExp(`<tr bgcolor="#FF0000">\\s+<td>1</td>[^]*<td>${down}</td>\\s+<td>down</td>`),
      )
    }
  })

  it('those that are up, or down, by the numbers they have among all', async () => {
    const { ask, up, down } = await checked()
    const asked = async (query: string) => json(await ask('GET', `/check_status?format=json${query}`)).servers
    expect(await asked('&status=up')).toMatchObject({ total: 1, server: [{ index: 0, name: up }] })
    expect(await asked('&status=down')).toMatchObject({ total: 1, server: [{ index: 1, name: down }] })
    expect(await asked('&status=foo')).toMatchObject({ total: 2 })
    expect((await ask('GET', '/check_status?format=csv&status=up')).text).toMatch(/^[:.,\w]+\n$/)
    expect((await ask('GET', '/check_status?format=html&status=up')).text).toContain('Check upstream server number: 1,')
  })

  it('only peers that are checked, each once, with the names of the module and the port of the checks', async () => {
    const { ask, checkups } = await ancestor(
      { checkModule: true },
      {
        upstreams: {
          plain: { servers: ['10.0.0.1:80'] },
          test: {
            cluster: [{ servers: ['10.0.0.1:80', '10.0.0.2:80'] }, { servers: ['10.0.0.2:80'] }],
            heartbeat: { type: 'tls', port: 8_443 },
          },
          waits: { servers: ['10.0.0.3:80'], heartbeat: { type: 'http', defaultDown: true } },
        },
      },
    )
    expect(json(await ask('GET', '/check_status?format=json')).servers).toEqual({
      total: 3,
      generation: 0,
      server: [
        {
          index: 0,
          upstream: 'test',
          name: '10.0.0.1:80',
          status: 'up',
          rise: 0,
          fall: 0,
          type: 'ssl_hello',
          port: 8443,
        },
        {
          index: 1,
          upstream: 'test',
          name: '10.0.0.2:80',
          status: 'up',
          rise: 0,
          fall: 0,
          type: 'ssl_hello',
          port: 8443,
        },
        { index: 2, upstream: 'waits', name: '10.0.0.3:80', status: 'down', rise: 0, fall: 0, type: 'http', port: 0 },
      ],
    })
    await checkups.removeServer('test', '10.0.0.2:80')
    expect(json(await ask('GET', '/check_status?format=json')).servers).toMatchObject({ total: 2, generation: 1 })
  })

  it('without any', async () => {
    const { ask } = await ancestor({ checkModule: true }, { upstreams: { plain: { servers: ['10.0.0.1:80'] } } })
    expect(json(await ask('GET', '/check_status?format=json'))).toEqual({
      servers: { total: 0, generation: 0, server: [] },
    })
    expect((await ask('GET', '/check_status?format=csv')).text).toBe('')
  })

  it('names from the program are text everywhere', async () => {
    const heartbeat = 'tcp'
    const names = ['<script>alert(1)</script>', `"a" & 'b'`, '=1+1', '+1', '-1', '@x', 'a,b', 'a"b\nc', '\t=1']
    const upstreams = Object.fromEntries(
      names.map((name) => [name, { servers: [{ path: `/tmp/<i>${name}` }], heartbeat }]),
    )
    const { ask } = bare(upstreams as Record<string, UpstreamOptions>, checkModule)
    const html = (await ask('GET', '/check_status'))!.body!
    expect(html).not.toMatch(/<script|<i>|<td>[^<]*["'][^<]*<\/td>/)
    expect(html).toContain('<td>&lt;script&gt;alert(1)&lt;/script&gt;</td>')
    expect(html).toContain('<td>&quot;a&quot; &amp; &#39;b&#39;</td>')
    const csv = (await ask('GET', '/check_status?format=csv'))!.body!.split('\n')
    expect(csv.pop()).toBe('')
    expect(csv.map((line) => fieldsOf(line)[1])).toEqual([
      '<script>alert(1)</script>',
      `"a" & 'b'`,
      ...["'=1+1", "'+1", "'-1", "'@x", 'a,b', 'a"b?c', "'?=1"],
    ])
    expect(csv.every((line) => fieldsOf(line).length === 8)).toBe(true)
    const { servers } = JSON.parse((await ask('GET', '/check_status?format=json'))!.body!) as {
      servers: { server: { upstream: string }[] }
    }
    expect(servers.server.map(({ upstream }) => upstream)).toEqual(names)
  })

  it('GET and HEAD alone', async () => {
    const { ask } = await ancestor({ checkModule: true }, new Checkups())
    expect(await ask('HEAD', '/check_status')).toMatchObject({ status: 200, text: '' })
    expect(await ask('POST', '/check_status')).toMatchObject({ status: 405 })
    expect(await ask('GET', '/check_status/x')).toMatchObject({ status: 404 })
  })
})

/** RFC 4180, of one line. */
function fieldsOf(line: string): string[] {
  return [...line.matchAll(/(?:^|,)(?:"((?:[^"]|"")*)"|([^",]*))/g)].map(
    ([, quoted, bare]) => quoted?.replaceAll('""', '"') ?? bare!,
  )
}
