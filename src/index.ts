/**
 * Checkups: load balancing inside a Node process. See {@link Checkups}.
 *
 * @module checkups
 */
export type { ChannelMessage, HeartbeatMessage, OutcomeMessage, PickMessage, StateMessage } from './channels.js'
export { Checkups, type ChangeOptions, type CheckupsOptions } from './checkups.js'
export type { Clock, Random, TimerHandle } from './clock.js'
export type { Cluster, LevelOptions, ServerDefaults, ServerOptions, Timeouts, UpstreamOptions } from './config.js'
export {
  CheckupsError,
  ConfigError,
  errorCodes,
  isCheckupsError,
  UnknownPeerError,
  UnknownUpstreamError,
  type Coded,
  type ErrorCode,
} from './errors.js'
export type { CheckupsEvents, ErrorEvent, Listener } from './events.js'
export {
  toCheckupsStatus,
  type CheckupsServerStatus,
  type CheckupsStatus,
  type HeartbeatStatus,
  type LevelStatus,
  type PassiveStatus,
  type ServerStatus,
  type UpstreamStatus,
} from './status.js'
export type { Balancer, BalancerEnv, BalancerFactory, Member, Request, Result } from './balancer/balancer.js'
export type { ConsistentHashOptions, StickyOptions } from './balancer/consistent-hash.js'
export type { FastestFirstOptions } from './balancer/fastest-first.js'
export type { LeastConnectionsOptions } from './balancer/least-connections.js'
export type { LocalFirstRings, NearLabel, Nearness, NearSubnets, RingStatus } from './balancer/local-first.js'
export type { PickFirstOptions } from './balancer/pick-first.js'
export type { RandomOptions } from './balancer/random.js'
export type { BalancerOption, LocalFirstOptions, NamedBalancer, WrrOptions } from './balancer/registry.js'
export type { Found } from './health/heartbeat.js'
export type { HasStatus, Outcome, RetryVerdict, StatusMap, Verdict } from './health/outcome.js'
export type { AjpProbeOptions } from './health/probe/ajp.js'
export type { CustomCheckContext, CustomCheckResult, CustomProbeOptions } from './health/probe/custom.js'
export type { FastcgiProbeOptions } from './health/probe/fastcgi.js'
export type { GrpcProbeOptions } from './health/probe/grpc.js'
export type { HttpProbeOptions } from './health/probe/http.js'
export type { ProbeStatuses } from './health/probe/lib/statuses.js'
export type { ProbeTlsOptions } from './health/probe/lib/tls-options.js'
export type { MysqlProbeOptions } from './health/probe/mysql.js'
export type { ProbeReport, ProbeStatus } from './health/probe/probe.js'
export type { RedisProbeOptions } from './health/probe/redis.js'
export type { ProbeOptions } from './health/probe/registry.js'
export type { TcpProbeOptions } from './health/probe/tcp.js'
export type { TlsProbeOptions } from './health/probe/tls.js'
export type { HealthWord } from './health/record.js'
export type { HeartbeatOptions, HeartbeatSchedule, NamedProbe, NoProbeOptions } from './health/schedule.js'
export type { CheckTimes, SchedulerStatus } from './health/scheduler.js'
export type { SourceErrorEvent, SourceEvent, SourceStatus, SourceUpEvent } from './source/follow.js'
export type { Refused, Source, SourceContext, SourceLists, SourceOptions } from './source/source.js'
export type {
  ChangeEvent,
  ChangeInfo,
  ChangeSource,
  PeerDrainedEvent,
  PeerEvent,
  UpstreamDeleteEvent,
  UpstreamUpdateEvent,
} from './upstream/change.js'
export type { Sync, SyncStatus } from './sync/sync.js'
export type { ServerChange, ServerTarget } from './upstream/edit.js'
export type { UpstreamHandle } from './upstream/handle.js'
export type { ConnectOptions, Peer, TcpConnectOptions, UnixConnectOptions } from './upstream/peer.js'
export type { Pick } from './upstream/pick.js'
export type { Attempt, AttemptContext } from './upstream/attempt.js'
export type { Backoff } from './upstream/backoff.js'
export type { RetryBudget, RetryBudgetOptions } from './upstream/budget.js'
export { formatAttempts } from './upstream/log.js'
export { AttemptsError, type ReadyOkOptions } from './upstream/retry.js'
export type { PeerAddress, SelectOptions, UnavailableReason } from './upstream/selection.js'
