import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chmod, mkdir, readdir, readFile, stat, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import process from 'node:process';
import { promisify } from 'node:util';
import { fileURLToPath } from 'node:url';

import { describe, expect, test } from 'vitest';

import { isSkipped, missingProgram } from '../rig/needed.ts';
import { tempDir } from '../rig/temp.ts';

const run = promisify(execFile);
const root = fileURLToPath(new URL('../../', import.meta.url));

/** The highest exposure that systemd may report for the system template. */
const MAX_EXPOSURE = 3;

/** Copies the package's files to a folder whose name needs quoting everywhere. */
async function copyPackage(os = 'Linux') {
  const temp = tempDir('opencode-mcp-units');
  const dest = join(temp.path, 'dest');
  const home = '/home/ada';
  const copy = join(temp.path, 'a "b" 100% $HOME & c|d');
  for (const folder of ['systemd', 'scripts', 'dist']) await mkdir(join(copy, folder), { recursive: true });
  for (const file of await readdir(join(root, 'systemd')))
    await writeFile(join(copy, 'systemd', file), await readFile(join(root, 'systemd', file)));
  for (const file of ['install-node.sh', 'uninstall-node.sh', 'opencode-mcp.node.plist']) {
    await writeFile(join(copy, 'scripts', file), await readFile(join(root, 'scripts', file)));
    await chmod(join(copy, 'scripts', file), 0o755);
  }
  await writeFile(join(copy, 'dist', 'opencode-mcp.js'), '');
  return {
    temp,
    dest,
    /** Runs a script of the copy, which only changes files below `dest`. */
    async run(script: string, ...args: readonly string[]) {
      const env = { PATH: process.env['PATH'] ?? '', HOME: home, DESTDIR: dest, OPENCODE_MCP_OS: os };
      return (await run(join(copy, 'scripts', script), args, { env })).stdout;
    },
    async files() {
      const entries = await readdir(dest, { recursive: true, withFileTypes: true }).catch(() => []);
      return entries
        .filter((entry) => !entry.isDirectory())
        .map((entry) => join(entry.parentPath, entry.name).slice(dest.length))
        .toSorted();
    },
    read: (path: string) => readFile(join(dest, path), 'utf8'),
    [Symbol.asyncDispose]: () => temp.close(),
  };
}

const USER_UNIT = '/home/ada/.config/systemd/user/opencode-mcp-node.service';
const USER_SETTINGS = '/home/ada/.config/opencode-mcp/node.env';
const TEMPLATE = '/etc/systemd/system/opencode-mcp-node@.service';
const SETTINGS = '/etc/opencode-mcp/node.env';
const PLIST = '/home/ada/Library/LaunchAgents/opencode-mcp.node.plist';

describe('the install script', () => {
  test('installs for a user, changes nothing the second time, and can be undone except for the settings', async () => {
    await using place = await copyPackage();
    await place.run('install-node.sh');
    expect(await place.files()).toEqual([USER_SETTINGS, USER_UNIT]);
    const first = await place.read(USER_UNIT);
    expect(first).toContain(String.raw`/a \"b\" 100%% $$HOME & c|d/dist/opencode-mcp.js" node`);
    expect((await stat(join(place.dest, USER_SETTINGS))).mode & 0o777).toBe(0o600);
    await writeFile(join(place.dest, USER_SETTINGS), 'OPENCODE_NODE_PORT=4094\n');
    await writeFile(join(place.dest, USER_UNIT), 'of an older version');
    await place.run('install-node.sh');
    expect(await place.read(USER_UNIT)).toBe(first);
    expect(await place.read(USER_SETTINGS)).toBe('OPENCODE_NODE_PORT=4094\n');
    expect(await place.run('uninstall-node.sh')).toContain('Removed');
    expect(await place.run('uninstall-node.sh')).toContain('is not installed');
    expect(await place.files()).toEqual([USER_SETTINGS]);
  });

  test('installs the system template for a user, which stays while another user has it enabled', async () => {
    await using place = await copyPackage();
    await place.run('install-node.sh', '--system', 'root');
    await place.run('install-node.sh', '--system', 'root');
    expect(await place.files()).toEqual([SETTINGS, TEMPLATE]);
    await expect(place.run('install-node.sh', '--system', 'no-such-user-here')).rejects.toThrow('there is no user');
    await expect(place.run('install-node.sh', '--system', '../root')).rejects.toThrow('expected a user name');
    await expect(place.run('install-node.sh', '--sytem')).rejects.toThrow('expected nothing or --system USER');
    const wants = join(place.dest, '/etc/systemd/system/multi-user.target.wants');
    await mkdir(wants);
    await symlink(TEMPLATE, join(wants, 'opencode-mcp-node@bob.service'));
    expect(await place.run('uninstall-node.sh', '--system', 'root')).toContain('Kept the template');
    expect(await place.files()).toContain(TEMPLATE);
  });

  test('prints only advice and installs nothing if the user’s systemd does not answer, and has --help', async () => {
    await using temp = tempDir('opencode-mcp-no-bus');
    const script = join(root, 'scripts', 'install-node.sh');
    const env = { PATH: process.env['PATH'] ?? '', HOME: temp.path, XDG_RUNTIME_DIR: join(temp.path, 'none') };
    const advice = existsSync('/run/systemd/system') ? '--system' : 'systemd does not run this machine';
    const failed = await run('sh', [script], { env }).catch((error: unknown) => String(error));
    expect(failed).toContain('nothing was installed');
    expect(failed).toContain(advice);
    expect(await readdir(temp.path)).toEqual(['tmp']);
    expect((await run('sh', [script, '--help'], { env })).stdout).toContain('install-node.sh --system USER');
  });

  test('installs a launch agent on macOS', async () => {
    await using place = await copyPackage('Darwin');
    await place.run('install-node.sh');
    expect(await place.files()).toEqual([PLIST]);
    const plist = await place.read(PLIST);
    expect(plist).toContain('a "b" 100% $HOME &amp; c|d/dist/opencode-mcp.js</string>');
    expect(plist).not.toMatch(/@[A-Z]+@/);
    await place.run('uninstall-node.sh');
    expect(await place.files()).toEqual([]);
  });
});

describe.skipIf(isSkipped(missingProgram('systemd-analyze')))('systemd', () => {
  test('reports no problem in the installed units', async () => {
    await using place = await copyPackage();
    await place.run('install-node.sh');
    await place.run('install-node.sh', '--system', 'root');
    const env = { ...process.env, XDG_RUNTIME_DIR: place.temp.tmp };
    for (const [scope, unit] of [
      ['--user', USER_UNIT],
      ['--system', TEMPLATE],
    ] as const) {
      const { stdout, stderr } = await run('systemd-analyze', [scope, 'verify', join(place.dest, unit)], { env });
      expect(stdout + stderr).toBe('');
    }
  });

  test(`rates the exposure of the template at most ${MAX_EXPOSURE}, although the template does not hide /tmp`, async () => {
    const unit = join(root, 'systemd', 'opencode-mcp-node@.service');
    const { stdout } = await run('systemd-analyze', ['security', '--offline=true', unit]);
    const exposure = Number(/Overall exposure level for \S+: ([\d.]+)/.exec(stdout)?.[1]);
    process.stdout.write(`exposure of the template: ${exposure}\n`);
    expect(exposure).toBeLessThanOrEqual(MAX_EXPOSURE);
    expect(await readFile(unit, 'utf8')).not.toMatch(/^PrivateTmp=(?!no)/m);
  });
});
