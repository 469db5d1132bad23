/** The upstream check module's interface: `/check_status`, who of all that are checked is up, for people and programs. */
import type { UpstreamStatus } from '../../status.js'
import { text, type AdminReply, type Interface } from '../lib/route.js'
import type { Operations } from '../operations.js'
import { always } from './lib/refusal.js'
import { oneLine } from './lib/servers.js'

/** A peer that is checked. */
interface Checked {
  /** Among all that are checked. */
  readonly index: number
  readonly upstream: string
  readonly name: string
  readonly status: 'up' | 'down'
  /** Checks in a row that passed, and that failed. */
  readonly rise: number
  readonly fall: number
  readonly type: string
  /** Of the checks; 0 if it is the peer's own. */
  readonly port: number
}

/** In every format in this order. */
const FIELDS = ['index', 'upstream', 'name', 'status', 'rise', 'fall', 'type', 'port'] as const

const NOT_ALLOWED = always(text(405, 'only GET and HEAD\n', { allow: 'GET, HEAD' }))

/** What is not known is the default of the module: HTML, of all. */
export function checkModule(operations: Operations): Interface {
  return (method, path, query) => {
    if (path !== '/check_status') return undefined
    if (method !== 'GET' && method !== 'HEAD') return NOT_ALLOWED
    return {
      writes: false,
      run: () => {
        const { upstreams, updates } = operations.status()
        const all = upstreams.flatMap((upstream) => checkedOf(operations, upstream))
        const status = query.get('status')
        const asked = all
          .map((one, index): Checked => ({ index, ...one }))
          .filter((one) => (status !== 'up' && status !== 'down') || one.status === status)
        return (FORMATS.get(query.get('format') ?? '') ?? toHtml)(asked, updates)
      },
    }
  }
}

/** Names of checks in the module, where they differ. */
const TYPES: ReadonlyMap<string, string> = new Map([['tls', 'ssl_hello']])

/** A peer is checked once, in however many levels it is. */
function checkedOf(operations: Operations, { key, probe, levels }: UpstreamStatus): Omit<Checked, 'index'>[] {
  if (probe === undefined) return []
  const { heartbeat } = operations.checkups.getUpstream(key) ?? {}
  const port = typeof heartbeat === 'object' ? (heartbeat.port ?? 0) : 0
  const peers = new Map(levels.flatMap(({ servers }) => servers.map((server) => [server.address, server] as const)))
  return [...peers.values()].flatMap(({ address, heartbeat: found }) => {
    if (found === undefined) return []
    // Out by what the checks say; that a peer is kept because all are out is not the module's.
    const status = found.found === 'err' || found.state === 'err' ? 'down' : 'up'
    const { rise, fall } = found
    return [{ upstream: key, name: address, status, rise, fall, type: TYPES.get(probe) ?? probe, port }]
  })
}

type Format = (servers: readonly Checked[], generation: number) => AdminReply

const FORMATS: ReadonlyMap<string, Format> = new Map([
  ['html', toHtml],
  ['csv', toCsv],
  ['json', toJson],
])

/** Laid out as the module does: there are scripts that look for `"total": 6,`. */
function toJson(servers: readonly Checked[], generation: number): AdminReply {
  const rows = servers.map((server) => {
    const fields = FIELDS.map((name) => `"${name}": ${JSON.stringify(server[name])}`)
    return `    {${fields.join(', ')}}`
  })
  const list = rows.length === 0 ? '' : `${rows.join(',\n')}\n`
  const head = `  "total": ${servers.length},\n  "generation": ${generation},\n`
  const body = `{"servers": {\n${head}  "server": [\n${list}  ]\n}}\n`
  return { status: 200, headers: { 'content-type': 'application/json' }, body }
}

function toCsv(servers: readonly Checked[]): AdminReply {
  const lines = servers.map((server) => `${FIELDS.map((name) => csvField(String(server[name]))).join(',')}\n`)
  return text(200, lines.join(''))
}

/** One field of one line (RFC 4180), and no formula where a spreadsheet would look for one. */
function csvField(value: string): string {
  const field = oneLine(/^[=+\-@\t\r]/.test(value) ? `'${value}` : value)
  return /[",]/.test(field) ? `"${field.replaceAll('"', '""')}"` : field
}

const COLUMNS = ['Index', 'Upstream', 'Name', 'Status', 'Rise counts', 'Fall counts', 'Check type', 'Check port']

function toHtml(servers: readonly Checked[], generation: number): AdminReply {
  const rows = servers.map((server) => {
    const cells = FIELDS.map((name) => `    <td>${escape(String(server[name]))}</td>\n`)
    return `  <tr${server.status === 'down' ? ' bgcolor="#FF0000"' : ''}>\n${cells.join('')}  </tr>\n`
  })
  const title = 'Upstream check status'
  const body = `<!DOCTYPE html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <title>${title}</title>
</head>
<body>
<h1>${title}</h1>
<h2>Check upstream server number: ${servers.length}, generation: ${generation}</h2>
<table cellspacing="0" cellpadding="3" border="1">
  <tr bgcolor="#C0C0C0">
${COLUMNS.map((name) => `    <th>${name}</th>\n`).join('')}  </tr>
${rows.join('')}</table>
</body>
</html>
`
  return { status: 200, headers: { 'content-type': 'text/html; charset=utf-8' }, body }
}

const ENTITIES: ReadonlyMap<string, string> = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'],
  ['"', '&quot;'],
  ["'", '&#39;'],
])

function escape(value: string): string {
  return value.replace(/[&<>"']/g, (char) => ENTITIES.get(char)!)
}
