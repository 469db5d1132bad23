/**
 * The admin interface: see and change upstreams over HTTP, with a page for people, and the interfaces of the ancestors.
 *
 * @module checkups/admin
 */
export type { AdminToken, AdminUser, Authorize } from './access.js'
export type { AdminAction, AuditEvent } from './audit.js'
export { FileStore, type FileStoreOptions } from './file-store.js'
export {
  createAdminHandler,
  type AdminHandler,
  type AdminInterfaces,
  type AdminMetrics,
  type AdminOptions,
  type SharedDictOptions,
} from './handler.js'
export type { Json } from './lib/describe.js'
export type { Role } from './lib/route.js'
export { RefusedError, type RefusalReason } from './refused.js'
export { createAdminServer, type AdminServer, type AdminServerOptions } from './server.js'
export type { Stored, UpstreamStore } from './store.js'
