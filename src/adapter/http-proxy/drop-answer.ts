/** Keeps an answer from the client that the proxy is about to write to it. */
import type { IncomingMessage, ServerResponse } from 'node:http'

/** Bytes that are cheaper to read to their end, for the connection's sake, than to close the connection for. */
const WORTH_READING = 65_536

const WRITING = ['setHeader', 'appendHeader', 'removeHeader', 'writeHead', 'flushHeaders', 'write', 'end'] as const

/**
 * Keeps an answer from the client. The proxy, which has just told of it, goes on to write its head to `res` and to pipe its
 * body there, both within this tick: `res` is deaf that long.
 */
export function dropAnswer(proxyRes: IncomingMessage, res: ServerResponse, then: () => void): void {
  const { statusCode, statusMessage } = res
  const own = WRITING.map((method) => Object.getOwnPropertyDescriptor(res, method))
  const heard = DROPPED.map((event) => proxyRes.listenerCount(event))
  for (const method of WRITING) Object.assign(res, { [method]: () => (method === 'write' ? true : res) })
  process.nextTick(() => {
    WRITING.forEach((method, i) => {
      Reflect.deleteProperty(res, method)
      if (own[i] !== undefined) Object.defineProperty(res, method, own[i])
    })
    Object.assign(res, { statusCode, statusMessage })
    proxyRes.unpipe(res)
    DROPPED.forEach((event, i) => {
      for (const listener of proxyRes.listeners(event).slice(heard[i])) proxyRes.off(event, listener as () => void)
    })
    readOut(proxyRes)
    then()
  })
}

/** What the proxy and the application listen to of an answer, where it does not concern them any more. */
const DROPPED = ['close', 'error', 'aborted', 'end'] as const

/** Reads an answer to its end if that is near, so that its connection can be used again. */
function readOut(answer: IncomingMessage): void {
  let length = 0
  answer.on('error', () => undefined)
  answer.on('data', (chunk: Buffer) => {
    length += chunk.length
    if (length > WORTH_READING) answer.destroy()
  })
  answer.resume()
}
