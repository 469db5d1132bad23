/** ngx_dynamic_upstream's interface: `/dynamic`, where everything is said in the query. */
import type { ServerOptions } from '../../config.js'
import { UnknownUpstreamError } from '../../errors.js'
import { parseInteger } from '../../source/nginx/units.js'
import { HttpError, text, type AdminReply, type AdminRequest, type Interface } from '../lib/route.js'
import type { Done, Operations } from '../operations.js'
import { read, statusOf } from './lib/change.js'
import { always, route, type Refusal } from './lib/refusal.js'
import { listServers, oneLine, parametersOf } from './lib/servers.js'

/** Whatever has one of these asks for a change. */
const CHANGES = ['add', 'remove', 'weight', 'max_fails', 'fail_timeout', 'up', 'down', 'backup']
/** What they show is more than addresses. */
const PARAMETERS = ['weight', 'max_fails', 'fail_timeout', 'up', 'down']

const NOT_ALLOWED = always(text(405, 'only GET and HEAD\n', { allow: 'GET, HEAD' }))

/** As in the ancestor, a HEAD changes nothing, whatever the query says. A server is added as a backup by `add=&backup=1`. */
export function dynamicUpstream(operations: Operations): Interface {
  return (method, path, query) => {
    if (path !== '/dynamic') return undefined
    if (method !== 'GET' && method !== 'HEAD') return NOT_ALLOWED
    const writes = method === 'GET' && CHANGES.some((name) => query.has(name))
    const run = async (request: AdminRequest) => {
      const done = writes ? await change(operations, request) : undefined
      return list(operations, query, done)
    }
    return route(writes, run, refused)
  }
}

function refused({ kind, status, message, headers }: Refusal): AdminReply {
  if (kind === 'last') return text(400, 'the last server cannot be removed\n')
  return text(kind === 'peer' || kind === 'exists' ? 400 : status, `${message}\n`, headers)
}

const bad = (problem: string) => new HttpError(400, problem)

function list(operations: Operations, query: URLSearchParams, done: Done | undefined): AdminReply {
  const key = query.get('upstream') ?? ''
  const found = read(operations, key)
  if (found === undefined) throw new UnknownUpstreamError(key)
  const verbose = query.has('verbose') || PARAMETERS.some((name) => query.has(name))
  const lines = listServers(found.config).map(({ address, server, backup }) => {
    const words = [
      'server',
      oneLine(address),
      ...(verbose ? [parametersOf(server, '')] : []),
      ...(backup ? ['backup'] : []),
      ...(server.down === true ? ['down'] : []),
    ]
    return `${words.join(' ')};\n`
  })
  return text(done === undefined ? 200 : statusOf(done), lines.join(''))
}

/** All of the query is read, and with it refused, before the upstream is looked for. */
async function change(operations: Operations, { query, caller }: AdminRequest): Promise<Done> {
  const by = { caller, via: 'dynamicUpstream' }
  const isAdd = query.has('add')
  if (isAdd && query.has('remove')) throw bad('add and remove at once are not allowed')
  if (query.has('up') && query.has('down')) throw bad('down and up at once are not allowed')
  const options = parameters(query)
  const backup = number(query, 'backup', 1)
  if (backup !== undefined && !isAdd) throw bad('backup is said of a server that is added')
  const key = query.get('upstream') ?? ''
  if (read(operations, key) === undefined) throw new UnknownUpstreamError(key)
  const server = query.get('server') ?? ''
  if (isAdd) return operations.addServer(key, { address: server, ...options, backup: backup === 1 }, by)
  if (query.has('remove')) return operations.removeServer(key, server, by)
  return operations.setServer(key, server, options, by)
}

function parameters(query: URLSearchParams): Pick<ServerOptions, 'weight' | 'maxFails' | 'failTimeout' | 'down'> {
  const weight = number(query, 'weight')
  const maxFails = number(query, 'max_fails')
  const failTimeout = number(query, 'fail_timeout')
  const isSaid = query.has('up') || query.has('down')
  return {
    ...(weight !== undefined && { weight }),
    ...(maxFails !== undefined && { maxFails }),
    // nginx counts whole seconds, and a ban of 0 lasts until the next one begins.
    ...(failTimeout !== undefined && { failTimeout: Math.max(1, failTimeout) * 1_000 }),
    ...(isSaid && { down: query.has('down') }),
  }
}

function number(query: URLSearchParams, name: string, most?: number): number | undefined {
  const given = query.get(name)
  if (given === null) return undefined
  const value = parseInteger(given, 0, most)
  if (value === undefined) throw bad(`${name} is not number`)
  return value
}
