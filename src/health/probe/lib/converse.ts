/** A short conversation over one connection: connect, say something, read until the answer is whole. */
import { connect as connectTcp, type Socket } from 'node:net'
import type { ProbeTarget } from '../probe.js'

export interface Conversation<T> {
  /** Opens the connection. Default: plain TCP or the unix socket. */
  readonly open?: ((target: ProbeTarget) => Socket) | undefined
  /**
   * Which event says that it is open. Default `connect`; of TLS `secureConnect`, or `finish` if `open` sees to it that the
   * connection is ended as soon as it stands.
   */
  readonly opened?: 'connect' | 'secureConnect' | 'finish' | undefined
  /** Said as soon as it is open. */
  readonly send?: string | Uint8Array | undefined
  /** Looks at all that was received so far: the answer, or undefined to wait for more. What it throws has failed. */
  readonly read: (received: Buffer, socket: Socket) => T | undefined
  /** The other side has closed: the answer after all, or undefined. Default: that is a failure. */
  readonly ended?: ((received: Buffer) => T | undefined) | undefined
}

/** Bytes of an answer that are looked at, at most. */
const LONGEST = 65_536

/** Holds it. The socket is gone when the promise is settled. */
export function converse<T>(target: ProbeTarget, signal: AbortSignal, conversation: Conversation<T>): Promise<T> {
  const { open = openTcp, opened = 'connect', send, read, ended } = conversation
  return new Promise<T>((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error)
    const socket = open(target).unref()
    let received: Buffer = Buffer.alloc(0)
    const leave = () => {
      signal.removeEventListener('abort', abort)
      // An error may still come of a connection that is being closed.
      socket.removeAllListeners('data').removeAllListeners('end')
      socket.destroy()
    }
    const abort = () => fail(signal.reason as Error)
    const fail = (error: Error) => {
      leave()
      reject(error)
    }
    const settle = (look: () => T | undefined): boolean => {
      try {
        const answer = look()
        if (answer === undefined) return false
        leave()
        resolve(answer)
      } catch (error) {
        fail(error as Error)
      }
      return true
    }
    signal.addEventListener('abort', abort)
    socket.on('error', fail)
    socket.once(opened, () => {
      if (send !== undefined) socket.write(send)
      settle(() => read(received, socket))
    })
    socket.on('data', (chunk: Buffer) => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk])
      if (settle(() => read(received, socket))) return
      if (received.length > LONGEST) fail(new Error(`an answer of more than ${LONGEST} bytes`))
    })
    socket.once('end', () => {
      if (ended !== undefined && settle(() => ended(received))) return
      fail(new Error(received.length === 0 ? 'closed without an answer' : 'closed amid its answer'))
    })
  })
}

function openTcp({ connect }: ProbeTarget): Socket {
  return connectTcp({ ...connect })
}
