// axios, twice: by an agent, which its every request takes; and by readyOk, which asks the next peer when one fails.
// npx tsx examples/ecosystem/axios.ts
import axios from 'axios'
import { createAgent } from 'checkups/http-agent'
import { checkups, demonstrate } from './lib/demo.js'

const agent = createAgent(checkups, 'api')
const client = axios.create({ baseURL: 'http://api', httpAgent: agent, proxy: false })
const { data } = await client.get<string>('/')
console.log(`by the agent: ${data}`)

// axios throws for a status; readyOk is to judge it.
const validateStatus = () => true
const send = () =>
  checkups
    .readyOk('api', (peer, { signal }) => axios.get<string>(peer.origin(), { signal, validateStatus, proxy: false }))
    .then((response) => response.data)

await demonstrate(send)
agent.destroy()
