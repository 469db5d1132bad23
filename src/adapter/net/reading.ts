/** What parsers of a connection's first bytes say. */

/**
 * What the bytes so far come to: they may still become something (`more`), are it, or never will be. It is a function of
 * the bytes alone and final once it is not `more`, so that it is the same whatever pieces they came in.
 */
export type Reading<T> =
  | { readonly state: 'more' }
  /** `length` bytes belong to it alone; what follows them is for whoever reads on. */
  | { readonly state: 'done'; readonly value: T; readonly length: number }
  | { readonly state: 'invalid'; readonly reason: string }

/** Reads the beginning of a connection; never throws. */
export type Parse<T> = (bytes: Buffer) => Reading<T>

export const MORE: Reading<never> = { state: 'more' }

export function invalid(reason: string): Reading<never> {
  return { state: 'invalid', reason }
}
