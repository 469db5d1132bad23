// The clients of the demo: so many requests at once, over kept-alive connections, one after another each.
import { Agent, request } from 'node:http'

export interface Clients {
  /** Answers by the backend that gave them. */
  readonly answers: Map<string, number>
  /** What went wrong, in words. */
  readonly failures: string[]
  /** Sends no further request, and waits for those under way. */
  stop(): Promise<void>
}

export function startClients(concurrency: number, port: number, host: string): Clients {
  const agent = new Agent({ keepAlive: true, maxSockets: concurrency })
  const answers = new Map<string, number>()
  const failures: string[] = []
  let running = true

  const client = async () => {
    while (running) {
      try {
        const { status, text } = await get(port, host, agent)
        if (status === 200) answers.set(text, (answers.get(text) ?? 0) + 1)
        else failures.push(`status ${status}`)
      } catch (error) {
        failures.push(String(error))
      }
    }
  }
  const clients = Array.from({ length: concurrency }, client)
  return {
    answers,
    failures,
    async stop() {
      running = false
      await Promise.all(clients)
      agent.destroy()
    },
  }
}

function get(port: number, host: string, agent: Agent): Promise<{ status: number; text: string }> {
  return new Promise((resolve, reject) => {
    const req = request({ host: '127.0.0.1', port, headers: { host }, agent }, (res) => {
      let text = ''
      res.setEncoding('utf8')
      res.on('data', (chunk: string) => (text += chunk))
      res.on('end', () => resolve({ status: res.statusCode ?? 0, text }))
      res.on('error', reject)
    })
    req.on('error', reject)
    req.end()
  })
}
