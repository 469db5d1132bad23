/** One request and its attempts over undici. */
import type { Duplex } from 'node:stream'
import type { PickHandle } from '../../upstream/pick.js'
import { Exchange, type ExchangeSetup } from '../exchange.js'
import type { Connections } from './connections.js'
import { UndiciTry, type UndiciTryOwner } from './try.js'

/** What all exchanges of one dispatcher or proxy share. */
export interface UndiciSetup extends ExchangeSetup {
  readonly connections: Connections
}

export abstract class UndiciExchange extends Exchange<UndiciTry> implements UndiciTryOwner {
  declare readonly setup: UndiciSetup

  /** The answer that the caller gets has begun. */
  abstract onHead(status: number, headers: readonly Buffer[], resume: () => void, statusText: string): unknown
  /** A piece of it; false pauses it. */
  abstract onBody(chunk: Buffer): unknown
  /** It is complete. */
  protected abstract onEnd(trailers: readonly Buffer[]): void
  /** The connection is the caller's. */
  protected abstract onSwitch(status: number, headers: readonly Buffer[], socket: Duplex): void

  /** The request is about to be written to a peer. */
  onConnected(): void {}
  /** The first byte of an answer is there. */
  onAnswering(): void {}
  /** An answer of status 1xx. */
  onInformation(_status: number, _headers: readonly Buffer[], _resume: () => void, _statusText: string): unknown {
    return true
  }
  /** A piece of the request's body was written. */
  onSent(_chunk: unknown): void {}
  /** All of the request was written. */
  onAllSent(): void {}

  protected override attemptAt(pick: PickHandle, number: number): UndiciTry {
    return new UndiciTry(this, pick, number)
  }

  complete(trailers: readonly Buffer[]): void {
    if (this.told) return
    this.told = true
    this.onEnd(trailers)
  }

  switchTo(status: number, headers: readonly Buffer[], socket: Duplex): void {
    this.told = true
    this.onSwitch(status, headers, socket)
  }
}
