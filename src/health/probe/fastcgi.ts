/** FastCGI: a request to a responder, as a web server would send it, and the status of its answer. */
import { expected, onlyKeys, record, string } from '../../check.js'
import { converse } from './lib/converse.js'
import { failureText } from './lib/failure.js'
import { excerpt } from './lib/match.js'
import { parseStatuses, type IsOk, type ProbeStatuses } from './lib/statuses.js'
import type { ParseProbe, ProbeReport } from './probe.js'

/** Options of `fastcgi`, for php-fpm and others. */
export interface FastcgiProbeOptions {
  /** The probe. */
  readonly type: 'fastcgi'
  /**
   * Path and query, from which SCRIPT_NAME, QUERY_STRING and REQUEST_URI are made: with php-fpm its `ping.path`, or that of
   * a script. Its answer may have 64 KiB. Default `'/'`.
   */
  readonly path?: string | undefined
  /** SCRIPT_FILENAME: the script's absolute path where the peer runs. Default: the path, which php-fpm's `ping.path` needs. */
  readonly scriptFilename?: string | undefined
  /** REQUEST_METHOD. Default `'GET'`. */
  readonly method?: string | undefined
  /** Further parameters, or others in place of those above: `{ SERVER_NAME: 'shop.example' }`. */
  readonly params?: Readonly<Record<string, string>> | undefined
  /** Which statuses are ok. An answer without one is a 200, as in nginx. Default 2xx and 3xx, as in the `http` probe. */
  readonly statuses?: ProbeStatuses | undefined
}

/** FastCGI 1.0: §8, types of records; §5.1, the role; §5.5, how a request ended. */
const BEGIN_REQUEST = 1
const END_REQUEST = 3
const PARAMS = 4
const STDIN = 5
const STDOUT = 6
const STDERR = 7
const RESPONDER = 1
const ENDINGS: readonly string[] = ['complete', 'cannot multiplex', 'overloaded', 'unknown role']

const HEADER = 8
/** A record's length has 16 bits. */
const LONGEST_RECORD = 65_535
/** All is of one request. */
const ID = 1

/** §3.3. */
function encodeRecord(type: number, content: Buffer): Buffer {
  const header = Buffer.from([1, type, 0, ID, 0, 0, 0, 0])
  header.writeUInt16BE(content.length, 4)
  return Buffer.concat([header, content])
}

/** §3.4: lengths of up to 127 take a byte, longer ones four, of which the highest bit is set. */
function encodePair(name: string, value: string): Buffer {
  const length = (text: string) => {
    const bytes = Buffer.byteLength(text)
    if (bytes < 128) return Buffer.of(bytes)
    const long = Buffer.alloc(4)
    long.writeUInt32BE((bytes | 0x8000_0000) >>> 0)
    return long
  }
  return Buffer.concat([length(name), length(value), Buffer.from(name), Buffer.from(value)])
}

interface Answer {
  readonly stdout: Buffer
  readonly stderr: Buffer
}

/** The answer as far as it is there: undefined until the request has ended. */
function decode(received: Buffer): Answer | undefined {
  const parts = { [STDOUT]: [] as Buffer[], [STDERR]: [] as Buffer[] }
  for (let at = 0; at < received.length;) {
    const [version, type] = [received[at]!, received[at + 1]]
    if (version !== 1) throw new Error(`no FastCGI answer: ${excerpt(received)}`)
    if (at + HEADER > received.length) return undefined
    const id = received.readUInt16BE(at + 2)
    if (id !== ID || (type !== STDOUT && type !== STDERR && type !== END_REQUEST)) {
      throw new Error(`no FastCGI answer: a record of type ${type} for request ${id}`)
    }
    const from = at + HEADER
    const to = from + received.readUInt16BE(at + 4)
    at = to + received[at + 6]!
    if (at > received.length) return undefined
    const content = received.subarray(from, to)
    if (type !== END_REQUEST) {
      parts[type].push(content)
      continue
    }
    const ending = content[4]
    if (ending !== 0) throw new Error(`request ${ENDINGS[ending ?? -1] ?? 'ended without a status'}`)
    return { stdout: Buffer.concat(parts[STDOUT]), stderr: Buffer.concat(parts[STDERR]) }
  }
  return undefined
}

