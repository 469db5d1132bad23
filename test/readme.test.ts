import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { installPacked, type Installation } from './support/installed.js'

const readme = readFileSync(new URL('../README.md', import.meta.url), 'utf8')

/** A program of the README, and the output shown right under it. */
const programs = [...readme.matchAll(/```js\n([^]*?)```\n\n```text\n([^]*?)```/g)].map(([, source, output]) => ({
  source: source!,
  output: output!,
}))

let installation: Installation
beforeAll(() => {
  installation = installPacked(['http-proxy', 'eventemitter3', 'requires-port', 'follow-redirects'])
})
afterAll(() => installation.remove())

describe('the tour of the README prints what it shows', () => {
  it.each(programs.map((program, i) => [i + 1, program] as const))('program %i', (i, { source, output }) => {
    expect(installation.run(`tour-${i}.mjs`, source)).toBe(output)
  })

  it('shows an output under every program', () => {
    expect(programs.length).toBe(readme.split('```js\n').length - 1)
    expect(programs.length).toBeGreaterThanOrEqual(7)
  })
})
