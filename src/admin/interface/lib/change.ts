/** Changes that depend on what is there. */
import { isDeepStrictEqual } from 'node:util'
import type { UpstreamOptions } from '../../../config.js'
import { isCheckupsError } from '../../../errors.js'
import type { By, Conditions, Described, Done, Operations } from '../../operations.js'

/**
 * Makes a change of an upstream as it is, or of none. If it has become another one before the change is made, that is made
 * anew, of what is there then.
 */
export async function changing(
  operations: Operations,
  key: string,
  change: (current: Described | undefined, conditions: Conditions) => Promise<Done>,
): Promise<Done> {
  for (let current = read(operations, key); ;) {
    try {
      return await change(current, current === undefined ? { ifNone: true } : { ifMatch: current.etag })
    } catch (error) {
      const now = read(operations, key)
      // If it is still the same here, a store has another one: nothing is won by asking again at once.
      if (!isConflict(error) || now?.etag === current?.etag) throw error
      current = now
    }
  }
}

/**
 * Patches an upstream, which is made if there is none. Where the patch is the same whatever is there, it is made whatever
 * is there: the last one counts.
 */
export function patching(
  operations: Operations,
  key: string,
  by: By,
  patchOf: (current: UpstreamOptions | undefined) => object,
): Promise<Done> {
  const plain = patchOf(undefined)
  return changing(operations, key, (current, conditions) => {
    const patch = patchOf(current?.config)
    const isFree = isDeepStrictEqual(patch, plain)
    return operations.patch(key, patch, by, { ...(isFree ? {} : conditions), create: true })
  })
}

/** Undefined if there is none. */
export function read(operations: Operations, key: string): Described | undefined {
  try {
    return operations.read(key)
  } catch (error) {
    if (isCheckupsError(error, 'ERR_CHECKUPS_UNKNOWN_UPSTREAM')) return undefined
    throw error
  }
}

/** By its name, whatever its case, as nginx looks for it; undefined if there is none. */
export function findKey(operations: Operations, name: string): string | undefined {
  if (operations.checkups.getUpstream(name) !== undefined) return name
  const lower = name.toLowerCase()
  return operations.keys().find((key) => key.toLowerCase() === lower)
}

/** 202: the store has it, and it is not in use here yet. */
export function statusOf({ applied }: Done): 200 | 202 {
  return applied ? 200 : 202
}

/** A merge patch that puts `to` in the place of `from`: by itself it would keep what only `from` has. */
export function replacing(from: unknown, to: unknown): unknown {
  if (!isPlain(from) || !isPlain(to)) return to
  const gone = Object.keys(from).filter((name) => !Object.hasOwn(to, name))
  return Object.fromEntries([
    ...gone.map((name) => [name, null] as const),
    ...Object.entries(to).map(([name, value]) => [
      name,
      replacing(Object.hasOwn(from, name) ? from[name] : undefined, value),
    ]),
  ])
}

function isPlain(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value)
}

function isConflict(error: unknown): boolean {
  return isCheckupsError(error, 'ERR_CHECKUPS_REFUSED') && (error as { reason?: unknown }).reason === 'conflict'
}
