/** nginx's numbers and times. */

/** As many as a 32-bit counter holds. */
export const MAX_INT = 2 ** 31 - 1

/** A decimal number without a sign; undefined if it is none, or not in the range. */
export function parseInteger(text: string, min: number, max = MAX_INT): number | undefined {
  const value = /^\d+$/.test(text) ? Number(text) : NaN
  return value >= min && value <= max ? value : undefined
}

/** Milliseconds of each unit, the longest first, as they must come (ngx_parse_time); a month has 30 days, a year 365. */
const UNITS = [31_536_000_000, 2_592_000_000, 604_800_000, 86_400_000, 3_600_000, 60_000, 1_000, 1, 1_000] as const
const TIME = /^(\d+y)? *(\d+M)? *(\d+w)? *(\d+d)? *(\d+h)? *(\d+m(?!s))? *(\d+s)? *(\d+ms)? *(\d+)?$/

/** `10s`, `1m30s`, `500ms`, or `10`, which is seconds: in milliseconds. Undefined if it is none. */
export function parseTime(text: string): number | undefined {
  const found = TIME.exec(text)
  if (found === null || text.trim() === '') return undefined
  const parts: (string | undefined)[] = found.slice(1)
  const total = parts.reduce((sum, part, i) => sum + (part === undefined ? 0 : parseInt(part, 10) * UNITS[i]!), 0)
  return Number.isSafeInteger(total) ? total : undefined
}
