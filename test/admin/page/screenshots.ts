/** Pictures of the page: `node --import tsx test/admin/page/screenshots.ts <folder>`. */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as wait } from 'node:timers/promises'
import type { BrowserContextOptions, Page } from 'playwright-core'
import { createAdminServer } from '../../../src/admin/index.js'
import { launch, open as openAt } from './browser.js'
import { crowd, scene } from './scene.js'

const [folder = 'screenshots'] = process.argv.slice(2)
mkdirSync(folder, { recursive: true })
const TOKEN = { name: 'alice', token: 'a-token-for-the-pictures', role: 'write' } as const

const browser = await launch()
const { checkups, end } = await scene()
let server = await createAdminServer(checkups, { port: 0, tokens: [TOKEN] })
const { port } = new URL(server.url)

async function open(options: BrowserContextOptions): Promise<Page> {
  const { page, wrong } = await openAt(browser, server.url, { viewport: { width: 1440, height: 1000 }, ...options })
  process.once('exit', () => wrong.forEach((what) => console.error(what)))
  return page
}

async function login(page: Page): Promise<void> {
  await page.fill('#token', TOKEN.token)
  await page.click('button')
  await page.waitForSelector('[data-link=live]')
}

/** The whole page as a very high window shows it: what is not on the screen is not drawn. */
const shoot = async (page: Page, name: string, isWhole = false) => {
  const viewport = page.viewportSize()!
  if (isWhole) {
    await page.setViewportSize({ ...viewport, height: await page.evaluate('document.documentElement.scrollHeight') })
    await wait(1_500)
  }
  await page.screenshot({ path: join(folder, `${name}.png`) })
  await page.setViewportSize(viewport)
  console.log(`${name}.png`)
}

const light = await open({ colorScheme: 'light' })
await light.fill('#token', 'something')
await light.click('button')
await shoot(light, 'login')
await login(light)
const dark = await open({ colorScheme: 'dark' })
await login(dark)
const narrow = await open({ colorScheme: 'light', viewport: { width: 380, height: 800 }, deviceScaleFactor: 2 })
await login(narrow)
const middle = await open({ colorScheme: 'dark', viewport: { width: 800, height: 1000 } })
await login(middle)

async function change(page: Page, address: string, choice: string): Promise<void> {
  await page.getByRole('button', { name: `Change ${address}` }).click()
  await page.locator(`dialog [value=${choice}]`).check()
  if (address === '10.1.0.16:8080') await shoot(page, 'dialog')
  await page.locator('dialog .primary').click()
  await page.locator('dialog').waitFor({ state: 'hidden' })
}

await wait(Number(process.env['SECONDS'] ?? 50) * 1_000)
await change(light, '10.0.5.109:4001', 'drain')
await change(light, '10.1.0.16:8080', 'down')
await wait(8_000)
await light.evaluate('scrollTo(0, 0)')
await shoot(light, 'light')
await shoot(light, 'light-whole', true)
await shoot(dark, 'dark')
await shoot(dark, 'dark-whole', true)
await shoot(narrow, 'narrow')
await narrow.evaluate('document.querySelector(".tools").scrollIntoView()')
await wait(1_200)
await shoot(narrow, 'narrow-peers')
await shoot(narrow, 'narrow-whole', true)
await shoot(middle, 'middle')
await light.fill('[type=search]', 'zone b')
await shoot(light, 'search')
await server.close()
await light.fill('[type=search]', '')
await light.waitForSelector('[data-link=off]')
await wait(1_500)
await shoot(light, 'disconnected')
server = await createAdminServer(checkups, { port: Number(port), tokens: [TOKEN] })
await wait(4_000)
await shoot(light, 'over')
await server.close()
await end()

const many = crowd(1_000)
for (const address of ['10.20.0.7:8080', '10.20.0.31:8080', '10.20.0.99:8080', '10.21.0.3:8080']) {
  const [key] = [address.startsWith('10.20') ? 'edge' : 'catalog']
  const [host = '', port] = address.split(':')
  many.feedbackStatus(key, { host, port: Number(port) }, 'failed')
}
server = await createAdminServer(many, { port: 0 })
const all = await open({ colorScheme: 'light' })
await all.waitForSelector('[data-link=live]')
for (let i = 0; i < 12; i++) {
  for (let n = 0; n < 3_000; n++) {
    const pick = many.acquirePeer(['edge', 'catalog', 'checkout', 'media'][n % 4]!)
    pick?.answered(200)
    pick?.done(n % 900 === 0 ? 'neutral' : 'ok')
  }
  await wait(500)
}
await shoot(all, 'thousand')
await server.close()
await many.close()
await browser.close()
