/** HTTP and HTTPS: a request, and what its answer must be. */
import type { Agent, ClientRequest, IncomingMessage, RequestOptions } from 'node:http'
import { isIP, type Socket } from 'node:net'
import { boolean, expected, oneOf, onlyKeys, record, string } from '../../check.js'
import { ConfigError } from '../../errors.js'
import { http, https } from './lib/builtin.js'
import { converse } from './lib/converse.js'
import { excerpt, parseMatch, type Match } from './lib/match.js'
import { parseStatuses, type IsOk, type ProbeStatuses } from './lib/statuses.js'
import {
  openTls,
  parseTlsOptions,
  tlsConnectOptions,
  type ProbeTlsOptions,
  type TlsSettings,
} from './lib/tls-options.js'
import type { ParseProbe, Probe, ProbeReport, ProbeTarget } from './probe.js'

/** Options of `http` and `https`. Redirects are never followed: the peer itself is asked, not where it points. */
export interface HttpProbeOptions {
  /** The probe. */
  readonly type: 'http' | 'https'
  /**
   * Default `'GET'`, as in nginx, Envoy, Kong and Consul: every application answers it, while HEAD is often a 404 or 405.
   * With HEAD no body is sent, which is cheaper where there is one.
   */
  readonly method?: 'GET' | 'HEAD' | 'OPTIONS' | undefined
  /** Path and query. Its answer must come to an end. Default `'/'`. */
  readonly path?: string | undefined
  /** Further headers. Default: a `user-agent` of `checkups`, by which access logs can leave the checks out. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** The Host header, with its port if it has one. Default: the host and port that are probed. */
  readonly hostHeader?: string | undefined
  /**
   * Which statuses are ok. Default 2xx and 3xx, as in nginx's check module and nginx plus: an answer of 4xx to a check is
   * mostly a wrong path, which should be seen. With `query` the default is any status, as in lua-resty-checkups.
   */
  readonly statuses?: ProbeStatuses | undefined
  /** What the first 64 KiB of the body (as UTF-8) must contain, or match; only with GET. Default: not looked at. */
  readonly body?: string | RegExp | undefined
  /**
   * Whether one idle connection per peer is kept for the next check. Default true, which is cheaper for both sides; false
   * checks each time that the peer also takes new connections.
   */
  readonly keepAlive?: boolean | undefined
  /**
   * A whole request, sent as it is over a new connection: `'GET /status HTTP/1.0\r\n\r\n'` (lua-resty-checkups). Only the
   * status line of the answer is read. Excludes method, path, headers, hostHeader, body and keepAlive.
   */
  readonly query?: string | undefined
  /** How TLS is spoken; only with `https`. The default of `servername` is the name in `hostHeader`, then the host's. */
  readonly tls?: ProbeTlsOptions | undefined
}

/** Bytes of a body that are read, at most; the connection of a longer one is not used again. */
const LONGEST = 65_536

interface Settings {
  readonly tls: TlsSettings | undefined
  readonly request: Pick<RequestOptions, 'method' | 'path' | 'headers'>
  readonly isOk: IsOk
  readonly body: Match | undefined
  readonly keepAlive: boolean
}

/** What is made once for a target. */
interface Line {
  readonly request: RequestOptions
  /** That of the last answer; idle, if it is open and no check is under way. */
  socket: Socket | undefined
}

class HttpProbe implements Probe {
  readonly #settings: Settings
  readonly #agent: Agent
  readonly #request: (options: RequestOptions) => ClientRequest
  /** By where they lead. */
  readonly #lines = new WeakMap<ProbeTarget['connect'], Line>()

  constructor(settings: Settings) {
    this.#settings = settings
    const options = { keepAlive: settings.keepAlive, maxFreeSockets: 1 }
    // A resumed TLS session would be taken without a look at the certificate.
    this.#agent = settings.tls ? new (https().Agent)({ ...options, maxCachedSessions: 0 }) : new (http().Agent)(options)
    this.#request = settings.tls ? https().request : http().request
  }

