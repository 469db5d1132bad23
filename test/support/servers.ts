/** Real servers as child processes: on loopback, each in a folder of its own, stopped by its own process. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, chmodSync, constants, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import * as grpc from '@grpc/grpc-js'
import { HealthImplementation, type ServingStatusMap } from 'grpc-health-check'
import { describe, it } from 'vitest'
import { eventually } from './eventually.js'

/** For localhost and 127.0.0.1. */
export const certificate = {
  cert: fileURLToPath(new URL('tls/cert.pem', import.meta.url)),
  key: fileURLToPath(new URL('tls/key.pem', import.meta.url)),
}

/** Where servers are that are not on everybody's PATH. */
const FOLDERS = [...(process.env['PATH'] ?? '').split(delimiter), '/usr/sbin', '/usr/local/sbin']

/** The path of a program, which may have a version in its name (`php-fpm8.2`), or of a file. */
export function installed(program: string): string | undefined {
  const candidates = FOLDERS.flatMap((folder) => {
    try {
      return readdirSync(folder)
        .filter((name) => name.startsWith(program) && /^[\d.]*$/.test(name.slice(program.length)))
        .map((name) => join(folder, name))
    } catch {
      return []
    }
  })
  return (program.startsWith('/') ? [program] : candidates).find((path) => {
    try {
      accessSync(path, program.startsWith('/') ? constants.R_OK : constants.X_OK)
      return true
    } catch {
      return false
    }
  })
}

/**
 * A suite that needs a program. Without it the suite is left out, and says so; in CI (`CI=true`) that is a failure.
 * `test/support/install-servers.sh` installs all of them.
 */
export function whereInstalled(name: string, program: string, suite: () => void): void {
  if (installed(program) !== undefined) return void describe(name, suite)
  const missing = `${name} (${program} is not installed)`
  if (process.env['CI'] === 'true') it(missing, () => Promise.reject(new Error('run test/support/install-servers.sh')))
  else {
    console.log(`left out: ${missing}`)
    describe.skip(missing, () => it('is left out'))
  }
}

/** A port of 127.0.0.1 that is free, below those that the system gives to clients (32768 and up). */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000)
    const server = createServer()
    const free = await new Promise<boolean>((resolve) => {
      server.once('error', () => resolve(false)).listen(port, '127.0.0.1', () => resolve(true))
    })
    if (!free) continue
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}

let places = 0

/**
 * An address of this machine that nobody else listens at: a port that was given up there is no one's until it is taken again.
 * At 127.0.0.1 the system may give it to any server or client of another test.
 */
export const ownHost = () => `127.${100 + (process.pid & 63)}.${(process.pid >> 6) & 255}.${1 + (places++ % 254)}`

/** A server that runs. */
export interface Running {
  readonly port: number
  /** Its own, gone when it has stopped. */
  readonly folder: string
  /** What it has said so far. */
  output(): string
  /** Ends it, and waits until it has. */
  stop(): Promise<void>
}

interface Program {
  readonly port: number
  readonly folder: string
  readonly program: string
  readonly args: readonly string[]
  readonly env?: Readonly<Record<string, string>>
  /** What it says when it is ready, or undefined if it says nothing: then it is when it accepts a connection. */
  readonly ready: RegExp | undefined
}

const newFolder = () => mkdtempSync(join(tmpdir(), 'checkups-server-'))

async function run({ port, folder, program, args, env, ready }: Program): Promise<Running> {
  const binary = installed(program)
  if (binary === undefined) throw new Error(`${program} is not installed`)
  const child = spawn(binary, args, { cwd: folder, env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'pipe'] })
  const ended = once(child, 'close')
  const kill = () => void child.kill('SIGKILL')
  process.once('exit', kill)
  void ended.then(() => process.off('exit', kill))
  let output = ''
  const stop = async () => {
    child.kill('SIGTERM')
    await ended
    rmSync(folder, { recursive: true, force: true })
  }
  const isReady = new Promise<void>((resolve, reject) => {
    const look = (chunk: Buffer) => {
      output += chunk.toString()
      if (ready?.test(output)) resolve()
    }
    child.stdout.on('data', look)
    child.stderr.on('data', look)
    if (ready === undefined) untilAccepting(port).then(resolve, reject)
  })
  const died = ended.then(([code]) => Promise.reject(new Error(`${program} ended with ${String(code)}: ${output}`)))
  died.catch(() => undefined)
  await Promise.race([isReady, died]).catch(async (error: unknown) => {
    await stop()
    throw error
  })
  return { port, folder, output: () => output, stop }
}

async function untilAccepting(port: number): Promise<void> {
  const look = async () => {
    const socket = connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
    } finally {
      socket.destroy()
    }
  }
  await eventually(look, 10)
}

/** Redis without persistence; more settings as `['--requirepass', 'secret']`. It listens at `redis.sock` too. */
export async function startRedis(settings: readonly string[] = []): Promise<Running> {
  const [port, folder] = [await freePort(), newFolder()]
  const args = ['--port', String(port), '--bind', '127.0.0.1', '--unixsocket', join(folder, 'redis.sock')]
  args.push('--dir', folder, '--save', '', ...settings)
  return run({ port, folder, program: 'redis-server', args, ready: /Ready to accept connections/ })
}

