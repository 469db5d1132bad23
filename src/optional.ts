/** What is loaded only when it is used. */

/** Loads a package that users install themselves; the error names it to whoever has not. */
export async function loadOptional<T>(user: string, name: string, load: () => Promise<T>): Promise<T> {
  try {
    return await load()
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code !== 'ERR_MODULE_NOT_FOUND' || !message.includes(`'${name}'`)) throw error
    throw new Error(`${user} needs the package ${name}: npm install ${name}`, { cause: error })
  }
}

/** Work that cannot be interrupted: what comes of it, unless the signal is aborted first. */
export function untilAborted<T>(signal: AbortSignal, work: Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const abort = () => reject(signal.reason as Error)
    if (signal.aborted) abort()
    else signal.addEventListener('abort', abort, { once: true })
    work.then(resolve, reject).finally(() => signal.removeEventListener('abort', abort))
  })
}
