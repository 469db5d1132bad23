/**
 * A process that serves and picks at once: tells where its admin interface is, and at the end what became of the picks and
 * which changes it has seen.
 */
import { createAdminServer } from 'checkups/admin'
import { Checkups } from 'checkups'
import { FIRST, SECOND, servers, type ChildResult } from './admin-figures.js'

const checkups = new Checkups({ upstreams: { api: { servers: servers() } } })
const changes: number[] = []
const { url, server } = await createAdminServer(checkups, {
  port: 0,
  page: false,
  onAudit: ({ after }) => {
    const [level] = (after as { cluster: { servers: { weight: number }[] }[] }).cluster
    changes.push(level!.servers[0]!.weight)
  },
})
// Of a connection that is closed while somebody asks by it, nobody learns whether it was heard.
server.keepAliveTimeout = 120_000

let picks = 0
let failed = 0
let running = true
const pick = () => {
  for (let i = 0; i < 20; i++) {
    picks++
    const got = checkups.acquirePeer('api')
    if (got === undefined) failed++
    got?.done('ok')
  }
  if (running) setImmediate(pick)
}
pick()

// Whoever has started it has ended.
process.on('disconnect', () => process.exit())
process.on('message', () => {
  running = false
  const { cluster } = checkups.getUpstream('api') as { cluster: { servers: { weight: number }[] }[] }
  const weights = [FIRST, SECOND].map((i) => cluster[0]!.servers[i]!.weight)
  const result: ChildResult = { picks, failed, changes, weights }
  process.send!(result, () => process.exit())
})
process.send!(url)
