import { vi } from 'vitest'

/**
 * Looks until it holds, every `interval` milliseconds. Its limit is no statement about what is tested: it is when a test
 * that hangs is given up, on the slowest machine.
 */
export function eventually(check: () => Promise<void> | void, interval = 2): Promise<void> {
  return vi.waitFor(check, { interval, timeout: 40_000 })
}
