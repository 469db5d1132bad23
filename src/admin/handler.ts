/** From a request to what is done at its path, and back: every request passes the same gates, in the same order. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { array, boolean, expected, functions, integer, milliseconds, onlyKeys, record, string } from '../check.js'
import type { Checkups } from '../checkups.js'
import { systemClock, type Clock } from '../clock.js'
import { ConfigError, isCheckupsError } from '../errors.js'
import {
  Access,
  isCrossSite,
  isKnownHost,
  isNavigation,
  type AdminToken,
  type Authorize,
  type Identity,
} from './access.js'
import type { AuditEvent } from './audit.js'
import { checkModule } from './interface/check-module.js'
import { dynamicUpstream } from './interface/dynamic-upstream.js'
import { dyups } from './interface/dyups.js'
import { sharedDict } from './interface/shared-dict.js'
import { slardar } from './interface/slardar.js'
import { upsync } from './interface/upsync.js'
import { Journal } from './journal.js'
import { readJson, readText, type BodyLimits } from './lib/body.js'
import { HttpError, json, type AdminReply, type AdminRequest, type Interface, type Route } from './lib/route.js'
import { Operations } from './operations.js'
import { loginPage, page } from './page/page.js'
import type { RefusalReason } from './refused.js'
import type { UpstreamStore } from './store.js'
import { v1 } from './v1/v1.js'

/** The interfaces of the ancestors, for programs that speak them: true, or the path under which one is. */
export interface AdminInterfaces {
  /** Slardar's: `/status`, `/upstreams`, `/upstream/<name>`. At `/slardar`. */
  readonly slardar?: boolean | string | undefined
  /** dyups': `/list`, `/detail`, `/upstream/<name>`. At `/dyups`. */
  readonly dyups?: boolean | string | undefined
  /** nginx-upsync's: `/upstream_show`. At `/upsync`. */
  readonly upsync?: boolean | string | undefined
  /** The upstream check module's: `/check_status`. At `/check`. */
  readonly checkModule?: boolean | string | undefined
  /** ngx_dynamic_upstream's: `/dynamic`. At `/dynamic-upstream`. */
  readonly dynamicUpstream?: boolean | string | undefined
  /** `/add`, `/get` and `/delete` of one upstream's numbered servers. At `/shared-dict`. */
  readonly sharedDict?: SharedDictOptions | undefined
}

/** Whose servers have numbers. */
export interface SharedDictOptions {
  /** The upstream's key. */
  readonly upstream: string
  /** Default `/shared-dict`. */
  readonly prefix?: string | undefined
}

/** Metrics, as a registry of prom-client has them. */
export interface AdminMetrics {
  /** The content type. */
  readonly contentType: string
  /** The text. */
  metrics(): string | Promise<string>
}

/** Options of {@link createAdminHandler}. */
export interface AdminOptions {
  /** The path that it is mounted under, if whoever calls it leaves that in `req.url`, as `/admin`. Default: none. */
  readonly path?: string | undefined
  /**
   * Who may ask: as `Authorization: Bearer`, as the password of Basic, or typed in at the page. Default: nobody is asked,
   * and only requests of this machine are answered.
   */
  readonly tokens?: readonly AdminToken[] | undefined
  /** Lets in whoever has brought no token of {@link AdminOptions.tokens}: by a certificate, or a session of yours. Default: nobody. */
  readonly authorize?: Authorize | undefined
  /** Names under which it may be asked, as `admin.example`; IP addresses and `localhost` always may be. Default: none. */
  readonly hosts?: readonly string[] | undefined
  /** Keeps changes over a restart. One of the instance's `sources` must bring them back. Default: they last as long as the process. */
  readonly store?: UpstreamStore | undefined
  /** Milliseconds that a change may take from the store back to this process, before the answer is that it is on its way. Default 5,000. */
  readonly storeTimeout?: number | undefined
  /** The ancestors' interfaces. One alone is also at the root. Default: none. */
  readonly interfaces?: AdminInterfaces | undefined
  /** Whether the ancestors' GETs that change something do. Default false: a link would do. */
  readonly stateChangingGets?: boolean | undefined
  /** Whether there is a page at the root. Default true. */
  readonly page?: boolean | undefined
  /** Served at `/metrics`. Default: nothing. */
  readonly metrics?: AdminMetrics | undefined
  /** Bytes of a body at most. Default 1,048,576, Slardar's. */
  readonly maxBody?: number | undefined
  /** Milliseconds until a body must be there. Default 10,000. */
  readonly bodyTimeout?: number | undefined
  /** Called with every change that an operator has made. What it throws ends nothing. */
  readonly onAudit?: ((event: AuditEvent) => void) | undefined
  /** Default: the machine's. */
  readonly clock?: Clock | undefined
}

