import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { linkSync, mkdtempSync, readdirSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import type { Order } from './contender.js'

const program = fileURLToPath(new URL('contender.ts', import.meta.url))

/** So far ahead that all have the order by then. */
const AHEAD = 20

async function startContender(): Promise<ChildProcess> {
  const child = fork(program, { execArgv: ['--import', 'tsx'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  await once(child, 'message')
  return child
}

async function order(child: ChildProcess, what: Order): Promise<string> {
  const told = once(child, 'message')
  child.send(what)
  return ((await told) as [string])[0]
}

/** As a process leaves it behind that was killed: a socket that nobody listens to. */
async function leaveBehind(path: string): Promise<void> {
  const server = createServer().listen(`${path}.first`)
  await once(server, 'listening')
  linkSync(`${path}.first`, path)
  server.close()
  await once(server, 'close')
}

/** The same, amid taking such a socket away, a while ago. */
function leaveTurnBehind(path: string): void {
  writeFileSync(`${path}.turn`, '')
  const then = new Date(Date.now() - 1_900)
  utimesSync(`${path}.turn`, then, then)
}

const KILLED = 'the socket of one that was killed'
const KILLED_TWICE = `${KILLED}, and the turn of another one that was`

it.each(['nothing', KILLED, KILLED_TWICE])(
  'of ten that look at once and find %s exactly one is in charge',
  async (found) => {
    const folder = mkdtempSync(join(tmpdir(), 'checkups-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const contenders = await Promise.all(Array.from({ length: 10 }, startContender))
    for (let round = 0; round < 20; round++) {
      const path = join(folder, `${round}.sock`)
      if (found !== 'nothing') await leaveBehind(path)
      if (found === KILLED_TWICE && round % 10 === 0) leaveTurnBehind(path)
      const at = Date.now() + AHEAD
      const told = await Promise.all(contenders.map((contender) => order(contender, { path, at })))
      expect(told.filter((one) => one === 'in charge')).toHaveLength(1)
      await Promise.all(contenders.map((contender) => order(contender, 'end')))
    }
    expect(readdirSync(folder)).toEqual([])
  },
)
