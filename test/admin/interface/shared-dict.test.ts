import { describe, expect, it } from 'vitest'
import type { UpstreamOptions } from '../../../src/index.js'
import { startServer } from '../../support/http.js'
import { ancestor, configOf, gatewayWith } from './support.js'

const start = (upstreams: Record<string, UpstreamOptions> = {}, options = {}) =>
  ancestor({ sharedDict: { upstream: 'test' } }, { upstreams }, options)

const OK = { status: 200, text: 'OK' }
const ADD = { status: 400, text: 'usage: /add?ip=x.x.x.x&port=xx&no=xx' }
const GET = { status: 400, text: 'usage: /get?no=xx' }
const add = (port: number, no: string | number) => `/add?ip=127.0.0.1&port=${port}&no=${no}`
const shown = (port: number, servers: number) => ({
  status: 200,
  text: `ip: 127.0.0.1\nport: ${port}\nservers: ${servers}\n`,
})
const none = (no: string) => ({ status: 404, text: `the no server is vaild: ${no}` })

describe('numbered servers', () => {
  it('are added, shown, and deleted', async () => {
    const { ask } = await start()
    expect(await ask('GET', add(8081, 1))).toMatchObject(OK)
    expect(await ask('GET', add(8082, 2))).toMatchObject(OK)
    expect(await ask('GET', '/get?no=1')).toMatchObject(shown(8081, 2))
    expect(await ask('GET', '/get?no=2')).toMatchObject(shown(8082, 2))
    expect(await ask('GET', '/delete?no=1')).toMatchObject(OK)
    expect(await ask('GET', '/get?no=1')).toMatchObject(none('1'))
    expect(await ask('GET', '/get?no=2')).toMatchObject(shown(8082, 1))
  })

  it('serve from the next request on', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const { ask, get } = await gatewayWith({ sharedDict: { upstream: 'test' } }, {})
    const port = ({ address }: { address: string }) => Number(address.split(':')[1])
    expect(await get('test')).toBe('502')
    await ask('GET', add(port(a), 1))
    expect(await get('test')).toBe('a')
    await ask('GET', add(port(b), 2))
    expect(new Set([await get('test'), await get('test')])).toEqual(new Set(['a', 'b']))
    await ask('GET', '/delete?no=1')
    expect([await get('test'), await get('test')]).toEqual(['b', 'b'])
  })

  it('the same number overwrites, in the same place', async () => {
    const { ask, checkups } = await start({ test: { servers: ['10.0.0.1:80'], tries: 3 } })
    for (const path of [add(8081, 1), add(8082, 2), add(8083, 1)]) expect(await ask('GET', path)).toMatchObject(OK)
    expect(await ask('GET', '/get?no=1')).toMatchObject(shown(8083, 3))
    expect(checkups.getUpstream('test')).toMatchObject({
      cluster: [
        { servers: [{ host: '10.0.0.1' }, { port: 8083, labels: { no: '1' } }, { port: 8082, labels: { no: '2' } }] },
      ],
      tries: 3,
    })
  })

  it('adding again changes nothing', async () => {
    const { ask, checkups } = await start()
    await ask('GET', add(8081, 1))
    const { generation } = checkups.getStatus()
    expect(await ask('GET', add(8081, 1))).toMatchObject(OK)
    expect(checkups.getStatus().generation).toBe(generation)
  })

  it('a server that is there without a number gets it, and keeps its options', async () => {
    const server = { address: '127.0.0.1:8081', weight: 5, labels: { zone: 'b' } }
    const { ask, checkups } = await start({ test: { servers: [server, '127.0.0.1:8082'] } })
    expect(await ask('GET', '/get?no=1')).toMatchObject(none('1'))
    expect(await ask('GET', add(8081, 1))).toMatchObject(OK)
    expect(await ask('GET', '/get?no=1')).toMatchObject(shown(8081, 2))
    expect(checkups.getUpstream('test')?.cluster).toMatchObject([
      { servers: [{ weight: 5, labels: { zone: 'b', no: '1' } }, { port: 8082 }] },
    ])
    // The number goes on to the other one, and its server with it.
    expect(await ask('GET', add(8082, 1))).toMatchObject(OK)
    expect(await ask('GET', '/get?no=1')).toMatchObject(shown(8082, 1))
  })

  it('a server has one number', async () => {
    const { ask, checkups } = await start()
    await ask('GET', add(8081, 1))
    const before = configOf(checkups)
    expect(await ask('GET', add(8081, 2))).toMatchObject({ status: 409, text: '127.0.0.1:8081 is there already: 1' })
    expect(configOf(checkups)).toEqual(before)
  })

  it('of many at once every number is there once', async () => {
    const { ask, checkups } = await start()
    const paths = Array.from({ length: 30 }, (_, i) => add(8_000 + i, i % 5))
    for (const answer of await Promise.all(paths.map((path) => ask('GET', path)))) expect(answer).toMatchObject(OK)
    const [level] = checkups.getUpstream('test')!.cluster as { servers: { labels: { no: string } }[] }[]
    expect(level!.servers.map(({ labels }) => labels.no).toSorted()).toEqual(['0', '1', '2', '3', '4'])
  })

  it('the last one stays', async () => {
    const { ask } = await start()
    await ask('GET', add(8081, 1))
    expect(await ask('GET', '/delete?no=1')).toMatchObject({ status: 409, text: 'the last server stays: 1' })
    expect(await ask('GET', '/get?no=1')).toMatchObject(shown(8081, 1))
  })
})

