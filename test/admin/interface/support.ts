/** What tests of the ancestors' interfaces share. */
import { systemClock } from '../../../src/clock.js'
import type { AdminInterfaces, AdminServerOptions } from '../../../src/admin/index.js'
import { Operations } from '../../../src/admin/operations.js'
import type { AdminReply, Interface } from '../../../src/admin/lib/route.js'
import { readJson } from '../../../src/admin/lib/body.js'
import { Checkups, type CheckupsOptions, type UpstreamOptions } from '../../../src/index.js'
import { send, startGateway, type Gateway, type GatewayOptions } from '../../support/http.js'
import { admin } from '../support.js'

/** An instance with these upstreams, and one interface of an ancestor, alone and so at the root. */
export function ancestor(
  interfaces: AdminInterfaces,
  upstreams: CheckupsOptions | Checkups,
  options: AdminServerOptions = {},
) {
  return admin(upstreams, { interfaces, page: false, stateChangingGets: true, ...options })
}

/** A gateway that goes by the Host header, and an interface that changes its upstreams. */
export async function gatewayWith(
  interfaces: AdminInterfaces,
  upstreams: Record<string, UpstreamOptions>,
  options: GatewayOptions = {},
) {
  const gateway = await startGateway([], { ...options, upstreams })
  await gateway.checkups.deleteUpstream('test')
  const { ask } = await ancestor(interfaces, gateway.checkups)
  return { gateway, checkups: gateway.checkups, ask, get: (host: string) => proxied(gateway, host) }
}

/** The answer that a client of the gateway gets: the text of the backend, or the status. */
async function proxied(gateway: Gateway, host: string): Promise<string> {
  const { status, text } = await send(gateway, { headers: { host } })
  return status === 200 ? text : String(status)
}

/** What is there, for it to be the same later. */
export const configOf = (checkups: Checkups) => Object.fromEntries(checkups.getUpstreams())

/** An interface without a server around it. */
export function bare(upstreams: Record<string, UpstreamOptions>, make: (operations: Operations) => Interface) {
  const checkups = new Checkups({ upstreams })
  const operations = new Operations({
    checkups,
    clock: systemClock,
    store: undefined,
    storeTimeout: 1_000,
    audit: () => undefined,
  })
  const find = make(operations)
  const ask = async (method: string, url: string, body = ''): Promise<AdminReply | undefined> => {
    const [path = '/', query = ''] = url.split(/\?(.*)/s)
    const parameters = new URLSearchParams(query)
    return find(method, path, parameters)?.run({
      method,
      query: parameters,
      headers: {},
      caller: { name: 'fuzz', role: 'write' },
      base: '/',
      csrf: undefined,
      text: () => Promise.resolve(body),
      json: async () => readJson(body),
    })
  }
  return { checkups, find, ask }
}
