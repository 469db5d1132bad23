/** Attempts for people who read logs. */
import type { Attempt } from './attempt.js'

/**
 * Attempts as nginx logs them by `$upstream_addr $upstream_status $upstream_response_time`: three lists, in order, times in
 * seconds; `-` for a status that never came.
 *
 * @example `10.0.0.1:80, 10.0.0.2:80 502, 200 0.003, 0.012`
 */
export function formatAttempts(attempts: readonly Attempt[]): string {
  if (attempts.length === 0) return '- - -'
  const list = (of: (attempt: Attempt) => string) => attempts.map(of).join(', ')
  return [
    list(({ peer }) => peer.address),
    list(({ status }) => (status === 0 ? '-' : String(status))),
    list(({ ms }) => (ms / 1_000).toFixed(3)),
  ].join(' ')
}
