/** The page for people: rendered whole here, kept up to date by its script, and readable without that. */
import { readFileSync } from 'node:fs'
import type { Clock } from '../../clock.js'
import type { Journal } from '../journal.js'
import type { AdminReply, AdminRequest, Interface, Route } from '../lib/route.js'
import { digest } from '../lib/secret.js'
import { Meter, type Sample } from '../meter.js'
import type { Operations } from '../operations.js'
import {
  counts,
  event,
  FILTERS,
  html,
  icon,
  matches,
  problems,
  raw,
  sourceRow,
  span,
  upstreamSection,
  verdict,
  whole,
  WORDS,
  type Context,
  type Html,
} from './assets/view.js'
import { Live } from './live.js'
import type { Filter, Model } from './model.js'
import { MINUTE, Reader } from './read.js'

export interface PageEnv {
  readonly operations: Operations
  readonly journal: Journal
  readonly clock: Clock
}

/** Peers beyond which charts begin with what rates are made of: the script draws them whole, where they are seen. */
const MANY = 200

interface Asset {
  readonly text: string
  readonly type: string
  readonly etag: string
}

const TYPES: ReadonlyMap<string, string> = new Map([
  ['page.css', 'text/css; charset=utf-8'],
  ['page.js', 'text/javascript; charset=utf-8'],
  ['view.js', 'text/javascript; charset=utf-8'],
])

const assets = new Map<string, Asset>()

/** Read when first asked for: who never looks never pays. */
function asset(name: string): Asset | undefined {
  const known = assets.get(name)
  const type = TYPES.get(name)
  if (known !== undefined || type === undefined) return known
  const text = readFileSync(new URL(`./assets/${name}`, import.meta.url), 'utf8')
  const read = { text, type, etag: `"${digest(text)}"` }
  assets.set(name, read)
  return read
}

let known: string | undefined
const version = () => (known ??= digest([...TYPES.keys()].map((name) => asset(name)!.etag).join('')).slice(0, 8))

/** `/`, what it is made of, and `/live`. */
export function page({ operations, journal, clock }: PageEnv): {
  readonly route: Interface
  readonly close: () => void
} {
  const meter = new Meter(operations.checkups, clock)
  const reader = new Reader({ operations, journal, meter, version })
  const live = new Live(reader, meter, clock)

  const show = (request: AdminRequest): AdminReply => {
    meter.look()
    return reply(statusPage(request, reader.read(), meter))
  }
  const follow = (): AdminReply => ({
    status: 200,
    // What is in between must neither keep events back nor pack them.
    headers: {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-store, no-transform',
      'x-accel-buffering': 'no',
    },
    stream: (write, closed) => live.add(write, closed),
  })

  const route: Interface = (method, path): Route | undefined => {
    if (method !== 'GET') return undefined
    if (path === '/') return { writes: false, run: show }
    if (path === '/live') return { writes: false, run: follow }
    const found = asset(path.slice(1))
    return (
      found && { writes: false, open: true, run: ({ headers, query }) => serve(found, headers['if-none-match'], query) }
    )
  }
  const close = () => {
    live.close()
    meter.close()
  }
  return { route, close }
}

/** A file under the version that the page has asked for stays as it is. */
function serve({ text, type, etag }: Asset, ifNoneMatch: string | undefined, query: URLSearchParams): AdminReply {
  const isVersioned = query.get('v') === version()
  const headers = {
    'content-type': type,
    etag,
    'cache-control': isVersioned ? 'public, max-age=31536000, immutable' : 'no-cache',
  }
  return ifNoneMatch === etag ? { status: 304, headers } : { status: 200, headers, body: text }
}

function reply(markup: string): AdminReply {
  return { status: 200, headers: { 'content-type': 'text/html; charset=utf-8' }, body: markup }
}

/** What a browser keeps of the reader's wish; there is none without. */
function themeOf({ headers }: AdminRequest): string | undefined {
  return /(?:^|; *)checkups_theme=(light|dark)(?:;|$)/.exec(headers.cookie ?? '')?.[1]
}

function filterOf({ query }: AdminRequest): Filter {
  const word = query.get('state') ?? ''
  const [known = ''] = FILTERS.find(([name]) => name === word) ?? []
  return { text: (query.get('q') ?? '').trim(), word: known }
}

