// The services of the chain: each backend a process of its own, so that one can really be killed.
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'

export interface Backend {
  readonly service: string
  readonly port: number
  readonly process: ChildProcess
}

/** Starts a backend, on a free port or on the one that is given, and waits until it listens. */
export async function startBackend(service: string, port = 0): Promise<Backend> {
  const child = fork(fileURLToPath(new URL('service.ts', import.meta.url)), [service, String(port)])
  const [listening] = (await once(child, 'message')) as [number]
  return { service, port: listening, process: child }
}

/** Ends it at once, in the middle of whatever it is doing. */
export async function killBackend({ process: child }: Backend): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}
