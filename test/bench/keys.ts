/** Keys of 12 characters, as long as an IPv4 address: a new string for each pick, as a proxy has them, or a few again and again. */
import { createHash } from 'node:crypto'
import type { PickFunction } from './measure.js'

/** Finds the server of a key. */
export type FindFunction = (key: string) => unknown

const LENGTH = 12
const HOT = 1_000

/** A power of two; an odd step comes to every place of the text before it comes to one again. */
const PLACES = 2 ** 19
const STEP = LENGTH + 1
const outputLength = ((PLACES + LENGTH) * 3) / 4
const text = createHash('shake256', { outputLength }).update('keys').digest('base64url')

/**
 * A piece of a text: the engine copies one this short (a longer one it would make a view of the text), so that it is as
 * fresh as a part of a header, its hash not computed. No key comes back within 524,288 picks.
 */
export function freshKeys(find: FindFunction): PickFunction {
  let at = 0
  return () => {
    at = (at + STEP) & (PLACES - 1)
    return find(text.substring(at, at + LENGTH))
  }
}

/** The same string objects in turn. */
export function hotKeys(find: FindFunction): PickFunction {
  const keys = Array.from({ length: HOT }, (_, i) => text.substring(i * LENGTH, (i + 1) * LENGTH))
  let at = 0
  return () => {
    at = at + 1 === HOT ? 0 : at + 1
    return find(keys[at]!)
  }
}
