/**
 * Between processes of one machine that have nothing in common but a path: whoever listens there is in charge, and when it is
 * gone another one does. For workers whose primary is not ours, as PM2's.
 */
import { link as hardLink, rename, unlink } from 'node:fs/promises'
import { connect as connectSocket, createServer, type Server, type Socket } from 'node:net'
import type { End, Transport } from './agreement.js'
import type { Hub, Link } from './link.js'

/** Bytes of a message at most: 100,000 servers with their options are about 20 MB. */
const LONGEST = 256 * 1_048_576
/** How often a path changes hands while one process looks, before that is an error: more than processes on a machine. */
const MOST_LOOKS = 1_000

/** A message a line, as JSON. */
class SocketLink implements Link {
  onMessage: Link['onMessage']
  onClose: Link['onClose']
  readonly #socket: Socket
  #chunks: string[] = []
  #length = 0

  constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('utf8').setNoDelay(true)
    socket.on('data', (chunk: Buffer | string) => this.#receive(String(chunk)))
    socket.on('error', () => undefined).on('close', () => this.onClose?.())
    // It keeps no process alive.
    socket.unref()
  }

  send(message: unknown): void {
    if (this.#socket.writable) this.#socket.write(`${JSON.stringify(message)}\n`)
  }

  close(): void {
    this.onMessage = this.onClose = undefined
    this.#socket.destroy()
  }

  #receive(text: string): void {
    const lines = text.split('\n')
    const last = lines.pop()!
    for (const line of lines) {
      const whole = this.#chunks.join('') + line
      this.#chunks = []
      this.#length = 0
      try {
        this.onMessage?.(JSON.parse(whole))
      } catch {
        // Somebody else speaks here.
        this.#socket.destroy()
        return
      }
    }
    if (last === '') return
    this.#chunks.push(last)
    this.#length += last.length
    if (this.#length > LONGEST) this.#socket.destroy()
  }
}

class SocketHub implements Hub {
  readonly #server: Server
  readonly #path: string
  readonly #early: Link[] = []
  #onLink: Hub['onLink']

  constructor(server: Server, path: string) {
    this.#server = server
    this.#path = path
    server.unref().on('connection', (socket) => {
      const link = new SocketLink(socket)
      if (this.#onLink === undefined) this.#early.push(link)
      else this.#onLink(link)
    })
  }

  get onLink(): Hub['onLink'] {
    return this.#onLink
  }

  set onLink(onLink: Hub['onLink']) {
    this.#onLink = onLink
    if (onLink !== undefined) for (const link of this.#early.splice(0)) onLink(link)
  }

  close(): void {
    this.#server.close()
    // The next one in charge need not find out that nobody is here.
    void unlink(this.#path).catch(() => undefined)
  }
}

export function socketTransport(path: string): Transport {
  return {
    id: String(process.pid),
    elects: true,
    async connect(_, signal): Promise<End> {
      for (let look = 0; look < MOST_LOOKS; look++) {
        signal.throwIfAborted()
        const socket = await reach(path)
        if (socket !== undefined) return { link: new SocketLink(socket) }
        const hub = await occupy(path, look)
        if (hub !== undefined) return { hub }
        await bury(path, look)
      }
      throw new Error(`${path}: it changes hands all the time`)
    },
  }
}

/** Undefined if nobody listens. */
function reach(path: string): Promise<Socket | undefined> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(path)
    socket.once('connect', () => resolve(socket))
    socket.once('error', (error: NodeJS.ErrnoException) => {
      socket.destroy()
      if (error.code === 'ENOENT' || error.code === 'ECONNREFUSED') resolve(undefined)
      else reject(error)
    })
  })
}

/** Listens at a name of its own, which then is linked to the path: of several only one can. Undefined if there is something. */
async function occupy(path: string, look: number): Promise<SocketHub | undefined> {
  const own = `${path}.${process.pid}.${look}`
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    // A worker of a cluster would have its primary listen.
    server.once('error', reject).listen({ path: own, exclusive: true }, () => resolve())
  })
  try {
    await hardLink(own, path)
    return new SocketHub(server, path)
  } catch (error) {
    server.close()
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
    return undefined
  } finally {
    await unlink(own).catch(() => undefined)
  }
}

/**
 * Takes away a socket that nobody listens to any more. What is taken away may meanwhile be somebody's: that is seen once it
 * has another name, and put back.
 */
async function bury(path: string, look: number): Promise<void> {
  const grave = `${path}.${process.pid}.${look}.old`
  try {
    await rename(path, grave)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return
    throw error
  }
  const alive = await reach(grave)
  if (alive !== undefined) {
    alive.destroy()
    await hardLink(grave, path).catch(() => undefined)
  }
  await unlink(grave).catch(() => undefined)
}
