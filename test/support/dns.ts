/** A name server for tests, over UDP and TCP on one port of loopback; it can do wrong in all the ways that real ones do. */
import { createSocket, type RemoteInfo, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket as TcpSocket } from 'node:net'
import { decode, encode, streamEncode, type Answer, type DecodedPacket, type OptAnswer, type Packet } from 'dns-packet'
import { onTestFinished } from 'vitest'

/** A question that came. */
export interface Asked {
  readonly name: string
  readonly type: string
  readonly over: 'udp' | 'tcp'
  readonly id: number
  /** The port that it came from. */
  readonly port: number
  /** What EDNS says of answers over UDP; undefined without EDNS. */
  readonly size: number | undefined
}

/** What is said to a question. */
export interface Reply {
  readonly answers?: readonly Answer[]
  readonly additionals?: readonly Answer[]
  readonly authorities?: readonly Answer[]
  /** RFC 1035's code. Default 0. */
  readonly code?: number
  /** Changes the answer before it is encoded. */
  readonly alter?: (packet: Packet) => Packet
  /** Changes the bytes, over UDP only. */
  readonly garble?: (bytes: Buffer) => Buffer
  /** Without EDNS though it was asked with it. */
  readonly withoutEdns?: boolean
}

/** Says nothing. */
export const SILENT = Symbol('silent')

export type Zone = (asked: Asked) => Reply | typeof SILENT | Promise<Reply | typeof SILENT>

export interface DnsServer {
  readonly port: number
  readonly address: string
  /** What was asked, in order. */
  readonly asked: Asked[]
  /** How it answers; may be exchanged. */
  zone: Zone
  /** Its UDP socket, to say what nobody asked. */
  readonly udp: Socket
  stop(): Promise<void>
}

export const NXDOMAIN = 3
export const SERVFAIL = 2
const TRUNCATED = 1 << 9
const PLAIN_SIZE = 512

/** How answers over UDP are cut that do not fit: with the TC bit, or as a real Consul does it, without a word. */
export type Cut = 'tc' | 'silently'

/** Starts one; it ends with the test. */
export async function startDns(zone: Zone, cut: Cut = 'tc'): Promise<DnsServer> {
  const asked: Asked[] = []
  const server = { zone }
  const answer = async (bytes: Buffer, over: 'udp' | 'tcp', port: number): Promise<Buffer | undefined> => {
    const query = decode(bytes)
    const [question] = query.questions!
    const edns = query.additionals!.find((record): record is OptAnswer => record.type === 'OPT')
    const size = edns?.udpPayloadSize
    const it: Asked = { name: question!.name, type: question!.type, over, id: query.id!, port, size }
    asked.push(it)
    const reply = await server.zone(it)
    if (reply === SILENT) return undefined
    const packet = toPacket(query, reply, edns !== undefined && reply.withoutEdns !== true)
    if (over === 'tcp') return streamEncode(packet)
    const fitting = fit(packet, size ?? PLAIN_SIZE, cut)
    return reply.garble?.(fitting) ?? fitting
  }
  const tcp = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', (data: Buffer) => {
      void answer(data.subarray(2), 'tcp', socket.remotePort!).then((bytes) => bytes && socket.end(bytes))
    })
    sockets.add(socket)
  })
  const sockets = new Set<TcpSocket>()
  const { port, udp } = await listenOnBoth(tcp)
  udp.on('message', (bytes: Buffer, from: RemoteInfo) => {
    void answer(bytes, 'udp', from.port).then(
      (reply) => reply && !isStopped && udp.send(reply, from.port, from.address),
    )
  })
  let isStopped = false
  const stop = async () => {
    if (isStopped) return
    isStopped = true
    for (const socket of sockets) socket.destroy()
    await Promise.all([new Promise((resolve) => tcp.close(resolve)), new Promise<void>((done) => udp.close(done))])
  }
  onTestFinished(stop)
  return Object.assign(server, { port, address: `127.0.0.1:${port}`, asked, udp, stop })
}

/** On a port of the system's choosing for TCP that is free for UDP, too: somebody else may ask from it. */
async function listenOnBoth(tcp: Server): Promise<{ port: number; udp: Socket }> {
  for (;;) {
    tcp.listen(0, '127.0.0.1')
    await once(tcp, 'listening')
    const { port } = tcp.address() as AddressInfo
    const udp = createSocket('udp4').bind(port, '127.0.0.1')
    const error = await once(udp, 'listening').then(
      () => undefined,
      (error: unknown) => error as NodeJS.ErrnoException,
    )
    if (error === undefined) return { port, udp }
    udp.close()
    await new Promise((resolve) => tcp.close(resolve))
    if (error.code !== 'EADDRINUSE') throw error
  }
}

function toPacket(query: DecodedPacket, reply: Reply, hasEdns: boolean): Packet {
  const { answers = [], additionals = [], authorities = [], code = 0, alter = (packet) => packet } = reply
  const edns = { type: 'OPT', name: '.', udpPayloadSize: 4_096, flags: 0, options: [] } as unknown as Answer
  return alter({
    type: 'response',
    id: query.id,
    // Recursion is available.
    flags: (1 << 7) | code,
    questions: query.questions,
    answers: [...answers],
    authorities: [...authorities],
    additionals: hasEdns ? [...additionals, edns] : [...additionals],
  })
}

function fit(packet: Packet, size: number, cut: Cut): Buffer {
  const whole = encode(packet)
  if (whole.length <= size) return whole
  const additionals = packet.additionals!.filter((record) => record.type === 'OPT')
  const flags = packet.flags! | (cut === 'tc' ? TRUNCATED : 0)
  const first = (count: number) => encode({ ...packet, flags, answers: packet.answers!.slice(0, count), additionals })
  // As many as fit, found in a few steps: answers of a thousand records are told while the one who asks still waits.
  let [fits, tooMany] = [0, packet.answers!.length + 1]
  while (tooMany - fits > 1) {
    const count = (fits + tooMany) >> 1
    if (first(count).length <= size) fits = count
    else tooMany = count
  }
  return first(fits)
}

/** Records. */
export const a = (name: string, data: string, ttl = 60): Answer => ({ type: 'A', name, data, ttl })
export const aaaa = (name: string, data: string, ttl = 60): Answer => ({ type: 'AAAA', name, data, ttl })
export const cname = (name: string, data: string, ttl = 60): Answer => ({ type: 'CNAME', name, data, ttl })
export const srv = (name: string, target: string, port: number, priority = 0, weight = 1, ttl = 60): Answer => ({
  type: 'SRV',
  name,
  ttl,
  data: { target, port, priority, weight },
})
export const soa = (name: string, ttl: number, minimum: number): Answer => ({
  type: 'SOA',
  name,
  ttl,
  data: { mname: `ns.${name}`, rname: `host.${name}`, serial: 1, refresh: 1, retry: 1, expire: 1, minimum },
})
export const ns = (name: string, data: string): Answer => ({ type: 'NS', name, data, ttl: 60 })

/** Answers from records, as a server does that has all of them. */
export function zoneOf(records: readonly Answer[]): Zone {
  return ({ name, type }) => {
    const named = records.filter((record) => record.name.toLowerCase() === name.toLowerCase())
    return { answers: named.filter((record) => record.type === type), code: named.length === 0 ? NXDOMAIN : 0 }
  }
}
