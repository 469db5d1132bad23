import { once } from 'node:events'
import { connect } from 'node:net'
import { describe, expect, it } from 'vitest'
import type { BalancedProxyOptions } from '../../src/adapter/http-proxy.js'
import type { BalancerFactory, Member, Request } from '../../src/index.js'
import { answers, inFlight, proxies, send, startGateway, startServer } from '../support/http.js'
import type { SendOptions } from '../support/http.js'

const failure502 = { status: 502, text: '502 Bad Gateway\n' }

describe('which upstream', () => {
  const byHost: [says: string, host: string, upstream: string][] = [
    ['is the Host header', 'shop.example', 'shop.example'],
    ['without its port', 'shop.example:8080', 'shop.example'],
    ['in lower case', 'SHOP.Example:80', 'shop.example'],
    ['also of an IPv4 address', '127.0.0.1:8080', '127.0.0.1'],
    ['also of an IPv6 address', '[::1]:8080', '[::1]'],
    ['also of an IPv6 address without a port', '[::1]', '[::1]'],
    ['whatever it is called', '__proto__', '__proto__'],
  ]
  it.each(byHost)('%s: %s is %s', async (_, host, key) => {
    const a = await startServer('a')
    const gateway = await startGateway([a])
    await gateway.checkups.updateUpstream(key, { servers: [a.address] })
    await gateway.checkups.deleteUpstream('test')
    expect(await send(gateway, { headers: { host } })).toMatchObject({ status: 200, text: 'a' })
    expect(a.seen[0]?.headers.host).toBe(host)
  })

  const none: [says: string, host: string, options: BalancedProxyOptions][] = [
    ['an unknown host', 'unknown.example', {}],
    ['an empty host', '', {}],
    ['the name of something every object has', 'constructor', {}],
    ['a key that is undefined', 'test', { key: () => undefined }],
    ['a key function that throws', 'test', { key: () => fail() }],
    ['a hashKey function that throws', 'test', { hashKey: () => fail() }],
    ['a clusterKey function that throws', 'test', { clusterKey: () => fail() }],
  ]
  it.each(none)('%s is answered with 502 and a line of text', async (_, host, options) => {
    const a = await startServer('a')
    const gateway = await startGateway([a], options)
    const reply = await send(gateway, { headers: { host } })
    expect(reply).toMatchObject({ ...failure502, headers: { 'content-type': 'text/plain' } })
    expect([a.seen.length, inFlight(gateway)]).toEqual([0, 0])
  })

  it('a request without Host is answered with 502', async () => {
    const gateway = await startGateway([await startServer('a')])
    const socket = connect(gateway.port, '127.0.0.1').setEncoding('latin1')
    socket.write('GET / HTTP/1.0\r\n\r\n')
    const [head] = (await once(socket, 'data')) as [string]
    socket.destroy()
    expect(head).toMatch(/^HTTP\/1\.1 502 Bad Gateway\r\n/)
  })

  it('is what a key function says', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const gateway = await startGateway([a], {
      upstreams: { other: { servers: [b.address] } },
      key: ({ url }) => (url === '/b' ? 'other' : 'test'),
    })
    expect([await answers(gateway, 1, { path: '/b' }), await answers(gateway, 1)]).toEqual(['b', 'a'])
  })
})

describe.each(Object.entries(proxies))('which peer, with %s', (_, makeProxy) => {
  it('takes turns', async () => {
    const servers = [await startServer('a'), await startServer('b'), await startServer('c')]
    expect(await answers(await startGateway(servers, { proxy: makeProxy() }), 9)).toBe('abcabcabc')
  })

  it('goes by weight', async () => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const gateway = await startGateway([{ address: a.address, weight: 3 }, b], { proxy: makeProxy() })
    expect(await answers(gateway, 8)).toBe('aabaaaba')
  })
})

describe('what is hashed', () => {
  const rows: [says: string, hashKey: BalancedProxyOptions['hashKey'], options: SendOptions, hashed: unknown][] = [
    ['the address of the client', 'ip', {}, '127.0.0.1'],
    ['the URL', 'url', { path: '/a?b=c' }, '/a?b=c'],
    ['a header', { header: 'X-User' }, { headers: { 'x-user': 'ann' } }, 'ann'],
    ['a header that is not there', { header: 'X-User' }, {}, undefined],
    ['a cookie', { header: 'cookie' }, { headers: { cookie: 'a=1; b=2' } }, 'a=1; b=2'],
    ['what a function says', ({ method = '' }) => `${method}!`, { method: 'PUT' }, 'PUT!'],
    ['bytes', () => Uint8Array.of(1, 2), {}, Uint8Array.of(1, 2)],
    ['nothing', undefined, {}, undefined],
  ]
  it.each(rows)('%s', async (_, hashKey, options, expected) => {
    const asked: Request['hashKey'][] = []
    const balancer: BalancerFactory = () => {
      let all: readonly Member[] = []
      return {
        update: (members) => (all = members),
        pick: (request) => {
          asked.push(request.hashKey)
          return all.find(({ available }) => available)
        },
      }
    }
    const gateway = await startGateway([await startServer('a')], { upstream: { balancer }, hashKey })
    expect(await answers(gateway, 1, options)).toBe('a')
    expect(asked).toEqual([expected])
  })
})

describe('clusterKey', () => {
  const rows: [path: string, clusters: string | string[] | undefined, answered: string][] = [
    ['one cluster', 'dc2', 'b'],
    ['several, in this order', ['dc2', 'dc1'], 'b'],
    ['none', undefined, 'a'],
    ['one that is unknown, and one that is not', ['dc9', 'dc2'], 'b'],
  ]
  it.each(rows)('%s', async (_, clusterKey, answered) => {
    const [a, b] = [await startServer('a'), await startServer('b')]
    const cluster = { dc1: { servers: [a.address] }, dc2: { servers: [b.address] } }
    const gateway = await startGateway([], {
      upstream: { allowEmpty: true },
      upstreams: { both: { cluster } },
      clusterKey: () => clusterKey,
    })
    expect(await answers(gateway, 2, { headers: { host: 'both' } })).toBe(answered.repeat(2))
  })
})

function fail(): never {
  throw new Error('of the application')
}
