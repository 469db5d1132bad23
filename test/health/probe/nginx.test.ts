/** The probes against nginx: what it says by itself, and for an application that it speaks FastCGI to. */
import { join } from 'node:path'
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parseHttp } from '../../../src/health/probe/http.js'
import { parseTcp } from '../../../src/health/probe/tcp.js'
import { parseTls } from '../../../src/health/probe/tls.js'
import {
  certificate,
  freePort,
  startFcgiwrap,
  startNginx,
  whereInstalled,
  type Running,
} from '../../support/servers.js'
import { checkOnce, probeOf } from './servers.js'

const ca = readFileSync(certificate.cert, 'utf8')

whereInstalled('nginx', 'nginx', () => {
  whereInstalled('with fcgiwrap behind it', 'fcgiwrap', () => {
    let backend: Running
    let nginx: Running
    let tlsPort: number
    const plain = () => ({ port: nginx.port })
    const encrypted = () => ({ port: tlsPort })
    beforeAll(async () => {
      backend = await startFcgiwrap({
        'status.sh': '#!/bin/sh\nprintf "Content-Type: text/plain\\r\\n\\r\\nall is well\\n"\n',
      })
      tlsPort = await freePort()
      nginx = await startNginx((port, folder) => {
        writeFileSync(join(folder, 'index.html'), 'hello')
        return `
          user root;
          events {}
          http {
            access_log off;
            client_body_temp_path ${folder}/body; proxy_temp_path ${folder}/proxy; fastcgi_temp_path ${folder}/fastcgi;
            uwsgi_temp_path ${folder}/uwsgi; scgi_temp_path ${folder}/scgi;
            server {
              listen 127.0.0.1:${port};
              listen 127.0.0.1:${tlsPort} ssl;
              ssl_protocols TLSv1.3;
              ssl_certificate ${certificate.cert};
              ssl_certificate_key ${certificate.key};
              root ${folder};
              location /moved { return 301 /index.html; }
              location /status {
                fastcgi_pass 127.0.0.1:${backend.port};
                fastcgi_param SCRIPT_FILENAME ${backend.folder}/status.sh;
                fastcgi_param REQUEST_METHOD $request_method;
              }
            }
          }`
      })
    })
    afterAll(() => Promise.all([nginx.stop(), backend.stop()]))

    const http = (options: object = {}) => probeOf(parseHttp, { type: 'http', ...options })
    const https = (options: object = {}) => probeOf(parseHttp, { type: 'https', ...options })

    it('tcp: it accepts connections', async () => {
      expect(await checkOnce(probeOf(parseTcp, { type: 'tcp' }), plain())).toEqual({ status: 'ok' })
    })

    it('http: a page, a redirect that is not followed, a path that is not there', async () => {
      expect(await checkOnce(http({ body: 'hello' }), plain())).toEqual({ status: 'ok', facts: { status: 200 } })
      expect(await checkOnce(http({ path: '/moved' }), plain())).toEqual({ status: 'ok', facts: { status: 301 } })
      expect(await checkOnce(http({ path: '/none' }), plain())).toMatchObject({ status: 'err', message: 'status 404' })
    })

    it('http: the ancestor’s raw request', async () => {
      const query = 'GET /status HTTP/1.0\r\n\r\n'
      expect(await checkOnce(http({ query }), plain())).toEqual({ status: 'ok', facts: { status: 200 } })
    })

    it('https: with the authority given, and without it', async () => {
      const known = https({ tls: { ca, servername: 'localhost' } })
      expect(await checkOnce(known, encrypted())).toEqual({ status: 'ok', facts: { status: 200 } })
      expect(await checkOnce(https(), encrypted())).toMatchObject({ status: 'err', message: 'self-signed certificate' })
    })

    it('https at a port that speaks plain HTTP, and http at one that speaks TLS', async () => {
      expect(await checkOnce(https(), plain())).toMatchObject({ status: 'err', message: 'TLS: wrong version number' })
      expect(await checkOnce(http(), encrypted())).toMatchObject({ status: 'err', message: 'status 400' })
    })

    it('tls: a handshake, and how long its certificate holds', async () => {
      const found = await checkOnce(
        probeOf(parseTls, { type: 'tls', tls: { ca, servername: 'localhost' } }),
        encrypted(),
      )
      expect(found).toMatchObject({ status: 'ok', facts: { protocol: 'TLSv1.3' } })
      // Nor has it anything to complain of.
      expect(nginx.output()).not.toMatch(/SSL_do_handshake\(\) failed/)
    })

    it('the application behind it: up, and gone', async () => {
      const probe = http({ path: '/status', body: 'all is well' })
      expect(await checkOnce(probe, plain())).toEqual({ status: 'ok', facts: { status: 200 } })
      await backend.stop()
      expect(await checkOnce(probe, plain())).toMatchObject({ status: 'err', message: 'status 502' })
      expect(await checkOnce(http({ path: '/index.html' }), plain())).toMatchObject({ status: 'ok' })
    })
  })
})
