/** Which probes can be named in a configuration. */
import { expected } from '../../check.js'
import { parseAjp, type AjpProbeOptions } from './ajp.js'
import { parseCustom, type CustomProbeOptions } from './custom.js'
import { parseFastcgi, type FastcgiProbeOptions } from './fastcgi.js'
import { parseGrpc, type GrpcProbeOptions } from './grpc.js'
import { parseHttp, type HttpProbeOptions } from './http.js'
import { parseMysql, type MysqlProbeOptions } from './mysql.js'
import type { ParseProbe, ProbeFactory } from './probe.js'
import { parseRedis, type RedisProbeOptions } from './redis.js'
import { parseTcp, type TcpProbeOptions } from './tcp.js'
import { parseTls, type TlsProbeOptions } from './tls.js'

/** A probe by name with its options. */
export type ProbeOptions =
  | TcpProbeOptions
  | HttpProbeOptions
  | TlsProbeOptions
  | RedisProbeOptions
  | MysqlProbeOptions
  | AjpProbeOptions
  | FastcgiProbeOptions
  | GrpcProbeOptions
  | CustomProbeOptions

const probes: ReadonlyMap<string, ParseProbe> = new Map<string, ParseProbe>([
  ['tcp', parseTcp],
  ['http', parseHttp],
  ['https', parseHttp],
  ['tls', parseTls],
  ['redis', parseRedis],
  ['mysql', parseMysql],
  ['ajp', parseAjp],
  ['fastcgi', parseFastcgi],
  ['grpc', parseGrpc],
  ['custom', parseCustom],
])

/** Names that lua-resty-checkups and the check module have for them. */
const aliases: ReadonlyMap<string, string> = new Map([
  ['general', 'tcp'],
  ['ssl_hello', 'tls'],
])

/** Compiles a probe's options; without a `type`, `tcp`. */
export function probeFactory(path: string, options: Record<string, unknown>): { type: string; probe: ProbeFactory } {
  const given = options['type'] ?? 'tcp'
  const type = typeof given === 'string' ? (aliases.get(given) ?? given) : ''
  const parse = probes.get(type)
  if (parse !== undefined) return { type, probe: parse(path, { ...options, type }) }
  throw expected(path, 'type', `one of ${[...probes.keys()].map((name) => JSON.stringify(name)).join(', ')}`, given)
}
