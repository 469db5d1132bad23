/** What others do for a pick, by the functions that do it: most are internal, so they are reached for by name. */
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import type * as Undici from 'undici'
import type { PickFunction } from './measure.js'
import { servers, type Server } from './package.js'

const require = createRequire(import.meta.url)

interface Engine {
  pick(): unknown
}

interface LoadBalance {
  readonly RoundRobinEngine: new (pool: readonly object[]) => Engine
  readonly WeightedRoundRobinEngine: new (pool: readonly { object: object; weight: number }[]) => Engine
}

export function loadbalanceWeighted(n: number): PickFunction {
  const { WeightedRoundRobinEngine } = require('loadbalance') as LoadBalance
  const engine = new WeightedRoundRobinEngine(servers(n).map((object) => ({ object, weight: object.weight })))
  return () => engine.pick()
}

export function loadbalanceRoundRobin(n: number): PickFunction {
  const { RoundRobinEngine } = require('loadbalance') as LoadBalance
  const engine = new RoundRobinEngine(servers(n))
  return () => engine.pick()
}

export function moleculerRoundRobin(n: number): PickFunction {
  const file = join(dirname(require.resolve('moleculer')), 'src/strategies/round-robin.js')
  const Strategy = require(file) as new () => { select(list: readonly object[]): unknown }
  const strategy = new Strategy()
  const list = servers(n)
  return () => strategy.select(list)
}

// undici: a pool gives its dispatcher by a method that only its symbol's description names.

type Method = (this: object, ...args: unknown[]) => unknown

function methodNamed(target: object, description: string): Method {
  for (let owner: object | null = target; owner !== null; owner = Object.getPrototypeOf(owner) as object | null) {
    const symbol = Object.getOwnPropertySymbols(owner).find((candidate) => candidate.description === description)
    if (symbol !== undefined) return (owner as Record<symbol, Method>)[symbol]!
  }
  throw new Error(`undici has no ${description} any more`)
}

function dispatcherOf(pool: Undici.Dispatcher): PickFunction {
  const getDispatcher = methodNamed(pool, 'get dispatcher')
  return () => getDispatcher.call(pool)
}

export function undiciBalanced(n: number): PickFunction {
  const { BalancedPool } = require('undici') as typeof Undici
  return dispatcherOf(new BalancedPool(servers(n).map(({ host, port }) => `http://${host}:${port}`)))
}

export function undiciRoundRobin(n: number): PickFunction {
  const { Client, RoundRobinPool } = require('undici') as typeof Undici
  const pool = new RoundRobinPool('http://10.0.0.1')
  const addClient = methodNamed(pool, 'add client')
  for (let i = 0; i < n; i++) addClient.call(pool, new Client('http://10.0.0.1'))
  return dispatcherOf(pool)
}

// grpc-js: a load balancer makes its picker of the children that are ready; these always are.

interface Picker {
  pick(args: object): unknown
}

interface GrpcBalancer {
  children: unknown
  latestConfig: unknown
  calculateAndUpdateState(): void
}

interface Grpc {
  readonly ConnectivityState: { readonly READY: number }
  readonly PickResultType: { readonly COMPLETE: number }
  createLoadBalancer(config: { getLoadBalancerName(): string }, helper: object): GrpcBalancer | null
}

function loadGrpc(): Grpc {
  // The whole package first: it registers the policies.
  require('@grpc/grpc-js')
  const files = ['connectivity-state', 'picker', 'load-balancer']
  return Object.assign({}, ...files.map((file) => require(`@grpc/grpc-js/build/src/${file}.js`) as object)) as Grpc
}

function readyChild({ ConnectivityState, PickResultType }: Grpc, server: Server) {
  // As the picker of a single address does it.
  const pick = () => ({
    pickResultType: PickResultType.COMPLETE,
    subchannel: server,
    status: null,
    onCallStarted: null,
    onCallEnded: null,
  })
  return {
    getConnectivityState: () => ConnectivityState.READY,
    getEndpoint: () => ({ addresses: [{ host: server.host, port: server.port }] }),
    getPicker: () => ({ pick }),
  }
}

function grpcPicker(name: string, setUp: (balancer: GrpcBalancer, grpc: Grpc) => void): PickFunction {
  const grpc = loadGrpc()
  let picker: Picker | undefined
  const nothing = () => undefined
  const balancer = grpc.createLoadBalancer(
    { getLoadBalancerName: () => name },
    {
      updateState: (_state: number, made: Picker) => (picker = made),
      createSubchannel: nothing,
      requestReresolution: nothing,
      addChannelzChild: nothing,
      removeChannelzChild: nothing,
    },
  )
  if (balancer === null) throw new Error(`grpc-js has no ${name} any more`)
  setUp(balancer, grpc)
  balancer.calculateAndUpdateState()
  const made = picker!
  const args = { metadata: {}, extraPickInfo: {} }
  return () => made.pick(args)
}

export function grpcRoundRobin(n: number): PickFunction {
  return grpcPicker('round_robin', (balancer, grpc) => {
    balancer.children = servers(n).map((server) => readyChild(grpc, server))
  })
}

export function grpcWeightedRoundRobin(n: number): PickFunction {
  return grpcPicker('weighted_round_robin', (balancer, grpc) => {
    // The defaults, except that the weights hold from the start and do not expire.
    balancer.latestConfig = {
      getEnableOobLoadReport: () => false,
      getWeightExpirationPeriodMs: () => Infinity,
      getBlackoutPeriodMs: () => 0,
    }
    const now = new Date()
    const entry = (server: Server) => {
      return { child: readyChild(grpc, server), weight: server.weight, lastUpdated: now, nonEmptySince: now }
    }
    balancer.children = new Map(servers(n).map((server) => [`${server.host}:${server.port}`, entry(server)]))
  })
}
