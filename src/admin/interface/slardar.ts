/** Slardar's interface: `/status`, `/upstreams` and `/upstream/<name>`, in JSON. */
import { upstreamPath } from '../../compile.js'
import type { Cluster, ServerOptions, UpstreamOptions } from '../../config.js'
import { ConfigError, UnknownUpstreamError } from '../../errors.js'
import { compileHeartbeat } from '../../health/schedule.js'
import { parseSlardarValue } from '../../source/consul/slardar.js'
import { defined, isOptions, printWireServer } from '../../source/consul/wire.js'
import { toCheckupsStatus } from '../../status.js'
import { readJson } from '../lib/body.js'
import { describe, type Json } from '../lib/describe.js'
import { json, type AdminReply, type AdminRequest, type Interface, type Route } from '../lib/route.js'
import type { Operations } from '../operations.js'
import { patching, read, replacing, statusOf } from './lib/change.js'
import { always, route, type Refusal } from './lib/refusal.js'
import { mapServers, seconds } from './lib/servers.js'

/** This library and its version, in the place of Slardar's. */
export const SERVER = 'checkups/0.1.0'

const HEADERS = { server: SERVER }
const UPSTREAM = /^\/upstream\/([-_a-zA-Z0-9.]+)$/

const reply = (status: number, value: Json, headers = {}) => json(status, value, { ...HEADERS, ...headers })
const NOTHING = always(reply(400, {}))
const NOT_ALLOWED = always(reply(405, { status: 405, msg: 'method not allowed' }))

export function slardar(operations: Operations): Interface {
  const show = (what: () => unknown): Route => ({ writes: false, run: () => reply(200, what() as Json) })
  const status = show(() => ({ ...toCheckupsStatus(operations.status()), slardar_version: SERVER }))
  const upstreams = show(() =>
    Object.fromEntries([...operations.checkups.getUpstreams()].map(([key, config]) => [key, toSlardar(config)])),
  )

  return (method, path) => {
    // Looked for as a GET then.
    if (method === 'HEAD') return undefined
    if (path === '/status') return method === 'GET' ? status : NOT_ALLOWED
    if (path === '/upstreams') return method === 'GET' ? upstreams : NOT_ALLOWED
    const [, key] = UPSTREAM.exec(path) ?? []
    if (key === undefined) return NOTHING
    const done = (run: (request: AdminRequest) => Promise<AdminReply>) =>
      route(true, run, (refusal) => refused(key, refusal))
    switch (method) {
      case 'PUT':
      case 'POST':
        return done((request) => update(operations, key, request))
      case 'DELETE':
        return done((request) => remove(operations, key, request))
      default:
        return NOT_ALLOWED
    }
  }
}

const ok = (status: number) => reply(status, { status })

/** The ancestor has 400 for everything. */
function refused(key: string, { kind, status, message, headers }: Refusal): AdminReply {
  const say = (code: number, msg: string) => reply(code, { status: code, msg }, headers)
  if (kind === 'upstream') return say(400, `upstream ${key} not found`)
  if (kind === 'http' && status === 413) return say(400, 'body too big')
  return say(status, message)
}

async function update(operations: Operations, key: string, request: AdminRequest): Promise<AdminReply> {
  const say = (msg: string) => reply(400, { status: 400, msg })
  const body = await request.text()
  if (body === '') return say('body too big')
  let value: unknown
  try {
    value = readJson(body)
  } catch (error) {
    if (error instanceof ConfigError) return say('decode body error')
    throw error
  }
  if (!isFields(value)) return say('body invalid')
  const update = parse(upstreamPath(key), value)
  const by = { caller: request.caller, via: 'slardar' }
  return ok(statusOf(await patching(operations, key, by, (current) => toPatch(value, update, current))))
}

async function remove(operations: Operations, key: string, { caller }: AdminRequest): Promise<AdminReply> {
  // Whatever the name: what is not there cannot be named wrongly.
  if (read(operations, key) === undefined) throw new UnknownUpstreamError(key)
  return ok(statusOf(await operations.delete(key, { caller, via: 'slardar' })))
}

type Fields = Readonly<Record<string, unknown>>

