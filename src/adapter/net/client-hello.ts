/** The ClientHello of TLS (RFC 8446, 4.1.2, and its forerunners): read, not answered. */
import { invalid, MORE, type Reading } from './reading.js'

/** What a TLS client asks for before anything is encrypted. */
export interface ClientHello {
  /** The server's name (SNI), in lower case; undefined if the client names none. */
  readonly servername: string | undefined
  /** The application protocols it offers (ALPN), best first. */
  readonly alpn: readonly string[]
}

const HANDSHAKE = 22
const CLIENT_HELLO = 1
const RECORD_HEAD = 5
const MESSAGE_HEAD = 4
/** RFC 8446, 5.1. */
const LONGEST_RECORD = 2 ** 14
const SERVER_NAME = 0
const ALPN = 16
const HOST_NAME = 0

/** Reads a whole message, which may be spread over several records. None of it is taken off: the server needs all of it. */
export function parseClientHello(bytes: Buffer): Reading<ClientHello> {
  const pieces: Buffer[] = []
  let have = 0
  let total = Infinity
  for (let offset = 0; ;) {
    const record = bytes.subarray(offset)
    if (record.length > 0 && record[0] !== HANDSHAKE) return invalid('no TLS handshake')
    if (record.length > 1 && record[1] !== 3) return invalid('no version of TLS')
    if (record.length < RECORD_HEAD) return MORE
    const length = record.readUInt16BE(3)
    if (length === 0 || length > LONGEST_RECORD) return invalid(`a record of ${length} bytes`)
    const piece = record.subarray(RECORD_HEAD, RECORD_HEAD + length)
    pieces.push(piece)
    have += piece.length
    if (have > 0 && pieces[0]![0] !== CLIENT_HELLO) return invalid('no ClientHello')
    if (total === Infinity && have >= MESSAGE_HEAD) total = MESSAGE_HEAD + Buffer.concat(pieces).readUIntBE(1, 3)
    if (have >= total) {
      const value = parseBody(new Cursor(Buffer.concat(pieces).subarray(MESSAGE_HEAD, total)))
      return value === undefined ? invalid('a malformed ClientHello') : { state: 'done', value, length: 0 }
    }
    if (piece.length < length) return MORE
    offset += RECORD_HEAD + length
  }
}

/** Bytes from a place on; `undefined` where there are not enough. */
class Cursor {
  #rest: Buffer

  constructor(bytes: Buffer) {
    this.#rest = bytes
  }

  atEnd(): boolean {
    return this.#rest.length === 0
  }

  take(length: number): Buffer | undefined {
    if (this.#rest.length < length) return undefined
    const taken = this.#rest.subarray(0, length)
    this.#rest = this.#rest.subarray(length)
    return taken
  }

  number(size: 1 | 2): number | undefined {
    return this.take(size)?.readUIntBE(0, size)
  }

  /** What stands behind its own length. */
  vector(size: 1 | 2): Buffer | undefined {
    const length = this.number(size)
    return length === undefined ? undefined : this.take(length)
  }
}

/** Undefined if it is malformed. */
function parseBody(body: Cursor): ClientHello | undefined {
  const isWhole =
    body.take(2 + 32) !== undefined && // version and random
    body.vector(1) !== undefined && // session
    body.vector(2) !== undefined && // cipher suites
    body.vector(1) !== undefined // compression
  if (!isWhole) return undefined
  // Before TLS 1.2 there may be none.
  if (body.atEnd()) return { servername: undefined, alpn: [] }
  const block = body.vector(2)
  if (block === undefined || !body.atEnd()) return undefined

  const extensions = new Map<number, Buffer>()
  for (const rest = new Cursor(block); !rest.atEnd();) {
    const type = rest.number(2)
    const data = rest.vector(2)
    // RFC 8446, 4.2: there must not be two of one type.
    if (type === undefined || data === undefined || extensions.has(type)) return undefined
    extensions.set(type, data)
  }
  const name = extensions.get(SERVER_NAME)
  const protocols = extensions.get(ALPN)
  const servername = name === undefined ? undefined : parseServerName(name)
  const alpn = protocols === undefined ? [] : parseAlpn(protocols)
  if ((name !== undefined && servername === undefined) || alpn === undefined) return undefined
  return { servername, alpn }
}

/** What may be a name in DNS; others would be of no use as a key, and of none in a log. */
const NAME = /^[a-z0-9_-]+(\.[a-z0-9_-]+)*$/

/** RFC 6066, 3: a list of names, of which one is a host's. */
function parseServerName(data: Buffer): string | undefined {
  const list = listIn(data)
  if (list === undefined) return undefined
  let found: string | undefined
  for (const rest = new Cursor(list); !rest.atEnd();) {
    const type = rest.number(1)
    const name = rest.vector(2)
    if (type === undefined || name === undefined) return undefined
    if (type !== HOST_NAME) continue
    const text = name.toString('latin1').toLowerCase()
    if (found !== undefined || text.length > 253 || !NAME.test(text)) return undefined
    found = text
  }
  return found
}

/** RFC 7301, 3.1. */
function parseAlpn(data: Buffer): string[] | undefined {
  const list = listIn(data)
  if (list === undefined) return undefined
  const names: string[] = []
  for (const rest = new Cursor(list); !rest.atEnd();) {
    const name = rest.vector(1)
    if (name === undefined || name.length === 0) return undefined
    names.push(name.toString('latin1'))
  }
  return names
}

/** Data that is one list and nothing else. */
function listIn(data: Buffer): Buffer | undefined {
  const cursor = new Cursor(data)
  const list = cursor.vector(2)
  return cursor.atEnd() ? list : undefined
}
