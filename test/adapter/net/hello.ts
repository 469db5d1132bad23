/** ClientHellos: of real clients, and made by hand. */
import { once } from 'node:events'
import type { AddressInfo, Socket } from 'node:net'
import { createServer } from 'node:net'
import { connect, type ConnectionOptions } from 'node:tls'

/** What a real client sends first. */
export async function realHello(options: ConnectionOptions): Promise<Buffer> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const client = connect({ host: '127.0.0.1', port, rejectUnauthorized: false, ...options })
  client.on('error', () => undefined)
  try {
    const [socket] = (await once(server, 'connection')) as [Socket]
    const [hello] = (await once(socket, 'data')) as [Buffer]
    socket.destroy()
    return hello
  } finally {
    client.destroy()
    server.close()
  }
}

const u8 = (value: number) => Buffer.from([value])
const u16 = (value: number) => Buffer.from([value >> 8, value & 0xff])
export const vector = (size: 1 | 2, ...parts: Buffer[]): Buffer => {
  const data = Buffer.concat(parts)
  return Buffer.concat([size === 1 ? u8(data.length) : u16(data.length), data])
}

export type Extension = readonly [type: number, data: Buffer]

export const serverName = (name: string): Extension => [0, vector(2, u8(0), vector(2, Buffer.from(name, 'latin1')))]
export const alpn = (...names: string[]): Extension => [
  16,
  vector(2, ...names.map((name) => vector(1, Buffer.from(name, 'latin1')))),
]

/** The message; without `extensions` as before TLS 1.2. */
export function message(extensions?: readonly Extension[], session = Buffer.alloc(32)): Buffer {
  const body = Buffer.concat([
    u16(0x0303),
    Buffer.alloc(32, 7),
    vector(1, session),
    vector(2, u16(0x1301), u16(0x1302)),
    vector(1, u8(0)),
    ...(extensions === undefined
      ? []
      : [vector(2, ...extensions.map(([type, data]) => Buffer.concat([u16(type), vector(2, data)])))]),
  ])
  return Buffer.concat([u8(1), u8(0), u16(body.length), body])
}

/** In records of at most so many bytes each. */
export function records(handshake: Buffer, size = 2 ** 14): Buffer {
  const pieces: Buffer[] = []
  for (let at = 0; at < handshake.length; at += size) {
    pieces.push(Buffer.from([22, 3, 1]), vector(2, handshake.subarray(at, at + size)))
  }
  return Buffer.concat(pieces)
}
