import { fork, spawn, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { describe, expect, it, onTestFinished } from 'vitest'
import { Checkups, type Attempt, type HeartbeatOptions, type PeerEvent, type ServerOptions } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { startRaw, startServer } from '../support/http.js'
import { freePort } from '../support/servers.js'

/** A process of its own that answers with its number, at a port or a path. */
interface Backend {
  readonly address: string
  readonly process: ChildProcess
}

/** While it is dead its port must not become somebody else's, hence not one of the system's choosing. */
async function startBackend(place?: string): Promise<Backend> {
  const where = place ?? String(await freePort())
  const child = fork(fileURLToPath(new URL('backend.ts', import.meta.url)), [where], { execArgv: ['--import', 'tsx'] })
  const exited = once(child, 'exit')
  onTestFinished(async () => {
    child.kill('SIGKILL')
    await exited
  })
  const [address] = (await once(child, 'message')) as [string]
  return { address, process: child }
}

const portOf = ({ address }: Backend): string => address.slice(address.lastIndexOf(':') + 1)

async function kill({ process: child }: Backend): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** Milliseconds that a busy machine may add: to the time of a timer, and to an event's way. */
const SCHEDULING = 4_000

const RULES = { interval: 200, jitter: 20, timeout: 150, fall: 3 }
/** A check that is due in an interval, those that follow it, and the last one's time. */
const DETECTED = (RULES.interval + RULES.jitter) * RULES.fall + RULES.timeout + SCHEDULING

/**
 * Heartbeats that run; only they take peers out. Until they do, every third request has to be repeated: for how long depends on
 * the machine, and so may not depend on a budget.
 */
async function startChecks(servers: readonly (ServerOptions | string)[], heartbeat: HeartbeatOptions) {
  const checkups = new Checkups({
    retryBudget: false,
    upstreams: { test: { servers, maxFails: 0, heartbeat: { ...RULES, ...heartbeat } } },
  })
  onTestFinished(() => checkups.close())
  await checkups.start()
  return checkups
}

/** The next event of that name, of that peer; with how long it took to come. */
function next(
  checkups: Checkups,
  name: 'peer:down' | 'peer:up',
  { address }: Backend,
): Promise<PeerEvent & { ms: number }> {
  const start = performance.now()
  return new Promise((resolve) => {
    checkups.on(name, (event) => {
      if (event.peer.address === address) resolve({ ...event, ms: performance.now() - start })
    })
  })
}

function heartbeatOf(checkups: Checkups, { address }: { address: string }) {
  const servers = checkups.getStatus().upstreams.flatMap(({ levels }) => levels.flatMap((level) => level.servers))
  return servers.find((server) => server.address === address)?.heartbeat
}

/** All have been found to be as they are: what comes after is a change. */
function allPass(checkups: Checkups, backends: readonly { address: string }[]): Promise<void> {
  return eventually(() => {
    for (const backend of backends) expect(heartbeatOf(checkups, backend)?.state).toBe('ok')
  })
}

/** Clients that send one request after another. */
function startTraffic(checkups: Checkups) {
  const answers = new Set<string>()
  const failures: unknown[] = []
  const attempts: Attempt[] = []
  let running = true
  const client = async () => {
    while (running) {
      await checkups
        .readyOk('test', async (peer, { signal }) => (await fetch(peer.origin(), { signal })).text(), {
          tryTimeout: 2_000,
          attempts,
        })
        .then(
          (text) => answers.add(text),
          (error: unknown) => failures.push(error),
        )
    }
  }
  const clients = [client(), client(), client()]
  const stop = async () => {
    running = false
    await Promise.all(clients)
    return { answers, failures }
  }
  onTestFinished(() => stop().then(() => undefined))
  return { answers, failures, attempts, stop }
}

describe('a backend that dies', () => {
  it('is taken out in time, comes back, and no request fails meanwhile', async () => {
    const backends = await Promise.all([startBackend(), startBackend(), startBackend()])
    const [, victim] = backends
    const checkups = await startChecks(
      backends.map(({ address }) => address),
      { type: 'http' },
    )
    await allPass(checkups, backends)
    const traffic = startTraffic(checkups)
    await eventually(() => expect(traffic.answers.size).toBe(3))

    const down = next(checkups, 'peer:down', victim)
    await kill(victim)
    const { ms, reason, source } = await down
    expect({ reason, source }).toEqual({ reason: 'connection refused', source: 'heartbeat' })
    expect(ms).toBeLessThan(DETECTED)
    expect(heartbeatOf(checkups, victim)).toMatchObject({ state: 'err', message: 'connection refused' })

    const up = next(checkups, 'peer:up', victim)
    const back = await startBackend(portOf(victim))
    expect(await up).toMatchObject({ reason: 'the heartbeat passes', source: 'heartbeat', health: 'ok' })
    await eventually(() => expect(traffic.answers).toContain(String(back.process.pid)))
    expect((await traffic.stop()).failures).toEqual([])
  })

  it('that hangs is found by the timeout', async () => {
    const backends = await Promise.all([startBackend(), startBackend()])
    const [, victim] = backends
    const checkups = await startChecks(
      backends.map(({ address }) => address),
      { type: 'http' },
    )
    await allPass(checkups, backends)
    const traffic = startTraffic(checkups)

    const down = next(checkups, 'peer:down', victim)
    victim.process.kill('SIGSTOP')
    const { ms, reason } = await down
    expect(reason).toBe(`timeout after ${RULES.timeout} ms`)
    expect(ms).toBeLessThan(DETECTED)

    // What it had is asked of the other one.
    const late = () =>
      traffic.attempts.filter(({ peer, verdict }) => peer.address === victim.address && verdict === 'failed')
    await eventually(() => expect(late()).not.toEqual([]))

    const up = next(checkups, 'peer:up', victim)
    victim.process.kill('SIGCONT')
    expect((await up).reason).toBe('the heartbeat passes')
    expect((await traffic.stop()).failures).toEqual([])
  })
})

describe('what is checked', () => {
  it('may be another port: its death takes the peer out, which still answers', async () => {
    const [service, other] = [await startServer('service'), await startServer('other')]
    const sidecar = await startBackend()
    const checkups = await startChecks([service.address, other.address], {
      type: 'http',
      port: Number(portOf(sidecar)),
    })
    await allPass(checkups, [service, other])
    expect([service.seen, other.seen]).toEqual([[], []])

    // It is in place of both peers: all are out, and all are kept.
    const lost = eventually(() => {
      for (const server of [service, other]) expect(heartbeatOf(checkups, server)?.found).toBe('err')
    })
    await kill(sidecar)
    await lost
    expect(heartbeatOf(checkups, service)).toMatchObject({ state: 'unstable', message: 'connection refused' })
    expect(checkups.selectPeer('test')).toBeDefined()
  })

  it('may be a unix socket', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'checkups-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const socket = await startBackend(join(folder, 'app.sock'))
    const other = await startBackend()
    for (const type of ['http', 'tcp'] as const) {
      const backend = type === 'http' ? socket : await startBackend(join(folder, 'tcp.sock'))
      const checkups = await startChecks([backend.address, other.address], { type })
      await allPass(checkups, [backend, other])
      const down = next(checkups, 'peer:down', backend)
      await kill(backend)
      // The file of one that was killed is still there.
      expect((await down).reason).toBe('connection refused')
    }
  })
})

