/** The hashes of nginx: of its consistent ring and of ip_hash. */
import { crc32 } from 'node:zlib'
import { halved, POINTS_PER_WEIGHT, type RingHash } from './hash-ring.js'

/** nginx itself knows no limit; 16 M points are 150 MB, and beyond them keys may go elsewhere than there. */
const MOST_POINTS = 16_777_216

/**
 * nginx's `hash … consistent`: point j of a server is the CRC-32 of host, a zero byte, port, and the point before it as
 * four little-endian bytes (zero before the first). A unix socket's host is its path and its port is empty.
 */
export const nginxRingHash: RingHash = {
  points(address, count) {
    const base = crc32(Buffer.from(nameOf(address)))
    const points = new Uint32Array(count)
    const before = Buffer.alloc(4)
    for (let j = 0; j < count; j++) {
      points[j] = crc32(before, base)
      before.writeUInt32LE(points[j]!)
    }
    return points
  },
  perWeight: (weights) => halved(POINTS_PER_WEIGHT, weights, MOST_POINTS),
  key: (key) => crc32(typeof key === 'string' ? Buffer.from(key) : key),
}

function nameOf(address: string): string {
  if (address.startsWith('unix:')) return `${address.slice('unix:'.length)}\0`
  const colon = address.lastIndexOf(':')
  return `${address.slice(0, colon)}\0${address.slice(colon + 1)}`
}

/** The first three bytes of an IPv4 address, all sixteen of IPv6; of anything else three zeros, as in nginx. */
export function ipHashBytes(key: string | Uint8Array): Uint8Array {
  if (typeof key !== 'string') return key.length === 16 ? key : key.subarray(0, 3)
  const ipv4 = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.\d{1,3}$/i.exec(key)
  if (ipv4 !== null) return Uint8Array.from(ipv4.slice(1).map(Number))
  const bytes = ipv6Bytes(key)
  if (bytes === undefined) return new Uint8Array(3)
  // IPv4 in IPv6 is the same client, however it is written.
  const isMapped = bytes.subarray(0, 10).every((byte) => byte === 0) && bytes[10] === 0xff && bytes[11] === 0xff
  return isMapped ? bytes.subarray(12, 15) : bytes
}

function ipv6Bytes(key: string): Uint8Array | undefined {
  if (!key.includes(':') || !URL.canParse(`http://[${key}]`)) return undefined
  const [head = '', tail] = new URL(`http://[${key}]`).hostname.slice(1, -1).split('::')
  const groups = (text: string) => (text === '' ? [] : text.split(':').map((group) => parseInt(group, 16)))
  const before = groups(head)
  const after = tail === undefined ? [] : groups(tail)
  const all = [...before, ...new Array<number>(8 - before.length - after.length).fill(0), ...after]
  return Uint8Array.from(all.flatMap((group) => [group >> 8, group & 0xff]))
}

/** One more round of ip_hash over the bytes. */
export function nextIpHash(hash: number, bytes: Uint8Array): number {
  for (const byte of bytes) hash = (hash * 113 + byte) % 6271
  return hash
}

/** Where ip_hash begins. */
export const IP_HASH_START = 89
