/** Questions and answers of DNS, in words of this library; the bytes are dns-packet's. */
// eslint-disable-next-line no-restricted-imports -- ids that nobody can guess; nothing that a seed would have to repeat
import { randomInt } from 'node:crypto'
import type * as dnsPacket from 'dns-packet'
import type { Answer as PacketRecord, DecodedPacket, Question as PacketQuestion, SrvAnswer } from 'dns-packet'

/** The package, once it is loaded. */
export type Codec = typeof dnsPacket

export interface Question {
  /** As {@link domainName} has it. */
  readonly name: string
  readonly type: 'A' | 'AAAA' | 'SRV'
}

/** A question as it is sent. */
export interface Query {
  readonly id: number
  readonly question: Question
  readonly bytes: Buffer
}

/** A record of interest. */
export type DnsRecord = { readonly name: string; readonly ttl: number } & (
  | { readonly type: 'A' | 'AAAA' | 'CNAME'; readonly data: string }
  | { readonly type: 'SRV'; readonly data: SrvAnswer['data'] }
)

/** An answer to a question. */
export interface Message {
  /** RFC 1035's; 0 is no error. */
  readonly code: number
  readonly isTruncated: boolean
  /** Whether the server knows EDNS. */
  readonly hasEdns: boolean
  /** Whether it only says who might know. */
  readonly isReferral: boolean
  readonly answers: readonly DnsRecord[]
  readonly additionals: readonly DnsRecord[]
  /** Seconds for which an answer without records holds (RFC 2308); 0 if it does not say. */
  readonly negativeTtl: number
  /** Bytes. */
  readonly length: number
}

export const FORMAT_ERROR = 1
export const NO_SUCH_NAME = 3
export const NOT_IMPLEMENTED = 4
export const BAD_VERSION = 16

const CODES: ReadonlyMap<number, string> = new Map([
  [FORMAT_ERROR, 'FORMERR'],
  [2, 'SERVFAIL'],
  [NO_SUCH_NAME, 'NXDOMAIN'],
  [NOT_IMPLEMENTED, 'NOTIMP'],
  [5, 'REFUSED'],
  [BAD_VERSION, 'BADVERS'],
])

/** How people call a code. */
export function codeName(code: number): string {
  return CODES.get(code) ?? `the code ${code}`
}

/** A name in lower case without its last dot; undefined if it cannot be asked for. */
export function domainName(name: string): string | undefined {
  const lower = name.toLowerCase().replace(/\.$/, '')
  // Labels of 63 bytes, 253 in all (RFC 1035, 2.3.4); underscores are in the names of services.
  return lower.length <= 253 && /^[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*$/.test(lower) ? lower : undefined
}

/** A question with an id of its own; with EDNS (RFC 6891) it says how many bytes of an answer over UDP may be. */
export function toQuery(codec: Codec, question: Question, udpPayloadSize: number | undefined): Query {
  const id = randomInt(65_536)
  const edns = { type: 'OPT', name: '.', udpPayloadSize, flags: 0, options: [] } as unknown as PacketRecord
  const bytes = codec.encode({
    type: 'query',
    id,
    flags: codec.RECURSION_DESIRED,
    questions: [{ ...question }],
    additionals: udpPayloadSize === undefined ? [] : [edns],
  })
  return { id, question, bytes }
}

/** What cannot be read is taken as cut off. */
const UNREADABLE: Message = {
  code: 0,
  isTruncated: true,
  hasEdns: false,
  isReferral: false,
  answers: [],
  additionals: [],
  negativeTtl: 0,
  length: 0,
}

/** Reads a message: undefined if it is no answer to this query. */
export function readAnswer(codec: Codec, bytes: Buffer, { id, question }: Query): Message | undefined {
  if (bytes.length < 12 || bytes.readUInt16BE(0) !== id) return undefined
  let packet: DecodedPacket
  try {
    packet = codec.decode(bytes)
  } catch {
    return UNREADABLE
  }
  const { type, flags = 0, questions = [], answers = [], additionals = [], authorities = [] } = packet
  const edns = additionals.find((record) => record.type === 'OPT')
  const code = (flags & 15) | ((edns?.extendedRcode ?? 0) << 4)
  if (type !== 'response' || !isAsked(questions, question, code)) return undefined
  const soa = authorities.find((record) => record.type === 'SOA')
  return {
    code,
    isTruncated: packet.flag_tc,
    hasEdns: edns !== undefined,
    isReferral: !packet.flag_aa && answers.length === 0 && !soa && authorities.some(({ type }) => type === 'NS'),
    answers: answers.flatMap(toRecord),
    additionals: additionals.flatMap(toRecord),
    negativeTtl: soa === undefined ? 0 : Math.min(ttlOf(soa.ttl), ttlOf(soa.data.minimum)),
    length: bytes.length,
  }
}

function isAsked(questions: readonly PacketQuestion[], { name, type }: Question, code: number): boolean {
  const [asked] = questions
  // Who does not understand a question may not repeat it.
  if (asked === undefined) return code === FORMAT_ERROR || code === NOT_IMPLEMENTED
  return questions.length === 1 && asked.type === type && asked.class === 'IN' && normal(asked.name) === name
}

function toRecord(record: PacketRecord): DnsRecord[] {
  if (record.type === 'OPT' || record.class !== 'IN') return []
  const [name, ttl] = [normal(record.name), ttlOf(record.ttl)]
  switch (record.type) {
    case 'SRV':
      return [{ type: record.type, name, ttl, data: { ...record.data, target: normal(record.data.target) } }]
    case 'CNAME':
      return [{ type: record.type, name, ttl, data: normal(record.data) }]
    case 'A':
    case 'AAAA':
      return [{ type: record.type, name, ttl, data: record.data }]
    default:
      return []
  }
}

/** The highest bit is never set (RFC 2181, 8). */
function ttlOf(ttl = 0): number {
  return ttl < 2 ** 31 ? ttl : 0
}

/** The root stays a dot. */
function normal(name: string): string {
  return name === '.' ? name : name.toLowerCase().replace(/\.$/, '')
}
