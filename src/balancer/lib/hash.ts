/**
 * murmur3 (x86, 32 bit) of the UTF-8 bytes of a key, as murmurhash3js-revisited computes it. The library wants an array of
 * bytes, which for a short string costs ten times the hash; where it can be done without one, exactly, it is.
 */
import murmurhash from 'murmurhash3js-revisited'

const encoder = new TextEncoder()

/** Up to here a loop over character codes is the fastest way, beyond it the encoder and 32-bit words are (measured). */
const SHORT = 40

const scratch = new Uint8Array(4096)
const words = new Int32Array(scratch.buffer)
/** Words are read as the machine has them; murmur3 wants them little-endian. */
const littleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1

/** The hash of a key: of a string its UTF-8 bytes (a lone surrogate is U+FFFD there), of bytes themselves. */
export function hashKey(key: string | Uint8Array): number {
  if (typeof key !== 'string') return hashBytes(key, 0)
  return key.length <= SHORT ? hashShort(key) : hashLong(key)
}

/** The library's own; `seed` is an unsigned 32-bit integer. */
export function hashBytes(bytes: Uint8Array, seed: number): number {
  return murmurhash.x86.hash32(bytes, seed)
}

/** The hash of a string with a seed, through the library. */
export function hashText(text: string, seed: number): number {
  return hashBytes(encoder.encode(text), seed)
}

function hashShort(key: string): number {
  const { length } = key
  let hash = 0
  let units = 0
  let i = 0
  for (; i + 4 <= length; i += 4) {
    const a = key.charCodeAt(i)
    const b = key.charCodeAt(i + 1)
    const c = key.charCodeAt(i + 2)
    const d = key.charCodeAt(i + 3)
    units |= a | b | c | d
    hash = mixBlock(hash, a | (b << 8) | (c << 16) | (d << 24))
  }
  let rest = 0
  for (let shift = 0; i < length; i++, shift += 8) {
    const unit = key.charCodeAt(i)
    units |= unit
    rest |= unit << shift
  }
  // Beyond ASCII a character is not a byte.
  if (units > 0x7f) return hashText(key, 0)
  return finish(hash ^ mixWord(rest), length)
}

function hashLong(key: string): number {
  if (!littleEndian || key.length > scratch.length) return hashText(key, 0)
  const { read, written } = encoder.encodeInto(key, scratch)
  if (read < key.length) return hashText(key, 0)
  const blocks = written >>> 2
  let hash = 0
  for (let i = 0; i < blocks; i++) hash = mixBlock(hash, words[i]!)
  let rest = 0
  for (let i = blocks << 2, shift = 0; i < written; i++, shift += 8) rest |= scratch[i]! << shift
  return finish(hash ^ mixWord(rest), written)
}

function mixWord(word: number): number {
  const mixed = Math.imul(word, 0xcc9e2d51)
  return Math.imul((mixed << 15) | (mixed >>> 17), 0x1b873593)
}

function mixBlock(hash: number, word: number): number {
  const mixed = hash ^ mixWord(word)
  return (Math.imul((mixed << 13) | (mixed >>> 19), 5) + 0xe6546b64) | 0
}

function finish(hash: number, length: number): number {
  let mixed = hash ^ length
  mixed = Math.imul(mixed ^ (mixed >>> 16), 0x85ebca6b)
  mixed = Math.imul(mixed ^ (mixed >>> 13), 0xc2b2ae35)
  return (mixed ^ (mixed >>> 16)) >>> 0
}
