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
      from: { path: '^src/(index|checkups|compile|config|events|status|upstream|balancer|health)' },
      // An instance runs the loop of sources, and tells a sync; what these are it does not know.
      to: {
        path: '^src/(source|sync|adapter|admin|testing)',
        pathNot: '^src/(source/(follow|source)|sync/sync)\\.ts$',
      },
    },
    {
      name: 'only-the-instance-runs-sources',
      severity: 'error',
      from: { path: '^src/(compile|config|upstream|balancer|health)' },
      to: { path: '^src/source' },
    },
    { name: 'no-orphans', severity: 'error', from: { orphan: true, path: '^src/' }, to: {} },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: 'tsconfig.json' },
    doNotFollow: { path: 'node_modules' },
  },
}
