/** One question to one name server, over UDP or TCP, and what comes back from it. */
import { createSocket } from 'node:dgram'
import { connect, isIPv6 } from 'node:net'

/** A name server. */
export interface NameServer {
  /** `127.0.0.1:53` or `[::1]:53`. */
  readonly address: string
  readonly host: string
  readonly port: number
}

/** Looks at a message: what it says, or undefined if it is no answer to what was asked. What it throws has failed. */
export type Accept<T> = (message: Buffer) => T | undefined

/** Asks a server. Ends at once when the signal is aborted, with its reason; leaves nothing open. */
export type Exchange = <T>(server: NameServer, query: Buffer, accept: Accept<T>, signal: AbortSignal) => Promise<T>

/**
 * Over UDP. The socket is connected, so that the system drops what comes from elsewhere, and says at once that nobody
 * listens; and it is a new one, whose port nobody can guess. What is no answer to the question is not listened to.
 */
export const overUdp: Exchange = (server, query, accept, signal) =>
  new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error)
    const socket = createSocket(isIPv6(server.host) ? 'udp6' : 'udp4')
    const leave = () => {
      signal.removeEventListener('abort', abort)
      socket.close()
    }
    const fail = (error: Error) => {
      socket.off('error', fail).on('error', () => undefined)
      leave()
      reject(error)
    }
    const abort = () => fail(signal.reason as Error)
    signal.addEventListener('abort', abort)
    socket.on('error', fail)
    socket.on('message', (message) => {
      try {
        const answer = accept(message)
        if (answer === undefined) return
        leave()
        resolve(answer)
      } catch (error) {
        fail(error as Error)
      }
    })
    socket.connect(server.port, server.host, () => {
      // It may have been left before it was connected.
      if (!signal.aborted) socket.send(query, (error) => error && fail(error))
    })
  })

/** Over TCP, where every message has its length before it (RFC 1035, 4.2.2). */
export const overTcp: Exchange = (server, query, accept, signal) =>
  new Promise((resolve, reject) => {
    if (signal.aborted) return reject(signal.reason as Error)
    const socket = connect(server.port, server.host)
    const chunks: Buffer[] = []
    let length = 0
    const leave = () => {
      signal.removeEventListener('abort', abort)
      socket.removeAllListeners('data').removeAllListeners('end').destroy()
    }
    const fail = (error: Error) => {
      leave()
      reject(error)
    }
    const abort = () => fail(signal.reason as Error)
    signal.addEventListener('abort', abort)
    socket.on('error', fail)
    socket.once('connect', () => socket.write(Buffer.concat([Buffer.of(query.length >> 8, query.length & 255), query])))
    socket.on('data', (chunk: Buffer) => {
      chunks.push(chunk)
      length += chunk.length
      if (length < 2) return
      const received = Buffer.concat(chunks)
      const end = 2 + received.readUInt16BE(0)
      if (length < end) return
      try {
        const answer = accept(received.subarray(2, end))
        if (answer === undefined) return fail(new Error('an answer to something else'))
        leave()
        resolve(answer)
      } catch (error) {
        fail(error as Error)
      }
    })
    socket.once('end', () => fail(new Error('closed without a whole answer')))
  })
