// nginx for the example: a process of its own in a folder of its own, which listens on loopback.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export class Nginx {
  readonly port: number
  readonly #folder = mkdtempSync(join(tmpdir(), 'nginx-and-node-'))
  /** What its configuration includes: a block `upstream` with the name it was given. */
  readonly upstreamFile = join(this.#folder, 'upstream.conf')
  /** Has it read its configuration again, if it runs. A shell command. */
  readonly reload = `! [ -s ${this.#folder}/nginx.pid ] || kill -HUP "$(cat ${this.#folder}/nginx.pid)"`
  readonly #upstream: string
  #stop = () => Promise.resolve()

  constructor(port: number, upstream: string) {
    this.port = port
    this.#upstream = upstream
  }

  /** Starts it; the file must be there. */
  start(): void {
    const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map((name) => `${name}_temp_path ${name};`)
    const conf = `
      daemon off;
      pid ${this.#folder}/nginx.pid;
      error_log stderr;
      events {}
      http {
        access_log off;
        ${temporary.join(' ')}
        include ${this.upstreamFile};
        server {
          listen 127.0.0.1:${this.port};
          location / { proxy_pass http://${this.#upstream}; }
        }
      }`
    const file = join(this.#folder, 'nginx.conf')
    writeFileSync(file, conf)
    // Debian keeps it where only root's PATH goes.
    const env = { ...process.env, PATH: `${process.env['PATH']}:/usr/sbin` }
    const child = spawn('nginx', ['-p', this.#folder, '-c', file, '-e', 'stderr'], { stdio: 'inherit', env })
    const exited = once(child, 'exit')
    // Asked to end, it ends its workers too.
    const end = () => void child.kill('SIGTERM')
    process.once('exit', end)
    this.#stop = async () => {
      end()
      await exited
    }
  }

  async stop(): Promise<void> {
    await this.#stop()
    rmSync(this.#folder, { recursive: true })
  }
}
