/** Processes, or threads, that are to agree, and ways to tell each of them what to do. */
import { fork, type ChildProcess } from 'node:child_process'
import cluster, { type Worker as ClusterWorker } from 'node:cluster'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import { onTestFinished } from 'vitest'
import type { CheckupsOptions } from '../../src/index.js'
import { clusterSync, threadSync, type SyncOptions, type ThreadSync } from '../../src/sync/index.js'
import { answer, commands, type Call, type Commands, type Kind, type Reply } from './node.js'

export interface Node {
  call<M extends keyof Commands>(method: M, ...args: Parameters<Commands[M]>): Promise<Awaited<ReturnType<Commands[M]>>>
  /** Ends it at once. */
  kill(): Promise<void>
  /** Has it do nothing, until the function that this returns is called. Only processes can. */
  hang?(): () => void
}

export interface World {
  /** In charge. */
  readonly first: Node
  readonly workers: readonly Node[]
  /** One more. */
  readonly join: (options?: SyncOptions) => Promise<Node>
}

const child = fileURLToPath(new URL('child.ts', import.meta.url))

/** Somebody who answers calls. */
abstract class Remote implements Node {
  readonly #pending = new Map<number, (reply: Reply) => void>()
  readonly #gone: Promise<never>
  #calls = 0
  readonly ready: Promise<void>
  #ready!: () => void

  constructor(gone: Promise<unknown>) {
    this.ready = new Promise((resolve) => (this.#ready = resolve))
    this.#gone = gone.then(() => Promise.reject(new Error('it is gone')))
    this.#gone.catch(() => undefined)
  }

  protected abstract send(call: Call): void
  abstract kill(): Promise<void>

  receive(message: unknown): void {
    if (typeof message !== 'object' || message === null || !('n' in message)) return
    const reply = message as Reply
    if (reply.n === 0) return this.#ready()
    this.#pending.get(reply.n)?.(reply)
    this.#pending.delete(reply.n)
  }

  async call<M extends keyof Commands>(
    method: M,
    ...args: Parameters<Commands[M]>
  ): Promise<Awaited<ReturnType<Commands[M]>>> {
    await Promise.race([this.ready, this.#gone])
    const n = ++this.#calls
    const reply = await Promise.race([
      new Promise<Reply>((resolve) => {
        this.#pending.set(n, resolve)
        this.send({ n, method, args })
      }),
      this.#gone,
    ])
    if (reply.error === undefined) return reply.value as Awaited<ReturnType<Commands[M]>>
    throw Object.assign(new Error(reply.error.message), reply.error)
  }
}

class ProcessNode extends Remote {
  readonly #process: ChildProcess

  constructor(process: ChildProcess) {
    super(new Promise((resolve) => process.once('exit', resolve)))
    this.#process = process
    process.on('message', (message) => this.receive(message))
    onTestFinished(() => this.kill())
  }

  protected override send(call: Call): void {
    this.#process.send(call)
  }

  override async kill(): Promise<void> {
    if (this.#process.exitCode !== null || this.#process.signalCode !== null) return
    const exited = new Promise((resolve) => this.#process.once('exit', resolve))
    this.#process.kill('SIGKILL')
    await exited
  }

  hang(): () => void {
    this.#process.kill('SIGSTOP')
    return () => void this.#process.kill('SIGCONT')
  }
}

class ThreadNode extends Remote {
  readonly #worker: Worker

  constructor(worker: Worker) {
    super(new Promise((resolve) => worker.once('exit', resolve)))
    this.#worker = worker
    worker.on('message', (message: unknown) => this.receive(message))
    onTestFinished(() => this.kill())
  }

  protected override send(call: Call): void {
    this.#worker.postMessage(call)
  }

  override async kill(): Promise<void> {
    await this.#worker.terminate()
  }
}

/** This process itself. */
function here(own: Commands): Node {
  onTestFinished(() => own.close())
  return {
    async call(method, ...args) {
      // As far as JSON goes, like the others.
      const call = JSON.parse(JSON.stringify({ n: 1, method, args })) as Call
      const { value, error } = await answer(own, call)
      if (error === undefined) return value as never
      throw Object.assign(new Error(error.message), error)
    },
    kill: () => own.close(),
  }
}

export interface WorldOptions {
  /** `pm2`: by socket, in workers of a cluster whose primary knows nothing of it. */
  readonly kind: Kind | 'pm2'
  readonly workers: number
  readonly sync?: SyncOptions
  /** Of the one in charge. Not for sockets. */
  readonly options?: Partial<CheckupsOptions>
}

export async function world({ kind: asked, workers, sync = {}, options }: WorldOptions): Promise<World> {
  const kind = asked === 'pm2' ? 'socket' : asked
  const path = kind === 'socket' ? join(folder(), 'sync') : ''
  const given = (more: SyncOptions) => ({ kind, path, options: { ...sync, ...more } })
  const environment = (more: SyncOptions) => ({ NODE_GIVEN: JSON.stringify(given(more)) })
  const execArgv = ['--import', 'tsx']
  let threads: ThreadSync | undefined
  const start = (more: SyncOptions = {}): Remote => {
    if (kind === 'cluster' || asked === 'pm2') {
      cluster.setupPrimary({ exec: child, execArgv, silent: false })
      const worker: ClusterWorker = cluster.fork(environment(more))
      return new ProcessNode(worker.process)
    }
    if (kind === 'threads') {
      const worker = new Worker(bootstrap, { eval: true, workerData: given(more), execArgv: [] })
      threads!.connect(worker)
      return new ThreadNode(worker)
    }
    return new ProcessNode(fork(child, { execArgv, env: { ...process.env, ...environment(more) } }))
  }

  let first: Node
  if (kind === 'socket') first = start()
  else {
    if (kind === 'threads') threads = threadSync(sync)
    first = here(commands(threads ?? clusterSync(sync), options))
  }
  await first.call('start')
  const join_ = async (more?: SyncOptions) => {
    const node = start(more)
    await node.ready
    return node
  }
  const others = await Promise.all(Array.from({ length: workers }, () => join_()))
  await Promise.all(others.map((node) => node.call('start')))
  return { first, workers: others, join: join_ }
}

/** A thread has no --import: it registers tsx itself. */
const bootstrap = `
  const { register } = require('node:module')
  const { pathToFileURL } = require('node:url')
  import(${JSON.stringify(import.meta.resolve('tsx/esm/api'))}).then(({ register }) => {
    register()
    return import(${JSON.stringify(child)})
  })
`

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'checkups-sync-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}
