/** Writes snapshots without an end, from the number it is given on: each names its number 1,000 times, and is told. */
import { Snapshot } from '../../dist/source/snapshot.js'

const snapshot = new Snapshot(process.argv[2], 'store')
for (let number = Number(process.argv[3]); ; number++) {
  process.send(number)
  const servers = Array.from({ length: 1_000 }, () => `10.0.0.1:${number}`)
  await snapshot.save(new Map([['api', [{ servers }]]]))
}
