/**
 * The rows C01–C91 are what the test suite of lua-resty-checkups expects. Here they run on a virtual clock, without sockets:
 * a callback says how a server answers a request, another one how it answers a check. Rows with dead servers run twice: they
 * are `down` by hand, and they are up and refuse their checks.
 */
import { readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { Checkups, isCheckupsError, toCheckupsStatus } from '../../src/index.js'
import type { AttemptContext, CheckupsServerStatus, CustomCheckResult, HeartbeatSchedule } from '../../src/index.js'
import type { LevelOptions, Peer, ReadyOkOptions, ServerOptions, UpstreamOptions } from '../../src/index.js'
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

/** Milliseconds between the heartbeats of the rows, in which every server is checked once. */
export const INTERVAL = 2000

/** How a server answers a check. */
export type Beat = (name: string) => boolean | CustomCheckResult | Promise<boolean | CustomCheckResult>

/** Heartbeats with the defaults of the ancestor; its rounds have no counterpart. */
export function beats(answer: Beat, options: HeartbeatSchedule = {}) {
  const schedule: HeartbeatSchedule = { interval: INTERVAL, fastInterval: INTERVAL, jitter: 0, timeout: 5000, fall: 1 }
  return {
    type: 'custom',
    ...schedule,
    panic: 'first',
    ...options,
    check: (peer: Peer) => answer(nameOf(peer)),
  } as const
}

export const refuse = (): never => {
  throw Object.assign(new Error('connect ECONNREFUSED'), { code: 'ECONNREFUSED' })
}

/** All but these answer their checks. */
export const refusing =
  (...names: string[]): Beat =>
  (name) =>
    names.includes(name) ? refuse() : true

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
  readonly clock: VirtualClock
  readonly checkups: Checkups
  readonly #upstreams: Readonly<Record<string, UpstreamOptions>>

  constructor(upstreams: Readonly<Record<string, UpstreamOptions>> = {}, clock = new VirtualClock()) {
    this.clock = clock
    this.#upstreams = upstreams
    this.checkups = new Checkups({ upstreams, clock, random: () => 0 })
  }

  /** Lets the time pass in which every server is checked so often. */
  async beaten(times: number): Promise<void> {
    await this.checkups.start()
    // The next turn of whoever was checked at time 0 comes with the next beat.
    await this.clock.advance(times * INTERVAL - (this.clock.now() === 0 ? 1 : 0))
  }

  /** What the ancestor's status shows of every server, level by level. */
  shown(key: string): CheckupsServerStatus[][] {
    return toCheckupsStatus(this.checkups.getStatus())[`cls:${key}`] as CheckupsServerStatus[][]
  }

  /** `ok`, or `err connection refused` where there is a message. */
  words(key: string): string[][] {
    return this.shown(key).map((level) => level.map(({ status, msg }) => [status, msg ?? ''].join(' ').trim()))
  }

  /** The same world, in which heartbeats will find what is down by hand here; undefined if nothing is. */
  checked(): World | undefined {
    const upstreams = Object.entries(this.#upstreams).map(([key, options]) => [key, found(options)] as const)
    return JSON.stringify(this.#upstreams).includes('"down":true')
      ? new World(Object.fromEntries(upstreams))
      : undefined
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

/** Its dead servers are up, and refuse their checks. */
function found({ cluster = {}, ...options }: UpstreamOptions): UpstreamOptions {
  const dead = new Set<string>()
  const rise = (server: ServerOptions | string) => {
    if (typeof server === 'string' || server.down !== true) return server
    dead.add(`${server.host}:${server.port}`)
    return { ...server, down: false }
  }
  const all = Object.entries(cluster as Readonly<Record<string, LevelOptions>>)
  const risen = Object.fromEntries(all.map(([name, level]) => [name, { servers: level.servers.map(rise) }]))
  const check = ({ address }: Peer) => !dead.has(address) || refuse()
  return {
    ...options,
    cluster: Array.isArray(cluster) ? Object.values(risen) : risen,
    heartbeat: { ...beats(() => true), check },
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

/**
 * Rows of which each continues the one before: one test a row, that first does what comes before it. A world with dead
 * servers is run twice: they are down by hand, and found by heartbeats. `beaten`: heartbeats of every server before the rows.
 */
export function rows(setup: () => World, table: readonly Row[], beaten = 0): void {
  continued(setup, table, beaten)
  if (setup().checked() === undefined) return
  describe('found by heartbeats', () => continued(() => setup().checked()!, table, 1))
}

function continued(setup: () => World, table: readonly Row[], beaten: number): void {
  table.forEach(([says, run, expected], i) => {
    it(says, async () => {
      const world = setup()
      if (beaten > 0) await world.beaten(beaten)
      for (const [, before] of table.slice(0, i)) await before(world)
      expect(await run(world)).toEqual(expected)
    })
  })
}
