/**
 * One subject at one size, in a process of its own: `child.ts <name> <n>` prints nanoseconds per pick, of a keyed subject
 * with fresh keys and with hot ones.
 */
import { freshKeys, hotKeys } from './keys.js'
import { nsPerPick } from './measure.js'
import { keyedSubjects, subjects } from './subjects.js'

const [name, n] = process.argv.slice(2)

function measured(): number[] {
  const subject = subjects.find((candidate) => candidate.name === name)
  if (subject !== undefined) return [nsPerPick(subject.make(Number(n)))]
  const keyed = keyedSubjects.find((candidate) => candidate.name === name)
  if (keyed === undefined) throw new Error(`no subject ${JSON.stringify(name)}`)
  const find = keyed.make(Number(n))
  return [nsPerPick(freshKeys(find)), nsPerPick(hotKeys(find))]
}

console.log(JSON.stringify(measured()))
