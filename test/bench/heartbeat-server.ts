/** Who is checked: it takes connections at every address of 127.0.0.0/8, tells its parent the port, and ends with it. */
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'

/** Longer than the interval of the checks; Node's 5 s would end every connection just before its next check. */
const keepAliveTimeout = 60_000
/** Connections that wait for a turn of this process; Node's 511 are a quarter of a second of all checks. */
const backlog = 4_096

const server = createServer({ keepAliveTimeout }, (_, res) => res.end('ok'))
server.listen({ host: '0.0.0.0', port: 0, backlog }, () => process.send!((server.address() as AddressInfo).port))
process.once('disconnect', () => process.exit())