/** Answers requests; of `node:http`, Express, or anything that has both objects. */
export interface AdminHandler {
  (request: IncomingMessage, response: ServerResponse): void
  /** Ends all streams, and listens to the instance no more. */
  close(): void
}

const OPTION_KEYS = new Set(
  'path tokens authorize hosts store storeTimeout interfaces stateChangingGets page metrics maxBody bodyTimeout onAudit clock'.split(
    ' ',
  ),
)
const STORE_METHODS = ['put', 'patchServer', 'addServer', 'removeServer', 'delete'] as const

/** Streams at once: one a page; more is somebody who opens and never reads. */
const MOST_STREAMS = 256
/**
 * Bytes that may wait for a reader before it is let go: it comes back, and starts anew. The page's first picture of 10,000
 * servers is 5 MB.
 */
const LONGEST_QUEUE = 32 * 1_048_576

const HEADERS = {
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  'x-frame-options': 'DENY',
  // Without any, a browser says that a form's Origin is null.
  'referrer-policy': 'same-origin',
  'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
}
const PAGE_POLICY =
  "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
  "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"

const STATUS_OF: Readonly<Record<RefusalReason, number>> = {
  conflict: 412,
  exists: 409,
  last: 409,
  name: 400,
  store: 503,
}

/**
 * The admin interface of an instance: a JSON interface at `/v1/`, a page at `/`, and the ancestors' interfaces.
 *
 * @throws `ConfigError`
 */
export function createAdminHandler(checkups: Checkups, options: AdminOptions = {}): AdminHandler {
  const handler = new Handler(checkups, options)
  return Object.assign((request: IncomingMessage, response: ServerResponse) => handler.handle(request, response), {
    close: () => handler.close(),
  })
}

/** @internal */
export class Handler {
  readonly isGuarded: boolean
  readonly #access: Access
  readonly #path: string
  readonly #hosts: ReadonlySet<string>
  readonly #limits: BodyLimits
  readonly #stateChangingGets: boolean
  readonly #mounts: readonly Mount[]
  readonly #journal: Journal
  readonly #streams = new Set<AbortController>()
  readonly #closers: (() => void)[] = []

  constructor(checkups: Checkups, options: AdminOptions) {
    const path = 'createAdminHandler'
    record(path, 'checkups', checkups)
    onlyKeys(path, record(path, '', options), OPTION_KEYS)
    const { store, onAudit, clock = systemClock } = options
    this.#access = new Access(path, options.tokens, options.authorize, clock)
    this.isGuarded = this.#access.isGuarded
    this.#path = compilePath(path, 'path', options.path ?? '/')
    const hosts = array(path, 'hosts', options.hosts ?? [])
    this.#hosts = new Set(hosts.map((host, i) => string(path, `hosts[${i}]`, host).toLowerCase()))
    this.#stateChangingGets = boolean(path, 'stateChangingGets', options.stateChangingGets ?? false)
    this.#limits = {
      clock,
      maxBody: integer(path, 'maxBody', options.maxBody ?? 1_048_576, 1, 2 ** 31 - 1),
      bodyTimeout: milliseconds(path, 'bodyTimeout', options.bodyTimeout ?? 10_000, 1),
    }
    if (store !== undefined) checkStore(`${path}.store`, store, checkups)
    functions(path, options, ['onAudit'])

