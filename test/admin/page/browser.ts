/** A real browser, for the page's tests and pictures. */
import { chromium, type Browser, type BrowserContextOptions, type Page } from 'playwright-core'
import { installed } from '../../support/servers.js'

export const CHROMIUM = installed('chromium') ?? '/usr/bin/chromium'

export function launch(): Promise<Browser> {
  return chromium.launch({
    executablePath: CHROMIUM,
    args: [
      '--no-sandbox',
      '--disable-gpu',
      '--disable-quic',
      '--no-first-run',
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-sync',
    ],
  })
}

/** A page in a window of its own, and what it has complained of. */
export async function open(browser: Browser, url: string, options: BrowserContextOptions = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 900 }, ...options })
  const page: Page = await context.newPage()
  const wrong: string[] = []
  page.on('pageerror', (error) => wrong.push(String(error)))
  page.on('console', (message) => {
    // Of a server that is away, or of a stranger, the browser says itself that a request has failed.
    if (message.type() === 'error' && !message.text().startsWith('Failed to load resource')) wrong.push(message.text())
  })
  page.on('request', (request) => {
    if (!request.url().startsWith(new URL(url).origin) && !request.url().startsWith('data:')) wrong.push(request.url())
  })
  await page.goto(url)
  return { page, wrong }
}

export const isLive = (page: Page) => page.waitForSelector('[data-link=live]')
