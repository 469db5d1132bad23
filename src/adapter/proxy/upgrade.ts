/** One proxied upgrade, as of a WebSocket. */
import { ServerResponse, STATUS_CODES, type IncomingMessage } from 'node:http'
import type { Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { ClientConnection } from '../clients.js'
import { failedUpgrade } from '../http.js'
import type { ProxyFailure } from '../options.js'
import { ProxiedExchange, type ProxySetup } from './exchange.js'
import type { RequestHead } from './request-head.js'

export class UpgradeRequest extends ProxiedExchange {
  override readonly replayable = true
  readonly #socket: Duplex
  readonly #first: Buffer
  #response: ServerResponse | undefined = undefined
  /** Until the peer has answered nobody reads the socket, and only who reads learns that the client has gone. */
  readonly #onReadable = () => {
    if (this.#socket.readableLength === 0) this.#socket.read()
  }
  readonly #onEnd = () => this.#socket.destroy()

  /** `first` is what the client has sent after its head. */
  constructor(
    setup: ProxySetup,
    req: IncomingMessage,
    socket: Duplex,
    first: Buffer,
    head: RequestHead,
    client: ClientConnection,
  ) {
    super(setup, req, head, client)
    this.#socket = socket
    this.#first = first
    // The http server has taken its own listener away; what happens to the client is told by 'close'.
    socket.on('error', () => undefined)
    socket.on('readable', this.#onReadable)
    socket.once('end', this.#onEnd)
  }

  /** For a peer that does not change protocols, but answers. */
  protected override get response(): ServerResponse {
    this.#response ??= this.#respond()
    return this.#response
  }

  /** Who refuses an upgrade has mostly something to say to the client. */
  override get mayRefuse(): boolean {
    return false
  }

  /** Not to HTTP/2, in which the client could ask the peer for what the proxy would never let through. */
  protected override get upgrade(): string | null {
    const protocols = this.head.upgrade.split(',').map((protocol) => protocol.trim())
    return protocols.filter((protocol) => protocol.toLowerCase() !== 'h2c').join(', ') || null
  }

  /** What comes before a peer has decided is not for who has asked for another protocol. */
  override onInformation(): unknown {
    return true
  }

  protected override onSwitch(status: number, headers: readonly Buffer[], peer: Duplex): void {
    this.#stopWatching()
    const socket = this.#socket
    const lines = [`HTTP/1.1 ${status} ${STATUS_CODES[status] ?? ''}`]
    for (let i = 0; i < headers.length; i += 2) lines.push(`${text(headers[i]!)}: ${text(headers[i + 1]!)}`)
    socket.write(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
    if (this.#first.length > 0) peer.write(this.#first)
    peer.on('error', () => undefined)
    // What either side has still said before it closed reaches the other one.
    peer.once('close', () => (socket as Socket).destroySoon())
    socket.once('close', () => (peer as Socket).destroySoon())
    if (socket.destroyed) peer.destroy()
    peer.pipe(socket)
    socket.pipe(peer)
  }

  protected override answerFailure({ status }: ProxyFailure): void {
    this.#stopWatching()
    this.#socket.end(failedUpgrade(status))
  }

  #respond(): ServerResponse {
    this.#stopWatching()
    const response = new ServerResponse(this.req)
    response.shouldKeepAlive = false
    const socket = this.#socket as Socket
    response.assignSocket(socket)
    // The http server, which would tell it so, has let go of the socket.
    const onDrain = () => response.emit('drain')
    socket.on('drain', onDrain)
    response.once('finish', () => {
      socket.off('drain', onDrain)
      response.detachSocket(socket)
      socket.end()
    })
    return response
  }

  #stopWatching(): void {
    this.#socket.off('readable', this.#onReadable)
    this.#socket.off('end', this.#onEnd)
  }
}

function text(bytes: Buffer): string {
  return bytes.toString('latin1')
}
