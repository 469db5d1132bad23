// A worker of main.ts.
import { createServer } from 'node:http'
import httpProxy from 'http-proxy'
import { Checkups } from 'checkups'
import { clusterSync } from 'checkups/cluster'
import { balanceProxy } from 'checkups/http-proxy'

const checkups = new Checkups({ sync: clusterSync() })
await checkups.start()

const gateway = balanceProxy(checkups, httpProxy.createProxyServer(), { key: () => 'shop' })
createServer(gateway.web).listen(0, '127.0.0.1')

process.on('message', ({ add }: { add?: string }) => {
  if (add !== undefined) void checkups.addServer('shop', add)
})
