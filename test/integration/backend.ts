/** A backend in a process of its own: answers with its process's number, at a port of 127.0.0.1 or at a path. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const [where = '0'] = process.argv.slice(2)

const server = createServer((_, res) => res.end(String(process.pid)))
const isPath = where.startsWith('/')
server.listen(isPath ? { path: where } : { host: '127.0.0.1', port: Number(where) }, () => {
  process.send!(isPath ? `unix:${where}` : `127.0.0.1:${(server.address() as AddressInfo).port}`)
})
process.once('disconnect', () => process.exit())
