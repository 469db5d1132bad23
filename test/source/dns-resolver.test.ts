import { createSocket } from 'node:dgram'
import { once } from 'node:events'
import { encode } from 'dns-packet'
import { describe, expect, it, onTestFinished } from 'vitest'
import { systemClock, type Clock } from '../../src/clock.js'
import { Resolver } from '../../src/source/dns/resolver.js'
import { a, aaaa, cname, ns, NXDOMAIN, SERVFAIL, SILENT, soa, srv, startDns, zoneOf } from '../support/dns.js'
import type { DnsServer, Reply, Zone } from '../support/dns.js'
import { VirtualClock } from '../support/virtual-clock.js'

const NAME = 'api.test'
/** Milliseconds for each question. */
const TIMEOUT = 5_000
const OK: Reply = { answers: [a(NAME, '10.0.0.1')] }

function resolver(servers: readonly Pick<DnsServer, 'port'>[], clock: Clock = systemClock) {
  const controller = new AbortController()
  const resolver = new Resolver(
    () => servers.map(({ port }) => ({ address: `127.0.0.1:${port}`, host: '127.0.0.1', port })),
    TIMEOUT,
  )
  const context = { signal: controller.signal, clock }
  return {
    controller,
    data: async (type: 'A' | 'AAAA' | 'SRV' = 'A', name = NAME) =>
      (await resolver.resolve(name, type, context)).records.map(({ data }) => data),
    resolve: (type: 'A' | 'AAAA' | 'SRV' = 'A', name = NAME) => resolver.resolve(name, type, context),
  }
}

/** On this clock the time of a question is over when it was asked of one who says nothing, and never else. */
function silentOn(clock: VirtualClock): Zone {
  return () => {
    clock.advanceSync(TIMEOUT)
    return SILENT
  }
}

/** A port where nobody listens. */
async function closedPort(): Promise<number> {
  const socket = createSocket('udp4').bind(0, '127.0.0.1')
  await once(socket, 'listening')
  const { port } = socket.address()
  await new Promise<void>((done) => socket.close(done))
  return port
}

describe('answers', () => {
  it('are records of the name and the type, with the least time to live', async () => {
    const server = await startDns(() => ({
      answers: [a(NAME, '10.0.0.1', 30), a(NAME, '10.0.0.2', 20), a('other.test', '10.9.9.9', 1), aaaa(NAME, '::1', 1)],
    }))
    const { records, ttl } = await resolver([server]).resolve()
    expect(records.map(({ data }) => data)).toEqual(['10.0.0.1', '10.0.0.2'])
    expect(ttl).toBe(20)
  })

  it('may write a name in capitals and with a dot', async () => {
    const server = await startDns(() => ({
      answers: [a('API.Test', '10.0.0.1')],
      alter: (packet) => ({ ...packet, questions: [{ name: 'API.TEST.', type: 'A', class: 'IN' }] }),
    }))
    expect(await resolver([server]).data()).toEqual(['10.0.0.1'])
  })

  it('may be empty, for as long as the zone says', async () => {
    const server = await startDns(() => ({ authorities: [soa('test', 300, 17)] }))
    expect(await resolver([server]).resolve()).toEqual({ records: [], additionals: [], ttl: 17 })
    server.zone = () => ({})
    expect((await resolver([server]).resolve()).ttl).toBe(0)
  })

  it('with a time to live that nobody can mean hold for none (RFC 2181)', async () => {
    const server = await startDns(() => ({ answers: [a(NAME, '10.0.0.1', 2 ** 31)] }))
    expect((await resolver([server]).resolve()).ttl).toBe(0)
  })

  it('are asked for with EDNS 4,096, another id and another port each time', async () => {
    const server = await startDns(() => OK)
    const { data } = resolver([server])
    for (let i = 0; i < 20; i++) await data()
    expect(server.asked.every(({ over, size }) => over === 'udp' && size === 4_096)).toBe(true)
    expect(new Set(server.asked.map(({ id }) => id)).size).toBeGreaterThan(15)
    expect(new Set(server.asked.map(({ port }) => port)).size).toBeGreaterThan(15)
  })
})

