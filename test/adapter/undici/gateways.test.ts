/** The recipes of docs/undici.md. */
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { gzipSync } from 'node:zlib'
import { serve } from '@hono/node-server'
import express from 'express'
import { Hono } from 'hono'
import { proxy as pass } from 'hono/proxy'
import { expect, it, onTestFinished } from 'vitest'
import { createProxyHandler } from '../../../src/adapter/undici.js'
import { bytes, refusing, sha256, startServer } from '../../support/http.js'
import { checkupsFor, dispatching } from './support.js'

async function urlOf(server: Server): Promise<string> {
  if (!server.listening) await once(server, 'listening')
  onTestFinished(() => server.close().closeAllConnections())
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

it('Hono, by fetch', async () => {
  const [a, b] = [await startServer('a'), await startServer('b')]
  const { dispatcher } = dispatching([a, refusing(), b])
  const app = new Hono()
  app.all('/images/*', ({ req }) => {
    const { pathname, search } = new URL(req.url)
    const customFetch = (request: Request) => fetch(request, { dispatcher } as unknown as RequestInit)
    return pass(`http://test${pathname}${search}`, { raw: req.raw, customFetch })
  })
  const url = await urlOf(serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }) as Server)
  const texts: string[] = []
  for (let i = 0; i < 4; i++) texts.push(await (await fetch(`${url}/images/${i}?q=1`)).text())
  expect(texts.sort().join('')).toBe('aabb')
  expect(a.seen[0]?.url).toMatch(/^\/images\/\d\?q=1$/)

  const body = bytes(300_000)
  const answer = await fetch(`${url}/images/1`, { method: 'PUT', body })
  expect(await answer.text()).toMatch(/^[ab]$/)
  const put = [...a.seen, ...b.seen].filter(({ method }) => method === 'PUT')
  expect(put).toMatchObject([{ length: 300_000, sha: sha256(body) }])

  // fetch undoes the coding of the answer; the client gets it as it is then.
  const zipped = gzipSync('text')
  a.answer = b.answer = (_req, res) => {
    res.writeHead(404, { 'content-encoding': 'gzip', 'content-length': zipped.length }).end(zipped)
  }
  const coded = await fetch(`${url}/images/1`)
  expect([coded.status, await coded.text()]).toEqual([404, 'text'])
})

it('Express, by the proxy', async () => {
  const [a, b] = [await startServer('a'), await startServer('b')]
  const proxy = createProxyHandler(checkupsFor([a, refusing(), b]), { key: () => 'test' })
  onTestFinished(proxy.close)
  const app = express()
  app.use('/images', (req, res) => proxy(req, res))
  app.get('/own', (_req, res) => void res.send('own'))
  const url = await urlOf(createServer(app).listen(0, '127.0.0.1'))
  const texts: string[] = []
  for (let i = 0; i < 4; i++) texts.push(await (await fetch(`${url}/images/${i}?q=1`)).text())
  expect(texts.sort().join('')).toBe('aabb')
  // Express takes away what it has matched.
  expect(a.seen[0]?.url).toMatch(/^\/\d\?q=1$/)
  expect(await (await fetch(`${url}/own`)).text()).toBe('own')
  const body = bytes(300_000)
  const answer = await fetch(`${url}/images/1`, { method: 'POST', body })
  expect([answer.headers.get('x-powered-by'), await answer.text()]).toEqual([
    'Express',
    expect.stringMatching(/^[ab]$/),
  ])
})
