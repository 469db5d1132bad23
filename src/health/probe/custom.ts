/** The user's own check. */
import { expected, onlyKeys } from '../../check.js'
import type { Peer } from '../../upstream/peer.js'
import { PROBE_OK, type ParseProbe, type Probe, type ProbeReport, type ProbeTarget } from './probe.js'

/** What a custom check is told beside the peer. */
export interface CustomCheckContext {
  /** Aborted when the heartbeat's `timeout` is over or nobody asks any more; hand it on to what waits. */
  readonly signal: AbortSignal
  /** Where to check: the peer's host, or the one that the heartbeat's `host` says; empty for a unix socket. */
  readonly host: string
  /** The peer's port, or the one that the heartbeat's `port` says; 0 for a unix socket. */
  readonly port: number
}

/** What a custom check says in more words than true or false. Further strings, numbers and booleans are facts for status. */
export interface CustomCheckResult {
  /** Whether the peer can be used; `unstable` is used only while none of the upstream is `ok`. */
  readonly status: 'ok' | 'unstable' | 'err'
  /** In words, for people. */
  readonly message?: string | undefined
  readonly [fact: string]: unknown
}

/** Options of `custom`. */
export interface CustomProbeOptions {
  /** The probe. */
  readonly type: 'custom'
  /**
   * Checks one peer: true, or a status with what there is to say. A throw is `err` with its message. One that ignores the
   * signal is not waited for once its time is over.
   */
  readonly check: (
    peer: Peer,
    context: CustomCheckContext,
  ) => boolean | CustomCheckResult | Promise<boolean | CustomCheckResult>
}

class CustomProbe implements Probe {
  readonly #check: CustomProbeOptions['check']

  constructor(check: CustomProbeOptions['check']) {
    this.#check = check
  }

  check({ peer, host, port }: ProbeTarget, signal: AbortSignal): Promise<ProbeReport> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason as Error)
      const abort = () => reject(signal.reason as Error)
      signal.addEventListener('abort', abort, { once: true })
      const run = async () => reportOf(await this.#check(peer, { signal, host, port }))
      run()
        .then(resolve, reject)
        .finally(() => signal.removeEventListener('abort', abort))
    })
  }
}

/** Throws at what is no answer: a check that forgot its `return` must not pass for one that failed, nor for a good one. */
function reportOf(result: unknown): ProbeReport {
  if (result === true) return PROBE_OK
  if (typeof result === 'object' && result !== null) {
    const { status, message, ...rest } = result as Record<string, unknown>
    if (status === 'ok' || status === 'unstable' || status === 'err') {
      const facts = Object.fromEntries(
        Object.entries(rest).filter((entry): entry is [string, Fact] => isFact(entry[1])),
      )
      return { status, message: typeof message === 'string' ? message : undefined, facts }
    }
    throw new Error('the check returned an object without a status of "ok", "unstable" or "err"')
  }
  throw new Error(`the check returned ${typeof result === 'function' ? 'a function' : String(result)}`)
}

type Fact = string | number | boolean

function isFact(value: unknown): value is Fact {
  return typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean'
}

export const parseCustom: ParseProbe = (path, options) => {
  onlyKeys(path, options, new Set(['type', 'check']))
  const { check } = options
  if (typeof check !== 'function') throw expected(path, 'check', 'a function', check)
  return () => new CustomProbe(check as CustomProbeOptions['check'])
}
