/** What Prometheus and Grafana make of the metrics: the format, the dashboard, the table in the docs. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Registry } from 'prom-client'
import { describe, expect, it, onTestFinished } from 'vitest'
import { collectMetrics, type MetricsOptions } from '../../src/admin/metrics.js'
import { Checkups, type Source } from '../../src/index.js'
import { freePort, installed, whereInstalled } from '../support/servers.js'

const ODD = 'say "hi",\nback\\slash {} \t日本'

const text = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), 'utf8')
const readDashboard = () => JSON.parse(text('examples/grafana/dashboard.json')) as Dashboard

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly gridPos: { readonly h: number; readonly w: number; readonly x: number; readonly y: number }
  readonly datasource?: { readonly uid: string }
  readonly targets?: readonly { readonly expr: string; readonly datasource: { readonly uid: string } }[]
}

interface Dashboard {
  readonly schemaVersion: number
  readonly panels: readonly Panel[]
  readonly templating: {
    readonly list: readonly { readonly name: string; readonly type: string; definition?: string }[]
  }
}

/** Everything that can happen has happened, and happens again at each call of `traffic`. */
async function busy(options: MetricsOptions = {}) {
  let lists = 0
  const source: Source = {
    name: 'hand',
    watch: async (apply, { sleep }) => {
      if (lists % 2 === 1) {
        lists++
        throw new Error('connection refused')
      }
      apply({ upstreams: { given: [{ servers: [`10.0.0.${1 + (lists++ % 3)}:80`, 'nonsense:x'] }] } })
      await sleep(20)
    },
  }
  const check = ({ port }: { port: number }) => port !== 82 || { status: 'unstable' as const }
  const heartbeat = { type: 'custom', interval: 50, fastInterval: 20, jitter: 0, check } as const
  const checkups = new Checkups({
    sources: [source],
    upstreams: new Map(
      ['api', ODD].map((key) => [
        key,
        { servers: ['10.0.0.1:81', '10.0.0.1:82', '10.0.0.1:83'], failTimeout: 10, heartbeat },
      ]),
    ),
  })
  const register = new Registry()
  const metrics = await collectMetrics(checkups, { register, maxPeers: 8, ...options })
  await checkups.start()
  const traffic = async () => {
    for (const key of ['api', ODD]) {
      for (let i = 0; i < 6; i++) checkups.acquirePeer(key)!.done(i === 5 ? 'neutral' : 'ok')
      await checkups.readyOk(key, ({ port }) => port !== 81, { tries: 3 }).catch(() => undefined)
      checkups.selectPeer(key, { clusterKey: 'nowhere' })
    }
  }
  await traffic()
  // Some heartbeats, and a source that has been there.
  await expect.poll(async () => /heartbeats_total.*found="unstable"} [1-9]/.test(await register.metrics())).toBe(true)
  await expect.poll(async () => /source_changes_total.* [1-9]/.test(await register.metrics())).toBe(true)
  onTestFinished(async () => {
    metrics.close()
    await checkups.close()
  })
  return { checkups, register, traffic }
}

/** What a program prints to both its outputs, and its exit code. */
function run(program: string, args: readonly string[], input = ''): Promise<{ code: number; output: string }> {
  return new Promise((resolve) => {
    const child = execFile(installed(program)!, args, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code), output: stdout + stderr })
    })
    child.stdin!.end(input)
  })
}

function folder(): string {
  const path = mkdtempSync(join(tmpdir(), 'checkups-metrics-'))
  onTestFinished(() => rmSync(path, { recursive: true, force: true }))
  return path
}

const expressions = () => readDashboard().panels.flatMap(({ targets = [] }) => targets.map(({ expr }) => expr))
/** As Grafana sends them, with all upstreams and processes chosen. */
const sent = (expr: string) => expr.replaceAll('$__rate_interval', '5s').replaceAll(/\$(upstream|instance)\b/g, '.*')

