// A peer in a process of its own: answers after some milliseconds, with its name and what it was asked.
import { createServer } from 'node:http'

const [name, host] = process.argv.slice(2)

const server = createServer((req, res) => {
  let length = 0
  req.on('data', (chunk) => (length += chunk.length))
  req.on('end', () => setTimeout(() => res.end(`${name} ${req.method} ${req.url} ${length}`), 3))
})
server.listen(0, host, () => process.send(`${host}:${server.address().port}`))
process.once('disconnect', () => process.exit())
