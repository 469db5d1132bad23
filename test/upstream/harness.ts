import { Checkups } from '../../src/index.js'
import type {
  CheckupsEvents,
  CheckupsOptions,
  ErrorEvent,
  Peer,
  PeerEvent,
  ServerStatus,
  UpstreamOptions,
  UpstreamUpdateEvent,
} from '../../src/index.js'
import { VirtualClock } from '../support/virtual-clock.js'

const EVENTS = ['upstream:update', 'upstream:delete', 'peer:down', 'peer:up', 'peer:drained', 'error'] as const

/** One event as it came, under the name it came by. */
export interface Told extends Partial<Omit<PeerEvent, 'type'> & Omit<UpstreamUpdateEvent, 'type'> & ErrorEvent> {
  readonly name: keyof CheckupsEvents
}

/** An instance on a virtual clock with one upstream, `api`, from nginx's start, and all that it tells. */
export function harness(upstream: UpstreamOptions, options: Partial<CheckupsOptions> = {}) {
  const clock = new VirtualClock()
  const checkups = new Checkups({ clock, random: () => 0, upstreams: { api: upstream }, ...options })
  const events: Told[] = []
  for (const name of EVENTS) checkups.on(name, (event) => void events.push({ name, ...event }))
  /** The servers of all levels, by address: the last entry's of several. */
  const status = () => {
    const levels = checkups.getStatus().upstreams.find(({ key }) => key === 'api')?.levels ?? []
    return new Map(levels.flatMap(({ servers }) => servers.map((server) => [server.address, server] as const)))
  }
  return {
    clock,
    checkups,
    events,
    status,
    server: (letter: string): ServerStatus => status().get(address(letter))!,
    /** What was told since the last look, as `peer:down a`. */
    told: () => events.splice(0).map(({ name, peer }) => (peer === undefined ? name : `${name} ${letterOf(peer)}`)),
    /** Picks without a handle, by letter; `-` for nobody. */
    picks: (count: number) => Array.from({ length: count }, () => letterOf(checkups.selectPeer('api'))).join(''),
    /** Reports failures or other outcomes of a server, by letter. */
    feedback: (letter: string, outcome: Parameters<Checkups['feedbackStatus']>[2] = 'failed') =>
      checkups.feedbackStatus('api', target(letter), outcome),
  }
}

/** Servers are called a, b, c … and are at 10.0.0.1 and the port of their place in the alphabet. */
export const portOf = (letter: string) => letter.charCodeAt(0) - 96
export const address = (letter: string) => `10.0.0.1:${portOf(letter)}`
export const target = (letter: string) => ({ host: '10.0.0.1', port: portOf(letter) })
export const letterOf = (peer: Peer | undefined) => (peer === undefined ? '-' : String.fromCharCode(96 + peer.port))
/** `level('ab', { c: { backup: true } })`: servers by letter, those with options last. */
export const level = (letters: string, others: Record<string, object> = {}) => ({
  servers: [
    ...Array.from(letters, target),
    ...Object.entries(others).map(([letter, options]) => ({ ...target(letter), ...options })),
  ],
})
