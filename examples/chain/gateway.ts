// The gateway: POST /beautify/zoom/watermark sends what it is given through these services, one after another.
import { createServer, type Server } from 'node:http'
import { text } from 'node:stream/consumers'
import type { Checkups } from 'checkups'

export function createGateway(checkups: Checkups): Server {
  return createServer((req, res) => {
    const steps = (req.url ?? '').split('/').filter((step) => step !== '')
    text(req)
      .then((picture) => through(checkups, steps, picture))
      .then(
        (picture) => res.end(picture),
        (error: unknown) => res.writeHead(502).end(`${(error as Error).message}\n`),
      )
  })
}

/**
 * Every service makes the same of the same picture, so a step may be repeated, although it is a POST: when a backend dies
 * in the middle of it, the other one does it again. What was done by the services before is not done again.
 */
async function through(checkups: Checkups, steps: readonly string[], picture: string): Promise<string> {
  for (const step of steps) {
    const body = picture
    const answer = await checkups.readyOk(
      step,
      async (peer, attempt) => {
        const response = await fetch(peer.origin(), { method: 'POST', body, signal: attempt.signal })
        attempt.answered(response.status)
        return { status: response.status, picture: await response.text() }
      },
      { tryTimeout: 1_000 },
    )
    picture = answer.picture
  }
  return picture
}
