/** TCP: a connection that opens is ok; with `expect` also what is said over it. The default of a heartbeat. */
import { connect } from 'node:net'
import { expected, onlyKeys } from '../../check.js'
import { converse, type Conversation } from './lib/converse.js'
import { excerpt, parseMatch } from './lib/match.js'
import { PROBE_OK, type ParseProbe, type Probe, type ProbeReport, type ProbeTarget } from './probe.js'

/** Options of `tcp`. */
export interface TcpProbeOptions {
  /** The probe. */
  readonly type: 'tcp'
  /** Said as soon as the connection is open. Default: nothing. */
  readonly send?: string | Uint8Array | undefined
  /**
   * What the answer must contain (as UTF-8), or match; it is waited for, up to 64 KiB. Default: no answer is waited for.
   */
  readonly expect?: string | RegExp | undefined
}

/** The cheapest of checks, which is made most often: 10,000 peers every 5 s are 2,000 a second. */
const connectProbe: Probe = {
  check: (target, signal) =>
    new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error)
      const socket = connect({ ...target.connect }).unref()
      const leave = () => {
        signal.removeEventListener('abort', abort)
        socket.destroy()
      }
      const abort = () => {
        leave()
        reject(signal.reason as Error)
      }
      signal.addEventListener('abort', abort)
      socket.once('connect', () => {
        leave()
        resolve(PROBE_OK)
      })
      socket.on('error', (error) => {
        leave()
        reject(error)
      })
    }),
}

class TcpProbe implements Probe {
  readonly #conversation: Conversation<ProbeReport>

  constructor(conversation: Conversation<ProbeReport>) {
    this.#conversation = conversation
  }

  check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    return converse(target, signal, this.#conversation)
  }
}

export const parseTcp: ParseProbe = (path, options) => {
  onlyKeys(path, options, new Set(['type', 'send', 'expect']))
  const { send } = options
  const match = parseMatch(path, 'expect', options['expect'])
  if (send !== undefined && typeof send !== 'string' && !(send instanceof Uint8Array)) {
    throw expected(path, 'send', 'a string or bytes', send)
  }
  if (send === undefined && match === undefined) return () => connectProbe
  const probe = new TcpProbe({
    send,
    read: (received) => (match === undefined || match(received.toString()) ? PROBE_OK : undefined),
    ended: (received) => {
      if (received.length > 0) throw new Error(`unexpected answer ${excerpt(received)}`)
      return undefined
    },
  })
  return () => probe
}
