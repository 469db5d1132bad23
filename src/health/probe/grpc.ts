/** gRPC: the standard health service, grpc.health.v1.Health/Check, over HTTP/2. */
import type { ClientHttp2Session, IncomingHttpHeaders, IncomingHttpStatusHeader } from 'node:http2'
import { connect as connectTcp, type Socket } from 'node:net'
import { expected, onlyKeys, record, string } from '../../check.js'
import { tls } from './lib/builtin.js'
import { failureText } from './lib/failure.js'
import { untilAborted } from '../../optional.js'
import { parseTlsChoice, tlsConnectOptions, type ProbeTlsOptions, type TlsSettings } from './lib/tls-options.js'
import type { ParseProbe, Probe, ProbeReport, ProbeTarget } from './probe.js'

/** Options of `grpc`. One connection per peer is kept, as gRPC's clients do; it does not keep the process alive. */
export interface GrpcProbeOptions {
  /** The probe. */
  readonly type: 'grpc'
  /** The service to ask for, as `shop.v1.Cart`. Default `''`, which is the server as a whole. */
  readonly service?: string | undefined
  /** `:authority`, for peers behind a proxy that routes by it. Default: the host and port that are probed. */
  readonly authority?: string | undefined
  /** Metadata, as `{ authorization: 'Bearer …' }`; of keys that end in `-bin` the value is base64. Default: none. */
  readonly metadata?: Readonly<Record<string, string>> | undefined
  /** TLS, with all defaults by true. Default false: HTTP/2 with prior knowledge. */
  readonly tls?: boolean | ProbeTlsOptions | undefined
}

/** grpc.health.v1.HealthCheckResponse.ServingStatus; SERVING is 1. */
const SERVING = 1
const NOT_SERVING: ReadonlyMap<number, string> = new Map([
  [0, 'serving status unknown'],
  [2, 'not serving'],
  [3, 'unknown service'],
])

/** What codes mean of a health check, and the names of the others, which stand at their numbers. */
const OK = 0
const NOT_FOUND = 5
const UNIMPLEMENTED = 12
const CODES: readonly string[] = [
  ...['OK', 'CANCELLED', 'UNKNOWN', 'INVALID_ARGUMENT', 'DEADLINE_EXCEEDED', 'NOT_FOUND', 'ALREADY_EXISTS'],
  ...['PERMISSION_DENIED', 'RESOURCE_EXHAUSTED', 'FAILED_PRECONDITION', 'ABORTED', 'OUT_OF_RANGE', 'UNIMPLEMENTED'],
  ...['INTERNAL', 'UNAVAILABLE', 'DATA_LOSS', 'UNAUTHENTICATED'],
]

/** A message is preceded by whether it is compressed, and its length of four bytes. */
const PREFIX = 5
/** Bytes of an answer: a HealthCheckResponse has two, and what later versions may add. */
const LONGEST = 65_536

/** A protobuf of one string, field 1, which is left out if it is empty. */
function encodeRequest(service: string): Buffer {
  const text = Buffer.from(service)
  const length = []
  for (let rest = text.length; rest > 0; rest = Math.floor(rest / 128))
    length.push((rest % 128) + (rest > 127 ? 128 : 0))
  const message = text.length === 0 ? text : Buffer.concat([Buffer.of(0x0a, ...length), text])
  const prefix = Buffer.alloc(PREFIX)
  prefix.writeUInt32BE(message.length, 1)
  return Buffer.concat([prefix, message])
}

/** The enum in field 1, which is 0 if it is left out; other fields are skipped. */
function decodeStatus(body: Buffer): number {
  if (body.length < PREFIX || body[0] !== 0 || body.readUInt32BE(1) !== body.length - PREFIX) throw malformed()
  let at = PREFIX
  const varint = (): number => {
    for (let value = 0, scale = 1; at < body.length; scale *= 128) {
      const byte = body[at++]!
      value += (byte & 0x7f) * scale
      if (byte < 0x80) return value
    }
    throw malformed()
  }
  const skip = (length: number) => void (at += length)
  let status = 0
  while (at < body.length) {
    const tag = varint()
    const type = tag % 8
    if (tag === 8) status = varint()
    else if (type === 0) varint()
    else if (type === 1) skip(8)
    else if (type === 2) skip(varint())
    else if (type === 5) skip(4)
    else throw malformed()
  }
  if (at > body.length) throw malformed()
  return status
}

