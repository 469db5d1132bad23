/** Between a thread and those that it has started, over message ports. */
import { isMainThread, MessageChannel, MessagePort, parentPort, threadId, type Worker } from 'node:worker_threads'
import type { End, Transport } from './agreement.js'
import { mark, unmark, type Hub, type Link } from './link.js'

class PortLink implements Link {
  onMessage: Link['onMessage']
  onClose: Link['onClose']
  readonly #port: MessagePort

  constructor(port: MessagePort) {
    this.#port = port
    port.on('message', (message: unknown) => this.onMessage?.(message)).on('close', () => this.onClose?.())
    // It keeps no thread alive.
    port.unref()
  }

  send(message: unknown): void {
    this.#port.postMessage(message)
  }

  close(): void {
    this.onMessage = this.onClose = undefined
    this.#port.close()
  }
}

export class ThreadHub implements Hub {
  readonly #early: Link[] = []
  #onLink: Hub['onLink']

  get onLink(): Hub['onLink'] {
    return this.#onLink
  }

  set onLink(onLink: Hub['onLink']) {
    this.#onLink = onLink
    if (onLink !== undefined) for (const link of this.#early.splice(0)) onLink(link)
  }

  connect(worker: Worker, name: string): void {
    const { port1, port2 } = new MessageChannel()
    const link = new PortLink(port1)
    worker.postMessage(mark(name, port2), [port2])
    if (this.#onLink === undefined) this.#early.push(link)
    else this.#onLink(link)
  }

  close(): void {
    this.#early.splice(0)
  }
}

/** `hub` is undefined in a thread that somebody else has started. */
export function threads(hub: ThreadHub | undefined, name: string): Transport {
  // The port may come before anybody asks for it.
  const port = hub === undefined ? receivePort(name) : undefined
  return {
    id: isMainThread ? 'main' : `thread ${threadId}`,
    elects: false,
    connect: async (): Promise<End> => (hub === undefined ? { link: new PortLink(await port!) } : { hub }),
  }
}

function receivePort(name: string): Promise<MessagePort> {
  return new Promise((resolve) => {
    const onMessage = (raw: unknown) => {
      const ours = unmark(name, raw)
      if (!(ours?.message instanceof MessagePort)) return
      parentPort?.off('message', onMessage)
      resolve(ours.message)
    }
    parentPort?.on('message', onMessage)
  })
}
