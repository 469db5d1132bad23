/** nginx and HAProxy, each as one process with one thread, with configurations of their own. */
import { once } from 'node:events'
import { writeFileSync } from 'node:fs'
import { connect, createServer, type AddressInfo } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { folder, start, type Core, type Program } from './programs.js'

/** No two the same, below 32768, where the system's ports for clients begin, so that nobody takes them meanwhile. */
export async function freePorts(n: number): Promise<number[]> {
  const ports = new Set<number>()
  while (ports.size < n) {
    const server = createServer().listen(12_000 + Math.floor(Math.random() * 20_000), '127.0.0.1')
    const isFree = await once(server, 'listening').catch(() => undefined)
    if (isFree === undefined) continue
    ports.add((server.address() as AddressInfo).port)
    server.close()
    await once(server, 'close')
  }
  return [...ports]
}

/** `http` is what stands in the block of that name; it is to listen at `port`. */
export async function startNginx(core: Core, port: number, http: string): Promise<Program> {
  const prefix = join(folder, `nginx-${port}`)
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi']
  writeFileSync(
    `${prefix}.conf`,
    `daemon off; master_process off; pid ${prefix}.pid; error_log stderr error;
    events { worker_connections 4096; }
    http {
      access_log off; keepalive_timeout 1h; keepalive_requests 1000000000;
      ${temporary.map((name) => `${name}_temp_path ${prefix}.${name};`).join(' ')}
      ${http}
    }\n`,
  )
  const program = start(core, 'nginx', ['-p', folder, '-e', 'stderr', '-c', `${prefix}.conf`], 'ignore')
  await untilAccepting(port)
  return program
}

/** nginx that answers at once, with 12 bytes or, at some ports, with another status. */
export function startBackends(
  ports: readonly number[],
  statuses: ReadonlyMap<number, number> = new Map(),
): Promise<Program> {
  const server = (port: number, status: number) =>
    `server { listen 127.0.0.1:${port}; return ${status} "hello world\\n"; }`
  return startNginx(
    'others',
    ports[0]!,
    [...ports.map((port) => server(port, 200)), ...[...statuses].map(([port, status]) => server(port, status))].join(
      '\n',
    ),
  )
}

/** As a balancer: round robin over kept connections. */
export function startNginxProxy(port: number, backends: readonly number[]): Promise<Program> {
  const servers = backends.map((backend) => `server 127.0.0.1:${backend};`).join(' ')
  return startNginx(
    'measured',
    port,
    `upstream backends { ${servers} keepalive 64; keepalive_requests 1000000000; keepalive_timeout 1h; }
    server {
      listen 127.0.0.1:${port};
      location / { proxy_pass http://backends; proxy_http_version 1.1; proxy_set_header Connection ""; }
    }`,
  )
}

/** The same. */
export async function startHaproxy(port: number, backends: readonly number[]): Promise<Program> {
  const file = join(folder, `haproxy-${port}.cfg`)
  writeFileSync(
    file,
    [
      'global',
      '  nbthread 1',
      '  maxconn 4096',
      'defaults',
      '  mode http',
      '  timeout connect 5s',
      '  timeout client 1h',
      '  timeout server 1h',
      'frontend all',
      `  bind 127.0.0.1:${port}`,
      '  default_backend backends',
      'backend backends',
      '  balance roundrobin',
      '  http-reuse always',
      ...backends.map((backend) => `  server s${backend} 127.0.0.1:${backend}`),
      '',
    ].join('\n'),
  )
  const program = start('measured', 'haproxy', ['-db', '-f', file], 'ignore')
  await untilAccepting(port)
  return program
}

async function untilAccepting(port: number): Promise<void> {
  for (;;) {
    const socket = connect(port, '127.0.0.1')
    const accepted = await once(socket, 'connect').then(
      () => true,
      () => false,
    )
    socket.destroy()
    if (accepted) return
    await sleep(20)
  }
}
