/** What an interface is made of: paths, and what is done at them. Who may do it is settled before. */
import type { IncomingHttpHeaders } from 'node:http'
import type { Json } from './describe.js'

/** `read` sees everything but secrets; `write` may change what it sees. */
export type Role = 'read' | 'write'

/** Who asks. */
export interface Caller {
  /** The name of the token, or the address. */
  readonly name: string
  readonly role: Role
}

/** A request that may be made. */
export interface AdminRequest {
  readonly method: string
  readonly query: URLSearchParams
  readonly headers: IncomingHttpHeaders
  readonly caller: Caller
  /** Where the admin interface is, as `/` or `/admin/`: for links. */
  readonly base: string
  /** What a browser that is logged in must send as `x-csrf-token` with every change; undefined for all others. */
  readonly csrf: string | undefined
  /** The whole body as text. @throws HttpError 413, 408, 415 */
  text(): Promise<string>
  /** The whole body as JSON of bounded depth. @throws HttpError 413, 408, 415; ConfigError */
  json(): Promise<unknown>
}

/** An answer; a stream of events has no end of its own. */
export interface AdminReply {
  readonly status: number
  readonly headers?: Readonly<Record<string, string>>
  /** Default: none. */
  readonly body?: string
  /** Called once the head is sent, in place of a body; ends when `closed` is aborted. */
  readonly stream?: (write: (text: string) => void, closed: AbortSignal) => void
}

/** What is done at a path by a method. */
export interface Route {
  /** Whether it changes something, and so needs the role for that. */
  readonly writes: boolean
  /** Whether anybody may, without a token: what is the same for all. Default false. */
  readonly open?: boolean
  /** Rejects with what {@link replyToError} knows. */
  readonly run: (request: AdminRequest) => AdminReply | Promise<AdminReply>
}

/** Finds what is to be done; undefined if the path is none of this interface's. `path` begins with a slash and is not decoded. */
export type Interface = (method: string, path: string, query: URLSearchParams) => Route | undefined

/** An answer by status, for what has no reason of its own. */
export class HttpError extends Error {
  readonly status: number
  readonly headers: Readonly<Record<string, string>>

  constructor(status: number, message: string, headers: Readonly<Record<string, string>> = {}) {
    super(message)
    this.status = status
    this.headers = headers
  }
}

export function json(status: number, value: Json, headers: Readonly<Record<string, string>> = {}): AdminReply {
  return { status, headers: { 'content-type': 'application/json', ...headers }, body: JSON.stringify(value) }
}

export function text(status: number, body: string, headers: Readonly<Record<string, string>> = {}): AdminReply {
  return { status, headers: { 'content-type': 'text/plain; charset=utf-8', ...headers }, body }
}

/** A segment of a path, decoded; undefined if it cannot be. */
export function decode(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment)
  } catch {
    return undefined
  }
}
