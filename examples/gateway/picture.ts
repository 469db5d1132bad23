// What the demo prints: a line per half second with a bar per backend, events in between, and the totals.
const BAR = 16

export class Picture {
  readonly #started = performance.now()
  #before = new Map<string, number>()

  event(text: string): void {
    console.log(`${this.#time()}  ── ${text}`)
  }

  /** Who got how many answers since the last line. */
  line(answers: ReadonlyMap<string, number>, names: readonly string[], failed: number): void {
    const since = names.map((name) => (answers.get(name) ?? 0) - (this.#before.get(name) ?? 0))
    this.#before = new Map(answers)
    const all = Math.max(1, ...since)
    const bars = names.map((name, i) => {
      const count = since[i] ?? 0
      const bar = '█'.repeat(Math.round((BAR * count) / all)).padEnd(BAR, '·')
      return `${name} ${bar} ${String(count).padStart(4)}`
    })
    console.log(`${this.#time()}  ${bars.join('  ')}  failed ${failed}`)
  }

  totals(answers: ReadonlyMap<string, number>, failures: readonly string[]): void {
    const ok = [...answers.values()].reduce((sum, count) => sum + count, 0)
    console.log(`\nrequests ${ok + failures.length}, failed ${failures.length}`)
    for (const [name, count] of [...answers].sort()) {
      console.log(`  ${name}  ${String(count).padStart(6)}  ${((100 * count) / ok).toFixed(1).padStart(5)} %`)
    }
    for (const failure of new Set(failures)) console.log(`  failure: ${failure}`)
  }

  #time(): string {
    return `${((performance.now() - this.#started) / 1000).toFixed(1).padStart(5)} s`
  }
}
