/** A dispatcher makes its attempts itself. They are those of `readyOk`: what both do is compared. */
import { Agent, request } from 'undici'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createDispatcher, type DispatcherOptions } from '../../../src/adapter/undici.js'
import { Checkups, type AttemptContext, type AttemptsError, type Peer } from '../../../src/index.js'
import type { ReadyOkOptions, UpstreamOptions } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { refusing, startServer } from '../../support/http.js'
import { silent } from './support.js'

type Limits = Pick<ReadyOkOptions, 'tries' | 'timeout' | 'tryTimeout' | 'clusterKey' | 'budget' | 'backoff'>

interface Scenario {
  readonly upstream: UpstreamOptions
  readonly limits?: () => Limits
  /** Done when the first attempt has been made. */
  readonly meanwhile?: (checkups: Checkups) => unknown
  readonly random?: () => number
}

function instance({ upstream, random = () => 0 }: Scenario): Checkups {
  const checkups = new Checkups({ upstreams: { test: upstream }, random, retryBudget: false })
  onTestFinished(() => checkups.close())
  return checkups
}

const told = (checkups: Checkups) =>
  checkups
    .getStatus()
    .upstreams.flatMap(({ levels }) => levels.flatMap(({ servers }) => servers))
    .map(({ address, passive, inFlight }) => [address, passive.failures, passive.bans, inFlight])

/** How it ended: the answer, or why there was none, and who was asked. */
async function outcome(work: Promise<string>, checkups: Checkups) {
  const ended = await work.catch((error: unknown) => {
    const { code, reason, attempts, message } = error as AttemptsError
    const tried = attempts.map(({ peer, verdict, status }) => [peer.address, verdict, status])
    // How long an attempt took is in brackets.
    return { code, reason, tried, message: message.replaceAll(/\(\d+ ms\)/g, '') }
  })
  return [ended, told(checkups)]
}

async function byReadyOk(scenario: Scenario) {
  const checkups = instance(scenario)
  const agent = new Agent()
  onTestFinished(() => agent.destroy())
  const ask = async (peer: Peer, { signal, number }: AttemptContext) => {
    if (number === 1) await scenario.meanwhile?.(checkups)
    const { statusCode, body } = await request(peer.origin(), { dispatcher: agent, signal, method: 'GET' })
    const text = await body.text()
    return { status: statusCode, text }
  }
  const work = checkups.readyOk('test', ask, scenario.limits?.() ?? {}).then(({ text }) => text)
  return outcome(work, checkups)
}

async function byDispatcher(scenario: Scenario) {
  const checkups = instance(scenario)
  const { clusterKey, ...limits } = scenario.limits?.() ?? {}
  const options: DispatcherOptions = { ...limits, clusterKey: () => clusterKey, retryStatuses: [500] }
  const dispatcher = createDispatcher(checkups, options)
  onTestFinished(() => dispatcher.destroy())
  const work = request('http://test/', { dispatcher }).then(({ body }) => body.text())
  // By then it has picked, and the connection has not failed yet.
  void scenario.meanwhile?.(checkups)
  return outcome(work, checkups)
}