/** MariaDB with TLS, and a user `checker` whose password is `secret`; more settings as `['--max-connections=10']`. */
export async function startMariadb(settings: readonly string[] = []): Promise<Running> {
  const [port, folder] = [await freePort(), newFolder()]
  const users = join(folder, 'users.sql')
  const datadir = `--datadir=${join(folder, 'data')}`
  writeFileSync(users, "CREATE USER checker@'%' IDENTIFIED BY 'secret';\n")
  // One that starts removes what looks left over in its folder for temporary files: also what another one is using there.
  await promisify(execFile)(
    'mariadb-install-db',
    ['--no-defaults', '--user=root', datadir, '--skip-test-db', '--auth-root-authentication-method=normal'],
    { env: { ...process.env, TMPDIR: folder } },
  )
  const args = [
    '--no-defaults',
    '--user=root',
    datadir,
    `--tmpdir=${folder}`,
    `--init-file=${users}`,
    `--pid-file=${join(folder, 'pid')}`,
  ]
  args.push(`--port=${port}`, '--bind-address=127.0.0.1', `--socket=${join(folder, 'mysql.sock')}`)
  args.push(`--ssl-cert=${certificate.cert}`, `--ssl-key=${certificate.key}`, ...settings)
  return run({ port, folder, program: 'mariadbd', args, ready: /ready for connections/ })
}

/** php-fpm with the `ping.path` of `/ping`, and these scripts in its folder. */
export async function startPhpFpm(scripts: Readonly<Record<string, string>> = {}): Promise<Running> {
  const [port, folder] = [await freePort(), newFolder()]
  for (const [name, script] of Object.entries(scripts)) writeFileSync(join(folder, name), script)
  const settings = join(folder, 'php-fpm.conf')
  writeFileSync(
    settings,
    [
      '[global]',
      `error_log = ${join(folder, 'fpm.log')}`,
      '[www]',
      ...(process.getuid?.() === 0 ? ['user = root'] : []),
      `listen = 127.0.0.1:${port}`,
      'pm = static',
      'pm.max_children = 2',
      'ping.path = /ping',
      '',
    ].join('\n'),
  )
  const args = ['--no-php-ini', '--allow-to-run-as-root', '--nodaemonize', '--force-stderr', '--fpm-config', settings]
  return run({ port, folder, program: 'php-fpm', args, ready: /ready to handle connections/ })
}

/** fcgiwrap, and these CGI scripts in its folder. */
export async function startFcgiwrap(scripts: Readonly<Record<string, string>>): Promise<Running> {
  const [port, folder] = [await freePort(), newFolder()]
  for (const [name, script] of Object.entries(scripts)) {
    writeFileSync(join(folder, name), script)
    chmodSync(join(folder, name), 0o755)
  }
  const args = ['-f', '-s', `tcp:127.0.0.1:${port}`]
  return run({ port, folder, program: 'fcgiwrap', args, ready: undefined })
}

/** Where Debian has Tomcat. */
export const TOMCAT = '/usr/share/tomcat10'

/** Tomcat with an AJP connector and no application. */
export async function startTomcat(): Promise<Running> {
  const [port, folder] = [await freePort(), newFolder()]
  for (const name of ['conf', 'logs', 'temp', 'webapps', 'work']) mkdirSync(join(folder, name))
  writeFileSync(
    join(folder, 'conf', 'server.xml'),
    `<Server port="-1">
       <Service name="Catalina">
         <Connector protocol="AJP/1.3" address="127.0.0.1" port="${port}" secretRequired="false"/>
         <Engine name="Catalina" defaultHost="localhost">
           <Host name="localhost" appBase="webapps"/>
         </Engine>
       </Service>
     </Server>`,
  )
  const args = ['-cp', `${TOMCAT}/bin/bootstrap.jar:${TOMCAT}/bin/tomcat-juli.jar`, `-Dcatalina.home=${TOMCAT}`]
  args.push(`-Dcatalina.base=${folder}`, `-Djava.io.tmpdir=${join(folder, 'temp')}`)
  args.push('org.apache.catalina.startup.Bootstrap', 'start')
  return run({ port, folder, program: 'java', args, ready: /Server startup in/ })
}

/** A gRPC server with the official health service, or without; over TLS if it is given a certificate. */
export async function startGrpc(statuses?: ServingStatusMap, tls?: { cert: Buffer; key: Buffer }) {
  const server = new grpc.Server()
  const health = new HealthImplementation(statuses)
  if (statuses !== undefined) health.addToServer(server)
  const credentials = tls
    ? grpc.ServerCredentials.createSsl(null, [{ cert_chain: tls.cert, private_key: tls.key }])
    : grpc.ServerCredentials.createInsecure()
  const port = await promisify<string, grpc.ServerCredentials, number>(server.bindAsync.bind(server))(
    '127.0.0.1:0',
    credentials,
  )
  return {
    port,
    server,
    setStatus: health.setStatus.bind(health),
    stop: () => server.forceShutdown(),
  }
}

/** nginx with this configuration, which is to listen at the port; it is told to read it again by its `nginx.pid`. */
export async function startNginx(conf: (port: number, folder: string) => string): Promise<Running> {
  const [port, folder] = [await freePort(), newFolder()]
  const settings = join(folder, 'nginx.conf')
  writeFileSync(settings, `daemon off;\npid ${folder}/nginx.pid;\nerror_log stderr notice;\n${conf(port, folder)}\n`)
  return run({ port, folder, program: 'nginx', args: ['-p', folder, '-c', settings], ready: undefined })
}

/** dnsmasq as a name server of nothing but these records, as `['--host-record=a.test,10.0.0.1']`. */
export async function startDnsmasq(records: readonly string[]): Promise<Running> {
  const [port, folder] = [await freePort(), newFolder()]
  const args = ['--keep-in-foreground', '--log-facility=-', '--conf-file=/dev/null', '--no-resolv', '--no-hosts']
  args.push(`--port=${port}`, '--listen-address=127.0.0.1', '--bind-interfaces', `--pid-file=${join(folder, 'pid')}`)
  args.push('--local=/test/', ...(process.getuid?.() === 0 ? ['--user=root'] : []), ...records)
  return run({ port, folder, program: 'dnsmasq', args, ready: /started, version/ })
}