  async check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    try {
      return await this.#ask(target, signal)
    } catch (error) {
      if (!(error instanceof StaleError)) throw error
    }
    // Of this target no other connection is kept: it will be a new one.
    return this.#ask(target, signal)
  }

  #ask(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    return new Promise<ProbeReport>((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error)
      const line = this.#line(target)
      const sent = this.#request(line.request)
      const leave = () => signal.removeEventListener('abort', abort)
      const fail = (error: Error) => {
        leave()
        sent.destroy()
        reject(error)
      }
      const abort = () => fail(signal.reason as Error)
      signal.addEventListener('abort', abort)
      sent.once('socket', (socket) => socket.unref())
      sent.on('error', (error: NodeJS.ErrnoException) => {
        // Servers end idle connections, and may do so while a request is on its way.
        const stale = sent.reusedSocket && sent.listenerCount('response') > 0
        fail(stale ? new StaleError(error.message) : inWords(error))
      })
      sent.once('response', (answer) => {
        line.socket = answer.socket
        this.#read(answer, sent, fail, (report) => {
          leave()
          resolve(report)
        })
      })
      sent.end()
    })
  }

  /** Reads the answer to its end, so that the connection can be used again, or as far as bodies are read. */
  #read(
    answer: IncomingMessage,
    sent: ClientRequest,
    fail: (error: Error) => void,
    done: (report: ProbeReport) => void,
  ): void {
    const { isOk, body } = this.#settings
    const status = answer.statusCode!
    const chunks: Buffer[] = []
    let length = 0
    const judge = (): ProbeReport => {
      const facts = { status }
      if (!isOk(status)) return { status: 'err', message: `status ${status}`, facts }
      if (body === undefined || body(Buffer.concat(chunks).toString('utf8', 0, LONGEST))) return { status: 'ok', facts }
      return { status: 'err', message: 'body does not match', facts }
    }
    answer.on('data', (chunk: Buffer) => {
      if (length > LONGEST) return
      length += chunk.length
      if (body !== undefined) chunks.push(chunk)
      if (length <= LONGEST) return
      done(judge())
      sent.destroy()
    })
    answer.once('end', () => done(judge()))
    answer.on('error', () => {
      if (isOk(status)) fail(new Error('closed amid its answer'))
      else done(judge())
    })
  }

  #line({ connect, host }: ProbeTarget): Line {
    const known = this.#lines.get(connect)
    if (known !== undefined) return known
    const { request, tls } = this.#settings
    const line: Line = {
      request: {
        ...request,
        ...('path' in connect ? { socketPath: connect.path } : connect),
        ...(tls && tlsConnectOptions(tls, host)),
        agent: this.#agent,
      },
      socket: undefined,
    }
    this.#lines.set(connect, line)
    return line
  }

  forget({ connect }: ProbeTarget): void {
    this.#lines.get(connect)?.socket?.destroy()
  }

  close(): void {
    this.#agent.destroy()
  }
}

/** A kept connection failed before an answer began. */
class StaleError extends Error {}

function inWords(error: NodeJS.ErrnoException): Error {
  const { code, syscall, message } = error
  if (code?.startsWith('HPE_')) return invalid(message.replace('Parse Error: ', ''))
  // Node's "socket hang up": no system call has failed, the other side has closed.
  if (code === 'ECONNRESET' && syscall === undefined) return new Error('closed without an answer')
  return error
}

function invalid(why: string): Error {
  return new Error(`invalid HTTP answer: ${why}`)
}

/** A raw request: says it, reads the status line, and leaves. */
class RawHttpProbe implements Probe {
  readonly #query: string
  readonly #isOk: IsOk
  readonly #tls: TlsSettings | undefined

  constructor(query: string, isOk: IsOk, tls: TlsSettings | undefined) {
    this.#query = query
    this.#isOk = isOk
    this.#tls = tls
  }

  check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    const tls = this.#tls
    return converse(target, signal, {
      ...(tls && { open: () => openTls(tls, target), opened: 'secureConnect' }),
      send: this.#query,
      read: (received) => this.#report(received, received.includes('\n')),
      ended: (received) => (received.length > 0 ? this.#report(received, true) : undefined),
    })
  }

