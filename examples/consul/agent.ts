// A Consul agent for the examples: a process of its own, in development mode, which knows nothing at its start.
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { createServer, type AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

export interface Agent {
  /** `127.0.0.1:port`, for options. */
  readonly address: string
  /** What `curl -X PUT -d value http://…/v1/kv/key` does. Rejects if Consul does not say 200. */
  put(path: string, value?: string | object): Promise<void>
  delete(path: string): Promise<void>
  /** Ends it at once, with all that it knew. */
  kill(): Promise<void>
}

/** Starts an agent on free ports and waits until it answers. */
export async function startAgent(): Promise<Agent> {
  const http = await freePort()
  const ports = [`-http-port=${http}`, '-dns-port=-1', '-grpc-port=-1']
  for (const name of ['server', 'serf-lan', 'serf-wan']) ports.push(`-${name}-port=${await freePort()}`)
  const args = ['agent', '-dev', '-bind=127.0.0.1', '-client=127.0.0.1', ...ports]
  const child = spawn(program(), args, { stdio: 'ignore' })
  const exited = once(child, 'exit')
  process.once('exit', () => child.kill('SIGKILL'))

  const address = `127.0.0.1:${http}`
  const ask = async (method: string, path: string, value: string | object = '') => {
    const body = typeof value === 'string' ? value : JSON.stringify(value)
    const reply = await fetch(`http://${address}${path}`, { method, ...(method === 'PUT' && { body }) })
    return { status: reply.status, text: await reply.text() }
  }
  const done = async (method: string, path: string, value?: string | object) => {
    const { status, text } = await ask(method, path, value)
    if (status !== 200) throw new Error(`${method} ${path}: ${status} ${text}`)
  }
  // It answers 404 for a key as soon as it has a leader, which is itself.
  for (let reply; reply?.status !== 404; reply = await ask('GET', '/v1/kv/none').catch(() => undefined)) {
    if (child.exitCode !== null) throw new Error(`Consul ended with ${child.exitCode}`)
    await sleep(50)
  }
  return {
    address,
    put: (path, value) => done('PUT', path, value),
    delete: (path) => done('DELETE', path),
    async kill() {
      child.kill('SIGKILL')
      await exited
    },
  }
}

/** Consul, as the environment or the PATH has it; else that of the tests, which is unpacked from Debian's archive. */
function program(): string {
  const given = process.env['CONSUL_BIN']
  if (given) return given
  if (spawnSync('consul', ['version']).status === 0) return 'consul'
  const script = fileURLToPath(new URL('../../test/support/consul.sh', import.meta.url))
  return execFileSync('bash', [script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] }).trim()
}

/** Below 32768, where the system's ports for clients begin, so that nobody takes it meanwhile. */
export async function freePort(): Promise<number> {
  for (;;) {
    const server = createServer().listen(12_000 + Math.floor(Math.random() * 20_000), '127.0.0.1')
    const isFree = await once(server, 'listening').catch(() => undefined)
    if (isFree === undefined) continue
    const { port } = server.address() as AddressInfo
    server.close()
    await once(server, 'close')
    return port
  }
}
