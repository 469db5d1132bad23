/** What the two layouts of the key-value store have in common. */
import type { SourceLists } from '../source.js'

/** A key below the prefix, with its value. */
export interface KvEntry {
  /** The whole key. */
  readonly key: string
  /** Null if it is empty. */
  readonly value: Buffer | null
}

/** What a prefix holds. */
export interface Layout {
  /** The folder that is read; it ends in a slash, so that `upstream_a` is not `upstream_a_1`. */
  readonly folder: string
  /** In the order of Consul, which is that of the keys. */
  parse(entries: readonly KvEntry[]): SourceLists
}

/** A prefix as a folder. */
export function folderOf(prefix: string): string {
  return `${prefix.replace(/^\/+|\/+$/g, '')}/`
}
