import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server } from 'node:http'
import { gzipSync } from 'node:zlib'
import { createAdaptorServer } from '@hono/node-server'
import express from 'express'
import { Hono } from 'hono'
import { describe, expect, it } from 'vitest'
import { forward } from '../../../examples/ecosystem/lib/forward.js'
import { answerBy } from '../../../examples/ecosystem/lib/node.js'
import type { Checkups } from '../../../src/index.js'
import { eventually } from '../../support/eventually.js'
import { bytes, startRaw, startServer, whenRead, type Answer } from '../../support/http.js'
import { freePort } from '../../support/servers.js'
import { checkupsOf, CONCURRENCY, killOne, listen, marks, settled, startThree } from './harness.js'

/** fetch refuses some ports by itself, as 1. */
const refusing = async () => `127.0.0.1:${await freePort()}`

const hosts: [string, (checkups: Checkups) => Server][] = [
  [
    'Express',
    (checkups) => {
      const app = express()
      app.use((req, res) => answerBy((request) => forward(checkups, 'api', request), req, res))
      return createServer(app)
    },
  ],
  [
    'Hono',
    (checkups) => {
      const app = new Hono()
      app.all('*', ({ req }) => forward(checkups, 'api', req.raw))
      return createAdaptorServer(app) as Server
    },
  ],
]

describe.each(hosts)('a gateway of %s, by readyOk and fetch', (_, make) => {
  const start = (checkups: Checkups) => listen(make(checkups))
  const send = async (url: string, init: RequestInit = {}) => {
    const response = await fetch(url, init)
    const text = await response.text()
    if (!response.ok) throw new Error(`status ${response.status}: ${text}`)
    return text
  }

  it('no idempotent request fails when one of three peers is killed', async () => {
    const three = await startThree()
    const url = await start(three.checkups)
    const result = await killOne(
      (path) => send(url + path, path.endsWith('7') ? { method: 'PUT', body: 'x' } : {}),
      three,
    )
    expect(result).toEqual({ meanwhile: [], afterwards: [] })
  })

  it('of POSTs what the peer has in flight fails, and nothing else', async () => {
    const three = await startThree()
    const url = await start(three.checkups)
    const { meanwhile, afterwards } = await killOne((path) => send(url + path, { method: 'POST', body: 'x' }), three)
    expect(meanwhile.length).toBeLessThanOrEqual(CONCURRENCY)
    expect(afterwards).toEqual([])
  })

  it('a POST goes on when a peer refuses, with all of its body', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([await refusing(), b.address])
    const body = bytes(1_000_000)
    expect(await send(`${await start(checkups)}/x?y=1`, { method: 'POST', body })).toBe('b')
    expect(b.seen).toMatchObject([{ method: 'POST', url: '/x?y=1', length: 1_000_000 }])
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it('a POST that a peer may have seen is not sent again', async () => {
    const a = await startRaw((socket) => void socket.once('data', () => socket.resetAndDestroy()))
    const b = await startServer('b')
    const checkups = checkupsOf([a.address, b.address])
    const { status } = await fetch(await start(checkups), { method: 'POST', body: 'x' })
    expect([status, b.connections]).toEqual([502, 0])
  })

  it('a 503 goes on; that of the last peer is passed on', async () => {
    const busy: Answer = (_, res) => res.writeHead(503, { 'x-from': 'busy' }).end('busy')
    const [a, b] = [await startServer('a', busy), await startServer('b')]
    const both = checkupsOf([a.address, b.address])
    expect(await send(await start(both))).toBe('b')
    expect(marks(both)).toEqual([1, 0])
    const response = await fetch(await start(checkupsOf([a.address, await refusing()])))
    expect([response.status, await response.text()]).toEqual([502, expect.stringContaining('ECONNREFUSED')])
    const last = await fetch(await start(checkupsOf([await refusing(), a.address])))
    expect([last.status, last.headers.get('x-from'), await last.text()]).toEqual([503, 'busy', 'busy'])
  })

  it('passes on heads, empty answers, redirects, cookies and what was packed', async () => {
    const a = await startServer('a', (req, res) => {
      if (req.url === '/moved') res.writeHead(301, { location: '/there' }).end()
      else if (req.url === '/empty') res.writeHead(204).end()
      else if (req.url === '/packed') res.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('unpacked'))
      else res.writeHead(200, { 'set-cookie': ['a=1', 'b=2'], 'x-seen': req.headers['x-sent'] ?? '' }).end('text')
    })
    const url = await start(checkupsOf([a.address]))
    const moved = await fetch(`${url}/moved`, { redirect: 'manual' })
    expect([moved.status, moved.headers.get('location')]).toEqual([301, '/there'])
    expect((await fetch(`${url}/empty`)).status).toBe(204)
    expect(await send(`${url}/packed`)).toBe('unpacked')
    const head = await fetch(url, { method: 'HEAD', headers: { 'x-sent': 'yes' } })
    expect([head.status, head.headers.getSetCookie(), head.headers.get('x-seen')]).toEqual([200, ['a=1', 'b=2'], 'yes'])
  })

  it('a client that leaves is held against nobody', async () => {
    const a = await startServer('a', (req) => req.resume())
    const checkups = checkupsOf([a.address, (await startServer('b', whenRead)).address])
    const url = await start(checkups)
    const controller = new AbortController()
    const left = fetch(url, { signal: controller.signal }).catch(() => 'left')
    const [{ socket }] = (await once(a.server, 'request')) as [IncomingMessage]
    controller.abort()
    expect(await left).toBe('left')
    await settled(checkups)
    expect(marks(checkups)).toEqual([0, 0])
    await eventually(() => expect(socket.destroyed).toBe(true))
  })
})
