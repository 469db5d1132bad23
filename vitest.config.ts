import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // Packing, installing and starting child processes take seconds on a small machine; unit tests end in milliseconds.
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // As long as `eventually` looks.
    expect: { poll: { timeout: 40_000 } },
  },
})
