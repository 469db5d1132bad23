// node --import tsx examples/admin-express.ts: the admin interface in an Express app, under /admin.
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import express from 'express'
import { Checkups } from 'checkups'
import { createAdminHandler } from 'checkups/admin'

const checkups = new Checkups({ upstreams: { shop: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } } })
const admin = createAdminHandler(checkups)

const app = express()
app.use('/admin', admin) // before whatever reads bodies
app.use(express.json())
app.get('/', (_req, res) => res.json({ peer: checkups.selectPeer('shop')?.address }))

const server = app.listen(0, '127.0.0.1')
await once(server, 'listening')
const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`

const path = `${url}/admin/v1/upstreams/shop/servers/10.0.0.1%3A80`
const { status } = await fetch(path, { method: 'PATCH', body: JSON.stringify({ drain: true }) })
console.log(`drained: ${status}`)
console.log(await (await fetch(url)).json())
console.log(`the page: ${(await (await fetch(`${url}/admin/`)).text()).match(/<title>.*<\/title>/)?.[0]}`)

admin.close()
server.close()
