/** A process or thread that does what it is told. */
import { isMainThread, parentPort, workerData } from 'node:worker_threads'
import { clusterSync, socketSync, threadSync } from '../../src/sync/index.js'
import { answer, commands, type Call, type Kind, type Reply } from './node.js'

interface Given {
  readonly kind: Kind
  readonly path: string
  readonly options: { readonly shareBans?: boolean; readonly timeout?: number }
}

const { kind, path, options } = (isMainThread ? JSON.parse(process.env['NODE_GIVEN']!) : workerData) as Given
const sync =
  kind === 'cluster'
    ? clusterSync(options)
    : kind === 'threads'
      ? threadSync(options)
      : socketSync({ path, ...options })
const own = commands(sync)

const isCall = (message: unknown): message is Call =>
  typeof message === 'object' && message !== null && 'method' in message
const tell = (reply: Reply) => (isMainThread ? process.send!(reply) : parentPort!.postMessage(reply))
const onMessage = (message: unknown) => {
  if (isCall(message)) void answer(own, message).then(tell)
}
if (isMainThread) process.on('message', onMessage)
else parentPort!.on('message', onMessage)
tell({ n: 0 })
