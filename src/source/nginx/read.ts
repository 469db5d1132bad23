/** Upstreams of a text, or of a file with all that it includes. */
import { dirname, resolve } from 'node:path'
import { Tree } from './include.js'
import { parseDirectives } from './syntax.js'
import { toUpstreams, type NginxUpstreams } from './upstreams.js'

/** Options of {@link readNginx}. */
export interface ReadNginxOptions {
  /** The folder in which relative includes are looked for. Default: that of the file, which for `nginx.conf` is nginx's. */
  readonly root?: string | undefined
}

/**
 * The upstreams of a text. Includes are reported and not followed.
 *
 * @param file - how the text is called in errors and reports
 * @throws {@link NginxSyntaxError}
 */
export function parseNginx(text: string, file = 'nginx.conf'): NginxUpstreams {
  return toUpstreams(parseDirectives(text, file))
}

/**
 * The upstreams of a file and of the files that it includes.
 *
 * @throws {@link NginxSyntaxError}; the error of the file system, if the file cannot be read
 */
export async function readNginx(file: string, { root }: ReadNginxOptions = {}): Promise<NginxUpstreams> {
  const path = resolve(file)
  return toUpstreams(await new Tree(root === undefined ? dirname(path) : resolve(root)).read(path))
}
