// @fastify/http-proxy, by an agent: its own retries go to the next peer.
// npx tsx examples/ecosystem/fastify-http-proxy.ts
import { globalAgent } from 'node:https'
import fastifyHttpProxy from '@fastify/http-proxy'
import Fastify from 'fastify'
import { createAgent } from 'checkups/http-agent'
import { checkups, demonstrate, textOf } from './lib/demo.js'

const agent = createAgent(checkups, 'api')

const app = Fastify()
await app.register(fastifyHttpProxy, {
  upstream: 'http://api',
  http: { agents: { 'http:': agent, 'https:': globalAgent } },
  replyOptions: { retriesCount: 2 },
})

const url = await app.listen({ host: '127.0.0.1', port: 0 })
await demonstrate(() => textOf(url))
await app.close()
agent.destroy()