    const interfaces = compileInterfaces(`${path}.interfaces`, options.interfaces ?? {})
    this.#journal = new Journal(checkups)
    const operations = new Operations({
      checkups,
      clock,
      store,
      storeTimeout: milliseconds(path, 'storeTimeout', options.storeTimeout ?? 5_000),
      audit: (event) => this.#audit(event, onAudit),
    })
    const mounts: Mount[] = [{ prefix: '/v1', find: v1(operations, this.#journal) }]
    if (boolean(path, 'page', options.page ?? true)) {
      const shown = page({ operations, journal: this.#journal, clock })
      mounts.push({ prefix: '/', find: shown.route })
      this.#closers.push(() => shown.close())
    }
    if (options.metrics !== undefined)
      mounts.push({ prefix: '/metrics', find: metricsInterface(path, options.metrics) })
    this.#mounts = [...mounts, ...interfaces.map(({ prefix, make }) => ({ prefix, find: make(operations) }))]
  }

  handle(request: IncomingMessage, response: ServerResponse): void {
    // A client that goes away is no error of anybody here.
    response.on('error', () => undefined)
    void this.#answer(request).then(
      (reply) => this.#send(request, response, reply),
      (error: unknown) => this.#send(request, response, replyTo(error)),
    )
  }

  close(): void {
    for (const controller of this.#streams) controller.abort()
    for (const close of this.#closers) close()
    this.#journal.close()
  }

  async #answer(request: IncomingMessage): Promise<AdminReply> {
    const { method = 'GET', headers } = request
    if (!isKnownHost(headers.host, this.#hosts)) {
      throw new HttpError(421, `the host ${JSON.stringify(headers.host ?? '')} is none of those that \`hosts\` names`)
    }
    const { path, query, base } = this.#locate(request)
    if (path === undefined) throw new HttpError(404, 'nothing is here')
    const session = this.#sessionRoute(method, path, request, base)
    if (session !== undefined) {
      if (isCrossSite(request)) throw new HttpError(403, 'a page of another site has sent this')
      return session()
    }
    const route = this.#find(method, path, query)
    if (isCrossSite(request) && !(isNavigation(request) && route?.writes !== true)) {
      throw new HttpError(403, 'a page of another site has sent this')
    }
    const known = await this.#access.identify(request)
    if (route?.open === true) return this.#run(route, request, query, base, known ?? NOBODY)
    if (known === undefined) return this.#stranger(method, path, base)
    if (route === undefined) throw new HttpError(404, 'nothing is here')
    if (route.writes) this.#mayWrite(method, request, known)
    return this.#run(route, request, query, base, known)
  }

  #run(
    route: Route,
    request: IncomingMessage,
    query: URLSearchParams,
    base: string,
    known: Identity,
  ): AdminReply | Promise<AdminReply> {
    const text = () => readText(request, this.#limits)
    const { method = 'GET', headers } = request
    const { caller, csrf } = known
    const asked: AdminRequest = {
      method,
      query,
      headers,
      caller,
      base,
      csrf,
      text,
      json: async () => readJson(await text()),
    }
    return route.run(asked)
  }

  #mayWrite(method: string, { headers }: IncomingMessage, { caller, csrf }: Identity): void {
    if (caller.role !== 'write') throw new HttpError(403, `${caller.name} may read, and not write`)
    if ((method === 'GET' || method === 'HEAD') && !this.#stateChangingGets) {
      throw new HttpError(403, 'a GET changes nothing, unless stateChangingGets allows it')
    }
    // The browser sends the cookie by itself; only our own page knows this.
    if (csrf !== undefined && headers['x-csrf-token'] !== csrf)
      throw new HttpError(403, 'x-csrf-token is missing or wrong')
  }

  #stranger(method: string, path: string, base: string): AdminReply {
    if (method === 'GET' && path === '/' && this.#access.hasTokens) return html(401, loginPage(base, undefined))
    throw new HttpError(401, 'a token is needed: Authorization: Bearer …', {
      'www-authenticate': 'Bearer realm="checkups"',
    })
  }

  /** Logging in and out: pages of browsers, which need no token for it. */
  #sessionRoute(
    method: string,
    path: string,
    request: IncomingMessage,
    base: string,
  ): (() => Promise<AdminReply>) | undefined {
    if (method !== 'POST' || !this.#access.hasTokens) return undefined
    const backTo = (cookie: string): AdminReply => ({ status: 303, headers: { location: base, 'set-cookie': cookie } })
    if (path === '/login') {
      return async () => {
        const token = new URLSearchParams(await readText(request, this.#limits)).get('token') ?? ''
        const cookie = this.#access.login(token.trim(), request, base)
        return cookie === undefined ? html(401, loginPage(base, 'No such token.')) : backTo(cookie)
      }
    }
    if (path === '/logout') {
      return async () => {
        const known = await this.#access.identify(request)
        const csrf = new URLSearchParams(await readText(request, this.#limits)).get('csrf')
        if (known?.csrf !== undefined && csrf !== known.csrf) throw new HttpError(403, 'csrf is missing or wrong')
        return backTo(this.#access.logout(request, base))
      }
    }
    return undefined
  }

  /** The path below where this is mounted, and where that is. */
  #locate(request: IncomingMessage): { path: string | undefined; query: URLSearchParams; base: string } {
    const { url = '/' } = request
    const [raw = '/', ...rest] = url.split('?')
    const query = new URLSearchParams(rest.join('?'))
    // What Express has cut off from the URL.
    const { baseUrl } = request as { baseUrl?: unknown }
    const mounted = typeof baseUrl === 'string' ? baseUrl : ''
    const base = `${mounted}${this.#path}`.replace(/\/*$/, '/')
    const own = this.#path === '/' ? '' : this.#path
    const path = raw === own ? '/' : raw.startsWith(`${own}/`) ? raw.slice(own.length) : undefined
    return { path, query, base }
  }

  #find(method: string, path: string, query: URLSearchParams): Route | undefined {
    for (const { prefix, find } of this.#mounts) {
      const below =
        prefix === '/'
          ? path
          : path === prefix
            ? '/'
            : path.startsWith(`${prefix}/`)
              ? path.slice(prefix.length)
              : undefined
      const route = below === undefined ? undefined : find(method, below, query)
      if (route !== undefined) return route
    }
    return method === 'HEAD' ? this.#find('GET', path, query) : undefined
  }

  #send(request: IncomingMessage, response: ServerResponse, reply: AdminReply): void {
    if (response.headersSent || response.destroyed) return
    const { status, headers = {}, body = '', stream } = reply
    const isPage = headers['content-type']?.startsWith('text/html') === true
    const length: Record<string, number> =
      stream === undefined && status !== 204 ? { 'content-length': Buffer.byteLength(body) } : {}
    const policy = isPage ? { 'content-security-policy': PAGE_POLICY } : {}
    response.writeHead(status, { ...HEADERS, ...policy, ...length, ...headers })
    if (stream === undefined || request.method === 'HEAD') response.end(request.method === 'HEAD' ? undefined : body)
    else this.#stream(response, stream)
  }

  #stream(response: ServerResponse, begin: NonNullable<AdminReply['stream']>): void {
    const controller = new AbortController()
    if (this.#streams.size >= MOST_STREAMS) return void response.end('event: full\ndata: {}\n\n')
    this.#streams.add(controller)
    controller.signal.addEventListener('abort', () => response.end())
    response.on('close', () => {
      this.#streams.delete(controller)
      controller.abort()
    })
    response.flushHeaders()
    begin((text) => {
      if (controller.signal.aborted) return
      response.write(text)
      if (response.writableLength > LONGEST_QUEUE) response.destroy()
    }, controller.signal)
  }

  #audit(event: AuditEvent, onAudit: AdminOptions['onAudit']): void {
    this.#journal.record(event)
    try {
      onAudit?.(event)
    } catch (error) {
      process.emitWarning(`onAudit threw: ${String(error)}`, { type: 'CheckupsWarning' })
    }
  }
}

interface Mount {
  /** Without a slash at its end, but for the root. */
  readonly prefix: string
  readonly find: Interface
}

const NOBODY: Identity = { caller: { name: '', role: 'read' }, csrf: undefined }

const html = (status: number, body: string): AdminReply => ({
  status,
  headers: { 'content-type': 'text/html; charset=utf-8' },
  body,
})

/** What an error is to whoever asked. */
function replyTo(error: unknown): AdminReply {
  const say = (status: number, message: string, more = {}, headers = {}) =>
    json(status, { error: { message, ...more } }, headers)
  if (error instanceof HttpError) return say(error.status, error.message, {}, error.headers)
  if (!isCheckupsError(error)) {
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    process.emitWarning(`the admin interface has failed: ${text}`, { type: 'CheckupsWarning' })
    return say(500, 'the admin interface has failed; the process has a warning that says more')
  }
  const { code, message } = error
  switch (code) {
    case 'ERR_CHECKUPS_CONFIG': {
      const { path, problem } = error as ConfigError
      return say(400, message, { code, path, problem })
    }
    case 'ERR_CHECKUPS_UNKNOWN_UPSTREAM':
    case 'ERR_CHECKUPS_UNKNOWN_PEER':
      return say(404, message, { code })
    case 'ERR_CHECKUPS_REFUSED': {
      const { reason } = error as unknown as { reason: RefusalReason }
      return say(STATUS_OF[reason], message, { code, reason })
    }
    default:
      return say(503, message, { code })
  }
}

function compilePath(path: string, key: string, value: unknown): string {
  const text = string(path, key, value)
  if (!/^(\/[-_.~a-zA-Z0-9]+)*\/?$/.test(text)) throw expected(path, key, 'a path, as "/admin"', text)
  return text === '/' ? text : text.replace(/\/$/, '')
}

function checkStore(path: string, store: UpstreamStore, checkups: Checkups): void {
  const methods = record(path, '', store)
  for (const method of STORE_METHODS) {
    if (typeof methods[method] !== 'function') throw expected(path, method, 'a function', methods[method])
  }
  if (checkups.getStatus().sources.length > 0) return
  throw new ConfigError(path, 'expected an instance with a source that brings back what is stored: see `sources`')
}

const FACTORIES = { slardar, dyups, upsync, checkModule, dynamicUpstream } as const
const PREFIXES: Readonly<Record<keyof typeof FACTORIES, string>> = {
  slardar: '/slardar',
  dyups: '/dyups',
  upsync: '/upsync',
  checkModule: '/check',
  dynamicUpstream: '/dynamic-upstream',
}

interface Planned {
  readonly prefix: string
  readonly make: (operations: Operations) => Interface
}

/** Each under its prefix; one alone at the root as well. */
function compileInterfaces(path: string, value: unknown): readonly Planned[] {
  const options = record(path, '', value)
  const names = Object.keys(FACTORIES) as (keyof typeof FACTORIES)[]
  onlyKeys(path, options, new Set([...names, 'sharedDict']))
  const planned: Planned[] = []
  for (const name of names) {
    const chosen = options[name] ?? false
    if (chosen === false) continue
    const prefix = chosen === true ? PREFIXES[name] : compilePath(path, name, chosen)
    planned.push({ prefix, make: FACTORIES[name] })
  }
  if (options['sharedDict'] !== undefined) {
    const given = record(path, 'sharedDict', options['sharedDict'])
    onlyKeys(`${path}.sharedDict`, given, new Set(['upstream', 'prefix']))
    const upstream = string(`${path}.sharedDict`, 'upstream', given['upstream'])
    const prefix = compilePath(`${path}.sharedDict`, 'prefix', given['prefix'] ?? '/shared-dict')
    planned.push({ prefix, make: (operations) => sharedDict(operations, upstream) })
  }
  const prefixes = new Set(planned.map(({ prefix }) => prefix))
  if (prefixes.size < planned.length) throw new ConfigError(path, 'two interfaces have the same prefix')
  const [first] = planned
  return planned.length === 1 && first!.prefix !== '/' ? [first!, { ...first!, prefix: '/' }] : planned
}

function metricsInterface(path: string, metrics: AdminMetrics): Interface {
  if (typeof metrics.metrics !== 'function') throw expected(path, 'metrics', 'a registry of prom-client', metrics)
  return (method, below) => {
    if (below !== '/' || method !== 'GET') return undefined
    const run = async () => ({
      status: 200,
      headers: { 'content-type': metrics.contentType },
      body: await metrics.metrics(),
    })
    return { writes: false, run }
  }
}
