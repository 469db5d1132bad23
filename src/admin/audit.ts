/** What operators have done. */
import type { Json } from './lib/describe.js'

/** What was asked for. */
export type AdminAction =
  | 'upstream.replace'
  | 'upstream.patch'
  | 'upstream.delete'
  | 'upstream.reset'
  | 'server.add'
  | 'server.remove'
  | 'server.set'

/** A change that an operator has made. */
export interface AuditEvent {
  /** The event's name. */
  readonly type: 'admin:change'
  /** Whose it was: the name of the token or of the user that `authorize` gave, else the address. */
  readonly who: string
  /** By which interface, as `v1` or `dyups`. */
  readonly via: string
  /** What was asked for. */
  readonly what: AdminAction
  /** The upstream's key. */
  readonly upstream: string
  /** The server's address, of a change of one. */
  readonly address: string | undefined
  /** The configuration before, secrets left out; undefined if there was none. */
  readonly before: Json | undefined
  /** The configuration after, likewise; undefined if there is none. */
  readonly after: Json | undefined
  /** Whether it was written to the store. */
  readonly persisted: boolean
  /** When, in milliseconds since the Unix epoch. */
  readonly at: number
}