describe('a process with heartbeats', () => {
  const index = new URL('../../src/index.ts', import.meta.url).href

  /** Runs a program that has a `checkups` with heartbeats of these peers; its exit code, and what it said. */
  async function run(servers: readonly string[], heartbeat: HeartbeatOptions, program: string) {
    const source = `
      import { Checkups } from ${JSON.stringify(index)}
      const checkups = new Checkups({
        upstreams: { test: { servers: ${JSON.stringify(servers)}, heartbeat: ${JSON.stringify(heartbeat)} } },
      })
      ${program}`
    const child = spawn(process.execPath, ['--import', 'tsx', '--input-type=module', '--eval', source], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    onTestFinished(() => void child.kill('SIGKILL'))
    let output = ''
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => (output += chunk))
    const [code] = (await once(child, 'close')) as [number | null]
    return { code, output }
  }

  it('ends by itself after close(), also amid checks', async () => {
    const passing = await startServer('a')
    // Takes the connection and says nothing.
    const hanging = await startRaw((socket) => socket.resume())
    const options: HeartbeatOptions = { type: 'http', interval: 50, timeout: 60_000 }
    const ended = await run(
      [passing.address, hanging.address],
      options,
      `await checkups.start()
      const look = setInterval(async () => {
        const { inProgress, checks } = checkups.getStatus().heartbeats
        if (inProgress === 0 || checks < 4) return
        clearInterval(look)
        await checkups.close()
        console.log('closed')
      }, 5)`,
    )
    expect(ended).toEqual({ code: 0, output: 'closed\n' })
  })

  it.each(['tcp', 'http'] as const)('ends by itself without close() when nothing else runs: %s', async (type) => {
    const passing = await startServer('a')
    const ended = await run(
      [passing.address],
      { type, interval: 20, timeout: 1_000 },
      `await checkups.start()
      const look = setInterval(() => {
        if (checkups.getStatus().heartbeats.checks < 4) return
        clearInterval(look)
        console.log('nothing else to do')
      }, 5)`,
    )
    expect(ended).toEqual({ code: 0, output: 'nothing else to do\n' })
  })

  it('ends by itself also while checks hang', async () => {
    const hanging = await startRaw((socket) => socket.resume())
    for (const type of ['tcp', 'http'] as const) {
      const ended = await run(
        [hanging.address],
        { interval: 20, timeout: 3_600_000, ...(type === 'tcp' ? { type, expect: 'never' } : { type }) },
        `await checkups.start()
        const look = setInterval(() => {
          if (checkups.getStatus().heartbeats.inProgress === 0) return
          clearInterval(look)
          console.log('nothing else to do')
        }, 5)`,
      )
      expect(ended).toEqual({ code: 0, output: 'nothing else to do\n' })
    }
  })

  it('waits for start() to the first checks, though nothing else runs', async () => {
    // Whether it ends before them would be a matter of chance, hence several.
    const servers = await Promise.all(['a', 'b', 'c', 'd'].map((name) => startServer(name)))
    // No second check comes, however long it takes to end.
    const heartbeat: HeartbeatOptions = {
      type: 'http',
      defaultDown: true,
      interval: 3_600_000,
      fastInterval: 3_600_000,
    }
    const ends = servers.map(({ address }) =>
      run([address], heartbeat, `await checkups.start()\nconsole.log('started')`),
    )
    for (const ended of await Promise.all(ends)) expect(ended).toEqual({ code: 0, output: 'started\n' })
    for (const { seen } of servers) expect(seen).toHaveLength(1)
  })
})
