import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as core from '../src/index.js'
import * as admin from '../src/admin/index.js'
import * as metrics from '../src/admin/metrics.js'
import * as httpAgent from '../src/adapter/http-agent.js'
import * as net from '../src/adapter/net.js'
import * as undici from '../src/adapter/undici.js'
import * as httpProxy from '../src/adapter/http-proxy.js'
import * as consul from '../src/source/consul.js'
import * as dns from '../src/source/dns.js'
import * as file from '../src/source/file.js'
import * as nginx from '../src/source/nginx.js'
import * as sync from '../src/sync/index.js'
import { installPacked, type Installation } from './support/installed.js'

let installation: Installation
beforeAll(() => {
  installation = installPacked()
})
afterAll(() => installation.remove())

const program = `
  const checkups = new Checkups({ upstreams: { api: { servers: ['10.0.0.1:80'] } } })
  console.log(checkups.selectPeer('api').address, typeof balanceProxy)
`

/** Peak EWMA without any repair: an error in a millisecond is its fastest answer. */
const simulation = `
  import { simulate, constant, failing, between } from 'checkups/testing'
  const naive = ({ random }) => {
    let members = []
    const load = (member) => (member.data ?? 0) * (member.inFlight + 1)
    return {
      timed: true,
      update: (list) => (members = list),
      pick: () => {
        const up = members.filter(({ available }) => available)
        const [one, other] = [0, 1].map(() => up[Math.floor(random() * up.length)])
        return load(other) < load(one) ? other : one
      },
      report: (member, { ms }) => { member.data = Math.max(ms, (member.data ?? ms) * 0.9 + ms * 0.1) },
    }
  }
  const fast503s = (balancer) => simulate({
    peers: [constant(120), between(3_000, 60_000, failing(503, 1), constant(120))],
    balancer, upstream: { maxFails: 0 }, load: { rate: 500 }, duration: 90_000,
    retries: { count: 4, statuses: [503] , exclude: false },
  }).successRate
  console.log(fast503s('fast' + 'est-first') > 0.9999, fast503s(naive) > 0.9)
`

describe('the packed package, installed in an empty folder', () => {
  it('is imported by a module', () => {
    const source = `import { Checkups } from 'checkups'\nimport { balanceProxy } from 'checkups/http-proxy'\n${program}`
    expect(installation.run('module.mjs', source)).toBe('10.0.0.1:80 function\n')
  })

  it('is required by plain CommonJS', () => {
    const source = `const { Checkups } = require('checkups')\nconst { balanceProxy } = require('checkups/http-proxy')\n${program}`
    expect(installation.run('plain.cjs', source)).toBe('10.0.0.1:80 function\n')
  })

  it('tells a good policy from a wrong one, by a scenario', () => {
    expect(installation.run('simulation.mjs', simulation)).toBe('true false\n')
  })

  it('loads no HTTP and no TLS with its core', () => {
    const source = `
      import 'checkups'
      console.log(process.moduleLoadList.filter((name) => /^NativeModule (_?http|_?tls)/.test(name)))
    `
    expect(installation.run('light.mjs', source)).toBe('[]\n')
  })

  it('needs none of the optional packages to be imported, also by its subpaths', () => {
    const source = `
      for (const name of ['admin', 'cluster', 'consul', 'dns', 'file', 'http-agent', 'metrics', 'net', 'nginx', 'testing']) {
        console.log(name, Object.keys(await import('checkups/' + name)).length > 0)
      }
      const loaded = Object.keys((await import('node:module')).default._cache ?? {})
      console.log(loaded.filter((path) => /ioredis|mysql2|yaml|dns-packet|prom-client/.test(path)))
    `
    expect(installation.run('subpaths.mjs', source)).toBe(
      'admin true\ncluster true\nconsul true\ndns true\nfile true\nhttp-agent true\nmetrics true\nnet true\nnginx true\ntesting true\n[]\n',
    )
  })

  it('says which package a probe or a source lacks', () => {
    const source = `
      import { Checkups } from 'checkups'
      import { file } from 'checkups/file'
      import { collectMetrics } from 'checkups/metrics'
      import { writeFileSync } from 'node:fs'
      writeFileSync('a.yaml', 'api: [{ servers: ["10.0.0.1:80"] }]')
      const upstreams = { db: { servers: ['127.0.0.1:1'], heartbeat: { type: 'redis', defaultDown: true } } }
      const checkups = new Checkups({ upstreams, sources: [file({ path: 'a.yaml' })] })
      checkups.on('source:error', ({ error }) => console.log(error.message))
      await checkups.start()
      console.log(checkups.getStatus().upstreams[0].levels[0].servers[0].heartbeat.message)
      await collectMetrics(checkups).catch((error) => console.log(error.message))
      await checkups.close()
    `
    expect(installation.run('missing.mjs', source)).toMatch(
      /needs the package yaml: npm install yaml\n.*needs the package ioredis: npm install ioredis\n.*needs the package prom-client: npm install prom-client\n$/,
    )
  })
})

it('exports these names', () => {
  expect(Object.keys(core).sort()).toEqual([
    'AttemptsError',
    'Checkups',
    'CheckupsError',
    'ConfigError',
    'UnknownPeerError',
    'UnknownUpstreamError',
    'errorCodes',
    'formatAttempts',
    'isCheckupsError',
    'toCheckupsStatus',
  ])
  expect(Object.keys(admin).sort()).toEqual(['FileStore', 'RefusedError', 'createAdminHandler', 'createAdminServer'])
  expect(Object.keys(metrics)).toEqual(['collectMetrics'])
  expect(Object.keys(sync).sort()).toEqual(['clusterSync', 'socketSync', 'threadSync'])
  expect(Object.keys(httpAgent)).toEqual(['createAgent'])
  expect(Object.keys(net).sort()).toEqual(['connect', 'createTcpProxy'])
  expect(Object.keys(undici).sort()).toEqual(['balance', 'createDispatcher', 'createProxyHandler'])
  expect(Object.keys(httpProxy)).toEqual(['balanceProxy'])
  expect(Object.keys(consul).sort()).toEqual([
    'ConsulError',
    'ConsulStore',
    'consulConfig',
    'consulFromUpsync',
    'consulKv',
    'consulServices',
    'parseSlardarValue',
    'parseUpsyncValue',
    'printSlardarValue',
    'printUpsyncValue',
  ])
  expect(Object.keys(dns)).toEqual(['dns'])
  expect(Object.keys(file)).toEqual(['file'])
  expect(Object.keys(nginx).sort()).toEqual([
    'NginxCommandError',
    'NginxSyntaxError',
    'nginx',
    'nginxWriter',
    'parseNginx',
    'printNginx',
    'readNginx',
  ])
})
