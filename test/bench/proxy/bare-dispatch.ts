/**
 * What a proxy costs that does nothing but proxy: one backend, one undici Pool, no health, no retries. It keeps the rules
 * without which requests break (fields of the connection are not passed on, backpressure, a client that goes away), and is
 * what others are measured against. `bare-dispatch.ts <backend's port>` prints the port it listens on.
 */
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Pool, type Dispatcher } from 'undici'

const OF_THE_CONNECTION = new Set([
  'connection',
  'keep-alive',
  'transfer-encoding',
  'upgrade',
  'expect',
  'te',
  'trailer',
])

const pool = new Pool(`http://127.0.0.1:${process.argv[2]}`)

function proxy(req: IncomingMessage, res: ServerResponse): void {
  const { headers: given } = req
  const hasBody = given['transfer-encoding'] !== undefined || given['content-length'] !== undefined
  const options = {
    path: req.url ?? '/',
    method: req.method as Dispatcher.HttpMethod,
    headers: endToEnd(req.rawHeaders),
    body: hasBody ? req : null,
  }
  // The older form of a handler, which undici calls by itself: it makes no objects of fields.
  const handler = {
    onConnect(abort: () => void) {
      res.on('close', () => {
        if (!res.writableFinished) abort()
      })
    },
    onHeaders(status: number, headers: readonly Buffer[], resume: () => void) {
      if (status < 200) return true
      res.writeHead(status, endToEnd(headers.map((header) => header.toString('latin1'))))
      res.on('drain', resume)
      return true
    },
    onData: (chunk: Buffer) => res.write(chunk),
    onComplete: () => void res.end(),
    onError() {
      if (res.headersSent) res.destroy()
      else res.writeHead(502).end()
    },
  }
  pool.dispatch(options, handler)
}

function endToEnd(headers: readonly string[]): string[] {
  const kept: string[] = []
  for (let i = 0; i < headers.length; i += 2) {
    if (!OF_THE_CONNECTION.has(headers[i]!.toLowerCase())) kept.push(headers[i]!, headers[i + 1]!)
  }
  return kept
}

const server = createServer(proxy).listen(0, '127.0.0.1', () => console.log((server.address() as AddressInfo).port))
