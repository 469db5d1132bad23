import { createServer } from 'node:http'
import axios, { AxiosError } from 'axios'
import got from 'got'
import { describe, expect, it, onTestFinished } from 'vitest'
import { createAgent } from '../../../src/adapter/http-agent.js'
import type { Checkups } from '../../../src/index.js'
import { bytes, refusing, startServer, type Answer } from '../../support/http.js'
import { checkupsOf, CONCURRENCY, killOne, listen, marks, settled, startThree } from './harness.js'

const never: Answer = (req) => req.resume()

function agentOf(checkups: Checkups) {
  const agent = createAgent(checkups, 'api')
  onTestFinished(() => agent.destroy())
  return agent
}

describe('axios', () => {
  const clientOf = (checkups: Checkups) =>
    axios.create({ baseURL: 'http://api', httpAgent: agentOf(checkups), proxy: false })

  it('by the agent: what a peer that is killed has in flight fails, and nothing else', async () => {
    const three = await startThree()
    const client = clientOf(three.checkups)
    const { meanwhile, afterwards } = await killOne(async (path) => (await client.get<string>(path)).data, three)
    expect(meanwhile.length).toBeLessThanOrEqual(CONCURRENCY)
    expect(afterwards).toEqual([])
  })

  it('by readyOk: nothing fails', async () => {
    const three = await startThree()
    const send = async (path: string) =>
      three.checkups.readyOk('api', async (peer, { signal }) => {
        const options = { signal, validateStatus: () => true, proxy: false } as const
        return axios.get<string>(peer.origin() + path, options)
      })
    const result = await killOne(async (path) => (await send(path)).data, three)
    expect(result).toEqual({ meanwhile: [], afterwards: [] })
  })

  it('a POST goes on when a peer refuses, with its body', async () => {
    const b = await startServer('b')
    const checkups = checkupsOf([refusing(), b.address])
    const { data } = await clientOf(checkups).post<string>('/', bytes(100_000))
    expect([data, b.seen[0]!.length, marks(checkups)]).toEqual(['b', 100_000, [1, 0]])
  })

  it('a status is the answer of a peer; its timeout is the peer’s failure, its cancel is not', async () => {
    const a = await startServer('a', (req, res) => {
      if (req.url === '/status') res.writeHead(500).end()
      else never(req, res, a)
    })
    const checkups = checkupsOf([a.address, refusing()], { maxFails: 9 })
    const client = clientOf(checkups)
    const failure = (promise: Promise<unknown>) => promise.catch((error: unknown) => (error as AxiosError).code)
    expect(await failure(client.get('/status'))).toBe(AxiosError.ERR_BAD_RESPONSE)
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
    const only = checkupsOf([a.address], { maxFails: 9 })
    const one = clientOf(only)
    expect(await failure(one.get('/', { timeout: 30 }))).toBe(AxiosError.ECONNABORTED)
    await settled(only)
    expect(marks(only)).toEqual([1])
    const controller = new AbortController()
    const pending = failure(one.get('/', { signal: controller.signal }))
    setTimeout(() => controller.abort(), 20)
    expect(await pending).toBe(AxiosError.ERR_CANCELED)
    await settled(only)
    expect(marks(only)).toEqual([1])
  })

  it('a redirect to another host goes there, with a function for a key', async () => {
    const elsewhere = await listen(createServer((_, res) => res.end('elsewhere')))
    const a = await startServer('a', (_, res) => res.writeHead(302, { location: elsewhere }).end())
    const checkups = checkupsOf([a.address])
    const agent = createAgent(checkups, ({ host }) => (host === 'api' ? 'api' : undefined))
    onTestFinished(() => agent.destroy())
    const { data } = await axios.get<string>('http://api/', { httpAgent: agent, proxy: false })
    expect(data).toBe('elsewhere')
    await settled(checkups)
  })
})

describe('got', () => {
  const clientOf = (checkups: Checkups, limit: number) =>
    got.extend({ prefixUrl: 'http://api/', agent: { http: agentOf(checkups) }, retry: { limit, backoffLimit: 5 } })

  it('with its own retries: nothing fails when a peer is killed', async () => {
    const three = await startThree()
    const client = clientOf(three.checkups, 2)
    const result = await killOne((path) => client(path.slice(1)).text(), three)
    expect(result).toEqual({ meanwhile: [], afterwards: [] })
  })

  it('without: what it has in flight fails, and nothing else', async () => {
    const three = await startThree()
    const client = clientOf(three.checkups, 0)
    const { meanwhile, afterwards } = await killOne((path) => client(path.slice(1)).text(), three)
    expect(meanwhile.length).toBeLessThanOrEqual(CONCURRENCY)
    expect(afterwards).toEqual([])
  })

  it('a 503 is asked again elsewhere', async () => {
    const [a, b] = [await startServer('a', (_, res) => res.writeHead(503).end()), await startServer('b')]
    const checkups = checkupsOf([a.address, b.address])
    expect(await clientOf(checkups, 1)('').text()).toBe('b')
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it.each([
    ['request', { request: 30 }],
    ['response', { response: 30 }],
    ['socket', { socket: 30 }],
  ])('its timeout of a %s is the peer’s failure', async (_, timeout) => {
    const a = await startServer('a', never)
    const checkups = checkupsOf([a.address, refusing()], { maxFails: 9 })
    const request = clientOf(checkups, 0)('', { timeout })
    await expect(request).rejects.toMatchObject({ name: 'TimeoutError' })
    await settled(checkups)
    expect(marks(checkups)).toEqual([1, 0])
  })

  it('its cancel is not', async () => {
    const a = await startServer('a', never)
    const checkups = checkupsOf([a.address])
    const request = clientOf(checkups, 0)('', { signal: AbortSignal.abort() })
    await expect(request).rejects.toMatchObject({ name: 'AbortError' })
    await settled(checkups)
    expect(marks(checkups)).toEqual([0])
  })
})
