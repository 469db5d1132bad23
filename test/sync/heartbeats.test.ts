import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, expect, it, onTestFinished } from 'vitest'
import type { SourceLists } from '../../src/index.js'
import { eventually } from '../support/eventually.js'
import { world, type Node } from './world.js'
import { ownHost } from '../support/servers.js'

async function backend(host = '127.0.0.1', port = 0) {
  let checks = 0
  const server: Server = createServer((_, res) => {
    checks++
    res.end('ok')
  })
  server.listen(port, host)
  await once(server, 'listening')
  const close = () => {
    server.closeAllConnections()
    server.close()
  }
  onTestFinished(close)
  const { port: bound } = server.address() as AddressInfo
  return { port: bound, address: `${host}:${bound}`, checks: () => checks, close }
}

const healthOf = async (node: Node, key: string) =>
  (await node.call('view')).health.find(([name]) => name === key)?.[1] as string[][] | undefined

describe('what heartbeats and sources of the process in charge find', () => {
  it('is so in every process, and only one of them has asked', async () => {
    const host = ownHost()
    const [a, b] = [await backend(host), await backend()]
    const upstreams = {
      web: {
        servers: [a.address, b.address],
        heartbeat: { type: 'http', interval: 100, fall: 1, defaultDown: true, timeout: 5_000 },
      },
    } as const
    const { first, workers, join } = await world({ kind: 'cluster', workers: 2, options: { upstreams } })
    const all = [first, ...workers]
    for (const node of all) expect(new Set(await node.call('picks', 'web', 4)).size).toBe(2)
    a.close()
    const expected = [[`${a.address} err`, `${b.address} ok`]]
    for (const node of all) await eventually(async () => expect(await healthOf(node, 'web')).toEqual(expected))
    const late = await join()
    await late.call('start')
    expect(await healthOf(late, 'web')).toEqual(expected)
    const back = await backend(host, a.port)
    const whole = [[`${a.address} ok`, `${b.address} ok`]]
    for (const node of [...all, late]) await eventually(async () => expect(await healthOf(node, 'web')).toEqual(whole))
    expect(back.checks()).toBeGreaterThan(0)
    for (const node of [...workers, late]) expect(await node.call('heartbeats')).toBe(false)
  })

  it('a ban that a heartbeat ends is over in all of them', async () => {
    const a = await backend()
    const upstreams = {
      web: {
        servers: [a.address, '10.0.0.9:80'],
        heartbeat: { type: 'http', interval: 60_000, liftsBan: true, panic: 'all' },
        failTimeout: 60_000,
      },
    } as const
    const { first, workers } = await world({ kind: 'threads', workers: 2, options: { upstreams } })
    await workers[0]!.call('fail', 'web', a.address)
    // A ban has it checked at once, and the check passes.
    for (const node of [first, ...workers]) {
      await eventually(async () => {
        const health = await healthOf(node, 'web')
        expect(health![0]![0]).toMatch(/ (ok|unstable)$/)
      })
    }
    expect(a.checks()).toBeGreaterThan(0)
  })

  it('lists of a source reach all, and only the one in charge follows it', async () => {
    let give: ((lists: SourceLists) => void) | undefined
    let watches = 0
    const source = {
      name: 'hand',
      watch: (apply: (lists: SourceLists) => void) => {
        watches++
        give = apply
        apply({ upstreams: { listed: [{ servers: ['10.0.0.1:1'] }] } })
        return new Promise<never>(() => undefined)
      },
    }
    const { workers } = await world({ kind: 'cluster', workers: 2, options: { sources: [source] } })
    for (const node of workers) expect(await node.call('picks', 'listed', 1)).toEqual(['10.0.0.1:1'])
    give!({ upstreams: { listed: [{ servers: ['10.0.0.1:2'] }] } })
    for (const node of workers) {
      await eventually(async () => expect(await node.call('picks', 'listed', 1)).toEqual(['10.0.0.1:2']))
    }
    expect(watches).toBe(1)
  })
})
