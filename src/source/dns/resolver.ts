/** Asks name servers, one after the other, until one answers; follows aliases. */
import type { Clock } from '../../clock.js'
import { Timer } from '../../clock.js'
import { loadOptional, untilAborted } from '../../optional.js'
import { overTcp, overUdp, type Exchange, type NameServer } from './exchange.js'
import { BAD_VERSION, codeName, domainName, FORMAT_ERROR, NO_SUCH_NAME, NOT_IMPLEMENTED } from './message.js'
import { readAnswer, toQuery, type Codec, type DnsRecord, type Message, type Question } from './message.js'

/** What a name stands for. */
export interface Resolved<T extends Question['type'] = Question['type']> {
  /** None: the name is there, but has nothing of the type. */
  readonly records: readonly Extract<DnsRecord, { type: T }>[]
  /** What the server said of other names, unasked. */
  readonly additionals: readonly DnsRecord[]
  /** Seconds for which all of it holds. */
  readonly ttl: number
}

export interface ResolveContext {
  readonly signal: AbortSignal
  readonly clock: Clock
}

/**
 * Bytes of an answer over UDP: 4,096, the most that is in use, and for who was silent then 1,232, which no network cuts
 * into fragments that firewalls drop (dnsflagday.net 2020).
 */
const SIZES = [4_096, 1_232]
/** The part of it above which an answer may have been cut without a word: less than one long record more fits in then. */
const NEARLY_FULL = 3 / 4
/** Aliases one after the other; BIND follows 16. */
const MOST_ALIASES = 16

/** A server said nothing in time. */
class Silence extends Error {}
/** There is no such name: the other servers need not be asked. */
class NoSuchName extends Error {}

export class Resolver {
  readonly #servers: () => readonly NameServer[]
  readonly #timeout: number
  /** Who answered last is asked first. */
  #last: string | undefined

  /** @param timeout milliseconds until the next server is asked */
  constructor(servers: () => readonly NameServer[], timeout: number) {
    this.#servers = servers
    this.#timeout = timeout
  }

  /** Rejects if the name does not exist, or nobody can say. */
  async resolve<T extends Question['type']>(name: string, type: T, context: ResolveContext): Promise<Resolved<T>> {
    let current = name
    let ttl = Infinity
    for (let aliases = 0; ;) {
      const message = await this.#ask({ name: current, type }, context)
      const asked = current
      const { answers, additionals, negativeTtl } = message
      for (;;) {
        const records = answers.filter((record) => record.type === type && record.name === current)
        if (records.length > 0) {
          for (const record of records) ttl = Math.min(ttl, record.ttl)
          return { records: records as Extract<DnsRecord, { type: T }>[], additionals, ttl }
        }
        const alias = answers.find((record) => record.type === 'CNAME' && record.name === current)
        if (alias === undefined) break
        if (++aliases > MOST_ALIASES) throw new Error(`${name} ${type}: more than ${MOST_ALIASES} aliases`)
        const target = domainName(alias.data as string)
        if (target === undefined) throw new Error(`${name} ${type}: an alias for ${JSON.stringify(alias.data)}`)
        current = target
        ttl = Math.min(ttl, alias.ttl)
      }
      if (current === asked) return { records: [], additionals: [], ttl: Math.min(ttl, negativeTtl) }
    }
  }

  async #ask(question: Question, context: ResolveContext): Promise<Message> {
    const load = loadOptional('the source dns', 'dns-packet', () => import('dns-packet'))
    const codec = await untilAborted(context.signal, load)
    const problems: string[] = []
    const all = this.#servers()
    let servers = [...all.filter((s) => s.address === this.#last), ...all.filter((s) => s.address !== this.#last)]
    for (const size of SIZES) {
      const silent: NameServer[] = []
      for (const server of servers) {
        try {
          const message = await this.#askOne(codec, server, question, size, context)
          this.#last = server.address
          if (message.code === NO_SUCH_NAME) throw new NoSuchName('NXDOMAIN')
          return message
        } catch (error) {
          context.signal.throwIfAborted()
          problems.push(`${(error as Error).message} (${server.address})`)
          if (error instanceof NoSuchName) break
          if (error instanceof Silence) silent.push(server)
        }
      }
      servers = silent
    }
    const said = problems.length === 0 ? 'there is no name server' : [...new Set(problems)].join('; ')
    throw new Error(`${question.name} ${question.type}: ${said}`)
  }

  /** Asks one server: over UDP, and over TCP if what comes is cut off, or may be. */
  async #askOne(codec: Codec, server: NameServer, question: Question, size: number, context: ResolveContext) {
    const ask = (by: Exchange, edns: number | undefined) => this.#exchange(by, codec, server, question, edns, context)
    let message = await ask(overUdp, size)
    if (message.isTruncated) message = await ask(overTcp, size)
    // Who does not know EDNS says one of these; over TCP nobody needs it.
    else if ([FORMAT_ERROR, NOT_IMPLEMENTED, BAD_VERSION].includes(message.code))
      message = await ask(overTcp, undefined)
    else if (maybeCut(message, size)) {
      const over = message
      message = await ask(overTcp, size).catch(() => over)
      context.signal.throwIfAborted()
    }
    if (message.isTruncated) throw new Error('an answer that is cut off, or cannot be read')
    if (message.code !== 0 && message.code !== NO_SUCH_NAME) throw new Error(codeName(message.code))
    if (message.isReferral) throw new Error('a referral: it asks no other servers')
    return message
  }

  async #exchange(
    by: Exchange,
    codec: Codec,
    server: NameServer,
    question: Question,
    size: number | undefined,
    { signal, clock }: ResolveContext,
  ): Promise<Message> {
    signal.throwIfAborted()
    const query = toQuery(codec, question, size)
    const controller = new AbortController()
    const abort = () => controller.abort(signal.reason)
    const timer = new Timer(clock, () => controller.abort(new Silence(`no answer in ${this.#timeout} ms`)))
    signal.addEventListener('abort', abort)
    timer.at(clock.now() + this.#timeout)
    try {
      return await by(server, query.bytes, (bytes) => readAnswer(codec, bytes, query), controller.signal)
    } finally {
      timer.stop()
      signal.removeEventListener('abort', abort)
    }
  }
}

/**
 * Whether an answer may be only a part, though it says nothing: a real Consul leaves out what does not fit without the TC
 * bit. One that fills its space nearly may be; and if a server knows no EDNS nobody knows what its space was.
 */
function maybeCut({ answers, hasEdns, length }: Message, size: number): boolean {
  return hasEdns ? length > size * NEARLY_FULL : answers.length > 1
}
