/** One process or thread of a test: an instance, and what it is told to do. */
import { Checkups } from '../../src/index.js'
import type { ChangeOptions, CheckupsOptions, Cluster, Outcome, ServerChange, Sync } from '../../src/index.js'
import type { ProcessSync } from '../../src/sync/index.js'

export type Kind = 'cluster' | 'threads' | 'socket'

/** The same program in all of them. */
export function upstreams(): CheckupsOptions['upstreams'] {
  return {
    api: { servers: ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80'], failTimeout: 60_000 },
    own: {
      servers: ['10.0.1.1:80', '10.0.1.2:80'],
      balancer: function last() {
        let all: readonly { peer: object; available: boolean }[] = []
        return {
          update: (members) => (all = members),
          pick: () => all.findLast(({ available }) => available) as never,
        }
      },
    },
  }
}

export interface Call {
  readonly n: number
  readonly method: keyof Commands
  readonly args: readonly unknown[]
}

export interface Reply {
  readonly n: number
  readonly value?: unknown
  readonly error?: { readonly name: string; readonly code: unknown; readonly message: string }
}

export type Commands = ReturnType<typeof commands>

export function commands(sync: Sync & Partial<ProcessSync>, options: Partial<CheckupsOptions> = {}) {
  const checkups = new Checkups({ upstreams: upstreams(), ...options, sync })
  const errors: string[] = []
  checkups.on('error', ({ error, during }) => errors.push(`${during}: ${(error as Error).message}`))
  const held = new Map<number, ReturnType<Checkups['acquirePeer']>>()
  let holds = 0
  return {
    start: () => checkups.start(),
    /** A pick at once, in the same turn in which start() has resolved. */
    startAndPick: (key: string) => checkups.start().then(() => checkups.selectPeer(key)?.address),
    picks: (key: string, count: number) => Array.from({ length: count }, () => checkups.selectPeer(key)?.address),
    update: (key: string, update: Cluster, options?: ChangeOptions) => checkups.updateUpstream(key, update, options),
    remove: (key: string, address: string) => checkups.removeServer(key, address),
    add: (key: string, address: string) => checkups.addServer(key, address),
    set: (key: string, address: string, change: ServerChange) => checkups.setServer(key, address, change),
    reset: (key: string, address?: string) => checkups.resetMarks(key, address),
    delete: (key: string) => checkups.deleteUpstream(key),
    fail: (key: string, address: string, outcome: Outcome = 'failed') => {
      const [host, port] = address.split(':')
      return checkups.feedbackStatus(key, { host: host!, port: port! }, outcome)
    },
    hold: (key: string) => {
      held.set(++holds, checkups.acquirePeer(key))
      return held.get(holds)?.peer.address
    },
    release: () => {
      for (const pick of held.values()) pick?.done('ok')
      held.clear()
    },
    /** Configurations as JSON, generations and states: the same in all that agree. */
    view: () => ({
      upstreams: [...checkups.getUpstreams()].map(([key, config]) => [key, JSON.stringify(config)] as const).sort(),
      generations: checkups
        .getStatus()
        .upstreams.map(({ key, generation }) => [key, generation] as const)
        .sort(),
      health: checkups
        .getStatus()
        .upstreams.map(({ key, levels }) => [
          key,
          levels.map(({ servers }) => servers.map(({ address, health }) => `${address} ${health}`)),
        ])
        .sort(),
    }),
    sync: () => checkups.getStatus().sync,
    heartbeats: () => checkups.getStatus().heartbeats.started,
    sources: () => checkups.getStatus().sources.map(({ state }) => state),
    processes: () => sync.processes!(),
    errors: () => errors,
    pid: () => process.pid,
    close: () => checkups.close(),
  }
}

export async function answer(own: Commands, { n, method, args }: Call): Promise<Reply> {
  try {
    return { n, value: await (own[method] as (...args: readonly unknown[]) => unknown)(...args) }
  } catch (error) {
    const { name, code, message } = error as Error & { code: unknown }
    return { n, error: { name, code, message } }
  }
}
