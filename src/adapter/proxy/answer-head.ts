/** The head of an answer, as a client is to get it. */
import { FieldTable, mayBeTrailer, ownedBy, without } from './fields.js'

export interface AnswerHead {
  /** Names and values in turn. */
  readonly fields: string[]
  /** Bytes of the body; -1 if the head does not say. */
  readonly length: number
  /** The trailers that it announces, of a body that can have some. */
  readonly trailer: string | undefined
}

type Meaning = 'drop' | 'length' | 'coding' | 'connection' | 'trailer'

const TABLE = new FieldTable<Meaning>(
  new Map<string, Meaning>([
    ['keep-alive', 'drop'],
    ['proxy-connection', 'drop'],
    ['upgrade', 'drop'],
    ['te', 'drop'],
    ['content-length', 'length'],
    ['transfer-encoding', 'coding'],
    ['connection', 'connection'],
    ['trailer', 'trailer'],
  ]),
)

export function answerHead(status: number, raw: readonly Buffer[]): AnswerHead {
  let fields: string[] = []
  let length: string | undefined
  let trailer: string | undefined
  let chunked = false
  let connection: Set<string> | undefined
  for (let i = 0; i < raw.length; i += 2) {
    const name = text(raw[i]!)
    const value = text(raw[i + 1]!)
    switch (TABLE.of(name)) {
      case undefined:
        fields.push(name, value)
        break
      case 'length':
        length = value
        break
      case 'coding':
        chunked = true
        break
      case 'connection':
        connection = ownedBy(value)
        break
      case 'trailer':
        trailer = value
        break
      case 'drop':
    }
  }
  if (connection !== undefined) fields = without(fields, connection)
  // Of the two the coding counts; and an answer without content has no length of any (RFC 9110, 8.6).
  if (chunked) return { fields, length: -1, trailer }
  if (length === undefined || status === 204) return { fields, length: -1, trailer: undefined }
  fields.push('content-length', length)
  return { fields, length: Number(length), trailer: undefined }
}

/** Pairs of names and values, of trailers that may be passed on. */
export function answerTrailers(raw: readonly Buffer[]): [string, string][] {
  const pairs = Array.from({ length: raw.length / 2 }, (_, i): [string, string] => [
    text(raw[2 * i]!),
    text(raw[2 * i + 1]!),
  ])
  return pairs.filter(([name]) => mayBeTrailer(name))
}

/** By lower-case name, as Node takes early hints: links one by one. */
export function hints(raw: readonly Buffer[]): Record<string, string | string[]> {
  const { fields } = answerHead(103, raw)
  const links: string[] = []
  const others = new Map<string, string>()
  for (let i = 0; i < fields.length; i += 2) {
    const name = fields[i]!.toLowerCase()
    if (name === 'link') links.push(...fields[i + 1]!.split(/,\s*(?=<)/))
    else if (name !== 'content-length') others.set(name, fields[i + 1]!)
  }
  return Object.fromEntries<string | string[]>([['link', links], ...others])
}

function text(bytes: Buffer): string {
  return bytes.toString('latin1')
}
