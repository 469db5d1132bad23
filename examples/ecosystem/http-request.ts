// http.request, by an agent: connections that cannot be made go on to the next peer. What b had in flight fails.
// npx tsx examples/ecosystem/http-request.ts
import { get } from 'node:http'
import { text } from 'node:stream/consumers'
import { createAgent } from 'checkups/http-agent'
import { checkups, demonstrate } from './lib/demo.js'

const agent = createAgent(checkups, 'api')

const send = () =>
  new Promise<string>((resolve, reject) => {
    get('http://api/', { agent }, (response) => void text(response).then(resolve, reject)).on('error', reject)
  })

await demonstrate(send)
agent.destroy()
