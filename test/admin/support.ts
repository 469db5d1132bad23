/** What tests of the admin interface share: a server over an instance, and how it is asked. */
import { mkdtempSync, rmSync } from 'node:fs'
import { request, type IncomingHttpHeaders } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { onTestFinished } from 'vitest'
import { createAdminServer, type AdminServerOptions } from '../../src/admin/index.js'
import { Checkups, type CheckupsOptions } from '../../src/index.js'

export const READ = { name: 'reader', token: 'reading-reading-reading', role: 'read' } as const
export const WRITE = { name: 'writer', token: 'writing-writing-writing', role: 'write' } as const

export interface Answer {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  readonly json: any
}

export interface Asked {
  readonly headers?: Readonly<Record<string, string>>
  /** A string is sent as it is, anything else as JSON. */
  readonly body?: unknown
}

export type Ask = (method: string, path: string, asked?: Asked) => Promise<Answer>

/** Asks as a program does, that is no browser and sends what it is told to. */
export function asking(url: string): Ask {
  return (method, path, { body, headers } = {}) =>
    new Promise((resolve, reject) => {
      const text = body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body)
      const length = text === undefined ? {} : { 'content-length': Buffer.byteLength(text) }
      const { hostname, port } = new URL(url)
      const all = { ...length, ...headers }
      const req = request({ host: hostname, port, method, path, agent: false, headers: all }, (res) => {
        const chunks: Buffer[] = []
        res.on('data', (chunk: Buffer) => chunks.push(chunk))
        res.on('error', reject)
        res.on('end', () => {
          const answer = Buffer.concat(chunks).toString()
          resolve({
            status: res.statusCode!,
            headers: res.headers,
            text: answer,
            get json() {
              return JSON.parse(answer) as unknown
            },
          })
        })
      })
      req.on('error', reject)
      req.end(text)
    })
}

/** An instance, and its admin interface on a port of its own. */
export async function admin(upstreams: CheckupsOptions | Checkups, options: AdminServerOptions = {}) {
  const checkups = upstreams instanceof Checkups ? upstreams : new Checkups(upstreams)
  const server = await createAdminServer(checkups, { port: 0, ...options })
  onTestFinished(async () => {
    await server.close()
    await checkups.close()
  })
  return { checkups, url: server.url, server: server.server, ask: asking(server.url) }
}

export const bearer = ({ token }: { readonly token: string }) => ({ authorization: `Bearer ${token}` })

export function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'checkups-admin-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

export interface StreamedEvent {
  readonly id: string | undefined
  readonly event: string
  // eslint-disable-next-line @typescript-eslint/no-explicit-any
  readonly data: any
}

/** Reads a stream of events as they come. */
export async function stream(
  url: string,
  headers: Record<string, string> = {},
): Promise<AsyncGenerator<StreamedEvent, undefined>> {
  const controller = new AbortController()
  onTestFinished(() => controller.abort())
  const response = await fetch(url, { headers, signal: controller.signal })
  async function* events(): AsyncGenerator<StreamedEvent, undefined> {
    let rest = ''
    for await (const chunk of response.body!.pipeThrough(new TextDecoderStream())) {
      const blocks = (rest + chunk).split('\n\n')
      rest = blocks.pop()!
      for (const block of blocks) {
        const fields = new Map(block.split('\n').map((line) => line.split(/: (.*)/s) as [string, string]))
        if (!fields.has('data')) continue
        yield { id: fields.get('id'), event: fields.get('event')!, data: JSON.parse(fields.get('data')!) as unknown }
      }
    }
    return undefined
  }
  return events()
}
