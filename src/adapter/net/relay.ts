/** Two sockets that say to each other what comes in at either. */
import type { Socket } from 'node:net'
import { systemClock, Timer } from '../../clock.js'

/**
 * Passes on all that comes from either side, at the pace of the other one, until both have ended. Each direction ends by
 * itself. `idleTimeout` is milliseconds without a byte in either direction; 0 = no limit.
 */
export function relay(one: Socket, other: Socket, idleTimeout: number): void {
  pass(one, other)
  pass(other, one)
  if (idleTimeout > 0) endWhenIdle(one, other, idleTimeout)
}

function pass(from: Socket, to: Socket): void {
  from.pipe(to)
  from.on('error', () => undefined)
  from.once('close', () => {
    if (!from.readableEnded || !from.writableFinished) cutOff(to)
  })
}

/** Whoever reads half of something must not take it for the whole: it is not ended but reset, where that can be. */
export function cutOff(socket: Socket): void {
  try {
    socket.resetAndDestroy()
  } catch {
    // A unix socket, or TLS.
    socket.destroy()
  }
}

function endWhenIdle(one: Socket, other: Socket, idleTimeout: number): void {
  let active = systemClock.now()
  const touch = () => (active = systemClock.now())
  const timer = new Timer(systemClock, () => {
    const due = active + idleTimeout
    if (systemClock.now() < due) return timer.at(due)
    cutOff(one)
    cutOff(other)
  })
  timer.at(active + idleTimeout)
  const stop = () => {
    if (one.closed && other.closed) timer.stop()
  }
  for (const socket of [one, other]) socket.on('data', touch).on('drain', touch).once('close', stop)
}