describe('the table of docs/metrics.md', () => {
  const rows = [
    ...text('docs/metrics.md').matchAll(/^\| `(checkups_\w+)` *\| (\w+) *\| ([\w, ]*?) *\| (.+?) *\|$/gm),
  ].map(([, name, type, labels, meaning]) => ({ name: name!, type: type!, labels: labels!, meaning: meaning! }))

  it('names every metric with its type', async () => {
    const { register } = await busy()
    const there = register.getMetricsAsArray().map(({ name, type }) => [name, type as unknown])
    expect(rows.map(({ name, type }) => [name, type])).toEqual(there)
    expect(rows.every(({ meaning }) => meaning.length > 5)).toBe(true)
  })

  it('names the labels that they have', async () => {
    const { register } = await busy()
    for (const { name, values } of await register.getMetricsAsJSON()) {
      const labels = new Set(values.flatMap((value) => Object.keys(value.labels)))
      labels.delete('le')
      const said = rows.find((row) => row.name === name)!.labels
      expect([name, [...labels].sort()]).toEqual([name, said === '' ? [] : said.split(', ').sort()])
      expect(values.length, name).toBeGreaterThan(0)
    }
  })
})

describe('the dashboard', () => {
  it('asks for metrics that there are, and for all of them', async () => {
    const { register } = await busy()
    const series = new Set((await register.metrics()).split('\n').map((line) => line.replace(/[{ ].*/, '')))
    const { templating } = readDashboard()
    const asked = [...expressions(), ...templating.list.map(({ definition = '' }) => definition)].join('\n')
    const names = new Set(asked.match(/\bcheckups_\w+/g))
    expect([...names].filter((name) => !series.has(name))).toEqual([])
    const metrics = register.getMetricsAsArray().map(({ name }) => name)
    const bare = new Set([...names].map((name) => name.replace(/_(bucket|sum|count)$/, '')))
    expect(metrics.filter((name) => !bare.has(name))).toEqual([])
  })

  it('asks for labels and values that they have', async () => {
    const { register } = await busy()
    const all = await register.getMetricsAsJSON()
    for (const expr of expressions()) {
      for (const [, name, matchers] of expr.matchAll(/\b(checkups_\w+)\{([^}]*)\}/g)) {
        const metric = all.find((one) => one.name === name!.replace(/_(bucket|sum|count)$/, ''))!
        for (const [, label, operator, value] of matchers!.matchAll(/(\w+)(=~|!~|!=|=)"([^"]*)"/g)) {
          if (label === 'instance') continue
          const values = metric.values.map(({ labels }) => String((labels as Record<string, unknown>)[label!]))
          expect(values, expr).not.toEqual([])
          if (value!.startsWith('$')) continue
          const wanted = operator!.includes('~') ? new RegExp(`^(?:${value})$`) : value
          expect(
            values.some((one) => (wanted instanceof RegExp ? wanted.test(one) : one === wanted)),
            expr,
          ).toBe(true)
        }
      }
    }
  })

  it('is whole: every panel has its place, its own id and the chosen data source', () => {
    const { panels, schemaVersion, templating } = readDashboard()
    expect(schemaVersion).toBeGreaterThanOrEqual(39)
    expect(templating.list.map(({ name, type }) => [name, type])).toEqual([
      ['datasource', 'datasource'],
      ['upstream', 'query'],
      ['instance', 'query'],
    ])
    expect(panels.filter(({ type }) => type === 'row').map(({ title }) => title)).toEqual([
      ...['Now', 'Traffic', 'Failures', 'Latency', 'Peers', 'Bans', 'Heartbeats', 'Sources'],
    ])
    expect(new Set(panels.map(({ id }) => id)).size).toBe(panels.length)
    const taken = new Set<string>()
    for (const { type, title, gridPos, datasource, targets = [] } of panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++) {
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(taken.has(`${x} ${y}`), title).toBe(false)
          taken.add(`${x} ${y}`)
        }
      }
      if (type === 'row') continue
      expect(targets.length, title).toBeGreaterThan(0)
      for (const uid of [datasource?.uid, ...targets.map((target) => target.datasource.uid)]) {
        expect(uid, title).toBe('${datasource}')
      }
    }
  })
})

