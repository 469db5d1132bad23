import { describe, expect, it } from 'vitest'
import { consulServices, type ConsulServiceOptions } from '../../../src/source/consul.js'
import { startConsul, whereConsul, type ConsulAgent } from '../../support/consul.js'
import { eventually } from '../../support/eventually.js'
import { pretend, watch, register } from './harness.js'

const ttl = { TTL: '60s', Status: 'passing' }
/** The state of the check of a service. */
const turn = (consul: ConsulAgent, id: string, state: 'pass' | 'warn' | 'fail') =>
  consul.api('PUT', `/v1/agent/check/${state}/service:${id}`)
const services = (consul: ConsulAgent, api: ConsulServiceOptions | string, token?: string) => {
  const [source] = consulServices({ services: { api }, address: consul.address, token })
  return watch(source!)
}

whereConsul('consulServices against Consul', () => {
  it('follows instances: their addresses, weights, meta, checks and maintenance', async () => {
    const consul = await startConsul()
    const meta = { zone: 'b', max_fails: '3', fail_timeout: '5', backup: '1', version: '2' }
    await register(consul, { ID: 'z', Name: 'api', Address: '10.0.0.9', Port: 80, Meta: meta, Check: ttl })
    await register(consul, { ID: 'a', Name: 'api', Port: 81, Weights: { Passing: 10, Warning: 2 }, Check: ttl })
    await register(consul, { ID: 'c', Name: 'api', Port: 82, Meta: { weight: '7' }, Check: ttl })
    await register(consul, { ID: 'twin', Name: 'api', Port: 82, Check: ttl })
    await register(consul, { ID: 'wrong', Name: 'api', Port: 83, Meta: { weight: 'much' }, Check: ttl })
    await register(consul, { ID: 'nowhere', Name: 'api', Check: ttl })
    const [passing, warning] = [services(consul, 'api'), services(consul, { service: 'api', passing: 'warning' })]
    const zone = { maxFails: 3, failTimeout: 5_000, backup: true, labels: { zone: 'b', version: '2' } }
    const all = {
      '10.0.0.9:80': { weight: 1, ...zone },
      '127.0.0.1:81': { weight: 10 },
      '127.0.0.1:82': { weight: 7 },
    }
    await eventually(() => expect(passing.servers('api')).toEqual(all))
    await eventually(() => expect(warning.servers('api')).toEqual(all))
    expect(Object.keys(passing.servers('api')!)).toEqual(Object.keys(all)) // Sorted.
    expect(passing.refused().map(({ at, reason }) => `${at.split(' ')[0]!}: ${reason}`)).toEqual([
      'nowhere: port: expected an integer from 1 to 65535, got 0',
      'wrong: weight: expected an integer from 0 to 2147483647, got "much"',
    ])

    await turn(consul, 'a', 'warn')
    await eventually(() => expect(passing.servers('api')).not.toHaveProperty(['127.0.0.1:81']))
    await eventually(() => expect(warning.servers('api')?.['127.0.0.1:81']).toEqual({ weight: 2 }))
    await turn(consul, 'a', 'fail')
    await eventually(() => expect(warning.servers('api')).not.toHaveProperty(['127.0.0.1:81']))
    await turn(consul, 'a', 'pass')
    await consul.api('PUT', '/v1/agent/service/maintenance/z?enable=true&reason=disk')
    await eventually(() => {
      expect(Object.keys(passing.servers('api')!)).toEqual(['127.0.0.1:81', '127.0.0.1:82'])
      expect(Object.keys(warning.servers('api')!)).toEqual(['127.0.0.1:81', '127.0.0.1:82'])
    })
    await consul.api('PUT', '/v1/agent/service/maintenance/z?enable=false')
    await eventually(() => expect(passing.servers('api')).toEqual(all))
    for (const id of ['z', 'a', 'c', 'twin', 'wrong', 'nowhere'])
      await consul.api('PUT', `/v1/agent/service/deregister/${id}`)
    await eventually(() => expect(passing.servers('api')).toEqual({})) // Whoever follows keeps the last list.
    expect([...passing.errors, ...warning.errors]).toEqual([])
  })

  it('takes only instances with all the tags, and is not woken by other services', async () => {
    const consul = await startConsul()
    await register(consul, { ID: 'a', Name: 'api', Port: 81, Tags: ['v1'] })
    await register(consul, { ID: 'b', Name: 'api', Port: 82, Tags: ['v1', 'eu'] })
    const one = services(consul, { service: 'api', tag: 'v1' })
    const both = services(consul, { service: 'api', tag: ['v1', 'eu'], near: '_agent', filter: 'Service.Port != 99' })
    await eventually(() => expect(Object.keys(one.servers('api') ?? {})).toEqual(['127.0.0.1:81', '127.0.0.1:82']))
    await eventually(() => expect(Object.keys(both.servers('api') ?? {})).toEqual(['127.0.0.1:82']))
    await register(consul, { ID: 'c', Name: 'other', Port: 83 })
    await consul.put('some/key', 'value')
    await register(consul, { ID: 'd', Name: 'api', Port: 84, Tags: ['v1', 'eu'] })
    await eventually(() => expect(Object.keys(both.servers('api')!)).toEqual(['127.0.0.1:82', '127.0.0.1:84']))
    expect(both.lists).toHaveLength(2)
  })

  it('does not take a service that it may not read for an empty one', async () => {
    const consul = await startConsul({ acl: 'root' })
    await register(consul, { ID: 'a', Name: 'api', Port: 81 })
    const rules = 'service "empty" { policy = "read" } node_prefix "" { policy = "read" }'
    await consul.api('PUT', '/v1/acl/policy', { Name: 'p', Rules: rules })
    const made = await consul.api('PUT', '/v1/acl/token', { Policies: [{ Name: 'p' }] })
    const token = (JSON.parse(made.text) as { SecretID: string }).SecretID
    const [denied, empty, unknown] = [
      services(consul, 'api', token),
      services(consul, 'empty', token),
      services(consul, 'api', 'none'),
    ]
    await eventually(() => expect(denied.errors.length).toBeGreaterThan(0))
    expect(denied.errors[0]!.message).toMatch(/^denied: the token may not read the service "api"/)
    await eventually(() => expect(unknown.errors[0]?.message).toMatch(/^denied: ACL not found/))
    await eventually(() => expect(empty.lists.length).toBeGreaterThan(0))
    expect([denied.lists, unknown.lists, empty.errors]).toEqual([[], [], []])
  })

  it('survives an agent that was killed', async () => {
    const consul = await startConsul()
    await register(consul, { ID: 'a', Name: 'api', Port: 81 })
    const watched = services(consul, 'api')
    await eventually(() => expect(watched.lists.length).toBeGreaterThan(0))
    await consul.kill()
    await eventually(() => expect(watched.errors.length).toBeGreaterThan(0))
    await consul.start()
    await register(consul, { ID: 'b', Name: 'api', Port: 82 })
    await eventually(() => expect(Object.keys(watched.servers('api')!)).toEqual(['127.0.0.1:82']))
  })
})

