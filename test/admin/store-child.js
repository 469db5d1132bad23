/** A process with an admin interface over a store of the file it is given: tells where, and serves until it is killed. */
import { createAdminServer, FileStore } from '../../dist/admin/index.js'
import { Checkups } from '../../dist/index.js'

const store = new FileStore({ path: process.argv[2] })
const checkups = new Checkups({ upstreams: { api: { servers: ['10.0.0.1:80'], tries: 7 } }, sources: [store] })
await checkups.start()
const { url } = await createAdminServer(checkups, { port: 0, store })
process.send(url)
// Whoever has started it has ended.
process.on('disconnect', () => process.exit())
