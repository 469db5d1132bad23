/** Peers in processes of their own, traffic through whatever is tested, and what came of it. */
import { fork, type ChildProcess } from 'node:child_process'
import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { once } from 'node:events'
import type { Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { fileURLToPath } from 'node:url'
import { expect, onTestFinished } from 'vitest'
import type { OutcomeMessage } from '../../../src/channels.js'
import { Checkups, type Clock, type UpstreamOptions } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { ownHost } from '../../support/servers.js'

export interface PeerProcess {
  readonly name: string
  readonly address: string
  readonly child: ChildProcess
}

/** A peer that answers, after some milliseconds, with its name, the method, the path and the length of the body. */
export async function startProcess(name: string): Promise<PeerProcess> {
  const child = fork(fileURLToPath(new URL('peer-process.js', import.meta.url)), [name, ownHost()], { execArgv: [] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const [address] = (await once(child, 'message')) as [string]
  return { name, address, child }
}

/** Ends it in the middle of whatever it is doing. */
export async function kill({ child }: PeerProcess): Promise<void> {
  const exited = once(child, 'exit')
  child.kill('SIGKILL')
  await exited
}

/** Longer than any test: who is out stays out, however slow the machine. */
export const FOR_GOOD = 600_000

/** Three peers, and an instance with the upstream `api`. */
export async function startThree(options: Omit<UpstreamOptions, 'servers'> = {}) {
  const peers = await Promise.all(['a', 'b', 'c'].map(startProcess))
  const checkups = checkupsOf(
    peers.map(({ address }) => address),
    { failTimeout: FOR_GOOD, ...options },
  )
  return { peers, checkups }
}

export function checkupsOf(
  servers: UpstreamOptions['servers'],
  options: Omit<UpstreamOptions, 'servers'> = {},
  clock?: Clock,
): Checkups {
  const checkups = new Checkups({ upstreams: { api: { servers, ...options } }, random: () => 0, clock })
  onTestFinished(() => checkups.close())
  return checkups
}

/** Where a server listens, at a free port of 127.0.0.1; it is closed when the test ends. */
export async function listen(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => server.close().closeAllConnections())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

export interface Traffic {
  /** Answers by the peer that gave them. */
  readonly answers: Map<string, number>
  /** What went wrong. */
  readonly failures: unknown[]
}

/** One request: resolves to the text of its answer, rejects for anything that is none. */
export type Send = (path: string) => Promise<string>

/** Sends so many requests, so many of them at once. */
export async function traffic(send: Send, count: number, concurrency: number, seen?: Traffic): Promise<Traffic> {
  const { answers, failures } = seen ?? { answers: new Map<string, number>(), failures: [] }
  let left = count
  const client = async () => {
    while (left-- > 0) {
      try {
        const text = await send(`/${left}`)
        expect(text).toMatch(/^[abc] \w+ \/\d+ \d+$/)
        const name = text.charAt(0)
        answers.set(name, (answers.get(name) ?? 0) + 1)
      } catch (error) {
        failures.push(error)
      }
    }
  }
  await Promise.all(Array.from({ length: concurrency }, client))
  return { answers, failures }
}

/** Outcomes that count as failed, by the address of the peer. */
export function failuresSeen(): Map<string, number> {
  const seen = new Map<string, number>()
  const onOutcome = (message: unknown) => {
    const { peer, outcome } = message as OutcomeMessage
    if (outcome === 'failed') seen.set(peer.address, (seen.get(peer.address) ?? 0) + 1)
  }
  subscribe('checkups:outcome', onOutcome)
  onTestFinished(() => void unsubscribe('checkups:outcome', onOutcome))
  return seen
}

export function serversOf(checkups: Checkups) {
  return checkups.getStatus().upstreams.flatMap(({ levels }) => levels.flatMap(({ servers }) => servers))
}

/** Requests in flight, by server. */
export const inFlight = (checkups: Checkups): number[] => serversOf(checkups).map((server) => server.inFlight)

/** Failures and bans by server. */
export const marks = (checkups: Checkups): number[] =>
  serversOf(checkups).map(({ passive }) => passive.failures + passive.bans)

/** Nothing says when a request has ended for the balancer: its end is looked for. */
export const settled = (checkups: Checkups): Promise<void> =>
  eventually(() => expect(inFlight(checkups).every((count) => count === 0)).toBe(true))

/** Requests at once: what is in flight at a peer that dies is no more than these. */
export const CONCURRENCY = 12

/**
 * 200 requests to three peers, the second of which is then killed in the middle of 200 more, and 200 after that. Returns
 * what failed meanwhile, and afterwards.
 */
export async function killOne(
  send: Send,
  { peers, checkups }: Awaited<ReturnType<typeof startThree>>,
  concurrency = CONCURRENCY,
): Promise<{ meanwhile: unknown[]; afterwards: unknown[] }> {
  const before = await traffic(send, 200, concurrency)
  expect(before.failures).toEqual([])
  // All three, and fairly.
  expect([...before.answers.keys()].sort()).toEqual(['a', 'b', 'c'])
  for (const count of before.answers.values()) expect(count).toBeGreaterThan(50)

  const victim = peers[1]!
  const during = traffic(send, 200, concurrency)
  await eventually(() => expect(inFlight(checkups)[1]).toBeGreaterThan(0))
  await kill(victim)
  const { failures: meanwhile } = await during
  const { failures: afterwards, answers } = await traffic(send, 200, concurrency)
  expect(answers.get('b')).toBeUndefined()
  await settled(checkups)
  return { meanwhile, afterwards }
}
