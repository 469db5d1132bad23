/** `check …` of nginx's upstream check module: our heartbeat, with the module's defaults written out. */
import type { HeartbeatOptions } from '../../health/schedule.js'
import type { Directive, Report } from './syntax.js'
import { parseInteger } from './units.js'

/** The module's own, in milliseconds. `port` 0 is the peer's. */
const DEFAULTS = { interval: 30_000, fall: 5, rise: 2, timeout: 1_000, port: 0 }
type Numeric = keyof typeof DEFAULTS

const MOST: Readonly<Record<Numeric, number | undefined>> = {
  interval: undefined,
  fall: undefined,
  rise: undefined,
  timeout: undefined,
  port: 65_535,
}

const TYPES = ['tcp', 'http', 'ssl_hello', 'mysql', 'ajp', 'fastcgi'] as const
type CheckType = (typeof TYPES)[number]

type Statuses = ('1xx' | '2xx' | '3xx' | '4xx' | '5xx')[]

const isNumeric = (name: string): name is Numeric => Object.hasOwn(DEFAULTS, name)

/** Collects the directives of one upstream. */
export class Check {
  readonly #report: Report
  /** Whether there is a `check`; the others alone check nothing. */
  #isGiven = false
  #numbers = DEFAULTS
  #defaultDown = true
  #type: CheckType = 'tcp'
  #send = 'GET / HTTP/1.0\r\n\r\n'
  #alive: Statuses = ['2xx', '3xx']
  readonly #params = new Map<string, string>([
    ['REQUEST_METHOD', 'GET'],
    ['REQUEST_URI', '/'],
    ['SCRIPT_FILENAME', 'index.php'],
  ])

  constructor(report: Report) {
    this.#report = report
  }

  /** Whether the directive is one of the module's. */
  directive(directive: Directive): boolean {
    const { name, args, at } = directive
    switch (name) {
      case 'check':
        this.#check(directive)
        return true
      case 'check_http_send':
        if (args.length === 1 && args[0] !== '') this.#send = args[0]!
        else this.#report(at, 'expected check_http_send with one request')
        return true
      case 'check_http_expect_alive': {
        const statuses = args.map((arg) => /^http_([1-5]xx)$/.exec(arg)?.[1])
        if (args.length > 0 && !statuses.includes(undefined)) this.#alive = statuses as Statuses
        else this.#report(at, `expected http_2xx and its like: check_http_expect_alive ${args.join(' ')}`)
        return true
      }
      case 'check_fastcgi_param':
        if (args.length === 2 && args[0] !== '') this.#params.set(args[0]!, args[1]!)
        else this.#report(at, 'expected check_fastcgi_param with a name and a value')
        return true
      case 'check_keepalive_requests':
        if (args.length !== 1 || args[0] !== '1') {
          this.#report(at, `check_keepalive_requests ${args.join(' ')}: every check is a connection of its own`)
        }
        return true
      default:
        return false
    }
  }

  heartbeat(): HeartbeatOptions | undefined {
    if (!this.#isGiven) return undefined
    const { port, ...numbers } = this.#numbers
    return { ...this.#probe(), ...numbers, defaultDown: this.#defaultDown, ...(port > 0 && { port }) }
  }

  #probe(): HeartbeatOptions {
    switch (this.#type) {
      case 'http':
        return { type: 'http', query: this.#send, statuses: this.#alive }
      case 'ssl_hello':
        // The module looks no further than the server's hello.
        return { type: 'tls', tls: { rejectUnauthorized: false } }
      case 'fastcgi':
        return this.#fastcgi()
      default:
        return { type: this.#type }
    }
  }

  #fastcgi(): HeartbeatOptions {
    const params = new Map(this.#params)
    const take = (name: string) => {
      const value = params.get(name)!
      params.delete(name)
      return value
    }
    const [method, path, scriptFilename] = [take('REQUEST_METHOD'), take('REQUEST_URI'), take('SCRIPT_FILENAME')]
    // fromEntries defines own properties: a parameter named __proto__ is one like any other.
    return { type: 'fastcgi', method, path, scriptFilename, params: Object.fromEntries(params), statuses: this.#alive }
  }

  /** A wrong parameter is reported and left at its default: the rest says well enough what to check. */
  #check({ args, at }: Directive): void {
    this.#isGiven = true
    this.#numbers = { ...DEFAULTS }
    for (const parameter of args) {
      const [name = '', value = ''] = parameter.split(/=(.*)/s)
      const wrong = () => this.#report(at, `check: unknown or wrong parameter ${parameter}`)
      if (isNumeric(name)) {
        const number = parseInteger(value, name === 'port' ? 0 : 1, MOST[name])
        if (number === undefined) wrong()
        else this.#numbers = { ...this.#numbers, [name]: number }
      } else if (name === 'default_down' && /^(true|false)$/i.test(value)) {
        this.#defaultDown = value.toLowerCase() === 'true'
      } else if (name === 'type' && TYPES.includes(value as CheckType)) this.#type = value as CheckType
      // Of a fork: whether peers that are in several upstreams are checked once.
      else if (name !== 'unique') wrong()
    }
  }
}
