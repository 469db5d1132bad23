/** The programs of a benchmark: each held to a core, and none outlives it. */
import { spawn, spawnSync, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { basename, join } from 'node:path'

/** Who is measured is alone on its core; who asks and who answers are the others. */
export type Core = 'measured' | 'others'
const CORES: Readonly<Record<Core, string>> = { measured: '1', others: '0' }

/** For configurations and compiled programs; gone with the benchmark. */
export const folder = mkdtempSync(join(tmpdir(), 'checkups-bench-'))

const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin:/usr/local/sbin` }
const running = new Set<ChildProcess>()
process.once('exit', () => {
  for (const child of running) child.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.once(signal, () => process.exit(1))

/** @throws if this machine cannot run the benchmark, saying what it takes. */
export function need(...programs: readonly string[]): void {
  if (process.platform !== 'linux' || cpus().length < 2) throw new Error('this benchmark needs Linux and two cores')
  const missing = ['taskset', ...programs].filter((name) => spawnSync(name, ['-v'], { env }).error !== undefined)
  if (missing.length === 0) return
  const packages = missing.map((name) => (name === 'taskset' ? 'util-linux' : name)).join(' ')
  throw new Error(`${missing.join(', ')} not found; on Debian, as root: apt-get install -y ${packages}`)
}

/** What a program says of its version, without its name. */
export function versionOf(program: string): string {
  const { stdout, stderr } = spawnSync(program, ['-v'], { env, encoding: 'utf8' })
  return /\d+\.\d+\.\d+/.exec(stdout + stderr)?.[0] ?? ''
}

/** A program that runs. */
export interface Program {
  readonly child: ChildProcess
  /** Ends it, and waits until it has. */
  end(): Promise<void>
}

/** Starts it; one that ends by itself ends the benchmark. */
export function start(core: Core, command: string, args: readonly string[], channel: 'ipc' | 'ignore'): Program {
  const child = onCore(core, command, args, channel)
  let isWanted = true
  const exited = once(child, 'exit').then(([code, signal]) => {
    if (isWanted) throw new Error(`${basename(command)} has ended by itself: ${String(code ?? signal)}`)
  })
  return {
    child,
    async end() {
      isWanted = false
      child.kill('SIGTERM')
      await exited
    },
  }
}

/** Runs it to its end, and returns what it has printed. */
export async function run(core: Core, command: string, args: readonly string[]): Promise<string> {
  const child = onCore(core, command, args, 'ignore')
  let output = ''
  child.stdout!.setEncoding('utf8').on('data', (chunk: string) => (output += chunk))
  const [code] = (await once(child, 'close')) as [number | null]
  if (code !== 0) throw new Error(`${command} ended with ${code}: ${output}`)
  return output
}

/** taskset becomes the command: process and number stay the same. */
function onCore(core: Core, command: string, args: readonly string[], channel: 'ipc' | 'ignore'): ChildProcess {
  const stdio = ['ignore', 'pipe', 'inherit', channel] as const
  const child = spawn('taskset', ['-c', CORES[core], command, ...args], { env, stdio: [...stdio] })
  running.add(child)
  child.once('exit', () => running.delete(child))
  return child
}

/** Microseconds of a core that it has used, all its threads together; told by the system in hundredths of a second. */
export function processorTime({ child }: Program): number {
  const stat = readFileSync(`/proc/${child.pid}/stat`, 'utf8')
  // The name, which comes second, may have spaces in it.
  const [, ...fields] = stat.slice(stat.lastIndexOf(')')).split(' ')
  return (Number(fields[11]) + Number(fields[12])) * 10_000
}
