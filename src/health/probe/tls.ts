/** TLS: a completed handshake, and how long the certificate still holds. (ssl_hello of nginx's check module.) */
import type { Certificate, TLSSocket } from 'node:tls'
import { integer, onlyKeys } from '../../check.js'
import { converse } from './lib/converse.js'
import { openTls, parseTlsOptions, type ProbeTlsOptions, type TlsSettings } from './lib/tls-options.js'
import type { ParseProbe, Probe, ProbeEnv, ProbeReport, ProbeTarget } from './probe.js'

/** Options of `tls`. */
export interface TlsProbeOptions {
  /** The probe. */
  readonly type: 'tls'
  /** How TLS is spoken; certificates are verified unless it says otherwise. */
  readonly tls?: ProbeTlsOptions | undefined
  /**
   * Days: with fewer left on its certificate, the message of a peer that is `ok` says so; it fails only when the certificate
   * has expired, for of many certificates the first renewed one is no reason to leave the other servers. Default: not looked at.
   */
  readonly minDaysLeft?: number | undefined
}

const DAY = 86_400_000

class TlsProbe implements Probe {
  readonly #settings: TlsSettings
  readonly #minDaysLeft: number
  readonly #env: ProbeEnv

  constructor(settings: TlsSettings, minDaysLeft: number, env: ProbeEnv) {
    this.#settings = settings
    this.#minDaysLeft = minDaysLeft
    this.#env = env
  }

  check(target: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    let report: ProbeReport | undefined
    const open = () => {
      const socket = openTls(this.#settings, target)
      // Under TLS 1.3 our last words of the handshake are not out yet: without them the server logs a failed one.
      return socket.once('secureConnect', () => {
        report = this.#report(socket)
        socket.end()
      })
    }
    return converse(target, signal, { open, opened: 'finish', read: () => report, ended: () => report })
  }

  #report(socket: TLSSocket): ProbeReport {
    const { valid_to, issuer } = socket.getPeerCertificate()
    const expiry = Date.parse(valid_to)
    const facts = {
      protocol: socket.getProtocol() ?? '',
      expires: new Date(expiry).toISOString(),
      issuer: nameOf(issuer),
    }
    const days = Math.floor((expiry - this.#env.wallTime()) / DAY)
    if (days >= this.#minDaysLeft) return { status: 'ok', facts }
    const message =
      days < 0 ? 'certificate has expired' : `certificate expires in ${days} ${days === 1 ? 'day' : 'days'}`
    return { status: 'ok', message, facts }
  }
}

/** A name of several values is an array, whatever the types say. */
function nameOf({ CN, O }: Partial<Certificate>): string {
  return String(CN ?? O ?? '')
}

export const parseTls: ParseProbe = (path, options) => {
  onlyKeys(path, options, new Set(['type', 'tls', 'minDaysLeft']))
  const settings = parseTlsOptions(path, 'tls', options['tls'])
  const { minDaysLeft } = options
  // Ten years: more than any certificate is given, so that a time in milliseconds is refused.
  const days = minDaysLeft === undefined ? -Infinity : integer(path, 'minDaysLeft', minDaysLeft, 1, 3650)
  return (env) => new TlsProbe(settings, days, env)
}
