// node --import tsx examples/admin-hono.ts: the admin interface in a Hono app on Node, under /admin.
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { serve, type HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import { Hono } from 'hono'
import { Checkups } from 'checkups'
import { createAdminHandler } from 'checkups/admin'

const checkups = new Checkups({ upstreams: { shop: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } } })
const admin = createAdminHandler(checkups, { path: '/admin' })

const app = new Hono<{ Bindings: HttpBindings }>()
app.get('/', (c) => c.json({ peer: checkups.selectPeer('shop')?.address }))
app.all('/admin/*', ({ env: { incoming, outgoing } }) => {
  admin(incoming, outgoing)
  return RESPONSE_ALREADY_SENT
})

const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' })
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const path = `${url}/admin/v1/upstreams/shop/servers/10.0.0.1%3A80`
const { status } = await fetch(path, { method: 'PATCH', body: JSON.stringify({ drain: true }) })
console.log(`drained: ${status}`)
console.log(await (await fetch(url)).json())
console.log(`the page: ${(await (await fetch(`${url}/admin/`)).text()).match(/<title>.*<\/title>/)?.[0]}`)

admin.close()
server.close()
