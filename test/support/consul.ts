/** Real Consul agents as child processes: one in development mode, or a cluster of three; ended by their own process ids. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { request as httpRequest } from 'node:http'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, it, onTestFinished } from 'vitest'
import { certificate } from './servers.js'

let program: string | undefined

/** The path of the program, fetched by `consul.sh` when it is not there yet; undefined if it cannot be had. */
export function consulProgram(): string | undefined {
  try {
    const script = fileURLToPath(new URL('consul.sh', import.meta.url))
    program ??= execFileSync('bash', [script], { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }).trim()
  } catch {
    program = undefined
  }
  return program
}

/** A suite that needs Consul: left out, with a line that says so, where it cannot be had; in CI (`CI=true`) a failure. */
export function whereConsul(name: string, suite: () => void): void {
  if (consulProgram() !== undefined) return void describe(name, suite)
  const missing = `${name} (Consul cannot be had: run test/support/consul.sh)`
  if (process.env['CI'] === 'true') it(missing, () => Promise.reject(new Error('run test/support/consul.sh')))
  else {
    console.log(`left out: ${missing}`)
    describe.skip(missing, () => it('is left out'))
  }
}

/** An answer, with its body as text. */
export interface ConsulReply {
  readonly status: number
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly text: string
}

/** An agent that runs. */
export interface ConsulAgent {
  readonly port: number
  /** For options: `127.0.0.1:port`. */
  readonly address: string
  readonly pid: number
  /** A request by hand: `api('PUT', '/v1/kv/key', 'value')`. Rejects without an answer. */
  api(method: string, path: string, body?: string | Buffer | object, token?: string): Promise<ConsulReply>
  /** Writes a key. */
  put(key: string, value: string | Buffer | object): Promise<void>
  /** Deletes a key, or all with a prefix that ends in a slash. */
  del(key: string): Promise<void>
  signal(name: NodeJS.Signals): void
  /** Ends it at once, and waits until it has; what it knew is lost if it is in development mode. */
  kill(): Promise<void>
  /** Starts it again on the same ports. */
  start(): Promise<void>
}

export interface AgentOptions {
  /** ACLs that deny by default; the token is that of the management. */
  readonly acl?: string
  /** HTTPS at another port, with the certificate of the tests. */
  readonly tls?: boolean
}

/**
 * A block of free ports, of all protocols: an agent takes seven. They are below those that the system gives to clients
 * (32768 and up), where they would collide with the sockets of others.
 */
async function freePorts(count: number, host = '127.0.0.1'): Promise<number[]> {
  for (;;) {
    const first = 12_000 + Math.floor(Math.random() * 20_000)
    const ports = Array.from({ length: count }, (_, i) => first + i)
    const free = await Promise.all(ports.map((port) => isFree(port, host)))
    if (free.every(Boolean)) return ports
  }
}

function isFree(port: number, host: string): Promise<boolean> {
  return new Promise((resolve) => {
    const server = createServer()
    server.once('error', () => resolve(false)).listen(port, host, () => server.close(() => resolve(true)))
  })
}

/** An agent in development mode: a server of its own, in memory, which knows nothing at its start. */
export async function startConsul({ acl, tls = false }: AgentOptions = {}): Promise<ConsulAgent & { tlsPort: number }> {
  const [http, dns, server, lan, wan, grpc, https] = (await freePorts(7)) as [number, ...number[]]
  const settings = {
    ports: { http, dns, server, serf_lan: lan, serf_wan: wan, grpc, https: tls ? https : -1 },
    connect: { enabled: false },
    disable_update_check: true,
    ...(acl !== undefined && {
      acl: { enabled: true, default_policy: 'deny', tokens: { master: acl, agent: acl } },
    }),
    ...(tls && { cert_file: certificate.cert, key_file: certificate.key }),
  }
  const agent = new Agent(http, '127.0.0.1', ['-dev', '-bind', '127.0.0.1', '-client', '127.0.0.1'], settings, acl)
  onTestFinished(() => agent.end())
  await agent.start()
  return Object.assign(agent, { tlsPort: https! })
}

/** Three servers on addresses of loopback of their own, with a leader. */
export async function startCluster(): Promise<readonly ConsulAgent[]> {
  const [http, dns, server, lan, wan] = (await freePorts(5, '0.0.0.0')) as [number, ...number[]]
  const hosts = ['127.0.0.2', '127.0.0.3', '127.0.0.4']
  const agents = hosts.map((host, i) => {
    const settings = {
      ports: { http, dns, server, serf_lan: lan, serf_wan: wan },
      connect: { enabled: false },
      disable_update_check: true,
      // The quickest that Raft may be: else an election takes five times as long.
      performance: { raft_multiplier: 1 },
      retry_join: hosts.map((other) => `${other}:${lan!}`),
      retry_interval: '100ms',
    }
    const args = ['-server', '-bootstrap-expect=3', '-bind', host, '-client', host, '-node', `server-${i}`]
    return new Agent(http, host, args, settings)
  })
  onTestFinished(async () => {
    await Promise.all(agents.map((agent) => agent.end()))
  })
  await Promise.all(agents.map((agent) => agent.start()))
  return agents
}

