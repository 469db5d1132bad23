/** AJP: CPing, which the connector answers by CPong without a thread of the application. (ajp of nginx's check module.) */
import { onlyKeys } from '../../check.js'
import { converse } from './lib/converse.js'
import { excerpt } from './lib/match.js'
import { PROBE_OK, type ParseProbe } from './probe.js'

/** Options of `ajp`, for Tomcat, Jetty and WildFly. */
export interface AjpProbeOptions {
  /** The probe. It needs no secret, even where the connector demands one of requests. */
  readonly type: 'ajp'
}

/** AJP 1.3: magic, length, and the code of the message. */
const CPING = Buffer.of(0x12, 0x34, 0, 1, 0x0a)
const CPONG = Buffer.of(0x41, 0x42, 0, 1, 0x09)

function read(received: Buffer): typeof PROBE_OK | undefined {
  const beginning = received.subarray(0, CPONG.length)
  if (!beginning.equals(CPONG.subarray(0, beginning.length))) throw new Error(`no AJP answer: ${excerpt(received)}`)
  return beginning.length === CPONG.length ? PROBE_OK : undefined
}

export const parseAjp: ParseProbe = (path, options) => {
  onlyKeys(path, options, new Set(['type']))
  return () => ({ check: (target, signal) => converse(target, signal, { send: CPING, read }) })
}
