import { readFileSync } from 'node:fs'
import { Validator } from '@seriousme/openapi-schema-validator'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { describe, expect, it, vi } from 'vitest'
import type { AuditEvent } from '../../src/admin/index.js'
import { Journal } from '../../src/admin/journal.js'
import type { Operations } from '../../src/admin/operations.js'
import { v1Routes } from '../../src/admin/v1/v1.js'
import { Checkups } from '../../src/index.js'
import { admin, stream, type Answer, type Ask } from './support.js'

const api = { upstreams: { api: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } } }
const addresses = (checkups: Checkups, key = 'api') =>
  checkups
    .getStatus()
    .upstreams.find((one) => one.key === key)
    ?.levels.map(({ servers }) => servers.map(({ address }) => address))

interface Operation {
  readonly responses: Record<string, { $ref?: string; content?: Record<string, { schema: object }> }>
  readonly requestBody?: unknown
}
const file = JSON.parse(readFileSync(new URL('../../src/admin/v1/openapi.json', import.meta.url), 'utf8')) as {
  readonly paths: Record<string, Record<string, Operation>>
  readonly components: { readonly responses: Record<string, { content: Record<string, { schema: object }> }> }
}

/** Every answer of these tests is what the file says it is. */
function documented(ask: Ask): Ask {
  const ajv = new Ajv2020({ strict: false })
  ajv.addSchema({ ...file, $id: 'file' })
  return async (method, path, asked) => {
    const answer = await ask(method, path, asked)
    const segments = path.split('?')[0]!.replace(/^\/v1/, '').split('/')
    const template = Object.keys(file.paths).find((one) => {
      const parts = one.split('/')
      return parts.length === segments.length && parts.every((part, i) => part.startsWith('{') || part === segments[i])
    })
    const operation = template === undefined ? undefined : file.paths[template]![method.toLowerCase()]
    if (operation === undefined) return answer
    let described = operation.responses[String(answer.status)]
    expect(described, `${method} ${path} answered ${answer.status}`).toBeDefined()
    if (described!.$ref !== undefined) described = file.components.responses[described!.$ref.split('/').at(-1)!]!
    const schema = described!.content?.['application/json']?.schema
    if (schema === undefined) return answer
    const pointed = JSON.parse(JSON.stringify(schema).replaceAll('"#/', '"file#/')) as object
    const validate = ajv.compile(pointed)
    expect(validate(answer.json), `${method} ${path}: ${ajv.errorsText(validate.errors)}\n${answer.text}`).toBe(true)
    return answer
  }
}

async function open(options: ConstructorParameters<typeof Checkups>[0] = api, more: Parameters<typeof admin>[1] = {}) {
  const opened = await admin(options, more)
  return { ...opened, ask: documented(opened.ask) }
}

describe('the file that describes the interface', () => {
  it('is OpenAPI 3.1', async () => {
    const result = await new Validator().validate(structuredClone(file))
    expect(result.errors ?? []).toEqual([])
    expect(result.valid).toBe(true)
  })

  it('has every route, and no other', () => {
    const checkups = new Checkups()
    const routes = v1Routes(undefined as unknown as Operations, new Journal(checkups))
    const described = Object.entries(file.paths).flatMap(([path, methods]) =>
      Object.keys(methods)
        .filter((name) => name !== 'parameters')
        .map((method) => `${method.toUpperCase()} ${path}`),
    )
    expect(described.sort()).toEqual(routes.map(({ method, template }) => `${method} ${template}`).sort())
  })

  it('is served', async () => {
    const { ask } = await open()
    expect((await ask('GET', '/v1/openapi.json')).json).toEqual(file)
  })
})

