/** The clock of the testing kit: the tests of the core use what users are given. */
export { VirtualClock } from '../../src/testing/index.js'
