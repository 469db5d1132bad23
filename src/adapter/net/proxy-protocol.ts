/**
 * The PROXY protocol, versions 1 and 2: the header in which whoever passes a connection on says where it came from. As in
 * doc/proxy-protocol.txt of HAProxy.
 */
import { isIP, isIPv4 } from 'node:net'
import { invalid, MORE, type Reading } from './reading.js'

/** One end of a connection. */
export type TcpEnd =
  | {
      /** IP address; one that is IPv4 within IPv6 is given as IPv4. */
      readonly address: string
      /** TCP port. */
      readonly port: number
    }
  | {
      /** Path of a unix socket; empty if it has none. */
      readonly path: string
    }

/** Who is connected with whom. */
export interface TcpEnds {
  /** The client's end. */
  readonly source: TcpEnd
  /** The end that the client has connected to. */
  readonly destination: TcpEnd
}

/** The ends that a header names; undefined where the sender speaks for itself (LOCAL), or does not know. */
export type ProxyHeader = TcpEnds | undefined

const V1 = Buffer.from('PROXY ')
const V2 = Buffer.from('\r\n\r\n\0\r\nQUIT\n', 'latin1')
/** Of a whole line of version 1. */
const V1_LONGEST = 107
const V2_HEAD = 16
const UNIX_PATH = 108
/** Bytes of addresses and ports by family: unspecified, IPv4, IPv6, unix. */
const SIZES = [0, 12, 36, 2 * UNIX_PATH] as const

/** Reads a header of either version. */
export function parseProxyHeader(bytes: Buffer): Reading<ProxyHeader> {
  if (begins(bytes, V1)) return bytes.length < V1.length ? MORE : parseLine(bytes)
  if (begins(bytes, V2)) return bytes.length < V2.length ? MORE : parseBinary(bytes)
  return invalid('no PROXY header')
}

/** Whether they agree as far as both go. */
function begins(bytes: Buffer, signature: Buffer): boolean {
  const length = Math.min(bytes.length, signature.length)
  return bytes.subarray(0, length).equals(signature.subarray(0, length))
}

const LINE = /^PROXY (?:UNKNOWN(?: [^]*)?|TCP([46]) (\S+) (\S+) (0|[1-9]\d{0,4}) (0|[1-9]\d{0,4}))$/

function parseLine(bytes: Buffer): Reading<ProxyHeader> {
  const end = bytes.subarray(0, V1_LONGEST).indexOf('\r\n')
  if (end === -1) return bytes.length < V1_LONGEST ? MORE : invalid('a PROXY line without an end')
  const match = LINE.exec(bytes.toString('latin1', 0, end))
  if (match === null) return invalid('a malformed PROXY line')
  const length = end + 2
  const [, family, source, destination, sourcePort, destinationPort] = match
  if (family === undefined) return { state: 'done', value: undefined, length }
  const [from, to] = [endOf(family, source!, Number(sourcePort)), endOf(family, destination!, Number(destinationPort))]
  if (from === undefined || to === undefined) return invalid('a malformed PROXY line')
  return { state: 'done', value: { source: from, destination: to }, length }
}

function endOf(family: string, address: string, port: number): TcpEnd | undefined {
  if (isIP(address) !== Number(family) || address.includes('%') || port > 65_535) return undefined
  return { address: family === '6' ? plainAddress(address) : address, port }
}

function parseBinary(bytes: Buffer): Reading<ProxyHeader> {
  const [version = 0x20, kind = 0] = bytes.subarray(V2.length)
  const command = version & 0x0f
  if (version >> 4 !== 2 || command > 1) return invalid('no version or command of the PROXY protocol')
  // What stands for the sender itself has no family.
  const family = command === 0 ? 0 : kind >> 4
  const size = SIZES[family]
  if (size === undefined || (command === 1 && (kind & 0x0f) > 2)) return invalid('no family of the PROXY protocol')
  if (bytes.length < V2_HEAD) return MORE
  const length = V2_HEAD + bytes.readUInt16BE(V2_HEAD - 2)
  if (length < V2_HEAD + size) return invalid('a PROXY header that is too short for its addresses')
  if (bytes.length < length) return MORE
  const data = bytes.subarray(V2_HEAD, V2_HEAD + size)
  const half = (from: number, to: number) => data.subarray(from, to)
  let value: ProxyHeader
  if (family === 1 || family === 2) {
    const width = family === 1 ? 4 : 16
    value = {
      source: { address: addressIn(half(0, width)), port: data.readUInt16BE(2 * width) },
      destination: { address: addressIn(half(width, 2 * width)), port: data.readUInt16BE(2 * width + 2) },
    }
  } else if (family === 3) {
    value = {
      source: { path: pathIn(half(0, UNIX_PATH)) },
      destination: { path: pathIn(half(UNIX_PATH, 2 * UNIX_PATH)) },
    }
  }
  return { state: 'done', value, length }
}

