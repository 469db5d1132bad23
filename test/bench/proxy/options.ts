/**
 * How long and how often: `-- --seconds N --runs N`. They are taken out of the command line here, so that what reads the
 * rest of it finds no option that it does not know: this is to be imported first.
 */

/** Of one run. */
export const seconds = take('seconds', 5)
/** Of every subject; medians are told. */
export const runs = take('runs', 5)
/** Seconds, before the first run of a process: by then the engine has compiled all that is hot. */
export const warmUp = Math.min(3, seconds)

function take(name: string, otherwise: number): number {
  const at = process.argv.indexOf(`--${name}`)
  if (at < 0) return otherwise
  const [, text] = process.argv.splice(at, 2)
  const value = Number(text)
  if (Number.isInteger(value) && value > 0) return value
  throw new Error(`--${name}: expected a whole number from 1 on, got ${text}`)
}
