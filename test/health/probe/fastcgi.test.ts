import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ConfigError } from '../../../src/errors.js'
import { parseFastcgi } from '../../../src/health/probe/fastcgi.js'
import { startFcgiwrap, startPhpFpm, whereInstalled, type Running } from '../../support/servers.js'
import { probeContract } from './contract.js'
import { checkOnce, probeOf, startTcp } from './servers.js'

const fastcgi = (options: object = {}) => probeOf(parseFastcgi, { type: 'fastcgi', ...options })

const record = (type: number, content: string, padding = 0, id = 1) =>
  Buffer.concat([
    Buffer.of(1, type, 0, id, content.length >> 8, content.length & 0xff, padding, 0),
    Buffer.from(content, 'latin1'),
    Buffer.alloc(padding),
  ])
const stdout = (content: string) => record(6, content)
const stderr = (content: string) => record(7, content)
const end = (protocolStatus = 0) => record(3, `\0\0\0\0${String.fromCharCode(protocolStatus)}\0\0\0`)
const answering = (...records: Buffer[]) =>
  startTcp((socket) => socket.once('data', () => socket.end(Buffer.concat(records))))

describe('fastcgi', () => {
  it.each([
    [{ path: 'ping' }, 'heartbeat.path: expected a path that begins with "/", got "ping"'],
    [{ method: '' }, 'heartbeat.method: expected a non-empty string, got ""'],
    [{ params: { A: 1 } }, 'heartbeat.params.A: expected a string, got 1'],
    [{ params: { A: 'a'.repeat(65_536) } }, /^heartbeat\.params: expected at most 65535 bytes in all, got \d+$/],
    [{ statuses: ['ok'] }, /^heartbeat\.statuses\[0\]: expected a status/],
  ])('refuses %j', (options, message) => {
    expect(() => fastcgi(options)).toThrow(ConfigError)
    expect(() => fastcgi(options)).toThrow(message)
  })

  it('is a responder request with the parameters of CGI', async () => {
    let heard = Buffer.alloc(0)
    const server = await startTcp((socket) => {
      socket.on('data', (data) => {
        heard = Buffer.concat([heard, data])
        // The empty STDIN is the end.
        if (heard.subarray(-8).equals(record(5, ''))) socket.end(Buffer.concat([stdout('\r\n\r\n'), end()]))
      })
    })
    const probe = fastcgi({
      path: '/status?full&a=b?c',
      scriptFilename: '/srv/status.php',
      method: 'HEAD',
      params: { SERVER_NAME: 'shop.example', LONG: 'x'.repeat(300), __proto__: null },
    })
    expect(await checkOnce(probe, server)).toEqual({ status: 'ok', facts: { status: 200 } })
    expect(heard.subarray(0, 16)).toEqual(record(1, '\0\x01\0\0\0\0\0\0'))
    const text = heard.toString('latin1')
    for (const [name, value] of [
      ['REQUEST_METHOD', 'HEAD'],
      ['SCRIPT_NAME', '/status'],
      ['QUERY_STRING', 'full&a=b?c'],
      ['REQUEST_URI', '/status?full&a=b?c'],
      ['SCRIPT_FILENAME', '/srv/status.php'],
      ['SERVER_NAME', 'shop.example'],
    ] as const) {
      expect(text).toContain(String.fromCharCode(name.length, value.length) + name + value)
    }
    expect(text).toContain(`\x04\x80\0\x01\x2cLONG${'x'.repeat(300)}`)
  })

  it.each([
    ['nothing', '\r\n', 200],
    ['a Status', 'Status: 204 No Content\r\n\r\n', 204],
    ['a Status after others, of lines that end by LF', 'X-A: b\nstatus:301\n\n', 301],
    ['a Location', 'Location: /login\r\n\r\n', 302],
    ['a Status in the body', 'Content-Type: text/plain\r\n\r\nStatus: 500\r\n', 200],
  ])('reads the status of a header with %s', async (_, text, status) => {
    const server = await answering(stdout(text.startsWith('\r') ? `\r\n${text}` : text), end())
    expect(await checkOnce(fastcgi(), server)).toEqual({ status: 'ok', facts: { status } })
  })

  it('puts together an answer of many records, some padded', async () => {
    const server = await answering(
      stdout('Status: 2'),
      record(6, '00 OK\r\n\r', 5),
      stdout('\nhello'),
      stdout(''),
      end(),
    )
    expect(await checkOnce(fastcgi(), server)).toEqual({ status: 'ok', facts: { status: 200 } })
  })

  it('tells what the peer complains of', async () => {
    const server = await answering(stderr('PHP Warning:'), stdout('\r\n\r\n'), stderr(' disk is full\n'), end())
    const report = { status: 'ok', message: 'PHP Warning: disk is full', facts: { status: 200 } }
    expect(await checkOnce(fastcgi(), server)).toEqual(report)
    const trace = await answering(
      stderr(`first\n  at second\n${'x'.repeat(300)}`),
      stdout('Status: 500\r\n\r\n'),
      end(),
    )
    expect((await checkOnce(fastcgi(), trace)).message).toMatch(/^status 500: first at second x{100,190}$/)
    const silent = await answering(stderr('script died'), end())
    expect(await checkOnce(fastcgi(), silent)).toEqual({ status: 'err', message: 'script died' })
  })

  it.each([
    ['overloaded', [end(2)], 'request overloaded'],
    ['of no such role', [end(3)], 'request unknown role'],
    ['without a header', [stdout('hello'), end()], 'answer without a header'],
    ['to another request', [record(6, '\r\n\r\n', 0, 2)], 'no FastCGI answer: a record of type 6 for request 2'],
    ['of another type', [record(10, '')], 'no FastCGI answer: a record of type 10 for request 1'],
    ['without an end', [stdout('Status: 200\r\n\r\n')], 'closed amid its answer'],
    ['of HTTP', [Buffer.from('HTTP/1.1 400 Bad Request\r\n')], 'no FastCGI answer: "HTTP/1.1 400 Bad Request"'],
  ])('fails by an answer %s', async (_, records, message) => {
    expect(await checkOnce(fastcgi(), await answering(...records))).toEqual({ status: 'err', message })
  })

  it('takes the statuses that it is told to', async () => {
    const server = await answering(stdout('Status: 401 Unauthorized\r\n\r\n'), end())
    const facts = { status: 401 }
    expect(await checkOnce(fastcgi(), server)).toEqual({ status: 'err', message: 'status 401', facts })
    expect(await checkOnce(fastcgi({ statuses: [401] }), server)).toEqual({ status: 'ok', facts })
    expect(await checkOnce(fastcgi({ statuses: { '5xx': false } }), server)).toEqual({ status: 'ok', facts })
  })
})

