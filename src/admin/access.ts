/** Who may ask for what: tokens, what a browser sends by itself, and what it must not have been made to send. */
import type { IncomingMessage } from 'node:http'
import { BlockList, isIP } from 'node:net'
import { TLSSocket } from 'node:tls'
import { array, expected, oneOf, onlyKeys, record, string } from '../check.js'
import type { Clock } from '../clock.js'
import { ConfigError } from '../errors.js'
import type { Caller, Role } from './lib/route.js'
import { isSame, sealed, unguessable } from './lib/secret.js'

/** A token that lets somebody in. */
export interface AdminToken {
  /** Whose it is: what the audit says. */
  readonly name: string
  /** The secret: 16 characters at least, better 32 random ones. */
  readonly token: string
  /** Default `read`: who forgets it gives away little. */
  readonly role?: Role | undefined
}

/** Who asks, as `authorize` says. */
export interface AdminUser {
  /** What the audit says. */
  readonly name: string
  /** What is allowed. */
  readonly role: Role
}

/** Lets a request in, or not. */
export type Authorize = (request: IncomingMessage) => AdminUser | undefined | PromiseLike<AdminUser | undefined>

/** A request whose sender is known. */
export interface Identity {
  readonly caller: Caller
  /** Of a session: what must come with every change. */
  readonly csrf: string | undefined
}

interface Session extends Identity {
  readonly until: number
}

/** Twelve hours: a day's work, and a cookie left behind is worth nothing tomorrow. */
const SESSION = 12 * 3_600_000
/** Of people. What is beyond is somebody who logs in again and again. */
const MOST_SESSIONS = 1_000
/** Sixteen characters of base64 are 96 bits: not to be guessed. */
const SHORTEST_TOKEN = 16
const COOKIE = 'checkups_admin'

const loopback = new BlockList()
loopback.addSubnet('127.0.0.0', 8, 'ipv4')
loopback.addAddress('::1', 'ipv6')

/** Whether an address is this machine's own, reached by nobody else. */
export function isLoopback(host: string | undefined): boolean {
  if (host === undefined) return false
  const address = host.startsWith('::ffff:') && isIP(host.slice(7)) === 4 ? host.slice(7) : host
  const family = isIP(address)
  return family === 0 ? address === 'localhost' : loopback.check(address, family === 4 ? 'ipv4' : 'ipv6')
}

export class Access {
  readonly #clock: Clock
  readonly #tokens: readonly { readonly caller: Caller; readonly seal: Buffer }[]
  readonly #authorize: Authorize | undefined
  /** By what a session's cookie is sealed to. */
  readonly #sessions = new Map<string, Session>()

  /** @throws ConfigError */
  constructor(path: string, tokens: unknown, authorize: unknown, clock: Clock) {
    this.#clock = clock
    this.#tokens = array(path, 'tokens', tokens ?? []).map((token, i) => compileToken(`${path}.tokens[${i}]`, token))
    if (authorize !== undefined && typeof authorize !== 'function')
      throw expected(path, 'authorize', 'a function', authorize)
    this.#authorize = authorize as Authorize | undefined
  }

  /** Whether anybody is asked who they are. Without, only this machine is let in. */
  get isGuarded(): boolean {
    return this.#tokens.length > 0 || this.#authorize !== undefined
  }

  /** Whether a token can be typed in. */
  get hasTokens(): boolean {
    return this.#tokens.length > 0
  }

  /** Undefined for a stranger. */
  async identify(request: IncomingMessage): Promise<Identity | undefined> {
    const { authorization } = request.headers
    const known = authorization === undefined ? this.#session(request) : this.#bearer(authorization)
    if (known !== undefined) return known
    if (this.#authorize !== undefined) {
      const user: unknown = await this.#authorize(request)
      if (user === undefined || user === null) return undefined
      return { caller: compileUser('authorize', user), csrf: undefined }
    }
    const { localAddress, remoteAddress = 'unix' } = request.socket
    // A unix socket has no address, and a file's permissions.
    const isOwn = localAddress === undefined || (isLoopback(localAddress) && isLoopback(remoteAddress))
    if (this.isGuarded || !isOwn) return undefined
    return { caller: { name: remoteAddress, role: 'write' }, csrf: undefined }
  }

