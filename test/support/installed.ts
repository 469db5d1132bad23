import { execFileSync } from 'node:child_process'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** An empty folder into which the package was installed from its tarball, as a user would. */
export interface Installation {
  /** Writes a file there and runs it; returns what it printed. */
  run(name: string, source: string): string
  remove(): void
}

/** `others` are packages of this project's node_modules that the folder is to have too. */
export function installPacked(others: readonly string[] = []): Installation {
  const folder = mkdtempSync(join(tmpdir(), 'checkups-'))
  const npm = (args: readonly string[], cwd: string) =>
    execFileSync('npm', [...args, '--loglevel=error'], { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] })
  const tarball = npm(['pack', '--pack-destination', folder], root).trim().split('\n').at(-1)!
  writeFileSync(join(folder, 'package.json'), '{"private":true}')
  npm(['install', '--prefer-offline', '--no-audit', '--no-fund', '--legacy-peer-deps', join(folder, tarball)], folder)
  mkdirSync(join(folder, 'node_modules'), { recursive: true })
  for (const name of others) symlinkSync(join(root, 'node_modules', name), join(folder, 'node_modules', name))
  return {
    run(name, source) {
      const file = join(folder, name)
      writeFileSync(file, source)
      return execFileSync(process.execPath, [file], { cwd: folder, encoding: 'utf8' })
    },
    remove: () => rmSync(folder, { recursive: true }),
  }
}
