import { mkdtempSync, rmSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import * as library from '../src/index.js'
import { Operations } from '../src/admin/operations.js'
import { ConsulStore } from '../src/source/consul.js'
import { nginxWriter } from '../src/source/nginx.js'
import { AttemptsError, Checkups, CheckupsError, errorCodes, isCheckupsError, type ErrorCode } from '../src/index.js'
import { clusterSync } from '../src/sync/index.js'
import { VirtualClock } from './support/virtual-clock.js'
import { address, harness, level, target } from './upstream/harness.js'

const abc = { ...level('abc'), maxFails: 0 }
const never = () => new Promise<never>(() => undefined)
const refused = () => {
  throw new Error('refused')
}

/** How each code comes about. */
const thrown: Record<ErrorCode, () => unknown> = {
  ERR_CHECKUPS_CONFIG: () => new Checkups({ upstreams: { api: {} } }),
  ERR_CHECKUPS_UNKNOWN_UPSTREAM: () => harness(abc).checkups.selectPeer('none'),
  ERR_CHECKUPS_UNKNOWN_PEER: () => harness(abc).feedback('z'),
  ERR_CHECKUPS_NO_PEER: () => harness({ servers: [] }).checkups.readyOk('api', refused),
  ERR_CHECKUPS_TRIES_EXCEEDED: () => harness(abc).checkups.readyOk('api', refused),
  ERR_CHECKUPS_STOPPED: () => harness(abc).checkups.readyOk('api', refused, { isFailure: () => 'stop' }),
  ERR_CHECKUPS_TIMEOUT: () => {
    const { checkups, clock } = harness(abc)
    void clock.advance(10)
    return checkups.readyOk('api', never, { timeout: 10 })
  },
  ERR_CHECKUPS_ABORTED: () => harness(abc).checkups.readyOk('api', never, { signal: AbortSignal.abort() }),
  ERR_CHECKUPS_RETRY_BUDGET: () => harness(abc).checkups.readyOk('api', refused, { budget: { tryRetry: () => false } }),
  ERR_CHECKUPS_UPSTREAM_DELETED: () => {
    const { checkups } = harness(abc)
    return checkups.readyOk('api', async () => {
      await checkups.deleteUpstream('api')
      throw new Error('refused')
    })
  },
  ERR_CHECKUPS_ATTEMPT_TIMEOUT: async () => {
    const { checkups, clock } = harness(level('a'))
    void clock.advance(10)
    try {
      return await checkups.readyOk('api', never, { tryTimeout: 10 })
    } catch (error) {
      throw (error as AttemptsError).errors[0]
    }
  },
  ERR_CHECKUPS_SOURCE: () => {
    const clock = new VirtualClock()
    const source = { name: 'store', options: { required: true, timeout: 10 }, watch: never }
    const started = new Checkups({ clock, sources: [source] }).start()
    void clock.advance(10)
    return started
  },
  ERR_CHECKUPS_CONSUL: () =>
    new ConsulStore({ address: '127.0.0.1:1', layout: 'upsync', prefix: 'upstreams' }).delete('api'),
  ERR_CHECKUPS_COMMAND: async () => {
    const folder = mkdtempSync(join(tmpdir(), 'checkups-errors-'))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const { checkups } = harness(abc)
    const path = join(folder, 'upstreams.conf')
    return new Promise((_, reject) => {
      const writer = nginxWriter({ checkups, upstreams: ['api'], path, command: ['false'], onError: reject })
      onTestFinished(() => writer.close())
    })
  },
  ERR_CHECKUPS_CONFLICT: () => harness(abc).checkups.deleteUpstream('api', { ifGeneration: 7 }),
  ERR_CHECKUPS_REFUSED: () => {
    const { checkups, clock } = harness(level('a'))
    const by = { caller: { name: 'me', role: 'write' }, via: 'v1' } as const
    const env = { checkups, clock, store: undefined, storeTimeout: 0, audit: () => undefined }
    return new Operations(env).removeServer('api', address('a'), by)
  },
  ERR_CHECKUPS_SYNC: () => clusterSync().processes(),
  ERR_CHECKUPS_CLOSED: async () => {
    const { checkups } = harness(abc)
    await checkups.close()
    return checkups.updateUpstream('api', [level('a')])
  },
}

const caught = async (act: () => unknown): Promise<unknown> => {
  try {
    return await act()
  } catch (error) {
    return error
  }
}

describe('the table of codes', () => {
  it.each(Object.entries(thrown) as [ErrorCode, () => unknown][])('%s is thrown', async (code, act) => {
    const error = await caught(act)
    expect(error).toBeInstanceOf(Error)
    expect(error).toMatchObject({ code })
    expect(isCheckupsError(error, code)).toBe(true)
    expect(isCheckupsError(error)).toBe(true)
    for (const other of Object.keys(errorCodes) as ErrorCode[])
      expect(isCheckupsError(error, other)).toBe(other === code)
  })

  it('has a row for each, and no other', () => {
    expect(Object.keys(errorCodes).sort()).toEqual(Object.keys(thrown).sort())
  })

  it('is the one of docs/errors.md', async () => {
    const text = await readFile(new URL('../docs/errors.md', import.meta.url), 'utf8')
    const rows = Array.from(text.matchAll(/^\| `(\w+)`\s*\| (.*?)\s*\|$/gm), ([, code, meaning]) => [code, meaning])
    expect(rows).toEqual(Object.entries(errorCodes))
  })
})

describe('an error', () => {
  it.each<[string, () => unknown, object]>([
    ['ConfigError', thrown.ERR_CHECKUPS_CONFIG, { path: 'upstreams.api' }],
    ['UnknownUpstreamError', thrown.ERR_CHECKUPS_UNKNOWN_UPSTREAM, { key: 'none', message: 'unknown upstream "none"' }],
    ['UnknownPeerError', thrown.ERR_CHECKUPS_UNKNOWN_PEER, { key: 'api', address: '10.0.0.1:26' }],
    ['CheckupsError', thrown.ERR_CHECKUPS_CLOSED, {}],
    ['AttemptsError', thrown.ERR_CHECKUPS_TRIES_EXCEEDED, { reason: undefined }],
  ])('%s says what it is', async (name, act, parts) => {
    const error = (await caught(act)) as Error
    expect(error).toMatchObject({ name, ...parts })
    expect(error).toBeInstanceOf(library[name as 'ConfigError'])
    expect(error instanceof CheckupsError || error instanceof AttemptsError).toBe(true)
    expect(String(error)).toBe(`${name}: ${error.message}`)
    expect(error.stack).toContain(error.message)
    // The brand and the name are nobody's business who prints it.
    expect(Object.keys(error)).not.toContain('name')
    const symbols = Object.getOwnPropertySymbols(error)
    expect(symbols.map(String)).toEqual(['Symbol(checkups.error)'])
    expect(symbols.filter((symbol) => Object.prototype.propertyIsEnumerable.call(error, symbol))).toEqual([])
  })

  it('is known by another copy of the package', async () => {
    const path = '../src/errors.js?copy'
    const copy = (await import(path)) as typeof library
    expect(copy.CheckupsError).not.toBe(CheckupsError)
    const ours = await caught(thrown.ERR_CHECKUPS_CONFIG)
    expect(ours).not.toBeInstanceOf(copy.ConfigError)
    expect(copy.isCheckupsError(ours, 'ERR_CHECKUPS_CONFIG')).toBe(true)
    expect(copy.isCheckupsError(ours, 'ERR_CHECKUPS_CLOSED')).toBe(false)
    const theirs = new copy.UnknownUpstreamError('x')
    expect(theirs).not.toBeInstanceOf(CheckupsError)
    expect(isCheckupsError(theirs, 'ERR_CHECKUPS_UNKNOWN_UPSTREAM')).toBe(true)
    const attempts = await caught(thrown.ERR_CHECKUPS_TRIES_EXCEEDED)
    expect(copy.isCheckupsError(attempts, 'ERR_CHECKUPS_TRIES_EXCEEDED')).toBe(true)
  })

  it.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a string', 'ERR_CHECKUPS_CONFIG'],
    ['another error', new Error('no')],
    ['one with the same code', Object.assign(new Error('no'), { code: 'ERR_CHECKUPS_CONFIG' })],
    ['a plain object', { code: 'ERR_CHECKUPS_CONFIG' }],
  ])('is not %s', (_, value) => {
    expect(isCheckupsError(value)).toBe(false)
    expect(isCheckupsError(value, 'ERR_CHECKUPS_CONFIG')).toBe(false)
  })

  it('carries its cause', () => {
    const cause = new Error('why')
    expect(new CheckupsError('ERR_CHECKUPS_CLOSED', 'closed', { cause }).cause).toBe(cause)
  })

  it('of an unknown peer names an address that was given in any spelling', () => {
    const { checkups } = harness(abc)
    expect(() => checkups.feedbackStatus('api', { ...target('a'), host: '[2001:DB8::0:1]' }, 'ok')).toThrow(
      'upstream "api" has no peer [2001:db8::1]:1',
    )
  })
})
