/** The head of a request, as a peer is to get it. */
import type { IncomingMessage } from 'node:http'
import type { ClientConnection } from '../clients.js'
import { FieldTable, ownedBy, without } from './fields.js'
import type { ForwardedFields } from './options.js'

/** Goes by what the proxy was told. */
export interface RequestHeadSettings {
  readonly keepHost: boolean
  readonly forwarded: ForwardedFields | false
  readonly trust: boolean | ((req: IncomingMessage) => boolean)
}

export interface RequestHead {
  /** What it says of the host it is for; empty if nothing. */
  readonly host: string
  /** Path and query. */
  readonly path: string
  /** Names and values in turn. */
  readonly fields: string[]
  /** Whether there is, or may be, a body. */
  readonly hasBody: boolean
  /** Names, lower case, of the trailers that it announces. */
  readonly trailers: ReadonlySet<string> | undefined
  /** The protocols to change to, if the client asks for that. */
  readonly upgrade: string
}

/** The status that a request is refused with: it cannot be passed on as one well-formed request. */
export type Refused = 400 | 501 | 505

type Meaning = 'drop' | 'host' | 'length' | 'coding' | 'connection' | 'te' | 'trailer' | 'upgrade' | Told

/** What a request may say of the client. */
type Told = 'for' | 'proto' | 'forwarded-host' | 'port' | 'forwarded'

const TABLE = new FieldTable<Meaning>(
  new Map<string, Meaning>([
    ['keep-alive', 'drop'],
    ['proxy-connection', 'drop'],
    ['expect', 'drop'],
    ['http2-settings', 'drop'],
    ['host', 'host'],
    ['content-length', 'length'],
    ['transfer-encoding', 'coding'],
    ['connection', 'connection'],
    ['te', 'te'],
    ['trailer', 'trailer'],
    ['upgrade', 'upgrade'],
    ['x-forwarded-for', 'for'],
    ['x-forwarded-proto', 'proto'],
    ['x-forwarded-host', 'forwarded-host'],
    ['x-forwarded-port', 'port'],
    ['forwarded', 'forwarded'],
  ]),
)

/**
 * Node's parser has refused what is not well-formed: fields that contradict each other about the body's length, bare line
 * ends, spaces before colons. Here is what it leaves to the application.
 */
export function requestHead(
  req: IncomingMessage,
  client: ClientConnection,
  settings: RequestHeadSettings,
): RequestHead | Refused {
  const { rawHeaders, httpVersion } = req
  if (httpVersion !== '1.1' && httpVersion !== '1.0') return 505
  let fields: string[] = []
  let host: string | undefined
  let length: string | undefined
  let coding: string | undefined
  let upgrade = ''
  let trailer: string | undefined
  let connection: Set<string> | undefined
  let takesTrailers = false
  let told: Partial<Record<Told, string>> | undefined

  for (let i = 0; i < rawHeaders.length; i += 2) {
    const name = rawHeaders[i]!
    const value = rawHeaders[i + 1]!
    const meaning = TABLE.of(name)
    switch (meaning) {
      case undefined:
        fields.push(name, value)
        break
      case 'drop':
        break
      case 'host':
        // Two of them: the proxy and the peer might each believe another one (RFC 9112, 3.2).
        if (host !== undefined) return 400
        host = value
        break
      case 'length':
        length = value
        break
      case 'coding':
        // Only "chunked" has been undone by the parser. What else there was would be lost without a word. And who speaks
        // HTTP/1.0 cannot have meant it (RFC 9112, 6.1).
        if (coding !== undefined || httpVersion === '1.0') return 400
        coding = value.toLowerCase()
        if (coding !== 'chunked') return 501
        break
      case 'connection':
        connection = union(connection, ownedBy(value))
        break
      case 'te':
        takesTrailers ||= /(^|,)\s*trailers\s*($|[,;])/i.test(value)
        break
      case 'trailer':
        trailer = join(trailer, value)
        break
      case 'upgrade':
        upgrade = join(upgrade === '' ? undefined : upgrade, value)
        break
      default:
        if (settings.forwarded === false) fields.push(name, value)
        else (told ??= {})[meaning] = join(told[meaning], value)
    }
  }
  if (connection !== undefined) fields = without(fields, connection)

  let path = req.url ?? '/'
  if (path[0] !== '/') {
    // A request as to a proxy names its host in the target, which then counts more than Host (RFC 9112, 3.2.2).
    const target = /^https?:\/\/([^/?#]+)(.*)$/i.exec(path)
    if (target === null) return path === '*' ? 501 : 400
    // A name and a password before the host are an old way to mislead.
    if (target[1]!.includes('@')) return 400
    host = target[1]!
    path = target[2]![0] === '/' ? target[2]! : `/${target[2]}`
  }

  if (takesTrailers) fields.push('te', 'trailers')
  if (settings.forwarded !== false) tell(fields, settings, req, client, host ?? '', told)
  if (settings.keepHost && host !== undefined) fields.push('host', host)
  const chunked = coding !== undefined
  if (length !== undefined && !chunked) fields.push('content-length', length)
  const trailers = chunked && trailer !== undefined ? ownedBy(trailer) : undefined
  if (trailers !== undefined) fields.push('trailer', trailer!)
  return {
    host: host ?? '',
    path,
    fields,
    hasBody: chunked || (length !== undefined && Number(length) > 0),
    trailers,
    upgrade,
  }
}

/** Says who the client is; after what others have said, if they are trusted. */
function tell(
  fields: string[],
  { forwarded, trust }: RequestHeadSettings,
  req: IncomingMessage,
  { address, protocol }: ClientConnection,
  host: string,
  told: Partial<Record<Told, string>> = {},
): void {
  const trusted = typeof trust === 'function' ? trust(req) : trust
  const before = trusted ? told : {}
  if (forwarded !== 'forwarded') {
    fields.push('x-forwarded-for', before.for === undefined ? address : `${before.for}, ${address}`)
    fields.push('x-forwarded-proto', before.proto ?? protocol)
    const named = before['forwarded-host'] ?? host
    if (named !== '') fields.push('x-forwarded-host', named)
    if (before.port !== undefined) fields.push('x-forwarded-port', before.port)
    if (forwarded === 'x-forwarded' && before.forwarded !== undefined) fields.push('forwarded', before.forwarded)
  }
  if (forwarded !== 'x-forwarded') {
    const node = address.includes(':') ? `"[${address}]"` : address
    const quoted = host === '' ? '' : `;host="${host.replace(/["\\]/g, '\\$&')}"`
    const hop = `for=${node === '' ? 'unknown' : node}${quoted};proto=${protocol}`
    fields.push('forwarded', before.forwarded === undefined ? hop : `${before.forwarded}, ${hop}`)
  }
}

function join(before: string | undefined, value: string): string {
  return before === undefined ? value : `${before}, ${value}`
}

function union<T>(a: Set<T> | undefined, b: Set<T> | undefined): Set<T> | undefined {
  if (a === undefined || b === undefined) return a ?? b
  for (const one of b) a.add(one)
  return a
}
