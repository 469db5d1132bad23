/** What an answer must contain. */
import { expected } from '../../../check.js'

/** Whether a text is as wanted. */
export type Match = (text: string) => boolean

/** Checks an option that is a string to be contained, or a RegExp to be matched; undefined if it is not set. */
export function parseMatch(path: string, key: string, value: unknown): Match | undefined {
  if (value === undefined) return undefined
  if (typeof value === 'string' && value !== '') return (text) => text.includes(value)
  if (value instanceof RegExp) {
    // With `g` or `y` a RegExp remembers where it was, and would match every other time.
    const pattern = new RegExp(value.source, value.flags.replace(/[gy]/g, ''))
    return (text) => pattern.test(text)
  }
  throw expected(path, key, 'a non-empty string or a RegExp', value)
}

/** The beginning of an unwanted answer, for a message. */
export function excerpt(received: Uint8Array): string {
  const text = Buffer.from(received.buffer, received.byteOffset, Math.min(received.length, 60)).toString('latin1')
  return JSON.stringify(text.replace(/[^\x20-\x7e]+/g, ' ').trim())
}
