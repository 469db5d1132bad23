/** What has happened, in words for the page. */
import type { JournalEntry } from '../journal.js'
import type { Json } from '../lib/describe.js'
import { span } from './assets/view.js'
import type { EventModel, PeerWord } from './model.js'

type Data = JournalEntry['data']

/** As an event of the page; undefined for what another event says as well. */
export function told({ id, type, at, data }: JournalEntry): EventModel | undefined {
  const said = words(type, data)
  if (said === undefined) return undefined
  const { upstream, source } = data
  const address = type.startsWith('source:') ? source : (data['peer'] ?? data['address'])
  return { id, at, ...said, upstream: textOf(upstream), address: textOf(address) }
}

function words(type: string, data: Data): Pick<EventModel, 'tone' | 'text'> | undefined {
  const reason = textOf(data['reason']) ?? ''
  const lasted = span(Number(data['lasted']))
  switch (type) {
    case 'peer:down': {
      const tone = wordOf(data)
      if (tone === 'drain') return { tone, text: 'drains' }
      if (tone === 'hand') return { tone, text: 'down by hand' }
      return { tone, text: `${tone}: ${reason}` }
    }
    case 'peer:up': {
      const tone = wordOf(data)
      return { tone, text: `${tone === 'trial' ? 'on trial' : tone} after ${lasted}: ${reason}` }
    }
    case 'peer:drained':
      return { tone: 'drain', text: `drained: ${reason}` }
    case 'upstream:update': {
      // The operator's own word for it says more.
      if (data['source'] === 'admin') return undefined
      const by = data['source'] === 'source' ? `, says ${reason}` : ''
      if (data['created'] === true) return { tone: 'change', text: `created with ${count(data['added'], 'peer')}${by}` }
      const parts = [
        some(data['added'], 'came', 'added'),
        some(data['removed'], 'left', 'removed'),
        some(data['changed'], 'changed', 'changed'),
      ].filter((part) => part !== '')
      return { tone: 'change', text: `${parts.join(', ') || 'other options'}${by}` }
    }
    case 'upstream:delete':
      return data['source'] === 'admin' ? undefined : { tone: 'change', text: 'deleted' }
    case 'source:error':
      return { tone: 'unstable', text: textOf(data['error']) ?? 'failed' }
    case 'source:up':
      return { tone: 'up', text: `connected after ${lasted}` }
    case 'admin:change':
      return { tone: 'change', text: `${done(data)}, by ${textOf(data['who']) ?? ''}` }
    default:
      return { tone: 'change', text: type }
  }
}

/** Of an event: a flip has two sides, and the word for each depends on who has said it. */
function wordOf({ health, source, reason }: Data): PeerWord {
  if (health === 'drain') return 'drain'
  if (health === 'down') return 'hand'
  if (health === 'err') return source === 'heartbeat' || source === 'guard' ? 'down' : 'banned'
  if (health === 'ok') return 'up'
  return source === 'timer' && reason !== 'no failure on trial' ? 'trial' : 'unstable'
}

function some(list: Json | undefined, verb: string, verbOfMany: string): string {
  if (!Array.isArray(list) || list.length === 0) return ''
  return list.length === 1 ? `${String(list[0])} ${verb}` : `${list.length} ${verbOfMany}`
}

function count(list: Json | undefined, what: string): string {
  const { length } = Array.isArray(list) ? list : []
  return `${length} ${what}${length === 1 ? '' : 's'}`
}

/** What an operator has done. */
function done(data: Data): string {
  const { what, before, after } = data
  switch (what) {
    case 'server.set': {
      const { down, drain, ...rest } = differences(serverOf(before, data['address']), serverOf(after, data['address']))
      const parts = Object.entries(rest).map(([name, value]) => `${name} ${value}`)
      if (drain !== undefined) parts.push(drain === 'true' ? 'told to drain' : 'told to drain no more')
      if (down !== undefined) parts.push(down === 'true' ? 'taken down' : 'brought up')
      return parts.join(', ') || 'set, as it was'
    }
    case 'server.add':
      return 'added'
    case 'server.remove':
      return 'removed'
    case 'upstream.reset':
      return 'marks reset'
    case 'upstream.delete':
      return 'deleted'
    default:
      return before === undefined ? 'created' : 'changed'
  }
}

function differences(before: Data, after: Data): Readonly<Record<string, string>> {
  return Object.fromEntries(
    Object.entries(after)
      .filter(([name, value]) => typeof value !== 'object' && value !== before[name])
      .map(([name, value]) => [name, JSON.stringify(value)]),
  )
}

/** A server in a described configuration, by its address. */
function serverOf(config: Json | undefined, address: Json | undefined): Data {
  const levels = Object.values(objectOf(objectOf(config)['cluster']))
  for (const level of levels) {
    const { servers } = objectOf(level)
    if (!Array.isArray(servers)) continue
    const found = (servers as readonly Json[]).map(objectOf).find((server) => addressOf(server) === address)
    if (found !== undefined) return found
  }
  return {}
}

function addressOf({ host, port, path }: Data): string {
  if (typeof path === 'string') return `unix:${path}`
  const name = textOf(host) ?? ''
  return `${name.includes(':') ? `[${name}]` : name}:${Number(port)}`
}

/** Arrays too: their values are what is asked for. */
function objectOf(value: Json | undefined): Data {
  return typeof value === 'object' && value !== null ? (value as Data) : {}
}

function textOf(value: Json | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}