function isFields(value: unknown): value is Fields {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return false
  return Object.hasOwn(value, 'servers') !== Object.hasOwn(value, 'cluster')
}

/** Nothing is left out: who has sent a server that cannot be used is told. */
function parse(path: string, value: Fields): Cluster | UpstreamOptions {
  return parseSlardarValue(path, value, ({ reason }) => {
    throw new ConfigError(path, reason)
  })
}

/** What the body says; everything else stays as it is, as in the ancestor. */
function toPatch(fields: Fields, update: Cluster | UpstreamOptions, current: UpstreamOptions = {}): object {
  if (!isOptions(update)) return { cluster: update }
  const { heartbeat, balancer, statuses, ...others } = update
  const isSaid = (name: string) => (fields[name] ?? undefined) !== undefined
  return {
    ...others,
    // `mode: "wrr"` is our default, and so not in the options.
    ...(isSaid('mode') && { balancer: replacing(current.balancer, balancer ?? null) }),
    ...(statuses !== undefined && { statuses: replacing(current.statuses, statuses) }),
    ...(heartbeat !== undefined && { heartbeat: heartbeatPatch(isSaid('typ'), heartbeat, current.heartbeat) }),
  }
}

/** When there are checks, and when a state turns: what is no option of one probe. */
const SCHEDULE: ReadonlySet<string> = new Set(Object.keys(compileHeartbeat('', '', 'tcp')!.schedule))

/** In the ancestor these are options of the upstream, each of which stays when it is not named: also what is checked. */
function heartbeatPatch(
  isTypeSaid: boolean,
  heartbeat: NonNullable<UpstreamOptions['heartbeat']>,
  current: UpstreamOptions['heartbeat'],
): unknown {
  if (typeof heartbeat !== 'object') return heartbeat
  const { type, sensibility, ...rest } = heartbeat
  const said = { ...rest, ...(sensibility !== undefined && { fall: sensibility }) }
  if (typeof current !== 'object') return { type, ...said }
  if (!isTypeSaid) return said
  const probe = Object.entries(current).filter(([name]) => !SCHEDULE.has(name))
  return { ...said, ...(replacing(Object.fromEntries(probe), probeOf({ type, ...said })) as object) }
}

const probeOf = (options: object) => Object.fromEntries(Object.entries(options).filter(([name]) => !SCHEDULE.has(name)))

/** Names of checks in the ancestor, where they differ. */
const TYPES: ReadonlyMap<unknown, string> = new Map([['tcp', 'general']])

/** In the ancestor's shape, as far as that goes; nothing of it is secret. */
function toSlardar(config: UpstreamOptions): Json {
  const { cluster, heartbeat, balancer, statuses, timeouts, tries, timeout, protected: isProtected } = config
  const options: Fields = typeof heartbeat === 'object' ? { ...heartbeat } : {}
  const booleans = Object.entries(statuses ?? {}).filter(([, meaning]) => typeof meaning === 'boolean')
  const httpOptions = defined({
    query: options['query'],
    statuses: booleans.length === 0 ? undefined : Object.fromEntries(booleans),
  })
  return describe(
    defined({
      cluster: mapServers(cluster ?? [], (servers) => servers.map(toWire)),
      enable: typeof heartbeat === 'object',
      typ: TYPES.get(options['type']) ?? options['type'],
      sensibility: options['fall'],
      http_opts: Object.keys(httpOptions).length === 0 ? undefined : httpOptions,
      user: options['user'],
      pass: options['password'],
      name: options['database'],
      mode: toMode(balancer),
      protected: isProtected,
      try: tries,
      try_timeout: seconds(timeout),
      timeout: seconds(timeouts?.connect),
      send_timeout: seconds(timeouts?.send),
      read_timeout: seconds(timeouts?.read),
    }),
  )!
}

function toWire({ host, port, path, ...server }: ServerOptions): Fields {
  return { ...(path === undefined ? { host, port } : { path }), ...printWireServer(server) }
}

function toMode(balancer: UpstreamOptions['balancer']): string {
  const type = typeof balancer === 'object' ? balancer.type : balancer
  if (typeof type === 'function') return type.name
  return type === 'consistent-hash' ? 'hash' : (type ?? 'wrr')
}
