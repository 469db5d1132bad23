import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { ConfigError } from '../src/index.js'
import { parseEndpoint, tcpEndpoint, unixEndpoint } from '../src/address.js'

const thrownBy = (act: () => unknown): unknown => {
  try {
    return act()
  } catch (error) {
    return error
  }
}

describe('one spelling is the address', () => {
  it.each([
    ['10.0.0.1:80', '10.0.0.1:80'],
    ['10.0.0.1:00080', '10.0.0.1:80'],
    ['Example.TEST:8080', 'example.test:8080'],
    ['my_service-1.default:1', 'my_service-1.default:1'],
    ['localhost:65535', 'localhost:65535'],
    ['[::1]:80', '[::1]:80'],
    ['[2001:DB8:0:0:0:0:0:1]:80', '[2001:db8::1]:80'],
    ['[2001:db8::0:1]:80', '[2001:db8::1]:80'],
    ['[0:0:0:0:0:0:0:0]:80', '[::]:80'],
    ['[::FFFF:10.0.0.1]:80', '[::ffff:a00:1]:80'],
    ['[fe80::1%eth0]:80', '[fe80::1%eth0]:80'],
    ['unix:/run/App.sock', 'unix:/run/App.sock'],
    ['unix:/run/with:colon', 'unix:/run/with:colon'],
  ])('%s is %s', (text, address) => {
    expect(parseEndpoint('at', 'address', text).address).toBe(address)
    // What has its one spelling keeps it.
    expect(parseEndpoint('at', 'address', address).address).toBe(address)
  })

  it.each([
    { host: '10.0.0.1', port: 80, address: '10.0.0.1:80' },
    { host: 'EXAMPLE.test', port: 80, address: 'example.test:80' },
    { host: '::1', port: 80, address: '[::1]:80' },
    { host: '[::1]', port: 80, address: '[::1]:80' },
    { host: '2001:DB8::0:1', port: 80, address: '[2001:db8::1]:80' },
  ])('host $host and port $port are $address', ({ host, port, address }) => {
    const endpoint = tcpEndpoint('at', host, port)
    expect(endpoint).toMatchObject({ address, port, path: undefined })
    expect(endpoint.host).not.toMatch(/[[\]A-Z]/)
    expect(tcpEndpoint('at', endpoint.host, endpoint.port)).toEqual(endpoint)
  })

  it('a socket has a path, and neither host nor port', () => {
    const path = `/${'x'.repeat(106)}`
    expect(unixEndpoint('at', 'path', path)).toEqual({ address: `unix:${path}`, host: '', port: 0, path })
  })

  it('holds for every address', () => {
    const name = fc.stringMatching(/^[a-zA-Z_][a-zA-Z0-9_-]{0,10}(\.[a-z0-9]{1,5}){0,3}$/)
    const socket = fc.stringMatching(/^\/[a-zA-Z0-9._/:-]{0,60}$/).map((path) => `unix:${path}`)
    const tcp = fc
      .tuple(
        fc.oneof(
          name,
          fc.ipV4(),
          fc.ipV6().map((ip) => `[${ip}]`),
        ),
        fc.integer({ min: 1, max: 65_535 }),
      )
      .map(([host, port]) => `${host}:${port}`)
    fc.assert(
      fc.property(fc.oneof(tcp, socket), (text) => {
        const endpoint = parseEndpoint('at', '', text)
        expect(parseEndpoint('at', '', endpoint.address)).toEqual(endpoint)
        if (endpoint.path === undefined) expect(tcpEndpoint('at', endpoint.host, endpoint.port)).toEqual(endpoint)
        else expect(unixEndpoint('at', '', endpoint.path)).toEqual(endpoint)
      }),
      { numRuns: 500 },
    )
  })
})

