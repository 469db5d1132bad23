/** What feeds upstreams from outside: a source reads lists, the loop that runs it (see `follow.ts`) does all the rest. */
import type { Clock } from '../clock.js'
import type { Cluster, UpstreamOptions } from '../config.js'

/** An entry that a source could not use; the others are applied without it. */
export interface Refused {
  /** Where it is, as people would look for it: a key of the store, a line of the file. */
  readonly at: string
  /** What is wrong with it, in words. */
  readonly reason: string
}

/** Everything that a source knows at one time. */
export interface SourceLists {
  /**
   * By key: servers in levels or named clusters, under which an upstream keeps the options it has; or a whole configuration.
   */
  readonly upstreams:
    Readonly<Record<string, Cluster | UpstreamOptions>> | ReadonlyMap<string, Cluster | UpstreamOptions>
  /** Upstreams that could not be read this time: they stay as they are. Default: none; who is not named is gone. */
  readonly unread?: readonly string[] | undefined
  /** Upstreams that are not to be, whoever else has made them: the program, too. Default: none. */
  readonly deleted?: readonly string[] | undefined
  /** Default: none. */
  readonly refused?: readonly Refused[] | undefined
}

/** What a source is given to watch with. */
export interface SourceContext {
  /** Aborted when the source is to end. It must end at once, also amid a long poll. */
  readonly signal: AbortSignal
  /** The clock of the instance. */
  readonly clock: Clock
  /** Resolves after so many milliseconds; rejects when the signal is aborted. */
  readonly sleep: (ms: number) => Promise<void>
}

/**
 * A source of lists. {@link Source.watch} reads once, or goes on reading: whenever it has read everything, it calls `apply`.
 *
 * It keeps nothing back and judges nothing: what is the same as before is not applied again; an empty list is refused unless
 * that is allowed; when `watch` resolves it is called again, as often as the rate limit lets it be; when it rejects, after a
 * while that grows. The last good lists stay in use all the time.
 */
export interface Source {
  /** For status and events. */
  readonly name: string
  /** How it is to be followed. */
  readonly options?: SourceOptions | undefined
  /** Reads, applies, and resolves to be called again; or goes on for ever. Rejects if the source cannot be read. */
  watch(apply: (lists: SourceLists) => void, context: SourceContext): Promise<void>
}

/** How a source is followed; every source takes these with its own. */
export interface SourceOptions {
  /**
   * Whether an upstream that has no server any more is emptied. Default false: an empty list is mostly an accident, and the
   * last good one stays.
   */
  readonly allowEmpty?: boolean | undefined
  /**
   * Whether an upstream that the source has had, and has no more, is deleted. Default false: it stays as it was. `file` and
   * `nginx` say true, because there it was somebody's hand.
   */
  readonly prune?: boolean | undefined
  /** Milliseconds of quiet before a change is applied, so that many become one. Default 0: at once. */
  readonly debounce?: number | undefined
  /** A file that keeps the last good lists: with it a process starts though its source is down. Default: none. */
  readonly snapshot?: string | undefined
  /**
   * Whether `start()` rejects if the source has given nothing within `timeout`, not even from its snapshot (the ancestors'
   * strong dependency). Default false: it begins with what is configured.
   */
  readonly required?: boolean | undefined
  /** Milliseconds that `start()` waits for the first lists. Default 5,000, consul-template's and upsync's. */
  readonly timeout?: number | undefined
}

/** Names of {@link SourceOptions}, for sources that check their own. */
export const SOURCE_OPTIONS = ['allowEmpty', 'prune', 'debounce', 'snapshot', 'required', 'timeout'] as const