describe('aliases', () => {
  it('are followed within an answer and by further questions, and count for the time to live', async () => {
    const server = await startDns(({ name }) =>
      name === NAME
        ? { answers: [cname(NAME, 'b.test', 40), cname('b.test', 'c.test', 30)] }
        : { answers: [cname('c.test', 'd.test', 50), a('d.test', '10.0.0.4', 60)] },
    )
    const { records, ttl } = await resolver([server]).resolve()
    expect(records.map(({ data }) => data)).toEqual(['10.0.0.4'])
    expect(ttl).toBe(30)
    expect(server.asked.map(({ name }) => name)).toEqual([NAME, 'c.test'])
  })

  it('that lead to nothing are an empty answer', async () => {
    const server = await startDns(({ name }) => (name === NAME ? { answers: [cname(NAME, 'b.test')] } : {}))
    expect(await resolver([server]).data()).toEqual([])
  })

  it('that go round, or on and on, are an error', async () => {
    const server = await startDns(() => ({ answers: [cname(NAME, 'b.test'), cname('b.test', NAME)] }))
    await expect(resolver([server]).data()).rejects.toThrow('api.test A: more than 16 aliases')
    let i = 0
    server.zone = ({ name }) => ({ answers: [cname(name, `n${i++}.test`)] })
    await expect(resolver([server]).data()).rejects.toThrow('more than 16 aliases')
  })

  it('for what is no name are an error', async () => {
    const server = await startDns(() => ({ answers: [cname(NAME, 'a b.test')] }))
    await expect(resolver([server]).data()).rejects.toThrow('an alias for "a b.test"')
  })
})

describe('what is no answer to the question', () => {
  it('is not listened to: a wrong id, another question, a question', async () => {
    const server = await startDns(() => SILENT)
    const bad: Reply['alter'][] = [
      (packet) => ({ ...packet, id: packet.id! ^ 1 }),
      (packet) => ({ ...packet, questions: [{ name: 'other.test', type: 'A' }] }),
      (packet) => ({ ...packet, questions: [{ name: NAME, type: 'AAAA' }] }),
      (packet) => ({ ...packet, questions: [] }),
      (packet) => ({ ...packet, type: 'query' }),
    ]
    const wrong = { answers: [a(NAME, '10.6.6.6')] }
    for (const alter of bad) {
      // The wrong answer over UDP, and after it, from the same socket, the right one.
      server.zone = (asked) => {
        setImmediate(() => {
          const right = { type: 'response' as const, id: asked.id, questions: [{ name: NAME, type: 'A' as const }] }
          server.udp.send(encode({ ...right, answers: [...OK.answers!] }), asked.port, '127.0.0.1')
        })
        return { ...wrong, alter: alter! }
      }
      expect(await resolver([server]).data()).toEqual(['10.0.0.1'])
    }
  })

  it('is not listened to when it comes from elsewhere', async () => {
    const spoofer = createSocket('udp4').bind(0, '127.0.0.1')
    onTestFinished(() => void spoofer.close())
    await once(spoofer, 'listening')
    const server = await startDns(async ({ id, port }) => {
      const spoofed = { type: 'response' as const, id, questions: [{ name: NAME, type: 'A' as const }] }
      await new Promise((sent) =>
        spoofer.send(encode({ ...spoofed, answers: [a(NAME, '10.6.6.6')] }), port, '127.0.0.1', sent),
      )
      return OK
    })
    expect(await resolver([server]).data()).toEqual(['10.0.0.1'])
  })
})

describe('answers that are cut', () => {
  const many = Array.from({ length: 200 }, (_, i) => srv(NAME, `server-number-${i}.some.where.test`, 80))

  it('with the TC bit are asked for over TCP', async () => {
    const server = await startDns(() => ({ answers: many }))
    expect(await resolver([server]).data('SRV')).toHaveLength(200)
    expect(server.asked.map(({ over }) => over)).toEqual(['udp', 'tcp'])
  })

  it('without a word too, if they fill most of their space', async () => {
    const server = await startDns(() => ({ answers: many }), 'silently')
    expect(await resolver([server]).data('SRV')).toHaveLength(200)
    expect(server.asked.map(({ over }) => over)).toEqual(['udp', 'tcp'])
  })

  it('without a word too, if the server knows no EDNS: what there is must do if it has no TCP', async () => {
    const server = await startDns(({ over }) => ({
      answers: over === 'udp' ? many.slice(0, 3) : many,
      withoutEdns: true,
    }))
    expect(await resolver([server]).data('SRV')).toHaveLength(200)
    const clock = new VirtualClock()
    const silent = silentOn(clock)
    server.zone = (asked) => (asked.over === 'udp' ? { answers: many.slice(0, 3), withoutEdns: true } : silent(asked))
    expect(await resolver([server], clock).data('SRV')).toHaveLength(3)
  })

  it('are an error if TCP does not have the rest', async () => {
    const server = await startDns(({ over }) => (over === 'udp' ? { answers: many } : { code: SERVFAIL }))
    await expect(resolver([server]).data('SRV')).rejects.toThrow(`api.test SRV: SERVFAIL (127.0.0.1:${server.port})`)
  })

  it('or that cannot be read are asked for over TCP', async () => {
    const server = await startDns(() => ({ ...OK, garble: (bytes) => bytes.subarray(0, bytes.length - 20) }))
    expect(await resolver([server]).data()).toEqual(['10.0.0.1'])
    expect(server.asked.map(({ over }) => over)).toEqual(['udp', 'tcp'])
  })

  it('of 65 KB come whole over TCP', async () => {
    const huge = Array.from({ length: 1_000 }, (_, i) => srv(NAME, `server-number-${i}.some.where.test`, 80))
    const server = await startDns(() => ({ answers: huge }))
    expect(await resolver([server]).data('SRV')).toHaveLength(1_000)
  })
})

