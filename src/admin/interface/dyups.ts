/** dyups' interface: `/list`, `/detail` and `/upstream/<name>`, which takes what stands in nginx's block of an upstream. */
import { upstreamPath } from '../../compile.js'
import type { UpstreamOptions } from '../../config.js'
import { ConfigError } from '../../errors.js'
import { parseDirectives, type Directive } from '../../source/nginx/syntax.js'
import { toUpstreams } from '../../source/nginx/upstreams.js'
import { decode, text, type AdminReply, type AdminRequest, type Interface } from '../lib/route.js'
import type { Operations } from '../operations.js'
import { findKey, patching, read, replacing, statusOf } from './lib/change.js'
import { always, route, type Refusal } from './lib/refusal.js'
import { listServers, oneLine, seconds } from './lib/servers.js'

const NOT_FOUND = text(404, 'not found uptream')
const NO_INTERFACE = 'not support this interface'
const NO_API = 'not support this api'

export function dyups(operations: Operations): Interface {
  const get = (run: () => AdminReply) => route(false, run, refused)
  const list = get(() => listing(operations.keys().map((key) => `${oneLine(key)}\n`)))
  const detail = get(() => listing([...operations.checkups.getUpstreams()].map(([key, config]) => block(key, config))))

  return (method, path) => {
    // Looked for as a GET then.
    if (method === 'HEAD') return undefined
    if (method !== 'GET' && method !== 'POST' && method !== 'DELETE') return always(text(405, NO_INTERFACE))
    const [api = '', name, ...more] = path.slice(1).split('/')
    const unknown = (problem: string) => always(text(method === 'DELETE' ? 405 : 404, problem))
    switch (api.toLowerCase()) {
      case 'list':
      case 'detail':
        if (method !== 'GET' || name !== undefined) return unknown(NO_INTERFACE)
        return api.toLowerCase() === 'list' ? list : detail
      case 'upstream': {
        if (name === undefined || name === '' || more.length > 0) return unknown(NO_INTERFACE)
        const asked = decode(name)
        if (asked === undefined) return unknown('not found uptream')
        if (method === 'GET') return get(() => upstream(operations, asked))
        if (method === 'POST') return route(true, (request) => update(operations, asked, request), refused)
        return route(true, (request) => remove(operations, asked, request), refused)
      }
      default:
        return unknown(NO_API)
    }
  }
}

/** nginx itself says nothing of what is wrong but in its log. */
function refused({ kind, status, message, headers }: Refusal): AdminReply {
  switch (kind) {
    case 'upstream':
      return NOT_FOUND
    case 'config':
      return text(500, 'add server failed', { 'x-checkups-reason': headerText(message) })
    case 'conflict':
      return text(409, 'wait and try again\n')
    default:
      return text(status, message, headers)
  }
}

function headerText(message: string): string {
  return message.slice(0, 500).replace(/[^\x20-\x7e]/g, '?')
}

function listing(parts: readonly string[]): AdminReply {
  const body = parts.join('')
  return body === '' ? { status: 204 } : text(200, body)
}

function block(key: string, config: UpstreamOptions): string {
  const lines = listServers(config).map(({ address, server, backup }) => {
    const { weight = 1, maxConns = 0, maxFails = 0, failTimeout, down = false } = server
    const times = `max_fails=${maxFails} fail_timeout=${seconds(failTimeout)}`
    const flags = `backup=${Number(backup)} down=${Number(down)}`
    return `server ${oneLine(address)} weight=${weight} max_conns=${maxConns} ${times} ${flags}\n`
  })
  return `${oneLine(key)}\n${lines.join('')}\n`
}

function upstream(operations: Operations, name: string): AdminReply {
  const key = findKey(operations, name)
  const found = key === undefined ? undefined : read(operations, key)
  if (found === undefined) return NOT_FOUND
  return listing(listServers(found.config).map(({ address }) => `server ${oneLine(address)}\n`))
}

async function update(operations: Operations, name: string, request: AdminRequest): Promise<AdminReply> {
  const body = await request.text()
  if (body === '') return { status: 204 }
  const key = findKey(operations, name) ?? name
  const said = parseBlock(upstreamPath(key), body)
  const by = { caller: request.caller, via: 'dyups' }
  const done = await patching(operations, key, by, (current) => {
    const replaced = (option: 'balancer' | 'keepalive' | 'heartbeat') =>
      said[option] === undefined ? null : replacing(current?.[option], said[option])
    return {
      servers: said.servers,
      balancer: replaced('balancer'),
      keepalive: replaced('keepalive'),
      heartbeat: replaced('heartbeat'),
    }
  })
  return text(statusOf(done), 'success')
}

async function remove(operations: Operations, name: string, { caller }: AdminRequest): Promise<AdminReply> {
  const key = findKey(operations, name)
  if (key === undefined) return NOT_FOUND
  const done = await operations.delete(key, { caller, via: 'dyups' })
  return text(statusOf(done), 'success')
}

/**
 * What the block says, all of it: nothing is left out, nothing means something else than in nginx.
 *
 * @throws ConfigError
 */
function parseBlock(path: string, body: string): UpstreamOptions {
  const directives = parseDirectives(body, 'body')
  for (const { name, at, block } of directives) {
    const problem =
      block !== undefined ? 'takes no block' : name.startsWith('upsync') ? 'belongs to the program' : undefined
    if (problem !== undefined) throw new ConfigError(`body:${at.line}`, `${name} ${problem}`)
  }
  const whole: Directive = {
    name: 'upstream',
    args: ['body'],
    at: { file: 'body', line: 1, column: 1 },
    block: directives,
  }
  const { upstreams, refused } = toUpstreams([whole])
  const [first] = refused
  if (first !== undefined) throw new ConfigError(first.at, first.reason)
  const { options } = upstreams.get('body')!
  if (options.servers?.length === 0) throw new ConfigError(path, 'no servers are inside')
  return options
}
