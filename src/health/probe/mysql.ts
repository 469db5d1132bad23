/** MySQL and MariaDB: a login and a ping or, without credentials, the greeting. (mysql of nginx's check module.) */
import { connect as connectTcp, isIP } from 'node:net'
import type { SslOptions } from 'mysql2'
import { onlyKeys, string } from '../../check.js'
import { ConfigError } from '../../errors.js'
import { converse } from './lib/converse.js'
import { excerpt } from './lib/match.js'
import { loadOptional, untilAborted } from '../../optional.js'
import { parseTlsChoice, type ProbeTlsOptions, type TlsSettings } from './lib/tls-options.js'
import type { ParseProbe, Probe, ProbeReport, ProbeTarget } from './probe.js'

/** Options of `mysql`. Every check is a connection of its own. */
export interface MysqlProbeOptions {
  /** The probe. */
  readonly type: 'mysql'
  /**
   * Whom to log in as, which needs the package `mysql2`; the user needs no privilege. Set it: without a user only the
   * greeting is read, and the server counts each as an interrupted connection. After `max_connect_errors` of these
   * (100 by default) and no login in between it blocks this host's address, the applications on it included. It does so
   * neither with `skip_name_resolve` nor for loopback and unix sockets. Default: nobody, which needs no account.
   */
  readonly user?: string | undefined
  /** The user's password. Default: none. */
  readonly password?: string | undefined
  /** The database to use, which must exist. Default: none. */
  readonly database?: string | undefined
  /**
   * TLS, with all defaults by true; only with a user. Of a peer that is named by its address the certificate's authority is
   * verified, and its name only if `servername` says one. Default false.
   */
  readonly tls?: boolean | ProbeTlsOptions | undefined
}

interface Login {
  readonly user: string
  readonly password: string | undefined
  readonly database: string | undefined
  readonly tls: TlsSettings | undefined
}

/** A packet begins with its length, of three bytes, and its number; the greeting and the error in its place are number 0. */
const HEADER = 4
/** The first byte of a greeting (since MySQL 3.21), and of an error. */
const PROTOCOL = 10
const ERROR = 0xff

function readGreeting(received: Buffer): ProbeReport | undefined {
  if (received.length <= HEADER) return undefined
  const length = received.readUIntLE(0, 3)
  const kind = received[HEADER]
  if (received[3] !== 0 || (kind !== PROTOCOL && kind !== ERROR)) {
    throw new Error(`no MySQL greeting: ${excerpt(received)}`)
  }
  if (received.length < HEADER + length) return undefined
  const packet = received.subarray(HEADER, HEADER + length)
  // After the code comes the SQL state, as `#08004`, from some servers.
  if (kind === ERROR) throw new Error(packet.toString('utf8', 3).replace(/^#[\dA-Z]{5}/, ''))
  const end = packet.indexOf(0)
  if (end === -1) throw new Error('no MySQL greeting: without a version')
  return { status: 'ok', facts: { version: versionOf(packet.toString('latin1', 1, end)) } }
}

/** MariaDB up to 10 puts 5.5.5- before its version, for replicas that know no version of two digits. */
function versionOf(version: string): string {
  return version.replace(/^5\.5\.5-(?=1\d\.)/, '')
}

class LoginProbe implements Probe {
  readonly #login: Login

  constructor(login: Login) {
    this.#login = login
  }

  async check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    signal.throwIfAborted()
    const { createConnection } = await untilAborted(
      signal,
      loadOptional('the mysql probe', 'mysql2', () => import('mysql2')),
    )
    signal.throwIfAborted()
    const { user, password = '', database, tls } = this.#login
    const name = tls?.servername ?? target.host
    return new Promise<ProbeReport>((resolve, reject) => {
      // mysql2 would half-close its own when it is told to destroy it.
      const socket = connectTcp({ ...target.connect, noDelay: true })
      const connection = createConnection({
        stream: socket,
        host: name,
        user,
        password,
        // The caller keeps the deadline.
        connectTimeout: 0,
        ...(database !== undefined && { database }),
        ...(tls && { ssl: sslOf(tls, name) }),
      })
      let version: string | undefined
      const leave = () => {
        signal.removeEventListener('abort', abort)
        socket.destroySoon()
      }
      const abort = () => fail(signal.reason as Error)
      const fail = (error: Error) => {
        leave()
        socket.destroy()
        reject(inWords(error))
      }
      signal.addEventListener('abort', abort)
      connection.on('error', fail)
      connection.once('connect', (greeting: { serverVersion?: unknown }) => {
        if (typeof greeting.serverVersion === 'string') version = versionOf(greeting.serverVersion)
      })
      connection.ping((error) => {
        if (error) {
          fail(error)
          return
        }
        connection.end(() => {
          // mysql2 says COM_QUIT right after this call; without it the server would count an aborted client.
          queueMicrotask(() => {
            leave()
            resolve(version === undefined ? { status: 'ok' } : { status: 'ok', facts: { version } })
          })
        })
      })
    })
  }
}

/** A new object each time: mysql2 would resume the session of one that it knows, and not look at the certificate. */
function sslOf({ context, rejectUnauthorized }: TlsSettings, name: string): SslOptions {
  return { ...(context as SslOptions), rejectUnauthorized, verifyIdentity: isIP(name) === 0 && name !== '' }
}

/** mysql2 puts codes of its own in place of Node's. */
function inWords(error: NodeJS.ErrnoException): Error {
  if (error.code === 'PROTOCOL_CONNECTION_LOST') return new Error('closed amid its answer')
  const misnamed = error.code === 'HANDSHAKE_SSL_ERROR' && error.message.includes('altnames')
  return misnamed ? Object.assign(error, { code: 'ERR_TLS_CERT_ALTNAME_INVALID' }) : error
}

export const parseMysql: ParseProbe = (path, options) => {
  onlyKeys(path, options, new Set(['type', 'user', 'password', 'database', 'tls']))
  const { user } = options
  if (user === undefined) {
    for (const key of ['password', 'database', 'tls']) {
      if (options[key] !== undefined) throw new ConfigError(`${path}.${key}`, 'only with a user')
    }
    return () => ({ check: (target, signal) => converse(target, signal, { read: readGreeting }) })
  }
  const optional = (key: string) => (options[key] === undefined ? undefined : string(path, key, options[key]))
  const login: Login = {
    user: string(path, 'user', user),
    password: optional('password'),
    database: optional('database'),
    tls: parseTlsChoice(path, 'tls', options['tls']),
  }
  return () => new LoginProbe(login)
}
