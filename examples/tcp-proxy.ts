// A TCP proxy before three servers, one of which is killed: whoever talks to it loses its connection, nobody else notices.
// npx tsx examples/tcp-proxy.ts
import { once } from 'node:events'
import { connect as connectTcp, createServer, type AddressInfo, type Socket } from 'node:net'
import { Checkups } from 'checkups'
import { connect, createTcpProxy } from 'checkups/net'

// Servers that greet, and say back what they hear.
async function startServer(name: string) {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => undefined))
    socket.write(`${name}: hello\n`)
    socket.on('data', (chunk) => socket.write(`${name}: ${chunk.toString()}`))
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const kill = () => {
    server.close()
    for (const socket of sockets) socket.resetAndDestroy()
  }
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, kill }
}
const servers = await Promise.all(['a', 'b', 'c'].map(startServer))

const checkups = new Checkups({
  random: () => 0,
  upstreams: { lines: { servers: servers.map(({ address }) => address) } },
})
checkups.on('peer:down', ({ peer, reason }) => console.log(`  ${peer.address} is out: ${reason}`))

const proxy = createTcpProxy(checkups, { upstream: 'lines', idleTimeout: 60_000, drainTimeout: 100 })
proxy.listen(0, '127.0.0.1')
await once(proxy, 'listening')
const { port } = proxy.address() as AddressInfo

// Clients know nothing of the servers.
async function openClient() {
  const socket = connectTcp(port, '127.0.0.1').on('error', () => undefined)
  const next = async () => String(((await once(socket, 'data')) as [Buffer])[0]).trim()
  return { socket, next, greeting: await next() }
}
const clients = [await openClient(), await openClient(), await openClient()]
console.log(`connected to  ${clients.map(({ greeting }) => greeting).join(', ')}`)

console.log('b is killed')
servers[1]!.kill()
await new Promise((resolve) => clients[1]!.socket.once('close', resolve))

for (let i = 0; i < 4; i++) {
  const { socket, greeting } = await openClient()
  console.log(`connected to  ${greeting}`)
  socket.end()
}
clients[0]!.socket.write('are you still there?')
console.log(`an old client hears  ${await clients[0]!.next()}`)

// A client that balances by itself needs no proxy.
const { socket, peer } = await connect(checkups, 'lines')
const [greeting] = (await once(socket, 'data')) as [Buffer]
console.log(`connect() has chosen ${peer.address}, which says  ${greeting.toString().trim()}`)
socket.end()

proxy.close() // what is left has 100 ms
await once(proxy, 'close')
for (const server of servers) server.kill()
await checkups.close()