/** RFC 3875 §6.2: without a status it is 200 or, with a location, a redirect. */
function statusOf(stdout: Buffer, complaint: string): number {
  const text = stdout.toString('latin1')
  const end = /\r?\n\r?\n/.exec(text)
  if (end === null) throw new Error(complaint || 'answer without a header')
  const header = text.slice(0, end.index)
  const [, status] = /^status:[ \t]*(\d{3})\b/im.exec(header) ?? []
  if (status !== undefined) return Number(status)
  return /^location:/im.test(header) ? 302 : 200
}

function report({ stdout, stderr }: Answer, isOk: IsOk): ProbeReport {
  const complaint = stderr.toString().trim()
  const status = statusOf(stdout, complaint)
  const facts = { status }
  const said = complaint === '' ? '' : failureText(complaint)
  if (!isOk(status)) return { status: 'err', message: `status ${status}${said && `: ${said}`}`, facts }
  return said === '' ? { status: 'ok', facts } : { status: 'ok', message: said, facts }
}

const KEYS: ReadonlySet<string> = new Set(['type', 'path', 'scriptFilename', 'method', 'params', 'statuses'])

export const parseFastcgi: ParseProbe = (path, options) => {
  onlyKeys(path, options, KEYS)
  const { statuses = ['2xx', '3xx'] } = options
  const uri = string(path, 'path', options['path'] ?? '/')
  if (!uri.startsWith('/')) throw expected(path, 'path', 'a path that begins with "/"', uri)
  const isOk = parseStatuses(path, 'statuses', statuses)
  const params = encodeParams(path, uri, options)
  const request = Buffer.concat([
    encodeRecord(BEGIN_REQUEST, Buffer.from([0, RESPONDER, 0, 0, 0, 0, 0, 0])),
    encodeRecord(PARAMS, params),
    encodeRecord(PARAMS, Buffer.alloc(0)),
    encodeRecord(STDIN, Buffer.alloc(0)),
  ])
  return () => ({
    async check(target, signal) {
      return report(await converse(target, signal, { send: request, read: decode }), isOk)
    },
  })
}

function encodeParams(path: string, uri: string, options: Record<string, unknown>): Buffer {
  const [script = '', query = ''] = uri.split(/\?(.*)/s)
  // RFC 3875 §4.1: what a CGI script may rely on.
  const params = new Map([
    ['GATEWAY_INTERFACE', 'CGI/1.1'],
    ['SERVER_SOFTWARE', 'checkups'],
    ['SERVER_PROTOCOL', 'HTTP/1.1'],
    ['SERVER_NAME', 'localhost'],
    ['SERVER_PORT', '80'],
    ['REMOTE_ADDR', '127.0.0.1'],
    ['REQUEST_METHOD', string(path, 'method', options['method'] ?? 'GET')],
    ['REQUEST_URI', uri],
    ['SCRIPT_NAME', script],
    ['SCRIPT_FILENAME', string(path, 'scriptFilename', options['scriptFilename'] ?? script)],
    ['QUERY_STRING', query],
    ['CONTENT_LENGTH', ''],
    ['CONTENT_TYPE', ''],
  ])
  for (const [name, value] of Object.entries(record(path, 'params', options['params'] ?? {}))) {
    if (typeof value !== 'string') throw expected(`${path}.params`, name, 'a string', value)
    params.set(name, value)
  }
  const encoded = Buffer.concat([...params].map(([name, value]) => encodePair(name, value)))
  if (encoded.length <= LONGEST_RECORD) return encoded
  throw expected(path, 'params', `at most ${LONGEST_RECORD} bytes in all`, encoded.length)
}
