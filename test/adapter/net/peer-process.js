// A peer in a process of its own: says its name, and then says back what it hears.
import { createServer } from 'node:net'

const [name] = process.argv.slice(2)

const server = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => undefined)
  socket.write(`${name}:`)
  socket.pipe(socket)
})
server.listen(0, '127.0.0.1', () => process.send(server.address().port))
process.once('disconnect', () => process.exit())
