/**
 * The fields of a message that belong to its connection, and are not passed on (RFC 9110, 7.6.1), and the others. Most names
 * are of a length that none of the special ones has: such a name is not looked at any further.
 */

/** What fields, by lower-case name, are for. */
export class FieldTable<T> {
  readonly #meanings: ReadonlyMap<string, T>
  readonly #lengths = new Uint8Array(64)

  constructor(meanings: ReadonlyMap<string, T>) {
    this.#meanings = meanings
    for (const { length } of meanings.keys()) this.#lengths[length] = 1
  }

  /** Undefined for a field that is nothing special. */
  of(name: string): T | undefined {
    return this.#lengths[name.length] === 1 ? this.#meanings.get(name.toLowerCase()) : undefined
  }
}

/** What a Connection field says most of the time, and that names no other field. */
const PLAIN = new Set(['keep-alive', 'close', ''])

/** The names, lower case, of the fields that a Connection field has made its own; undefined for none. */
export function ownedBy(connection: string): Set<string> | undefined {
  const lower = connection.toLowerCase()
  if (PLAIN.has(lower)) return undefined
  return new Set(lower.split(',').map((token) => token.trim()))
}

/** Pairs of names and values without those of `names`. */
export function without(fields: readonly string[], names: ReadonlySet<string>): string[] {
  return fields.filter((_, i) => !names.has(fields[i - (i % 2)]!.toLowerCase()))
}

/**
 * What trailers must not be, since it is about framing, routing, authentication or the connection, and whoever merges them
 * into the head would be misled (RFC 9110, 6.5.1).
 */
const NO_TRAILER = new Set(
  (
    'transfer-encoding content-length content-encoding content-type content-range host connection keep-alive ' +
    'proxy-connection te trailer upgrade expect authorization proxy-authorization proxy-authenticate www-authenticate ' +
    'cookie set-cookie cache-control max-forwards range forwarded x-forwarded-for x-forwarded-proto x-forwarded-host'
  ).split(' '),
)

export function mayBeTrailer(name: string): boolean {
  return !NO_TRAILER.has(name.toLowerCase())
}