describe('consulServices', () => {
  it('makes a source for each service, with a snapshot of its own', () => {
    const sources = consulServices({
      services: { api: 'api', 'eu/api': { service: 'api', dc: 'eu' } },
      ...{ snapshot: '/var/lib/checkups', allowEmpty: true },
    })
    expect(sources.map(({ name, options }) => ({ name, options }))).toEqual([
      { name: 'consul:api', options: { allowEmpty: true, snapshot: '/var/lib/checkups.api' } },
      { name: 'consul:api (eu/api)', options: { allowEmpty: true, snapshot: '/var/lib/checkups.eu%2Fapi' } },
    ])
  })

  it('takes an instance that is not like one as refused, not as an end', async () => {
    const address = await pretend((_, res) => {
      res.writeHead(200, { 'content-type': 'application/json' })
      res.end(
        JSON.stringify([{}, { Service: { ID: 'a', Port: 80, Meta: [] }, Node: { Node: 'n', Address: '127.0.0.1' } }]),
      )
    })
    const [source] = consulServices({ services: { api: 'api' }, address })
    const watched = watch(source!)
    await eventually(() => expect(watched.lists.length).toBeGreaterThan(0))
    expect(watched.refused()).toEqual([
      { at: 'undefined on undefined', reason: 'is no service' },
      { at: 'a on n', reason: 'Meta: expected an object, got an array of 0' },
    ])
  })

  it.each([
    [{}, /^consulServices.services: expected an object/],
    [{ services: { api: {} } }, /^consulServices.services\["api"\].service: expected a non-empty string/],
    [{ services: { api: { service: 'a', passing: false } } }, /passing: expected true or "warning"/],
    [{ services: { api: { service: 'a', tags: [] } } }, /\.tags: unknown option/],
    [{ services: { api: { service: 'a', tag: [1] } } }, /\.tag\[0\]: expected a non-empty string/],
  ])('refuses %j', (options, message) => {
    expect(() => consulServices(options as never)).toThrow(message)
  })
})
