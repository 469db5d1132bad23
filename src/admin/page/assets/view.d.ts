/** What both sides of the page share: the server renders it whole, the browser those parts that change. */
import type { Sample } from '../../meter.js'
import type { EventModel, Filter, Model, PeerModel, PeerWord, SourceModel, UpstreamModel } from '../model.js'

/** Markup: what was put into it is escaped. */
export interface Html {
  readonly markup: string
}

/** What parts need beside what they show. */
export interface Context {
  /** For ages; NaN leaves them to whoever keeps them up to date. */
  readonly now: number
  readonly second: number
  readonly from: number
  /** What a peer or an upstream did in the last minute. */
  readonly samples: (id: number) => readonly Sample[]
}

/** The most of one second in any chart of an upstream: they can be compared. */
export interface Scale {
  readonly requests: number
  readonly ms: number
}

/** A part that is found again by its key. */
export interface Part {
  readonly key: string
  readonly markup: string
}

/** Of the last ten seconds. */
export interface Rates {
  readonly requests: number
  /** From 0 to 1; NaN if nothing has ended. */
  readonly failed: number
  /** 0 if nothing was answered. */
  readonly ms: number
  readonly slowest: number
  readonly unserved: number
}

export interface Verdict {
  readonly tone: PeerWord
  readonly text: string
}

/** Peers by word, and in all. */
export type Counts = Readonly<Record<PeerWord | 'trouble' | 'all', number>>

/** The parts of the model that a glance needs. */
export type Glance = Pick<Model, 'upstreams' | 'sources' | 'beats'>

export const WORDS: Readonly<Record<PeerWord, string>>
export const FILTERS: readonly (readonly [word: Filter['word'], label: string])[]

export function html(parts: readonly string[], ...values: readonly unknown[]): Html
/** What a part has made already. */
export function raw(markup: string): Html
export function icon(word: string): Html
export function whole(n: number): string
export function span(ms: number): string
export function clock(at: number): string
export function age(at: number | undefined, now: number, form?: string): Html
/** The text that {@link age} has at this time. */
export function aged(at: number, now: number, form: string): string
export function rates(samples: readonly Sample[], context: Pick<Context, 'second' | 'from'>): Rates | undefined
export function scaleOf(upstream: UpstreamModel, context: Context): Scale
/** The cells of a peer, all but that of its button. */
export function cells(peer: PeerModel, scale: Scale, context: Context): string[]
export function row(peer: PeerModel, scale: Scale, context: Context, mayWrite: boolean): Html
/** The cells of an upstream's head. */
export function headCells(upstream: UpstreamModel, context: Context): string[]
export function levelLabel(upstream: UpstreamModel, level: number): Html
/** Whether its levels are told apart. */
export function hasLevels(upstream: UpstreamModel): boolean
/** Without rows if `isEmpty`: somebody will bring them. */
export function upstreamSection(
  upstream: UpstreamModel,
  context: Context,
  filter: Filter,
  mayWrite: boolean,
  isEmpty?: boolean,
): Html
export function sourceRow(source: SourceModel, now: number): string
export function event(event: EventModel): string
export function problems(glance: Glance, context: Context): { parts: Part[]; more: number }
export function counts(upstreams: readonly UpstreamModel[]): Counts
export function verdict(glance: Glance, counts: Counts): Verdict
export function matches(key: string, peer: PeerModel, filter: Filter): boolean
/** What a change means, said before it is made; and the button that makes it. */
export function choices(peer: PeerModel): readonly { name: string; label: string; means: string; verb: string }[]
export function warning(upstream: UpstreamModel, peer: PeerModel, choice: string): string
