// http-proxy-middleware 3, in Express: a plugin hands its proxy to balanceProxy, which asks the next peer when one fails.
// npx tsx examples/ecosystem/http-proxy-middleware.ts
import { createServer } from 'node:http'
import express from 'express'
import { createProxyMiddleware } from 'http-proxy-middleware'
import { balanceProxy } from 'checkups/http-proxy'
import { checkups, demonstrate, listen, textOf } from './lib/demo.js'

const middleware = createProxyMiddleware({
  target: 'http://api', // must be there, and is not used
  pathRewrite: { '^/v1': '' },
  plugins: [
    (proxy) => {
      const [web, ws] = [proxy.web.bind(proxy), proxy.ws.bind(proxy)]
      const balanced = balanceProxy(checkups, { web, ws }, { key: () => 'api', proxyOptions: { xfwd: true } })
      Object.assign(proxy, { web: balanced.web, ws: balanced.ws })
    },
  ],
})

const app = express()
app.use('/shop', middleware)

const gateway = createServer(app)
const url = await listen(gateway)
await demonstrate(() => textOf(`${url}/shop/v1/`))
gateway.close()
