/**
 * Programs of the benchmarks as they would run at a user's: with the built package in node_modules, and without a loader,
 * which makes every closure dearer by keeping its name.
 */
import { once } from 'node:events'
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { folder, start, type Core, type Program } from './programs.js'

const root = fileURLToPath(new URL('../../../', import.meta.url))
const compilerOptions = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.ESNext, verbatimModuleSyntax: true }

/** Compiles what is in this folder, or in that one beside it. */
export function compile(name: 'proxy' | 'dispatcher'): string {
  const source = fileURLToPath(new URL(`../${name}/`, import.meta.url))
  const target = join(folder, name)
  const modules = join(target, 'node_modules')
  mkdirSync(modules, { recursive: true })
  writeFileSync(join(target, 'package.json'), '{"type":"module"}')
  symlinkSync(root, join(modules, 'checkups'))
  for (const other of ['http-proxy', 'undici']) symlinkSync(join(root, 'node_modules', other), join(modules, other))
  for (const file of readdirSync(source)) {
    const { outputText } = ts.transpileModule(readFileSync(join(source, file), 'utf8'), { compilerOptions })
    writeFileSync(join(target, file.replace(/\.ts$/, '.js')), outputText)
  }
  return target
}

/** The version of a package as it is used here. */
export function packageVersion(name: string): string {
  return (JSON.parse(readFileSync(join(root, 'node_modules', name, 'package.json'), 'utf8')) as { version: string })
    .version
}

/** One of them that has said where it listens: its ports, in one line. */
export interface NodeProgram extends Program {
  readonly ports: readonly number[]
}

/** It ends when who has started it is gone, however that came about. */
const NOT_ALONE = 'data:text/javascript,process.on("disconnect",()=>process.exit())'

export async function startNode(core: Core, file: string, args: readonly (string | number)[]): Promise<NodeProgram> {
  const program = start(core, process.execPath, ['--import', NOT_ALONE, file, ...args.map(String)], 'ipc')
  const [line] = (await once(program.child.stdout!, 'data')) as [Buffer]
  return { ...program, ports: line.toString().trim().split(' ').map(Number) }
}
