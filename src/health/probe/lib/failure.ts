/** How a failed probe reads: the same failure in the same words, whichever probe met it. */

const WORDS: ReadonlyMap<string, string> = new Map([
  ['ECONNREFUSED', 'connection refused'],
  ['ECONNRESET', 'connection reset'],
  ['EPIPE', 'connection reset'],
  ['EHOSTUNREACH', 'no route to host'],
  ['ENETUNREACH', 'network unreachable'],
  ['ETIMEDOUT', 'connection timed out'],
  ['ENOTFOUND', 'host name not found'],
  ['EAI_AGAIN', 'host name not resolved'],
  ['ENOENT', 'no such socket'],
  ['EACCES', 'permission denied'],
  ['EMFILE', 'too many open files'],
  ['EADDRNOTAVAIL', 'no local address or port left'],
  ['CERT_HAS_EXPIRED', 'certificate has expired'],
  ['CERT_NOT_YET_VALID', 'certificate is not yet valid'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'self-signed certificate'],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'self-signed certificate in the chain'],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'certificate of an unknown authority'],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'certificate of an unknown authority'],
  ['ERR_TLS_CERT_ALTNAME_INVALID', 'certificate is for another name'],
])

/** What Node 24 adds to errors of certificates, also where a client has put a code of its own in place of Node's. */
const HINT = /; if the root CA is installed locally, .*$/

/** The error in words; never empty, and of one line. */
export function failureText(error: unknown): string {
  if (!(error instanceof Error)) return oneLine(String(error)) || 'failed'
  // Happy eyeballs: all addresses of a name failed, each with an error of its own.
  if (error instanceof AggregateError && error.errors.length > 0) return failureText(error.errors[0])
  // OpenSSL's own form: `80A0…:error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../deps/…:354:`.
  const [, reason] = /:SSL routines:[^:]*:([^:]+)/.exec(error.message) ?? []
  if (reason !== undefined) return `TLS: ${reason}`
  const { code } = error as NodeJS.ErrnoException
  return WORDS.get(code ?? '') ?? (oneLine(error.message.replace(HINT, '')) || (code ?? error.name))
}

function oneLine(text: string): string {
  return text.replace(/\s+/g, ' ').trim().slice(0, 200)
}

const OWN_FAULTS = new Set(['EMFILE', 'ENFILE', 'ENOBUFS', 'ENOMEM', 'EADDRNOTAVAIL'])

/** Whether it is this machine that could not ask. */
export function isOwnFault(error: unknown): boolean {
  return error instanceof Error && OWN_FAULTS.has((error as NodeJS.ErrnoException).code ?? '')
}
