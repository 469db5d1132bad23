/** What must be unpredictable, or compared without a hint of where it differs. */
import { createHash, createHmac, randomBytes, timingSafeEqual } from 'node:crypto'

/** Of this process: digests under it can be compared in equal time whatever the lengths of what they are made of. */
const PEPPER = randomBytes(32)

/** 192 bits that nobody can guess, for URLs and headers. */
export function unguessable(): string {
  return randomBytes(24).toString('base64url')
}

/** What stands for a secret in this process. */
export function sealed(secret: string): Buffer {
  return createHmac('sha256', PEPPER).update(secret).digest()
}

/** In a time that does not depend on where they differ. */
export function isSame(seal: Buffer, secret: string): boolean {
  return timingSafeEqual(seal, sealed(secret))
}

/** Short, and another one for another text. */
export function digest(text: string): string {
  return createHash('sha256').update(text).digest('base64url').slice(0, 22)
}
