/** What a file is replaced with: written beside it and synced, then renamed over it, then the folder is synced. */
import * as nodeFs from 'node:fs/promises'

/** What is used of the file system; a test looks at its order. */
export type WritingFs = Pick<typeof nodeFs, 'open'>

/** Writes a file that is on the disk when this resolves. */
export async function writeSynced(path: string, text: string, mode: number, fs: WritingFs = nodeFs): Promise<void> {
  const file = await fs.open(path, 'w', mode)
  try {
    await file.writeFile(text)
    await file.sync()
  } finally {
    await file.close()
  }
}

/** After it, what was renamed in a folder is so on the disk, too. */
export async function syncFolder(path: string, fs: WritingFs = nodeFs): Promise<void> {
  const folder = await fs.open(path, 'r')
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}
