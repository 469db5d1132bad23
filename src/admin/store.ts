/** Where changes are kept, so that they outlive the process. */
import type { Cluster, ServerOptions, UpstreamOptions } from '../config.js'
import type { ServerChange } from '../upstream/edit.js'

/** What a write has done. */
export interface Stored {
  /** Whether anything was written: what is there already is not written again. */
  readonly changed: boolean
}

/**
 * Keeps upstreams. It changes no instance: a source of the instance brings what was written, so that all who share a store,
 * this process too, have it in the same way. `ConsulStore` (of `checkups/consul`) and {@link FileStore} are two.
 *
 * Every method rejects, with nothing written, if the store does not take it; `patchServer`, `addServer` and `removeServer` with
 * `UnknownUpstreamError` if it has no such upstream.
 */
export interface UpstreamStore {
  /**
   * Writes an upstream: a cluster alone leaves its options as they are. `check` is called with what is there before it is
   * written over; what it throws is what this rejects with.
   */
  put(
    key: string,
    upstream: Cluster | UpstreamOptions,
    options?: { check?: ((stored: Cluster | UpstreamOptions | undefined) => void) | undefined },
  ): Promise<Stored>
  /** Changes a server, in every level that has it. */
  patchServer(key: string, address: string, change: ServerChange): Promise<Stored>
  /** Adds a server, to the named level or to the first. */
  addServer(key: string, server: ServerOptions | string, options?: { level?: string | undefined }): Promise<Stored>
  /** Removes a server, from every level that has it. */
  removeServer(key: string, address: string): Promise<Stored>
  /** Deletes an upstream; that there was none is no error. */
  delete(key: string): Promise<Stored>
}
