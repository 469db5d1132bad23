/**
 * Between processes of one machine that have nothing in common but a path: whoever listens there is in charge, and when it is
 * gone another one does. For workers whose primary is not ours, as PM2's.
 */
import { rmSync, unlinkSync } from 'node:fs'
import { link as hardLink, open, stat, unlink } from 'node:fs/promises'
import { connect as connectSocket, createServer, Socket, type Server } from 'node:net'
import { keepAlive, type Clock } from '../clock.js'
import { pause } from '../upstream/backoff.js'
import type { End, Transport } from './agreement.js'
import type { Hub, Link } from './link.js'

/** Bytes of a message at most: 100,000 servers with their options are about 20 MB. */
const LONGEST = 256 * 1_048_576
/** How often a path changes hands while one process looks, before that is an error: more than processes on a machine. */
const MOST_LOOKS = 1_000
/** Milliseconds for which another one is left to take away what is dead: that takes one or two. */
const TURN = 5
/** Milliseconds after which whoever was to do so was killed at it. Before all looks are used up: they take 5 s. */
const LONGEST_TURN = 2_000

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
    // While it is listened to it is nobody else's: the next one in charge need not find out that nobody is here.
    try {
      unlinkSync(this.#path)
    } catch {
      // Somebody has taken it away by hand.
    }
    this.#server.close()
  }
}

export function socketTransport(path: string): Transport {
  return {
    id: String(process.pid),
    elects: true,
    async connect({ clock }, signal): Promise<End> {
      for (let look = 0; look < MOST_LOOKS; look++) {
        signal.throwIfAborted()
        const found = await reach(path)
        if (found instanceof Socket) return { link: new SocketLink(found) }
        const hub = await occupy(path, look)
        if (hub !== undefined) return { hub }
        const isGone = await bury(path, clock)
        if (!isGone) await keepAlive(pause(TURN, clock, signal))
      }
      throw new Error(`${path}: it changes hands all the time`)
    },
  }
}

/** Connects; or finds that there is none any more, or that nobody listens to the one that is there. */
function reach(path: string): Promise<Socket | 'missing' | 'dead'> {
  return new Promise((resolve, reject) => {
    const socket = connectSocket(path)
    socket.once('connect', () => resolve(socket))
    socket.once('error', (error: NodeJS.ErrnoException) => {
      socket.destroy()
      // One that was reset was just being closed: its place is another one's now, or nobody's.
      if (error.code === 'ENOENT' || error.code === 'ECONNRESET') resolve('missing')
      else if (error.code === 'ECONNREFUSED') resolve('dead')
      else reject(error)
    })
  })
}

/** Listens at a name of its own, which then is linked to the path: of several only one can. Undefined if there is something. */
async function occupy(path: string, look: number): Promise<SocketHub | undefined> {
  const own = `${path}.${process.pid}.${look}`
  const server = createServer()
  await listen(server, own)
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
 * Takes away a socket that nobody listens to any more. One process at a time, or one would take away what another one has just
 * put in its place: of a socket that is there only who has the turn removes anything, so what has been found dead in it stays so.
 * False if it is another one's turn.
 */
async function bury(path: string, clock: Clock): Promise<boolean> {
  const turn = `${path}.turn`
  if (!(await take(turn, clock))) return false
  try {
    const found = await reach(path)
    // At once: nothing may come between.
    if (found === 'dead') rmSync(path, { force: true })
    else if (found instanceof Socket) found.destroy()
    return true
  } finally {
    await unlink(turn).catch(unlessMissing)
  }
}

/**
 * The turn is a file that only one can make. Not a name of Linux's that is gone with its owner: containers that share the
 * path by a volume do not share such names.
 */
async function take(turn: string, clock: Clock): Promise<boolean> {
  try {
    await (await open(turn, 'wx')).close()
    return true
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error
  }
  const made = await stat(turn).catch(unlessMissing)
  // Who had it was killed in it.
  if (made !== undefined && clock.wallTime() - made.mtimeMs > LONGEST_TURN) await unlink(turn).catch(unlessMissing)
  return false
}

function listen(server: Server, name: string): Promise<void> {
  return new Promise((resolve, reject) => {
    // A worker of a cluster would have its primary listen.
    server.once('error', reject).listen({ path: name, exclusive: true }, resolve)
  })
}

function unlessMissing(error: NodeJS.ErrnoException): undefined {
  if (error.code !== 'ENOENT') throw error
}
