import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseClientHello } from '../../../src/adapter/net/client-hello.js'
import { alpn, message, realHello, records, serverName, vector, type Extension } from './hello.js'
import { isFinal, sameInAnyPieces } from './properties.js'

const valueOf = (bytes: Buffer) => {
  const reading = parseClientHello(bytes)
  return reading.state === 'done' ? reading.value : reading
}
const malformed = { state: 'invalid', reason: 'a malformed ClientHello' }

describe('the hello of a real client', () => {
  it.each(['TLSv1.2', 'TLSv1.3'] as const)('of %s says its server and its protocols', async (version) => {
    const options = { servername: 'Shop.Example', ALPNProtocols: ['h2', 'http/1.1'], maxVersion: version }
    expect(valueOf(await realHello(options))).toEqual({ servername: 'shop.example', alpn: ['h2', 'http/1.1'] })
  })

  it('may name no server', async () => {
    expect(valueOf(await realHello({}))).toEqual({ servername: undefined, alpn: [] })
  })

  it('is not complete before its last byte', async () => {
    const hello = await realHello({ servername: 'shop.example' })
    for (let at = 0; at < hello.length; at++) expect(parseClientHello(hello.subarray(0, at))).toEqual({ state: 'more' })
  })
})

describe('a hello', () => {
  it('without extensions, as before TLS 1.2, names no server', () => {
    expect(valueOf(records(message()))).toEqual({ servername: undefined, alpn: [] })
  })

  it.each([1, 3, 4, 5, 50])('may be spread over records of %i bytes', (size) => {
    const hello = records(message([serverName('a.test'), alpn('x')]), size)
    expect(valueOf(hello)).toEqual({ servername: 'a.test', alpn: ['x'] })
  })

  it('is not looked beyond', () => {
    const more = Buffer.concat([records(message([serverName('a.test')])), Buffer.from('anything')])
    expect(valueOf(more)).toEqual({ servername: 'a.test', alpn: [] })
  })

  const name = (...parts: Buffer[]): Extension => [0, vector(2, ...parts)]
  const host = (text: string) => Buffer.concat([Buffer.from([0]), vector(2, Buffer.from(text))])
  it.each<[string, Extension[]]>([
    ['with two names', [name(host('a.test'), host('b.test'))]],
    ['with no name where there must be one', [name()]],
    ['with an empty name', [serverName('')]],
    ['with a name of dots', [serverName('a..test')]],
    ['with a name that ends in a dot', [serverName('a.test.')]],
    ['with a name of other characters', [serverName('a b')]],
    ['with a name of a line end', [serverName('a\n')]],
    ['with a name of NUL', [serverName('a.test\0.b')]],
    ['with a name that is too long', [serverName('a'.repeat(254))]],
    ['with something behind the name', [[0, Buffer.concat([serverName('a.test')[1], Buffer.from('x')])]]],
    ['with half a name', [[0, serverName('a.test')[1].subarray(0, -1)]]],
    ['with two lists of names', [serverName('a.test'), serverName('b.test')]],
    ['with an empty protocol', [alpn('')]],
    ['with half a protocol', [[16, alpn('h2')[1].subarray(0, -1)]]],
  ])('%s is malformed', (_, extensions) => {
    expect(valueOf(records(message(extensions)))).toEqual(malformed)
  })

  it('passes over names of other types', () => {
    const other = Buffer.concat([Buffer.from([7]), vector(2, Buffer.from('\0\x01'))])
    expect(valueOf(records(message([name(other, host('a.test'))])))).toMatchObject({ servername: 'a.test' })
  })

  it('whose extensions end before or after their length is malformed', () => {
    const good = message([serverName('a.test')])
    const longer = Buffer.concat([good, Buffer.alloc(1)])
    longer[3]!++
    const shorter = Buffer.from(good.subarray(0, -1))
    shorter[3]!--
    expect([longer, shorter].map((bytes) => valueOf(records(bytes)))).toEqual([malformed, malformed])
  })

  it.each([
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\n'), 'no TLS handshake'],
    ['SSH', Buffer.from('SSH-2.0-OpenSSH\r\n'), 'no TLS handshake'],
    ['an SSLv2 hello', Buffer.from([0x80, 0x2e, 1, 3, 1]), 'no TLS handshake'],
    ['another version', Buffer.from([22, 2]), 'no version of TLS'],
    ['an empty record', Buffer.from([22, 3, 1, 0, 0]), 'a record of 0 bytes'],
    ['too long a record', Buffer.from([22, 3, 1, 0x40, 1]), 'a record of 16385 bytes'],
    ['a ServerHello', Buffer.from([22, 3, 1, 0, 40, 2]), 'no ClientHello'],
    ['an alert in between', Buffer.concat([records(message().subarray(0, 9)), Buffer.from([21])]), 'no TLS handshake'],
  ])('is not seen in %s', (_, bytes, reason) => {
    expect(parseClientHello(bytes)).toEqual({ state: 'invalid', reason })
  })
})

const names = fc.stringMatching(/^[a-z0-9_-]{1,20}(\.[a-z0-9_-]{1,20}){0,3}$/)
const extension = fc.tuple(
  fc.integer({ min: 0, max: 65_535 }).filter((type) => type !== 0 && type !== 16),
  fc.uint8Array({ maxLength: 40 }).map((data) => Buffer.from(data)),
)
const hello = fc.record({
  name: fc.option(names, { nil: undefined }),
  protocols: fc.array(fc.stringMatching(/^[ -~]{1,20}$/), { maxLength: 4 }),
  others: fc.uniqueArray(extension, { maxLength: 6, selector: ([type]) => type }),
  size: fc.integer({ min: 1, max: 400 }),
})
const bytesOf = ({ name, protocols, others, size }: typeof hello extends fc.Arbitrary<infer H> ? H : never) => {
  const known = [
    ...(name === undefined ? [] : [serverName(name)]),
    ...(protocols.length > 0 ? [alpn(...protocols)] : []),
  ]
  return records(message([...others, ...known]), size)
}

describe('whatever bytes come', () => {
  it('a hello is read as it was written', () => {
    fc.assert(
      fc.property(hello, (given) => {
        expect(valueOf(bytesOf(given))).toEqual({ servername: given.name, alpn: given.protocols })
      }),
      { numRuns: 500 },
    )
  })

  it('nothing throws, and what is decided stays so: arbitrary ones', () => {
    isFinal(
      parseClientHello,
      fc.uint8Array({ maxLength: 300 }).map((bytes) => Buffer.from(bytes)),
    )
  })

  it('nothing throws, and what is decided stays so: hellos with bytes changed', () => {
    isFinal(parseClientHello, hello.map(bytesOf))
  })

  it('it is the same in whatever pieces they come', async () => {
    await sameInAnyPieces(parseClientHello, hello.map(bytesOf))
  })
})
