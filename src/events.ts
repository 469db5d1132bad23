/** The events of an instance, and how listeners are called: a listener that throws disturbs nobody. */
import { EventEmitter } from 'node:events'
import type { SourceErrorEvent, SourceUpEvent } from './source/follow.js'
import type { PeerDrainedEvent, PeerEvent, UpstreamDeleteEvent, UpstreamUpdateEvent } from './upstream/change.js'

/** Something of the user's own (a listener, a policy, a classifier) threw, where nobody waits for the error. */
export interface ErrorEvent {
  /** What was thrown. */
  readonly error: unknown
  /** In whose code. */
  readonly during: string
}

/** What an instance tells, by name. */
export interface CheckupsEvents {
  /** An upstream was created, or has other servers or options. */
  'upstream:update': UpstreamUpdateEvent
  /** An upstream was deleted. */
  'upstream:delete': UpstreamDeleteEvent
  /** A peer was taken out. */
  'peer:down': PeerEvent
  /** A peer came back. */
  'peer:up': PeerEvent
  /** A draining peer has nothing in flight any more. */
  'peer:drained': PeerDrainedEvent
  /** A source cannot be read, or gives what cannot be used; its last good lists stay in use. */
  'source:error': SourceErrorEvent
  /** What a source gives is in use, for the first time or again. */
  'source:up': SourceUpEvent
  /** A callback of yours threw. Without a listener it becomes a process warning. */
  error: ErrorEvent
}

/** A listener for one event. */
export type Listener<E extends keyof CheckupsEvents> = (event: CheckupsEvents[E]) => void

export class Events {
  /** Adapters listen too, one each: many listeners are no leak. */
  readonly #emitter = new EventEmitter().setMaxListeners(0)

  on<E extends keyof CheckupsEvents>(name: E, listener: Listener<E>): void {
    this.#emitter.on(name, listener)
  }

  off<E extends keyof CheckupsEvents>(name: E, listener: Listener<E>): void {
    this.#emitter.off(name, listener)
  }

  emit<E extends keyof CheckupsEvents>(name: E, event: CheckupsEvents[E]): void {
    for (const listener of this.#emitter.listeners(name) as Listener<E>[]) {
      try {
        listener(event)
      } catch (error) {
        this.caught(error, `a listener of ${name}`, name !== 'error')
      }
    }
  }

  /** Passes on what a user's code threw. */
  caught(error: unknown, during: string, tellListeners = true): void {
    if (tellListeners && this.#emitter.listenerCount('error') > 0) return this.emit('error', { error, during })
    const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
    process.emitWarning(`${during} threw: ${text}`, { type: 'CheckupsWarning' })
  }
}