/** A NUL ends it, but for the first one, which is what an abstract socket's name begins with. */
function pathIn(bytes: Buffer): string {
  const end = bytes.indexOf(0, 1)
  const path = bytes.toString('utf8', 0, end === -1 ? undefined : end)
  return path === '\0' ? '' : path
}

function addressIn(bytes: Buffer): string {
  if (bytes.length === 4) return bytes.join('.')
  const groups = Array.from({ length: 8 }, (_, i) => bytes.readUInt16BE(2 * i).toString(16))
  return plainAddress(groups.join(':'))
}

const MAPPED_PREFIX = Buffer.from('00000000000000000000ffff', 'hex')

/** An address in its shortest spelling, without a zone; IPv4 within IPv6, as a server of both sees it, is IPv4. */
export function plainAddress(address: string): string {
  if (!address.includes(':')) return address
  const bare = address.replace(/%.*$/, '')
  const bytes = bytesOf(bare)
  if (bytes.subarray(0, 12).equals(MAPPED_PREFIX)) return bytes.subarray(12).join('.')
  return new URL(`http://[${bare}]`).hostname.slice(1, -1)
}

/** Of an address that is known to be one. */
function bytesOf(address: string): Buffer {
  if (isIPv4(address)) return Buffer.from(address.split('.').map(Number))
  const [v6, v4] = /^(.*:)(\d+\.\d+\.\d+\.\d+)$/.exec(address)?.slice(1) ?? [address]
  const groups = v4 === undefined ? v6! : `${v6}${bytesOf(v4).toString('hex').replace(/^.{4}/, '$&:')}`
  const [head, tail] = groups.split('::').map((part) => (part === '' ? [] : part.split(':')))
  const missing = 8 - head!.length - (tail?.length ?? 0)
  const all = [...head!, ...Array<string>(missing).fill('0'), ...(tail ?? [])]
  return Buffer.from(all.map((group) => group.padStart(4, '0')).join(''), 'hex')
}

/** The header that says this of a connection; where a version has no words for it, that it is unknown. */
export function printProxyHeader(version: 1 | 2, header: ProxyHeader): Buffer {
  return version === 1 ? Buffer.from(printLine(header)) : printBinary(header)
}

/** The family that both ends have. */
function familyOf(header: ProxyHeader): 0 | 4 | 6 | 'unix' {
  if (header === undefined) return 0
  const [source, destination] = [header.source, header.destination].map((end) =>
    'path' in end ? 'unix' : (isIP(end.address) as 0 | 4 | 6),
  )
  return source === destination ? source! : 0
}

function printLine(header: ProxyHeader): string {
  const family = familyOf(header)
  if (header === undefined || family === 0) return 'PROXY UNKNOWN\r\n'
  const { source, destination } = header
  if ('path' in source || 'path' in destination) return 'PROXY UNKNOWN\r\n'
  return `PROXY TCP${family} ${source.address} ${destination.address} ${source.port} ${destination.port}\r\n`
}

function printBinary(header: ProxyHeader): Buffer {
  const family = familyOf(header)
  const ends = header === undefined || family === 0 ? [] : [header.source, header.destination]
  const places = ends.map((end) => ('path' in end ? pathBytes(end.path) : bytesOf(end.address)))
  const ports = ends.flatMap((end) => ('path' in end ? [] : [end.port >> 8, end.port & 0xff]))
  const data = Buffer.concat([...places, Buffer.from(ports)])
  const kind = { 0: 0x00, 4: 0x11, 6: 0x21, unix: 0x31 }[family]
  return Buffer.concat([V2, Buffer.from([0x21, kind, data.length >> 8, data.length & 0xff]), data])
}

function pathBytes(path: string): Buffer {
  const bytes = Buffer.alloc(UNIX_PATH)
  bytes.write(path)
  return bytes
}
