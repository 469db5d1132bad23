/**
 * What operators can do, whatever the interface: each change is checked whole, goes to the store if there is one, is in use
 * when its promise resolves, and is told. Changes are made one after another.
 */
import { isDeepStrictEqual } from 'node:util'
import { record } from '../check.js'
import { EMPTY, type ChangeOptions, type Checkups } from '../checkups.js'
import { Timer, type Clock } from '../clock.js'
import {
  compileCluster,
  compileUpstream,
  isWhole,
  sameConfig,
  serverAddress,
  toOptions,
  upstreamPath,
} from '../compile.js'
import type { Cluster, ServerConfig, ServerOptions, UpstreamConfig, UpstreamOptions } from '../config.js'
import { ConfigError, isCheckupsError, UnknownUpstreamError } from '../errors.js'
import { SCHEDULE_KEYS } from '../health/schedule.js'
import type { CheckupsStatus } from '../status.js'
import { targetAddress, withChange, withoutServer, withServer, type ServerChange } from '../upstream/edit.js'
import type { AdminAction, AuditEvent } from './audit.js'
import { describe, isPlain, restore } from './lib/describe.js'
import type { Caller } from './lib/route.js'
import { digest } from './lib/secret.js'
import { sparseCluster, sparseOptions } from './lib/sparse.js'
import { RefusedError } from './refused.js'
import type { Stored, UpstreamStore } from './store.js'

/**
 * Names of upstreams and levels that come from outside. One that is there already may have any. In a URL `.` and `..` are no
 * names.
 */
const NAME = /^(?!\.{1,2}$)[-_.a-zA-Z0-9]{1,128}$/

/** Whose change it is. */
export interface By {
  readonly caller: Caller
  /** The name of the interface. */
  readonly via: string
}

/** Under which conditions a change is made. */
export interface Conditions {
  /** Only if the upstream is still what this tag was given for. */
  readonly ifMatch?: string | undefined
  /** Only if there is none. */
  readonly ifNone?: boolean | undefined
}

/** What a change has led to. */
export interface Done {
  readonly key: string
  /** Of the upstream; that of the instance if the upstream is gone. */
  readonly generation: number
  /** Whether the upstream is new. */
  readonly created: boolean
  /** Whether a store has it: without, it lives in this process only. */
  readonly persisted: boolean
  /** Whether it is in use here; false if the store has it and the source has not brought it yet. */
  readonly applied: boolean
}

/** An upstream, as it is configured. */
export interface Described {
  readonly key: string
  readonly generation: number
  /** Another one whenever the configuration is another one, in whatever process. */
  readonly etag: string
  /** Every default written out. */
  readonly config: UpstreamOptions
}

export interface OperationsEnv {
  readonly checkups: Checkups
  readonly clock: Clock
  readonly store: UpstreamStore | undefined
  /** Milliseconds that a change may take from the store back to this process. */
  readonly storeTimeout: number
  readonly audit: (event: AuditEvent) => void
}

/** One change: what it is to do here, and in the store. */
interface Change {
  readonly what: AdminAction
  readonly address?: string
  /** Without a store. */
  readonly here: (options: ChangeOptions) => Promise<unknown>
  /** With one: writes, and says whether anything was written. */
  readonly there: (store: UpstreamStore) => Promise<{ readonly changed: boolean }>
  /** Whether what was written is in use. */
  readonly isHere: (now: UpstreamConfig | undefined) => boolean
}

