/** What tests of Consul's sources share: a watcher with lists to look at, agents, and servers that only pretend. */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, onTestFinished } from 'vitest'
import { systemClock } from '../../../src/clock.js'
import type { Cluster, LevelOptions, ServerOptions, UpstreamOptions } from '../../../src/index.js'
import type { Refused, Source, SourceLists } from '../../../src/source/source.js'
import type { ConsulAgent } from '../../support/consul.js'
import { eventually } from '../../support/eventually.js'

/** Lists as they came, and what went wrong. */
export interface Watched {
  readonly lists: SourceLists[]
  readonly errors: Error[]
  readonly asks: () => number
  /** The servers of an upstream in the last lists, as `address` → the rest; undefined if it is not in them. */
  servers(key: string): Record<string, Omit<ServerOptions, 'host' | 'port'>> | undefined
  /** What the last lists have refused. */
  refused(): readonly Refused[]
  upstream(key: string): Cluster | UpstreamOptions | undefined
  end(): Promise<void>
}

/** Watches as the loop does, but as fast as it can after a success, and 20 ms after a failure. */
export function watch(source: Source): Watched {
  const end = new AbortController()
  const { signal } = end
  const lists: SourceLists[] = []
  const errors: Error[] = []
  let asks = 0
  const run = async () => {
    while (!signal.aborted) {
      asks++
      const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
      try {
        await source.watch((got) => lists.push(got), { signal, clock: systemClock, sleep })
      } catch (error) {
        if (!end.signal.aborted) errors.push(error as Error)
        await sleep(20)
      }
    }
  }
  const running = run()
  const stop = () => {
    end.abort(new Error('the test has ended'))
    return running
  }
  onTestFinished(stop)
  const upstream = (key: string) => (lists.at(-1)?.upstreams as ReadonlyMap<string, Cluster> | undefined)?.get(key)
  return {
    lists,
    errors,
    asks: () => asks,
    upstream,
    servers: (key) => {
      const found = upstream(key)
      if (found === undefined) return undefined
      const level = (Array.isArray(found) ? found[0] : (found as UpstreamOptions)) as LevelOptions
      return Object.fromEntries(
        (level.servers as readonly ServerOptions[]).map(({ host, port, ...rest }) => [`${host}:${port}`, rest]),
      )
    },
    refused: () => lists.at(-1)?.refused ?? [],
    end: stop,
  }
}

/** An instance of a service, as the agent takes it. */
interface Registration {
  readonly Name: string
  /** Default: the name. */
  readonly ID?: string
  readonly Port?: number
  readonly [more: string]: unknown
}

/** Registers an instance of a service. The agent tells its catalogue by and by: when it has. */
export async function register(consul: ConsulAgent, service: Registration) {
  const { text } = await consul.api('PUT', '/v1/agent/service/register', service)
  expect(text).toBe('')
  const { Name, ID = Name, Port = 0 } = service
  await eventually(async () => {
    const { text } = await consul.api('GET', `/v1/catalog/service/${Name}`)
    expect(JSON.parse(text)).toContainEqual(expect.objectContaining({ ServiceID: ID, ServicePort: Port }))
  })
}

/** A server that answers as it is told to. */
export async function pretend(listener: RequestListener, server: Server = createServer()): Promise<string> {
  server.on('request', listener).listen(0, '127.0.0.1')
  await once(server, 'listening')
  onTestFinished(() => {
    server.closeAllConnections()
    server.close()
  })
  return `127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** An answer of Consul for a prefix with these keys. */
export function answer(res: ServerResponse, keys: Record<string, string>, index: number | string = 7): void {
  const items = Object.entries(keys).map(([Key, value]) => ({
    ...{ Key, Value: Buffer.from(value).toString('base64'), Flags: 0, LockIndex: 0, CreateIndex: 1, ModifyIndex: 1 },
  }))
  res.writeHead(200, { 'content-type': 'application/json', 'x-consul-index': index })
  res.end(JSON.stringify(items))
}

/** What was asked with, in the query. */
export const asked = (req: IncomingMessage) => new URL(req.url!, 'http://localhost').searchParams
