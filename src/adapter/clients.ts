/** The connections of clients: what is the same for all their requests, and who is to hear that they are gone. */
import type { IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import { systemClock } from '../clock.js'

/** A request that a client waits for. */
export interface Waiting {
  clientGone(): void
}

export class ClientConnection {
  /** The client's IP address; IPv4 as such, also on a socket for both. */
  readonly address: string
  readonly protocol: 'http' | 'https'
  /** When it last took what it had let wait; -Infinity if it never let anything wait. */
  tookAt = -Infinity
  /** Its requests; several if it does not wait for answers. */
  readonly #waiting: Waiting[] = []
  #host = ''
  #key = ''

  constructor(socket: Socket) {
    this.address = (socket.remoteAddress ?? '').replace(/^::ffff:(?=\d+\.)/, '')
    this.protocol = 'encrypted' in socket ? 'https' : 'http'
    socket.on('drain', () => (this.tookAt = systemClock.now()))
    // The answer to a pipelined request hears nothing of its connection until its turn.
    socket.once('close', () => {
      for (const waiting of [...this.#waiting]) waiting.clientGone()
    })
  }

  begin(waiting: Waiting): void {
    this.#waiting.push(waiting)
  }

  end(waiting: Waiting): void {
    const at = this.#waiting.lastIndexOf(waiting)
    if (at >= 0) this.#waiting.splice(at, 1)
  }

  /** The key of an upstream in a Host field: lower case, without port. A client mostly asks for the same one again. */
  keyOf(host: string): string {
    if (host !== this.#host) {
      this.#host = host
      this.#key = host.toLowerCase().replace(/:\d+$/, '')
    }
    return this.#key
  }
}

/** The connections that a server has. */
export class Clients {
  readonly #known = new WeakMap<Socket, ClientConnection>()

  of({ socket }: IncomingMessage): ClientConnection {
    let client = this.#known.get(socket)
    if (client === undefined) {
      client = new ClientConnection(socket)
      this.#known.set(socket, client)
    }
    return client
  }
}
