// @ts-check
/**
 * What both sides of the page share: the server renders it whole, the browser those parts that change.
 *
 * @import * as View from './view.d.ts'
 * @import { PeerModel, PeerWord, UpstreamModel } from '../model.js'
 */

// Markup

const ESCAPES = new Map([
  ['&', '&amp;'],
  ['<', '&lt;'],
  ['>', '&gt;'],
  ['"', '&quot;'],
  ["'", '&#39;'],
])

const SPECIAL = /[&<>"']/

/** Nothing else is markup: what is made of it is escaped. */
class Markup {
  /** @param {string} markup */
  constructor(markup) {
    this.markup = markup
  }
}

/** @param {unknown} value @returns {string} */
function piece(value) {
  if (value instanceof Markup) return value.markup
  if (Array.isArray(value)) return value.map(piece).join('')
  if (value === undefined || value === null || value === false) return ''
  const text = String(value)
  return SPECIAL.test(text) ? text.replace(/[&<>"']/g, (character) => ESCAPES.get(character) ?? '') : text
}

/** @type {typeof View.html} */
export function html(parts, ...values) {
  let markup = parts[0] ?? ''
  for (let i = 0; i < values.length; i++) markup += piece(values[i]) + parts[i + 1]
  return new Markup(markup)
}

/** @type {typeof View.raw} */
export function raw(markup) {
  return new Markup(markup)
}

/** In a square of 12 by 12; where two parts overlap is a hole. */
const SHAPES = new Map([
  ['up', 'M6 1.4a4.6 4.6 0 1 0 0 9.2a4.6 4.6 0 1 0 0-9.2z'],
  ['unstable', 'M6 .8 11.6 11H.4z'],
  ['trial', 'M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10zM6 2.6a3.4 3.4 0 1 1 0 6.8z'],
  ['full', 'M1.4 1.4h9.2v9.2H1.4z'],
  ['banned', 'M6 .5a5.5 5.5 0 1 0 0 11a5.5 5.5 0 1 0 0-11zM2.8 5h6.4v2H2.8z'],
  ['down', 'M2.6.9 6 4.3 9.4.9l1.7 1.7L7.7 6l3.4 3.4-1.7 1.7L6 7.7l-3.4 3.4L.9 9.4 4.3 6 .9 2.6z'],
  ['drain', 'M4.6.8h2.8v5.4h3.4L6 11.4 1.2 6.2h3.4z'],
  ['hand', 'M2 1.2h2.9v9.6H2zM7.1 1.2H10v9.6H7.1z'],
  ['waiting', 'M6 1a5 5 0 1 0 0 10a5 5 0 1 0 0-10zM6 2.6a3.4 3.4 0 1 1 0 6.8a3.4 3.4 0 1 1 0-6.8z'],
  ['change', 'M6 .6 11.4 6 6 11.4.6 6zM6 3.2 3.2 6 6 8.8 8.8 6z'],
  ['dots', 'M1 5h2v2H1zM5 5h2v2H5zM9 5h2v2H9z'],
])

/** @type {typeof View.icon} */
export function icon(word) {
  return html`<svg class="icon ${word}" viewBox="0 0 12 12" aria-hidden="true"><path d="${SHAPES.get(word)}" /></svg>`
}

// Words and numbers

/** @type {typeof View.WORDS} */
export const WORDS = {
  up: 'up',
  unstable: 'unstable',
  trial: 'on trial',
  full: 'full',
  banned: 'banned',
  down: 'down',
  drain: 'draining',
  hand: 'down by hand',
}

/** @type {typeof View.FILTERS} */
export const FILTERS = [
  ['', 'All'],
  ['trouble', 'Not up'],
  ['down', 'Down'],
  ['banned', 'Banned'],
  ['unstable', 'Unstable'],
  ['trial', 'On trial'],
  ['full', 'Full'],
  ['drain', 'Draining'],
  ['hand', 'By hand'],
  ['up', 'Up'],
]

/** @type {typeof View.span} */
export function span(ms) {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  if (seconds < 60) return `${seconds} s`
  const minutes = Math.floor(seconds / 60)
  if (minutes < 60) return `${minutes} min`
  const hours = Math.floor(minutes / 60)
  if (hours < 24) return minutes % 60 === 0 ? `${hours} h` : `${hours} h ${minutes % 60} min`
  return hours % 24 === 0 ? `${Math.floor(hours / 24)} d` : `${Math.floor(hours / 24)} d ${hours % 24} h`
}

/** @type {typeof View.aged} */
export function aged(at, now, form) {
  // What is to come is rounded up: "0 s left" would be over.
  return form.replace('%', form.includes('left') ? span(at - now + 999) : span(now - at))
}

/** @type {typeof View.age} */
export function age(at, now, form = '%') {
  if (at === undefined) return html``
  const text = Number.isNaN(now) ? '' : aged(at, now, form)
  return html`<time data-at="${at}" data-form="${form}">${text}</time>`
}

/** @type {typeof View.clock} */
export function clock(at) {
  return new Date(at).toISOString().slice(11, 19)
}

const thousands = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

/** @type {typeof View.whole} */
export function whole(n) {
  return n < 999.5 ? String(Math.round(n)) : thousands.format(n)
}

/** @param {number} n */
const short = (n) => (n === 0 || n >= 9.95 ? whole(n) : n.toFixed(1))
/** What is nothing stands back. @param {number} n */
const flat = (n) => (n === 0 ? html`<span class="none">0</span>` : html`${whole(n)}`)
/** @param {number} n @param {string} one @param {string} [many] */
const plural = (n, one, many = `${one}s`) => `${whole(n)} ${n === 1 ? one : many}`

/** @param {number} ms */
function time(ms) {
  if (ms < 0.095) return html`&lt;0.1<i>ms</i>`
  const [n, unit] = ms < 999.5 ? [short(ms), 'ms'] : [short(ms / 1000), 's']
  return html`${n}<i>${unit}</i>`
}

/** @param {number} share */
function percent(share) {
  if (share > 0 && share < 0.001) return html`&lt;0.1<i>%</i>`
  return html`${short(share * 100)}<i>%</i>`
}

// What was measured

/** Seconds of which rates are made, and seconds of a chart. */
const WINDOW = 10
const MINUTE = 60

/** @type {typeof View.rates} */
export function rates(samples, { second, from }) {
  const seconds = Math.min(WINDOW, second - from + 1)
  if (!(seconds > 0)) return undefined
  let [requests, outcomes, failed, answered, time, slowest, unserved] = [0, 0, 0, 0, 0, 0, 0]
  for (let i = samples.length - 1; i >= 0; i--) {
    const sample = samples[i]
    if (sample === undefined || sample[0] <= second - seconds) break
    requests += sample[1]
    outcomes += sample[2]
    failed += sample[3]
    unserved += sample[6]
    if (sample[4] === 0) continue
    const good = Math.max(1, sample[2] - sample[3])
    answered += good
    time += good * sample[4]
    slowest = Math.max(slowest, sample[5])
  }
  return {
    requests: requests / seconds,
    // Who only selects may report failures alone: then requests say how many there were.
    failed: failed / Math.max(requests, outcomes),
    ms: answered === 0 ? 0 : time / answered,
    slowest,
    unserved: unserved / seconds,
  }
}

/** @param {readonly (readonly View.Sample[])[]} all @returns {View.Scale} */
function most(all) {
  let requests = 4
  let ms = 2
  for (const samples of all) {
    for (const sample of samples) {
      requests = Math.max(requests, sample[1])
      ms = Math.max(ms, sample[4])
    }
  }
  return { requests, ms }
}

/** @type {typeof View.scaleOf} */
export function scaleOf({ levels }, { samples }) {
  return most(levels.flatMap(({ peers }) => peers.map(({ id }) => samples(id))))
}

/** Units high. */
const HEIGHT = 20

/** @param {number} n */
const at = (n) => Math.round(n * 10) / 10

/**
 * Bars of a second each, failures at their feet.
 *
 * @param {readonly View.Sample[]} samples @param {number} second @param {number} most
 */
function bars(samples, second, most) {
  let all = ''
  let failed = ''
  for (const sample of samples) {
    const x = MINUTE - 1 - (second - sample[0])
    if (x < 0) continue
    const bar = (/** @type {number} */ n) => `M${x} ${HEIGHT}v-${at(Math.max(1, (n / most) * HEIGHT))}h.8V${HEIGHT}z`
    if (sample[1] > 0) all += bar(sample[1])
    if (sample[3] > 0) failed += bar(sample[3])
  }
  return chart(html`<path d="${all}" /><path class="bad" d="${failed}" />`)
}

/** @param {readonly View.Sample[]} samples @param {number} second @param {number} most */
function line(samples, second, most) {
  let path = ''
  let last = NaN
  for (const sample of samples) {
    const x = MINUTE - 1 - (second - sample[0])
    if (x < 0 || sample[4] === 0) continue
    path += `${x - last === 1 ? 'L' : `M${x - 0.5} ${at(HEIGHT - (sample[4] / most) * (HEIGHT - 1) - 0.5)}L`}${x} ${at(HEIGHT - (sample[4] / most) * (HEIGHT - 1) - 0.5)}`
    last = x
  }
  return chart(html`<path class="line" d="${path}" />`)
}

/** @param {View.Html} paths */
function chart(paths) {
  return html`<svg class="chart" viewBox="0 0 ${MINUTE} ${HEIGHT}" preserveAspectRatio="none" aria-hidden="true">
    ${paths}
  </svg>`
}

const NOTHING = html`<b class="none">–</b>`

/**
 * Requests, failures and latency, of a peer or of an upstream.
 *
 * @param {number} id @param {View.Scale} scale @param {View.Context} context
 * @returns {View.Html[]}
 */
function measured(id, scale, context) {
  const samples = context.samples(id)
  const now = rates(samples, context)
  if (now === undefined) return [NOTHING, NOTHING, NOTHING]
  const { requests, failed, ms, slowest } = now
  const tone = failed >= 0.05 ? 'down' : failed >= 0.005 ? 'unstable' : failed === 0 ? 'none' : ''
  return [
    html`<span>${requests === 0 ? html`<b class="none">0</b>` : short(requests)}<i>/s</i></span
      >${samples.length > 0 && bars(samples, context.second, scale.requests)}`,
    Number.isNaN(failed) ? NOTHING : html`<span class="${tone}">${percent(failed)}</span>`,
    ms === 0
      ? html`<span>${NOTHING}</span>${samples.length > 0 && line(samples, context.second, scale.ms)}`
      : html`<span>${time(ms)}<small>max ${time(slowest)}</small></span
          >${line(samples, context.second, scale.ms)}`,
  ]
}

// Peers

/** @param {PeerModel} peer */
const wordOf = ({ word, inFlight }) => (word === 'drain' && inFlight === 0 ? 'drained' : WORDS[word])

/** @param {PeerModel} peer @param {number} now */
function state(peer, now) {
  const { word, since, why, until, ban = 0 } = peer
  const left =
    until === undefined
      ? ''
      : html` <span class="left">${age(until, now, '% left')}</span>
          <progress
            aria-hidden="true"
            max="${ban}"
            value="${Number.isNaN(now) ? 0 : Math.max(0, until - now)}"
            data-until="${until}"
          ></progress>`
  return html`<b class="${word}">${wordOf(peer)}</b>
    <i>${age(since, now)}</i>${left}${why && html`<small title="${why}">${why}</small>`}`
}

/** @param {PeerModel} peer @param {number} now */
function beat({ beat, beatFails, beatAt, beatMs }, now) {
  if (beat === undefined) return NOTHING
  const said = beat === 'ok' ? 'passes' : beat === 'unchecked' ? 'not checked' : beat === 'err' ? 'fails' : beat
  const tone = beat === 'err' ? 'down' : beat === 'unstable' ? 'unstable' : ''
  const often = beatFails !== undefined && beatFails > 1 ? html` <i>×${whole(beatFails)}</i>` : ''
  const when =
    beatAt === undefined
      ? ''
      : html`<small>${age(beatAt, now, '% ago')}${beatMs !== undefined && html`, ${time(beatMs)}`}</small>`
  return html`<span class="${tone}">${said}</span>${often}${when}`
}

/** @type {typeof View.cells} */
export function cells(peer, scale, context) {
  const { id, address, word, weight, inFlight, maxConns, backup, labels } = peer
  const notes = [backup && 'backup', labels].filter(Boolean).join(', ')
  return [
    html`${icon(word)}<span class="name">${address}</span>${notes && html`<small>${notes}</small>`}`,
    state(peer, context.now),
    weight === 0 ? html`<span class="unstable" title="never picked">0</span>` : html`${whole(weight)}`,
    html`${flat(inFlight)}${maxConns && html`<i>/${whole(maxConns)}</i>`}`,
    ...measured(id, scale, context),
    beat(peer, context.now),
  ].map(({ markup }) => markup)
}

/** The classes of cells, in order. */
const CLASSES = ['server', 'state', 'weight', 'flight', 'rate', 'failed', 'latency', 'beat']

/** @type {typeof View.row} */
export function row(peer, scale, context, mayWrite) {
  const { id, address, word } = peer
  const [server, ...others] = cells(peer, scale, context).map(raw)
  return html`<tr role="row" class="peer grid" id="p${id}" data-word="${word}" tabindex="-1">
    <th role="rowheader" scope="row" class="server">${server}</th>
    ${others.map((cell, i) => html`<td role="cell" class="${CLASSES[i + 1]}">${cell}</td>`)}
    ${mayWrite && html`<td role="cell" class="act"><button type="button" class="change" aria-haspopup="dialog" aria-label="Change ${address}">${icon('dots')}</button></td>`}
  </tr>`
}

/** @type {typeof View.matches} */
export function matches(key, peer, { text, word }) {
  if (word === 'trouble' ? peer.word === 'up' : word !== '' && peer.word !== word) return false
  if (text === '') return true
  const { address, labels = '', why = '' } = peer
  return `${key}\n${address}\n${labels}\n${wordOf(peer)}\n${why}`.toLowerCase().includes(text.toLowerCase())
}

// Upstreams

/** @param {UpstreamModel} upstream */
const peersOf = ({ levels }) => levels.flatMap(({ peers }) => peers)
/** @param {readonly PeerModel[]} peers */
const usable = (peers) => peers.reduce((n, peer) => n + Number(peer.usable), 0)

/** Words from the best to the worst. @type {readonly PeerWord[]} */
const ORDER = ['up', 'full', 'trial', 'unstable', 'drain', 'hand', 'banned', 'down']

/** How many peers are in which state, as one bar. @param {readonly PeerModel[]} peers */
function shares(peers) {
  let x = 0
  const parts = ORDER.map((word) => {
    const width = (peers.filter((peer) => peer.word === word).length / peers.length) * 100
    x += width
    return width > 0 && html`<rect class="${word}" x="${at(x - width)}" width="${at(width)}" height="1" />`
  })
  return html`<svg class="shares" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">${parts}</svg>`
}

/** @type {typeof View.headCells} */
export function headCells(upstream, context) {
  const { id, key, balancer, probe } = upstream
  const peers = peersOf(upstream)
  const n = usable(peers)
  const unserved = rates(context.samples(id), context)?.unserved ?? 0
  const lost = unserved > 0 && html`<small class="down">${short(unserved)}/s find nobody</small>`
  return [
    html`<span class="name">${key}</span
      ><small>${[balancer, probe && `${probe} heartbeat`].filter(Boolean).join(', ')}</small>`,
    html`<span class="${n === 0 && peers.length > 0 ? 'down' : ''}"
        >${n === 0 ? 'nobody' : whole(n)}${n > 0 && html`<i> of ${whole(peers.length)}</i>`} usable</span
      >${peers.length > 0 && shares(peers)}${lost}`,
    html``,
    flat(peers.reduce((sum, { inFlight }) => sum + inFlight, 0)),
    ...measured(id, most([context.samples(id)]), context),
    html``,
  ].map(({ markup }) => markup)
}

/** @type {typeof View.hasLevels} */
export function hasLevels({ levels, keyed }) {
  return keyed || levels.length > 1
}

/** @type {typeof View.levelLabel} */
export function levelLabel({ levels, keyed }, l) {
  const level = levels[l]
  if (level === undefined) return html``
  const n = usable(level.peers)
  if (keyed)
    return html`${level.name} <i>${n === 0 ? html`<b class="down">nobody usable</b>` : `${whole(n)} usable`}</i>`
  const serving = levels.findIndex(({ peers }) => usable(peers) > 0)
  const role =
    n === 0
      ? html`<b class="down">nobody left</b>`
      : l === serving
        ? l === 0
          ? 'serves'
          : html`<b class="unstable">serves instead</b>`
        : 'stands by'
  return html`Level ${l + 1} <i>${role}</i>`
}

/** @type {typeof View.upstreamSection} */
export function upstreamSection(upstream, context, filter, mayWrite, isEmpty = false) {
  const { id, key, levels } = upstream
  const scale = scaleOf(upstream, context)
  const [name, ...others] = headCells(upstream, context).map(raw)
  const bodies = levels.map(({ peers }, l) => {
    const shown = isEmpty ? [] : peers.filter((peer) => matches(key, peer, filter))
    const label =
      hasLevels(upstream) &&
      html`<tr role="row" class="level">
        <th role="rowheader" scope="rowgroup" colspan="9">${levelLabel(upstream, l)}</th>
      </tr>`
    return html`<tbody role="rowgroup">
      ${label}${shown.map((peer) => row(peer, scale, context, mayWrite))}
    </tbody>`
  })
  const heads = [
    'Server',
    'State',
    'Weight',
    'In flight',
    'Requests',
    'Failed',
    'Latency',
    'Heartbeat',
    mayWrite && 'Change',
  ]
  return html`<section class="upstream card" id="u${id}" aria-labelledby="h${id}">
    <header class="grid">
      <h3 class="server" id="h${id}">${name}</h3>
      ${others.map((cell, i) => html`<div class="${CLASSES[i + 1]}">${cell}</div>`)}
    </header>
    <table role="table" aria-labelledby="h${id}">
      <thead role="rowgroup" class="hidden">
        <tr role="row">
          ${heads.map((head) => head && html`<th role="columnheader" scope="col">${head}</th>`)}
        </tr>
      </thead>
      ${bodies}
    </table>
  </section>`
}

// Sources and events

/** @type {typeof View.sourceRow} */
export function sourceRow(source, now) {
  const { name, state, since, contact, change, fromSnapshot, error, refused, refusal, upstreams } = source
  const word = state === 'current' ? 'up' : state === 'stale' ? 'unstable' : 'waiting'
  const wrong = [error, refused > 0 && `${plural(refused, 'entry', 'entries')} left out: ${refusal}`]
    .filter(Boolean)
    .join('; ')
  const of = upstreams.length > 3 ? plural(upstreams.length, 'upstream') : upstreams.join(', ')
  return html`<th role="rowheader" scope="row">${icon(word)}<span class="name">${name}</span></th>
    <td role="cell">
      <b class="${word}">${state === 'current' ? 'connected' : state}</b>
      <i>${age(since, now)}</i
      >${fromSnapshot && html` <i>from its snapshot</i>`}${wrong && html`<small title="${wrong}">${wrong}</small>`}
    </td>
    <td role="cell" class="contact"><span>${contact === undefined ? 'never' : age(contact, now, '% ago')}</span></td>
    <td role="cell" class="turned"><span>${change === undefined ? 'never' : age(change, now, '% ago')}</span></td>
    <td role="cell" class="gives"><span>${of || NOTHING}</span></td>`.markup
}

/** @type {typeof View.event} */
export function event({ at, tone, upstream, address, text }) {
  const iso = new Date(at).toISOString()
  return html`<time datetime="${iso}" data-clock="${at}">${clock(at)}</time>${icon(tone)}
    <p>
      ${address && html`<b>${address}</b> `}${upstream !== undefined && html`<i>${upstream}</i> `}<span>${text}</span>
    </p>`.markup
}

// At a glance

/** @type {typeof View.counts} */
export function counts(upstreams) {
  const count = { all: 0, trouble: 0, up: 0, unstable: 0, trial: 0, full: 0, banned: 0, down: 0, drain: 0, hand: 0 }
  for (const { levels } of upstreams) {
    for (const { peers } of levels) {
      for (const { word } of peers) {
        count[word]++
        count.all++
        if (word !== 'up') count.trouble++
      }
    }
  }
  return count
}

/** @param {UpstreamModel} upstream */
const isLost = (upstream) => upstream.levels.some(({ peers }) => peers.length > 0) && usable(peersOf(upstream)) === 0

/** @type {typeof View.verdict} */
export function verdict({ upstreams, sources }, count) {
  const lost = upstreams.filter(isLost)
  const stale = sources.filter(({ state }) => state === 'stale').length
  const bad = /** @type {const} */ (['down', 'banned', 'unstable', 'trial', 'full', 'drain', 'hand'])
    .filter((word) => count[word] > 0)
    // A number stays with its word.
    .map((word) => `${whole(count[word])}\u00a0${WORDS[word]}`)
  if (stale > 0) bad.push(`${whole(stale)}\u00a0${stale === 1 ? 'source' : 'sources'} stale`)
  const tone =
    lost.length > 0 || count.down + count.banned > 0
      ? 'down'
      : count.unstable + count.trial + count.full + stale > 0
        ? 'unstable'
        : 'up'
  if (lost.length > 0) {
    const who = lost.length === 1 ? (lost[0]?.key ?? '') : plural(lost.length, 'upstream')
    return { tone, text: `Nobody is usable in ${who}; ${bad.join(', ')}` }
  }
  if (count.all === 0) return { tone, text: upstreams.length === 0 ? 'No upstreams yet' : 'No peers yet' }
  const of = count.all === 1 ? 'The only peer is' : `All ${whole(count.all)} peers are`
  if (bad.length === 0) return { tone, text: `${of} up` }
  const text = bad.join(', ')
  return { tone, text: count.trouble > 0 ? `${text} of ${plural(count.all, 'peer')}` : text }
}

/** Problems that are named; of more there is the number. */
const NAMED = 8

/** @type {typeof View.problems} */
export function problems({ upstreams, sources, beats }, context) {
  const { now } = context
  /** @type {[rank: number, key: string, make: () => View.Html][]} */
  const found = []
  for (const upstream of upstreams) {
    const { id, key, levels, keyed } = upstream
    const lost = isLost(upstream)
    if (lost) {
      const unserved = rates(context.samples(id), context)?.unserved ?? 0
      const text =
        unserved > 0 ? html`nobody is usable: ${short(unserved)} requests a second find nobody` : 'nobody is usable'
      found.push([
        0,
        `u${id}`,
        () => html`<a href="#u${id}">${icon('down')}<b>${key}</b></a> <span class="down">${text}</span>`,
      ])
    }
    levels.forEach(({ name, peers }, l) => {
      if (
        !lost &&
        peers.length > 0 &&
        usable(peers) === 0 &&
        (keyed || levels.slice(l + 1).some((level) => usable(level.peers) > 0))
      ) {
        const text = keyed ? `nobody is usable in ${name}` : `level ${l + 1} has nobody left`
        found.push([
          1,
          `u${id}-${l}`,
          () => html`<a href="#u${id}">${icon('unstable')}<b>${key}</b></a> <span class="unstable">${text}</span>`,
        ])
      }
      for (const peer of peers) {
        const { word, since, why, until } = peer
        if (word === 'up') continue
        const when = until === undefined ? html`for ${age(since, now)}` : age(until, now, '% left')
        found.push([
          10 - ORDER.indexOf(word),
          `p${peer.id}`,
          () =>
            html`<a href="#p${peer.id}">${icon(word)}<b>${peer.address}</b> <i>${key}</i></a>
              <span class="${word}">${wordOf(peer)}</span>
              <i>${when}</i>${why && html` <span class="why" title="${why}">${why}</span>`}`,
        ])
      }
    })
  }
  sources.forEach(({ name, state, since, error, refused, refusal }, s) => {
    if (state === 'stale' || error !== '') {
      const word = state === 'current' ? 'left out' : state
      found.push([
        2,
        `s${s}`,
        () =>
          html`<a href="#sources" title="${name}">${icon('unstable')}<b>${name}</b></a>
            <span class="unstable">${word}</span> <i>for ${age(since, now)}</i>
            <span class="why" title="${error}">${error}</span>`,
      ])
    } else if (refused > 0) {
      found.push([
        2,
        `s${s}`,
        () =>
          html`<a href="#sources" title="${name}">${icon('unstable')}<b>${name}</b></a>
            <span class="unstable">${plural(refused, 'entry', 'entries')} left out</span>
            <span class="why" title="${refusal}">${refusal}</span>`,
      ])
    }
  })
  if (!beats.started && upstreams.some(({ probe }) => probe !== undefined)) {
    found.push([
      2,
      'beats',
      () =>
        html`<span>${icon('unstable')}<b>heartbeats</b></span>
          <span class="unstable">do not run: nobody has called start()</span>`,
    ])
  } else if (beats.lag >= 1000) {
    found.push([
      2,
      'beats',
      () =>
        html`<span>${icon('unstable')}<b>heartbeats</b></span>
          <span class="unstable">begin ${time(beats.lag)} late: this process cannot keep up</span>`,
    ])
  }
  found.sort(([a], [b]) => a - b)
  const parts = found.slice(0, NAMED).map(([, key, make]) => ({ key, markup: make().markup }))
  return { parts, more: found.length - parts.length }
}

// Changes

/** @type {typeof View.choices} */
export function choices({ down, drain }) {
  return [
    drain
      ? { name: 'undrain', label: 'Undrain', means: 'It gets requests again.', verb: 'Undrain' }
      : { name: 'drain', label: 'Drain', means: 'It gets nothing new, and finishes what it has.', verb: 'Drain' },
    down
      ? { name: 'up', label: 'Bring up', means: 'It gets requests again, as its health allows.', verb: 'Bring up' }
      : { name: 'down', label: 'Take down', means: 'It is out at once; what it has goes on.', verb: 'Take down' },
    {
      name: 'weight',
      label: 'Set its weight',
      means: 'Its share, beside the others. 0: never picked.',
      verb: 'Set the weight of',
    },
    {
      name: 'reset',
      label: 'Reset its marks',
      means: 'Failures are forgotten, a ban ends, and it is checked now.',
      verb: 'Reset',
    },
  ]
}

/** @type {typeof View.warning} */
export function warning(upstream, peer, choice) {
  if (choice !== 'drain' && choice !== 'down') return ''
  const others = peersOf(upstream).filter(({ usable, address }) => usable && address !== peer.address)
  if (!peer.usable) return ''
  if (others.length === 0) return `Nobody else of ${upstream.key} is usable: requests will find nobody.`
  const level = upstream.levels.find(({ peers }) => peers.includes(peer))
  const left = level?.peers.filter((other) => other.usable && other.address !== peer.address) ?? []
  if (!upstream.keyed && left.length === 0) return `It is the last one of its level: another level will serve.`
  return ''
}