export class Operations {
  readonly #env: OperationsEnv
  #statusText: { readonly generation: number; readonly text: string } | undefined
  readonly #tags = new Map<string, { readonly generation: number; readonly etag: string }>()
  /** The change under way, and those that wait. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(env: OperationsEnv) {
    this.#env = env
  }

  get checkups(): Checkups {
    return this.#env.checkups
  }

  status(): CheckupsStatus {
    return this.checkups.getStatus()
  }

  /** As JSON. Of all who ask in one turn of the event loop, and see the same generation, only the first has it made. */
  statusText(): string {
    const generation = this.checkups.generation
    if (this.#statusText?.generation === generation) return this.#statusText.text
    const text = JSON.stringify(describe(this.status()))
    this.#statusText = { generation, text }
    setImmediate(() => (this.#statusText = undefined))
    return text
  }

  /** In the order they were made. */
  keys(): readonly string[] {
    return [...this.checkups.getUpstreams().keys()]
  }

  /** @throws UnknownUpstreamError */
  read(key: string): Described {
    const config = this.checkups.getUpstream(key)
    if (config === undefined) throw new UnknownUpstreamError(key)
    const generation = this.#generationOf(key)
    return { key, generation, etag: this.#tag(key, generation, config), config }
  }

  /** A cluster alone keeps the options that the upstream has; a whole configuration replaces them. */
  replace(key: string, update: unknown, by: By, conditions: Conditions = {}): Promise<Done> {
    return this.#change(key, by, conditions, (current) =>
      this.#put(key, 'upstream.replace', update, current, conditions),
    )
  }

  /** Other options, the rest as they are: a JSON merge patch (RFC 7386); `null` brings back the default. */
  patch(key: string, changes: unknown, by: By, conditions: Conditions & { create?: boolean } = {}): Promise<Done> {
    return this.#change(key, by, conditions, (current) => {
      if (current === undefined && conditions.create !== true) throw new UnknownUpstreamError(key)
      const path = upstreamPath(key)
      const patch = restore(path, record(path, '', changes), current?.options) as Record<string, unknown>
      const before: Record<string, unknown> = { ...current?.options }
      if ('servers' in patch || 'cluster' in patch) delete before['cluster']
      // Options of one policy or probe are none of another one; when checks are made, is.
      if (isOther(patch['balancer'], before['balancer'])) delete before['balancer']
      if (isOther(patch['heartbeat'], before['heartbeat'])) before['heartbeat'] = scheduleOf(before['heartbeat'])
      return this.#put(key, 'upstream.patch', mergePatch(before, patch), current, conditions)
    })
  }

  /** @throws UnknownUpstreamError (rejects) */
  delete(key: string, by: By, conditions: Conditions = {}): Promise<Done> {
    return this.#change(key, by, conditions, (current) => {
      if (current === undefined) throw new UnknownUpstreamError(key)
      return {
        what: 'upstream.delete',
        here: (options) => this.checkups.deleteUpstream(key, options),
        there: (store) => store.delete(key),
        isHere: (now) => now === undefined,
      }
    })
  }

  /** At the end of a level: the named one, or the first. @throws UnknownUpstreamError, ConfigError, RefusedError (rejects) */
  addServer(
    key: string,
    server: unknown,
    by: By,
    conditions: Conditions & { level?: string | undefined } = {},
  ): Promise<Done> {
    return this.#change(key, by, conditions, (current) => {
      const { config, options } = mustBe(key, current)
      const { level } = conditions
      const path = upstreamPath(key)
      const given = server as ServerOptions | string
      const cluster = withServer(path, config, given, level)
      const address = serverAddress(`${path}.server`, given)
      const target = level ?? config.levels[0]?.name
      if (config.levels.some((one) => one.name === target && has(one.servers, address))) {
        throw new RefusedError('exists', `upstream ${JSON.stringify(key)} has ${address} already`)
      }
      compileUpstream(path, { ...options, cluster })
      return {
        what: 'server.add',
        address,
        here: (change) => this.checkups.addServer(key, given, { ...change, level }),
        there: (store) =>
          orPut(store, key, cluster, options, () => store.addServer(key, given, level === undefined ? {} : { level })),
        isHere: (now) => now !== undefined && now.levels.some(({ servers }) => has(servers, address)),
      }
    })
  }

  /** From every level that has it. @throws UnknownUpstreamError, UnknownPeerError, RefusedError (rejects) */
  removeServer(key: string, server: string, by: By, conditions: Conditions & { force?: boolean } = {}): Promise<Done> {
    return this.#change(key, by, conditions, (current) => {
      const { config, options } = mustBe(key, current)
      const address = targetAddress(server)
      const cluster = withoutServer(key, config, address)
      const force = conditions.force === true
      const isLast = config.levels.every(({ servers }) => servers.every(isAt(address)))
      if (isLast && !force) {
        throw new RefusedError('last', `${address} is the last server of ${JSON.stringify(key)}; force removes it`)
      }
      return {
        what: 'server.remove',
        address,
        here: (change) => this.checkups.removeServer(key, address, { ...change, ...(force && { allowEmpty: true }) }),
        there: (store) => orPut(store, key, cluster, options, () => store.removeServer(key, address)),
        isHere: (now) => now === undefined || !now.levels.some(({ servers }) => has(servers, address)),
      }
    })
  }

  /** In every level that has it. @throws UnknownUpstreamError, UnknownPeerError, ConfigError (rejects) */
  setServer(key: string, server: string, changes: unknown, by: By, conditions: Conditions = {}): Promise<Done> {
    return this.#change(key, by, conditions, (current) => {
      const { config, options } = mustBe(key, current)
      const address = targetAddress(server)
      const change = changes as ServerChange
      const cluster = withChange(key, config, address, change)
      const wanted = compileUpstream(upstreamPath(key), { ...options, cluster })
      const names = Object.keys(change) as (keyof ServerChange)[]
      const isSet = (one: ServerConfig) => {
        const other = wanted.levels.flatMap(({ servers }) => servers).find(isAt(address))
        return names.every((name) => one[name] === other?.[name])
      }
      return {
        what: 'server.set',
        address,
        here: (by) => this.checkups.setServer(key, address, change, by),
        there: (store) => orPut(store, key, cluster, options, () => store.patchServer(key, address, change)),
        isHere: (now) => now?.levels.every(({ servers }) => servers.filter(isAt(address)).every(isSet)) ?? true,
      }
    })
  }

  /** Forgets the failures of a server, or of all: nothing that a store keeps. */
  async reset(key: string, server: string | undefined, by: By): Promise<Done> {
    const { config } = this.read(key)
    const address = server === undefined ? undefined : targetAddress(server)
    await this.checkups.resetMarks(key, address, causeOf(by, 'upstream.reset'))
    const shown = describe(config)
    this.#audit({ ...this.#told(key, by, 'upstream.reset', address, false), before: shown, after: shown })
    return { key, generation: this.#generationOf(key), created: false, persisted: false, applied: true }
  }

  #put(key: string, what: AdminAction, update: unknown, current: Current | undefined, { ifMatch }: Conditions): Change {
    const path = upstreamPath(key)
    const full = restore(path, update, current?.options) as Cluster | UpstreamOptions
    const wanted =
      isWhole(full) || current === undefined
        ? compileUpstream(path, isWhole(full) ? full : { cluster: full }, current?.config)
        : compileCluster(`${path}.cluster`, full, current.config.settings, current.config)
    if (current === undefined && !NAME.test(key)) {
      throw new RefusedError('name', `expected a name of 1 to 128 of - _ . a-z A-Z 0-9, got ${JSON.stringify(key)}`)
    }
    checkLevels(path, wanted)
    // A store takes what the instance would refuse.
    if (!wanted.settings.allowEmpty && wanted.levels.every(({ servers }) => servers.length === 0)) {
      throw new ConfigError(path, EMPTY)
    }
    const options = toOptions(wanted)
    const kept = isWhole(full) ? sparseOptions(options) : sparseCluster(options.cluster!, options)
    const before = current?.generation
    // Of another process, which the source has not brought yet.
    const check = (stored: Cluster | UpstreamOptions | undefined) => {
      if (stored === undefined || current === undefined) return
      const there = isWhole(stored) ? stored : { ...current.options, cluster: stored }
      if (!sameServers(compileUpstream(path, there), current.config)) throw notAsItWas(key)
    }
    const isSame = current !== undefined && sameConfig(current.config, wanted)
    return {
      what,
      here: (by) => this.checkups.updateUpstream(key, full, by),
      there: (store) => store.put(key, kept, { check: ifMatch === undefined ? undefined : check }),
      isHere: (now) => now !== undefined && sameServers(now, wanted) && (isSame || this.#generationOf(key) !== before),
    }
  }

  /** One after another: what a condition was checked against is still so when the change is made. */
  #change(
    key: string,
    by: By,
    conditions: Conditions,
    prepare: (current: Current | undefined) => Change,
  ): Promise<Done> {
    const made = this.#last.then(() => this.#make(key, by, conditions, prepare))
    this.#last = made.catch(() => undefined)
    return made
  }

  async #make(
    key: string,
    by: By,
    { ifMatch, ifNone }: Conditions,
    prepare: (current: Current | undefined) => Change,
  ): Promise<Done> {
    const current = this.#current(key)
    if (ifNone === true && current !== undefined) {
      throw new RefusedError('conflict', `there is an upstream ${JSON.stringify(key)}`)
    }
    if (
      ifMatch !== undefined &&
      (current === undefined || !matches(ifMatch, this.#tag(key, current.generation, current.options)))
    ) {
      throw notAsItWas(key)
    }
    const change = prepare(current)
    const { store } = this.#env
    // Also where another process makes it, and another change may come first.
    const ifGeneration = ifMatch === undefined && ifNone !== true ? undefined : (current?.generation ?? 0)
    const applied =
      store === undefined
        ? await this.#makeHere(key, change, { ...causeOf(by, change.what), ifGeneration })
        : await this.#makeThere(key, change, store)
    const now = this.#current(key)
    const persisted = store !== undefined
    this.#audit({
      ...this.#told(key, by, change.what, change.address, persisted),
      before: current && describe(current.options),
      after: now && describe(now.options),
    })
    const generation = now?.generation ?? this.checkups.generation
    return { key, generation, created: current === undefined, persisted, applied }
  }

  async #makeHere(key: string, change: Change, options: ChangeOptions): Promise<boolean> {
    try {
      await change.here(options)
      return true
    } catch (error) {
      throw isCheckupsError(error, 'ERR_CHECKUPS_CONFLICT') ? notAsItWas(key) : error
    }
  }

  async #makeThere(key: string, change: Change, store: UpstreamStore): Promise<boolean> {
    let changed: boolean
    try {
      changed = (await change.there(store)).changed
    } catch (error) {
      // Bad input is the caller's; anything else is the store's.
      if (error instanceof ConfigError || isCheckupsError(error, 'ERR_CHECKUPS_CONFIG')) throw error
      if (error instanceof RefusedError || isCheckupsError(error, 'ERR_CHECKUPS_UNKNOWN_PEER')) throw error
      throw new RefusedError('store', `the store has not taken it: ${(error as Error).message}`, { cause: error })
    }
    const isHere = () => change.isHere(this.#current(key)?.config)
    // Nothing was written: what is there is in use already, or will be.
    return isHere() || (changed && (await this.#until(key, isHere)))
  }

  /** Resolves when a source has brought it, or its time is over. */
  #until(key: string, isHere: () => boolean): Promise<boolean> {
    const { checkups, clock, storeTimeout } = this.#env
    return new Promise((resolve) => {
      const look = ({ upstream }: { readonly upstream: string }) => {
        if (upstream === key && isHere()) end(true)
      }
      const end = (here: boolean) => {
        timer.stop()
        checkups.off('upstream:update', look).off('upstream:delete', look)
        resolve(here)
      }
      const timer = new Timer(clock, () => end(false))
      checkups.on('upstream:update', look).on('upstream:delete', look)
      timer.at(clock.now() + storeTimeout)
    })
  }

  #current(key: string): Current | undefined {
    const options = this.checkups.getUpstream(key)
    if (options === undefined) return undefined
    return { options, config: compileUpstream(upstreamPath(key), options), generation: this.#generationOf(key) }
  }

  #generationOf(key: string): number {
    return this.checkups.upstream(key).generation
  }

  #tag(key: string, generation: number, config: UpstreamOptions): string {
    const known = this.#tags.get(key)
    if (known?.generation === generation) return known.etag
    const etag = `"${digest(JSON.stringify(describe(config)))}"`
    this.#tags.set(key, { generation, etag })
    return etag
  }

  #told(key: string, { caller, via }: By, what: AdminAction, address: string | undefined, persisted: boolean) {
    const at = this.#env.clock.wallTime()
    return { type: 'admin:change', who: caller.name, via, what, upstream: key, address, persisted, at } as const
  }

  #audit(event: AuditEvent): void {
    if (event.what === 'upstream.delete') this.#tags.delete(event.upstream)
    this.#env.audit(event)
  }
}