whereInstalled('promtool', 'promtool', () => {
  it.each<[string, MetricsOptions]>([
    ['as they are', {}],
    ['without peers', { peers: false }],
    ['named', { name: 'edge "1"' }],
    ['of another prefix', { prefix: 'gateway_upstreams_' }],
  ])('finds nothing to say about the metrics %s', async (_, options) => {
    const { register } = await busy(options)
    expect(await run('promtool', ['check', 'metrics'], await register.metrics())).toEqual({ code: 0, output: '' })
  })

  it('would say something', async () => {
    const bad = '# HELP x_total X.\n# TYPE x_total gauge\nx_total 1\n'
    expect((await run('promtool', ['check', 'metrics'], bad)).output).toContain('should not have "_total" suffix')
  })

  const check = async (list: readonly string[]) => {
    const file = join(folder(), 'rules.yml')
    const rules = list.map((expr, i) => ({ record: `panel:${i}`, expr }))
    // JSON is YAML.
    writeFileSync(file, JSON.stringify({ groups: [{ name: 'dashboard', rules }] }))
    return run('promtool', ['check', 'rules', file])
  }

  it('understands every expression of the dashboard', async () => {
    const list = expressions().map(sent)
    const { code, output } = await check(list)
    expect([code, output]).toEqual([0, expect.stringContaining(`SUCCESS: ${list.length} rules found`)])
    expect((await check(['sum(rate(x[5m])'])).code).not.toBe(0)
  })

  it('understands every expression of the docs', async () => {
    const [, block] = /```text\n(# more than[^]*?)```/.exec(text('docs/metrics.md'))!
    const list = block!.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
    expect(list.length).toBeGreaterThan(3)
    expect((await check(list)).output).toContain(`SUCCESS: ${list.length} rules found`)
  })
})

whereInstalled('prometheus', 'prometheus', () => {
  interface Answer<T> {
    readonly status: string
    readonly data: T
  }

  /** Scrapes the register five times a second. */
  async function startPrometheus(register: Registry) {
    const exporter = createServer((_req, res) => {
      void register.metrics().then((body) => res.setHeader('content-type', register.contentType).end(body))
    }).listen(0, '127.0.0.1')
    await once(exporter, 'listening')
    const target = `127.0.0.1:${(exporter.address() as AddressInfo).port}`
    const [port, home] = [await freePort(), folder()]
    const file = join(home, 'prometheus.yml')
    const scrapes = [{ job_name: 'checkups', static_configs: [{ targets: [target] }] }]
    const global = { scrape_interval: '200ms', scrape_timeout: '200ms' }
    writeFileSync(file, JSON.stringify({ global, scrape_configs: scrapes }))
    const args = [`--config.file=${file}`, `--storage.tsdb.path=${home}/data`, `--web.listen-address=127.0.0.1:${port}`]
    const child = spawn(installed('prometheus')!, args, { stdio: 'ignore' })
    const ended = once(child, 'exit')
    onTestFinished(async () => {
      child.kill('SIGKILL')
      await ended
      exporter.close().closeAllConnections()
    })
    const ask = async <T>(path: string, query: Record<string, string> = {}): Promise<T> => {
      const url = `http://127.0.0.1:${port}/api/v1/${path}?${new URLSearchParams(query).toString()}`
      const { data } = (await (await fetch(url)).json()) as Answer<T>
      return data
    }
    return { ask, target }
  }

  it('takes them as they are, and has an answer to all that the dashboard asks', { timeout: 60_000 }, async () => {
    const { register, traffic } = await busy()
    const { ask, target } = await startPrometheus(register)
    const waits = { timeout: 30_000, interval: 200 }
    interface Targets {
      readonly activeTargets: readonly { readonly health: string; readonly lastError: string }[]
    }
    const health = async () => (await ask<Targets>('targets').catch(() => undefined))?.activeTargets[0]
    await expect.poll(health, waits).toMatchObject({ health: 'up', lastError: '' })
    expect(new Set(await ask<string[]>('label/upstream/values'))).toEqual(new Set(['api', 'given', ODD]))
    expect(await ask('label/instance/values')).toEqual([target])

    interface Found {
      readonly result: readonly { readonly value: readonly [number, string] }[]
    }
    /** Those that have no answer yet, or one that is no number. */
    const open = async () => {
      await traffic()
      const answers = await Promise.all(
        expressions().map(async (expr) => [expr, await ask<Found>('query', { query: sent(expr) })] as const),
      )
      return answers
        .filter(([, { result }]) => !result.some(({ value }) => Number.isFinite(Number(value[1]))))
        .map(([expr]) => expr)
    }
    await expect.poll(open, waits).toEqual([])
    // Of a busy machine one scrape may take too long: the next one does not.
    await expect.poll(health, waits).toMatchObject({ health: 'up', lastError: '' })
  })
})
