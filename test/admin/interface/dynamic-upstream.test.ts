import { describe, expect, it } from 'vitest'
import type { UpstreamOptions } from '../../../src/index.js'
import { startServer } from '../../support/http.js'
import { ancestor, configOf, gatewayWith } from './support.js'

const SERVERS = ['127.0.0.1:6001', '127.0.0.1:6002', '127.0.0.1:6003']
const start = (backends: UpstreamOptions = { servers: SERVERS }, options = {}) =>
  ancestor({ dynamicUpstream: true }, { upstreams: { backends } }, options)

const SOMETHING: unknown = expect.stringMatching(/./)
const PATH = '/dynamic?upstream=backends'
const lines = (...words: string[]) => words.map((word) => `server ${word};\n`).join('')
const verbose = (...words: string[]) =>
  lines(...words.map((word) => word.replace(/^(\S+)/, '$1 weight=1 max_fails=1 fail_timeout=10')))

describe('listing', () => {
  it('addresses, or all that is said of them', async () => {
    const { ask } = await start()
    const answer = await ask('GET', PATH)
    expect(answer).toMatchObject({ status: 200, text: lines(...SERVERS) })
    expect(answer.headers['content-type']).toMatch(/^text\/plain/)
    expect(await ask('GET', `${PATH}&verbose=`)).toMatchObject({ status: 200, text: verbose(...SERVERS) })
  })

  it('levels and backups', async () => {
    const { ask } = await start({
      cluster: [
        { servers: [{ address: 'a:1', weight: 3, maxFails: 0, failTimeout: 2_500 }] },
        { servers: [{ address: 'b:1', down: true }] },
      ],
    })
    expect((await ask('GET', PATH)).text).toBe(lines('a:1', 'b:1 backup down'))
    expect((await ask('GET', `${PATH}&verbose=`)).text).toBe(
      lines('a:1 weight=3 max_fails=0 fail_timeout=2.5', 'b:1 weight=1 max_fails=1 fail_timeout=10 backup down'),
    )
  })

  it('an upstream that is none is 404', async () => {
    const { ask } = await start()
    for (const query of ['', '?upstream=', '?upstream=nobody', '?upstream=a%20b&add=&server=a:1', '?verbose=']) {
      expect(await ask('GET', `/dynamic${query}`)).toMatchObject({ status: 404, text: SOMETHING })
    }
  })
})

describe('updating', () => {
  it('all parameters', async () => {
    const { ask, checkups } = await start()
    const answer = await ask('GET', `${PATH}&server=127.0.0.1:6003&weight=10&max_fails=5&fail_timeout=5`)
    expect(answer).toMatchObject({
      status: 200,
      text: `${verbose(SERVERS[0]!, SERVERS[1]!)}${lines('127.0.0.1:6003 weight=10 max_fails=5 fail_timeout=5')}`,
    })
    expect(checkups.getUpstream('backends')?.cluster).toMatchObject([
      { servers: [{}, {}, { weight: 10, maxFails: 5, failTimeout: 5_000 }] },
    ])
  })

  it.each([
    ['weight=3', { weight: 3 }],
    ['weight=0', { weight: 0 }],
    ['max_fails=0', { maxFails: 0 }],
    ['fail_timeout=7', { failTimeout: 7_000 }],
    ['fail_timeout=0', { failTimeout: 1_000 }],
    ['down=', { down: true }],
    ['weight=3&down=', { weight: 3, down: true }],
  ])('%s alone', async (parameters, expected) => {
    const { ask, checkups } = await start()
    const before = checkups.getUpstream('backends')!.cluster as { servers: object[] }[]
    expect(await ask('GET', `${PATH}&server=127.0.0.1:6002&${parameters}`)).toMatchObject({ status: 200 })
    const [first, second, third] = before[0]!.servers
    expect(checkups.getUpstream('backends')!.cluster).toEqual([{ servers: [first, { ...second, ...expected }, third] }])
  })

  it('down and up again', async () => {
    const { ask, checkups } = await start()
    expect((await ask('GET', `${PATH}&server=127.0.0.1:6003&down=`)).text).toBe(
      verbose(SERVERS[0]!, SERVERS[1]!, `${SERVERS[2]} down`),
    )
    expect((await ask('GET', PATH)).text).toBe(lines(SERVERS[0]!, SERVERS[1]!, `${SERVERS[2]} down`))
    for (let i = 0; i < 6; i++) expect(checkups.selectPeer('backends')?.port).not.toBe(6_003)
    expect((await ask('GET', `${PATH}&server=127.0.0.1:6003&up=`)).text).toBe(verbose(...SERVERS))
  })

  it('is in use at once', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const servers = [a.address, b.address]
    const { ask, get } = await gatewayWith({ dynamicUpstream: true }, { backends: { servers } })
    expect((await ask('GET', `${PATH}&server=${a.address}&down=`)).status).toBe(200)
    expect([await get('backends'), await get('backends')]).toEqual(['b', 'b'])
  })
})

