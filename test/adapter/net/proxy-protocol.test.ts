import { isIPv6 } from 'node:net'
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { parseProxyHeader, plainAddress, printProxyHeader } from '../../../src/adapter/net/proxy-protocol.js'
import type { TcpEnd, TcpEnds } from '../../../src/adapter/net/proxy-protocol.js'
import { isFinal, sameInAnyPieces } from './properties.js'

const read = (bytes: Buffer | string) => {
  const all = typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes
  const reading = parseProxyHeader(all)
  return reading.state === 'done' ? { value: reading.value, rest: all.subarray(reading.length).toString() } : reading
}
const invalid = (reason: string) => ({ state: 'invalid', reason })
const malformed = invalid('a malformed PROXY line')
const v4: TcpEnds = {
  source: { address: '192.0.2.1', port: 56_324 },
  destination: { address: '192.0.2.2', port: 443 },
}
const v6: TcpEnds = { source: { address: '2001:db8::1', port: 1 }, destination: { address: '::1', port: 65_535 } }
const unix: TcpEnds = { source: { path: '/run/a.sock' }, destination: { path: '' } }

describe('version 1', () => {
  it('says who is connected', () => {
    expect(read('PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\nGET /')).toEqual({ value: v4, rest: 'GET /' })
    expect(read('PROXY TCP6 2001:DB8::0:1 ::1 1 65535\r\n')).toEqual({ value: v6, rest: '' })
    const [value] = [{ source: { address: '10.0.0.1', port: 0 }, destination: { address: '10.0.0.2', port: 0 } }]
    expect(read('PROXY TCP6 ::ffff:10.0.0.1 ::ffff:a00:2 0 0\r\n')).toEqual({ value, rest: '' })
  })

  it.each(['PROXY UNKNOWN\r\n', 'PROXY UNKNOWN \r\n', 'PROXY UNKNOWN ffff::1 any \n thing\r\n'])(
    '%j says nobody',
    (line) => {
      expect(read(`${line}rest`)).toEqual({ value: undefined, rest: 'rest' })
    },
  )

  it.each([
    'PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 56324 443 \r\n',
    'PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 56324 0443\r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 56324 65536\r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 -1 443\r\n',
    'PROXY TCP4 192.0.2.1 ::1 56324 443\r\n',
    'PROXY TCP6 192.0.2.1 ::1 56324 443\r\n',
    'PROXY TCP6 fe80::1%lo ::1 56324 443\r\n',
    'PROXY TCP4 192.0.2.256 192.0.2.2 56324 443\r\n',
    'PROXY UNKNOWNS\r\n',
    'PROXY UDP4 192.0.2.1 192.0.2.2 56324 443\r\n',
    'PROXY \r\n',
  ])('refuses %j', (line) => expect(read(line)).toEqual(malformed))

  it('is at most 107 bytes', () => {
    const line = (length: number) => `PROXY UNKNOWN ${'x'.repeat(length - 16)}\r\n`
    expect(read(line(107))).toEqual({ value: undefined, rest: '' })
    expect(read(line(107).slice(0, -1))).toEqual({ state: 'more' })
    expect(read(line(108))).toEqual(invalid('a PROXY line without an end'))
  })
})

describe('version 2', () => {
  const header = (command: number, kind: number, data: string | Buffer, length = data.length) =>
    Buffer.concat([
      Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1'),
      Buffer.from([command, kind, length >> 8, length & 0xff]),
      Buffer.from(data as string, 'latin1'),
    ])
  const addresses = Buffer.from('c0000201c0000202dc0401bb', 'hex')

  it('says who is connected, by TCP or UDP', () => {
    expect(read(header(0x21, 0x11, addresses))).toEqual({ value: v4, rest: '' })
    expect(read(header(0x21, 0x12, addresses))).toEqual({ value: v4, rest: '' })
    const long = Buffer.concat([
      Buffer.from(`20010db8${'00'.repeat(11)}01${'00'.repeat(15)}01`, 'hex'),
      Buffer.from([0, 1, 255, 255]),
    ])
    expect(read(header(0x21, 0x21, long))).toEqual({ value: v6, rest: '' })
  })

  it('says paths of unix sockets, also abstract ones', () => {
    const paths = (...both: string[]) => both.map((path) => path.padEnd(108, '\0')).join('')
    expect(read(header(0x21, 0x31, paths('/run/a.sock', '')))).toEqual({ value: unix, rest: '' })
    const value = { source: { path: '\0abstract' }, destination: { path: 'x'.repeat(108) } }
    expect(read(header(0x21, 0x31, paths('\0abstract', 'x'.repeat(108))))).toEqual({ value, rest: '' })
  })

  it('passes over what follows the addresses', () => {
    const more = Buffer.concat([addresses, Buffer.from('\x04\0\x02ab', 'latin1')])
    expect(read(Buffer.concat([header(0x21, 0x11, more), Buffer.from('rest')]))).toEqual({ value: v4, rest: 'rest' })
  })

  it('says nobody: LOCAL, whatever family it names, and an unknown one', () => {
    expect(read(header(0x20, 0x11, addresses))).toEqual({ value: undefined, rest: '' })
    expect(read(header(0x20, 0xff, ''))).toEqual({ value: undefined, rest: '' })
    expect(read(header(0x21, 0x00, 'any'))).toEqual({ value: undefined, rest: '' })
  })

  it.each([
    ['another version', header(0x11, 0x11, addresses), 'no version or command of the PROXY protocol'],
    ['another command', header(0x22, 0x11, addresses), 'no version or command of the PROXY protocol'],
    ['another family', header(0x21, 0x41, addresses), 'no family of the PROXY protocol'],
    ['another transport', header(0x21, 0x13, addresses), 'no family of the PROXY protocol'],
    ['too few bytes', header(0x21, 0x21, addresses), 'a PROXY header that is too short for its addresses'],
  ])('refuses %s', (_, bytes, reason) => expect(read(bytes)).toEqual(invalid(reason)))
})

