/** nginx-upsync's interface: `/upstream_show`, as text that nginx would read. */
import type { UpstreamOptions } from '../../config.js'
import { text, type AdminReply, type Interface } from '../lib/route.js'
import type { Operations } from '../operations.js'
import { findKey, read } from './lib/change.js'
import { always } from './lib/refusal.js'
import { listServers, oneLine, parametersOf } from './lib/servers.js'

const NOT_ALLOWED = always(text(405, 'only GET and HEAD\n', { allow: 'GET, HEAD' }))
const UNKNOWN = text(200, 'The upstream you requested does not exist. Please double-check the name')

export function upsync(operations: Operations): Interface {
  return (method, path, query) => {
    if (path !== '/upstream_show') return undefined
    if (method !== 'GET' && method !== 'HEAD') return NOT_ALLOWED
    // The whole query is the name.
    const name = [...query].map(([key, value]) => (value === '' ? key : `${key}=${value}`)).join('&')
    return { writes: false, run: () => (name === '' ? all(operations) : one(operations, name)) }
  }
}

function all(operations: Operations): AdminReply {
  const blocks = [...operations.checkups.getUpstreams()].map(([key, config]) => block(key, config))
  return text(200, blocks.length === 0 ? 'No upstreams defined' : blocks.join('\n'))
}

function one(operations: Operations, name: string): AdminReply {
  const key = findKey(operations, name)
  const found = key === undefined ? undefined : read(operations, key)
  return found === undefined ? UNKNOWN : text(200, block(found.key, found.config))
}

function block(key: string, config: UpstreamOptions): string {
  const servers = listServers(config)
  const lines = servers.map(({ address, server, backup }) => {
    const flags = [...(backup ? [' backup'] : []), ...(server.down === true ? [' down'] : [])]
    return `        server ${oneLine(address)} ${parametersOf(server, 's')}${flags.join('')};\n`
  })
  return `Upstream name: ${oneLine(key)}; Backend server count: ${servers.length}\n${lines.join('')}`
}
