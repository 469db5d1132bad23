// Between node:http, and thus Express, and Request and Response.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'

/** Answers a request by what `handle` makes of it. */
export async function answerBy(
  handle: (request: Request) => Promise<Response>,
  req: IncomingMessage,
  res: ServerResponse,
): Promise<void> {
  const { method = 'GET', url = '/', headers } = req
  const hasBody = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
  const gone = new AbortController()
  res.once('close', () => gone.abort())
  const request = new Request(new URL(url, 'http://localhost'), {
    method,
    headers: Object.entries(headers).flatMap(([name, value]) =>
      [value].flat().map((one): [string, string] => [name, one!]),
    ),
    body: hasBody ? Readable.toWeb(req) : null,
    duplex: 'half',
    signal: gone.signal,
  })
  const { status, headers: answered, body } = await handle(request)
  if (res.destroyed) return body?.cancel()
  res.setHeaders(answered).writeHead(status)
  if (body === null) res.end()
  // A client that leaves is none of our errors.
  else await pipeline(Readable.fromWeb(body), res).catch(() => undefined)
}