/** Which of them is the leader, as those that live say. */
export async function leaderOf(agents: readonly ConsulAgent[]): Promise<ConsulAgent> {
  for (const agent of agents) {
    const reply = await agent.api('GET', '/v1/status/leader').catch(() => undefined)
    const leader = reply === undefined ? '' : (JSON.parse(reply.text) as string)
    const found = agents.find(({ address }) => leader.startsWith(`${address.slice(0, address.lastIndexOf(':'))}:`))
    if (found !== undefined) return found
  }
  throw new Error('there is no leader')
}

class Agent implements ConsulAgent {
  readonly port: number
  readonly address: string
  readonly #host: string
  readonly #args: readonly string[]
  readonly #token: string | undefined
  readonly #folder = mkdtempSync(join(tmpdir(), 'checkups-consul-'))
  #running:
    | { readonly pid: number; readonly ended: Promise<unknown>; readonly kill: (signal: NodeJS.Signals) => void }
    | undefined

  constructor(port: number, host: string, args: readonly string[], settings: object, token?: string) {
    this.port = port
    this.address = `${host}:${port}`
    this.#host = host
    this.#token = token
    const file = join(this.#folder, 'settings.json')
    writeFileSync(file, JSON.stringify(settings))
    this.#args = ['agent', ...args, '-config-file', file, ...(args.includes('-dev') ? [] : ['-data-dir', this.#folder])]
  }

  get pid(): number {
    return this.#running!.pid
  }

  async start(): Promise<void> {
    const log = join(this.#folder, 'log')
    const child = spawn(consulProgram()!, [...this.#args, '-log-file', log, '-log-level', 'info'], { stdio: 'ignore' })
    const ended = once(child, 'close')
    const kill = () => void child.kill('SIGKILL')
    process.once('exit', kill)
    void ended.then(() => process.off('exit', kill))
    this.#running = { pid: child.pid!, ended, kill: (signal) => void child.kill(signal) }
    for (const limit = Date.now() + 40_000; ;) {
      if (await this.#isReady().catch(() => false)) return
      if (child.exitCode !== null || Date.now() > limit)
        throw new Error(`Consul does not start: ${readLogs(this.#folder)}`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  /**
   * A leader is what lets it answer; nothing but its answers says that there is one. The health of its node comes later, and
   * wakes whoever follows a service.
   */
  async #isReady(): Promise<boolean> {
    if ((await this.api('GET', '/v1/kv/ready')).status !== 404) return false
    return (await this.api('GET', '/v1/health/service/consul')).text.includes('"serfHealth"')
  }

  api(method: string, path: string, body?: string | Buffer | object, token = this.#token): Promise<ConsulReply> {
    const bytes = body === undefined || body instanceof Buffer || typeof body === 'string' ? body : JSON.stringify(body)
    return ask({ host: this.#host, port: this.port, method, path, token, body: Buffer.from(bytes ?? '') })
  }

  async put(key: string, value: string | Buffer | object): Promise<void> {
    const reply = await this.api('PUT', `/v1/kv/${key}`, value)
    if (reply.text.trim() !== 'true') throw new Error(`PUT ${key}: ${reply.status} ${reply.text}`)
  }

  async del(key: string): Promise<void> {
    const reply = await this.api('DELETE', `/v1/kv/${key}${key.endsWith('/') ? '?recurse' : ''}`)
    if (reply.status !== 200) throw new Error(`DELETE ${key}: ${reply.status} ${reply.text}`)
  }

  signal(name: NodeJS.Signals): void {
    this.#running?.kill(name)
  }

  async kill(): Promise<void> {
    const running = this.#running
    this.#running = undefined
    running?.kill('SIGKILL')
    await running?.ended
  }

  async end(): Promise<void> {
    await this.kill()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

/** Consul puts a time into the name of its log. */
function readLogs(folder: string): string {
  try {
    return execFileSync('bash', ['-c', 'cat log*'], { cwd: folder, encoding: 'utf8' })
  } catch {
    return 'it has said nothing'
  }
}

interface Asked {
  readonly host: string
  readonly port: number
  readonly method: string
  readonly path: string
  readonly body: Buffer
  readonly token: string | undefined
}

function ask({ host, port, method, path, body, token }: Asked): Promise<ConsulReply> {
  return new Promise((resolve, reject) => {
    const headers = { 'content-length': body.length, ...(token !== undefined && { 'x-consul-token': token }) }
    const sent = httpRequest({ host, port, method, path, headers, timeout: 15_000 }, (res) => {
      const chunks: Buffer[] = []
      res.on('data', (chunk: Buffer) => chunks.push(chunk))
      res.on('error', reject)
      res.on('end', () =>
        resolve({ status: res.statusCode!, headers: res.headers, text: Buffer.concat(chunks).toString() }),
      )
    })
    sent.on('error', reject).on('timeout', () => sent.destroy(new Error('timeout')))
    sent.end(body)
  })
}
