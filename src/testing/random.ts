/** Chance that repeats itself. */
import { levelRandom, type Random } from '../clock.js'

/**
 * A generator of numbers in [0, 1) that gives the same sequence for the same seed (mulberry32, 32 bits of state).
 *
 * @param seed - an integer; its lowest 32 bits count
 */
export function seededRandom(seed: number): Random {
  const random = levelRandom((seed >>> 0) / 2 ** 32)
  // The first number of a level's generator is the seed itself.
  random()
  return random
}

/** Makes generators that do not disturb each other: what one draws never changes the sequence of another. */
export function seededStreams(seed: number): () => Random {
  const root = seededRandom(seed)
  return () => seededRandom(Math.floor(root() * 2 ** 32))
}
