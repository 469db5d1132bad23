/** Commands, as arrays of words: no shell reads them. */
import { spawn } from 'node:child_process'
import { array, expected, string } from '../../check.js'
import { systemClock, Timer } from '../../clock.js'
import { CheckupsError } from '../../errors.js'

/** A command has failed; its output is in the message. */
export class NginxCommandError extends CheckupsError {
  /** The command. */
  readonly command: readonly string[]
  /** What it printed, both outputs together, the last 16 KiB of them. */
  readonly output: string

  constructor(command: readonly string[], problem: string, output: string, options?: ErrorOptions) {
    const said = output.trim()
    super('ERR_CHECKUPS_COMMAND', `${command.join(' ')}: ${problem}${said === '' ? '' : `: ${said}`}`, options)
    this.command = command
    this.output = output
  }

  static {
    this.prototype.name = 'NginxCommandError'
  }
}

/** Characters of output that are kept. */
const LONGEST_OUTPUT = 16_384

export function checkCommand(path: string, key: string, value: unknown): readonly string[] | undefined {
  if (value === undefined) return undefined
  const words = array(path, key, value)
  if (words.length === 0) throw expected(path, key, 'a command, as an array of its words', value)
  words.forEach((word, i) => {
    if (i === 0) string(path, `${key}[0]`, word)
    else if (typeof word !== 'string') throw expected(path, `${key}[${i}]`, 'a string', word)
  })
  return words as readonly string[]
}

/** Resolves when the command has ended well; rejects if it has not within `timeout` milliseconds, or on abort. */
export function run(command: readonly string[], timeout: number, signal: AbortSignal): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    signal.throwIfAborted()
    const [program, ...args] = command
    const child = spawn(program!, args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    let problem: string | undefined
    const keep = (chunk: Buffer) => (output = (output + chunk.toString()).slice(-LONGEST_OUTPUT))
    child.stdout.on('data', keep)
    child.stderr.on('data', keep)
    const deadline = new Timer(systemClock, () => kill(`not done in ${timeout} ms`))
    const abort = () => kill('interrupted')
    const kill = (why: string) => {
      problem ??= why
      child.kill('SIGKILL')
      // A grandchild may hold them open.
      child.stdout.destroy()
      child.stderr.destroy()
    }
    const end = (failure: string | undefined, cause?: Error) => {
      deadline.stop()
      signal.removeEventListener('abort', abort)
      if (failure === undefined) resolve()
      else reject(new NginxCommandError(command, failure, output, cause && { cause }))
    }
    deadline.at(systemClock.now() + timeout)
    signal.addEventListener('abort', abort)
    child.once('error', (error) => end(error.message, error))
    child.once('close', (code, killedBy) => {
      end(problem ?? (code === 0 ? undefined : killedBy === null ? `exit status ${code}` : `ended by ${killedBy}`))
    })
  })
}