const [r0, r1, r2] = [refusing(0), refusing(1), refusing(2)]
const rows: [says: string, scenario: () => Scenario | Promise<Scenario>][] = [
  ['all refuse', () => ({ upstream: { servers: [r0, r1, r2] } })],
  ['nobody is out', () => ({ upstream: { servers: [r0, r1, r2], maxFails: 0 } })],
  ['the last of three answers', async () => ({ upstream: { servers: [r0, r1, (await startServer('c')).address] } })],
  ['a lone one refuses', () => ({ upstream: { servers: [r0] } })],
  [
    'one address in two levels',
    () => ({ upstream: { cluster: [{ servers: [r0, r1] }, { servers: [r0] }], maxFails: 0 } }),
  ],
  [
    'the next level',
    async () => ({ upstream: { cluster: [{ servers: [r0] }, { servers: [(await startServer('b')).address] }] } }),
  ],
  [
    'a backup',
    async () => ({ upstream: { servers: [r0, { address: (await startServer('b')).address, backup: true }] } }),
  ],
  ['tries of the call', () => ({ upstream: { servers: [r0, r1, r2] }, limits: () => ({ tries: 2 }) })],
  ['tries: 1', () => ({ upstream: { servers: [r0, r1, r2] }, limits: () => ({ tries: 1 }) })],
  ['tries of the upstream', () => ({ upstream: { servers: [r0, r1, r2], tries: 2 } })],
  [
    'tries: 0 of the call, as many as there are',
    () => ({ upstream: { servers: [r0, r1], tries: 1 }, limits: () => ({ tries: 0 }) }),
  ],
  ['more tries than servers', () => ({ upstream: { servers: [r0, r1] }, limits: () => ({ tries: 9 }) })],
  [
    'a cluster',
    () => ({
      upstream: { cluster: { a: { servers: [r0] }, b: { servers: [r1, r2] } } },
      limits: () => ({ clusterKey: 'b' }),
    }),
  ],
  [
    'clusters in an order',
    () => ({
      upstream: { cluster: { a: { servers: [r0] }, b: { servers: [r1, r2] } } },
      limits: () => ({ clusterKey: ['b', 'a'] }),
    }),
  ],
  [
    'a cluster that is none',
    () => ({ upstream: { cluster: { a: { servers: [r0] } } }, limits: () => ({ clusterKey: 'x' }) }),
  ],
  ['nobody', () => ({ upstream: { servers: [], allowEmpty: true } })],
  ['all down', () => ({ upstream: { servers: [{ address: r0, down: true }] } })],
  [
    'a budget that is spent',
    () => ({ upstream: { servers: [r0, r1, r2] }, limits: () => ({ budget: { tryRetry: () => false } }) }),
  ],
  [
    'a budget for one',
    () => ({
      upstream: { servers: [r0, r1, r2] },
      limits: () => {
        let left = 1
        return { budget: { tryRetry: () => left-- > 0 } }
      },
    }),
  ],
  [
    'a status',
    async () => ({ upstream: { servers: [(await failing()).address, r0, (await startServer('c')).address] } }),
  ],
  [
    'time for each',
    async () => ({ upstream: { servers: [(await silent()).address, r0] }, limits: () => ({ tryTimeout: 200 }) }),
  ],
  [
    'time for each, of the upstream',
    async () => ({ upstream: { servers: [(await silent()).address, r0], tryTimeout: 200 } }),
  ],
  [
    'time in all, in the first',
    async () => ({ upstream: { servers: [(await silent()).address, r0] }, limits: () => ({ timeout: 200 }) }),
  ],
  [
    'time in all, in the second',
    async () => ({ upstream: { servers: [r0, (await silent()).address] }, limits: () => ({ timeout: 200 }) }),
  ],
  [
    'time in all, of the upstream',
    async () => ({ upstream: { servers: [r0, (await silent()).address], timeout: 200 } }),
  ],
  [
    'time in all, over in a wait',
    () => ({
      upstream: { servers: [r0, r1], maxFails: 0 },
      random: () => 0.5,
      limits: () => ({ timeout: 200, backoff: { initial: 1e9, max: 1e9 } }),
    }),
  ],
  [
    'no time limit of the call where the upstream has one',
    () => ({
      upstream: { servers: [r0, r1], timeout: 1, tryTimeout: 1 },
      limits: () => ({ timeout: 0, tryTimeout: 0 }),
    }),
  ],
  ['a wait', () => ({ upstream: { servers: [r0, r1, r2] }, limits: () => ({ backoff: { initial: 5, max: 5 } }) })],
  [
    'deleted meanwhile',
    () => ({ upstream: { servers: [r0, r1] }, meanwhile: (checkups) => checkups.deleteUpstream('test') }),
  ],
  [
    'deleted and made again meanwhile',
    () => ({
      upstream: { servers: [r0, r1] },
      meanwhile: async (checkups) => {
        await Promise.all([checkups.deleteUpstream('test'), checkups.updateUpstream('test', { servers: [r2] })])
      },
    }),
  ],
  [
    'other servers meanwhile: tries stay',
    () => ({
      upstream: { servers: [r0, r1], maxFails: 0 },
      meanwhile: (checkups) => checkups.updateUpstream('test', { servers: [r0, r2, '127.0.0.9:1', '127.0.0.10:1'] }),
    }),
  ],
]

async function failing() {
  return startServer('f', (req, res) => void req.resume().once('end', () => res.writeHead(500).end()))
}

describe('a dispatcher and readyOk do the same', () => {
  it.each(rows)('%s', async (_, make) => {
    const scenario = await make()
    expect(await byDispatcher(scenario)).toEqual(await byReadyOk(scenario))
  })
})

it('a caller who goes away in a wait is told at once, and nobody else is asked', async () => {
  const b = await startServer('b')
  const checkups = instance({ upstream: { servers: [r0, b.address] } })
  const dispatcher = createDispatcher(checkups, { backoff: { initial: 1e9, max: 1e9 } })
  const controller = new AbortController()
  const work = request('http://test/', { dispatcher, signal: controller.signal })
  await eventually(() => expect(told(checkups)[0]).toEqual([r0, 0, 1, 0]))
  controller.abort()
  await expect(work).rejects.toMatchObject({ name: 'AbortError' })
  // It is not waited for either.
  await dispatcher.close()
  expect(b.connections).toBe(0)
})