function malformed(): Error {
  return new Error('malformed gRPC answer')
}

interface Answer {
  readonly headers: IncomingHttpHeaders & IncomingHttpStatusHeader
  readonly trailers: IncomingHttpHeaders
  readonly body: Buffer
}

function report({ headers, trailers, body }: Answer): ProbeReport {
  const status = headers[':status']
  if (status !== 200) return { status: 'err', message: `status ${status}` }
  // Without a message all is in the headers.
  const code = String(trailers['grpc-status'] ?? headers['grpc-status'] ?? '')
  const said = String(trailers['grpc-message'] ?? headers['grpc-message'] ?? '')
  if (!/^\d+$/.test(code)) return { status: 'err', message: 'no gRPC answer' }
  if (Number(code) === OK) {
    const serving = decodeStatus(body)
    if (serving === SERVING) return { status: 'ok' }
    return { status: 'err', message: NOT_SERVING.get(serving) ?? `serving status ${serving}` }
  }
  if (Number(code) === UNIMPLEMENTED) return { status: 'err', message: 'no health service' }
  if (Number(code) === NOT_FOUND) return { status: 'err', message: 'unknown service' }
  return {
    status: 'err',
    message: `${CODES[Number(code)] ?? `code ${code}`}${said && `: ${failureText(unescape(said))}`}`,
  }
}

/** grpc-message is percent-encoded; what is not, is shown as it is. */
function unescape(message: string): string {
  try {
    return decodeURIComponent(message)
  } catch {
    return message
  }
}

interface Kept {
  readonly session: ClientHttp2Session
  /** Checks in flight. */
  checks: number
  /** Whoever still asks is not to open another. */
  forgotten: boolean
}

class GrpcProbe implements Probe {
  readonly #tls: TlsSettings | undefined
  readonly #headers: Readonly<Record<string, string>>
  readonly #authority: string | undefined
  readonly #body: Buffer
  /** By the address of the peer. */
  readonly #sessions = new Map<string, Kept>()

  constructor(settings: Settings) {
    this.#tls = settings.tls
    this.#headers = settings.headers
    this.#authority = settings.authority
    this.#body = settings.body
  }

  async check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    signal.throwIfAborted()
    const { connect } = await untilAborted(signal, import('node:http2'))
    signal.throwIfAborted()
    const ask = (kept: Kept) => this.#ask(kept, target, signal)
    const open = () => {
      const url = `${this.#tls ? 'https' : 'http'}://localhost`
      return this.#keep(target, connect(url, { createConnection: () => this.#connect(target) }))
    }
    const kept = this.#sessions.get(target.peer.address)
    if (kept === undefined) return report(await ask(open()))
    let answer: Answer
    try {
      answer = await ask(kept)
    } catch (error) {
      if (signal.aborted || kept.forgotten) throw error
      // A server ends connections as it likes, and may do so while a request is on its way.
      answer = await ask(this.#sessions.get(target.peer.address) ?? open())
    }
    return report(answer)
  }

