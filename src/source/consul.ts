/**
 * Consul: upstreams from its key-value store and its services, changes written back, and Slardar's dynamic arguments.
 *
 * @module checkups/consul
 */
export { consulConfig, type ConsulConfig, type ConsulConfigOptions } from './consul/config.js'
export type { ConsulConnectionOptions, ConsulTlsOptions } from './consul/connection.js'
export { ConsulError } from './consul/error.js'
export { consulFromUpsync } from './consul/from-nginx.js'
export { consulKv, type ConsulKvOptions, type ConsulQueryOptions } from './consul/kv.js'
export { consulServices, type ConsulServiceOptions, type ConsulServicesOptions } from './consul/services.js'
export { parseSlardarValue, printSlardarValue, type SlardarValue } from './consul/slardar.js'
export { ConsulStore, type ConsulStoreOptions, type StoreResult } from './consul/store.js'
export { parseUpsyncValue, printUpsyncValue } from './consul/upsync.js'
export type { WireServer } from './consul/wire.js'
export type { NginxUpsync } from './nginx/upsync.js'
export type { Pem } from '../health/probe/lib/tls-options.js'
