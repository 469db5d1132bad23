/** Between the primary and the workers of `node:cluster`, over the channel that they have. */
import cluster, { type Worker } from 'node:cluster'
import type { End, Transport } from './agreement.js'
import { mark, unmark, type Hub, type Link } from './link.js'

class PrimaryHub implements Hub {
  onLink: Hub['onLink']
  readonly #links = new Map<Worker, WorkerLink>()
  readonly #name: string

  constructor(name: string) {
    this.#name = name
    cluster.on('message', this.#onMessage)
  }

  close(): void {
    cluster.off('message', this.#onMessage)
  }

  readonly #onMessage = (worker: Worker, raw: unknown) => {
    const ours = unmark(this.#name, raw)
    if (ours === undefined) return
    let link = this.#links.get(worker)
    if (link === undefined) {
      link = new WorkerLink(worker, this.#name)
      this.#links.set(worker, link)
      worker.once('disconnect', () => this.#forget(worker)).once('exit', () => this.#forget(worker))
      this.onLink?.(link)
    }
    link.onMessage?.(ours.message)
  }

  #forget(worker: Worker): void {
    const link = this.#links.get(worker)
    this.#links.delete(worker)
    link?.onClose?.()
  }
}

class WorkerLink implements Link {
  onMessage: Link['onMessage']
  onClose: Link['onClose']
  readonly #worker: Worker
  readonly #name: string

  constructor(worker: Worker, name: string) {
    this.#worker = worker
    this.#name = name
  }

  send(message: unknown): void {
    // What is sent to a worker that is just going is lost with it.
    if (this.#worker.isConnected()) this.#worker.process.send(mark(this.#name, message), undefined, {}, () => undefined)
  }

  close(): void {
    this.onMessage = this.onClose = undefined
  }
}

class PrimaryLink implements Link {
  onMessage: Link['onMessage']
  onClose: Link['onClose']
  readonly #name: string

  constructor(name: string) {
    this.#name = name
    process.on('message', this.#onMessage).once('disconnect', this.#onDisconnect)
  }

  send(message: unknown): void {
    if (process.connected) process.send?.(mark(this.#name, message), undefined, {}, () => undefined)
  }

  close(): void {
    process.off('message', this.#onMessage).off('disconnect', this.#onDisconnect)
  }

  readonly #onMessage = (raw: unknown) => {
    const ours = unmark(this.#name, raw)
    if (ours !== undefined) this.onMessage?.(ours.message)
  }

  readonly #onDisconnect = () => this.onClose?.()
}

export function ipc(name: string): Transport {
  return {
    id: cluster.isPrimary ? 'primary' : String(cluster.worker?.id),
    elects: false,
    connect: () =>
      Promise.resolve<End>(cluster.isPrimary ? { hub: new PrimaryHub(name) } : { link: new PrimaryLink(name) }),
  }
}
