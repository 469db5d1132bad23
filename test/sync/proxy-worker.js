/** A worker of a cluster that proxies: it and its siblings listen on one port. What it is told to change, it changes. */
import cluster from 'node:cluster'
import { createServer } from 'node:http'
import httpProxy from 'http-proxy'
import { balanceProxy } from '../../dist/adapter/http-proxy.js'
import { Checkups } from '../../dist/index.js'
import { clusterSync } from '../../dist/sync/index.js'

const checkups = new Checkups({ sync: clusterSync() })
await checkups.start()
const id = String(cluster.worker.id)
const balanced = balanceProxy(checkups, httpProxy.createProxyServer(), { key: () => 'api' })
const server = createServer((req, res) => {
  res.setHeader('x-worker', id)
  balanced.web(req, res)
})
server.keepAliveTimeout = 120_000
// Siblings that listen at any port listen at the same one.
server.listen(0, '127.0.0.1', () => process.send({ listening: true }))

process.on('message', (message) => {
  if ('view' in message) {
    const configs = [...checkups.getUpstreams()].map(([key, config]) => [key, JSON.stringify(config.cluster)])
    const generations = checkups.getStatus().upstreams.map(({ key, generation }) => [key, generation])
    process.send({ view: [configs.sort(), generations.sort()] })
  } else if ('ask' in message) {
    const { ask, key, update } = message
    checkups.updateUpstream(key, update).then(
      (generation) => process.send({ asked: ask, generation }),
      (error) => process.send({ asked: ask, error: String(error) }),
    )
  }
})
