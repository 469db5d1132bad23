/** Modules of Node that take long to load: loaded by the first heartbeat that needs them, not with the library. */

export const http = () => process.getBuiltinModule('node:http')
export const https = () => process.getBuiltinModule('node:https')
export const tls = () => process.getBuiltinModule('node:tls')
