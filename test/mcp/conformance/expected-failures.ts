/** Which server a scenario needs: the product, or the product with the tools that the suite calls. */
export type Subject = 'product' | 'fixtures';

export interface Scenario {
  readonly name: string;
  readonly subject: Subject;
  /** Version of the protocol; default: 2026-07-28. */
  readonly version?: '2025-11-25';
  /** Also runs in CI; the others run with `npm run conformance` only. */
  readonly inCi?: true;
  /** Checks that are expected to fail, and why. If one passes, the suite fails. */
  readonly fails?: Readonly<Record<string, string>>;
}

const NO_HTTP = 'is about the headers of HTTP, which this server does not speak; the bridge of the tests checks none';
const OWN_KEYS = 'wants the key "user_name" of its example; keys are opaque, and ours are never used again';
const NO_SUCH_TOOL =
  'needs a tool that asks what was not declared, or writes to the log by itself: there is none like it here';

/** Scenarios of the older protocol that do not need the suite's own tools or resources. */
const OLDER: readonly Omit<Scenario, 'subject' | 'version'>[] = [
  { name: 'server-initialize', inCi: true },
  { name: 'ping' },
  { name: 'logging-set-level' },
  { name: 'completion-complete' },
  { name: 'tools-list', inCi: true },
  { name: 'resources-list' },
  { name: 'prompts-list' },
  { name: 'server-sse-multiple-streams' },
];

/**
 * The scenarios of the official suite that apply to a server of tools, resources and prompts over stdio. Omitted are scenarios that
 * only call example tools, or that are only about HTTP.
 */
export const SCENARIOS: readonly Scenario[] = [
  ...OLDER.map((scenario) => ({ ...scenario, subject: 'product', version: '2025-11-25' }) as const),
  {
    name: 'server-stateless',
    subject: 'product',
    inCi: true,
    fails: {
      'sep-2575-http-server-header-mismatch-400': NO_HTTP,
      'sep-2575-server-rejects-undeclared-capability': NO_SUCH_TOOL,
      'sep-2575-missing-capability-http-400': NO_SUCH_TOOL,
      'sep-2575-http-server-no-independent-requests-on-stream': NO_SUCH_TOOL,
      'sep-2575-server-no-log-without-loglevel': NO_SUCH_TOOL,
    },
  },
  { name: 'caching', subject: 'product', inCi: true },
  { name: 'tools-list', subject: 'product', inCi: true },
  { name: 'resources-list', subject: 'product' },
  { name: 'prompts-list', subject: 'product' },
  { name: 'completion-complete', subject: 'product' },
  { name: 'sep-2164-resource-not-found', subject: 'product' },
  { name: 'server-sse-multiple-streams', subject: 'product' },
  {
    name: 'tasks-lifecycle',
    subject: 'fixtures',
    inCi: true,
    fails: {
      'sep-2663-tasks-get-status-failed':
        'wants a fault of a tool as a protocol error; here it is a result that the model reads, in both eras',
    },
  },
  { name: 'tasks-capability-negotiation', subject: 'fixtures' },
  { name: 'tasks-wire-fields', subject: 'fixtures' },
  { name: 'tasks-request-state-removal', subject: 'fixtures' },
  { name: 'tasks-mrtr-input', subject: 'fixtures', inCi: true },
  { name: 'tasks-dispatch-and-envelope', subject: 'fixtures', inCi: true },
  {
    name: 'tasks-required-task-error',
    subject: 'fixtures',
    fails: {
      'sep-2663-server-returns-missing-capability-when-required':
        'wants a tool that only runs as a task; all of ours run as calls too',
    },
  },
  {
    name: 'input-required-result-basic-elicitation',
    subject: 'fixtures',
    fails: { 'sep-2322-elicitation-incomplete': OWN_KEYS },
  },
  { name: 'input-required-result-request-state', subject: 'fixtures', inCi: true },
  { name: 'input-required-result-missing-input-response', subject: 'fixtures' },
  { name: 'input-required-result-result-type', subject: 'fixtures' },
  { name: 'input-required-result-unsupported-methods', subject: 'fixtures' },
  { name: 'input-required-result-tampered-state', subject: 'fixtures', inCi: true },
  { name: 'input-required-result-ignore-extra-params', subject: 'fixtures' },
  { name: 'input-required-result-validate-input', subject: 'fixtures' },
];
