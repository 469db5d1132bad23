/** The library's own interface, as `openapi.json` describes it. */
import { readFileSync } from 'node:fs'
import type { JournalEntry, Journal } from '../journal.js'
import { describe, type Json } from '../lib/describe.js'
import { decode, HttpError, json, type AdminReply, type AdminRequest, type Interface } from '../lib/route.js'
import type { By, Conditions, Described, Done, Operations } from '../operations.js'

type Params = Readonly<Record<'key' | 'address', string>>
type Run = (request: AdminRequest, params: Params) => AdminReply | Promise<AdminReply>

interface Entry {
  readonly method: string
  /** With `{key}` and `{address}` as whole segments. */
  readonly template: string
  readonly writes: boolean
  readonly run: Run
}

const JSON_TYPE = { 'content-type': 'application/json' }
/** Milliseconds after which a browser whose stream has ended comes back. */
const RETRY = 2_000

/** All routes, relative to `/v1`. */
export function v1Routes(operations: Operations, journal: Journal): readonly Entry[] {
  const read = (template: string, run: Run): Entry => ({ method: 'GET', template, writes: false, run })
  const write = (method: string, template: string, run: Run): Entry => ({ method, template, writes: true, run })
  return [
    read('/upstreams', () => {
      const upstreams = operations.keys().map((key) => shown(operations.read(key)))
      return json(200, { generation: operations.checkups.generation, upstreams })
    }),
    read('/upstreams/{key}', (_, { key }) => {
      const found = operations.read(key)
      return json(200, shown(found), { etag: found.etag })
    }),
    write('PUT', '/upstreams/{key}', async (request, { key }) => {
      return done(operations, await operations.replace(key, await request.json(), by(request), conditions(request)))
    }),
    write('PATCH', '/upstreams/{key}', async (request, { key }) => {
      return done(operations, await operations.patch(key, await request.json(), by(request), conditions(request)))
    }),
    write('DELETE', '/upstreams/{key}', async (request, { key }) => {
      return done(operations, await operations.delete(key, by(request), conditions(request)))
    }),
    write('POST', '/upstreams/{key}/reset', async (request, { key }) => {
      return done(operations, await operations.reset(key, undefined, by(request)))
    }),
    write('POST', '/upstreams/{key}/servers', async (request, { key }) => {
      const level = request.query.get('level') ?? undefined
      const server = await request.json()
      const made = await operations.addServer(key, server, by(request), { ...conditions(request), level })
      return done(operations, { ...made, created: true })
    }),
    write('PATCH', '/upstreams/{key}/servers/{address}', async (request, { key, address }) => {
      const change = await request.json()
      return done(operations, await operations.setServer(key, address, change, by(request), conditions(request)))
    }),
    write('DELETE', '/upstreams/{key}/servers/{address}', async (request, { key, address }) => {
      const force = flag(request.query, 'force')
      return done(
        operations,
        await operations.removeServer(key, address, by(request), { ...conditions(request), force }),
      )
    }),
    write('POST', '/upstreams/{key}/servers/{address}/reset', async (request, { key, address }) => {
      return done(operations, await operations.reset(key, address, by(request)))
    }),
    read('/status', () => ({ status: 200, headers: JSON_TYPE, body: operations.statusText() })),
    read('/status/{key}', (_, { key }) => {
      operations.read(key)
      return json(200, describe(operations.status().upstreams.find((upstream) => upstream.key === key))!)
    }),
    read('/events', (request) => events(journal, request)),
    read('/session', ({ caller, csrf }) => {
      return json(200, { name: caller.name, role: caller.role, ...(csrf !== undefined && { csrf }) })
    }),
    read('/openapi.json', () => ({
      status: 200,
      headers: JSON_TYPE,
      body: readFileSync(new URL('./openapi.json', import.meta.url), 'utf8'),
    })),
  ]
}

export function v1(operations: Operations, journal: Journal): Interface {
  const routes = v1Routes(operations, journal).map((entry) => ({ ...entry, segments: entry.template.split('/') }))
  return (method, path) => {
    const segments = path.split('/').map(decode)
    const here = routes.flatMap((entry) => {
      const params = match(entry.segments, segments)
      return params === undefined ? [] : [{ ...entry, params }]
    })
    if (here.length === 0) return undefined
    const entry = here.find((one) => one.method === method || (method === 'HEAD' && one.method === 'GET'))
    if (entry !== undefined) return { writes: entry.writes, run: (request) => entry.run(request, entry.params) }
    const allow = here.map((one) => one.method).join(', ')
    return {
      writes: false,
      run: () => {
        throw new HttpError(405, `expected ${allow}`, { allow })
      },
    }
  }
}

function match(template: readonly string[], segments: readonly (string | undefined)[]): Params | undefined {
  if (template.length !== segments.length) return undefined
  const params = { key: '', address: '' }
  for (const [i, name] of template.entries()) {
    const value = segments[i]
    if (value === undefined || value === '' ? name !== '' : false) return undefined
    if (name === '{key}') params.key = value!
    else if (name === '{address}') params.address = value!
    else if (name !== value) return undefined
  }
  return params
}

function by({ caller }: AdminRequest): By {
  return { caller, via: 'v1' }
}

function conditions({ headers }: AdminRequest): Conditions {
  const { 'if-match': ifMatch, 'if-none-match': ifNone } = headers
  if (ifNone !== undefined && ifNone.trim() !== '*') throw new HttpError(400, 'If-None-Match: expected *')
  return { ifMatch, ifNone: ifNone !== undefined }
}

function flag(query: URLSearchParams, name: string): boolean {
  const value = query.get(name)
  if (value === null || value === 'false') return false
  if (value === 'true' || value === '') return true
  throw new HttpError(400, `${name}: expected true or false`)
}

function shown({ key, generation, etag, config }: Described): Json {
  return { key, generation, etag, config: describe(config)! }
}

/** 202: the store has it, and it is not in use here yet. */
function done(operations: Operations, { key, generation, created, persisted, applied }: Done): AdminReply {
  const status = !applied ? 202 : created ? 201 : 200
  const lasting = persisted
    ? applied
      ? 'kept by the store'
      : 'kept by the store, and not in use in this process yet'
    : 'in this process only: a restart forgets it'
  const exists = operations.keys().includes(key)
  const headers = exists ? { etag: operations.read(key).etag } : {}
  return json(status, { key, generation, created, persisted, applied, note: lasting }, headers)
}

/** What happens from now on, or from after the event that the reader had last. */
function events(journal: Journal, { headers, query }: AdminRequest): AdminReply {
  const types = query.get('types')?.split(',')
  const after = headers['last-event-id'] ?? query.get('after')
  if (after !== null && !/^\d{1,15}$/.test(after as string))
    throw new HttpError(400, 'Last-Event-ID: expected a number')
  const isWanted = ({ type }: JournalEntry) => types === undefined || types.includes(type)
  const print = ({ id, type, data }: JournalEntry) => `id: ${id}\nevent: ${type}\ndata: ${JSON.stringify(data)}\n\n`
  return {
    status: 200,
    headers: { 'content-type': 'text/event-stream' },
    stream: (write, closed) => {
      const missed = after === null ? [] : journal.since(Number(after))
      write(`retry: ${RETRY}\n\n`)
      if (missed === undefined) write(`id: ${journal.last}\nevent: gap\ndata: {}\n\n`)
      for (const entry of missed ?? []) if (isWanted(entry)) write(print(entry))
      const end = journal.listen((entry) => {
        if (isWanted(entry)) write(print(entry))
      })
      closed.addEventListener('abort', end)
    },
  }
}
