// Prove that a policy survives one slow peer, without sockets and in milliseconds.
// npx tsx examples/slow-peer.ts
import { simulate, constant, slowBetween, type Scenario } from 'checkups/testing'

const scenario: Scenario = {
  // Three peers that answer in 20 ms; from second 5 to 15 the third takes 50 times as long.
  peers: [constant(20), constant(20), slowBetween(constant(20), 5_000, 15_000, 50)],
  upstream: { maxFails: 0 },
  load: { rate: 300 },
  duration: 20_000,
  okWithin: 500,
}

for (const balancer of ['wrr', 'least-connections', 'fastest-first'] as const) {
  const { successRate, latency, peers } = simulate({ ...scenario, balancer })
  const shares = peers.map(({ share }) => `${(100 * share).toFixed(0)} %`).join(', ')
  console.log(`${balancer}: ${(100 * successRate).toFixed(2)} % in time, P99 ${latency.p99} ms, shares ${shares}`)
  if (balancer === 'fastest-first' && successRate < 0.99) process.exitCode = 1
}