it.each(['GET / HTTP/1.1\r\n', 'PROXX', 'proxy ', '\r\n\r\nx', '\0'])('%j is no header', (text) => {
  expect(read(text)).toEqual(invalid('no PROXY header'))
})

describe('what is printed', () => {
  it('in version 1', () => {
    const line = (ends?: TcpEnds) => printProxyHeader(1, ends).toString()
    expect(line(v4)).toBe('PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n')
    expect(line(v6)).toBe('PROXY TCP6 2001:db8::1 ::1 1 65535\r\n')
    expect([line(unix), line(undefined)]).toEqual(['PROXY UNKNOWN\r\n', 'PROXY UNKNOWN\r\n'])
  })

  it('in version 2', () => {
    const hex = (ends?: TcpEnds) => printProxyHeader(2, ends).toString('hex')
    expect(hex(v4)).toBe('0d0a0d0a000d0a515549540a2111000cc0000201c0000202dc0401bb')
    expect(hex(undefined)).toBe('0d0a0d0a000d0a515549540a21000000')
  })

  it('of ends of two kinds, that they are unknown', () => {
    const mixed = { source: v4.source, destination: v6.destination }
    expect([1, 2].map((version) => read(printProxyHeader(version as 1 | 2, mixed)))).toEqual(
      Array(2).fill({ value: undefined, rest: '' }),
    )
  })
})

const ip = (version: 4 | 6) =>
  fc.record({
    address: version === 4 ? fc.ipV4() : fc.ipV6().map(plainAddress),
    port: fc.integer({ min: 0, max: 65_535 }),
  })
const path = fc.record({ path: fc.stringMatching(/^(\/[a-zé.-]{0,50})?$/) })
const pair = (end: fc.Arbitrary<TcpEnd>): fc.Arbitrary<TcpEnds> => fc.record({ source: end, destination: end })
const isMapped = ({ source, destination }: TcpEnds) =>
  [source, destination].some((end) => 'address' in end && end.address.includes('.'))
const ends = fc.oneof(
  pair(ip(4)),
  pair(ip(6)).filter((both) => !isMapped(both)),
  pair(path),
)
const printed = fc
  .tuple(fc.constantFrom(1 as const, 2 as const), ends)
  .map(([version, both]) => printProxyHeader(version, both))

describe('whatever bytes come', () => {
  it('what was printed is read again', () => {
    fc.assert(
      fc.property(ends, fc.string(), (both, rest) => {
        const [one, two] = ([1, 2] as const).map((version) =>
          read(Buffer.concat([printProxyHeader(version, both), Buffer.from(rest)])),
        )
        expect(two).toEqual({ value: both, rest })
        expect(one).toEqual({ value: 'path' in both.source ? undefined : both, rest })
      }),
      { numRuns: 1_000 },
    )
  })

  it('an address has one spelling', () => {
    fc.assert(
      fc.property(fc.ipV6(), (address) => {
        const plain = plainAddress(address)
        expect(plainAddress(plain)).toBe(plain)
        if (plain.includes('.')) expect(address.toLowerCase()).toMatch(/ffff/)
        else expect(isIPv6(plain) && plain === new URL(`http://[${address}]`).hostname.slice(1, -1)).toBe(true)
      }),
      { numRuns: 1_000 },
    )
    expect(['::ffff:1.2.3.4', '::FFFF:102:304', '1.2.3.4', 'fe80::1%eth0', '1::4.3.2.1'].map(plainAddress)).toEqual([
      ...['1.2.3.4', '1.2.3.4', '1.2.3.4', 'fe80::1', '1::403:201'],
    ])
  })

  it('nothing throws, and what is decided stays so: arbitrary ones', () => {
    isFinal(
      parseProxyHeader,
      fc.uint8Array({ maxLength: 40 }).map((bytes) => Buffer.from(bytes)),
    )
  })

  it('nothing throws, and what is decided stays so: headers with bytes changed', () => {
    isFinal(parseProxyHeader, printed)
  })

  it('it is the same in whatever pieces they come', async () => {
    await sameInAnyPieces(parseProxyHeader, printed)
  })
})