describe('reading', () => {
  it('lists the upstreams and shows one, every default written out', async () => {
    const { ask } = await open()
    const one = await ask('GET', '/v1/upstreams/api')
    expect(one.json.config).toMatchObject({
      balancer: 'wrr',
      maxFails: 1,
      cluster: [{ servers: [{ host: '10.0.0.1' }, {}] }],
    })
    expect(one.headers.etag).toBe(one.json.etag)
    expect((await ask('GET', '/v1/upstreams')).json.upstreams).toEqual([one.json])
  })

  it('shows no secret, and takes back what it has not shown', async () => {
    const heartbeat = { type: 'redis', password: 'hunter2-secret' } as const
    const check = () => true
    const { ask, checkups } = await open({
      upstreams: {
        api: { servers: ['10.0.0.1:80'], heartbeat },
        own: {
          servers: [{ address: '10.0.0.1:80', meta: { token: 'abc', n: 1n } }],
          heartbeat: { type: 'custom', check },
        },
      },
    })
    const { text, json } = await ask('GET', '/v1/upstreams')
    expect(text).not.toContain('hunter2')
    expect(text).not.toContain('abc')
    expect(json.upstreams[0].config.heartbeat.password).toBe('(not shown)')

    expect((await ask('PUT', '/v1/upstreams/api', { body: { ...json.upstreams[0].config, tries: 2 } })).status).toBe(
      200,
    )
    expect(checkups.getUpstream('api')).toMatchObject({ tries: 2, heartbeat: { password: 'hunter2-secret' } })
    expect((await ask('PUT', '/v1/upstreams/own', { body: { ...json.upstreams[1].config, tries: 2 } })).status).toBe(
      200,
    )
    expect(checkups.getUpstream('own')).toMatchObject({ tries: 2, heartbeat: { check } })

    const refused = await ask('PUT', '/v1/upstreams/new', { body: { ...json.upstreams[0].config } })
    expect(refused).toMatchObject({ status: 400, json: { error: { path: 'upstreams.new.heartbeat.password' } } })
  })

  it('gives the status of all and of one', async () => {
    const { ask, checkups } = await open()
    checkups.feedbackStatus('api', { host: '10.0.0.1', port: 80 }, 'failed')
    const { json } = await ask('GET', '/v1/status')
    expect(json.upstreams[0].levels[0].servers[0]).toMatchObject({ health: 'err', passive: { state: 'banned' } })
    expect((await ask('GET', '/v1/status/api')).json.levels[0].servers[0].address).toBe('10.0.0.1:80')
    expect((await ask('GET', '/v1/status/none')).status).toBe(404)
    expect((await ask('GET', '/v1/session')).json).toMatchObject({ name: '127.0.0.1', role: 'write' })
  })

  it('answers HEAD, and knows what a path takes', async () => {
    const { ask } = await open()
    expect(await ask('HEAD', '/v1/upstreams/api')).toMatchObject({ status: 200, text: '' })
    expect(await ask('POST', '/v1/upstreams/api')).toMatchObject({
      status: 405,
      headers: { allow: 'GET, PUT, PATCH, DELETE' },
    })
    expect((await ask('GET', '/v1/nothing')).status).toBe(404)
    expect((await ask('GET', '/v1/upstreams/%ff')).status).toBe(404)
  })
})

