import tseslint from 'typescript-eslint'

/** What only src/clock.ts may touch: everything timed or random goes through the Clock and Random seams. */
const realTime = {
  'no-restricted-globals': [
    'error',
    ...['setTimeout', 'setInterval', 'clearTimeout', 'clearInterval', 'performance'].map((name) => ({
      name,
      message: 'Use the Clock seam (src/clock.ts).',
    })),
  ],
  'no-restricted-properties': [
    'error',
    { object: 'Date', property: 'now', message: 'Use Clock.now() or Clock.wallTime().' },
    { object: 'Math', property: 'random', message: 'Use the random seam.' },
    { object: 'AbortSignal', property: 'timeout', message: 'Use a Timer of src/clock.ts.' },
    { object: 'process', property: 'hrtime', message: 'Use Clock.now().' },
    { object: 'globalThis', property: 'setTimeout', message: 'Use the Clock seam (src/clock.ts).' },
    { object: 'globalThis', property: 'performance', message: 'Use the Clock seam (src/clock.ts).' },
  ],
  'no-restricted-syntax': [
    'error',
    { selector: "NewExpression[callee.name='Date'][arguments.length=0]", message: 'Use Clock.wallTime().' },
    { selector: "CallExpression[callee.name='Date']", message: 'Use Clock.wallTime().' },
  ],
  'no-restricted-imports': [
    'error',
    ...['timers', 'timers/promises', 'perf_hooks', 'crypto'].flatMap((name) => [`node:${name}`, name]),
  ],
}

export default tseslint.config(
  { ignores: ['dist', 'docs/api', 'coverage', 'node_modules'] },
  {
    files: ['**/*.ts'],
    extends: [tseslint.configs.strictTypeChecked],
    languageOptions: { parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname } },
    rules: {
      '@typescript-eslint/restrict-template-expressions': ['error', { allowNumber: true, allowBoolean: true }],
      '@typescript-eslint/switch-exhaustiveness-check': ['error', { considerDefaultExhaustiveForUnions: true }],
      '@typescript-eslint/consistent-type-imports': 'error',
      '@typescript-eslint/no-confusing-void-expression': [
        'error',
        { ignoreArrowShorthand: true, ignoreVoidReturningFunctions: true },
      ],
      // With noUncheckedIndexedAccess, `!` is how an invariant about an index is stated.
      '@typescript-eslint/no-non-null-assertion': 'off',
      // An async function without await turns what it throws into a rejection.
      '@typescript-eslint/require-await': 'off',
      '@typescript-eslint/no-unused-vars': ['error', { argsIgnorePattern: '^_', varsIgnorePattern: '^_' }],
      // A policy returns as Member what the core made as Entry.
      '@typescript-eslint/no-unsafe-class-instance-assignment': 'off',
      eqeqeq: 'error',
    },
  },
  { files: ['src/**/*.ts'], ignores: ['src/clock.ts'], rules: realTime },
  // Answers of the admin interface are JSON of whatever shape a test says.
  {
    files: ['test/admin/**/*.ts'],
    rules: { '@typescript-eslint/no-unsafe-member-access': 'off', '@typescript-eslint/no-unsafe-assignment': 'off' },
  },
  // Secrets come from the machine's randomness, and no seam may stand for that.
  { files: ['src/admin/lib/secret.ts'], rules: { 'no-restricted-imports': 'off' } },
)
