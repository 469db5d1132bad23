/** The arrows of the design: control compiles, data picks, and no arrow turns back. */
module.exports = {
  forbidden: [
    { name: 'no-cycles', severity: 'error', from: {}, to: { circular: true } },
    {
      name: 'balancer-knows-only-its-contract',
      severity: 'error',
      from: { path: '^src/balancer' },
      to: { path: '^src/', pathNot: '^src/(balancer|errors|check|clock|upstream/peer|health/outcome)' },
    },
    {
      name: 'health-knows-no-balancer-or-upstream',
      severity: 'error',
      from: { path: '^src/health' },
      // The face of a peer, which probes are given, is nobody's inside.
      to: { path: '^src/(balancer|upstream|source|sync|adapter|admin|checkups)', pathNot: '^src/upstream/peer' },
    },
    {
      name: 'core-knows-no-leaf',
      severity: 'error',
      from: { path: '^src/(index|checkups|compile|config|upstream|balancer|health)' },
      to: { path: '^src/(source|sync|adapter|admin|testing)' },
    },
    { name: 'no-orphans', severity: 'error', from: { orphan: true, path: '^src/' }, to: {} },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
  },
}
