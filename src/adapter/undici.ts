/**
 * Balanced requests with undici: a dispatcher for its `request` and for `fetch`, an interceptor for an Agent of yours, and a
 * reverse proxy on the same connections. Needs the package `undici`, version 7.
 *
 * @module checkups/undici
 */
export type { HashHeader, HashKeyOption } from './http.js'
export { balance, createDispatcher } from './undici/dispatcher.js'
export type { ClientOptions, ConnectOptions, Protocol } from './undici/connections.js'
export type { BalanceOptions, DispatcherOptions, InterceptorOptions } from './undici/options.js'
export { createProxyHandler } from './proxy.js'
export type { GatewayOptions, ProxiedRequest, ProxyFailure, RepeatOptions } from './options.js'
export type { ForwardedFields, ProxyHandler, ProxyOptions } from './proxy.js'