interface Current {
  readonly options: UpstreamOptions
  readonly config: UpstreamConfig
  readonly generation: number
}

const isAt = (address: string) => (server: ServerConfig) => server.endpoint.address === address
const has = (servers: readonly ServerConfig[], address: string) => servers.some(isAt(address))

function notAsItWas(key: string): RefusedError {
  return new RefusedError('conflict', `the upstream ${JSON.stringify(key)} is not what it was: read it again`)
}

function mustBe(key: string, current: Current | undefined): Current {
  if (current === undefined) throw new UnknownUpstreamError(key)
  return current
}

/** What the store does not have, because the program has it, it gets now. */
async function orPut(
  store: UpstreamStore,
  key: string,
  cluster: Cluster,
  settings: UpstreamOptions,
  change: () => Promise<Stored>,
): Promise<Stored> {
  try {
    return await change()
  } catch (error) {
    if (!isCheckupsError(error, 'ERR_CHECKUPS_UNKNOWN_UPSTREAM')) throw error
    return store.put(key, sparseCluster(cluster, settings))
  }
}

function scheduleOf(heartbeat: unknown): object {
  return Object.fromEntries(Object.entries(heartbeat as object).filter(([name]) => SCHEDULE_KEYS.has(name)))
}

/** Whether a patch names another `type` than the one that is there. */
function isOther(patch: unknown, before: unknown): boolean {
  return isPlain(patch) && typeof patch['type'] === 'string' && isPlain(before) && before['type'] !== patch['type']
}

