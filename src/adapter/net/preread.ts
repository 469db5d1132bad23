/** The first bytes of a client, read before anything is decided about it. */
import type { Socket } from 'node:net'
import { systemClock, Timer } from '../../clock.js'
import type { Parse } from './reading.js'

/** How long and how large the first bytes may be. */
export interface PrereadLimits {
  /** Bytes, for all that is read together. */
  readonly limit: number
  /** Milliseconds from the connection on. */
  readonly timeout: number
}

/**
 * Reads heads one after another, and keeps what nobody has taken off. The socket is paused in between and afterwards: what
 * comes then waits in it, up to its own high-water mark.
 */
export class Preread {
  readonly #socket: Socket
  readonly #limits: PrereadLimits
  readonly #deadline: number
  #bytes = Buffer.alloc(0)
  #length = 0
  #taken = 0

  constructor(socket: Socket, limits: PrereadLimits) {
    this.#socket = socket
    this.#limits = limits
    this.#deadline = systemClock.now() + limits.timeout
  }

  /** What has been read and not been taken off. */
  get rest(): Buffer {
    return this.#bytes.subarray(this.#taken, this.#length)
  }

  /** Waits until there is enough for `parse`; rejects if there will never be. */
  read<T>(parse: Parse<T>): Promise<T> {
    const socket = this.#socket
    return new Promise((resolve, reject) => {
      const stop = () => {
        socket.off('data', onData).off('end', onEnd).off('close', onEnd).pause()
        timer.stop()
      }
      const fail = (why: string) => {
        stop()
        reject(new Error(why))
      }
      const look = () => {
        const reading = parse(this.#bytes.subarray(this.#taken, Math.min(this.#length, this.#limits.limit)))
        if (reading.state === 'invalid') fail(`the client has sent ${reading.reason}`)
        else if (reading.state === 'done') {
          this.#taken += reading.length
          stop()
          resolve(reading.value)
        } else if (this.#length >= this.#limits.limit)
          fail(`more than ${this.#limits.limit} bytes and no end of the head`)
      }
      const onData = (chunk: Buffer) => {
        this.#append(chunk)
        look()
      }
      const onEnd = () => fail('the client has ended within the head')
      const timer = new Timer(systemClock, () => fail(`no whole head within ${this.#limits.timeout} ms`))
      if (socket.destroyed || socket.readableEnded) return onEnd()
      timer.at(this.#deadline)
      socket.on('data', onData).on('end', onEnd).on('close', onEnd).resume()
      look()
    })
  }

  /** Grows by doubling: a client that sends single bytes makes no work beyond them. */
  #append(chunk: Buffer): void {
    const length = this.#length + chunk.length
    if (length > this.#bytes.length) {
      const grown = Buffer.allocUnsafe(2 * length)
      this.#bytes.copy(grown, 0, 0, this.#length)
      this.#bytes = grown
    }
    chunk.copy(this.#bytes, this.#length)
    this.#length = length
  }
}
