// One backend of one service: a small HTTP server that changes a text, as an image service would change a picture. Run by
// services.ts as a child process.
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as sleep } from 'node:timers/promises'

const changes = new Map<string, (picture: string) => string>([
  ['beautify', (picture) => picture.trim().replace(/\b[a-z]/g, (letter) => letter.toUpperCase())],
  ['zoom', (picture) => Array.from(picture).join(' ')],
  ['watermark', (picture) => `${picture} (c) chain`],
])

const [name = '', port = '0'] = process.argv.slice(2)
const change = changes.get(name)!
const THINKING_MS = 5

const server = createServer((req, res) => {
  void text(req).then(async (picture) => {
    await sleep(THINKING_MS)
    res.end(change(picture))
  })
})
server.listen(Number(port), '127.0.0.1', () => process.send?.((server.address() as AddressInfo).port))

// The example has ended, however it did.
process.on('disconnect', () => process.exit())
