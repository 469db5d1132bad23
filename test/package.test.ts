import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import * as core from '../src/index.js'
import * as httpProxy from '../src/adapter/http-proxy.js'
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
    'isCheckupsError',
    'toCheckupsStatus',
  ])
  expect(Object.keys(httpProxy)).toEqual(['balanceProxy'])
})
