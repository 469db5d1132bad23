// One backend of the demo: answers after a while, with its name. Run by demo.ts as a child process.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

const [name = 'backend', port = '0'] = process.argv.slice(2)
const THINKING_MS = 15

const server = createServer((req, res) => {
  req.resume()
  setTimeout(() => res.end(name), THINKING_MS)
})
server.listen(Number(port), '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))

// The demo has ended, however it did.
process.on('disconnect', () => process.exit())
