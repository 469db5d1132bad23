/** What the process in charge and the others say to each other. */
import {
  CheckupsError,
  ConfigError,
  isCheckupsError,
  UnknownPeerError,
  UnknownUpstreamError,
  type ErrorCode,
} from '../errors.js'
import type { Heartbeat } from '../health/heartbeat.js'
import type { Cause } from '../upstream/change.js'
import type { Load, SharedBan } from './sync.js'

/** A change that was made. Options are encoded. */
export type SharedChange = Cause & { readonly key: string } & (
    | { readonly what: 'config'; readonly generation: number; readonly options: unknown }
    | { readonly what: 'delete'; readonly generation: number }
    | { readonly what: 'heartbeat'; readonly address: string; readonly heartbeat: Heartbeat }
    | { readonly what: 'ban'; readonly ban: SharedBan }
    | { readonly what: 'reset'; readonly address: string | undefined }
  )

/** An upstream, with its options encoded. */
export interface SentUpstream {
  readonly key: string
  readonly generation: number
  readonly options: unknown
  readonly heartbeats: readonly (readonly [string, Heartbeat])[]
  readonly bans: readonly SharedBan[]
}

/** How one process is. */
export interface ProcessStatus {
  /** Its name among the others: of a worker of `node:cluster` its number there. */
  readonly id: string
  /** Its process id. */
  readonly pid: number
  /** `coordinator`, or `worker`. */
  readonly role: 'coordinator' | 'worker'
  /** Whether it answers. */
  readonly state: 'connected' | 'silent'
  /** The changes that it has. */
  readonly revision: number
  /** Requests in flight. */
  readonly load: readonly Load[]
}

export type FromWorker =
  | { readonly type: 'hello'; readonly id: string; readonly pid: number }
  /** The state is wanted: it has missed something, or does not agree. */
  | { readonly type: 'need' }
  | { readonly type: 'ack'; readonly revision: number }
  | { readonly type: 'ban'; readonly key: string; readonly ban: SharedBan }
  | { readonly type: 'request'; readonly n: number; readonly operation: unknown }
  | { readonly type: 'status?'; readonly n: number }
  | { readonly type: 'load'; readonly n: number; readonly load: readonly Load[] }

export type FromCoordinator =
  | { readonly type: 'state'; readonly revision: number; readonly upstreams: readonly SentUpstream[] }
  | { readonly type: 'change'; readonly revision: number; readonly change: SharedChange }
  /** Once a second, to be seen, and to agree. */
  | { readonly type: 'beat'; readonly revision: number; readonly digest: string }
  | { readonly type: 'reply'; readonly n: number; readonly generation?: number; readonly error?: SentError }
  | { readonly type: 'load?'; readonly n: number }
  | { readonly type: 'status'; readonly n: number; readonly processes: readonly ProcessStatus[] }

interface SentError {
  readonly code: ErrorCode | undefined
  readonly message: string
  readonly path: string | undefined
  readonly problem: string | undefined
  readonly key: string | undefined
  readonly address: string | undefined
}

export function sendError(error: unknown): SentError {
  const { message, path, problem, key, address } = error as Error & Partial<SentError>
  return { code: isCheckupsError(error) ? error.code : undefined, message, path, problem, key, address }
}

/** The same error, here. */
export function receiveError({ code, message, path = '', problem = '', key = '', address = '' }: SentError): Error {
  switch (code) {
    case 'ERR_CHECKUPS_CONFIG':
      return new ConfigError(path, problem)
    case 'ERR_CHECKUPS_UNKNOWN_UPSTREAM':
      return new UnknownUpstreamError(key)
    case 'ERR_CHECKUPS_UNKNOWN_PEER':
      return new UnknownPeerError(key, address)
    case undefined:
      return new Error(message)
    default:
      return new CheckupsError(code, message)
  }
}
