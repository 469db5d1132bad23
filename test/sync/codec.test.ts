import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { decode, encode, encodeRequest } from '../../src/sync/codec.js'

const sent = (value: unknown, local?: unknown) => decode('x', JSON.parse(JSON.stringify(encode(value))), local)

describe('options between processes', () => {
  it('whatever JSON can say, and more, is what it was', () => {
    fc.assert(
      fc.property(
        fc.object({
          withNullPrototype: false,
          withBigInt: false,
          withDate: false,
          withMap: false,
          withSet: false,
          withTypedArray: false,
          withSparseArray: false,
          values: [
            fc.string(),
            fc.double({ noNaN: true }).filter((n) => !Object.is(n, -0)),
            fc.boolean(),
            fc.constant(null),
          ],
        }),
        (value) => {
          expect(sent(value)).toEqual(value)
        },
      ),
    )
  })

  it('bytes, numbers that JSON has none of, and keys that mean something', () => {
    const value = { key: Buffer.from([0, 255]), most: Infinity, none: NaN, $checkups: 'local' }
    expect(sent(value)).toEqual(value)
    const odd = JSON.parse('{"__proto__": {"a": 1}, "constructor": 2}') as object
    expect(JSON.stringify(sent(odd))).toBe(JSON.stringify(odd))
  })

  it('a function is the other process’s own, found in the same place; of servers by address', () => {
    const mine = () => 1
    const yours = () => 2
    const server = (port: number, meta: unknown) => ({ host: 'a', port, meta })
    const value = { balancer: mine, servers: [server(1, mine), server(2, mine)] }
    const local = { balancer: yours, servers: [server(2, yours), server(3, mine)] }
    expect(sent(value, local)).toEqual({ balancer: yours, servers: [server(1, undefined), server(2, yours)] })
    expect(() => sent(value, {})).toThrow('x.balancer: only the process in charge has it')
  })

  it('what is asked for must be sayable', () => {
    expect(() => encodeRequest('api', { update: [{ servers: [{ meta: new Map() }] }] })).toThrow(
      'api.update[0].servers[0].meta: cannot be sent',
    )
    expect(encodeRequest('api', { update: [1, undefined] })).toEqual({ update: [1, null] })
  })
})
