/** Two backends that are not well: the ports of one that answers 300 ms late, and of one that accepts and is silent. */
import { once } from 'node:events'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'

const LATE = 300

const late = createHttpServer((_req, res) => void setTimeout(() => res.end('hello world\n'), LATE))
const silent = createServer((socket) => socket.resume().on('error', () => socket.destroy()))
const servers = [late, silent]
for (const server of servers) server.listen(0, '127.0.0.1')
await Promise.all(servers.map((server) => once(server, 'listening')))
console.log(servers.map((server) => (server.address() as AddressInfo).port).join(' '))
