// node --import tsx examples/admin.ts: upstreams seen and changed over HTTP, kept in a file over a restart.
// With -- --stay it goes on, for a browser.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Checkups } from 'checkups'
import { createAdminServer, FileStore } from 'checkups/admin'

const folder = await mkdtemp(join(tmpdir(), 'checkups-example-'))
const stay = process.argv.includes('--stay')

async function start() {
  const store = new FileStore({ path: join(folder, 'upstreams.json') })
  const checkups = new Checkups({
    upstreams: { shop: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } },
    sources: [store],
  })
  await checkups.start()
  const admin = await createAdminServer(checkups, {
    port: stay ? 1995 : 0,
    store,
    tokens: [{ name: 'ops', token: 'change-me-change-me-change-me', role: 'write' }],
    onAudit: ({ who, what, upstream, address }) => console.log(`audit: ${who} ${what} ${upstream} ${address ?? ''}`),
  })
  const stop = async () => {
    await admin.close()
    await checkups.close()
  }
  return { checkups, url: admin.url, stop }
}

const first = await start()
const headers = { authorization: 'Bearer change-me-change-me-change-me' }
const change = async (method: string, path: string, body: unknown) => {
  const response = await fetch(new URL(path, first.url), { method, headers, body: JSON.stringify(body) })
  console.log(`${method} ${path}: ${response.status}`)
}
await change('POST', 'v1/upstreams/shop/servers', { host: '10.0.0.3', port: 80, weight: 2 })
await change('PATCH', 'v1/upstreams/shop/servers/10.0.0.1%3A80', { drain: true })
await change('PATCH', 'v1/upstreams/shop/servers/10.0.0.2%3A80', { weight: -1 })
await first.stop()

const again = await start()
const { levels } = again.checkups.getStatus().upstreams[0]!
console.log(
  'after a restart:',
  levels[0]!.servers.map(({ address, health, server }) => `${address} weight ${server.weight} ${health}`),
)
if (stay) console.log(`the page is at ${again.url}`)
else {
  await again.stop()
  await rm(folder, { recursive: true })
}