describe('changing an upstream', () => {
  it('creates, replaces, patches and deletes', async () => {
    const { ask, checkups } = await open()
    const created = await ask('PUT', '/v1/upstreams/new', { body: { servers: ['10.0.1.1:80'], tries: 3 } })
    expect(created).toMatchObject({ status: 201, json: { created: true, persisted: false, applied: true } })
    expect(created.json.note).toContain('a restart forgets it')
    // A cluster alone keeps the options.
    expect((await ask('PUT', '/v1/upstreams/new', { body: [{ servers: ['10.0.1.2:80'] }] })).status).toBe(200)
    expect(checkups.getUpstream('new')).toMatchObject({ tries: 3, cluster: [{ servers: [{ host: '10.0.1.2' }] }] })
    expect(
      (await ask('PATCH', '/v1/upstreams/new', { body: { tries: null, timeouts: { connect: 100 } } })).status,
    ).toBe(200)
    expect(checkups.getUpstream('new')).toMatchObject({ tries: 0, timeouts: { connect: 100, read: 60_000 } })
    expect((await ask('PATCH', '/v1/upstreams/new', { body: { servers: ['10.0.1.3:80'] } })).status).toBe(200)
    expect(addresses(checkups, 'new')).toEqual([['10.0.1.3:80']])
    expect((await ask('DELETE', '/v1/upstreams/new')).status).toBe(200)
    expect(checkups.getUpstream('new')).toBeUndefined()
    expect((await ask('DELETE', '/v1/upstreams/new')).status).toBe(404)
    expect((await ask('PATCH', '/v1/upstreams/new', { body: { tries: 1 } })).status).toBe(404)
  })

  it.each([
    [
      '/v1/upstreams/api',
      [{ servers: [{ host: '10.0.0.1', port: 0 }] }],
      'upstreams.api.cluster[0].servers[0].port',
      /got 0$/,
    ],
    ['/v1/upstreams/api', { servers: ['10.0.0.1:80'], balancer: 'fairest' }, 'upstreams.api.balancer', /"fairest"/],
    ['/v1/upstreams/api', { servers: ['10.0.0.1:80'], __proto: 1 }, 'upstreams.api.__proto', /unknown option/],
    ['/v1/upstreams/api', [], 'upstreams.api', /at least one server/],
    ['/v1/upstreams/api', 'no JSON', 'body', /expected JSON/],
    ['/v1/upstreams/api', '[1', 'body', /too early/],
    ['/v1/upstreams/api', '{"servers": ["10.0.0.1:80"], "servers": []}', 'body', /twice/],
    ['/v1/upstreams/api', '['.repeat(200), 'body', /levels deep/],
    ['/v1/upstreams/api', 7, 'upstreams.api.cluster', /expected an object/],
    ['/v1/upstreams/api', { 'a b': { servers: ['10.0.0.1:80'] } }, 'upstreams.api.cluster["a b"]', /a name/],
  ])('refuses a bad value and changes nothing: PUT %s %j', async (path, body, at, problem) => {
    const { ask, checkups } = await open()
    const before = checkups.getUpstream('api')
    const { status, json } = await ask('PUT', path, { body })
    expect(status).toBe(400)
    expect(json.error).toMatchObject({ code: 'ERR_CHECKUPS_CONFIG', path: at })
    expect(json.error.problem).toMatch(problem)
    expect(checkups.getUpstream('api')).toEqual(before)
    expect(checkups.getStatus().generation).toBe(1)
  })

  it('takes names that are names', async () => {
    const { ask, checkups } = await open()
    const body = { servers: ['10.0.0.1:80'] }
    for (const name of ['a/b', 'a b', 'ä', '<img>', 'x'.repeat(129), 'a\nb', '.', '..']) {
      expect(await ask('PUT', `/v1/upstreams/${encodeURIComponent(name)}`, { body })).toMatchObject({
        status: 400,
        json: { error: { reason: 'name' } },
      })
    }
    expect((await ask('PUT', `/v1/upstreams/${'x'.repeat(128)}`, { body })).status).toBe(201)
    expect(checkups.getUpstreams().size).toBe(2)
  })

  it('keys that objects have are keys like any other', async () => {
    const { ask, checkups } = await open()
    for (const name of ['__proto__', 'constructor', 'toString']) {
      expect((await ask('PUT', `/v1/upstreams/${name}`, { body: `{"servers":["10.0.0.1:80"]}` })).status).toBe(201)
      expect((await ask('GET', `/v1/upstreams/${name}`)).json.key).toBe(name)
    }
    const cluster = '{"__proto__": {"servers": ["10.0.0.1:80"]}}'
    expect((await ask('PUT', '/v1/upstreams/api', { body: cluster })).status).toBe(200)
    expect(addresses(checkups)).toEqual([['10.0.0.1:80']])
    expect(({} as Record<string, unknown>)['servers']).toBeUndefined()
  })
})

