import { describe, expect, it, onTestFinished } from 'vitest'
import { consulConfig, type ConsulConfigOptions } from '../../../src/source/consul.js'
import { startConsul, whereConsul } from '../../support/consul.js'
import { VirtualClock } from '../../support/virtual-clock.js'
import { answer, pretend } from './harness.js'

const start = (options: ConsulConfigOptions) => {
  const config = consulConfig(options)
  onTestFinished(config.close)
  return config
}

whereConsul('consulConfig against Consul', () => {
  it('gets values by name, keeps them for a while, and that there is none for half of it', async () => {
    const consul = await startConsul()
    await consul.put('config/slardar/myargs', { a: [1] })
    await consul.put('config/slardar/text', 'plain text')
    await consul.put('config/slardar/dir/none', '')
    const clock = new VirtualClock()
    const config = start({ address: consul.address, clock })
    const get = (name: string) => config.get(name)
    expect(await get('myargs')).toEqual({ a: [1] })
    expect(await get('text')).toBe('plain text')
    expect(await get('dir/none')).toBe('')
    expect(await get('later')).toBeUndefined()
    await consul.put('config/slardar/myargs', { a: [2] })
    await consul.put('config/slardar/later', 'true')
    await clock.advance(4_999)
    expect(await get('later')).toBeUndefined()
    await clock.advance(2)
    expect(await get('later')).toBe(true)
    await clock.advance(4_998)
    expect(await get('myargs')).toEqual({ a: [1] })
    await clock.advance(2)
    expect(await get('myargs')).toEqual({ a: [2] })

    await consul.put('config/slardar/myargs', { a: [3] })
    config.refresh('myargs')
    expect(await get('myargs')).toEqual({ a: [3] })
    await consul.kill()
    await clock.advance(20_000)
    expect(await get('myargs')).toEqual({ a: [3] }) // The last one known.
    await expect(get('never')).rejects.toMatchObject({ code: 'ERR_CHECKUPS_CONSUL', reason: 'unreachable' })
  })
})

describe('consulConfig', () => {
  it('asks once for many who ask at once, and once for as long as the value is kept', async () => {
    const asked: string[] = []
    const address = await pretend((req, res) => {
      asked.push(req.url!)
      answer(res, { 'app/a': '1' })
    })
    const config = start({ address, prefix: '/app/' })
    expect(await Promise.all(Array.from({ length: 10 }, () => config.get('a')))).toEqual(Array(10).fill(1))
    expect(await config.get('a')).toBe(1)
    config.refresh()
    expect(await config.get('a')).toBe(1)
    expect(asked).toEqual(['/v1/kv/app%2Fa', '/v1/kv/app%2Fa'])
  })

  it('does not ask a Consul that is down again and again for a value that it has', async () => {
    let asks = 0
    const address = await pretend((_, res) => {
      asks++
      if (asks === 1) answer(res, { 'config/slardar/a': '1' })
      else res.writeHead(500).end()
    })
    const clock = new VirtualClock()
    const config = start({ address, clock })
    await config.get('a')
    await clock.advance(10_001)
    expect([await config.get('a'), await config.get('a'), asks]).toEqual([1, 1, 2])
    await clock.advance(5_001)
    expect([await config.get('a'), asks]).toEqual([1, 3])
  })

  it('ends what is under way when it is closed', async () => {
    const address = await pretend(() => undefined)
    const config = start({ address })
    const asked = config.get('a')
    config.close()
    await expect(asked).rejects.toThrow(/closed|abort/i)
  })

  it.each(['', '../secret', 'a//b', './a', 5])('refuses the name %j', async (name) => {
    await expect(start({}).get(name as string)).rejects.toThrow(/^name: expected the name of a key/)
  })

  it('refuses bad options', () => {
    expect(() => consulConfig({ positiveTtl: 0 })).toThrow(/^consulConfig.positiveTtl: /)
    expect(() => consulConfig({ ttl: 5 } as never)).toThrow(/^consulConfig.ttl: unknown option/)
  })
})
