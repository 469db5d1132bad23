import { readFileSync } from 'node:fs'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import { createRequire } from 'node:module'
import type { AddressInfo } from 'node:net'
import type { AxeResults } from 'axe-core'
import type { Browser, BrowserContextOptions, Page } from 'playwright-core'
import { afterAll, beforeAll, expect, it, onTestFinished } from 'vitest'
import { createAdminServer, type AdminServerOptions } from '../../../src/admin/index.js'
import { Checkups, type CheckupsOptions } from '../../../src/index.js'
import { ownHost, whereInstalled } from '../../support/servers.js'
import { READ, WRITE } from '../support.js'
import { CHROMIUM, isLive, launch, open } from './browser.js'
import { crowd, scene } from './scene.js'

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8')

const tokens = [READ, WRITE]
/** Milliseconds of bans that last until the test is over. */
const LONG = 600_000

whereInstalled('the page in a browser', CHROMIUM, () => {
  let browser: Browser
  beforeAll(async () => {
    browser = await launch()
  })
  afterAll(() => browser.close())

  async function serve(options: CheckupsOptions | Checkups, serverOptions: AdminServerOptions = {}) {
    const checkups = options instanceof Checkups ? options : new Checkups(options)
    let server = await createAdminServer(checkups, { port: 0, ...serverOptions })
    onTestFinished(async () => {
      await server.close()
      await checkups.close()
    })
    return {
      checkups,
      url: server.url,
      stop: () => server.close(),
      restart: async () => {
        server = await createAdminServer(checkups, { ...serverOptions, port: Number(new URL(server.url).port) })
      },
    }
  }

  /** Whatever goes wrong in the page fails the test. */
  async function look(url: string, options: BrowserContextOptions = {}) {
    const { page, wrong } = await open(browser, url, options)
    onTestFinished(async () => {
      await page.context().close()
      expect(wrong).toEqual([])
    })
    return page
  }

  async function login(page: Page, { token }: { readonly token: string }) {
    await page.getByLabel('Token').fill(token)
    await page.getByRole('button', { name: 'Log in' }).click()
    await isLive(page)
  }

  const row = (page: Page, address: string) =>
    page.locator('tr.peer', { has: page.getByText(address, { exact: true }) })
  const word = (page: Page, address: string, is: string) =>
    page.locator(`tr.peer[data-word=${is}]`, { has: page.getByText(address, { exact: true }) }).waitFor()

  async function backend(): Promise<{ server: Server; address: string; kill: () => Promise<void> }> {
    const server = createServer((_, res) => void res.end('ok')).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const kill = async () => {
      if (!server.listening) return
      const closed = once(server, 'close')
      server.close()
      server.closeAllConnections()
      await closed
    }
    onTestFinished(kill)
    return { server, address: `127.0.0.1:${(server.address() as AddressInfo).port}`, kill }
  }

  it('a backend that is killed is down, with the reason, without the page being read again', async () => {
    const [one, other] = [await backend(), await backend()]
    const { checkups, url } = await serve({
      upstreams: {
        api: {
          servers: [one.address, other.address],
          heartbeat: { type: 'http', interval: 100, timeout: 1_000, fall: 2 },
        },
      },
    })
    await checkups.start()
    const page = await look(url)
    await isLive(page)
    await page.locator('td.beat', { hasText: 'passes' }).nth(1).waitFor()
    await page.evaluate('globalThis.isSame = true')
    expect(await page.locator('h1').innerText()).toBe('All 2 peers are up')
    await one.kill()
    await word(page, one.address, 'down')
    expect(await row(page, one.address).innerText()).toMatch(/down.*connection refused.*fails/s)
    await page.locator('h1', { hasText: /1\sdown of 2 peers/ }).waitFor()
    expect(await page.locator('#problems').innerText()).toContain(one.address)
    expect(await page.locator('#events li').first().innerText()).toMatch(/down: connection refused/)
    // Said to whoever does not see it.
    await page.locator('#say', { hasText: `${one.address} of api: down: ` }).waitFor({ state: 'attached' })
    expect(await page.title()).toMatch(/1\sdown of 2 peers · Checkups/)
    // The last one is kept, and called what it is.
    await other.kill()
    await word(page, other.address, 'unstable')
    expect(await row(page, other.address).innerText()).toContain('kept, for nobody is well: connection refused')
    expect(await page.evaluate('isSame')).toBe(true)
  })

  it('what is measured comes and goes', async () => {
    const { checkups, url } = await serve({
      upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'], maxFails: 0 } },
    })
    const page = await look(url)
    await isLive(page)
    let n = 0
    const timer = setInterval(() => {
      const pick = checkups.acquirePeer('api')!
      pick.done(n++ % 10 === 0 ? 'failed' : 'ok')
    }, 20)
    onTestFinished(() => clearInterval(timer))
    await page
      .locator('tr.peer .rate > span', { hasText: /^[1-9]/ })
      .nth(1)
      .waitFor()
    await page.locator('header .failed > span', { hasText: /^[1-9].*%$/ }).waitFor()
    expect(await page.locator('tr.peer .rate path').first().getAttribute('d')).toMatch(/^M\d/)
    expect(await page.locator('tr.peer .latency').first().innerText()).toContain('ms')
  })

  it('drain by the button takes effect on picks', async () => {
    const { checkups, url } = await serve({ upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'] } } })
    const page = await look(url)
    await isLive(page)
    await page.getByRole('button', { name: 'Change 127.0.0.1:1' }).click()
    await page.locator('dialog').getByRole('radio', { name: 'Drain' }).check()
    await page.getByRole('button', { name: 'Drain 127.0.0.1:1' }).click()
    await word(page, '127.0.0.1:1', 'drain')
    for (let i = 0; i < 100; i++) expect(checkups.selectPeer('api')!.address).toBe('127.0.0.1:2')
    await page.locator('#done', { hasText: 'Done: Drain 127.0.0.1:1. It is in this process only' }).waitFor()
    expect(await row(page, '127.0.0.1:1').innerText()).toContain('by 127.0.0.1')

    await page.getByRole('button', { name: 'Change 127.0.0.1:1' }).click()
    await page.locator('dialog').getByRole('radio', { name: 'Undrain' }).check()
    await page.getByRole('button', { name: 'Undrain 127.0.0.1:1' }).click()
    await word(page, '127.0.0.1:1', 'up')
    const picked = new Set(Array.from({ length: 4 }, () => checkups.selectPeer('api')!.address))
    expect(picked.size).toBe(2)
  })

  it('down, weight and reset do what they say, and warn before', async () => {
    const { checkups, url } = await serve({
      upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'], failTimeout: LONG } },
    })
    const page = await look(url)
    await isLive(page)
    const change = async (address: string, choice: string) => {
      await page.getByRole('button', { name: `Change ${address}` }).click()
      await page.getByRole('radio', { name: choice }).check()
    }
    const agree = async () => {
      await page.locator('dialog .primary').click()
      await page.locator('dialog').waitFor({ state: 'hidden' })
    }
    await change('127.0.0.1:2', 'Set its weight')
    await page.getByRole('spinbutton', { name: 'Weight' }).fill('7')
    await agree()
    await page.locator('tr.peer td.weight', { hasText: '7' }).waitFor()
    expect(checkups.getStatus().upstreams[0]!.levels[0]!.servers[1]!.server.weight).toBe(7)

    checkups.feedbackStatus('api', { host: '127.0.0.1', port: 1 }, 'failed')
    await word(page, '127.0.0.1:1', 'banned')
    expect(await row(page, '127.0.0.1:1').locator('progress').getAttribute('max')).toBe(String(LONG))
    await change('127.0.0.1:2', 'Take down')
    expect(await page.locator('dialog .warning').innerText()).toMatch(/^Nobody else of api is usable/)
    await page.keyboard.press('Escape')
    await change('127.0.0.1:1', 'Reset its marks')
    await agree()
    await word(page, '127.0.0.1:1', 'up')
    await change('127.0.0.1:2', 'Take down')
    expect(await page.locator('dialog .warning').innerText()).toBe('')
    await agree()
    await word(page, '127.0.0.1:2', 'hand')
  })

  it('what is refused is said in the dialog, which stays', async () => {
    const { checkups, url } = await serve({ upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'] } } })
    const page = await look(url)
    await isLive(page)
    await page.getByRole('button', { name: 'Change 127.0.0.1:1' }).click()
    await page.locator('dialog').getByRole('radio', { name: 'Drain' }).check()
    await checkups.deleteUpstream('api')
    await page.locator('dialog .primary').click()
    await page.getByRole('alert').filter({ hasText: 'api' }).waitFor()
    expect(await page.locator('dialog .primary').isEnabled()).toBe(true)
    await page.keyboard.press('Escape')
    await page.locator('#nobody', { hasText: 'There are no upstreams.' }).waitFor()
  })

  it('all of it by the keyboard: the dialog closes with Escape, and the focus is where it was', async () => {
    const { checkups, url } = await serve({ upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'] } } })
    const page = await look(url)
    await isLive(page)
    const focused = () =>
      page.evaluate<string>('document.activeElement.getAttribute("aria-label") ?? document.activeElement.id')
    await page.keyboard.press('Tab')
    expect(await page.evaluate('document.activeElement.className')).toBe('skip')
    await page.keyboard.press('/')
    expect(await page.evaluate('document.activeElement.name')).toBe('q')
    for (let i = 0; i < 10 && (await focused()) !== 'Change 127.0.0.1:1'; i++) await page.keyboard.press('Tab')
    expect(await focused()).toBe('Change 127.0.0.1:1')
    await page.keyboard.press('Enter')
    expect(await page.locator('dialog').isVisible()).toBe(true)
    await page.keyboard.press('Escape')
    expect(await page.locator('dialog').isVisible()).toBe(false)
    expect(await focused()).toBe('Change 127.0.0.1:1')
    await page.keyboard.press('Enter')
    await page.keyboard.press('Space')
    await page.keyboard.press('ArrowDown')
    expect(await page.locator('dialog .primary').innerText()).toBe('Take down 127.0.0.1:1')
    await page.keyboard.press('Enter')
    await word(page, '127.0.0.1:1', 'hand')
    // The row was drawn anew meanwhile.
    await expect.poll(focused).toBe('Change 127.0.0.1:1')
    expect(checkups.selectPeer('api')!.address).toBe('127.0.0.1:2')
  })

  it('says when the server is away, and goes on when it is back', async () => {
    const { checkups, url, stop, restart } = await serve(
      { upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'], failTimeout: LONG } } },
      { host: ownHost() },
    )
    const page = await look(url)
    await isLive(page)
    await stop()
    const banner = page.locator('#offline')
    await banner.waitFor()
    expect(await banner.innerText()).toMatch(/^Disconnected since \d\d:\d\d:\d\d\. What is shown is of then\./)
    expect(await page.locator('#link').innerText()).toBe('Disconnected')
    await page.locator('#say', { hasText: 'Disconnected' }).waitFor({ state: 'attached' })
    checkups.feedbackStatus('api', { host: '127.0.0.1', port: 1 }, 'failed')
    await checkups.addServer('api', '127.0.0.1:3')
    await restart()
    await isLive(page)
    expect(await banner.isVisible()).toBe(false)
    await word(page, '127.0.0.1:1', 'banned')
    await word(page, '127.0.0.1:3', 'up')
    expect(await page.locator('tr.peer').count()).toBe(3)
    // And is as live as before.
    await checkups.setServer('api', '127.0.0.1:3', { drain: true })
    await word(page, '127.0.0.1:3', 'drain')
  })

  it('a session that is over is said, with a way back in', async () => {
    const options = { tokens, path: '/ops', host: ownHost() }
    const { url, stop, restart } = await serve({ upstreams: { api: { servers: ['127.0.0.1:1'] } } }, options)
    const page = await look(`${url}ops/`)
    await login(page, READ)
    await stop()
    await page.locator('#offline').waitFor()
    await restart()
    await page.getByRole('link', { name: 'log in again' }).click()
    await login(page, READ)
  })

  it('follows upstreams and peers that come, move and go', async () => {
    const { checkups, url } = await serve({ upstreams: { api: { servers: ['127.0.0.1:1'] } } })
    const page = await look(url)
    await isLive(page)
    const shown = () =>
      page.evaluate<string[]>(`Array.from(document.querySelectorAll('section.upstream'), (section) =>
        Array.from(section.querySelectorAll('h3 .name, .level th, tr.peer .name'), (one) => one.textContent).join(' '))`)
    await checkups.updateUpstream('web', {
      cluster: [{ servers: ['127.0.0.2:1', '127.0.0.2:2'] }, { servers: ['127.0.0.2:3'] }],
    })
    await expect
      .poll(shown)
      .toEqual(['api 127.0.0.1:1', 'web Level 1 serves 127.0.0.2:1 127.0.0.2:2 Level 2 stands by 127.0.0.2:3'])
    await checkups.updateUpstream('web', { cluster: [{ servers: ['127.0.0.2:2', '127.0.0.2:9', '127.0.0.2:1'] }] })
    await checkups.updateUpstream('api', [{ servers: ['127.0.0.1:3', '127.0.0.1:1'] }])
    await expect.poll(shown).toEqual(['api 127.0.0.1:3 127.0.0.1:1', 'web 127.0.0.2:2 127.0.0.2:9 127.0.0.2:1'])
    await checkups.deleteUpstream('api')
    await checkups.updateUpstream('web', {
      cluster: { blue: { servers: ['127.0.0.2:1'] }, green: { servers: ['127.0.0.2:2'] } },
    })
    await expect.poll(shown).toEqual(['web blue 1 usable 127.0.0.2:1 green 1 usable 127.0.0.2:2'])
    await checkups.deleteUpstream('web')
    await expect.poll(shown).toEqual([])
  })

  it('finds by text and by state, and shows whom a problem names', async () => {
    const { checkups, url } = await serve({
      upstreams: {
        api: {
          servers: [{ address: '127.0.0.1:1', labels: { zone: 'b' } }, '127.0.0.1:2', '127.0.0.1:3'],
          failTimeout: LONG,
        },
        web: { servers: ['127.0.0.2:1'] },
      },
    })
    const page = await look(url)
    await isLive(page)
    const shown = () => page.locator('tr.peer:visible .name').allInnerTexts()
    await page.getByRole('searchbox').fill('ZONE b')
    await expect.poll(shown).toEqual(['127.0.0.1:1'])
    expect(new URL(page.url()).search).toBe('?q=ZONE+b')
    await page.getByRole('searchbox').fill('web')
    await expect.poll(shown).toEqual(['127.0.0.2:1'])
    await page.getByRole('searchbox').fill('nobody-at-all')
    await page.locator('#nobody', { hasText: 'Nobody is like that.' }).waitFor()
    await page.getByRole('searchbox').fill('')
    await page.getByText('Banned 0', { exact: true }).click()
    await expect.poll(shown).toEqual([])
    // A state that turns is filtered, too.
    checkups.feedbackStatus('api', { host: '127.0.0.1', port: 3 }, 'failed')
    await expect.poll(shown).toEqual(['127.0.0.1:3'])
    // Not what a peer has been for so many seconds.
    await page.getByText('Up 3', { exact: true }).click()
    await expect.poll(shown).toEqual(['127.0.0.1:1', '127.0.0.1:2', '127.0.0.2:1'])
    await page.locator('#problems a').click()
    await expect.poll(shown).toHaveLength(4)
    // It has the focus a frame after it is there.
    await expect.poll(() => page.evaluate('document.activeElement.innerText')).toContain('127.0.0.1:3')
    await page.goto(`${url}?state=banned`)
    await isLive(page)
    expect(await shown()).toEqual(['127.0.0.1:3'])
    expect(await page.getByRole('radio', { name: 'Banned' }).isChecked()).toBe(true)
  })

  it('is readable without a script', async () => {
    const { checkups, url } = await serve({
      upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'] } },
      sources: [{ name: 'hand', watch: () => Promise.reject(new Error('connection refused')) }],
    })
    await checkups.start()
    checkups.feedbackStatus('api', { host: '127.0.0.1', port: 1 }, 'failed')
    const page = await look(url, { javaScriptEnabled: false })
    const text = await page.locator('body').innerText()
    expect(text).toMatch(/1\sbanned of 2 peers/)
    expect(text).toMatch(/As of \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC/)
    for (const part of [
      'api',
      '127.0.0.1:2',
      'failed once',
      's left',
      'hand',
      'connection refused',
      'banned: failed once',
    ]) {
      expect(text).toContain(part)
    }
    // What would do nothing is not offered.
    expect(await page.getByRole('button', { name: /Change|Dark|Light/ }).count()).toBe(0)
    await page.getByRole('searchbox').fill('127.0.0.1:2')
    await page.getByRole('button', { name: 'Show' }).click()
    expect(await page.locator('tr.peer').count()).toBe(1)
  })

  it('who may only read has no buttons; who logs out is out', async () => {
    const { checkups, url } = await serve(
      { upstreams: { api: { servers: ['127.0.0.1:1', '127.0.0.1:2'] } } },
      { tokens },
    )
    const page = await look(url)
    await page.getByLabel('Token').fill('wrong')
    await page.getByRole('button', { name: 'Log in' }).click()
    expect(await page.getByRole('alert').innerText()).toContain('No such token.')
    await login(page, READ)
    expect(await page.locator('button.change, dialog').count()).toBe(0)
    await checkups.addServer('api', '127.0.0.1:3')
    await word(page, '127.0.0.1:3', 'up')
    expect(await page.locator('button.change').count()).toBe(0)
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.getByLabel('Token').waitFor()
    await login(page, WRITE)
    await page.getByRole('button', { name: 'Change 127.0.0.1:3' }).click()
    await page.locator('dialog').getByRole('radio', { name: 'Drain' }).check()
    await page.locator('dialog .primary').click()
    await word(page, '127.0.0.1:3', 'drain')
    expect(await row(page, '127.0.0.1:3').innerText()).toContain('by writer')
  })

  it('markup in keys, labels, reasons and events is text', async () => {
    const evil = '<img src=x onerror="globalThis.isHacked=1"><script>globalThis.isHacked=1</script>'
    let isWell = true
    const { checkups, url } = await serve({
      upstreams: {
        [evil]: {
          balancer: { type: 'wrr' },
          cluster: { [evil]: { servers: [{ address: '127.0.0.1:1', labels: { [evil]: evil } }, '127.0.0.1:2'] } },
          heartbeat: {
            type: 'custom',
            interval: 50,
            check: ({ address }) => isWell || address !== '127.0.0.1:1' || { status: 'err', message: evil },
          },
        },
      },
      sources: [{ name: evil, watch: () => Promise.reject(new Error(evil)) }],
    })
    await checkups.start()
    const page = await look(url)
    await isLive(page)
    isWell = false
    await word(page, '127.0.0.1:1', 'down')
    await checkups.updateUpstream(`${evil}2`, { cluster: { [evil]: { servers: ['127.0.0.1:4'] } } })
    await page.locator('section.upstream').nth(1).waitFor()
    await page.getByRole('searchbox').fill(evil)
    await page.getByRole('button', { name: 'Change 127.0.0.1:1' }).click()
    for (const where of [
      'h3',
      '.level th',
      'tr.peer .server',
      'tr.peer .state',
      '#problems',
      '#events',
      '#source-rows',
      '.about',
    ]) {
      expect(await page.locator(where).first().innerText()).toContain(evil)
    }
    await page.reload()
    await isLive(page)
    expect(await page.locator('tr.peer .state').first().innerText()).toContain(evil)
    expect(await page.locator('img, #list script').count()).toBe(0)
    expect(await page.evaluate('globalThis.isHacked')).toBeUndefined()
  })

  async function check(page: Page) {
    await page.evaluate(AXE)
    const { violations, passes } = await page.evaluate<AxeResults>('axe.run(document)')
    expect(passes.length).toBeGreaterThan(10)
    return violations
      .filter(({ impact }) => impact === 'serious' || impact === 'critical')
      .map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`)
  }

  const looks: readonly [string, BrowserContextOptions][] = [
    ['light', { colorScheme: 'light' }],
    ['dark', { colorScheme: 'dark' }],
    ['on a screen of 380 pixels', { colorScheme: 'light', viewport: { width: 380, height: 800 } }],
    ['dark and narrow', { colorScheme: 'dark', viewport: { width: 380, height: 800 } }],
    ['in between', { viewport: { width: 900, height: 800 } }],
  ]
  it.each(looks)('is accessible, %s', async (_, options) => {
    const { checkups, end } = await scene()
    onTestFinished(end)
    const { url } = await serve(checkups, { tokens })
    const page = await look(url, { bypassCSP: true, reducedMotion: 'reduce', ...options })
    expect(await check(page)).toEqual([])
    await login(page, WRITE)
    await page.locator('tr.peer[data-word=down]').nth(2).waitFor()
    for (let i = 0; i < 3; i++) checkups.feedbackStatus('imgprocess', { host: '10.0.5.108', port: 4001 }, 'failed')
    await checkups.setServer('api', '10.1.0.15:8080', { drain: true })
    await checkups.setServer('api', '10.1.0.16:8080', { down: true })
    await word(page, '10.0.5.108:4001', 'banned')
    await word(page, '10.1.0.16:8080', 'hand')
    expect(await check(page)).toEqual([])
    // Nothing is wider than the screen.
    expect(await page.evaluate('document.documentElement.scrollWidth - innerWidth')).toBeLessThanOrEqual(0)
    await page.getByRole('button', { name: 'Change 10.1.0.15:8080' }).click()
    expect(await check(page)).toEqual([])
  })

  it('has the colours that are wished for, also the next time', async () => {
    const { url } = await serve({ upstreams: { api: { servers: ['127.0.0.1:1'] } } })
    const page = await look(url, { colorScheme: 'light' })
    await isLive(page)
    const paper = () => page.evaluate('getComputedStyle(document.body).backgroundColor')
    const light = await paper()
    await page.getByRole('button', { name: 'Dark colours' }).click()
    const dark = await paper()
    expect(dark).not.toBe(light)
    await page.reload()
    expect(await paper()).toBe(dark)
    await page.getByRole('button', { name: 'Light colours' }).click()
    expect(await paper()).toBe(light)
    // As the system has it: nothing is kept.
    expect(await page.context().cookies()).toEqual([])
    await page.emulateMedia({ colorScheme: 'dark' })
    expect(await paper()).toBe(dark)
  })

  it('a thousand peers and fifty events a second keep nobody waiting', async () => {
    const { checkups, url } = await serve(crowd(1_000))
    let n = 0
    const timer = setInterval(() => {
      for (let i = 0; i < 5; i++, n++) {
        const u = n % 4
        const key = ['edge', 'catalog', 'checkout', 'media'][u]!
        checkups.feedbackStatus(key, { host: `10.${20 + u}.0.${(n >> 2) % 250}`, port: 8080 }, 'failed')
        for (let k = 0; k < 100; k++) checkups.acquirePeer(key)?.done('ok')
      }
    }, 100)
    onTestFinished(() => clearInterval(timer))
    const context = await browser.newContext({ viewport: { width: 1280, height: 900 } })
    onTestFinished(() => context.close())
    const page = await context.newPage()
    await browser.startTracing(page, { categories: ['toplevel', 'devtools.timeline'] })
    await page.goto(url)
    await isLive(page)
    const happened = () => page.evaluate<number>('document.querySelectorAll("#events li").length')
    for (let i = 1; i <= 5; i++) {
      const text = await page.locator('h1').innerText()
      // Each change of the heading is a second of them.
      await expect.poll(() => page.locator('h1').innerText()).not.toBe(text)
      await page.mouse.wheel(0, 4_000)
    }
    await page.getByRole('searchbox').fill('zone b')
    await page.locator('tr.peer:visible').nth(20).waitFor()
    expect(await happened()).toBe(100)
    expect(await page.locator('tr.peer').count()).toBe(1_000)
    const tasks = tasksOf(await browser.stopTracing())
    expect(tasks.length).toBeGreaterThan(1_000)
    expect(Math.max(...tasks)).toBeLessThan(200)
    // What is said is not fifty sentences a second.
    expect(await page.locator('#say').textContent()).toMatch(/changes\. |peers are shown/)
  })
})

/**
 * Milliseconds that each task of the page's main thread has computed. Not how long it was on the clock: that says what else
 * this machine does.
 */
function tasksOf(trace: Buffer): number[] {
  interface TraceEvent {
    readonly name: string
    readonly pid: number
    readonly tid: number
    readonly tdur?: number
    readonly args?: { readonly name?: string }
  }
  const { traceEvents } = JSON.parse(trace.toString()) as { traceEvents: readonly TraceEvent[] }
  const threads = traceEvents.filter(({ name, args }) => name === 'thread_name' && args?.name === 'CrRendererMain')
  const mains = new Set(threads.map(({ pid, tid }) => `${pid} ${tid}`))
  return traceEvents
    .filter(({ name, pid, tid }) => name.endsWith('RunTask') && mains.has(`${pid} ${tid}`))
    .map(({ tdur = 0 }) => tdur / 1_000)
}