  #connect({ connect, host }: ProbeTarget): Socket {
    if (this.#tls === undefined) return connectTcp({ ...connect })
    return tls().connect({ ...connect, ...tlsConnectOptions(this.#tls, host), ALPNProtocols: ['h2'] })
  }

  #keep({ peer }: ProbeTarget, session: ClientHttp2Session): Kept {
    const kept: Kept = { session, checks: 0, forgotten: false }
    const leave = () => {
      if (this.#sessions.get(peer.address) === kept) this.#sessions.delete(peer.address)
    }
    // The streams of a session fail with it, and tell.
    session.on('error', () => undefined)
    session.once('goaway', leave)
    session.once('close', leave)
    this.#sessions.set(peer.address, kept)
    return kept
  }

  #ask(kept: Kept, target: ProbeTarget, signal: AbortSignal): Promise<Answer> {
    const { session } = kept
    return new Promise<Answer>((resolve, reject) => {
      const leave = () => {
        signal.removeEventListener('abort', abort)
        if (--kept.checks === 0) session.unref()
      }
      // What did not answer one check is not trusted with the next.
      const fail = (error: Error) => {
        if (failed) return
        failed = true
        leave()
        if (this.#sessions.get(target.peer.address) === kept) this.#sessions.delete(target.peer.address)
        session.destroy()
        reject(inWords(error))
      }
      const abort = () => fail(signal.reason as Error)
      let failed = false
      let headers: Answer['headers'] | undefined
      let trailers: IncomingHttpHeaders = {}
      const chunks: Buffer[] = []
      let length = 0

      kept.checks++
      session.ref()
      signal.addEventListener('abort', abort)
      try {
        const stream = session.request(this.#headersFor(target))
        stream.on('error', fail)
        stream.once('response', (received) => (headers = received))
        stream.once('trailers', (received: IncomingHttpHeaders) => (trailers = received))
        stream.on('data', (chunk: Buffer) => {
          length += chunk.length
          if (length > LONGEST) fail(new Error(`an answer of more than ${LONGEST} bytes`))
          else chunks.push(chunk)
        })
        stream.once('close', () => {
          if (failed) return
          if (!stream.readableEnded || headers === undefined) {
            return fail(new Error(headers === undefined ? 'closed without an answer' : 'closed amid its answer'))
          }
          leave()
          resolve({ headers, trailers, body: Buffer.concat(chunks) })
        })
        stream.end(this.#body)
      } catch (error) {
        fail(error as Error)
      }
    })
  }

  #headersFor({ host, port }: ProbeTarget) {
    const name = host.includes(':') ? `[${host}]` : host
    return {
      ...this.#headers,
      ':authority': this.#authority ?? (port === 0 ? 'localhost' : `${name}:${port}`),
      ':scheme': this.#tls ? 'https' : 'http',
      ':method': 'POST',
      ':path': '/grpc.health.v1.Health/Check',
      'content-type': 'application/grpc',
      te: 'trailers',
    }
  }

  forget({ peer }: ProbeTarget): void {
    const kept = this.#sessions.get(peer.address)
    if (kept === undefined) return
    kept.forgotten = true
    kept.session.destroy()
    this.#sessions.delete(peer.address)
  }

  close(): void {
    for (const kept of this.#sessions.values()) {
      kept.forgotten = true
      kept.session.destroy()
    }
    this.#sessions.clear()
  }
}

/** Of a stream that ends with its session, the reason is that of the session. */
function inWords(error: Error): Error {
  const reason = error.cause instanceof Error ? error.cause : error
  return (reason as NodeJS.ErrnoException).code === 'ERR_HTTP2_ERROR' ? new Error('no HTTP/2 answer') : reason
}

interface Settings {
  readonly tls: TlsSettings | undefined
  readonly headers: Readonly<Record<string, string>>
  readonly authority: string | undefined
  readonly body: Buffer
}

export const parseGrpc: ParseProbe = (path, options) => {
  onlyKeys(path, options, new Set(['type', 'service', 'authority', 'metadata', 'tls']))
  const { service = '', authority, metadata = {} } = options
  if (typeof service !== 'string') throw expected(path, 'service', 'a string', service)
  const settings: Settings = {
    tls: parseTlsChoice(path, 'tls', options['tls']),
    headers: parseMetadata(`${path}.metadata`, record(path, 'metadata', metadata)),
    authority: authority === undefined ? undefined : string(path, 'authority', authority),
    body: encodeRequest(service),
  }
  return () => new GrpcProbe(settings)
}

/** What the gRPC protocol lets metadata be; `grpc-` is its own. */
function parseMetadata(path: string, metadata: Record<string, unknown>): Readonly<Record<string, string>> {
  const headers = new Map([['user-agent', 'checkups']])
  for (const [name, value] of Object.entries(metadata)) {
    if (!/^(?!grpc-|te$|content-type$)[\da-z_.-]+$/.test(name)) {
      throw expected(path, name, 'a name of lower-case letters, digits, "_", "-" and ".", not gRPC\'s own', name)
    }
    if (typeof value !== 'string' || !/^[\x20-\x7e]*$/.test(value)) {
      throw expected(path, name, 'a string of printable ASCII', value)
    }
    headers.set(name, value)
  }
  return Object.fromEntries(headers)
}