function matches(ifMatch: string, etag: string): boolean {
  return ifMatch.split(',').some((tag) => tag.trim() === '*' || tag.trim() === etag)
}

/** RFC 7386. */
function mergePatch(target: unknown, patch: unknown): unknown {
  if (!isPlain(patch)) return patch
  const merged = new Map(isPlain(target) ? Object.entries(target) : [])
  for (const [name, value] of Object.entries(patch)) {
    if (value === null) merged.delete(name)
    else merged.set(name, mergePatch(merged.get(name), value))
  }
  return Object.fromEntries(merged)
}

/** Names of clusters come from outside, too. */
function checkLevels(path: string, { levels }: UpstreamConfig): void {
  for (const { name } of levels) {
    if (!NAME.test(name))
      throw new ConfigError(`${path}.cluster[${JSON.stringify(name)}]`, 'expected a name of - _ . a-z A-Z 0-9')
  }
}

/** What nobody has said of a server may read otherwise in a store, whose format has defaults of its own. */
function sameServers(a: UpstreamConfig, b: UpstreamConfig): boolean {
  const essence = ({ levels }: UpstreamConfig) =>
    levels.map(({ name, servers }) => [
      name,
      servers.map(({ endpoint, weight, backup, down, drain }) => [endpoint.address, weight, backup, down, drain]),
    ])
  return isDeepStrictEqual(essence(a), essence(b))
}

function causeOf({ caller, via }: By, what: AdminAction): { source: 'admin'; reason: string } {
  return { source: 'admin', reason: `${what} by ${caller.name} (${via})` }
}
