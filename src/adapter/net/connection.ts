/** A connection to the next peer, and what its life says of that peer. */
import { errorMonitor, type EventEmitter } from 'node:events'
import { connect as connectTcp, isIP, type Socket, type TcpNetConnectOpts } from 'node:net'
import { connect as connectTls, createSecureContext, type ConnectionOptions, type SecureContext } from 'node:tls'
import type { Checkups } from '../../checkups.js'
import { systemClock, Timer } from '../../clock.js'
import { CheckupsError, ConfigError } from '../../errors.js'
import type { RetryVerdict } from '../../health/outcome.js'
import type { AttemptContext } from '../../upstream/attempt.js'
import type { Peer } from '../../upstream/peer.js'
import type { ReadyOkOptions } from '../../upstream/retry.js'

/** How a peer is connected to. */
export interface PeerConnectionOptions {
  /**
   * Whether TLS is spoken, and with which options of `tls.connect`. The certificate is checked for the peer's name or
   * address, unless `servername` says otherwise. Default false.
   */
  readonly tls?: boolean | ConnectionOptions | undefined
  /** Further options of `net.connect`, as `{ keepAlive: true }`. Default: `{ noDelay: true }`. Where to is the peer's matter. */
  readonly connectOptions?: Partial<TcpNetConnectOpts> | undefined
}

/** What a choice of peers goes by; as in `readyOk`. */
export type DialChoice = Pick<ReadyOkOptions, 'hashKey' | 'clusterKey' | 'tries' | 'timeout' | 'tryTimeout' | 'budget'>

export interface DialOptions extends DialChoice, PeerConnectionOptions {
  /** Ends the attempts; a connection that stands is its matter no more. */
  readonly signal?: AbortSignal | undefined
  /** Said to the peer before anything else, also before TLS. */
  readonly preamble?: Buffer | undefined
  /** Until when the peer has a request in flight, if that is longer than its connection lasts. */
  readonly until?: Promise<unknown> | undefined
}

/** A connection that stands. */
export interface Connected {
  /** The socket; with `tls` a `tls.TLSSocket`. */
  readonly socket: Socket
  /** Whom it is connected to. */
  readonly peer: Peer
}

/** Connects to one peer after another, until a connection stands. */
export async function dial(checkups: Checkups, key: string, options: DialOptions): Promise<Connected> {
  const { hashKey, clusterKey, tries, timeout, tryTimeout, budget, signal, until } = options
  const secureContext = secureContextOf(options)
  const giveUp = new AbortController()
  const onAbort = () => giveUp.abort(signal?.reason)
  const unlink = () => signal?.removeEventListener('abort', onAbort)
  if (signal?.aborted === true) onAbort()
  signal?.addEventListener('abort', onAbort)
  return new Promise((resolve, reject) => {
    let verdict: RetryVerdict
    const attempt = async (peer: Peer, context: AttemptContext) => {
      verdict = 'failed'
      const { connect: limit } = checkups.getUpstreamTimeouts(peer.upstream)
      const socket = await open(peer, context.signal, limit, options, secureContext)
      unlink()
      context.answered()
      const said = verdictAtEnd(socket, options)
      resolve({ socket, peer })
      verdict = await said
      await until
    }
    const request = { hashKey, clusterKey, tries, timeout, tryTimeout, budget, signal: giveUp.signal }
    // Once a connection has stood, nobody waits for the errors any more.
    checkups
      .readyOk(key, attempt, { ...request, isFailure: () => verdict })
      .catch(reject)
      .finally(unlink)
  })
}

const NODES_OWN: ConnectionOptions = {}
const contexts = new WeakMap<ConnectionOptions, SecureContext>()

