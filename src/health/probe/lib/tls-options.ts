/** How probes speak TLS. */
import { isIP } from 'node:net'
import type { SecureContext, SecureContextOptions, SecureVersion, TLSSocket } from 'node:tls'
import { boolean, expected, oneOf, onlyKeys, record, string } from '../../../check.js'
import { ConfigError } from '../../../errors.js'
import type { ProbeTarget } from '../probe.js'
import { tls } from './builtin.js'

/** PEM, in a string or in bytes. */
export type Pem = string | Uint8Array

/** TLS, in the names of `tls.connect`. */
export interface ProbeTlsOptions {
  /** The authorities to trust. Default: Node's. */
  readonly ca?: Pem | readonly Pem[] | undefined
  /**
   * The certificate to show, with its chain. Under TLS 1.3 a server says only after the handshake that it does not accept
   * it: a `tls` probe does not wait for that, an `https` probe fails by it.
   */
  readonly cert?: Pem | undefined
  /** The private key of {@link ProbeTlsOptions.cert}. */
  readonly key?: Pem | undefined
  /** The name to ask for (SNI) and to find in the certificate. Default: the host that is probed, if it is a name. */
  readonly servername?: string | undefined
  /**
   * Whether a certificate that is expired, of an unknown authority or for another name is a failure. Default true: a client
   * that verifies could not use the peer.
   */
  readonly rejectUnauthorized?: boolean | undefined
  /** The oldest version to accept. Default: Node's, which is TLS 1.2. */
  readonly minVersion?: SecureVersion | undefined
}

export interface TlsSettings {
  /** Made once: reading authorities and keys takes milliseconds. */
  readonly secureContext: SecureContext
  /** What it was made of, for clients that make their own. */
  readonly context: SecureContextOptions
  readonly servername: string | undefined
  readonly rejectUnauthorized: boolean
}

const KEYS: ReadonlySet<string> = new Set(['ca', 'cert', 'key', 'servername', 'rejectUnauthorized', 'minVersion'])
const VERSIONS = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const

export function parseTlsOptions(path: string, key: string, value: unknown): TlsSettings {
  const options = value === undefined ? {} : record(path, key, value)
  const at = `${path}.${key}`
  onlyKeys(at, options, KEYS)
  const { ca, cert, key: privateKey, servername, rejectUnauthorized, minVersion } = options
  if ((cert === undefined) !== (privateKey === undefined)) {
    throw new ConfigError(at, 'cert and key belong together')
  }
  const version = minVersion === undefined ? undefined : oneOf(at, 'minVersion', minVersion, VERSIONS)
  const authorities = (Array.isArray(ca) ? ca : [ca])
    .map((one) => pem(at, 'ca', one))
    .filter((one) => one !== undefined)
  if (servername !== undefined && isIP(string(at, 'servername', servername)) !== 0) {
    // RFC 6066 §3 allows no addresses.
    throw expected(at, 'servername', 'a host name', servername)
  }
  const context: SecureContextOptions = {
    ...(authorities.length > 0 && { ca: authorities }),
    ...(cert !== undefined && { cert: pem(at, 'cert', cert), key: pem(at, 'key', privateKey) }),
    ...(version !== undefined && { minVersion: version }),
  }
  return {
    secureContext: secureContext(at, context),
    context,
    servername: servername as string | undefined,
    rejectUnauthorized: rejectUnauthorized === undefined || boolean(at, 'rejectUnauthorized', rejectUnauthorized),
  }
}

/** Where TLS is a choice: `true` is TLS with all defaults, false or undefined is none. */
export function parseTlsChoice(path: string, key: string, value: unknown): TlsSettings | undefined {
  if (value === undefined || value === false) return undefined
  return parseTlsOptions(path, key, value === true ? {} : value)
}

function pem(path: string, key: string, value: unknown): string | Buffer | undefined {
  if (value === undefined || (typeof value === 'string' && value !== '')) return value
  if (value instanceof Uint8Array) return Buffer.from(value.buffer, value.byteOffset, value.byteLength)
  throw expected(path, key, 'PEM, a string or bytes', value)
}

function secureContext(path: string, options: SecureContextOptions): SecureContext {
  try {
    return tls().createSecureContext(options)
  } catch (error) {
    throw new ConfigError(path, `cannot be used: ${(error as Error).message}`)
  }
}

/** What `tls.connect` and `https.request` take beside the address. A session is never resumed: that would skip the certificate. */
export function tlsConnectOptions({ secureContext, rejectUnauthorized, servername }: TlsSettings, host: string) {
  const name = servername ?? (isIP(host) === 0 && host !== '' ? host : undefined)
  return { secureContext, rejectUnauthorized, ...(name !== undefined && { servername: name }) }
}

/** Opens a connection whose `secureConnect` says that the handshake is complete. */
export function openTls(settings: TlsSettings, { host, connect: address }: ProbeTarget): TLSSocket {
  return tls().connect({ ...address, ...tlsConnectOptions(settings, host) })
}