describe('conditions', () => {
  it('a change made on something old is refused with 412, and nothing is lost', async () => {
    const { ask, checkups } = await open()
    const { etag } = (await ask('GET', '/v1/upstreams/api')).headers
    const put = (address: string, match: string) =>
      ask('PUT', '/v1/upstreams/api', { body: [{ servers: [address] }], headers: { 'if-match': match } })
    const first = await put('10.0.0.8:80', etag!)
    expect(first.status).toBe(200)
    expect(await put('10.0.0.9:80', etag!)).toMatchObject({ status: 412, json: { error: { reason: 'conflict' } } })
    expect(addresses(checkups)).toEqual([['10.0.0.8:80']])
    expect((await put('10.0.0.9:80', first.headers.etag!)).status).toBe(200)
    expect((await put('10.0.0.7:80', '*')).status).toBe(200)
    for (const [method, path] of [
      ['DELETE', '/v1/upstreams/api'],
      ['PATCH', '/v1/upstreams/api'],
      ['POST', '/v1/upstreams/api/servers'],
      ['PATCH', '/v1/upstreams/api/servers/10.0.0.7%3A80'],
      ['DELETE', '/v1/upstreams/api/servers/10.0.0.7%3A80'],
    ] as const) {
      expect((await ask(method, path, { body: {}, headers: { 'if-match': etag! } })).status).toBe(412)
    }
  })

  it('creates only what is not there', async () => {
    const { ask } = await open()
    const put = (key: string) =>
      ask('PUT', `/v1/upstreams/${key}`, { body: { servers: ['10.0.0.1:80'] }, headers: { 'if-none-match': '*' } })
    expect((await put('api')).status).toBe(412)
    expect((await put('new')).status).toBe(201)
    expect((await put('new')).status).toBe(412)
    const odd = await ask('PUT', '/v1/upstreams/new', { body: {}, headers: { 'if-none-match': '"a"' } })
    expect(odd.status).toBe(400)
  })

  it('of many who change one thing at once, by what they have read, none overwrites another', async () => {
    const { ask, checkups } = await open({ upstreams: { api: { servers: ['10.0.0.1:1000'] } } })
    const add = async (port: number): Promise<void> => {
      const { json } = await ask('GET', '/v1/upstreams/api')
      const [{ servers }] = json.config.cluster
      const body = [{ servers: [...servers, `10.0.0.1:${port}`] }]
      const { status } = await ask('PUT', '/v1/upstreams/api', { body, headers: { 'if-match': json.etag } })
      if (status === 412) return add(port)
      expect(status).toBe(200)
    }
    await Promise.all(Array.from({ length: 20 }, (_, i) => add(1001 + i)))
    expect(addresses(checkups)![0]).toHaveLength(21)
  })
})

describe('servers', () => {
  const path = (address: string) => `/v1/upstreams/api/servers/${encodeURIComponent(address)}`

  it('are added, changed and removed', async () => {
    const { ask, checkups } = await open()
    expect((await ask('POST', '/v1/upstreams/api/servers', { body: '"[::1]:80"' })).status).toBe(201)
    const weighted = { host: '10.0.0.4', port: 80, weight: 3 }
    expect((await ask('POST', '/v1/upstreams/api/servers?level=0', { body: weighted })).status).toBe(201)
    expect(addresses(checkups)).toEqual([['10.0.0.1:80', '10.0.0.2:80', '[::1]:80', '10.0.0.4:80']])
    expect(await ask('POST', '/v1/upstreams/api/servers', { body: weighted })).toMatchObject({
      status: 409,
      json: { error: { reason: 'exists' } },
    })
    expect((await ask('POST', '/v1/upstreams/api/servers?level=9', { body: weighted })).status).toBe(400)

    const change = { weight: 7, down: true, maxConns: 5, maxFails: 2, failTimeout: 500 }
    expect((await ask('PATCH', path('[::1]:80'), { body: change })).status).toBe(200)
    expect(checkups.getStatus().upstreams[0]!.levels[0]!.servers[2]!.server).toMatchObject(change)
    expect((await ask('PATCH', path('[::1]:80'), { body: { weight: -1 } })).status).toBe(400)
    expect((await ask('PATCH', path('[::1]:80'), { body: { colour: 1 } })).status).toBe(400)
    expect((await ask('PATCH', path('10.9.9.9:80'), { body: { weight: 1 } })).status).toBe(404)
    expect((await ask('PATCH', path('nothing'), { body: { weight: 1 } })).status).toBe(400)

    expect((await ask('DELETE', path('[::1]:80'))).status).toBe(200)
    expect((await ask('DELETE', path('[::1]:80'))).status).toBe(404)
  })

  it('the last one goes by force alone', async () => {
    const { ask, checkups } = await open()
    expect((await ask('DELETE', path('10.0.0.1:80'))).status).toBe(200)
    expect(await ask('DELETE', path('10.0.0.2:80'))).toMatchObject({ status: 409, json: { error: { reason: 'last' } } })
    expect(checkups.selectPeer('api')?.address).toBe('10.0.0.2:80')
    expect((await ask('DELETE', `${path('10.0.0.2:80')}?force=true`)).status).toBe(200)
    expect(checkups.unavailableReason('api')).toBe('empty')
    expect((await ask('DELETE', `${path('10.0.0.2:80')}?force=perhaps`)).status).toBe(400)
  })

  it('drain by hand: gets nothing new', async () => {
    const { ask, checkups } = await open()
    expect((await ask('PATCH', path('10.0.0.1:80'), { body: { drain: true } })).status).toBe(200)
    expect([1, 2, 3].map(() => checkups.selectPeer('api')?.address)).toEqual(Array(3).fill('10.0.0.2:80'))
  })

  it('a ban ends by hand', async () => {
    const { ask, checkups } = await open()
    const fail = (host: string) => checkups.feedbackStatus('api', { host, port: 80 }, 'failed')
    const health = () => checkups.getStatus().upstreams[0]!.levels[0]!.servers.map((server) => server.health)
    fail('10.0.0.1')
    expect(health()).toEqual(['err', 'ok'])
    expect((await ask('POST', `${path('10.0.0.1:80')}/reset`)).status).toBe(200)
    expect(health()).toEqual(['ok', 'ok'])
    fail('10.0.0.2')
    expect((await ask('POST', '/v1/upstreams/api/reset')).status).toBe(200)
    expect(health()).toEqual(['ok', 'ok'])
    expect((await ask('POST', `${path('10.9.9.9:80')}/reset`)).status).toBe(404)
  })
})

