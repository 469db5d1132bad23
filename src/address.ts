/** Addresses: where a peer is, in one canonical spelling that is its identity. */
import { isIP, isIPv6 } from 'node:net'
import { expected, integer } from './check.js'

/** A TCP endpoint or a unix socket. */
export interface Endpoint {
  /** `10.0.0.1:80`, `[::1]:80`, `example.test:80` or `unix:/run/app.sock`. */
  readonly address: string
  /** IP address without brackets, or lower-case host name; empty for a unix socket. */
  readonly host: string
  /** TCP port; 0 for a unix socket. */
  readonly port: number
  /** The unix socket's path, else undefined. */
  readonly path: string | undefined
}

/** Letters, digits, `-`, `.` and `_` (container networks use it): what a resolver is asked, not what RFC 1123 allows. */
const HOST_NAME = /^[a-z0-9_]([a-z0-9_.-]{0,252})$/

export function tcpEndpoint(path: string, host: unknown, port: unknown): Endpoint {
  const checkedPort = integer(path, 'port', port, 1, 65535)
  const name = hostName(path, 'host', host)
  return {
    address: `${name.includes(':') ? `[${name}]` : name}:${checkedPort}`,
    host: name,
    port: checkedPort,
    path: undefined,
  }
}

export function unixEndpoint(path: string, key: string, socket: unknown): Endpoint {
  // 107 bytes and a zero fill sockaddr_un.sun_path on Linux.
  if (
    typeof socket !== 'string' ||
    !socket.startsWith('/') ||
    socket.includes('\0') ||
    Buffer.byteLength(socket) > 107
  ) {
    throw expected(path, key, 'an absolute path of at most 107 bytes', socket)
  }
  return { address: `unix:${socket}`, host: '', port: 0, path: socket }
}

/** Reads `host:port`, `[v6]:port` or `unix:/path`. */
export function parseEndpoint(path: string, key: string, text: string): Endpoint {
  if (text.startsWith('unix:')) return unixEndpoint(path, key, text.slice('unix:'.length))
  const colon = text.lastIndexOf(':')
  const host = text.slice(0, Math.max(colon, 0))
  const port = text.slice(colon + 1)
  const bracketed = host.startsWith('[') && host.endsWith(']')
  if (colon < 1 || !/^\d{1,5}$/.test(port) || (host.includes(':') && !bracketed)) {
    throw expected(path, key, '"host:port", "[ipv6]:port" or "unix:/path"', text)
  }
  return tcpEndpoint(path, host, Number(port))
}

function hostName(path: string, key: string, host: unknown): string {
  if (typeof host === 'string') {
    const bare = host.startsWith('[') && host.endsWith(']') ? host.slice(1, -1) : host
    const lower = bare.toLowerCase()
    // A zone (`fe80::1%eth0`) has no canonical form; every other IPv6 address gets the one of RFC 5952 from the URL parser.
    if (isIPv6(lower)) return lower.includes('%') ? lower : new URL(`http://[${lower}]`).hostname.slice(1, -1)
    if (bare === host && (isIP(lower) === 4 || (HOST_NAME.test(lower) && !/^[\d.]+$/.test(lower)))) return lower
  }
  throw expected(path, key, 'an IP address or a host name', host)
}
