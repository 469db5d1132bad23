/**
 * What clients send by hand. Whatever it is, a peer gets nothing, or one well-formed request that says what the proxy has
 * understood.
 */
import { describe, expect, it } from 'vitest'
import { eventually } from '../../support/eventually.js'
import { settled } from '../../support/http.js'
import { raw, startProxy, startRecorder } from './support.js'

const POST = 'POST / HTTP/1.1\r\nHost: test\r\n'
const GET = 'GET / HTTP/1.1\r\nHost: test\r\n'
const EMPTY = '0\r\n\r\n'

/** Closed by a request that nobody can miss, if the connection goes on: its answer ends the connection. */
const LAST = 'GET /last HTTP/1.1\r\nHost: other\r\nConnection: close\r\n\r\n'

const refused: [says: string, request: string, status: number][] = [
  ['two lengths', `${POST}Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd`, 400],
  ['one length twice', `${POST}Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc`, 400],
  ['a list of lengths', `${POST}Content-Length: 3, 3\r\n\r\nabc`, 400],
  ['a length with a sign', `${POST}Content-Length: +3\r\n\r\nabc`, 400],
  ['a negative length', `${POST}Content-Length: -3\r\n\r\nabc`, 400],
  ['a hexadecimal length', `${POST}Content-Length: 0x3\r\n\r\nabc`, 400],
  ['a length and a coding', `${POST}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n${EMPTY}`, 400],
  ['a coding and a length', `${POST}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n${EMPTY}`, 400],
  ['a coding that nobody knows', `${POST}Transfer-Encoding: xchunked\r\n\r\n${EMPTY}`, 501],
  ['a coding in quotes', `${POST}Transfer-Encoding: "chunked"\r\n\r\n${EMPTY}`, 501],
  ['a coding that would be lost', `${POST}Transfer-Encoding: gzip, chunked\r\n\r\n${EMPTY}`, 501],
  ['a coding after chunked', `${POST}Transfer-Encoding: chunked, gzip\r\n\r\n${EMPTY}`, 400],
  ['chunked twice', `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n${EMPTY}`, 400],
  ['chunked and identity', `${POST}Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n${EMPTY}`, 400],
  ['a coding after a tab of its own', `${POST}Transfer-Encoding: \x0bchunked\r\n\r\n${EMPTY}`, 400],
  ['a coding before a space and a colon', `${POST}Transfer-Encoding : chunked\r\n\r\n${EMPTY}`, 400],
  ['a coding on a line of its own', `${POST}Transfer-Encoding:\r\n chunked\r\n\r\n${EMPTY}`, 400],
  ['a coding in HTTP/1.0', `${POST.replace('1.1', '1.0')}Transfer-Encoding: chunked\r\n\r\n${EMPTY}`, 400],
  ['a folded field', `${GET}X: a\r\n b\r\n\r\n`, 400],
  ['bare line feeds', 'GET / HTTP/1.1\nHost: test\n\n', 400],
  ['a bare line feed in a value', `${GET}X: a\nY: b\r\n\r\n`, 400],
  ['a bare carriage return in a value', `${GET}X: a\rY: b\r\n\r\n`, 400],
  ['a null byte in a value', `${GET}X: a\0b\r\n\r\n`, 400],
  ['a control character in a value', `${GET}X: a\x01b\r\n\r\n`, 400],
  ['a delete character in a value', `${GET}X: a\x7fb\r\n\r\n`, 400],
  ['a space after a name', `${GET}X : a\r\n\r\n`, 400],
  ['a space before the first name', 'GET / HTTP/1.1\r\n X: a\r\nHost: test\r\n\r\n', 400],
  ['a field without a colon', `${GET}X\r\n\r\n`, 400],
  ['a name with a control character', `${GET}X\x01: a\r\n\r\n`, 400],
  ['no host', 'GET / HTTP/1.1\r\n\r\n', 400],
  ['two hosts', `${GET}Host: other\r\n\r\n`, 400],
  ['one host twice', `${GET}Host: test\r\n\r\n`, 400],
  ['an empty host', 'GET / HTTP/1.1\r\nHost:\r\n\r\n', 502],
  ['a user in the target', 'GET http://user@test/ HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['a target that is no path', 'GET x HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['a target of another scheme', 'GET ftp://test/ HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['a target with a space', 'GET /a b HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['a target with a control character', 'GET /a\x01 HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['a target beyond ASCII', 'GET /\xe9 HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['all of the server', 'OPTIONS * HTTP/1.1\r\nHost: test\r\n\r\n', 501],
  ['a method that is none', 'G\x01T / HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['a method that nobody knows', 'FOO / HTTP/1.1\r\nHost: test\r\n\r\n', 400],
  ['a version that is none', 'GET / HTTP/1.2\r\nHost: test\r\n\r\n', 400],
  ['no version', 'GET /\r\nHost: test\r\n\r\n', 505],
  ['a version of other rules', 'GET / HTTP/2.0\r\nHost: test\r\n\r\n', 505],
]

describe('a request that could be read in two ways is refused', () => {
  it.each(refused)('%s', async (_, request, status) => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder])
    const { read } = raw(gateway, request)
    await eventually(() => expect(read()).toMatch(/^HTTP\/1\.1 \d+ [^]*\r\n\r\n/))
    expect(read()).toMatch(new RegExp(`^HTTP/1\\.1 ${status} `))
    await settled(gateway)
    expect(recorder.recorded()).toBe('')
  })
})

/** It has begun to be proxied when its body turns out to be none: the peer never gets the end of it. */
const broken: [says: string, body: string][] = [
  ['a line feed after the size of a chunk', '3\nabc\r\n0\r\n\r\n'],
  ['a chunk that is longer than it says', '3\r\nabcd\r\n0\r\n\r\n'],
  ['a space after the size of a chunk', '3 \r\nabc\r\n0\r\n\r\n'],
  ['a size of a chunk that is none', 'x\r\nabc\r\n0\r\n\r\n'],
  ['a size of a chunk with a sign', '+3\r\nabc\r\n0\r\n\r\n'],
  ['a size of a chunk beyond all numbers', 'fffffffffffffffff\r\nabc\r\n0\r\n\r\n'],
  ['a trailer that is none', '3\r\nabc\r\n0\r\nX : 1\r\n\r\n'],
]

describe('a body that is not well-formed never ends for the peer', () => {
  it.each(broken)('%s', async (_, body) => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder])
    const { read } = raw(gateway, `PUT / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n${body}`)
    await eventually(() => expect(read()).toMatch(/^HTTP\/1\.1 400 /))
    await settled(gateway)
    expect(recorder.recorded()).not.toMatch(/\r\n0\r\n/)
  })
})

