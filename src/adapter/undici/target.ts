/** Where a request goes, as its origin says. */
import { errors, type Dispatcher } from 'undici'
import type { Protocol } from './connections.js'
import type { BalanceOptions } from './options.js'

export interface Target {
  /** Of the upstream. */
  readonly key: string | undefined
  readonly protocol: Protocol
  /** The Host for the peers; undefined leaves them their own. */
  readonly host: string | undefined
}

/** Origins come from URLs, and a program may have any number of them. */
const MOST_KNOWN = 1_000

/** Reads origins, of which a program mostly has few. */
export class Targets {
  readonly #options: BalanceOptions
  readonly #known = new Map<string, Target>()

  constructor(options: BalanceOptions) {
    this.#options = options
  }

  /** @throws undici's InvalidArgumentError */
  of(request: Dispatcher.DispatchOptions): Target {
    if (typeof request !== 'object' || (request as unknown) === null) {
      throw new errors.InvalidArgumentError('opts must be an object.')
    }
    const { origin } = request
    if (origin === undefined || origin === '') {
      throw new errors.InvalidArgumentError('opts.origin must be a non-empty string or URL.')
    }
    const text = typeof origin === 'string' ? origin : origin.origin
    const target = this.#known.get(text) ?? this.#read(text)
    const { key } = this.#options
    return key === undefined ? target : { ...target, key: key(request) }
  }

  #read(origin: string): Target {
    if (!URL.canParse(origin)) throw new errors.InvalidArgumentError(`invalid origin ${origin}`)
    const { protocol, hostname, host } = new URL(origin)
    if (protocol !== 'http:' && protocol !== 'https:') {
      throw new errors.InvalidArgumentError('Invalid URL protocol: the URL must start with `http:` or `https:`.')
    }
    const target: Target = {
      key: hostname,
      protocol: this.#options.protocol ?? (protocol === 'https:' ? 'https' : 'http'),
      host: this.#options.host === 'peer' ? undefined : host,
    }
    if (this.#known.size >= MOST_KNOWN) this.#known.clear()
    this.#known.set(origin, target)
    return target
  }
}