/** Made once per object of options: reading authorities and keys takes milliseconds. */
export function secureContextOf({ tls = false }: PeerConnectionOptions): SecureContext | undefined {
  if (tls === false) return undefined
  const options = tls === true ? NODES_OWN : tls
  if (options.secureContext !== undefined) return options.secureContext
  const known = contexts.get(options)
  if (known !== undefined) return known
  try {
    const context = createSecureContext(options)
    contexts.set(options, context)
    return context
  } catch (error) {
    throw new ConfigError('options.tls', `cannot be used: ${(error as Error).message}`)
  }
}

/** Listens to errors for those who do not yet. */
const guard = () => undefined

/** A socket whose connection stands; nothing is left open of one that never did. */
async function open(
  peer: Peer,
  signal: AbortSignal,
  timeout: number,
  { tls, connectOptions, preamble }: DialOptions,
  secureContext: SecureContext | undefined,
): Promise<Socket> {
  const socket = await new Promise<Socket>((resolve, reject) => {
    const fail = (error: Error) => {
      settle()
      raw.destroy()
      reject(error)
    }
    const abort = () => fail(signal.reason as Error)
    const timer = new Timer(systemClock, () => {
      fail(new CheckupsError('ERR_CHECKUPS_ATTEMPT_TIMEOUT', `no connection within ${timeout} ms`))
    })
    const settle = () => {
      timer.stop()
      signal.removeEventListener('abort', abort)
      for (const one of sockets) one.off('error', fail)
    }
    const sockets: Socket[] = []
    const watch = <S extends Socket>(one: S): S => {
      sockets.push(one)
      return one.on('error', guard).once('error', fail)
    }
    const stands = (one: Socket) => {
      settle()
      resolve(one)
    }
    const raw = watch(connectTcp({ noDelay: true, ...connectOptions, ...peer.connect }))
    raw.once('connect', () => {
      if (preamble !== undefined) raw.write(preamble)
      if (secureContext === undefined) return stands(raw)
      const given = tls === true || tls === false ? undefined : tls
      const secure = watch(connectTls({ ...nameOf(peer), ...given, secureContext, socket: raw }))
      secure.once('secureConnect', () => stands(secure))
    })
    if (timeout > 0) timer.at(systemClock.now() + timeout)
    signal.addEventListener('abort', abort)
  })
  // It may have failed in the very turn in which it stood.
  if (socket.destroyed) throw socket.errored ?? new Error('the connection was closed at once')
  socket.off('error', guard)
  return socket
}

/** What its certificate is checked for. SNI has names only (RFC 6066, 3). */
function nameOf({ host }: Peer): ConnectionOptions {
  if (host === '') return {}
  return isIP(host) === 0 ? { host, servername: host } : { host }
}

/**
 * What the end of a connection that stood says of its peer.
 *
 * A peer that has said something is well: if the connection breaks later, that may be a restart, a client or a wire, and a
 * hundred connections that a restart resets would otherwise be a hundred failures of a peer that is back. One that has said
 * nothing has failed if the connection breaks, or if it ends it although it was spoken to: so does what accepts connections
 * on behalf of a server that is not there. TLS has said something by its handshake.
 */
function verdictAtEnd(socket: Socket, { tls = false, preamble }: DialOptions): Promise<RetryVerdict> {
  const isBroken = (error: unknown) => error instanceof Error && 'syscall' in error
  return new Promise((resolve) => {
    let error: unknown
    let endedFirst = false
    const emitter: EventEmitter = socket
    emitter.once(errorMonitor, (reason: unknown) => (error = reason))
    // Before Node's own listener, which ends the other direction too.
    socket.prependOnceListener('end', () => (endedFirst = !socket.writableEnded))
    socket.once('close', () => {
      const heard = tls !== false || socket.bytesRead > 0
      const spoken = socket.bytesWritten > (preamble?.length ?? 0)
      const isWhole = socket.readableEnded && socket.writableFinished
      if (heard) resolve(error === undefined ? 'ok' : 'neutral')
      else if (isBroken(error) || (endedFirst && spoken)) resolve('stop')
      else resolve(error === undefined && isWhole ? 'ok' : 'neutral')
    })
  })
}
