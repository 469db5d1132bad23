import { readFileSync } from 'node:fs'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { AuditEvent } from '../../../src/admin/audit.js'
import { Journal } from '../../../src/admin/journal.js'
import type { AdminReply, AdminRequest } from '../../../src/admin/lib/route.js'
import { Operations } from '../../../src/admin/operations.js'
import type { Model, Patch } from '../../../src/admin/page/model.js'
import { loginPage, page } from '../../../src/admin/page/page.js'
import { Checkups, type CheckupsOptions } from '../../../src/index.js'
import { VirtualClock } from '../../support/virtual-clock.js'
import { crowd } from './scene.js'

const caller = { name: 'alice', role: 'write' } as const

function world(options: CheckupsOptions | Checkups = { upstreams: { api: { servers: ['a:1', 'b:1'] } } }) {
  const clock = new VirtualClock()
  const checkups = options instanceof Checkups ? options : new Checkups({ clock, random: () => 0, ...options })
  const journal = new Journal(checkups)
  const audit = (event: AuditEvent) => journal.record(event)
  const operations = new Operations({ checkups, clock, store: undefined, storeTimeout: 1_000, audit })
  const { route, close } = page({ operations, journal, clock })
  onTestFinished(async () => {
    close()
    journal.close()
    await checkups.close()
  })
  const get = async (path: string, asked: Partial<AdminRequest> = {}): Promise<AdminReply> => {
    const query = asked.query ?? new URLSearchParams()
    const found = route('GET', path, query)
    if (found === undefined) throw new Error(`there is nothing at ${path}`)
    const text = () => Promise.resolve('')
    const none = { method: 'GET', query, headers: {}, caller, base: '/ops/', csrf: undefined, text, json: text }
    return found.run({ ...none, ...asked })
  }
  /** A viewer: what it was sent, and how it goes away. */
  const view = async () => {
    const controller = new AbortController()
    const sent: string[] = []
    const { stream } = await get('/live')
    stream!((text) => sent.push(text), controller.signal)
    const messages = () =>
      sent
        .join('')
        .split('\n\n')
        .filter((text) => text.startsWith('event: '))
        .map((text) => {
          const [event = '', data = ''] = text.split('\n')
          return { event: event.slice(7), data: JSON.parse(data.slice(6)) as Patch }
        })
    const patches = () => messages().flatMap(({ event, data }) => (event === 'patch' ? [data] : []))
    const snapshot = () => messages().find(({ event }) => event === 'snapshot')!.data as unknown as Model
    return { sent, patches, snapshot, leave: () => controller.abort() }
  }
  const by = { caller, via: 'v1' }
  return { clock, checkups, operations, journal, by, route, close, get, view }
}

