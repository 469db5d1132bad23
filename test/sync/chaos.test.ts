import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { expect, it, onTestFinished } from 'vitest'
import type { ChaosResult } from './chaos.js'

it('200 changes a second for 30 s while workers that proxy are killed: all agree at the end, nothing accepted is lost, and no request fails but those open on a killed worker', async () => {
  // The primary of a cluster, by itself: what it does all the time would else wait for other tests of this process.
  const child = fork(fileURLToPath(new URL('chaos.ts', import.meta.url)), ['30'], { execArgv: ['--import', 'tsx'] })
  onTestFinished(() => void child.kill('SIGKILL'))
  const [result] = (await once(child, 'message')) as [ChaosResult]
  console.log(JSON.stringify({ ...result, failures: result.failures.length }))
  expect(result.failures).toEqual([])
  expect(result.lost).toEqual([])
  expect(result.disagreeing).toEqual([])
  expect(result.kills).toBeGreaterThan(5)
  // All but those that were lost with a worker, which has 50 in hand at most.
  expect(result.accepted).toBe(result.asked - result.unanswered)
  expect(result.unanswered).toBeLessThanOrEqual(50 * result.kills)
  expect(result.asked).toBeGreaterThan(2_000)
  expect(result.answered).toBeGreaterThan(1_000)
}, 120_000)
