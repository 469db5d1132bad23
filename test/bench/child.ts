/** One subject at one size, in a process of its own: `child.ts <name> <n>` prints nanoseconds per pick. */
import { nsPerPick } from './measure.js'
import { subjects } from './subjects.js'

const [name, n] = process.argv.slice(2)
const subject = subjects.find((candidate) => candidate.name === name)
if (subject === undefined) throw new Error(`no subject ${JSON.stringify(name)}`)

console.log(JSON.stringify(nsPerPick(subject.make(Number(n)))))
