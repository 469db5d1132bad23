// What all examples here have in common: three backends in processes of their own, traffic, and a SIGKILL in the middle of it.
import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Checkups } from 'checkups'
import { killBackend, startBackend, type Backend } from '../../gateway/backends.js'

const CONCURRENCY = 10

export const backends: readonly Backend[] = await Promise.all(['a', 'b', 'c'].map((name) => startBackend(name)))

export const checkups = new Checkups({
  upstreams: { api: { servers: backends.map(({ port }) => `127.0.0.1:${port}`) } },
})

/** Where a gateway listens. */
export async function listen(server: Server): Promise<string> {
  if (!server.listening) await once(server.listen(0, '127.0.0.1'), 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Sends requests, kills b meanwhile, says what came of them, and ends all that this module has started. */
export async function demonstrate(send: () => Promise<string>): Promise<void> {
  const all = async (title: string, count: number) => {
    const answers = new Map<string, number>()
    const failures: string[] = []
    const client = async () => {
      while (count-- > 0) {
        try {
          const name = await send()
          answers.set(name, (answers.get(name) ?? 0) + 1)
        } catch (error) {
          failures.push((error as Error).message)
        }
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, client))
    const shares = [...answers].sort().map(([name, answered]) => `${name} ${answered}`)
    console.log(`${title.padEnd(12)} ${shares.join('  ')}  failed ${failures.length}`)
    for (const failure of new Set(failures)) console.log(`  ${failure}`)
  }

  await all('at first', 150)
  const meanwhile = all('meanwhile', 150)
  await killBackend(backends[1]!)
  await meanwhile
  await all('afterwards', 150)

  await checkups.close()
  for (const { process: child } of backends) if (child.connected) child.disconnect()
}

/** The text of an answer that says that all is well. */
export async function textOf(url: string): Promise<string> {
  const response = await fetch(url)
  if (!response.ok) throw new Error(`status ${response.status}`)
  return response.text()
}
