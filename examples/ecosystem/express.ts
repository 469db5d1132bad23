// A gateway of Express, by readyOk and fetch.
// npx tsx examples/ecosystem/express.ts
import { createServer } from 'node:http'
import express from 'express'
import { checkups, demonstrate, listen, textOf } from './lib/demo.js'
import { forward } from './lib/forward.js'
import { answerBy } from './lib/node.js'

const app = express()
app.use('/api', (req, res) => answerBy((request) => forward(checkups, 'api', request), req, res))

const gateway = createServer(app)
const url = await listen(gateway)
await demonstrate(() => textOf(`${url}/api/`))
gateway.close()
