// Builds what the suites of a real tailnet run: headscale, tailscaled and its command line, in .cache/tailnet, once for
// each pair of versions. Takes some ten minutes on two cores the first time. Without Go or root on Linux it says so: a
// skip for a person, a failure in CI.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import process from 'node:process';
import { setTimeout as delay } from 'node:timers/promises';

import { cache, folder, HEADSCALE, isBuilt, obstacle, TAILSCALE } from './tailnet-programs.mjs';

/** Hundreds of modules are downloaded, each of which may fail; what has come is kept, and what is built too. */
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

/** Undefined, or what went wrong. */
async function install() {
  mkdirSync(cache, { recursive: true });
  const built = mkdtempSync(join(cache, 'building-'));
  try {
    process.stdout.write(`Building headscale ${HEADSCALE} and tailscaled ${TAILSCALE}, which may take ten minutes …\n`);
    if (!(await persistently(() => buildTailscale(built))))
      return 'tailscaled could not be built, for the reason above';
    if (!(await persistently(() => buildHeadscale(built)))) return 'headscale could not be built, for the reason above';
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
    process.stderr.write(`That failed; again in ${PAUSE_MS / 1000} s, ${left} more times at most.\n`);
    await delay(PAUSE_MS);
  }
}

function buildTailscale(built) {
  const packages = ['tailscaled', 'tailscale'].map((name) => `tailscale.com/cmd/${name}@v${TAILSCALE}`);
  return go(['install', ...packages], { env: { GOBIN: built } }).status === 0;
}

/** Not with `go install`: that asks for the list of all versions, to warn of a deprecation, which a mirror need not serve. */
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
    // Outside of any module.
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
