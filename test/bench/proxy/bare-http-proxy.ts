/** http-proxy alone, over kept connections to one backend: `<program> <backend's port>` prints the port it listens on. */
import { Agent, createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import httpProxy from 'http-proxy'

const target = { host: '127.0.0.1', port: Number(process.argv[2]) }
const proxy = httpProxy.createProxyServer({ target, agent: new Agent({ keepAlive: true }) })
proxy.on('error', (_error, _req, res) => {
  if ('writeHead' in res) res.writeHead(502).end()
  else res.destroy()
})
const server = createServer((req, res) => proxy.web(req, res))
server.listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
