/** A worker of the benchmark: tells when it first picks the server of a change, and makes changes when it is told to. */
import { Checkups } from 'checkups'
import { clusterSync } from 'checkups/cluster'
import { addressOf, KEY, type FromBench, type FromWorker } from './cluster-figures.js'

const checkups = new Checkups({ sync: clusterSync() })
await checkups.start()
const tell = (message: FromWorker) => void process.send!(message)

checkups.on('upstream:update', ({ upstream }) => {
  if (upstream !== KEY) return
  const picked = checkups.selectPeer(KEY)!
  tell({ type: 'picked', change: picked.port, at: process.hrtime.bigint().toString() })
})
process.on('message', ({ change }: Partial<FromBench>) => {
  // The channel carries other messages as well.
  if (change === undefined) return
  const at = process.hrtime.bigint().toString()
  void checkups.updateUpstream(KEY, [{ servers: [addressOf(change)] }]).then(() => {
    tell({ type: 'changed', change, at, agreed: process.hrtime.bigint().toString() })
  })
})
tell({ type: 'ready' })