const FORWARDED = 'x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-forwarded-host: test\r\n'
const head = (line: string, ...fields: string[]) =>
  `${line} HTTP/1.1\r\nhost: test\r\nconnection: keep-alive\r\n${fields.map((field) => `${field}\r\n`).join('')}${FORWARDED}`
const SMUGGLED = 'GET /smuggled HTTP/1.1\r\nHost: test\r\n\r\n'

const passed: [says: string, request: string, arrives: string][] = [
  [
    'a chunked body',
    `${POST}Transfer-Encoding: CHUNKED\r\n\r\n3\r\nabc\r\n${EMPTY}`,
    'transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  ],
  [
    'extensions of chunks, which mean nothing',
    `${POST}Transfer-Encoding: chunked\r\n\r\n3;a="b"\r\nabc\r\n${EMPTY}`,
    'transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n',
  ],
  [
    'a chunked body with nothing in it',
    `${POST}Transfer-Encoding: chunked\r\n\r\n${EMPTY}`,
    'content-length: 0\r\n\r\n',
  ],
  [
    'a request in a body',
    `${POST}Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
    `content-length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`,
  ],
  [
    'a length that Connection names',
    `${POST}Connection: content-length\r\nContent-Length: 3\r\n\r\nabc`,
    'content-length: 3\r\n\r\nabc',
  ],
  [
    'a host that Connection names',
    `${POST}Connection: host\r\nContent-Length: 3\r\n\r\nabc`,
    'content-length: 3\r\n\r\nabc',
  ],
  [
    'what is told of the client that Connection names',
    `${POST}Connection: x-forwarded-for\r\nContent-Length: 3\r\n\r\nabc`,
    'content-length: 3\r\n\r\nabc',
  ],
]

describe('a request that can be read in one way arrives as one', () => {
  it.each(passed)('%s', async (_, request, arrives) => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder])
    const { read } = raw(gateway, request + LAST)
    await eventually(() => expect(read()).toMatch(/HTTP\/1\.1 200 OK[^]*HTTP\/1\.1 502 /))
    expect(recorder.recorded()).toBe(head('POST /') + arrives)
  })

  it('a request of a GET, and its body', async () => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder])
    const { read } = raw(gateway, `${GET}Content-Length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}${LAST}`)
    await eventually(() => expect(read()).toMatch(/HTTP\/1\.1 200 OK[^]*HTTP\/1\.1 502 /))
    expect(recorder.recorded()).toBe(`${head('GET /')}content-length: ${SMUGGLED.length}\r\n\r\n${SMUGGLED}`)
  })

  it('of HTTP/1.0, without a host, by a key of its own', async () => {
    const recorder = await startRecorder()
    const gateway = await startProxy([recorder], { key: () => 'test', forwarded: false, host: 'peer' })
    const { read } = raw(gateway, 'GET /old HTTP/1.0\r\n\r\n')
    await eventually(() => expect(read()).toMatch(/r$/))
    expect(recorder.recorded()).toBe(`GET /old HTTP/1.1\r\nhost: ${recorder.address}\r\nconnection: keep-alive\r\n\r\n`)
  })
})