describe('what is none is refused by its place', () => {
  const FORM = 'expected "host:port", "[ipv6]:port" or "unix:/path", got'
  it.each([
    ['', FORM],
    ['10.0.0.1', FORM],
    ['10.0.0.1:', FORM],
    [':80', FORM],
    ['10.0.0.1:http', FORM],
    ['10.0.0.1:-1', FORM],
    ['10.0.0.1:123456', FORM],
    ['10.0.0.1: 80', FORM],
    ['::1:80', FORM],
    ['http://10.0.0.1:80', FORM],
  ])('%j', (text, problem) => {
    const error = thrownBy(() => parseEndpoint('at[3]', 'address', text))
    expect(error).toBeInstanceOf(ConfigError)
    expect(error).toMatchObject({ path: 'at[3].address', message: `at[3].address: ${problem} ${JSON.stringify(text)}` })
  })

  it.each([
    ['10.0.0.1:0', 'at.port', 'expected an integer from 1 to 65535, got 0'],
    ['10.0.0.1:65536', 'at.port', 'expected an integer from 1 to 65535, got 65536'],
    ['10.0.0.256:80', 'at.host', 'expected an IP address or a host name, got "10.0.0.256"'],
    ['1.2.3:80', 'at.host', 'expected an IP address or a host name, got "1.2.3"'],
    ['127.1:80', 'at.host', 'expected an IP address or a host name, got "127.1"'],
    ['2130706433:80', 'at.host', 'expected an IP address or a host name, got "2130706433"'],
    ['-a:80', 'at.host', 'expected an IP address or a host name, got "-a"'],
    ['a b:80', 'at.host', 'expected an IP address or a host name, got "a b"'],
    ['a/b:80', 'at.host', 'expected an IP address or a host name, got "a/b"'],
    ['user@host:80', 'at.host', 'expected an IP address or a host name, got "user@host"'],
    ['[]:80', 'at.host', 'expected an IP address or a host name, got "[]"'],
    ['[::g]:80', 'at.host', 'expected an IP address or a host name, got "[::g]"'],
    ['[10.0.0.1]:80', 'at.host', 'expected an IP address or a host name, got "[10.0.0.1]"'],
    ['[example.test]:80', 'at.host', 'expected an IP address or a host name, got "[example.test]"'],
    ['bücher.test:80', 'at.host', 'expected an IP address or a host name, got "bücher.test"'],
    ['unix:app.sock', 'at.address', 'expected an absolute path of at most 107 bytes, got "app.sock"'],
  ])('%j: %s', (text, path, problem) => {
    const error = thrownBy(() => parseEndpoint('at', 'address', text))
    expect(error).toMatchObject({ code: 'ERR_CHECKUPS_CONFIG', path, message: `${path}: ${problem}` })
  })

  it.each([
    ['unix socket, too long', () => unixEndpoint('at', 'path', `/${'x'.repeat(107)}`)],
    ['unix socket, too long in bytes', () => unixEndpoint('at', 'path', `/${'é'.repeat(54)}`)],
    ['unix socket with a zero byte', () => unixEndpoint('at', 'path', '/run/\0')],
    ['unix socket, no string', () => unixEndpoint('at', 'path', 7)],
    ['port, a string', () => tcpEndpoint('at', 'a', '80')],
    ['port, a fraction', () => tcpEndpoint('at', 'a', 80.5)],
    ['port, NaN', () => tcpEndpoint('at', 'a', NaN)],
    ['port, none', () => tcpEndpoint('at', 'a', undefined)],
    ['host, none', () => tcpEndpoint('at', undefined, 80)],
    ['host, too long', () => tcpEndpoint('at', 'a'.repeat(254), 80)],
    ['host, a trailing newline', () => tcpEndpoint('at', 'a\n', 80)],
  ])('%s', (_, act) => {
    expect(thrownBy(act)).toBeInstanceOf(ConfigError)
  })

  it('whatever the text is, in no other way', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.string({ unit: 'binary' }), fc.webUrl()), (text) => {
        const error = thrownBy(() => parseEndpoint('at', '', text).address)
        if (typeof error !== 'string') expect(error).toBeInstanceOf(ConfigError)
      }),
      { numRuns: 500 },
    )
  })
})