describe('adding and removing', () => {
  it('add', async () => {
    const { ask } = await start()
    expect(await ask('GET', `${PATH}&server=127.0.0.1:6004&add=`)).toMatchObject({
      status: 200,
      text: lines(...SERVERS, '127.0.0.1:6004'),
    })
  })

  it('add with parameters', async () => {
    const { ask } = await start()
    const text = (server: string) => `${verbose(...SERVERS)}${lines(server)}`
    expect((await ask('GET', `${PATH}&server=127.0.0.1:6004&add=&weight=10`)).text).toBe(
      text('127.0.0.1:6004 weight=10 max_fails=1 fail_timeout=10'),
    )
    await ask('GET', `${PATH}&server=127.0.0.1:6004&remove=`)
    expect((await ask('GET', `${PATH}&server=127.0.0.1:6004&add=&max_fails=2&fail_timeout=3&down=`)).text).toBe(
      text('127.0.0.1:6004 weight=1 max_fails=2 fail_timeout=3 down'),
    )
  })

  it('add as a backup', async () => {
    const { ask } = await start()
    expect((await ask('GET', `${PATH}&server=127.0.0.1:6004&add=&backup=1`)).text).toBe(
      lines(...SERVERS, '127.0.0.1:6004 backup'),
    )
    expect((await ask('GET', `${PATH}&server=127.0.0.1:6005&add=&backup=0`)).text).toContain('6005;')
  })

  it.each([0, 1, 2])('remove the one at %i', async (i) => {
    const { ask } = await start()
    expect(await ask('GET', `${PATH}&server=${SERVERS[i]}&remove=`)).toMatchObject({
      status: 200,
      text: lines(...SERVERS.toSpliced(i, 1)),
    })
  })
})

describe('what is refused', () => {
  it.each([
    'server=127.0.0.1:6004&add=&remove=',
    'server=127.0.0.1:6003&up=&down=',
    'server=127.0.0.1:6003&add=',
    'server=127.0.0.1:6004&remove=',
    'server=127.0.0.1:6004&down=',
    'server=127.0.0.1:6003&backup=1',
    'server=127.0.0.1:6004&add=&backup=2',
    ...['weight=', 'weight=x', 'weight=-1', 'weight=1.5', 'weight=1e3', 'weight=99999999999'].map(
      (w) => `server=127.0.0.1:6003&${w}`,
    ),
    'server=127.0.0.1:6003&max_fails=x',
    'server=127.0.0.1:6003&fail_timeout=5s',
    'add=',
    'add=&server=',
    'add=&server=127.0.0.1',
    'add=&server=127.0.0.1:99999',
    'remove=',
    'remove=&server=x',
    'weight=3',
    'down=',
  ])('%s is 400, and nothing has changed', async (query) => {
    const { ask, checkups } = await start()
    const before = configOf(checkups)
    expect(await ask('GET', `${PATH}&${query}`)).toMatchObject({ status: 400, text: SOMETHING })
    expect(configOf(checkups)).toEqual(before)
  })

  it('to remove the last one', async () => {
    const { ask } = await start({ servers: ['127.0.0.1:6001'] })
    expect(await ask('GET', `${PATH}&server=127.0.0.1:6001&remove=`)).toMatchObject({
      status: 400,
      text: 'the last server cannot be removed\n',
    })
    expect((await ask('GET', PATH)).text).toBe(lines('127.0.0.1:6001'))
  })

  it('other methods; and a HEAD changes nothing', async () => {
    const { ask, checkups } = await start()
    const before = configOf(checkups)
    for (const method of ['POST', 'PUT', 'DELETE']) {
      expect(await ask(method, `${PATH}&server=127.0.0.1:6004&add=`)).toMatchObject({ status: 405 })
    }
    expect(await ask('HEAD', `${PATH}&server=127.0.0.1:6004&add=`)).toMatchObject({ status: 200, text: '' })
    expect(configOf(checkups)).toEqual(before)
    expect(await ask('GET', '/dynamic/x')).toMatchObject({ status: 404 })
  })

  it('changes, where a GET may make none; listing goes on', async () => {
    const { ask, checkups } = await start(undefined, { stateChangingGets: false })
    const before = configOf(checkups)
    for (const query of [
      'server=127.0.0.1:6004&add=',
      'server=127.0.0.1:6003&remove=',
      'server=127.0.0.1:6003&weight=2',
    ]) {
      expect(await ask('GET', `${PATH}&${query}`)).toMatchObject({ status: 403 })
    }
    expect(configOf(checkups)).toEqual(before)
    expect(await ask('GET', `${PATH}&verbose=`)).toMatchObject({ status: 200 })
  })
})
