/** A page for one upstream whose servers have numbers: `/add`, `/get` and `/delete`, all by GET. */
import { serverAddress } from '../../compile.js'
import type { Cluster, ServerOptions } from '../../config.js'
import { UnknownPeerError } from '../../errors.js'
import { text, type AdminReply, type AdminRequest, type Interface, type Route } from '../lib/route.js'
import { RefusedError } from '../refused.js'
import type { By, Described, Operations } from '../operations.js'
import { changing, read, statusOf } from './lib/change.js'
import { always, route, type Refusal } from './lib/refusal.js'
import { listServers, mapServers, oneLine } from './lib/servers.js'

const ADD_USAGE = text(400, 'usage: /add?ip=x.x.x.x&port=xx&no=xx')
const GET_USAGE = text(400, 'usage: /get?no=xx')
const NOT_ALLOWED = always(text(405, 'only GET', { allow: 'GET' }))

/** The label that has a server's number: it is where the server is, and shows wherever that does. */
const LABEL = 'no'
const NUMBER = /^[-_.a-zA-Z0-9]{1,64}$/

/**
 * @param upstream - the key of the upstream, which is made with the first server that is added
 */
export function sharedDict(operations: Operations, upstream: string): Interface {
  const context: Context = { operations, upstream }
  return (method, path, query) => {
    if (path !== '/add' && path !== '/get' && path !== '/delete') return undefined
    // Found as a GET it would change something.
    if (method !== 'GET' && !(method === 'HEAD' && path === '/get')) return NOT_ALLOWED
    const no = query.get('no') ?? ''
    const does = (writes: boolean, run: Route['run']) => route(writes, run, (refusal) => refused(no, refusal))
    if (path === '/get') return does(false, () => (no === '' ? GET_USAGE : get(context, no)))
    const by = ({ caller }: AdminRequest): By => ({ caller, via: 'sharedDict' })
    if (path === '/delete') return does(true, (request) => (no === '' ? GET_USAGE : remove(context, no, by(request))))
    return does(true, (request) => {
      const host = query.get('ip') ?? ''
      const port = query.get('port') ?? ''
      if (host === '' || !/^\d{1,5}$/.test(port) || !NUMBER.test(no)) return ADD_USAGE
      return add(context, { host, port: Number(port), labels: { [LABEL]: no } }, by(request))
    })
  }
}

interface Context {
  readonly operations: Operations
  readonly upstream: string
}

const unknown = (no: string) => text(404, `the no server is vaild: ${oneLine(no)}`)

function refused(no: string, { kind, status, message, headers }: Refusal): AdminReply {
  if (kind === 'upstream' || kind === 'peer') return unknown(no)
  return text(status, kind === 'last' ? `the last server stays: ${oneLine(no)}` : message, headers)
}

const numberOf = ({ labels = {} }: ServerOptions) => (Object.hasOwn(labels, LABEL) ? labels[LABEL] : undefined)

function find(found: Described | undefined, no: string): ServerOptions | undefined {
  if (found === undefined) return undefined
  return listServers(found.config).find(({ server }) => numberOf(server) === no)?.server
}

function get({ operations, upstream }: Context, no: string): AdminReply {
  const found = read(operations, upstream)
  const server = find(found, no)
  if (found === undefined || server === undefined) return unknown(no)
  const { host, port = 0, path = '' } = server
  const lines = [`ip: ${oneLine(host ?? path)}`, `port: ${port}`, `servers: ${listServers(found.config).length}`]
  return text(200, lines.map((line) => `${line}\n`).join(''))
}

async function remove({ operations, upstream }: Context, no: string, by: By): Promise<AdminReply> {
  const done = await changing(operations, upstream, async (current, conditions) => {
    const server = find(current, no)
    if (server === undefined) throw new UnknownPeerError(upstream, no)
    return operations.removeServer(upstream, serverAddress('server', server), by, conditions)
  })
  return text(statusOf(done), 'OK')
}

/** The number says which server this is the new one of, or is a new one. */
async function add({ operations, upstream }: Context, server: ServerOptions, by: By): Promise<AdminReply> {
  const address = serverAddress('server', server)
  const done = await changing(operations, upstream, async (current, conditions) => {
    if (current === undefined) {
      return operations.patch(upstream, { servers: [server] }, by, { ...conditions, create: true })
    }
    const no = numberOf(server)!
    const there = listServers(current.config).find((one) => one.address === address)?.server
    const other = there && numberOf(there)
    if (other !== undefined && other !== no) {
      throw new RefusedError('exists', `${address} is there already: ${oneLine(other)}`)
    }
    if (there === undefined && find(current, no) === undefined) {
      return operations.addServer(upstream, server, by, conditions)
    }
    return operations.patch(upstream, { cluster: withNumber(current.config.cluster!, server, there) }, by, conditions)
  })
  return text(statusOf(done), 'OK')
}

/** In the place of the server that has its number; one that is there without a number gets it. */
function withNumber(cluster: Cluster, server: ServerOptions, there: ServerOptions | undefined): Cluster {
  const no = numberOf(server)
  return mapServers(cluster, (servers) =>
    servers.flatMap((one) => {
      if (there !== undefined && serverAddress('server', one) === serverAddress('server', server)) {
        return [{ ...one, labels: { ...one.labels, ...server.labels } }]
      }
      if (numberOf(one) !== no) return [one]
      return there === undefined ? [server] : []
    }),
  )
}
