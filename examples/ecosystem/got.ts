// got, by an agent. It retries by itself, and a retry is a request like any other: it goes to the next peer.
// npx tsx examples/ecosystem/got.ts
import got from 'got'
import { createAgent } from 'checkups/http-agent'
import { checkups, demonstrate } from './lib/demo.js'

const agent = createAgent(checkups, 'api')
// There is another peer to ask: no need to wait a second.
const client = got.extend({ agent: { http: agent }, retry: { limit: 2, backoffLimit: 10 } })

await demonstrate(() => client('http://api/').text())
agent.destroy()
