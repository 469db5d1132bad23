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

describe('the packed package, installed in an empty folder', () => {
  it('is imported by a module', () => {
    const source = `import { Checkups } from 'checkups'\nimport { balanceProxy } from 'checkups/http-proxy'\n${program}`
    expect(installation.run('module.mjs', source)).toBe('10.0.0.1:80 function\n')
  })

  it('is required by plain CommonJS', () => {
    const source = `const { Checkups } = require('checkups')\nconst { balanceProxy } = require('checkups/http-proxy')\n${program}`
    expect(installation.run('plain.cjs', source)).toBe('10.0.0.1:80 function\n')
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
