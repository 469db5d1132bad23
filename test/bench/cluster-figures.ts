/** What the processes of the benchmark of clusters say to each other. Times are of the machine's monotonic clock, which all share. */

export const KEY = 'api'

/** Each change has a server of its own: its port is its number. */
export const addressOf = (change: number): string => `10.0.0.1:${change}`

export interface FromBench {
  readonly type: 'change'
  readonly change: number
}

export type FromWorker =
  | { readonly type: 'ready' }
  | { readonly type: 'picked'; readonly change: number; readonly at: string }
  | { readonly type: 'changed'; readonly change: number; readonly at: string; readonly agreed: string }
