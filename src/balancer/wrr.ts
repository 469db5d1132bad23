/**
 * Smooth weighted round robin: the sequence of nginx from a fresh start, and the effective weights of lua-resty-checkups
 * under failures. When it has been calm for a while the sequence is remembered, and a pick is one look into a table.
 */
import type { Balancer, BalancerEnv, Member, Result } from './balancer.js'
import { gcd, Smooth, type SmoothServer } from './lib/smooth.js'

/** A longer cycle is not remembered: 65,536 entries are half a megabyte per level. */
const LONGEST_RECORD = 65_536

interface WrrData extends SmoothServer {
  /** Where the member stands in the list, and so in {@link Smooth}. */
  index: number
}

/** On the way to a remembered cycle: wait for as many calm picks as there are members, then record, if it is not too long. */
type Phase = 'waiting' | 'recording' | 'too long'

class WeightedRoundRobin implements Balancer<WrrData> {
  #members: readonly Member<WrrData>[] = []
  #smooth = new Smooth([])
  /** Where in its cycle a new level begins, a fraction; undefined once it has begun. */
  #startAt: number | undefined

  #phase: Phase = 'waiting'
  #calm = 0
  #record: Member<WrrData>[] = []
  /** How often each was picked in the record. */
  #picked = new Uint32Array(0)
  /** How many picks a cycle has. */
  #period = 0
  /** The cycle that is replayed, or nothing; `#smooth` does not know of the first `#position` picks of it. */
  #cycle: readonly Member<WrrData>[] = []
  #position = 0

  constructor(env: BalancerEnv) {
    this.#startAt = env.random()
  }

  update(members: readonly Member<WrrData>[]): void {
    this.#leaveRecord()
    for (const { data } of this.#members) {
      if (data === undefined) continue
      data.current = this.#smooth.current(data.index)
      data.effective = this.#smooth.effective(data.index)
    }
    members.forEach((member, index) => {
      const { weight, available, data } = member
      if (data?.weight === weight) {
        data.index = index
        data.available = available
      }
      // A changed weight begins anew, as in nginx-upsync: what was earned by the old one means nothing to the new.
      else member.data = { index, weight, available, effective: weight, current: 0 }
    })
    const servers = members.map((member) => member.data!)
    if (this.#startAt !== undefined && members.length > 0) {
      startWithin(servers, this.#startAt)
      this.#startAt = undefined
    }
    this.#members = members
    this.#smooth = new Smooth(servers)
  }

  pick(): Member<WrrData> | undefined {
    // The hot path of the whole library: no look at anything but the cycle.
    const cycle = this.#cycle
    const position = this.#position
    if (position >= cycle.length) return this.#step()
    this.#position = position + 1 === cycle.length ? 0 : position + 1
    return cycle[position]
  }

  changed({ data, available }: Member<WrrData>): void {
    if (data === undefined || data.available === available) return
    this.#leaveRecord()
    data.available = available
    this.#smooth.setAvailable(data.index, available)
  }

  report({ data }: Member<WrrData>, { outcome, acquired }: Result): void {
    // feedbackStatus leaves the weights alone, as it does in lua-resty-checkups; at weight 1 there is nothing to halve.
    if (outcome !== 'failed' || !acquired || data === undefined || data.weight === 1) return
    this.#leaveRecord()
    this.#smooth.halve(data.index)
  }

  #step(): Member<WrrData> | undefined {
    const index = this.#smooth.pick()
    const member = this.#members[index]
    if (member === undefined || this.#phase === 'too long') return member
    if (this.#phase === 'recording') {
      this.#record.push(member)
      this.#picked[index]!++
      if (this.#record.length === this.#period) this.#closeRecord()
    } else if (this.#smooth.recovering) this.#calm = 0
    else if (++this.#calm >= this.#members.length) this.#openRecord()
    return member
  }

  #openRecord(): void {
    this.#record = []
    this.#picked = new Uint32Array(this.#members.length)
    this.#period = this.#smooth.period()
    this.#phase = this.#period > LONGEST_RECORD ? 'too long' : 'recording'
  }

  /**
   * P picks change a current weight by P·weight − picks·sum, which is nothing for all exactly when each was picked in
   * proportion to its weight: then the weights are those at the record's start, and so it goes on for ever. From any
   * weights that is so within four cycles.
   */
  #closeRecord(): void {
    for (let i = 0; i < this.#picked.length; i++) {
      if (this.#picked[i] !== this.#smooth.share(i, this.#period)) return this.#openRecord()
    }
    this.#cycle = this.#record
    this.#phase = 'waiting'
  }

  /** Gives the weights back to `#smooth` as they are now, and begins to wait for calm again. */
  #leaveRecord(): void {
    if (this.#position > 0) {
      this.#picked.fill(0)
      for (let p = 0; p < this.#position; p++) this.#picked[this.#cycle[p]!.data!.index]!++
      this.#smooth.advance(this.#picked, this.#position)
    }
    this.#cycle = []
    this.#position = 0
    this.#phase = 'waiting'
    this.#calm = 0
  }
}

/**
 * Puts fresh servers where about u of their cycle's picks lead, without making them: k picks are shared out by largest
 * remainder, the earlier server first, which for equal weights is the exact position and for others one that smooth
 * round robin goes on from just as smoothly. Instances that start together so do not pick in step; u = 0 is nginx's start.
 */
function startWithin(all: readonly SmoothServer[], u: number): void {
  const servers = all.filter(({ available }) => available)
  const divisor = servers.reduce((common, { weight }) => gcd(common, weight), 0)
  const sum = servers.reduce((total, { weight }) => total + weight, 0)
  const period = sum / Math.max(1, divisor)
  const k = Math.floor(u * Math.min(period, LONGEST_RECORD))
  const shares = servers.map((server) => {
    const picks = (k * server.weight) / divisor
    return { server, whole: Math.floor(picks / period), rest: picks % period }
  })
  let left = k - shares.reduce((total, { whole }) => total + whole, 0)
  shares.sort((a, b) => b.rest - a.rest)
  for (const { server, whole } of shares) server.current = k * server.weight - (whole + (left-- > 0 ? 1 : 0)) * sum
}

export const wrr = (env: BalancerEnv): Balancer => new WeightedRoundRobin(env)
