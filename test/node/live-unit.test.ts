import { existsSync } from 'node:fs';
import { appendFile, mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, test } from 'vitest';

import { LIST_PATH } from '../../src/discovery/tailnet/peer-list.ts';
import { freePort } from '../rig/ports.ts';
import { needSystemd, startServiceManager } from '../rig/programs/service-manager.ts';
import { until } from '../rig/wait.ts';
import { SELF } from './stage.ts';
import { tailscaled } from './tailscaled.ts';

const UNIT = 'opencode-mcp-node.service';
const SCRIPTS = fileURLToPath(new URL('../../scripts', import.meta.url));

test('under a real systemd the service is installed, survives SIGKILL and the end of tailscaled, and is removed', async (context) => {
  needSystemd(context);
  await using manager = await startServiceManager();
  const { home } = manager;
  const port = await freePort();
  const socketPath = join(home, 'tailscaled.sock');
  const settings = join(home, '.config', 'opencode-mcp', 'node.env');
  await mkdir(join(home, '.config', 'opencode-mcp'), { recursive: true });
  await writeFile(
    settings,
    `TAILSCALE_SOCKET=${socketPath}\nOPENCODE_NODE_PORT=${port}\nRELAY_REGISTRY_DIR=${join(home, 'registry')}\n`,
  );
  const install = (): Promise<string> => manager.run('sh', join(SCRIPTS, 'install-node.sh'));
  const property = (name: string): Promise<string> => manager.property(UNIT, name);
  const isServing = async (): Promise<boolean> =>
    await fetch(`http://${SELF}:${port}${LIST_PATH}`).then(
      ({ ok }) => ok,
      () => false,
    );

  const unitFile = join(home, '.config', 'systemd', 'user', UNIT);
  const links = join(home, '.config', 'systemd', 'user', 'default.target.wants');
  const installWith = (...env: readonly string[]): Promise<string> =>
    manager.run('env', ...env, 'sh', join(SCRIPTS, 'install-node.sh')).catch((error: unknown) => String(error));
  // `su` does not pass on the variables that lead to the user's systemd.
  const outputUnderSu = await installWith('-u', 'XDG_RUNTIME_DIR', '-u', 'DBUS_SESSION_BUS_ADDRESS');
  expect(outputUnderSu).toMatch(
    /nothing was installed\. Log in as root by ssh[^]*sudo sh '.*\/install-node.sh' --system root/,
  );
  // This folder has a Node that systemd cannot start.
  const brokenNodeDir = join(home, 'broken');
  await mkdir(brokenNodeDir);
  await writeFile(join(brokenNodeDir, 'node'), '#!/no/such/interpreter\n', { mode: 0o755 });
  const installWithBrokenNode = (): Promise<string> => installWith(`PATH=${brokenNodeDir}:${process.env['PATH']}`);
  expect(await installWithBrokenNode()).toContain('failed; nothing is left of it');
  expect([existsSync(unitFile), await readdir(links).catch(() => [])]).toEqual([false, []]);
  expect(await property('LoadState')).toBe('not-found');

  expect(await install()).toContain('Running');
  const firstPid = await property('MainPID');
  const firstTailscaled = await tailscaled(socketPath);
  await until('the service to serve once tailscaled runs', isServing);
  expect(await property('MainPID')).toBe(firstPid);

  process.kill(Number(firstPid), 'SIGKILL');
  await until('another process to serve', async () => (await property('MainPID')) !== firstPid && (await isServing()));
  expect(await property('NRestarts')).toBe('1');

  const secondPid = await property('MainPID');
  firstTailscaled.close();
  await until('the service to stop serving without tailscaled', async () => !(await isServing()));
  await tailscaled(socketPath);
  await until('the service to serve again', isServing);
  expect(await property('MainPID')).toBe(secondPid);

  // A restart cannot mend wrong settings, so systemd does not restart the service.
  const validSettings = await readFile(settings, 'utf8');
  await appendFile(settings, 'OPENCODE_NODE_PORT=nonsense\n');
  await manager.run('systemctl', '--user', 'restart', UNIT);
  await until('systemd to give up', async () => (await property('ActiveState')) === 'failed');
  expect([await property('SubState'), await property('ExecMainStatus')]).toEqual(['failed', '2']);

  await writeFile(settings, validSettings);
  const olderUnit = await readFile(unitFile, 'utf8');
  expect(await installWithBrokenNode()).toMatch(/failed; the older .*\.service is back/);
  expect(await readFile(unitFile, 'utf8')).toBe(olderUnit);
  await until('the older version to serve', isServing);
  expect(await readdir(join(home, '.config', 'systemd', 'user'))).toEqual(['default.target.wants', UNIT].toSorted());

  expect(await install()).toContain('Running');
  await until('the service to serve after an upgrade', isServing);
  expect(await readFile(settings, 'utf8')).toBe(validSettings);

  expect(await manager.run('sh', join(SCRIPTS, 'uninstall-node.sh'))).toContain('Removed');
  expect(await property('LoadState')).toBe('not-found');
  expect(await isServing()).toBe(false);
});