  #report(received: Buffer, whole: boolean): ProbeReport | undefined {
    if (!whole) return undefined
    const [, code] = /^HTTP\/\d+(?:\.\d+)? (\d{3})\b/.exec(received.toString('latin1', 0, 100)) ?? []
    if (code === undefined) throw invalid(excerpt(received))
    const facts = { status: Number(code) }
    return this.#isOk(facts.status) ? { status: 'ok', facts } : { status: 'err', message: `status ${code}`, facts }
  }
}

const KEYS: ReadonlySet<string> = new Set([
  ...['type', 'method', 'path', 'headers', 'hostHeader', 'statuses', 'body', 'keepAlive', 'query', 'tls'],
])

export const parseHttp: ParseProbe = (path, options) => {
  onlyKeys(path, options, KEYS)
  const { query, statuses } = options
  if (options['tls'] !== undefined && options['type'] !== 'https') {
    throw new ConfigError(`${path}.tls`, 'only for the type "https"')
  }
  const hostHeader = options['hostHeader'] === undefined ? undefined : parseHost(path, options['hostHeader'])
  const tls = options['type'] === 'https' ? tlsOf(parseTlsOptions(path, 'tls', options['tls']), hostHeader) : undefined

  if (query !== undefined) {
    for (const key of ['method', 'path', 'headers', 'hostHeader', 'body', 'keepAlive']) {
      if (options[key] !== undefined)
        throw new ConfigError(`${path}.${key}`, 'not together with query, which says it all')
    }
    const request = string(path, 'query', query)
    const isOk = statuses === undefined ? () => true : parseStatuses(path, 'statuses', statuses)
    return () => new RawHttpProbe(request, isOk, tls)
  }

  const method = oneOf(path, 'method', options['method'] ?? 'GET', ['GET', 'HEAD', 'OPTIONS'])
  const body = parseMatch(path, 'body', options['body'])
  if (body !== undefined && method !== 'GET') throw new ConfigError(`${path}.body`, 'only with the method GET')
  const settings: Settings = {
    tls,
    request: {
      method,
      path: parsePath(path, options['path'] ?? '/'),
      headers: parseHeaders(path, options, hostHeader),
    },
    isOk: parseStatuses(path, 'statuses', statuses ?? ['2xx', '3xx']),
    body,
    keepAlive: boolean(path, 'keepAlive', options['keepAlive'] ?? true),
  }
  return () => new HttpProbe(settings)
}

/** What node:http lets stand in a request line. */
function parsePath(path: string, value: unknown): string {
  if (typeof value === 'string' && /^\/[\x21-\xff]*$/.test(value)) return value
  throw expected(path, 'path', 'a path that begins with "/", without spaces', value)
}

function parseHost(path: string, value: unknown): string {
  if (typeof value === 'string' && /^(\[[\da-f:.]+\]|[\w.-]+)(:\d{1,5})?$/i.test(value)) return value
  throw expected(path, 'hostHeader', '"name" or "name:port"', value)
}

/** The name in the Host header is the one to ask for. */
function tlsOf(settings: TlsSettings, hostHeader: string | undefined): TlsSettings {
  const name = hostHeader?.replace(/:\d+$/, '')
  if (name === undefined || settings.servername !== undefined || name.startsWith('[') || isIP(name) !== 0)
    return settings
  return { ...settings, servername: name }
}

function parseHeaders(path: string, options: Record<string, unknown>, hostHeader: string | undefined) {
  const headers = new Map([['user-agent', 'checkups']])
  if (hostHeader !== undefined) headers.set('host', hostHeader)
  for (const [name, value] of Object.entries(record(path, 'headers', options['headers'] ?? {}))) {
    const at = `${path}.headers`
    if (name.toLowerCase() === 'host') throw new ConfigError(`${at}.${name}`, 'is the option hostHeader')
    if (typeof value !== 'string') throw expected(at, name, 'a string', value)
    try {
      http().validateHeaderName(name)
      http().validateHeaderValue(name, value)
    } catch (error) {
      throw new ConfigError(`${at}.${name}`, (error as Error).message)
    }
    headers.set(name.toLowerCase(), value)
  }
  return Object.fromEntries(headers)
}
