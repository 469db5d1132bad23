import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { serve, type HttpBindings } from '@hono/node-server'
import { RESPONSE_ALREADY_SENT } from '@hono/node-server/utils/response'
import express from 'express'
import fastify from 'fastify'
import { Hono } from 'hono'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createAdminHandler, type AdminHandler } from '../../src/admin/index.js'
import { Checkups } from '../../src/index.js'
import { asking, bearer, READ, stream, WRITE } from './support.js'

const tokens = [READ, WRITE]

async function listening(server: Server): Promise<string> {
  if (!server.listening) await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}/`
}

/** Each mounts the handler at /admin. */
const mounts: Record<string, (make: (path?: string) => AdminHandler) => Promise<string>> = {
  'node:http': (make) => listening(createServer(make('/admin')).listen(0, '127.0.0.1')),
  Express: async (make) => {
    const app = express()
    app.use('/admin', make())
    app.use(express.json())
    return listening(app.listen(0, '127.0.0.1'))
  },
  'Express, with the path said': async (make) => {
    const app = express()
    const handler = make('/admin')
    app.use((req, res, next) => (req.path.startsWith('/admin') ? handler(req, res) : next()))
    return listening(app.listen(0, '127.0.0.1'))
  },
  Fastify: async (make) => {
    const handler = make('/admin')
    const app = fastify()
    app.removeAllContentTypeParsers()
    app.addContentTypeParser('*', (_request, _payload, done) => done(null))
    app.all('/admin/*', (request, reply) => {
      reply.hijack()
      handler(request.raw, reply.raw)
    })
    await app.listen({ port: 0, host: '127.0.0.1' })
    return listening(app.server)
  },
  Hono: async (make) => {
    const handler = make('/admin')
    const app = new Hono<{ Bindings: HttpBindings }>()
    app.all('/admin/*', ({ env: { incoming, outgoing } }) => {
      handler(incoming, outgoing)
      return RESPONSE_ALREADY_SENT
    })
    return listening(serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }) as Server)
  },
}

describe.each(Object.entries(mounts))('the handler in %s', (_name, mount) => {
  it('reads, changes, streams, logs in, and knows where it is', async () => {
    const checkups = new Checkups({ upstreams: { api: { servers: ['10.0.0.1:80'] } } })
    const url = await mount((path) => createAdminHandler(checkups, { tokens, ...(path !== undefined && { path }) }))
    const ask = asking(url)
    const json = { ...bearer(WRITE), 'content-type': 'application/json' }
    const events = await stream(`${url}admin/v1/events`, bearer(READ))
    expect((await ask('PATCH', '/admin/v1/upstreams/api', { body: { tries: 3 }, headers: json })).status).toBe(200)
    expect((await events.next()).value?.event).toBe('upstream:update')
    expect(checkups.getUpstream('api')?.tries).toBe(3)
    expect((await ask('GET', '/admin/v1/upstreams/api', { headers: json })).json.config.tries).toBe(3)
    expect((await ask('PUT', '/admin/v1/upstreams/api', { body: 'no', headers: json })).status).toBe(400)
    const form = { 'content-type': 'application/x-www-form-urlencoded' }
    const { headers } = await ask('POST', '/admin/login', { body: `token=${READ.token}`, headers: form })
    expect(headers.location).toBe('/admin/')
    expect(String(headers['set-cookie'])).toContain('Path=/admin/;')
    const cookie = String(headers['set-cookie']).split(';')[0]!
    const page = await ask('GET', '/admin/', { headers: { cookie } })
    expect([page.status, page.text]).toEqual([200, expect.stringContaining('/admin/page.js')])
    expect((await ask('GET', '/admin/page.css')).status).toBe(200)
  })
})

it('after something that has read the body it says so', async () => {
  const app = express()
  app.use(express.json())
  app.use('/admin', createAdminHandler(new Checkups({ upstreams: { api: { servers: ['10.0.0.1:80'] } } })))
  const url = await listening(app.listen(0, '127.0.0.1'))
  const headers = { 'content-type': 'application/json' }
  const answer = await asking(url)('PATCH', '/admin/v1/upstreams/api', { body: { tries: 3 }, headers })
  expect(answer).toMatchObject({
    status: 500,
    json: { error: { message: expect.stringContaining('before whatever parses bodies') as string } },
  })
})
