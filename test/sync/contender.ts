/** Looks for who is in charge at a path, at a given time, and tells what it has become; then ends that again when it is told to. */
import { systemClock } from '../../src/clock.js'
import { socketTransport } from '../../src/sync/socket.js'
import type { End } from '../../src/sync/agreement.js'
import type { SyncHost } from '../../src/sync/sync.js'

export type Order = { readonly path: string; readonly at: number } | 'end'

let end: End | undefined
process.on('message', (order: Order) => {
  void carryOut(order).then((told) => process.send!(told))
})

async function carryOut(order: Order): Promise<string> {
  if (order === 'end') {
    if (end !== undefined) ('hub' in end ? end.hub : end.link).close()
    return 'ended'
  }
  // All at the same moment, as far as that goes: nobody sleeps through it.
  while (Date.now() < order.at);
  end = await socketTransport(order.path).connect({ clock: systemClock } as SyncHost, new AbortController().signal)
  return 'hub' in end ? 'in charge' : 'another'
}
process.send!('ready')
