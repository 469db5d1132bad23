/** An instance as one may look on a bad night: for pictures, and for whoever wants to see the page by hand. */
import type { Outcome, Source } from '../../../src/index.js'
import { Checkups, type SourceLists } from '../../../src/index.js'

/** What a peer is like. */
interface Nature {
  /** Milliseconds of a usual answer. */
  readonly ms: number
  /** From 0 to 1. */
  readonly failing?: number
  /** What its heartbeats say, if they fail. */
  readonly sick?: string
}

const natures = new Map<string, Nature>([
  ['10.0.5.108:4001', { ms: 22 }],
  ['10.0.5.109:4001', { ms: 19 }],
  ['10.0.5.110:4001', { ms: 24, sick: 'connect ECONNREFUSED 10.0.5.110:4001' }],
  ['10.0.5.111:4001', { ms: 61, failing: 0.02 }],
  ['10.0.6.20:4001', { ms: 90 }],
  ['10.0.6.21:4001', { ms: 90 }],
  ['10.1.0.11:8080', { ms: 8 }],
  ['10.1.0.12:8080', { ms: 9 }],
  ['10.1.0.13:8080', { ms: 8, failing: 0.35 }],
  ['10.1.0.14:8080', { ms: 7 }],
  ['10.1.0.15:8080', { ms: 10 }],
  ['10.1.0.16:8080', { ms: 8 }],
  ['10.3.1.5:9200', { ms: 140, sick: 'status 503, expected 2xx or 3xx' }],
  ['10.3.1.6:9200', { ms: 140, sick: 'no answer within 1000 ms' }],
  ['10.2.0.4:6379', { ms: 0.6 }],
  ['10.2.0.5:6379', { ms: 0.7 }],
  ['[fd00:4::17]:6379', { ms: 0.8 }],
  ['unix:/run/render/worker-1.sock', { ms: 310 }],
  ['unix:/run/render/worker-2.sock', { ms: 290 }],
])

/** Requests a second. */
const traffic = new Map([
  ['imgprocess', 120],
  ['api', 260],
  ['search', 6],
  ['sessions', 420],
  ['render', 9],
])

const heartbeat = (interval: number) => ({
  type: 'custom' as const,
  interval,
  rise: 1,
  fall: 1,
  check: async ({ address }: { readonly address: string }, { signal }: { readonly signal: AbortSignal }) => {
    const { ms, sick } = natures.get(address) ?? { ms: 5 }
    await wait(ms / 3, signal)
    return sick === undefined ? true : ({ status: 'err', message: sick } as const)
  },
})

function wait(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms)
    signal?.addEventListener('abort', () => {
      clearTimeout(timer)
      resolve()
    })
  })
}

/** Gives its lists once; and cannot be reached any more if it `ends`. */
function source(name: string, lists: SourceLists, ends?: string): Source {
  let asks = 0
  return {
    name,
    watch: async (apply, { signal, sleep }) => {
      if (asks++ === 0) {
        apply(lists)
        if (ends !== undefined) return
      } else if (ends !== undefined) throw new Error(ends)
      while (!signal.aborted) {
        await sleep(1_500)
        apply(lists)
      }
    },
  }
}

const at = (host: string, ports: readonly number[], more = {}) => ports.map((port) => ({ host, port, ...more }))

export interface Scene {
  readonly checkups: Checkups
  readonly end: () => Promise<void>
}

export async function scene(): Promise<Scene> {
  const many = ['10.1.0.11', '10.1.0.12', '10.1.0.13', '10.1.0.14', '10.1.0.15', '10.1.0.16']
  const api = many.map((host, i) => ({ host, port: 8080, weight: i < 2 ? 2 : 1, labels: { zone: 'abc'[i % 3]! } }))
  const checkups = new Checkups({
    upstreams: {
      imgprocess: {
        balancer: 'least-connections',
        heartbeat: heartbeat(2_000),
        maxFails: 3,
        failTimeout: 10_000,
        cluster: [
          {
            servers: ['10.0.5.108', '10.0.5.109', '10.0.5.110', '10.0.5.111'].map((host, i) => ({
              host,
              port: 4001,
              weight: i === 0 ? 2 : 1,
            })),
          },
          { servers: [...at('10.0.6.20', [4001]), ...at('10.0.6.21', [4001], { backup: true })] },
        ],
      },
      search: { heartbeat: heartbeat(1_500), protected: false, servers: ['10.3.1.5:9200', '10.3.1.6:9200'] },
      render: {
        balancer: 'least-connections',
        maxConns: 4,
        servers: ['unix:/run/render/worker-1.sock', 'unix:/run/render/worker-2.sock'],
      },
    },
    sources: [
      source('consul:upstreams/api', {
        upstreams: { api: { maxFails: 4, failTimeout: 25_000, servers: api } },
      }),
      source(
        'file:/etc/checkups/sessions.json',
        {
          upstreams: {
            sessions: {
              balancer: 'consistent-hash',
              heartbeat: heartbeat(1_000),
              cluster: {
                main: { servers: ['10.2.0.4:6379', '10.2.0.5:6379'] },
                standby: { servers: ['[fd00:4::17]:6379'] },
              },
            },
          },
        },
        '/etc/checkups/sessions.json:14:3: expected a comma or a bracket, got "host"',
      ),
    ],
  })
  await checkups.start()
  let isOver = false
  const ask = async (key: string) => {
    const pick = checkups.acquirePeer(key, { hashKey: String(Math.random()) })
    if (pick === undefined) return
    const { ms, failing = 0 } = natures.get(pick.peer.address) ?? { ms: 5 }
    await wait(ms * (0.6 + 0.5 * Math.random() + (Math.random() < 0.02 ? 4 : 0)))
    const outcome: Outcome = Math.random() < failing ? 'failed' : 'ok'
    pick.answered(outcome === 'ok' ? 200 : 502)
    pick.done(outcome)
  }
  const begun = performance.now()
  const flow = async (key: string, rate: number) => {
    let owed = 0
    while (!isOver) {
      const seconds = (performance.now() - begun) / 1_000
      owed += (rate * (1 + 0.35 * Math.sin(seconds / 7) + 0.25 * (Math.random() - 0.5))) / 20
      for (; owed >= 1; owed--) void ask(key)
      await wait(50)
    }
  }
  const flows = Array.from(traffic, ([key, rate]) => flow(key, rate))
  return {
    checkups,
    end: async () => {
      isOver = true
      await Promise.all(flows)
      await checkups.close()
    },
  }
}

/** One with so many peers in four upstreams, of which some have changed. */
export function crowd(n: number): Checkups {
  const servers = (u: number) =>
    Array.from({ length: n / 4 }, (_, i) => ({
      host: `10.${20 + u}.${i >> 8}.${i & 255}`,
      port: 8080,
      weight: 1 + (i % 3),
      labels: { zone: 'abc'[i % 3]!, rack: String(i % 24) },
    }))
  return new Checkups({
    upstreams: Object.fromEntries(
      ['edge', 'catalog', 'checkout', 'media'].map((key, u) => [
        key,
        { servers: servers(u), maxFails: 1, failTimeout: 20_000 },
      ]),
    ),
  })
}
