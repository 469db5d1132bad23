/** The service catalog with its health, as sources. */
import { tcpEndpoint } from '../../address.js'
import { array, expected, onlyKeys, record, string } from '../../check.js'
import type { ServerOptions } from '../../config.js'
import { ConfigError } from '../../errors.js'
import { SOURCE_OPTIONS, type Refused, type Source, type SourceContext, type SourceLists } from '../source.js'
import type { SourceOptions } from '../source.js'
import { BlockingQuery } from './blocking-query.js'
import { Connection, CONNECTION_OPTIONS, type ConsulConnectionOptions } from './connection.js'
import { ConsulError } from './error.js'
import { parseQuery, sourceOptions, type ConsulQueryOptions } from './kv.js'
import { parseWireServer, reasonOf, WIRE_NAMES } from './wire.js'

/** Which instances of a service are the servers of an upstream. */
export interface ConsulServiceOptions {
  /** Its name. */
  readonly service: string
  /** Only instances with this tag, or with all of these. */
  readonly tag?: string | readonly string[] | undefined
  /**
   * `true`: only instances whose checks all pass. `'warning'`: those with a warning too. Default true. An instance in
   * maintenance is in neither.
   */
  readonly passing?: true | 'warning' | undefined
  /** Nearest to this node (`'_agent'`: to the agent) first, in place of sorted by address. */
  readonly near?: string | undefined
  /** Another datacenter than the connection's. */
  readonly dc?: string | undefined
  /** Consul's filter expression, as `'Service.Meta.zone == b'`. */
  readonly filter?: string | undefined
}

/** Options of {@link consulServices}. */
export interface ConsulServicesOptions extends ConsulConnectionOptions, ConsulQueryOptions, SourceOptions {
  /** By key of the upstream: the service, or its name alone. */
  readonly services: Readonly<Record<string, ConsulServiceOptions | string>>
  /** A file for each service: its name gets a dot and the upstream's key, percent-encoded. */
  readonly snapshot?: string | undefined
}

const KEYS = new Set(['services', 'wait', 'stale', ...CONNECTION_OPTIONS, ...SOURCE_OPTIONS])
const SERVICE_KEYS = new Set(['service', 'tag', 'passing', 'near', 'dc', 'filter'])

/**
 * Upstreams from Consul's services: a source for each, with one blocking query each, so that what goes wrong with one
 * touches no other: `new Checkups({ sources: consulServices({ services: { api: 'api' } }) })`.
 *
 * A server is at the service's address, or at its node's if it has none. Its weight is the instance's `Weights` of its
 * state. Of the instance's `Meta`, `weight`, `max_fails`, `fail_timeout` (seconds), `max_conns`, `backup`, `down` and `drain`
 * are what they are elsewhere; all others, as `zone`, are its labels.
 *
 * @throws `ConfigError`
 */
export function consulServices(options: ConsulServicesOptions): readonly Source[] {
  const given = record('consulServices', '', options)
  onlyKeys('consulServices', given, KEYS)
  const connection = new Connection('consulServices', given)
  const { wait, stale } = parseQuery('consulServices', given)
  return Object.entries(record('consulServices', 'services', given['services'])).map(([key, value]) => {
    const at = `consulServices.services[${JSON.stringify(key)}]`
    const service = parseService(at, value)
    const source = new ServiceSource(connection, key, service, wait, stale)
    const { snapshot, ...follow } = sourceOptions(options)
    return {
      name: `consul:${service.service}${key === service.service ? '' : ` (${key})`}`,
      options: {
        ...follow,
        ...(snapshot !== undefined && { snapshot: `${snapshot}.${encodeURIComponent(key)}` }),
      },
      watch: (apply, context) => source.watch(apply, context),
    }
  })
}

interface ServiceQuery {
  readonly service: string
  readonly tag?: readonly string[]
  readonly onlyPassing: boolean
  readonly near?: string
  readonly dc?: string
  readonly filter?: string
}

function parseService(path: string, value: unknown): ServiceQuery {
  const options = typeof value === 'string' ? { service: value } : record(path, '', value)
  onlyKeys(path, options, SERVICE_KEYS)
  const { service, tag, passing = true } = options
  if (passing !== true && passing !== 'warning') throw expected(path, 'passing', 'true or "warning"', passing)
  const tags = tag === undefined ? [] : array(path, 'tag', typeof tag === 'string' ? [tag] : tag)
  return {
    service: string(path, 'service', service),
    onlyPassing: passing === true,
    ...(tags.length > 0 && { tag: tags.map((one, i) => string(`${path}.tag[${i}]`, '', one)) }),
    ...(Object.fromEntries(
      ['near', 'dc', 'filter']
        .filter((key) => options[key] !== undefined)
        .map((key) => [key, string(path, key, options[key])]),
    ) as { near?: string; dc?: string; filter?: string }),
  }
}

