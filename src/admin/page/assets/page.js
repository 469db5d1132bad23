// @ts-check
/**
 * Keeps the page up to date: the server has rendered it, and sends what changes once a second. Only what is on the screen is
 * drawn again, at most so much in one frame.
 *
 * @import { Context, Part, Scale } from './view.js'
 * @import { EventModel, Filter, LevelModel, Model, Patch, PeerChange, PeerModel, SourceModel, UpstreamModel } from '../model.js'
 * @import { Sample } from '../../meter.js'
 */
import * as view from './view.js'

const base = new URL('.', import.meta.url)
const page = document.documentElement
const mayWrite = document.body.dataset['role'] === 'write'
const csrf = document.querySelector('meta[name=csrf]')?.getAttribute('content') ?? undefined

/** @param {string} id @returns {HTMLElement} */
function element(id) {
  const found = document.getElementById(id)
  if (found === null) throw new Error(`there is no #${id}`)
  return found
}

/** @param {string} markup @param {string} selector @returns {HTMLElement} */
function made(markup, selector) {
  const template = document.createElement('template')
  template.innerHTML = markup
  const found = template.content.querySelector(selector)
  if (!(found instanceof HTMLElement)) throw new Error(`there is no ${selector}`)
  return found
}

/** Of HTML, which does not know rows outside of tables. @param {string} markup */
const madeRow = (markup) => made(`<table>${markup}</table>`, 'tr')

const list = element('list')
const filterForm = /** @type {HTMLFormElement} */ (element('filter'))
const events = element('events')

/** How much may be done in one frame, in milliseconds: well below what anybody would notice. */
const BUDGET = 8
/** Rows that are made in one go. */
const SLICE = 40
/** Events that are kept. */
const EVENTS = 100
/** Seconds of a chart. */
const MINUTE = 60

// What is known

/** The numbers of peers and upstreams mean something in this run of the server alone. */
let run = document.body.dataset['run']
/** What the server's clock is ahead of the browser's. */
let ahead = 0
let second = -1
let from = NaN
/** @type {Model['beats']} */
let beats = { started: true, peers: 0, waiting: 0, lag: 0 }
/** @type {readonly SourceModel[]} */
let sources = []
/** @type {Map<number, Upstream>} */
let upstreams = new Map()
/** @type {Map<number, Peer>} */
let peers = new Map()
/** @type {Map<number, Sample[]>} */
let history = new Map()
/** @type {Filter} */
let filter = readFilter()

/** @type {readonly Sample[]} */
const NONE = []

/** Ages are left to {@link tell}: what is the same but for them is not drawn again. @returns {Context} */
const context = () => ({ now: NaN, second, from, samples: (id) => history.get(id) ?? NONE })

/** What is drawn: cells, each anew only if it is another one. */
class Drawn {
  /** @type {string[]} */
  #markups = []
  isOnScreen = false

  /** @param {HTMLElement} element */
  constructor(element) {
    this.element = element
    drawnBy.set(element, this)
    observer.observe(element)
  }

  /** @returns {readonly (Element | undefined)[]} */
  cells() {
    return []
  }

  /** @returns {readonly string[]} */
  make() {
    return []
  }

  draw() {
    const cells = this.cells()
    this.make().forEach((markup, i) => {
      const cell = cells[i]
      if (cell === undefined || this.#markups[i] === markup) return
      cell.innerHTML = this.#markups[i] = markup
    })
    tell(this.element)
  }

  remove() {
    observer.unobserve(this.element)
    drawnBy.delete(this.element)
    dirty.delete(this)
    this.element.remove()
  }
}

class Peer extends Drawn {
  #word = ''

  /** @param {PeerModel} model @param {Upstream} upstream @param {HTMLElement} row */
  constructor(model, upstream, row) {
    super(row)
    this.model = model
    this.upstream = upstream
    this.#word = row.dataset['word'] ?? ''
    this.sift()
  }

  /** @override */
  cells() {
    return [...this.element.children]
  }

  /** @override */
  make() {
    return view.cells(this.model, this.upstream.scale, context())
  }