  /** The cookie of a new session; undefined for a wrong token. */
  login(token: string, request: IncomingMessage, base: string): string | undefined {
    const caller = this.#callerOf(token)
    if (caller === undefined) return undefined
    const now = this.#clock.now()
    for (const [id, { until }] of this.#sessions) {
      if (until > now && this.#sessions.size < MOST_SESSIONS) break
      this.#sessions.delete(id)
    }
    const id = unguessable()
    this.#sessions.set(keyOf(id), { caller, csrf: unguessable(), until: now + SESSION })
    return cookie(id, SESSION / 1_000, request, base)
  }

  /** Ends the session of a request; returns the cookie that says so. */
  logout(request: IncomingMessage, base: string): string {
    const id = cookieOf(request)
    if (id !== undefined) this.#sessions.delete(keyOf(id))
    return cookie('', 0, request, base)
  }

  /** `Bearer <token>`, or Basic, whose password is the token; the user's name is nobody's. */
  #bearer(authorization: string): Identity | undefined {
    const [, scheme = '', credentials = ''] = /^(\S+) +(\S+)$/.exec(authorization) ?? []
    let token: string | undefined
    if (/^bearer$/i.test(scheme)) token = credentials
    else if (/^basic$/i.test(scheme))
      token = Buffer.from(credentials, 'base64')
        .toString()
        .replace(/^[^:]*:/, '')
    const caller = token === undefined ? undefined : this.#callerOf(token)
    return caller && { caller, csrf: undefined }
  }

  /** All are compared, whichever it is. */
  #callerOf(token: string): Caller | undefined {
    let found: Caller | undefined
    for (const { caller, seal } of this.#tokens) if (isSame(seal, token)) found ??= caller
    return found
  }

  #session(request: IncomingMessage): Identity | undefined {
    const id = cookieOf(request)
    const session = id === undefined ? undefined : this.#sessions.get(keyOf(id))
    return session !== undefined && session.until > this.#clock.now() ? session : undefined
  }
}

const keyOf = (id: string) => sealed(id).toString('base64')

function compileToken(path: string, value: unknown): { caller: Caller; seal: Buffer } {
  const options = record(path, '', value)
  onlyKeys(path, options, new Set(['name', 'token', 'role']))
  const { name, token, role = 'read' } = options
  const secret = string(path, 'token', token)
  if (!/^[\x21-\x7e]+$/.test(secret)) throw new ConfigError(`${path}.token`, 'expected printable ASCII without spaces')
  if (secret.length < SHORTEST_TOKEN) {
    throw new ConfigError(`${path}.token`, `expected ${SHORTEST_TOKEN} characters at least, got ${secret.length}`)
  }
  return { caller: compileUser(path, { name, role }), seal: sealed(secret) }
}

function compileUser(path: string, value: unknown): Caller {
  const { name, role } = record(path, '', value)
  return { name: string(path, 'name', name), role: oneOf(path, 'role', role, ['read', 'write']) }
}

function cookie(value: string, seconds: number, { socket }: IncomingMessage, base: string): string {
  const secure = socket instanceof TLSSocket ? '; Secure' : ''
  return `${COOKIE}=${value}; Path=${base}; Max-Age=${seconds}; HttpOnly; SameSite=Strict${secure}`
}

function cookieOf({ headers }: IncomingMessage): string | undefined {
  return headers.cookie
    ?.split(/; */)
    .find((one) => one.startsWith(`${COOKIE}=`))
    ?.slice(COOKIE.length + 1)
}

/**
 * Whether the Host header is a name under which this machine may be asked. A page of somebody else whose name is made to
 * point here (DNS rebinding) has its own name in it; an IP address, and `localhost`, cannot be made to.
 */
export function isKnownHost(host: string | undefined, names: ReadonlySet<string>): boolean {
  const name = (host ?? '').toLowerCase().replace(/:\d*$/, '')
  const literal = name.startsWith('[') && name.endsWith(']') ? name.slice(1, -1) : name
  return isIP(literal) !== 0 || name === 'localhost' || name.endsWith('.localhost') || names.has(name)
}

/** Whether a browser sends it for a page of somebody else. What is no browser says nothing, and is none. */
export function isCrossSite({ headers }: IncomingMessage): boolean {
  const { origin, host } = headers
  const site = headers['sec-fetch-site']
  if (site !== undefined && site !== 'same-origin' && site !== 'none') return true
  return origin !== undefined && origin !== `http://${host}` && origin !== `https://${host}`
}

/** Whether it is somebody who follows a link to here: they get to see it, and the page with the link does not. */
export function isNavigation({ method, headers }: IncomingMessage): boolean {
  return method === 'GET' && headers['sec-fetch-mode'] === 'navigate' && headers['sec-fetch-dest'] === 'document'
}