/** An instance, as Consul says it; whether all of it is there is for the parser to see. */
interface Instance {
  readonly Node?: { readonly Node?: unknown; readonly Address?: unknown }
  readonly Service?: {
    readonly ID?: unknown
    readonly Address?: unknown
    readonly Port?: unknown
    readonly Meta?: unknown
    readonly Weights?: { readonly Passing?: unknown; readonly Warning?: unknown }
  }
  readonly Checks?: readonly { readonly Status?: unknown }[]
}

class ServiceSource {
  readonly #key: string
  readonly #service: ServiceQuery
  readonly #query: BlockingQuery<readonly Instance[]>

  constructor(connection: Connection, key: string, service: ServiceQuery, wait: number, stale: boolean) {
    this.#key = key
    this.#service = service
    const { onlyPassing: passing, ...asked } = service
    this.#query = new BlockingQuery(connection, wait, (client, options) => {
      return client.health.service({ ...options, ...asked, passing, stale }) as never
    })
  }

  async watch(apply: (lists: SourceLists) => void, { signal, clock }: SourceContext): Promise<void> {
    const answer = await this.#query.ask(signal, clock)
    if (answer.body.length === 0) await this.#refuseDenied(signal)
    const { servers, refused } = parseInstances(answer.body, this.#service)
    apply({ upstreams: new Map([[this.#key, [{ servers }]]]), refused })
    answer.applied()
  }

  /** To a token without rights every service looks empty; its configuration is denied. There mostly is none: 404. */
  async #refuseDenied(signal: AbortSignal): Promise<void> {
    const { service, dc } = this.#service
    const ask = this.#query.call(signal, (client, { ctx, timeout, ...common }) => {
      const { token, ...query } = { ...common, ...(dc !== undefined && { dc }) }
      const headers = token === undefined ? {} : { 'x-consul-token': token }
      return client._get({
        path: '/config/service-defaults/{service}',
        params: { service },
        query,
        headers,
        ctx,
        timeout,
      })
    })
    await ask.catch((error: unknown) => {
      if (!(error instanceof ConsulError)) throw error
      if (error.reason === 'denied') {
        const message = `denied: the token may not read the service ${JSON.stringify(service)}, so that it looks empty`
        throw new ConsulError('denied', message, { status: 403, cause: error })
      }
      if (error.status === undefined || error.status >= 429) throw error
    })
  }
}

const META_NAMES: ReadonlySet<string> = new Set(WIRE_NAMES)

function parseInstances(
  instances: readonly Instance[],
  { onlyPassing, near }: ServiceQuery,
): { servers: readonly ServerOptions[]; refused: readonly Refused[] } {
  const found = new Map<string, ServerOptions>()
  const refused: Refused[] = []
  for (const instance of instances) {
    const states = (instance.Checks ?? []).map(({ Status }) => Status)
    const isPassing = states.every((state) => state === 'passing')
    if (!isPassing && (onlyPassing || states.some((state) => state !== 'passing' && state !== 'warning'))) continue
    const at = `${String(instance.Service?.ID)} on ${String(instance.Node?.Node)}`
    try {
      const [address, server] = parseInstance(at, instance, isPassing)
      // Of several instances of one address the first counts, as nobody could tell them apart.
      if (!found.has(address)) found.set(address, server)
    } catch (error) {
      refused.push({ at, reason: reasonOf(error, at) })
    }
  }
  const addresses = [...found.keys()]
  if (near === undefined) addresses.sort()
  return { servers: addresses.map((address) => found.get(address)!), refused }
}

function parseInstance(at: string, { Node, Service }: Instance, isPassing: boolean): [string, ServerOptions] {
  if (Service === undefined) throw new ConfigError(at, 'is no service')
  const { address, host, port } = tcpEndpoint(at, Service.Address || Node?.Address, Service.Port)
  const meta = Object.entries(record(at, 'Meta', Service.Meta ?? {}))
  const labels = meta.filter(([name]) => !META_NAMES.has(name))
  const weight = isPassing ? Service.Weights?.Passing : Service.Weights?.Warning
  const wire = parseWireServer(at, { weight, ...Object.fromEntries(meta.filter(([name]) => META_NAMES.has(name))) })
  return [
    address,
    { host, port, ...wire, ...(labels.length > 0 && { labels: Object.fromEntries(labels) as Record<string, string> }) },
  ]
}
