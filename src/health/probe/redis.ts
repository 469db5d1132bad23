/** Redis: PING, and what a replica says of its master. (As in lua-resty-checkups.) */
import type { Redis, RedisOptions } from 'ioredis'
import { onlyKeys, string } from '../../check.js'
import { ConfigError } from '../../errors.js'
import { loadOptional, untilAborted } from '../../optional.js'
import { parseTlsChoice, tlsConnectOptions, type ProbeTlsOptions, type TlsSettings } from './lib/tls-options.js'
import type { ParseProbe, Probe, ProbeReport, ProbeTarget } from './probe.js'

/**
 * Options of `redis`, which needs the package `ioredis`. A replica whose link to its master is down is `unstable`. Every
 * check is a connection of its own: that proves that the server takes new ones, where one that is kept would go on being
 * answered by a server at its `maxclients`.
 */
export interface RedisProbeOptions {
  /** The probe. */
  readonly type: 'redis'
  /** The ACL user; only with a password. Default: the server's default user. */
  readonly username?: string | undefined
  /** Said by AUTH before anything else. A server that wants none refuses it, which is a failure. Default: none. */
  readonly password?: string | undefined
  /** TLS, with all defaults by true. Default false. */
  readonly tls?: boolean | ProbeTlsOptions | undefined
}

/** Facts of INFO, as lua-resty-checkups shows them; true marks the numbers. */
const FACTS: ReadonlyMap<string, boolean> = new Map([
  ['role', false],
  ['master_link_status', false],
  ['master_link_down_since_seconds', true],
  ['master_last_io_seconds_ago', true],
  ['redis_version', false],
])

class RedisProbe implements Probe {
  readonly #auth: readonly string[]
  readonly #tls: TlsSettings | undefined

  constructor(auth: readonly string[], tls: TlsSettings | undefined) {
    this.#auth = auth
    this.#tls = tls
  }

  async check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    signal.throwIfAborted()
    const { Redis } = await untilAborted(
      signal,
      loadOptional('the redis probe', 'ioredis', () => import('ioredis')),
    )
    const redis = new Redis(this.#options(target))
    // Of a connection that fails only this event knows why.
    let failure: Error | undefined
    redis.on('error', (error) => (failure ??= error))
    try {
      return await untilAborted(signal, ask(redis, this.#auth))
    } catch (error) {
      throw signal.aborted ? error : inWords(failure ?? (error as Error))
    } finally {
      redis.disconnect()
    }
  }

  #options({ connect, host }: ProbeTarget): RedisOptions {
    return {
      ...connect,
      ...(this.#tls && { tls: tlsConnectOptions(this.#tls, host) }),
      lazyConnect: true,
      retryStrategy: () => null,
      enableOfflineQueue: false,
      enableReadyCheck: false,
      disableClientInfo: true,
      // The caller keeps the deadline.
      connectTimeout: 0,
      // ioredis half-closes, and would wait 2 s for the other side to do so.
      disconnectTimeout: 0,
    }
  }
}

async function ask(redis: Redis, auth: readonly string[]): Promise<ProbeReport> {
  await redis.connect()
  // By hand: ioredis would write to the console of a server that wants no password.
  if (auth.length > 0) await redis.call('AUTH', ...auth)
  await redis.call('PING')
  const sections = await Promise.allSettled([redis.info('replication'), redis.info('server')])
  const facts = factsOf(sections.map((section) => (section.status === 'fulfilled' ? section.value : '')).join('\n'))
  if (facts['master_link_status'] === 'down') {
    return { status: 'unstable', message: 'master link status: down', facts }
  }
  const refused = sections.find(({ status }) => status === 'rejected')
  if (refused === undefined) return { status: 'ok', facts }
  const { message, name } = (refused as PromiseRejectedResult).reason as Error
  if (name !== 'ReplyError') throw (refused as PromiseRejectedResult).reason
  return { status: 'ok', message: `INFO: ${message}`, facts }
}

/** Lines of `name:value`. */
function factsOf(info: string): Record<string, string | number> {
  const facts: Record<string, string | number> = {}
  for (const line of info.split(/\r?\n/)) {
    const colon = line.indexOf(':')
    const name = line.slice(0, colon)
    const number = FACTS.get(name)
    if (number === undefined) continue
    const value = line.slice(colon + 1)
    facts[name] = number ? Number(value) : value
  }
  return facts
}

function inWords(error: Error): Error {
  if (error.message === 'Connection is closed.') return new Error('closed without an answer')
  if (error.name === 'ParserError') return new Error(`no Redis answer: ${error.message.replace(/\. Please.*/s, '')}`)
  return error
}

export const parseRedis: ParseProbe = (path, options) => {
  onlyKeys(path, options, new Set(['type', 'username', 'password', 'tls']))
  const { username, password } = options
  if (username !== undefined && password === undefined) throw new ConfigError(`${path}.username`, 'needs a password')
  const auth = [
    ...(username === undefined ? [] : [string(path, 'username', username)]),
    ...(password === undefined ? [] : [string(path, 'password', password)]),
  ]
  const tls = parseTlsChoice(path, 'tls', options['tls'])
  return () => new RedisProbe(auth, tls)
}