describe('the page', () => {
  it('is whole, and made of little', async () => {
    const { get } = world({})
    const { body = '', headers } = await get('/')
    const css = (await get('/page.css')).body!
    const js = (await get('/page.js')).body! + (await get('/view.js')).body!
    expect(headers).toEqual({ 'content-type': 'text/html; charset=utf-8' })
    expect(body).toMatch(/^<!doctype html>/)
    expect(Buffer.byteLength(body + css + js)).toBeLessThan(100 * 1024)
  })

  it('has nothing that a strict policy forbids, and asks nobody else', async () => {
    const { get } = world()
    const { body = '' } = await get('/')
    expect(body).not.toMatch(/<style|\sstyle=|\son\w+=/)
    expect(body.match(/<script[^>]*>[^<]/)).toBeNull()
    const urls = [...body.matchAll(/(?:src|href|action)="([^"]*)"/g)].map(([, url = '']) => url)
    expect(urls.length).toBeGreaterThan(4)
    for (const url of urls) expect(url).toMatch(/^(\/ops\/|#|data:image)/)
    const css = (await get('/page.css')).body!
    expect(css).not.toMatch(/url\(|@import/)
  })

  it('its files are for anybody, and for ever under their version', async () => {
    const { get, route } = world()
    for (const name of ['/page.css', '/page.js', '/view.js']) {
      expect(route('GET', name, new URLSearchParams())).toMatchObject({ writes: false, open: true })
      const { headers = {}, body } = await get(name)
      expect(body).toBe(readFileSync(new URL(`../../../src/admin/page/assets${name}`, import.meta.url), 'utf8'))
      expect(headers['cache-control']).toBe('no-cache')
      const again = await get(name, { headers: { 'if-none-match': headers['etag']! } })
      expect([again.status, again.body]).toEqual([304, undefined])
    }
    const { body = '' } = await get('/')
    const version = /page\.css\?v=([\w-]+)/.exec(body)![1]!
    const versioned = await get('/page.css', { query: new URLSearchParams({ v: version }) })
    expect(versioned.headers!['cache-control']).toMatch(/immutable/)
    const old = await get('/page.css', { query: new URLSearchParams({ v: 'other' }) })
    expect(old.headers!['cache-control']).toBe('no-cache')
    expect(route('GET', '/', new URLSearchParams())).not.toHaveProperty('open')
    expect(route('GET', '/live', new URLSearchParams())).not.toHaveProperty('open')
    for (const name of ['/tsconfig.json', '/view.d.ts', '/../page.ts', '/constructor']) {
      expect(route('GET', name, new URLSearchParams())).toBeUndefined()
    }
    expect(route('POST', '/', new URLSearchParams())).toBeUndefined()
  })

  it('offers changes to whoever may make them', async () => {
    const { get } = world()
    const written = (await get('/')).body!
    expect(written.match(/<button[^>]*class="change"/g)).toHaveLength(2)
    const read = (await get('/', { caller: { name: 'bob', role: 'read' } })).body!
    expect(read).not.toMatch(/class="change"|<dialog/)
  })

  it('has a log-out for a browser that is logged in', async () => {
    const { get } = world()
    const { body = '' } = await get('/', { csrf: 'a"b' })
    expect(body).toContain('<meta name="csrf" content="a&quot;b"')
    expect(body).toMatch(
      /<form method="post" action="\/ops\/logout">\s*<input type="hidden" name="csrf" value="a&quot;b"/,
    )
    expect((await get('/')).body).not.toMatch(/logout|name="csrf"/)
  })

  it('searches without a script', async () => {
    const { get, checkups } = world({
      upstreams: { api: { servers: ['a:1', 'b:1', 'c:1'] }, web: { servers: ['d:1'] } },
    })
    checkups.feedbackStatus('api', { host: 'b', port: 1 }, 'failed')
    const shown = async (query: Record<string, string>) => {
      const { body = '' } = await get('/', { query: new URLSearchParams(query) })
      return [...body.matchAll(/<tr[^>]*id="p\d+"[^>]*>\s*<th.*?class="name">([^<]*)</gs)].map(([, name]) => name)
    }
    expect(await shown({})).toEqual(['a:1', 'b:1', 'c:1', 'd:1'])
    expect(await shown({ state: 'banned' })).toEqual(['b:1'])
    expect(await shown({ q: 'web' })).toEqual(['d:1'])
    expect(await shown({ q: 'a:1', state: 'down' })).toEqual([])
    expect(await shown({ state: 'constructor' })).toHaveLength(4)
  })

  it('is in the colours that the reader has chosen', async () => {
    const { get } = world()
    const theme = async (cookie: string) =>
      /<html[^>]*data-theme="(\w+)"/.exec((await get('/', { headers: { cookie } })).body!)?.[1]
    expect(await theme('other=1; checkups_theme=dark')).toBe('dark')
    expect(await theme('checkups_theme=light')).toBe('light')
    expect(await theme('checkups_theme=x"onload')).toBeUndefined()
    expect(await theme('')).toBeUndefined()
  })

  it('shows what is not well, and who has said so', async () => {
    const { get, checkups, operations, by } = world({ upstreams: { api: { servers: ['a:1', 'b:1', 'c:1'] } } })
    checkups.feedbackStatus('api', { host: 'b', port: 1 }, 'failed')
    await operations.setServer('api', 'a:1', { drain: true }, by)
    const { body = '' } = await get('/')
    const text = body.replace(/<[^>]*>/g, ' ').replace(/\s+/g, ' ')
    expect(text).toContain('1 banned, 1 draining of 3 peers')
    expect(text).toContain('b:1 api banned 10 s left failed once')
    expect(text).toContain('a:1 api drained for 0 s by alice')
    expect(text).toContain('a:1 api told to drain, by alice')
  })

  it('the login form has one field, and says what was wrong', () => {
    expect(loginPage('/ops/', undefined)).not.toContain('role="alert"')
    const wrong = loginPage('/ops/', 'No <such> token.')
    expect(wrong).toMatch(/<form method="post" action="\/ops\/login">/)
    expect(wrong).toMatch(/name="token"\s+type="password"\s+autocomplete="current-password"/)
    expect(wrong).toMatch(/role="alert">.*No &lt;such&gt; token\./s)
  })
})

describe('the stream', () => {
  it('begins with all of it, and goes on with what changes, once a second', async () => {
    const { clock, checkups, view } = world()
    await clock.advance(1_234)
    const viewer = await view()
    const { upstreams, run } = viewer.snapshot()
    expect(run).toMatch(/^[\w-]{8}$/)
    expect(upstreams).toMatchObject([
      {
        key: 'api',
        balancer: 'wrr',
        levels: [{ name: '0', peers: [{ address: 'a:1', word: 'up' }, { address: 'b:1' }] }],
      },
    ])
    const [a, b] = upstreams[0]!.levels[0]!.peers
    expect(viewer.patches()).toEqual([])

    checkups.feedbackStatus('api', { host: 'b', port: 1 }, 'failed')
    const pick = checkups.acquirePeer('api')!
    await clock.advance(766)
    const at = clock.wallTime()
    expect(viewer.patches()).toEqual([
      {
        at,
        second: 1,
        from: 2,
        peers: [
          [a!.id, { inFlight: 1 }],
          [
            b!.id,
            { word: 'banned', usable: false, since: at - 766, why: 'failed once', until: at + 9_234, ban: 10_000 },
          ],
        ],
        events: [{ id: 1, at: at - 766, tone: 'banned', text: 'banned: failed once', upstream: 'api', address: 'b:1' }],
        samples: [
          [upstreams[0]!.id, [1, 1, 1, 1, 0, 0, 0]],
          [a!.id, [1, 1, 0, 0, 0, 0, 0]],
          [b!.id, [1, 0, 1, 1, 0, 0, 0]],
        ],
      },
    ])
    pick.done('ok')
    await clock.advance(1_000)
    await clock.advance(1_000)
    expect(viewer.patches().slice(1)).toMatchObject([{ second: 2, peers: [[a!.id, { inFlight: 0 }]] }, { second: 3 }])
    expect(viewer.patches()[2]).not.toHaveProperty('peers')
    // The ban is over: what was there is not any more.
    await clock.advance(10_000)
    const turned = viewer.patches().flatMap(({ peers = [] }) => peers.filter(([, change]) => change.word === 'trial'))
    expect(turned).toMatchObject([[b!.id, { until: null, ban: null }]])
  })

  it('tells of upstreams and peers that come and go', async () => {
    const { clock, checkups, view } = world()
    const viewer = await view()
    const [api] = viewer.snapshot().upstreams
    const [a] = api!.levels[0]!.peers
    await checkups.removeServer('api', 'b:1')
    await checkups.updateUpstream('web', { cluster: { main: { servers: ['c:1'] } } })
    await clock.advance(1_000)
    const [patch] = viewer.patches()
    expect(patch!.order).toHaveLength(2)
    expect(patch!.upstreams).toMatchObject([
      { id: api!.id, levels: [{ peers: [{ id: a!.id }] }] },
      { key: 'web', keyed: true, levels: [{ name: 'main' }] },
    ])
    expect(patch!.upstreams![0]!.levels[0]!.peers).toHaveLength(1)
    await checkups.deleteUpstream('api')
    await clock.advance(1_000)
    // One that comes again is another one.
    await checkups.updateUpstream('api', { servers: ['a:1'] })
    await clock.advance(1_000)
    const [, second, third] = viewer.patches()
    expect(second!.order).toEqual([patch!.order![1]])
    expect(third!.order).toEqual([patch!.order![1], third!.upstreams![0]!.id])
    expect(third!.upstreams![0]!.id).not.toBe(api!.id)
  })

  it('a peer whose options change is told as a change', async () => {
    const { clock, checkups, view } = world()
    const viewer = await view()
    await checkups.setServer('api', 'a:1', { weight: 7 })
    await clock.advance(1_000)
    expect(viewer.patches()[0]!.peers).toMatchObject([[expect.any(Number), { weight: 7 }]])
    expect(viewer.patches()[0]).not.toHaveProperty('upstreams')
  })

  it('who comes later has the same, and the minute before', async () => {
    const { clock, checkups, view } = world()
    const first = await view()
    await clock.advance(2_000)
    checkups.acquirePeer('api')!.done('ok')
    await clock.advance(1_500)
    const late = await view()
    expect(late.snapshot().second).toBe(2)
    expect(late.snapshot().history[0]).toEqual([first.snapshot().upstreams[0]!.id, [[2, 1, 1, 0, 0.01, 0, 0]]])
    await clock.advance(500)
    expect(late.patches()).toEqual([first.patches().at(-1)])
  })

  it('a comment every 15 s keeps what is in between from ending it', async () => {
    const { clock, view } = world()
    const { sent } = await view()
    await clock.advance(46_000)
    expect(sent.join('').match(/^: /gm)).toHaveLength(3)
  })

  it('nobody looks, nothing runs', async () => {
    const { clock, view, close } = world()
    expect(clock.pending).toBe(0)
    const one = await view()
    const two = await view()
    await clock.advance(1_000)
    one.leave()
    await clock.advance(1_000)
    expect([one.patches().length, two.patches().length]).toEqual([1, 2])
    two.leave()
    // Only what ends the measuring.
    expect(clock.pending).toBe(1)
    await clock.advance(600_000)
    expect(clock.pending).toBe(0)
    expect(two.patches()).toHaveLength(2)
    await view()
    close()
    expect(clock.pending).toBe(0)
  })

  it('a thousand peers and fifty events a second are read within 10 ms or so', async () => {
    const { clock, checkups, view } = world(crowd(1_000))
    const viewer = await view()
    const times: number[] = []
    for (let tick = 0; tick < 40; tick++) {
      for (let i = 0; i < 4_000; i++) {
        const pick = checkups.acquirePeer(['edge', 'catalog', 'checkout', 'media'][i % 4]!)
        pick?.answered(200)
        if (i % 3 > 0) pick?.done('ok')
      }
      for (let i = 0; i < 50; i++) {
        checkups.feedbackStatus('edge', { host: `10.20.0.${(tick * 50 + i) % 250}`, port: 8080 }, 'failed')
      }
      const begun = process.cpuUsage()
      await clock.advance(1_000)
      const { user, system } = process.cpuUsage(begun)
      times.push((user + system) / 1_000)
    }
    expect(viewer.patches()).toHaveLength(40)
    // Of the processor's time, of which others take none; the median, for some collect garbage. Usually it is about 5 ms.
    expect(times.sort((a, b) => a - b)[20]).toBeLessThan(20)
  })
})
