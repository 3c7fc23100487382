// Builds the programs of the suites of a real tailnet in .cache/tailnet, once per pair of versions: headscale, tailscaled and
// tailscale. Takes some ten minutes on two cores. Without Go or root on Linux it reports why; in CI that is a failure.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';

import { cache, folder, HEADSCALE, isBuilt, obstacle, TAILSCALE } from './tailnet-programs.mjs';

/** Any of hundreds of downloads may fail; Go keeps what it downloaded and built. */
const ATTEMPTS = 4;
const PAUSE_MS = 15_000;

if (!isBuilt()) {
  const reason = obstacle() ?? withoutGo() ?? (await install());
  if (reason !== undefined) {
    process.stderr.write(`Skipped: the suites of a real tailnet: ${reason}.\n`);
    if (process.env.CI === 'true') process.exitCode = 1;
  }
}

function withoutGo() {
  const { status } = go(['version'], { stdio: 'ignore' });
  return status === 0 ? undefined : 'they need Go 1.26.5 or newer, on the PATH or in /usr/local/go/bin';
}

/** What failed, or undefined. */
async function install() {
  mkdirSync(cache, { recursive: true });
  const built = mkdtempSync(join(cache, 'building-'));
  try {
    process.stdout.write(`Building headscale ${HEADSCALE} and tailscaled ${TAILSCALE}, which may take ten minutes …\n`);
    if (!(await persistently(() => buildTailscale(built)))) return 'cannot build tailscaled, for the reason above';
    if (!(await persistently(() => buildHeadscale(built)))) return 'cannot build headscale, for the reason above';
    rmSync(folder, { recursive: true, force: true });
    renameSync(built, folder);
    return undefined;
  } finally {
    rmSync(built, { recursive: true, force: true });
  }
}

async function persistently(attempt) {
  for (let left = ATTEMPTS - 1; ; left -= 1) {
    if (attempt()) return true;
    if (left === 0) return false;
    process.stderr.write(`That failed; retrying in ${PAUSE_MS / 1000} s, at most ${left} more times.\n`);
    await delay(PAUSE_MS);
  }
}

function buildTailscale(built) {
  const packages = ['tailscaled', 'tailscale'].map((name) => `tailscale.com/cmd/${name}@v${TAILSCALE}`);
  return go(['install', ...packages], { env: { GOBIN: built } }).status === 0;
}

/** Not with `go install`, which requests the list of all versions to warn of deprecations; mirrors need not serve it. */
function buildHeadscale(built) {
  const { status, stdout } = go(['mod', 'download', '-json', `github.com/juanfont/headscale@v${HEADSCALE}`], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (status !== 0) return false;
  const { Dir: source } = JSON.parse(stdout);
  return go(['build', '-C', source, '-trimpath', '-o', join(built, 'headscale'), './cmd/headscale']).status === 0;
}

function go(args, { env = {}, stdio = 'inherit' } = {}) {
  return spawnSync('go', args, {
    // Outside any module.
    cwd: tmpdir(),
    encoding: 'utf8',
    stdio,
    env: {
      ...process.env,
      PATH: `${process.env.PATH}:/usr/local/go/bin`,
      CGO_ENABLED: '0',
      GOFLAGS: '-buildvcs=false',
      ...env,
    },
  });
}
