// A gateway by fetch: a request goes to one peer after another until one answers. For whatever speaks Request and Response.
import type { Checkups } from 'checkups'

/** May be sent again although a peer may have seen it (RFC 9110, 9.2.2). */
const IDEMPOTENT = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE', 'PUT', 'DELETE'])
/** Of one connection, and not of the next. */
const HOP_BY_HOP = 'connection host keep-alive proxy-connection te trailer transfer-encoding upgrade expect'.split(' ')
/** What fetch has undone, or counts by itself. */
const OF_THE_BODY = ['content-encoding', 'content-length']
/** Nobody has seen the request. */
const UNSENT = /^(ECONNREFUSED|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN|UND_ERR_CONNECT_TIMEOUT)$/

/** Sends a request to the peers of an upstream. Its body is kept until then, so limit its size before. */
export async function forward(checkups: Checkups, key: string, request: Request): Promise<Response> {
  const { method } = request
  const { pathname, search } = new URL(request.url)
  const isIdempotent = IDEMPOTENT.has(method)
  const headers = without(request.headers, [...HOP_BY_HOP, 'content-length'])
  const body = request.body === null ? null : await request.arrayBuffer()

  let answer: Response | undefined
  try {
    await checkups.readyOk(
      key,
      async (peer, attempt) => {
        await answer?.body?.cancel()
        answer = undefined
        const signal = AbortSignal.any([attempt.signal, request.signal])
        const url = peer.origin() + pathname + search
        answer = await fetch(url, { method, headers, body, signal, redirect: 'manual' })
        attempt.answered(answer.status)
        return { status: answer.status, verdict: attempt.judge(answer.status) }
      },
      {
        isFailure(result, error) {
          if (request.signal.aborted) return 'neutral'
          const verdict = result?.verdict ?? 'failed'
          if (verdict !== 'failed' || isIdempotent || (result === undefined && isUnsent(error))) return verdict
          return 'stop'
        },
      },
    )
  } catch (error) {
    // The last peer's answer is passed on, whatever it says.
    if (answer === undefined) return new Response(`${(error as Error).message}\n`, { status: 502 })
  }
  const { status, statusText } = answer!
  return new Response(answer!.body, {
    status,
    statusText,
    headers: without(answer!.headers, [...HOP_BY_HOP, ...OF_THE_BODY]),
  })
}

function without(headers: Headers, names: readonly string[]): Headers {
  const rest = new Headers(headers)
  for (const name of names) rest.delete(name)
  return rest
}

/** fetch says why in the cause. */
function isUnsent(error: unknown): boolean {
  const { cause } = error as { cause?: { code?: string } }
  return UNSENT.test(cause?.code ?? '')
}
