/** Who is measured: the names are for tables. */
import { join } from 'node:path'
import { startNode } from './compiled.js'
import type { Program } from './programs.js'
import { freePorts, startHaproxy, startNginxProxy } from './servers.js'

export interface Proxy {
  readonly port: number
  readonly program: Program
}

export interface Subject {
  readonly name: string
  /** Begins to listen in front of these; what knows no balancing is in front of the first. */
  start(backends: readonly number[]): Promise<Proxy>
}

export function makeSubjects(compiled: string) {
  const node = (name: string, file: string): Subject => ({
    name,
    async start(backends) {
      const program = await startNode('measured', join(compiled, file), backends)
      return { port: program.ports[0]!, program }
    },
  })
  const server = (name: string, begin: typeof startHaproxy): Subject => ({
    name,
    async start(backends) {
      const [port] = await freePorts(1)
      return { port: port!, program: await begin(port!, backends) }
    },
  })
  return {
    bareHttpProxy: node('`http-proxy`, kept connections', 'bare-http-proxy.js'),
    httpProxy: node('`http-proxy` with `balanceProxy`', 'http-proxy.js'),
    bareDispatch: node('a bare `Pool.dispatch`', 'bare-dispatch.js'),
    handler: node('`createProxyHandler`', 'handler.js'),
    nginx: server('nginx', startNginxProxy),
    haproxy: server('HAProxy', startHaproxy),
  }
}