describe('servers that know no EDNS', () => {
  it.each([1, 4])('and say the code %i are asked without it, over TCP', async (code) => {
    const server = await startDns(({ size }) =>
      size === undefined ? OK : { code, withoutEdns: true, alter: (packet) => ({ ...packet, questions: [] }) },
    )
    expect(await resolver([server]).data()).toEqual(['10.0.0.1'])
    expect(server.asked.map(({ over, size }) => [over, size])).toEqual([
      ['udp', 4_096],
      ['tcp', undefined],
    ])
  })
})

describe('several servers', () => {
  it('are asked one after the other, the last one that answered first', async () => {
    const dead = { port: await closedPort() }
    const bad = await startDns(() => ({ code: SERVFAIL }))
    const good = await startDns(() => OK)
    const { data } = resolver([dead, bad, good])
    expect(await data()).toEqual(['10.0.0.1'])
    expect(await data()).toEqual(['10.0.0.1'])
    expect(bad.asked).toHaveLength(1)
    expect(good.asked).toHaveLength(2)
  })

  it('who are silent are left, and asked once more with less space', async () => {
    const clock = new VirtualClock()
    const says = silentOn(clock)
    const silent = await startDns(says)
    const good = await startDns(() => OK)
    expect(await resolver([silent, good], clock).data()).toEqual(['10.0.0.1'])
    expect(silent.asked).toHaveLength(1)
    const deaf = await startDns((asked) => (asked.size! > 1_232 ? says(asked) : OK))
    expect(await resolver([silent, deaf], clock).data()).toEqual(['10.0.0.1'])
    expect(silent.asked.map(({ size }) => size)).toEqual([4_096, 4_096, 1_232])
  })

  it('who all fail are named, each with what it said', async () => {
    const dead = await closedPort()
    const bad = await startDns(() => ({ code: SERVFAIL }))
    const refusing = await startDns(() => ({ code: 5 }))
    const lame = await startDns(() => ({ authorities: [ns('test', 'ns.test')], alter: (p) => ({ ...p, flags: 0 }) }))
    const clock = new VirtualClock()
    const silent = await startDns(silentOn(clock))
    const { data } = resolver([{ port: dead }, bad, refusing, lame, silent], clock)
    const said = (await data().catch((error: unknown) => error)) as Error
    expect(said.message).toMatch(/^api\.test A: /)
    expect(said.message).toContain(`ECONNREFUSED (127.0.0.1:${dead})`)
    expect(said.message).toContain(`SERVFAIL (${bad.address})`)
    expect(said.message).toContain(`REFUSED (${refusing.address})`)
    expect(said.message).toContain(`a referral: it asks no other servers (${lame.address})`)
    expect(said.message).toContain(`no answer in 5000 ms (${silent.address})`)
    // Only who was silent is asked twice.
    expect([bad, refusing, lame, silent].map(({ asked }) => asked.length)).toEqual([1, 1, 1, 2])
  })

  it('are not asked when one says that there is no such name', async () => {
    const [first, second] = [await startDns(() => ({ code: NXDOMAIN })), await startDns(() => OK)]
    await expect(resolver([first, second]).data()).rejects.toThrow(`api.test A: NXDOMAIN (${first.address})`)
    expect(second.asked).toEqual([])
  })

  it('must be there', async () => {
    await expect(resolver([]).data()).rejects.toThrow('api.test A: there is no name server')
  })
})

describe('abort', () => {
  it.each(['udp', 'tcp'] as const)('ends a question over %s at once', async (over) => {
    let isAsked: () => void
    const asked = new Promise<void>((resolve) => (isAsked = resolve))
    const server = await startDns((it) => {
      if (it.over !== over) return { answers: [], alter: (packet) => ({ ...packet, flags: packet.flags! | (1 << 9) }) }
      isAsked()
      return SILENT
    })
    const { data, controller } = resolver([server])
    const answer = data()
    await asked
    const reason = new Error('enough')
    controller.abort(reason)
    await expect(answer).rejects.toBe(reason)
  })

  it('before it began asks nobody', async () => {
    const server = await startDns(() => OK)
    const { data, controller } = resolver([server])
    controller.abort(new Error('enough'))
    await expect(data()).rejects.toThrow('enough')
    expect(server.asked).toEqual([])
  })
})

it('a name is what a server has, whatever it is called', async () => {
  const server = await startDns(zoneOf([a('_x.constructor.test', '10.0.0.1')]))
  expect(await resolver([server]).data('A', '_x.constructor.test')).toEqual(['10.0.0.1'])
})
