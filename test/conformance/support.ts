/**
 * The rows C01–C91 are what the test suite of lua-resty-checkups expects. Here they run on a virtual clock, without sockets:
 * a callback says how a server answers, and a server that its heartbeats would take out is `down` by hand.
 */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { Checkups, isCheckupsError } from '../../src/index.js'
import type { AttemptContext, Peer, ReadyOkOptions, ServerOptions, UpstreamOptions } from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'

/**
 * Servers in the notation of the rows: `54` is 127.0.0.1:12354, `54x` the same one dead; `E6` is a server named E of weight 6,
 * `x2` a dead one of weight 2.
 */
export function servers(spec: string, options: ServerOptions = {}): ServerOptions[] {
  return spec.split(' ').map((token, i) => {
    const [, port, dead] = /^(\d\d)(x?)$/.exec(token) ?? []
    if (port !== undefined) {
      const at = { host: '127.0.0.1', port: 12_300 + Number(port), labels: { name: port } }
      return { ...at, down: dead === 'x', ...options }
    }
    const name = token.charAt(0)
    const at = { host: `${name}${i}.test`, port: 80, labels: { name } }
    return { ...at, weight: Number(token.slice(1)), down: name === 'x', ...options }
  })
}

/** One level per argument. */
export function levels(...specs: string[]): { servers: ServerOptions[] }[] {
  return specs.map((spec) => ({ servers: spec === '' ? [] : servers(spec) }))
}

/** What the ancestor does where this library's defaults are others. */
export const asAncestor = { maxFails: 0, readmit: 'fresh' } as const

/** A recording of test/golden. Its servers are positions in a list. */
export function golden(name: string): unknown {
  return JSON.parse(readFileSync(new URL(`../golden/${name}.json`, import.meta.url), 'utf8'))
}

/** Server 0 of a recording is 127.0.0.1:23001. */
export function recordedServer(index: number, weight = 1): ServerOptions {
  return { host: '127.0.0.1', port: 23_001 + index, weight, labels: { name: String(index) } }
}

/** One level of a recording, by weights. */
export function weighted(weights: readonly number[]): UpstreamOptions {
  return { ...asAncestor, servers: weights.map((weight, index) => recordedServer(index, weight)) }
}

export function nameOf(peer: Peer): string {
  return peer.labels['name'] ?? peer.address
}

/** `EBCE` for names of one letter, `54,55` for others. */
export function write(names: readonly string[]): string {
  return names.join(names.every(({ length }) => length === 1) ? '' : ',')
}

/** How a server answers. */
export type Answer = (name: string, attempt: AttemptContext) => unknown

export const succeed: Answer = () => true
export const fail = (): never => {
  throw new Error('failed')
}
export const status502: Answer = () => ({ status: 502 })

/** A `readyOk` as it went. */
export interface Call {
  readonly tried: string
  readonly result?: unknown
  readonly code?: string
  /** The message of every attempt's error. */
  readonly errors?: readonly string[]
}

export class World {
  readonly clock = new VirtualClock()
  readonly checkups: Checkups

  constructor(upstreams: Readonly<Record<string, UpstreamOptions>> = {}) {
    this.checkups = new Checkups({ upstreams, clock: this.clock, random: () => 0 })
  }

  async call(key: string, answer: Answer, options?: ReadyOkOptions): Promise<Call> {
    const names: string[] = []
    const callback = (peer: Peer, attempt: AttemptContext) => {
      names.push(nameOf(peer))
      return answer(nameOf(peer), attempt)
    }
    try {
      const result = await this.checkups.readyOk(key, callback, options)
      return { tried: write(names), result }
    } catch (error) {
      if (!isCheckupsError(error)) throw error
      const errors = error instanceof AggregateError ? { errors: error.errors.map((one: Error) => one.message) } : {}
      return { tried: write(names), code: error.code, ...errors }
    }
  }

  /** What `count` calls tried, one call after another. */
  async calls(key: string, count: number, answer: Answer, options?: ReadyOkOptions): Promise<string[]> {
    const tried: string[] = []
    for (let i = 0; i < count; i++) tried.push((await this.call(key, answer, options)).tried)
    return tried
  }

  /** Whom `count` calls reached that all succeed at once. */
  async ok(key: string, count: number, options?: ReadyOkOptions): Promise<string> {
    return write(await this.calls(key, count, succeed, options))
  }

  /** Whom `count` calls of one attempt reached that is answered with a 502. */
  async failed(key: string, count: number): Promise<string> {
    return write(await this.calls(key, count, status502, { tries: 1 }))
  }

  /** Whom `count` picks without a report return. */
  select(key: string, count: number): string {
    return write(Array.from({ length: count }, () => nameOf(this.checkups.selectPeer(key)!)))
  }
}

/** The code of the error that `promise` rejects with. */
export function codeOf(promise: Promise<unknown>): Promise<string> {
  return promise.then(
    () => 'no error',
    (error: unknown) => (isCheckupsError(error) ? error.code : `not an error of the library: ${String(error)}`),
  )
}

export const UNKNOWN = 'ERR_CHECKUPS_UNKNOWN_UPSTREAM'
export const NO_PEER = 'ERR_CHECKUPS_NO_PEER'
export const TRIES_EXCEEDED = 'ERR_CHECKUPS_TRIES_EXCEEDED'

/** The row's name, what is done, and what that must give. */
export type Row = readonly [says: string, run: (world: World) => unknown, expected: unknown]

/** Rows of which each continues the one before: one test a row, that first does what comes before it. */
export function rows(setup: () => World, table: readonly Row[]): void {
  table.forEach(([says, run, expected], i) => {
    it(says, async () => {
      const world = setup()
      for (const [, before] of table.slice(0, i)) await before(world)
      expect(await run(world)).toEqual(expected)
    })
  })
}
