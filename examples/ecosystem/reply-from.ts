// @fastify/reply-from with a target per request: getUpstream picks, hooks say how it went. It does not ask again: what b
// had in flight fails, and one more request that finds it gone.
// npx tsx examples/ecosystem/reply-from.ts
import replyFrom from '@fastify/reply-from'
import Fastify from 'fastify'
import { checkups, demonstrate, textOf } from './lib/demo.js'
import { Picks } from './lib/picks.js'

const picks = new Picks(checkups)

const app = Fastify()
await app.register(replyFrom)
app.get('/*', (request, reply) =>
  reply.from(request.url, {
    getUpstream: ({ raw }) => picks.target(raw, 'api'),
    onResponse(_request, _reply, res) {
      picks.answered(request.raw, res.statusCode)
      void reply.send(res.stream)
    },
    onError(_reply, { error }) {
      picks.done(request.raw, error)
      void reply.send(error)
    },
  }),
)
app.addHook('onResponse', async (request, reply) => picks.done(request.raw, { status: reply.statusCode }))
app.addHook('onRequestAbort', async (request) => picks.done(request.raw, 'neutral'))

const url = await app.listen({ host: '127.0.0.1', port: 0 })
await demonstrate(() => textOf(url))
await app.close()