describe('what is refused', () => {
  it.each([
    ['/add', ADD],
    ['/add?ip=127.0.0.1&port=80', ADD],
    ['/add?ip=127.0.0.1&no=1', ADD],
    ['/add?port=80&no=1', ADD],
    ['/add?ip=&port=80&no=1', ADD],
    ['/add?ip=127.0.0.1&port=http&no=1', ADD],
    ['/add?ip=127.0.0.1&port=80&no=a%0Ab', ADD],
    ['/add?ip=127.0.0.1&port=0&no=1', { status: 400, text: expect.stringContaining('port') as string }],
    ['/add?ip=300.0.0.1&port=80&no=1', { status: 400, text: expect.stringContaining('host') as string }],
    ['/get', GET],
    ['/get?no=', GET],
    ['/delete', GET],
    ['/get?no=7', none('7')],
    ['/delete?no=7', none('7')],
    ['/get?no=__proto__', none('__proto__')],
    ['/get?no=a%0Ab', none('a?b')],
  ])('%s, and nothing has changed', async (path, expected) => {
    for (const upstreams of [{}, { test: { servers: ['10.0.0.1:80', '10.0.0.2:80'] } }]) {
      const { ask, checkups } = await start(upstreams)
      const before = configOf(checkups)
      expect(await ask('GET', path)).toMatchObject(expected)
      expect(configOf(checkups)).toEqual(before)
    }
  })

  it('other methods; and a HEAD changes nothing', async () => {
    const { ask, checkups } = await start({ test: { servers: ['10.0.0.1:80'] } })
    const before = configOf(checkups)
    for (const method of ['HEAD', 'POST', 'PUT', 'DELETE']) {
      for (const path of [add(8081, 1), '/delete?no=1']) expect(await ask(method, path)).toMatchObject({ status: 405 })
    }
    expect(configOf(checkups)).toEqual(before)
    expect(await ask('HEAD', '/get?no=1')).toMatchObject({ status: 404, text: '' })
    expect(await ask('GET', '/other')).toMatchObject({ status: 404 })
  })

  it('changes, where a GET may make none', async () => {
    const { ask, checkups } = await start({}, { stateChangingGets: false })
    expect(await ask('GET', add(8081, 1))).toMatchObject({ status: 403 })
    expect(await ask('GET', '/delete?no=1')).toMatchObject({ status: 403 })
    expect(await ask('GET', '/get?no=1')).toMatchObject(none('1'))
    expect(checkups.getUpstreams().size).toBe(0)
  })
})
