/** Asks as fast as it is answered, over 64 connections, by one thread of wrk. */
import { run } from './programs.js'

/** What wrk has seen. */
export interface Answers {
  /** A second. */
  readonly rate: number
  /** In all. */
  readonly requests: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  /** Connections that failed or were silent, and statuses that are none of success: wrk's words, if there were any. */
  readonly failures: readonly string[]
}

export async function wrk(port: number, seconds: number): Promise<Answers> {
  const args = ['-t1', '-c64', `-d${seconds}s`, '--latency', `http://127.0.0.1:${port}/`]
  const output = await run('others', 'wrk', args)
  const find = (pattern: RegExp) => {
    const found = pattern.exec(output)
    if (found === null) throw new Error(`wrk has not said ${String(pattern)}: ${output}`)
    return found
  }
  const percentile = (percent: number) => {
    const [, value, unit] = find(new RegExp(`^ +${percent}% +([\\d.]+)(us|ms|s|m) *$`, 'm'))
    return Number(value) * { us: 0.001, ms: 1, s: 1_000, m: 60_000 }[unit as 'us']
  }
  return {
    rate: Number(find(/^Requests\/sec: +([\d.]+)$/m)[1]),
    requests: Number(find(/^ +(\d+) requests in /m)[1]),
    p50: percentile(50),
    p99: percentile(99),
    failures: [...output.matchAll(/^ *((?:Socket errors|Non-2xx or 3xx responses): .*)$/gm)].map(([, words]) => words!),
  }
}
