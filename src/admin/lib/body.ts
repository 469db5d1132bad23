/** Bodies from outside: bounded in size, time and depth. */
import { isUtf8 } from 'node:buffer'
import type { IncomingMessage } from 'node:http'
import { Timer, type Clock } from '../../clock.js'
import { ConfigError } from '../../errors.js'
import { parseJson, TextError } from '../../source/lib/text.js'
import { HttpError } from './route.js'

export interface BodyLimits {
  readonly clock: Clock
  /** Bytes. */
  readonly maxBody: number
  /** Milliseconds until the last byte. */
  readonly bodyTimeout: number
}

/** Nothing further is read of a request that is refused amid its body. */
const CLOSE = { connection: 'close' }

/** The whole body. @throws HttpError */
export async function readText(request: IncomingMessage, { clock, maxBody, bodyTimeout }: BodyLimits): Promise<string> {
  const { headers } = request
  const tooLarge = () => new HttpError(413, `expected at most ${maxBody} bytes`, CLOSE)
  if ((headers['content-encoding'] ?? 'identity') !== 'identity') {
    throw new HttpError(415, 'expected a body without an encoding', CLOSE)
  }
  if (Number(headers['content-length'] ?? 0) > maxBody) throw tooLarge()
  if (request.readableEnded) {
    throw new HttpError(500, 'the body was read before: put the admin handler before whatever parses bodies')
  }
  const chunks: Buffer[] = []
  let length = 0
  await new Promise<void>((resolve, reject) => {
    const onData = (chunk: Buffer) => {
      length += chunk.length
      if (length > maxBody) end(tooLarge())
      else chunks.push(chunk)
    }
    const onEnd = () => end()
    const onGone = () => end(new HttpError(400, 'the request ended too early', CLOSE))
    const end = (error?: Error) => {
      timer.stop()
      request.off('data', onData).off('end', onEnd).off('close', onGone).off('error', onGone)
      if (error === undefined) resolve()
      else {
        request.pause()
        // Whatever still comes is nobody's.
        request.on('error', () => undefined)
        reject(error)
      }
    }
    const timer = new Timer(clock, () => end(new HttpError(408, `no whole body within ${bodyTimeout} ms`, CLOSE)))
    timer.at(clock.now() + bodyTimeout)
    request.on('data', onData).on('end', onEnd).on('close', onGone).on('error', onGone)
  })
  const bytes = Buffer.concat(chunks)
  if (!isUtf8(bytes)) throw new HttpError(400, 'expected UTF-8')
  return bytes.toString()
}

/** JSON without keys that are there twice, and not deeper than anything that makes sense. @throws ConfigError */
export function readJson(text: string): unknown {
  try {
    return parseJson(text)
  } catch (error) {
    if (!(error instanceof TextError)) throw error
    throw new ConfigError('body', `expected JSON: ${error.message} (line ${error.line}, column ${error.column})`)
  }
}
