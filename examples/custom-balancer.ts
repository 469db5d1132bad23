// A policy of your own in ten lines: of two peers drawn at random, the one with fewer requests in flight.
// npx tsx examples/custom-balancer.ts
import { Checkups, type BalancerFactory, type Member } from 'checkups'

const twoChoices: BalancerFactory = ({ random }) => {
  let members: readonly Member[] = []
  return {
    update: (list) => (members = list),
    pick: () => {
      const available = members.filter((member) => member.available)
      const draw = () => available[Math.floor(random() * available.length)]
      const [one, other] = [draw(), draw()]
      return one !== undefined && other !== undefined && other.inFlight < one.inFlight ? other : one
    },
  }
}

const checkups = new Checkups({
  upstreams: { api: { balancer: twoChoices, servers: ['10.0.0.1:80', '10.0.0.2:80', '10.0.0.3:80'] } },
})

// Ninety requests that nobody ends: the counts stay close, where one random choice would spread them widely.
for (let request = 0; request < 90; request++) checkups.acquirePeer('api')
for (const { address, inFlight } of checkups.getStatus().upstreams[0]?.levels[0]?.servers ?? []) {
  console.log(address, inFlight)
}
