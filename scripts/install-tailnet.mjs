// Builds what the suites of a real tailnet run: headscale, tailscaled and its command line, in .cache/tailnet, once for
// each pair of versions. Takes some ten minutes on two cores the first time. Without Go or root on Linux it says so: a
// skip for a person, a failure in CI.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import process from 'node:process';
import { fileURLToPath } from 'node:url';

const TAILSCALE = '1.98.10';
const HEADSCALE = '0.29.2';
const PROGRAMS = ['headscale', 'tailscale', 'tailscaled'];

const cache = join(dirname(dirname(fileURLToPath(import.meta.url))), '.cache', 'tailnet');
// Kept in step with test/rig/tailnet-programs.ts.
const folder = join(cache, `tailscale-${TAILSCALE}-headscale-${HEADSCALE}`);

if (!PROGRAMS.every((name) => existsSync(join(folder, name)))) {
  const reason = obstacle() ?? install();
  if (reason !== undefined) {
    process.stderr.write(`Skipped: the suites of a real tailnet: ${reason}.\n`);
    if (process.env.CI === 'true') process.exitCode = 1;
  }
}

function obstacle() {
  if (process.platform !== 'linux' || process.geteuid?.() !== 0) return 'they need root on Linux';
  if (go(['version'], { stdio: 'ignore' }).status !== 0) return 'they need Go 1.26.5 or newer on the PATH';
  return undefined;
}

/** Undefined, or what went wrong. */
function install() {
  mkdirSync(cache, { recursive: true });
  const built = mkdtempSync(join(cache, 'building-'));
  try {
    process.stdout.write(`Building headscale ${HEADSCALE} and tailscaled ${TAILSCALE} …\n`);
    const packages = ['tailscaled', 'tailscale'].map((name) => `tailscale.com/cmd/${name}@v${TAILSCALE}`);
    if (go(['install', ...packages], { env: { GOBIN: built } }).status !== 0) return 'tailscaled could not be built';
    if (!buildHeadscale(built)) return 'headscale could not be built';
    rmSync(folder, { recursive: true, force: true });
    renameSync(built, folder);
    return undefined;
  } finally {
    rmSync(built, { recursive: true, force: true });
  }
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
