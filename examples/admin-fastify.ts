// node --import tsx examples/admin-fastify.ts: the admin interface in a Fastify app, under /admin.
import fastify from 'fastify'
import { Checkups } from 'checkups'
import { createAdminHandler } from 'checkups/admin'

const checkups = new Checkups({ upstreams: { shop: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } } })
const admin = createAdminHandler(checkups, { path: '/admin' })

const app = fastify()
app.get('/', () => ({ peer: checkups.selectPeer('shop')?.address }))
await app.register(async (scope) => {
  // The handler reads bodies itself: here Fastify leaves them alone.
  scope.removeAllContentTypeParsers()
  scope.addContentTypeParser('*', (_request, _payload, done) => done(null))
  scope.all('/admin/*', (request, reply) => {
    reply.hijack()
    admin(request.raw, reply.raw)
  })
})

const url = await app.listen({ port: 0, host: '127.0.0.1' })
const path = `${url}/admin/v1/upstreams/shop/servers/10.0.0.1%3A80`
const headers = { 'content-type': 'application/json' }
const { status } = await fetch(path, { method: 'PATCH', headers, body: JSON.stringify({ drain: true }) })
console.log(`drained: ${status}`)
console.log(await (await fetch(url)).json())
console.log(`the page: ${(await (await fetch(`${url}/admin/`)).text()).match(/<title>.*<\/title>/)?.[0]}`)

admin.close()
await app.close()
