// A gateway of Hono, by readyOk and fetch: it speaks Request and Response already.
// npx tsx examples/ecosystem/hono.ts
import type { Server } from 'node:http'
import { createAdaptorServer } from '@hono/node-server'
import { Hono } from 'hono'
import { checkups, demonstrate, listen, textOf } from './lib/demo.js'
import { forward } from './lib/forward.js'

const app = new Hono()
app.all('*', ({ req }) => forward(checkups, 'api', req.raw))

const gateway = createAdaptorServer(app) as Server
const url = await listen(gateway)
await demonstrate(() => textOf(url))
gateway.close()