  /** @override */
  draw() {
    super.draw()
    const { word } = this.model
    if (word === this.#word) return
    this.#word = this.element.dataset['word'] = word
    if (this.isOnScreen && !calm.matches) this.element.animate({ opacity: [0.25, 1] }, 700)
  }

  /** Shows it, or not, as the filter says. */
  sift() {
    this.element.hidden = !view.matches(this.upstream.model.key, this.model, filter)
  }
}

class Upstream extends Drawn {
  /** @type {Scale | undefined} */
  #scale
  #scaled = -1

  /** @param {UpstreamModel} model @param {HTMLElement} section */
  constructor(model, section) {
    super(section)
    this.model = model
  }

  get scale() {
    if (this.#scale === undefined || this.#scaled !== second) this.#scale = view.scaleOf(this.model, context())
    this.#scaled = second
    return this.#scale
  }

  get head() {
    return this.element.querySelector('header')
  }

  get bodies() {
    return [...this.element.querySelectorAll('tbody')]
  }

  /** @override */
  cells() {
    const labels = this.bodies.map((body) => body.querySelector('.level th') ?? undefined)
    return [this.head?.querySelector('h3') ?? undefined, ...[...(this.head?.children ?? [])].slice(1), ...labels]
  }

  /** @override */
  make() {
    const { model } = this
    return [...view.headCells(model, context()), ...model.levels.map((_, l) => view.levelLabel(model, l).markup)]
  }

  sift() {
    const isAll = filter.text === '' && filter.word === ''
    const { key, levels } = this.model
    this.element.hidden = !isAll && !levels.some((level) => level.peers.some((peer) => view.matches(key, peer, filter)))
  }
}

// Frames

/** @type {WeakMap<Element, Drawn>} */
const drawnBy = new WeakMap()
/** @type {Set<Drawn>} */
const onScreen = new Set()
/** @type {Set<Drawn>} */
const dirty = new Set()
/** What is to be done in order, each a small part. @type {(() => void)[]} */
const jobs = []
/** What is to be done once all of them are, once each. @type {Set<() => void>} */
const due = new Set()
let isScheduled = false

const calm = matchMedia('(prefers-reduced-motion: reduce)')
const isNarrow = matchMedia('(max-width: 46rem)')

const observer = new IntersectionObserver(
  (entries) => {
    for (const { target, isIntersecting } of entries) {
      const drawn = drawnBy.get(target)
      if (drawn === undefined) continue
      drawn.isOnScreen = isIntersecting
      if (isIntersecting) {
        onScreen.add(drawn)
        dirty.add(drawn)
      } else onScreen.delete(drawn)
    }
    schedule()
  },
  { rootMargin: '150px 0px' },
)

function schedule() {
  if (isScheduled) return
  isScheduled = true
  // Who is not looked at has no frames, and must not put off everything until somebody looks.
  if (document.hidden) setTimeout(frame, 1_000)
  else requestAnimationFrame(frame)
}

document.addEventListener('visibilitychange', () => {
  isScheduled = false
  schedule()
})

function frame() {
  isScheduled = false
  const end = performance.now() + BUDGET
  const isTime = () => performance.now() < end
  while (jobs.length > 0 && isTime()) jobs.shift()?.()
  if (jobs.length === 0) {
    for (const draw of due) {
      if (!isTime()) break
      due.delete(draw)
      draw()
    }
  }
  for (const drawn of onScreen) if (dirty.has(drawn) && isTime()) redraw(drawn)
  for (const drawn of dirty) {
    if (!isTime()) break
    redraw(drawn)
  }
  if (jobs.length + due.size + dirty.size > 0) schedule()
}

/** @param {Drawn} drawn */
function redraw(drawn) {
  dirty.delete(drawn)
  drawn.draw()
}

/** What everybody sees at the top. */
function drawGlance() {
  const glance = { upstreams: models(), sources, beats }
  const count = view.counts(glance.upstreams)
  const { tone, text } = view.verdict(glance, count)
  const head = element('verdict')
  if (head.dataset['tone'] !== tone || head.lastElementChild?.textContent !== text) {
    head.dataset['tone'] = tone
    head.innerHTML = view.html`${view.icon(tone)}<span>${text}</span>`.markup
    document.title = `${text} · Checkups`
    document.querySelector('link[rel=icon]')?.setAttribute('href', favicon(tone))
  }
  const { parts, more } = view.problems(glance, context())
  drawParts(element('problems'), 'li', 'problem', parts)
  tell(element('problems'))
  element('calm').hidden = parts.length > 0
  element('more').hidden = more === 0
  write(element('more').querySelector('span'), view.whole(more))
  for (const counted of document.querySelectorAll('[data-count]')) {
    if (!(counted instanceof HTMLElement)) continue
    const word = /** @type {Filter['word']} */ (counted.dataset['count'])
    const n = count[word || 'all']
    counted.dataset['n'] = String(n)
    write(counted, view.whole(n))
  }
}

/** @type {Map<Element, Map<string, { element: HTMLElement, markup: string }>>} */
const partsOf = new Map()

/** Keeps the elements of those that stay: who has the focus keeps it. @param {HTMLElement} parent @param {string} tag @param {string} name @param {readonly Part[]} parts */
function drawParts(parent, tag, name, parts) {
  const before = partsOf.get(parent)
  if (before === undefined) parent.replaceChildren()
  const now = new Map()
  parts.forEach(({ key, markup }, i) => {
    const part = before?.get(key) ?? { element: document.createElement(tag), markup: '' }
    if (part.markup !== markup) part.element.innerHTML = part.markup = markup
    part.element.className = name
    if (tag === 'tr') part.element.setAttribute('role', 'row')
    if (parent.children[i] !== part.element) parent.insertBefore(part.element, parent.children[i] ?? null)
    now.set(key, part)
  })
  while (parent.children.length > parts.length) parent.lastElementChild?.remove()
  partsOf.set(parent, now)
}

/** Brings ages up to date. @param {Element} parent */
function tell(parent) {
  const now = Date.now() + ahead
  for (const time of parent.querySelectorAll('[data-at]')) {
    if (time instanceof HTMLElement)
      write(time, view.aged(Number(time.dataset['at']), now, time.dataset['form'] ?? '%'))
  }
  for (const bar of parent.querySelectorAll('progress')) bar.value = Math.max(0, Number(bar.dataset['until']) - now)
}

const today = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const before = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short', hour: '2-digit', minute: '2-digit' })

/** Times of the clock on the wall, here. @param {Element} parent */
function tellClocks(parent) {
  for (const time of parent.querySelectorAll('[data-clock]')) {
    if (!(time instanceof HTMLElement)) continue
    const at = Number(time.dataset['clock'])
    write(time, (Date.now() + ahead - at < 20 * 3_600_000 ? today : before).format(at))
  }
}

/** @param {Element | null} where @param {string} text */
function write(where, text) {
  if (where !== null && where.textContent !== text) where.textContent = text
}

const ICONS = new Map([
  ['down', '%3Ccircle cx="8" cy="8" r="7" fill="%23d0342c"/%3E%3Cpath d="M4 7h8v2H4z" fill="white"/%3E'],
  ['unstable', '%3Cpath d="M8 1l7.5 14H.5z" fill="%23d69220"/%3E'],
  ['up', '%3Ccircle cx="8" cy="8" r="6" fill="%232f9e5b"/%3E'],
])

/** @param {string} tone */
function favicon(tone) {
  return `data:image/svg+xml,%3Csvg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"%3E${ICONS.get(tone)}%3C/svg%3E`
}

// What the server sends

const models = () => Array.from(upstreams.values(), ({ model }) => model)

/** @param {Model} model */
function takeSnapshot(model) {
  ahead = model.at - Date.now()
  ;({ second, from, beats, sources } = model)
  history = new Map(model.history.map(([id, samples]) => [id, [...samples]]))
  jobs.length = 0
  if (model.run !== run) {
    // Other numbers: all is made anew beside what is seen, and takes its place when it is whole.
    run = model.run
    leaving.push(...peers.values(), ...upstreams.values())
    upstreams = new Map()
    peers = new Map()
    known.clear()
    stage = document.createElement('div')
  }
  for (const upstream of model.upstreams) arrange(upstream)
  inOrder(model.upstreams.map(({ id }) => id))
  if (stage !== list) jobs.push(enter)
  isAnew = true
  takeEvents([...model.events].reverse())
  element('uptime').dataset['at'] = String(model.startedAt)
  for (const drawn of onScreen) dirty.add(drawn)
  for (const draw of [drawGlance, drawSources, drawAges]) due.add(draw)
  schedule()
}

/** Where upstreams are made: what is seen, or what will be. */
let stage = list
/** @type {Drawn[]} */
const leaving = []

function enter() {
  for (const drawn of leaving.splice(0)) drawn.remove()
  list.replaceChildren(...stage.children)
  stage = list
}

/** @param {Patch} patch */
function takePatch(patch) {
  ahead = patch.at - Date.now()
  ;({ second, from } = patch)
  beats = patch.beats ?? beats
  for (const [id, sample] of patch.samples ?? []) {
    const samples = history.get(id)
    if (samples === undefined) history.set(id, [sample])
    else samples.push(sample)
  }
  for (const [id, samples] of history) {
    while (samples[0] !== undefined && samples[0][0] <= second - MINUTE) samples.shift()
    if (samples.length === 0) history.delete(id)
  }
  for (const upstream of patch.upstreams ?? []) arrange(upstream)
  if (patch.order !== undefined) inOrder(patch.order)
  for (const [id, change] of patch.peers ?? []) takeChange(id, change)
  if (patch.sources !== undefined) {
    sources = patch.sources
    due.add(drawSources)
  }
  if (patch.events !== undefined) {
    takeEvents(patch.events)
    announceEvents(patch.events)
  }
  for (const drawn of onScreen) dirty.add(drawn)
  due.add(drawGlance).add(drawAges)
  schedule()
}

/** @param {number} id @param {PeerChange} change */
function takeChange(id, change) {
  const model = known.get(id)
  if (model === undefined) return
  for (const [name, value] of Object.entries(change)) Reflect.set(model, name, value ?? undefined)
  const peer = peers.get(id)
  // What is not on the screen is kept right where that matters: for who searches, and for who listens.
  if (peer === undefined || !('word' in change || 'why' in change)) return
  dirty.add(peer)
  dirty.add(peer.upstream)
  if (filter.text === '' && filter.word === '') return
  peer.sift()
  peer.upstream.sift()
  drawEmpty()
}

/** What is known of each peer, whether or not it has a row yet. @type {Map<number, PeerModel>} */
const known = new Map()

/** By upstream: another one whenever it is arranged anew. @type {Map<number, object>} */
const plans = new Map()

/** Gives an upstream its section, and its peers their rows: those that are there stay. @param {UpstreamModel} model */
function arrange(model) {
  const { id, levels } = model
  for (const level of levels) for (const peer of level.peers) known.set(peer.id, peer)
  const plan = {}
  plans.set(id, plan)
  /** @param {(upstream: Upstream) => void} step */
  const later = (step) => {
    jobs.push(() => {
      const upstream = upstreams.get(id)
      if (plans.get(id) === plan && upstream !== undefined) step(upstream)
    })
  }
  jobs.push(() => {
    if (plans.get(id) === plan && !upstreams.has(id)) upstreams.set(id, new Upstream(model, sectionOf(model)))
  })
  later((upstream) => {
    upstream.model = model
    upstream.sift()
    // What is not on the screen is not laid out: how high it will be is told by how many it has.
    const rows = levels.reduce((n, level) => n + level.peers.length, levels.length)
    upstream.element.style.containIntrinsicBlockSize = `auto ${60 + rows * (isNarrow.matches ? 160 : 46)}px`
    dirty.add(upstream)
    // Rows know their peers by number alone: those of peers that have left go first.
    const ids = new Set(levels.flatMap((level) => level.peers.map((peer) => peer.id)))
    for (const peer of peers.values()) if (peer.upstream === upstream && !ids.has(peer.model.id)) leave(peer)
    shape(upstream)
  })
  levels.forEach((level, l) => {
    for (let first = 0; first < level.peers.length; first += SLICE) {
      later((upstream) => placeRows(upstream, l, level, first))
    }
  })
}

/** The one that the server has rendered, or a new one without rows. @param {UpstreamModel} model */
function sectionOf(model) {
  const rendered = stage === list ? document.getElementById(`u${model.id}`) : null
  if (rendered !== null) return rendered
  const section = made(view.upstreamSection(model, context(), filter, mayWrite, true).markup, 'section')
  stage.append(section)
  return section
}

/** @param {Peer} peer */
function leave(peer) {
  peers.delete(peer.model.id)
  known.delete(peer.model.id)
  peer.remove()
}

/** As many bodies as levels, with names if these are told apart. @param {Upstream} upstream */
function shape(upstream) {
  const { model, bodies } = upstream
  const table = upstream.element.querySelector('table')
  model.levels.forEach((_, l) => {
    let body = bodies[l]
    if (body === undefined) {
      body = document.createElement('tbody')
      body.setAttribute('role', 'rowgroup')
      table?.append(body)
    }
    const label = body.querySelector('.level')
    if (!view.hasLevels(model)) label?.remove()
    else if (label === null) {
      const markup = '<tr role="row" class="level"><th role="rowheader" scope="rowgroup" colspan="9"></th></tr>'
      body.prepend(madeRow(markup))
    }
  })
  for (const body of bodies.slice(model.levels.length)) body.remove()
}

/** @param {Upstream} upstream @param {number} l @param {LevelModel} level @param {number} first */
function placeRows(upstream, l, level, first) {
  const body = upstream.bodies[l]
  if (body === undefined) return
  const slice = level.peers.slice(first, first + SLICE)
  const rendered = (/** @type {number} */ id) =>
    /** @type {HTMLElement | null} */ (upstream.element.querySelector(`#p${id}`))
  const missing = slice.filter(({ id }) => !peers.has(id) && rendered(id) === null)
  const template = document.createElement('template')
  template.innerHTML = `<table>${missing.map((model) => view.row(model, upstream.scale, context(), mayWrite).markup).join('')}</table>`
  const rows = new Map(Array.from(template.content.querySelectorAll('tr'), (row) => [row.id, row]))
  const previous = level.peers[first - 1]
  let after = previous === undefined ? body.querySelector('.level') : (peers.get(previous.id)?.element ?? null)
  for (const model of slice) {
    const { id } = model
    let peer = peers.get(id)
    if (peer === undefined) {
      const row = rows.get(`p${id}`) ?? rendered(id)
      if (row === null) continue
      peer = new Peer(model, upstream, row)
      peers.set(id, peer)
      tell(row)
    }
    peer.model = model
    const place = after === null ? body.firstElementChild : after.nextElementSibling
    if (place !== peer.element) body.insertBefore(peer.element, place)
    after = peer.element
    dirty.add(peer)
  }
}

/** Those that are not named have left. @param {readonly number[]} ids */
function inOrder(ids) {
  const named = new Set(ids)
  for (const id of [...plans.keys()]) if (!named.has(id)) plans.delete(id)
  jobs.push(() => {
    for (const [id, upstream] of upstreams) {
      if (plans.has(id)) continue
      for (const peer of peers.values()) if (peer.upstream === upstream) leave(peer)
      upstreams.delete(id)
      upstream.remove()
    }
    const all = ids.map((id) => upstreams.get(id)).filter((upstream) => upstream !== undefined)
    upstreams = new Map(all.map((upstream) => [upstream.model.id, upstream]))
    all.forEach(({ element }, i) => {
      if (stage.children[i] !== element) stage.insertBefore(element, stage.children[i] ?? null)
    })
    drawEmpty()
  })
}

function drawSources() {
  element('sources').hidden = sources.length === 0
  const rows = sources.map((source, s) => ({ key: `s${s}`, markup: view.sourceRow(source, NaN) }))
  drawParts(element('source-rows'), 'tr', 'sources', rows)
}

/** Those that are not in a row. */
function drawAges() {
  tell(element('source-rows'))
  tell(element('uptime').parentElement ?? page)
}

// Events

/** What has come and is not in the list yet, oldest first. @type {EventModel[]} */
let unread = []
/** Whether it takes the place of all that is there. */
let isAnew = false

/** Oldest first. @param {readonly EventModel[]} came */
function takeEvents(came) {
  unread = [...(isAnew ? [] : unread), ...came].slice(-EVENTS)
  due.add(drawEvents)
}

function drawEvents() {
  // A list that moves cannot be read, nor can what is in it be marked.
  const isRead = events.matches(':hover') || events.parentElement?.matches(':focus') === true
  if (!isAnew && (unread.length === 0 || isRead)) return
  const items = unread.map((one) => `<li class="event">${view.event(one)}</li>`).reverse()
  if (isAnew) events.replaceChildren()
  unread = []
  isAnew = false
  events.insertAdjacentHTML('afterbegin', items.join(''))
  while (events.children.length > EVENTS) events.lastElementChild?.remove()
  element('no-events').hidden = events.children.length > 0
  tellClocks(events)
}

events.addEventListener('mouseleave', () => {
  due.add(drawEvents)
  schedule()
})

// What is said

/** Milliseconds between two sentences: whoever listens has to hear something else, too. */
const PAUSE = 5_000
/** @type {string[]} */
let unsaid = []
let isSaying = false

/** @param {readonly EventModel[]} came */
function announceEvents(came) {
  for (const { tone, address, upstream, text } of came) {
    if (tone !== 'change' && address !== undefined)
      unsaid.push(`${address}${upstream === undefined ? '' : ` of ${upstream}`}: ${text}`)
  }
  sayNext()
}

/** @param {string} text */
function say(text) {
  unsaid = [text]
  isSaying = false
  sayNext()
}

function sayNext() {
  if (isSaying || unsaid.length === 0) return
  isSaying = true
  const verdict = element('verdict').textContent ?? ''
  write(element('say'), unsaid.length === 1 ? (unsaid[0] ?? '') : `${unsaid.length} changes. ${verdict}`)
  unsaid = []
  setTimeout(() => {
    isSaying = false
    sayNext()
  }, PAUSE)
}

// The connection

/** Milliseconds without a word after which a connection is taken to be dead: a patch comes every second. */
const SILENCE = 8_000
/** @type {EventSource | undefined} */
let stream
let heard = performance.now()
let isLive = false
let failures = 0
let retry = 0

function connect() {
  stream?.close()
  heard = performance.now()
  stream = new EventSource(new URL('live', base))
  stream.addEventListener('snapshot', ({ data }) => {
    const model = /** @type {Model} */ (JSON.parse(data))
    heardOf()
    takeSnapshot(model)
    if (!isLive) live(model.version)
  })
  stream.addEventListener('patch', ({ data }) => {
    heardOf()
    takePatch(JSON.parse(data))
  })
  stream.addEventListener('full', () => lost('Too many pages are open.'))
  stream.addEventListener('error', () => {
    stream?.close()
    stream = undefined
    void why().then(lost)
  })
}

function heardOf() {
  heard = performance.now()
  failures = 0
}

/** @param {string} version */
function live(version) {
  isLive = true
  page.classList.remove('stale')
  element('offline').hidden = true
  element('link').dataset['link'] = 'live'
  const isSame = version === page.dataset['version']
  element('link-text').innerHTML =
    view.html`Live${!isSame && view.html`. This page is of another version: <a href="${base.href}">read again</a>`}`.markup
}

/** @param {string} reason */
function lost(reason) {
  stream?.close()
  stream = undefined
  if (isLive || failures === 0) {
    const since = today.format(Date.now())
    const text = `Disconnected since ${since}. What is shown is of then. `
    element('offline').innerHTML = view.html`${text}<span>${reason}</span>`.markup
    element('link').dataset['link'] = 'off'
    write(element('link-text'), 'Disconnected')
    element('offline').hidden = false
    page.classList.add('stale')
    say('Disconnected from the server.')
  }
  const told = element('offline').querySelector('span')
  if (reason === OVER && told !== null)
    told.innerHTML = view.html`Your session is over: <a href="${base.href}">log in again</a>.`.markup
  else write(told, reason)
  isLive = false
  failures++
  clearTimeout(retry)
  retry = window.setTimeout(connect, Math.min(5, failures) * 1_000 + Math.random() * 300)
}

const OVER = 'over'

/** An event source does not say what went wrong. */
async function why() {
  try {
    const { status } = await fetch(new URL('live', base), { method: 'HEAD', signal: AbortSignal.timeout(3_000) })
    if (status === 401 || status === 403) return OVER
  } catch {
    // Nobody is there.
  }
  return 'Trying again.'
}

setInterval(() => {
  if (stream === undefined || performance.now() - heard < SILENCE) return
  // A computer that has slept has heard nothing either: it finds out at once.
  lost('The server says nothing. Trying again.')
}, 1_000)

// What stays at the top, one below the other

const tools = document.querySelector('.tools')
const heights = new ResizeObserver(() => {
  const banner = element('offline').offsetHeight
  const isFixed = tools !== null && getComputedStyle(tools).position === 'sticky'
  page.style.setProperty('--banner', `${banner}px`)
  page.style.setProperty('--tools', `${banner + (isFixed ? tools.clientHeight : 0)}px`)
})
heights.observe(element('offline'))
if (tools !== null) heights.observe(tools)

// Search and states

function readFilter() {
  const data = new FormData(filterForm)
  const word = /** @type {Filter['word']} */ (data.get('state') ?? '')
  return { text: String(data.get('q') ?? '').trim(), word }
}

function sift() {
  filter = readFilter()
  for (const peer of peers.values()) peer.sift()
  for (const upstream of upstreams.values()) upstream.sift()
  drawEmpty()
  const url = new URL(location.href)
  for (const [name, value] of [
    ['q', filter.text],
    ['state', filter.word],
  ]) {
    if (value === '') url.searchParams.delete(name ?? '')
    else url.searchParams.set(name ?? '', value ?? '')
  }
  window.history.replaceState(null, '', url)
}

/** Says why nobody is shown, if so. */
function drawEmpty() {
  const all = [...upstreams.values()]
  const shown = all.filter(({ element }) => !element.hidden).length
  element('nobody').hidden = shown > 0
  write(element('nobody'), all.length === 0 ? 'There are no upstreams.' : 'Nobody is like that.')
}

let isSifting = false
filterForm.addEventListener('input', () => {
  if (isSifting) return
  isSifting = true
  requestAnimationFrame(() => {
    isSifting = false
    sift()
    const n = [...peers.values()].filter((peer) => !peer.element.hidden).length
    say(`${n} of ${peers.size} peers are shown.`)
  })
})
filterForm.addEventListener('submit', (event) => event.preventDefault())

document.addEventListener('keydown', (event) => {
  const { target, key, ctrlKey, metaKey, altKey } = event
  if (key !== '/' || ctrlKey || metaKey || altKey) return
  if (target instanceof HTMLInputElement || (target instanceof Element && target.closest('dialog') !== null)) return
  event.preventDefault()
  filterForm.querySelector('input')?.focus()
})

document.addEventListener('click', (event) => {
  const { target } = event
  if (!(target instanceof Element)) return
  const link = target.closest('a')
  if (link?.closest('#more') !== null && link !== null) {
    event.preventDefault()
    choose('trouble')
    element('upstreams').scrollIntoView()
    return
  }
  const to = link?.getAttribute('href') ?? ''
  if (!/^#[pu]\d+$/.test(to)) return
  const found = document.getElementById(to.slice(1))
  if (found === null) return
  // Who is asked for is shown, whatever was filtered before.
  if (found.hidden || found.closest('[hidden]') !== null) choose('')
  requestAnimationFrame(() => found.focus({ preventScroll: true }))
})

/** @param {Filter['word']} word */
function choose(word) {
  const search = filterForm.querySelector('input')
  if (search !== null) search.value = ''
  for (const radio of filterForm.querySelectorAll('input'))
    if (radio.type === 'radio') radio.checked = radio.value === word
  sift()
}

// Light and dark

const themeButton = element('theme')
const prefersDark = matchMedia('(prefers-color-scheme: dark)')
const isDark = () => (page.dataset['theme'] ?? (prefersDark.matches ? 'dark' : 'light')) === 'dark'

function nameTheme() {
  write(themeButton, isDark() ? 'Light' : 'Dark')
  themeButton.setAttribute('aria-label', `${isDark() ? 'Light' : 'Dark'} colours`)
}

themeButton.addEventListener('click', () => {
  const theme = isDark() ? 'light' : 'dark'
  const isDefault = theme === (prefersDark.matches ? 'dark' : 'light')
  if (isDefault) delete page.dataset['theme']
  else page.dataset['theme'] = theme
  // The server reads it, so that the next page begins as this one is.
  document.cookie = `checkups_theme=${theme}; Path=${base.pathname}; SameSite=Strict; Max-Age=${isDefault ? 0 : 31_536_000}`
  nameTheme()
})
prefersDark.addEventListener('change', nameTheme)

// Changes

const dialog = /** @type {HTMLDialogElement | null} */ (document.getElementById('dialog'))

list.addEventListener('click', ({ target }) => {
  const button = target instanceof Element ? target.closest('button.change') : null
  const row = button?.closest('tr')
  const peer = row ? drawnBy.get(row) : undefined
  if (peer instanceof Peer && dialog !== null) ask(dialog, peer)
})

/** @param {HTMLDialogElement} dialog @param {Peer} peer */
function ask(dialog, { model, upstream }) {
  const { address, weight, word, inFlight } = model
  const { key } = upstream.model
  const choices = view.choices(model)
  dialog.innerHTML = view.html`<form method="dialog">
<h2 id="dialog-title">Change ${address}</h2>
<p class="about">${key} · ${view.WORDS[word]} · ${inFlight} in flight</p>
<fieldset><legend class="hidden">What to do</legend>
${choices.map(
  ({ name, label, means }) =>
    view.html`<label class="choice"><input type="radio" name="choice" value="${name}" required><span>${label}<small>${means}</small></span>${
      name === 'weight' &&
      view.html`<input type="number" name="weight" min="0" max="2147483647" step="1" value="${weight}" aria-label="Weight">`
    }</label>`,
)}
</fieldset>
<p class="warning" role="status"></p>
<p class="error" role="alert"></p>
<div class="buttons"><button class="primary" disabled>Change</button><button type="button" class="cancel">Cancel</button></div>
</form>`.markup
  const form = /** @type {HTMLFormElement} */ (dialog.querySelector('form'))
  const submit = /** @type {HTMLButtonElement} */ (form.querySelector('.primary'))
  const number = /** @type {HTMLInputElement} */ (form.querySelector('[name=weight]'))
  const chosen = () => String(new FormData(form).get('choice') ?? '')
  const settle = () => {
    const choice = choices.find(({ name }) => name === chosen())
    submit.disabled = choice === undefined
    if (choice !== undefined) write(submit, `${choice.verb} ${address}`)
    number.required = chosen() === 'weight'
    write(form.querySelector('.warning'), view.warning(upstream.model, model, chosen()))
  }
  form.addEventListener('input', ({ target }) => {
    if (target === number) /** @type {HTMLInputElement} */ (form.querySelector('[value=weight]')).checked = true
    settle()
  })
  number.addEventListener('focus', () => {
    ;/** @type {HTMLInputElement} */ (form.querySelector('[value=weight]')).checked = true
    settle()
  })
  form.querySelector('.cancel')?.addEventListener('click', () => dialog.close())
  form.addEventListener('submit', (event) => {
    event.preventDefault()
    const choice = chosen()
    submit.disabled = true
    write(form.querySelector('.error'), '')
    change(key, address, choice, Number(number.value)).then(
      (note) => {
        dialog.close()
        done(`Done: ${submit.textContent}.${note}`)
      },
      (/** @type {unknown} */ error) => {
        submit.disabled = false
        write(form.querySelector('.error'), error instanceof Error ? error.message : String(error))
      },
    )
  })
  dialog.showModal()
}

/** @type {ReadonlyMap<string, object>} */
const CHANGES = new Map([
  ['drain', { drain: true }],
  ['undrain', { drain: false }],
  ['down', { down: true }],
  ['up', { down: false }],
])

/** Resolves to what else is to be said. @param {string} key @param {string} address @param {string} choice @param {number} weight */
async function change(key, address, choice, weight) {
  const path = `v1/upstreams/${encodeURIComponent(key)}/servers/${encodeURIComponent(address)}`
  const isReset = choice === 'reset'
  const response = await fetch(new URL(isReset ? `${path}/reset` : path, base), {
    method: isReset ? 'POST' : 'PATCH',
    headers: { 'content-type': 'application/json', ...(csrf !== undefined && { 'x-csrf-token': csrf }) },
    body: JSON.stringify(isReset ? {} : choice === 'weight' ? { weight } : CHANGES.get(choice)),
  })
  const answer = /** @type {{ error?: { message?: string }, note?: string }} */ (
    await response.json().catch(() => ({}))
  )
  if (response.status === 401) throw new Error('Your session is over. Open this page again, and log in.')
  if (!response.ok) throw new Error(answer.error?.message ?? `The server says ${response.status}.`)
  return isReset || answer.note === undefined ? '' : ` It is ${answer.note}.`
}

let doneTimer = 0

/** @param {string} text */
function done(text) {
  const told = element('done')
  write(told, text)
  told.hidden = false
  say(text)
  clearTimeout(doneTimer)
  doneTimer = window.setTimeout(() => (told.hidden = true), 6_000)
}

page.classList.add('js')
nameTheme()
tellClocks(events)
connect()
