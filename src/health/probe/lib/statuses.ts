/** Which HTTP statuses are ok. */
import { array, expected } from '../../../check.js'
import { ConfigError } from '../../../errors.js'

/**
 * The statuses that are ok, as a list of codes (`200`), classes (`'2xx'`) and ranges (`'200-399'`); or, as in
 * lua-resty-checkups, a map in which false marks the failures (`{ 502: false, '5xx': false }`; a code wins over its class)
 * and all that is not named is ok.
 */
export type ProbeStatuses = readonly (number | string)[] | Readonly<Record<string, boolean>>

/** Whether a status is ok. */
export type IsOk = (status: number) => boolean

/** What status codes may be: three digits, of which RFC 9110 §15 defines the first five classes. */
const CODE = /^[1-9]\d\d$/
const CLASS = /^[1-9]xx$/
const RANGE = /^([1-9]\d\d)-([1-9]\d\d)$/

export function parseStatuses(path: string, key: string, value: unknown): IsOk {
  const named = typeof value === 'object' && value !== null && !Array.isArray(value)
  const ok = named ? exceptThese(`${path}.${key}`, value) : onlyThese(path, key, array(path, key, value))
  return (status) => ok[status] === 1
}

function onlyThese(path: string, key: string, entries: readonly unknown[]): Uint8Array {
  if (entries.length === 0) throw expected(path, key, 'at least one status', entries)
  const ok = new Uint8Array(1000)
  for (const [i, entry] of entries.entries()) {
    const text = typeof entry === 'number' || typeof entry === 'string' ? String(entry) : ''
    const [, from = '', to = ''] = RANGE.exec(text) ?? []
    if (CODE.test(text)) ok[Number(text)] = 1
    else if (CLASS.test(text)) ok.fill(1, Number(text[0]) * 100, Number(text[0]) * 100 + 100)
    else if (from !== '' && from <= to) ok.fill(1, Number(from), Number(to) + 1)
    else throw expected(`${path}.${key}[${i}]`, '', 'a status as 200, a class as "2xx" or a range as "200-399"', entry)
  }
  return ok
}

function exceptThese(path: string, map: object): Uint8Array {
  const ok = new Uint8Array(1000).fill(1)
  // Classes first: a code wins over its class.
  const entries = Object.entries(map).sort(([a], [b]) => Number(CODE.test(a)) - Number(CODE.test(b)))
  for (const [code, meaning] of entries as [string, unknown][]) {
    if (typeof meaning !== 'boolean') throw expected(path, code, 'true or false', meaning)
    if (CODE.test(code)) ok[Number(code)] = Number(meaning)
    else if (CLASS.test(code)) ok.fill(Number(meaning), Number(code[0]) * 100, Number(code[0]) * 100 + 100)
    else throw new ConfigError(`${path}.${code}`, 'a status is a code as 502 or a class as "5xx"')
  }
  return ok
}