describe('events', () => {
  it('come as they happen, and say who did it', async () => {
    const { ask, checkups, url } = await open()
    const events = await stream(`${url}v1/events`)
    await ask('PATCH', '/v1/upstreams/api/servers/10.0.0.1%3A80', { body: { down: true } })
    checkups.feedbackStatus('api', { host: '10.0.0.2', port: 80 }, 'ok')
    const three = [(await events.next()).value!, (await events.next()).value!, (await events.next()).value!]
    expect(three.map(({ event }) => event)).toEqual(['upstream:update', 'peer:down', 'admin:change'])
    expect(three[0]!.data).toMatchObject({
      source: 'admin',
      reason: 'server.set by 127.0.0.1 (v1)',
      changed: ['10.0.0.1:80'],
    })
    expect(three[1]!.data).toMatchObject({ peer: '10.0.0.1:80', health: 'down' })
    expect(three[2]!.data).toMatchObject({ who: '127.0.0.1', what: 'server.set', via: 'v1', address: '10.0.0.1:80' })
  })

  it('a reader that comes back has what it has missed; if that is too much, it is told', async () => {
    const { ask, checkups, url } = await open()
    const set = (weight: number) => ask('PATCH', '/v1/upstreams/api/servers/10.0.0.1%3A80', { body: { weight } })
    const events = await stream(`${url}v1/events?types=admin:change`)
    await set(2)
    const { id } = (await events.next()).value!
    await set(3)
    const again = await stream(`${url}v1/events?types=admin:change`, { 'last-event-id': id! })
    expect((await again.next()).value!.data.after.cluster[0].servers[0].weight).toBe(3)
    for (let i = 0; i < 1_100; i++) await checkups.setServer('api', '10.0.0.1:80', { weight: 10 + (i % 2) })
    const late = await stream(`${url}v1/events`, { 'last-event-id': id! })
    expect((await late.next()).value!.event).toBe('gap')
    expect((await ask('GET', '/v1/events', { headers: { 'last-event-id': 'x' } })).status).toBe(400)
  })
})

describe('the audit', () => {
  it('has who, what, before and after of every change, and of none that was refused', async () => {
    const told: AuditEvent[] = []
    const { ask } = await open(api, { onAudit: (event) => told.push(event) })
    await ask('PUT', '/v1/upstreams/new', { body: { servers: ['10.0.1.1:80'] } })
    await ask('PUT', '/v1/upstreams/new', { body: [] })
    await ask('DELETE', '/v1/upstreams/new')
    expect(told.map(({ who, what, upstream }) => [who, what, upstream])).toEqual([
      ['127.0.0.1', 'upstream.replace', 'new'],
      ['127.0.0.1', 'upstream.delete', 'new'],
    ])
    expect(told[0]).toMatchObject({ before: undefined, after: { cluster: [{}] } })
    expect(told[1]).toMatchObject({ before: { cluster: [{}] }, after: undefined })
  })

  it('a hook that throws ends nothing', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => undefined)
    const { ask } = await open(api, {
      onAudit: () => {
        throw new Error('mine')
      },
    })
    const { status }: Answer = await ask('DELETE', '/v1/upstreams/api')
    expect(status).toBe(200)
    expect(String(warned.mock.calls[0]![0])).toContain('onAudit threw: Error: mine')
    warned.mockRestore()
  })
})