whereInstalled('fastcgi', 'php-fpm', () => {
  let fpm: Running
  const scripts = {
    'ok.php': '<?php echo $_SERVER["REQUEST_METHOD"], str_repeat("x", 30000);',
    'down.php': '<?php http_response_code(503); error_log("database is gone"); echo "sorry";',
    'echo.php': '<?php http_response_code($_GET["a"] === "b c" && $_SERVER["WHO"] === "me" ? 200 : 500);',
  }
  const script = (name: string, query = '') => ({ path: `/${name}${query}`, scriptFilename: join(fpm.folder, name) })
  beforeAll(async () => void (fpm = await startPhpFpm(scripts)))
  afterAll(() => fpm.stop())

  probeContract('fastcgi of php-fpm', {
    parse: parseFastcgi,
    options: { type: 'fastcgi', path: '/ping' },
    healthy: async () => ({ port: fpm.port }),
  })

  describe('php-fpm', () => {
    it('runs scripts', async () => {
      expect(await checkOnce(fastcgi(script('ok.php')), fpm)).toEqual({ status: 'ok', facts: { status: 200 } })
      const echo = fastcgi({ ...script('echo.php', '?a=b+c'), params: { WHO: 'me' } })
      expect(await checkOnce(echo, fpm)).toEqual({ status: 'ok', facts: { status: 200 } })
    })

    it('tells the status and the complaint of a script', async () => {
      const report = await checkOnce(fastcgi(script('down.php')), fpm)
      expect(report).toMatchObject({ status: 'err', facts: { status: 503 } })
      expect(report.message).toMatch(/^status 503: .*database is gone$/)
    })

    it('has no script that is not there', async () => {
      const report = await checkOnce(fastcgi(script('absent.php')), fpm)
      const message = 'status 404: Primary script unknown'
      expect(report).toEqual({ status: 'err', message, facts: { status: 404 } })
    })
  })
})

whereInstalled('fastcgi', 'fcgiwrap', () => {
  let wrap: Running
  const scripts = {
    ok: '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\n$QUERY_STRING"\n',
    down: '#!/bin/sh\necho "no disk" >&2\nprintf "Status: 500 Oops\\r\\n\\r\\n"\nexit 3\n',
  }
  const script = (name: string) => ({ scriptFilename: join(wrap.folder, name) })
  beforeAll(async () => void (wrap = await startFcgiwrap(scripts)))
  afterAll(() => wrap.stop())

  describe('fcgiwrap', () => {
    it('runs scripts', async () => {
      expect(await checkOnce(fastcgi(script('ok')), wrap)).toEqual({ status: 'ok', facts: { status: 200 } })
      const report = { status: 'err', message: 'status 500: no disk', facts: { status: 500 } }
      expect(await checkOnce(fastcgi(script('down')), wrap)).toEqual(report)
    })

    it('has no script that is not there', async () => {
      const report = await checkOnce(fastcgi(script('absent')), wrap)
      expect(report).toMatchObject({ status: 'err', message: expect.stringMatching(/^status (403|404)/) as string })
    })
  })
})
