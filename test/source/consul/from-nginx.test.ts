import { describe, expect, it, onTestFinished } from 'vitest'
import { Checkups } from '../../../src/index.js'
import { consulFromUpsync } from '../../../src/source/consul.js'
import { parseNginx } from '../../../src/source/nginx.js'
import { startConsul, whereConsul } from '../../support/consul.js'

const upsyncOf = (directive: string) => {
  const { upstreams } = parseNginx(`upstream shop { upsync ${directive}; server 127.0.0.1:11111; }`)
  return upstreams.get('shop')!.upsync!
}

describe('consulFromUpsync', () => {
  it('takes over strong_dependency, and is told of one upstream', () => {
    const directive = '127.0.0.1:8500/v1/kv/upstreams/test/ upsync_timeout=6m upsync_interval=500ms upsync_type=consul'
    const weak = consulFromUpsync('shop', upsyncOf(directive))
    expect(weak).toMatchObject({ name: 'consul:upstreams/test (shop)', options: { required: false } })
    const strong = consulFromUpsync('shop', upsyncOf(`${directive} strong_dependency=on`), {
      snapshot: '/tmp/shop.json',
    })
    expect(strong.options).toMatchObject({ required: true, snapshot: '/tmp/shop.json' })
  })

  it.each([
    ['127.0.0.1:8500/v1/catalog/service/shop%20a upsync_type=consul_services', 'consul:shop a (shop)'],
    ['127.0.0.1:8500/v1/health/service/shop upsync_type=consul_health', 'consul:shop'],
  ])('%s', (directive, name) => {
    expect(consulFromUpsync('shop', upsyncOf(directive)).name).toBe(name)
  })

  it.each([
    [
      '127.0.0.1:8500/upstreams/test upsync_type=consul',
      'expected a path as /v1/kv/upstreams/shop/, got /upstreams/test',
    ],
    ['127.0.0.1:8500/v1/kv/x upsync_type=consul_health', 'expected a path as /v1/health/service/shop, got /v1/kv/x'],
    ['127.0.0.1:2379/v2/keys/x upsync_type=etcd', 'etcd is not supported'],
  ])('refuses %s', (directive, problem) => {
    expect(() => consulFromUpsync('shop', upsyncOf(directive))).toThrow(`upsync of shop: ${problem}`)
  })
})

whereConsul('an upstream of an nginx configuration, followed', () => {
  it('has the servers of Consul, and not the dummy of the file', async () => {
    const consul = await startConsul()
    await consul.put('upstreams/test/10.0.0.1:80', { weight: 3 })
    const upsync = upsyncOf(`127.0.0.1:${consul.port}/v1/kv/upstreams/test/ upsync_type=consul strong_dependency=on`)
    const checkups = new Checkups({ sources: [consulFromUpsync('shop', upsync)] })
    onTestFinished(() => checkups.close())
    await checkups.start()
    expect(checkups.selectPeer('shop')!.address).toBe('10.0.0.1:80')
    const changed = new Promise((resolve) => checkups.on('upstream:update', resolve))
    await consul.put('upstreams/test/10.0.0.2:80', '')
    await changed
    expect(checkups.getStatus().upstreams[0]!.levels[0]!.servers.map(({ address }) => address)).toEqual([
      '10.0.0.1:80',
      '10.0.0.2:80',
    ])
  })
})