interface Head {
  readonly base: string
  readonly title: string
  readonly theme?: string | undefined
  readonly more?: Html
}

/** Under `no-referrer`, which all answers have, a form's Origin would be `null`: not to be told from another site's. */
const REFERRER = html`<meta name="referrer" content="same-origin" />`

function document({ base, title, theme, more }: Head, body: Html): string {
  const url = (name: string) => `${base}${name}?v=${version()}`
  return html`<!doctype html>
    <html lang="en" data-version="${version()}" ${theme === undefined ? '' : html` data-theme="${theme}"`}>
      <head>
        <meta charset="utf-8" />
        <title>${title}</title>
        <meta name="viewport" content="width=device-width, initial-scale=1" />
        <meta name="color-scheme" content="light dark" />
        <meta name="robots" content="noindex" />
        ${REFERRER}
        <link
          rel="icon"
          href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E%3Ccircle cx='8' cy='8' r='6' fill='%23607d6b'/%3E%3C/svg%3E"
        />
        <link rel="stylesheet" href="${url('page.css')}" />
        ${more}
      </head>
      ${body}
    </html> `.markup
}

function statusPage(request: AdminRequest, model: Model, meter: Meter): string {
  const { base, csrf, caller } = request
  const { upstreams, sources, events, at, second, from } = model
  const mayWrite = caller.role === 'write'
  const filter = filterOf(request)
  const count = counts(upstreams)
  const seconds = count.all > MANY ? 10 : MINUTE
  const minute = (key: string, address?: string) => meter.samples(second - seconds + 1, second, key, address)
  const samples = new Map<number, readonly Sample[]>()
  for (const { id, key, levels } of upstreams) {
    samples.set(id, minute(key))
    for (const { peers } of levels) for (const peer of peers) samples.set(peer.id, minute(key, peer.address))
  }
  const context: Context = { now: at, second, from, samples: (id) => samples.get(id) ?? [] }
  const { tone, text } = verdict(model, count)
  const { parts, more } = problems(model, context)
  const shown = upstreams.filter(
    ({ key, levels }) =>
      (filter.text === '' && filter.word === '') ||
      levels.some(({ peers }) => peers.some((peer) => matches(key, peer, filter))),
  )
  const isFiltered = filter.text !== '' || filter.word !== ''
  const part =
    (name: string) =>
    ({ markup }: { markup: string }) =>
      html`<li class="${name}">${raw(markup)}</li>`

  const head = html`<link rel="modulepreload" href="${base}view.js" />
    <script type="module" src="${base}page.js?v=${version()}"></script>
    ${csrf !== undefined && html`<meta name="csrf" content="${csrf}" />`}`

  const body = html`<body data-run="${model.run}" data-role="${caller.role}">
    <a class="skip" href="#upstreams">Skip to the upstreams</a>
    <header class="bar">
      <p class="brand"><a href="${base}">Checkups</a></p>
      <p class="link" id="link" data-link="none">
        <span class="dot"></span><span id="link-text">As of ${utc(at)}; <a href="${base}">read again</a></span>
      </p>
      <p class="who" title="${mayWrite ? 'may read and write' : 'may read'}">${caller.name}</p>
      <button type="button" id="theme" class="quiet scripted">Dark</button>
      ${csrf !== undefined && html`<form method="post" action="${base}logout"><input type="hidden" name="csrf" value="${csrf}" /><button class="quiet">Log out</button></form>`}
    </header>
    <p class="offline" id="offline" hidden></p>
    <main>
      <h1 id="verdict" data-tone="${tone}">${icon(tone)}<span>${text}</span></h1>
      <div class="glance">
        <div class="now">
          <ul class="problems" id="problems" aria-label="What is not well">
            ${parts.map(part('problem'))}
          </ul>
          <p class="calm" id="calm" ${parts.length > 0 ? html` hidden` : ''}>Nothing needs attention.</p>
          <p class="more" id="more" ${more === 0 ? html` hidden` : ''}>
            <a href="${base}?state=trouble#upstreams">and <span>${more}</span> more</a>
          </p>
        </div>
        <section class="happened card" aria-labelledby="h-events">
          <h2 id="h-events">What happened <i class="unscripted">UTC</i></h2>
          <div class="scroll" tabindex="0" role="group" aria-labelledby="h-events">
            <ol class="events" id="events" reversed>
              ${events.map((one) => html`<li class="event">${raw(event(one))}</li>`)}
            </ol>
            <p class="nothing" id="no-events" ${events.length > 0 ? html` hidden` : ''}>
              Nothing since the process began.
            </p>
          </div>
        </section>
      </div>

      <h2 class="hidden" id="upstreams" tabindex="-1">Upstreams</h2>
      <div class="tools">
        <form class="filter" role="search" method="get" action="${base}" id="filter">
          <label class="search"
            ><span class="hidden">Search in names, addresses, labels, states and reasons</span
            ><input
              type="search"
              name="q"
              value="${filter.text}"
              placeholder="Search"
              autocomplete="off"
              spellcheck="false"
          /></label>
          <fieldset class="chips">
            <legend class="hidden">State</legend>
            ${FILTERS.map(
              ([word, label]) =>
                html`<label class="chip"
                  ><input
                    type="radio"
                    name="state"
                    value="${word}"
                    ${word === filter.word ? html` checked` : ''}
                  /><span
                    >${word in WORDS && icon(word)}${label}
                    <b data-count="${word}" data-n="${count[word || 'all']}">${whole(count[word || 'all'])}</b></span
                  ></label
                >`,
            )}
          </fieldset>
          <button class="unscripted">Show</button>
        </form>
        <div class="columns grid" aria-hidden="true">
          <span class="server">Server</span><span class="state">State</span><span class="weight">Weight</span
          ><span class="flight">In flight</span><span class="rate">Requests</span><span class="failed">Failed</span
          ><span class="latency">Latency</span><span class="beat">Heartbeat</span>
        </div>
      </div>
      <div id="list">${shown.map((upstream) => upstreamSection(upstream, context, filter, mayWrite))}</div>
      <p class="nothing" id="nobody" ${shown.length > 0 ? html` hidden` : ''}>
        ${isFiltered ? 'Nobody is like that.' : 'There are no upstreams.'}
      </p>

      <section class="card" id="sources" aria-labelledby="h-sources" ${sources.length === 0 ? html` hidden` : ''}>
        <h2 id="h-sources">Sources</h2>
        <table role="table" aria-labelledby="h-sources">
          <thead role="rowgroup">
            <tr role="row" class="sources">
              <th role="columnheader" scope="col">Source</th>
              <th role="columnheader" scope="col">State</th>
              <th role="columnheader" scope="col">Last contact</th>
              <th role="columnheader" scope="col">Last change</th>
              <th role="columnheader" scope="col">Gives</th>
            </tr>
          </thead>
          <tbody role="rowgroup" id="source-rows">
            ${sources.map(
              (source) =>
                html`<tr role="row" class="sources">
                  ${raw(sourceRow(source, at))}
                </tr>`,
            )}
          </tbody>
        </table>
      </section>
    </main>
    <footer>
      <p>
        Up for <span id="uptime" data-at="${model.startedAt}" data-form="%">${span(at - model.startedAt)}</span>,
        process ${process.pid}. Rates, failures and latencies are those of the last 10 s, charts of the last minute;
        they are measured while somebody looks.
      </p>
    </footer>
    <div class="hidden" id="say" role="status" aria-live="polite"></div>
    ${
      mayWrite &&
      html`<dialog id="dialog" aria-labelledby="dialog-title"></dialog>
        <p class="done" id="done" hidden></p>`
    }
  </body>`
  return document({ base, title: `${text} · Checkups`, theme: themeOf(request), more: head }, body)
}

/** The form by which a browser logs in. */
export function loginPage(base: string, problem: string | undefined): string {
  const body = html`<body class="login">
    <main class="card">
      <h1>Checkups</h1>
      <form method="post" action="${base}login">
        <label for="token">Token</label>
        <input
          id="token"
          name="token"
          type="password"
          autocomplete="current-password"
          required
          autofocus${problem !== undefined && html` aria-invalid="true" aria-describedby="problem"`}
        />
        ${problem !== undefined && html`<p id="problem" class="problem" role="alert">${icon('down')} ${problem}</p>`}
        <button class="primary">Log in</button>
      </form>
    </main>
  </body>`
  return document({ base, title: 'Log in · Checkups' }, body)
}

function utc(at: number): string {
  return `${new Date(at).toISOString().slice(0, 19).replace('T', ' ')} UTC`
}
